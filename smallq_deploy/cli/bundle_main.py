# ruff: noqa: UP032, UP035
"""``__main__`` of an offline bundle: unpack the tool once, then run it. A copy of this file starts every bundle.

It must be readable by any Python from 3.6 on and import nothing but the standard library: on an older Python than the
tool needs it goes on with the interpreter that the bundle carries, or with a newer one of this machine.
"""

import atexit
import hashlib
import json
import os
import platform
import shutil
import stat
import sys
import tarfile
import tempfile
import zipfile
import zlib
from typing import Callable, NoReturn

MINIMUM = (3, 10)
NEWEST = 20  # python3.20 down to python3.10 are looked for
SUMS = "SHA256SUMS"
INDEX = "bundle.json"
TOOL = "tool/"
OWN = "SMALLQ_DEPLOY_STARTED_FROM"  # what cli/bundle.py takes the package from
STARTED = "SMALLQ_DEPLOY_BUNDLE_STARTED"


def stop(status: int, message: str, hint: str) -> NoReturn:
    """End as the tool itself does: what failed, what to do, and an exit status of its table."""
    sys.stderr.write("error: {}\nhint: {}\n".format(message, hint))
    sys.exit(status)


def damaged(bundle: str, why: object) -> NoReturn:
    stop(5, "{} is damaged: {}".format(bundle, why), "copy it again and compare its sha256")


def read_sums(archive: zipfile.ZipFile) -> "tuple[dict[str, str], str]":
    """name -> sha256 of every member, and the digest of that list."""
    raw = archive.read(SUMS)
    lines = raw.decode("utf-8").splitlines()
    return {line[66:]: line[:64] for line in lines}, hashlib.sha256(raw).hexdigest()


def cache_base() -> "str | None":
    """A directory only we can have written in, else None."""
    home = os.path.expanduser("~")
    base = os.environ.get("XDG_CACHE_HOME") or (os.path.join(home, ".cache") if os.path.isdir(home) else "")
    if not os.path.isabs(base):
        return None
    base = os.path.join(base, "smallq-deploy")
    place = base
    while not os.path.lexists(place):
        place = os.path.dirname(place)
    info = os.stat(place)
    if info.st_uid != os.geteuid() or info.st_mode & 0o022 or not os.access(place, os.W_OK | os.X_OK):
        return None
    return base


def ours(folder: str) -> bool:
    """Is this a real directory that nobody else can write to?"""
    try:
        info = os.lstat(folder)
    except OSError:
        return False
    return stat.S_ISDIR(info.st_mode) and info.st_uid == os.geteuid() and not info.st_mode & 0o022


def settle(name: str, fill: "Callable[[str], None]") -> str:
    """The directory ``name`` of the cache, filled by ``fill(path)`` in one step when it is not there yet."""
    base = cache_base()
    if base is not None:
        folder = os.path.join(base, name)
        if ours(folder):
            return folder
        try:
            os.makedirs(base, 0o700, exist_ok=True)
            fresh = tempfile.mkdtemp(prefix=".new-", dir=base)
        except OSError:
            base = None
    if base is None:
        fresh = tempfile.mkdtemp(prefix="smallq-deploy-")
        atexit.register(shutil.rmtree, fresh, True)
        fill(fresh)
        return fresh
    try:
        fill(fresh)
        try:
            os.rename(fresh, folder)
        except OSError:
            # Another process was quicker, or something that is not ours stands there.
            if not ours(folder):
                atexit.register(shutil.rmtree, fresh, True)
                return fresh
            shutil.rmtree(fresh, True)
        return folder
    except BaseException:
        shutil.rmtree(fresh, True)
        raise


