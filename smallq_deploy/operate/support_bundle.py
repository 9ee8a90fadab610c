"""One file with what support needs: findings, state, history, ends of logs, npu-smi; without secrets.

Only named files below known directories are read, each opened without following a link at any step, and only regular
ones. Libraries, kernels and packages are listed, never packed. The file is new, and only its owner can read it.
"""

from __future__ import annotations

import getpass
import gzip
import io
import json
import os
import platform
import re
import socket
import stat
import tarfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from smallq_deploy import __version__
from smallq_deploy.base.errors import SmallqError, UsageError, access_error
from smallq_deploy.base.events import Events
from smallq_deploy.base.fsops import walk_tree
from smallq_deploy.base.proc import run
from smallq_deploy.operate.built import data_home
from smallq_deploy.operate.doctor_redaction import Redactor
from smallq_deploy.store.generations import generation_numbers

if TYPE_CHECKING:
    from smallq_deploy.machine.environment import Environment
    from smallq_deploy.store.paths import Store

TOP = "smallq-support"
_TAIL = 128 * 1024  # bytes of each log
_WHOLE = 4 << 20  # bytes of each record
_LOGS = 6  # newest files of each kind
_LISTED = 5000  # entries of a vendor tree
_NPU_SMI = ("info", "info -l", "info -m")
_NPU_SMI_TIMEOUT = 20.0  # seconds
# Of the environment only what decides about CANN and this tool is taken.
_VARIABLES = re.compile(
    r"^(ASCEND_\w+|SMALLQ_\w+|TOOLCHAIN_HOME|LD_LIBRARY_PATH|LD_PRELOAD|PYTHONPATH|PATH|CMAKE_PREFIX_PATH|OPS_CPU_NUMBER"
    r"|XDG_\w+_HOME|CONDA_PREFIX|VIRTUAL_ENV|LANG|LC_ALL|SLURM_JOB_ID|SLURM_JOB_GPUS|HTTPS?_PROXY|NO_PROXY)$",
    re.IGNORECASE,
)
_NOTE = """\
Made by smallq-deploy {version} doctor --bundle at {time}.

Nothing in here was changed on the machine. Values that look like secrets (passwords, tokens, keys, credentials in URLs
and headers) were replaced by <redacted>: {redacted} values{anonymous}.
Look through the files before you send them: a secret of unknown form cannot be recognised.

Not included, because it could not be read:
{missing}
"""


@dataclass(frozen=True)
class Written:
    """The bundle that was written: names of its members, how many values were replaced, what could not be read."""

    path: Path
    members: tuple[str, ...]
    size: int
    redacted: int
    missing: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        return {
            "path": str(self.path),
            "members": list(self.members),
            "size": self.size,
            "redacted": self.redacted,
            "missing": list(self.missing),
        }


def refuse_existing(path: Path) -> None:
    """Raise UsageError SUPPORT_FILE_EXISTS for a name that is taken (also by a dangling link), NO_SUPPORT_DIRECTORY."""
    if os.path.lexists(path):
        raise UsageError("SUPPORT_FILE_EXISTS", f"{path} exists already", hint="name a file that does not exist")
    if not os.path.isdir(path.parent):
        raise UsageError("NO_SUPPORT_DIRECTORY", f"{path.parent} is no directory", hint="make it first")


def read_inside(root: Path, name: str, *, tail: int = 0) -> bytes:
    """A regular file below ``root``, no step of ``name`` through a link; with ``tail`` only its last bytes.

    Raises OSError: ELOOP or ENOTDIR for a link on the way, EISDIR and the like for what is no regular file.
    """
    parts = Path(name).parts
    if not parts or any(part in ("..", "/") for part in parts):
        raise OSError(f"{name} is not below {root}")
    folder = os.open(os.path.realpath(root), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for part in parts[:-1]:
            below = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
            os.close(folder)
            folder = below
        # O_NONBLOCK: opening a pipe that somebody put there must not wait for a writer.
        file = os.open(parts[-1], os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    finally:
        os.close(folder)
    with os.fdopen(file, "rb") as stream:
        info = os.fstat(stream.fileno())
        if not stat.S_ISREG(info.st_mode):
            raise OSError(f"{name} is no regular file")
        if not tail or info.st_size <= tail:
            return stream.read(tail or _WHOLE)
        stream.seek(info.st_size - tail)
        data = stream.read(tail)
    return b"[the beginning is left out]\n" + data.partition(b"\n")[2]


@dataclass
class _Collector:
    """The members of the bundle as they are found, redacted."""

    redactor: Redactor
    members: dict[str, bytes] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)

    def text(self, name: str, text: str) -> None:
        self.members[name] = self.redactor.text(text).encode("utf-8", "replace")

    def json(self, name: str, data: Any) -> None:
        plain = json.loads(json.dumps(data, default=str))
        self.members[name] = self.redactor.document(json.dumps(plain)).encode("utf-8", "replace")

    def file(self, name: str, root: Path, path: str, *, tail: int = 0) -> None:
        """The file ``root/path`` as member ``name``; one that is not there is no member."""
        try:
            text = read_inside(root, path, tail=tail).decode("utf-8", "replace")
        except FileNotFoundError:
            return
        except OSError as error:
            self.missing.append(f"{root / path}: {error.strerror or error}")
            return
        structured = text.lstrip()[:1] in ("{", "[")
        self.members[name] = (self.redactor.document(text) if structured else self.redactor.text(text)).encode(
            "utf-8", "replace"
        )


def write_bundle(
    path: Path,
    report: Mapping[str, Any],
    environment: Environment,
    store: Store | None,
    environ: Mapping[str, str],
    *,
    anonymous: bool = False,
    events: Events | None = None,
    root: Path = Path("/"),
) -> Written:
    """Write the bundle to the new file ``path`` (mode 600).

    ``report`` is doctor's data, ``environ`` the environment it examined. With ``anonymous`` host and user names, the
    home directory and network addresses are replaced too. Raises UsageError SUPPORT_FILE_EXISTS, NO_SUPPORT_DIRECTORY,
    and the typed form of an OSError.
    """
    refuse_existing(path)
    events = events or Events()
    redactor = Redactor.of_environment((os.environ, environ), _private() if anonymous else None)
    found = _Collector(redactor)
    with events.step("collect for support"):
        found.json("doctor.json", dict(report))
        found.json("detect.json", environment.to_dict())
        found.text("environment.txt", _environment_text(environ))
        found.text("machine.txt", _machine_text())
        for place in ("etc/ascend_install.info", "etc/os-release", "proc/version", "proc/meminfo"):
            found.file(f"machine/{Path(place).name}", root, os.path.relpath(os.path.realpath(root / place), root))
        if store is not None:
            _collect_store(found, store)
        _collect_logs(found)
        _collect_npu_smi(found, environment)
    _note(found, anonymous)
    size = _write(path, found.members)
    return Written(path, tuple(sorted(found.members)), size, redactor.count, tuple(found.missing))


def _private() -> dict[str, str]:
    """Names of this machine and its user, and what stands for them."""
    host = socket.gethostname()
    names = {host: "<host>", host.partition(".")[0]: "<host>", os.path.expanduser("~"): "<home>"}
    users = {os.environ.get("USER", ""), os.environ.get("SUDO_USER", ""), os.environ.get("LOGNAME", "")}
    try:
        users.add(getpass.getuser())
    except (OSError, KeyError):
        pass  # a user without a name
    names.update({user: "<user>" for user in users if user != "root"})
    return {name: stand_in for name, stand_in in names.items() if len(name) > 1 and name != "localhost"}


def _environment_text(environ: Mapping[str, str]) -> str:
    return "".join(f"{name}={value}\n" for name, value in sorted(environ.items()) if _VARIABLES.match(name))


def _machine_text() -> str:
    names = os.uname()
    lines = [
        f"smallq-deploy {__version__}, Python {platform.python_version()}",
        f"{names.sysname} {names.release} {names.machine}, host {names.nodename}, user id {os.geteuid()}",
        f"{os.cpu_count()} processors, {len(os.sched_getaffinity(0))} of them for this process",
    ]
    return "\n".join(lines) + "\n"


def _collect_store(found: _Collector, store: Store) -> None:
    vendors = store.vendors
    found.file("opp/config.ini", vendors, "config.ini")
    found.file("opp/version.info", store.opp, "version.info")
    found.file("opp/scene.info", store.opp, "scene.info")
    for name in ("state", "history", "journal", "owner"):
        found.file(f"store/{name}", store.root, name)
    try:
        for number in generation_numbers(store)[-50:]:
            found.file(f"store/generations/{number:04d}", store.generation_dir(number), "generation")
    except SmallqError as error:
        found.missing.append(error.message)
    for vendor in _names(vendors):
        if (vendors / vendor).is_dir() and not vendor.startswith(".") and not (vendors / vendor).is_symlink():
            found.file(f"opp/{vendor}/version.info", vendors / vendor, "version.info")
            found.file(f"opp/{vendor}/set_env.bash", vendors / vendor, "bin/set_env.bash")
            found.text(f"opp/{vendor}/files.txt", "\n".join(_listing(found, vendors / vendor)) + "\n")


def _names(folder: Path) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except OSError:
        return []


def _listing(found: _Collector, folder: Path) -> Iterator[str]:
    """One line an entry: mode, size, path, and where a link points. Contents are not read."""
    try:
        for count, (name, info) in enumerate(walk_tree(folder)):
            if count == _LISTED:
                yield "... and more"
                return
            target = f" -> {os.readlink(folder / name)}" if stat.S_ISLNK(info.st_mode) else ""
            yield f"{stat.filemode(info.st_mode)} {info.st_uid}:{info.st_gid} {info.st_size:>10} {name}{target}"
    except OSError as error:
        found.missing.append(f"{folder}: {error.strerror}")


def _newest(folder: Path, pattern: str) -> list[str]:
    """Names in ``folder`` that match, links left out, the newest few."""
    try:
        with os.scandir(folder) as entries:
            files = [
                (entry.stat(follow_symlinks=False).st_mtime, entry.name)
                for entry in entries
                if re.fullmatch(pattern, entry.name) and not entry.is_symlink()
            ]
    except OSError:
        return []
    return [name for _, name in sorted(files, reverse=True)[:_LOGS]]


def _collect_logs(found: _Collector) -> None:
    """Ends of our own build logs, of packages kept here, and of the runtime's logs of this user (cann.md 7.3)."""
    kept = data_home()
    for name in _newest(kept / "logs", r"build-.*\.log"):
        found.file(f"logs/build/{name}", kept / "logs", name, tail=_TAIL)
    for name in _newest(kept / "packages", r"[0-9a-f]{8,}"):
        for part in ("build.log", "provenance.json"):
            found.file(
                f"packages/{name}/{part}", kept / "packages", f"{name}/{part}", tail=_TAIL if part[0] == "b" else 0
            )
    work = os.environ.get("ASCEND_WORK_PATH")
    plog = os.environ.get("ASCEND_PROCESS_LOG_PATH") or (os.path.join(work, "log") if work else "")
    base = Path(plog or os.path.join(os.path.expanduser("~"), "ascend", "log"))
    for kind in ("debug", "run"):
        for name in _newest(base / kind / "plog", r"plog-.*\.log"):
            found.file(f"logs/plog/{kind}/{name}", base, f"{kind}/plog/{name}", tail=_TAIL)


def _collect_npu_smi(found: _Collector, environment: Environment) -> None:
    """What npu-smi prints, by the program that answered when devices were looked for."""
    program = environment.devices.sources.get("npus", "").partition(" ")[0]
    if os.path.basename(program) != "npu-smi" or not os.path.isfile(program):
        found.text("npu-smi.txt", "npu-smi was not found, or did not answer\n")
        return
    roots = [environment.toolkit.install_root] if environment.toolkit is not None else []
    roots.append(Path("/usr/local/Ascend"))
    libraries = [str(root / "driver/lib64" / part) for root in roots for part in ("", "common", "driver")]
    env = {"PATH": os.environ.get("PATH", os.defpath), "HOME": os.environ.get("HOME", "/"), "LC_ALL": "C"}
    env["LD_LIBRARY_PATH"] = ":".join(part for part in libraries if os.path.isdir(part))
    parts = []
    for words in _NPU_SMI:
        done = run([program, *words.split()], env=env, cwd="/", timeout=_NPU_SMI_TIMEOUT)
        parts.append(f"$ npu-smi {words}    ({done.describe()})\n{done.stdout}{done.stderr}\n")
    found.text("npu-smi.txt", "\n".join(parts))


def _note(found: _Collector, anonymous: bool) -> None:
    more = ", and names of host and users and network addresses by others" if anonymous else ""
    missing = "\n".join(f"  {line}" for line in found.missing) or "  nothing"
    text = _NOTE.format(
        version=__version__,
        time=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        redacted=found.redactor.count,
        anonymous=more,
        missing=found.redactor.text(missing),
    )
    found.members["README.txt"] = text.encode("utf-8", "replace")


def _write(path: Path, members: Mapping[str, bytes]) -> int:
    """A new file of mode 600 that holds the members; nothing is left behind where it cannot be written."""
    try:
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        hint = "name a file that does not exist"
        raise UsageError("SUPPORT_FILE_EXISTS", f"{path} exists already", hint=hint) from None
    except OSError as error:
        raise access_error(error, f"write {path}") from error
    try:
        with os.fdopen(file, "wb") as stream:
            os.fchmod(stream.fileno(), 0o600)
            with gzip.GzipFile(filename="", fileobj=stream, mode="wb") as packed:
                with tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive:
                    for name, data in sorted(members.items()):
                        entry = tarfile.TarInfo(f"{TOP}/{name}")
                        entry.size, entry.mode, entry.mtime = len(data), 0o600, int(time.time())
                        archive.addfile(entry, io.BytesIO(data))
            stream.flush()
            os.fsync(stream.fileno())
            return stream.tell()
    except BaseException as error:
        os.unlink(path)
        if isinstance(error, OSError):
            raise access_error(error, f"write {path}") from error
        raise