def copy_checked(archive: zipfile.ZipFile, name: str, sums: "dict[str, str]", target: str) -> None:
    """Write member ``name`` to ``target``; its content must have the listed sha256."""
    digest = hashlib.sha256()
    os.makedirs(os.path.dirname(target), exist_ok=True)
    with archive.open(name) as source, open(target, "wb") as out:
        for chunk in iter(lambda: source.read(1 << 20), b""):
            digest.update(chunk)
            out.write(chunk)
    if digest.hexdigest() != sums.get(name):
        raise ValueError("{} has another sha256 than {} says".format(name, SUMS))


def unpack_tool(archive: zipfile.ZipFile, sums: "dict[str, str]", key: str) -> str:
    def fill(folder: str) -> None:
        for info in archive.infolist():
            name = info.filename
            if not name.startswith(TOOL):
                continue
            inner = name[len(TOOL) :]
            if ".." in inner.split("/") or inner.startswith("/"):
                raise ValueError("{!r} leads out of the bundle".format(name))
            target = os.path.join(folder, inner)
            copy_checked(archive, name, sums, target)
            if (info.external_attr >> 16) & 0o100:
                os.chmod(target, 0o755)  # noqa: S103

    return settle("tool-" + key[:24], fill)


def unpack_runtime(archive: zipfile.ZipFile, sums: "dict[str, str]", entry: "dict[str, str]") -> str:
    """The interpreter that the bundle carries for this machine."""

    def fill(folder: str) -> None:
        tarball = os.path.join(folder, "runtime.tar")
        copy_checked(archive, entry["path"], sums, tarball)
        with tarfile.open(tarball) as stream:
            # bundle create refused links that lead out, devices and absolute names.
            if hasattr(tarfile, "tar_filter"):
                stream.extractall(folder, filter="tar")
            else:
                stream.extractall(folder)  # noqa: S202
        os.unlink(tarball)

    folder = settle("python-" + sums[entry["path"]][:24], fill)
    return os.path.join(folder, *entry["interpreter"].split("/"))


def restart(bundle: str, archive: zipfile.ZipFile, sums: "dict[str, str]") -> NoReturn:
    """Go on with a Python that is new enough; does not return."""
    mine = "{}.{}".format(*sys.version_info[:2])
    wanted = "{}.{}".format(*MINIMUM)
    if os.environ.get(STARTED):
        stop(2, "the Python of the bundle is {}, {} is needed".format(mine, wanted), "make the bundle again")
    index = json.loads(archive.read(INDEX).decode("utf-8"))
    found = None
    for entry in index["runtimes"]:
        if entry["arch"] == platform.machine():
            found = unpack_runtime(archive, sums, entry)
    minor = NEWEST
    while found is None and minor >= MINIMUM[1]:
        found = shutil.which("python3.{}".format(minor))
        minor -= 1
    if found is None:
        stop(
            2,
            "this is Python {}, smallq-deploy needs {} or newer, and the bundle carries none for {}".format(
                mine, wanted, platform.machine()
            ),
            "run it with a newer Python, or make the bundle with --python-runtime",
        )
    os.environ[STARTED] = "1"
    sys.stdout.flush()
    os.execv(found, [found, "-I", bundle] + sys.argv[1:])  # noqa: S606, RUF005


def main() -> None:
    bundle = os.path.abspath(os.path.dirname(os.path.abspath(__file__)))
    try:
        with zipfile.ZipFile(bundle) as archive:
            sums, key = read_sums(archive)
            if sys.version_info[:2] < MINIMUM:
                restart(bundle, archive, sums)
            folder = unpack_tool(archive, sums, key)
    except (ValueError, KeyError, zipfile.BadZipFile, zlib.error, tarfile.TarError, EOFError) as error:
        damaged(bundle, error)
    except OSError as error:
        stop(14, "cannot unpack the tool: {}".format(error), "set XDG_CACHE_HOME to a directory of yours with space")
    os.environ.pop(STARTED, None)
    os.environ[OWN] = bundle
    sys.path[0] = folder
    from smallq_deploy.__main__ import main as tool

    tool()


if __name__ == "__main__":
    main()
