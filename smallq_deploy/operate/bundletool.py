"""What a bundle carries besides packages: the tool with all it stands on, in pure Python, and interpreters."""

from __future__ import annotations

import io
import os
import sys
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import IO

import smallq_deploy
from smallq_deploy.base.errors import PackageError, UsageError, access_error
from smallq_deploy.base.fsops import sha256_file
from smallq_deploy.base.proc import run
from smallq_deploy.operate.bundlefile import MAX_MEMBERS
from smallq_deploy.package.data import data_root
from smallq_deploy.package.elf import HEADER_BYTES, machine_name

PROGRAM = "smallq-deploy"
PYTHONS = ("3.10", "3.11", "3.12", "3.13", "3.14")
_COMPILED = (".so", ".pyd", ".pyc")
# Of a distribution's own records only these travel: the others name places of the machine that made the bundle.
_RECORDS = ("METADATA", "entry_points.txt", "licenses", "LICENSE", "LICENCE", "COPYING", "NOTICE", "AUTHORS")
# Imports every module that a bare Python must be able to import, those of the tool and of what it stands on.
_PROOF = """
import importlib, pkgutil, sys
sys.path.insert(0, sys.argv[1])
for name in sys.argv[2:]:
    importlib.import_module(name)
import smallq_deploy
for found in pkgutil.walk_packages(smallq_deploy.__path__, "smallq_deploy."):
    if not found.name.endswith("__main__") and ".native" not in found.name:
        importlib.import_module(found.name)
"""
_IMPORTED = ("click", "packaging.version", "yaml", "requests", "rich.console", "elftools.elf.elffile")


@dataclass(frozen=True)
class Item:
    """One member to be: its bytes, or the file they are in."""

    name: str
    content: bytes | Path
    executable: bool = False
    packed: bool = True

    def open(self) -> IO[bytes]:
        return io.BytesIO(self.content) if isinstance(self.content, bytes) else open(self.content, "rb")

    @property
    def size(self) -> int:
        return len(self.content) if isinstance(self.content, bytes) else self.content.stat().st_size


def main_module() -> bytes:
    return (Path(smallq_deploy.__file__).parent / "cli" / "bundle_main.py").read_bytes()


def tool_items() -> tuple[list[tuple[str, str]], list[Item]]:
    """The tool as this process runs it, and every distribution it needs on any Python from 3.10 on."""
    found = _distributions()
    items: dict[str, Item] = {}
    for distribution in found:
        name = distribution.metadata["Name"]
        own = _normal(name) == PROGRAM
        for item in _own_items() if own else ():
            items[item.name] = item
        for item in _distribution_items(distribution, records_only=own):
            items.setdefault(item.name, item)
    versions = sorted((_normal(item.metadata["Name"]), item.version) for item in found)
    return versions, list(items.values())


def _normal(name: str) -> str:
    from packaging.utils import canonicalize_name

    return canonicalize_name(name)


def _distributions() -> list[metadata.Distribution]:
    """smallq-deploy and what it requires, transitively, on Linux with any of PYTHONS."""
    from packaging.requirements import Requirement

    environments = [
        {"python_version": version, "python_full_version": f"{version}.0", "sys_platform": "linux", "extra": ""}
        for version in PYTHONS
    ]
    found: dict[str, metadata.Distribution] = {}
    queue = [PROGRAM]
    while queue:
        name = queue.pop()
        if name in found:
            continue
        try:
            distribution = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            raise PackageError(
                "BUNDLE_INCOMPLETE",
                f"the distribution {name}, which the tool needs, is not installed here",
                hint=f"install it into {sys.prefix}, with pip",
            ) from None
        found[name] = distribution
        for text in distribution.requires or ():
            need = Requirement(text)
            if need.marker is None or any(need.marker.evaluate(dict(values)) for values in environments):
                queue.append(_normal(need.name))
    return [found[name] for name in sorted(found)]


def _own_items() -> Iterator[Item]:
    package = Path(smallq_deploy.__file__).resolve().parent
    for path in _files(package):
        inner = path.relative_to(package)
        if inner.parts[0] != "_data":
            yield _file_item(f"tool/smallq_deploy/{inner.as_posix()}", path)
    root = data_root()
    for part in ("manifests", "src_op"):
        for path in _files(root / part):
            yield _file_item(f"tool/smallq_deploy/_data/{path.relative_to(root).as_posix()}", path)


def _files(root: Path) -> Iterator[Path]:
    for directory, folders, files in os.walk(root):
        folders[:] = sorted(name for name in folders if name != "__pycache__" and not name.startswith("."))
        for name in sorted(files):
            path = Path(directory, name)
            if not name.startswith(".") and not name.endswith(_COMPILED) and path.is_file() and not path.is_symlink():
                yield path


def _file_item(name: str, path: Path) -> Item:
    return Item(name, path, executable=os.access(path, os.X_OK))


def _distribution_items(distribution: metadata.Distribution, *, records_only: bool) -> Iterator[Item]:
    """Pure Python and data of a distribution; compiled parts stay behind (they are speed-ups, which prove() shows)."""
    files = distribution.files
    if files is None:
        raise PackageError(
            "BUNDLE_INCOMPLETE",
            f"the distribution {distribution.metadata['Name']} has no list of its files",
            hint="make the bundle from an environment that pip installed (python3 -m venv)",
        )
    taken = []
    info = ""
    for name in sorted(files):
        parts = name.parts
        if ".." in parts or name.is_absolute() or "__pycache__" in parts or name.name.endswith(_COMPILED):
            continue
        if parts[0].endswith(".dist-info"):
            info = parts[0]
            if not parts[1].startswith(_RECORDS):
                continue
        elif records_only or name.suffix == ".pth":
            continue
        path = Path(str(distribution.locate_file(name)))
        if path.is_file():
            taken.append(name.as_posix())
            yield Item(f"tool/{name.as_posix()}", path)
    if info:
        # So that a bundle can be made from a bundle.
        lines = "".join(f"{name},,\n" for name in [*taken, f"{info}/RECORD"])
        yield Item(f"tool/{info}/RECORD", lines.encode())


def runtime_record(path: Path) -> dict[str, str]:
    """A tarball with a Python: where its interpreter is and for which architecture. Raises PackageError BAD_RUNTIME."""

    def bad(why: str) -> PackageError:
        return PackageError(
            "BAD_RUNTIME",
            f"{path} is no Python runtime: {why}",
            hint="a tar file that holds .../bin/python3 of a relocatable Python 3.10 or newer",
        )

    try:
        with tarfile.open(path) as archive:
            members = archive.getmembers()
            if len(members) > MAX_MEMBERS:
                raise bad("it has too many members")
            for member in members:
                _check_runtime_member(member, bad)
            names = [item for item in members if item.name.removeprefix("./").endswith("bin/python3")]
            if len(names) != 1:
                raise bad(f"it holds {len(names)} files bin/python3, not one")
            stream = archive.extractfile(names[0])
            arch = machine_name(stream.read(HEADER_BYTES)) if stream is not None else ""
    except (tarfile.TarError, EOFError, KeyError) as error:
        raise bad(str(error)) from error
    except FileNotFoundError:
        raise UsageError("PACKAGE_NOT_FOUND", f"{path} does not exist", hint="check the path") from None
    except OSError as error:
        raise access_error(error, f"read the Python runtime {path}") from error
    if not arch:
        raise bad("its bin/python3 is no program for x86_64 or aarch64")
    name = f"python/{sha256_file(path)[:12]}/{path.name}"
    return {"path": name, "arch": arch, "interpreter": names[0].name.removeprefix("./")}


def _check_runtime_member(member: tarfile.TarInfo, bad: Callable[[str], PackageError]) -> None:
    name = member.name
    if name.startswith("/") or ".." in name.split("/") or not name.isprintable():
        raise bad(f"it holds {name!r:.80}")
    if not (member.isreg() or member.isdir() or member.issym() or member.islnk()):
        raise bad(f"{name} is no file, directory or link")
    if member.issym():
        target = os.path.normpath(os.path.join(os.path.dirname(name), member.linkname))
        if member.linkname.startswith("/") or target.startswith(".."):
            raise bad(f"{name} links to {member.linkname!r:.80}, outside of it")


def prove(bundle: Path, scratch: Path) -> None:
    """Run the bundle on an interpreter without any installed distribution. Raises PackageError BUNDLE_INCOMPLETE."""
    env = {"PATH": os.environ.get("PATH", os.defpath), "HOME": str(scratch), "XDG_CACHE_HOME": str(scratch / "cache")}
    python = [sys.executable, "-I", "-S", "-B"]
    done = run([*python, bundle, "--version"], env=env, cwd=scratch, timeout=120.0)
    if done.ok:
        (tool,) = (scratch / "cache" / PROGRAM).glob("tool-*")
        done = run([*python, "-c", _PROOF, tool, *_IMPORTED], env=env, cwd=scratch, timeout=120.0)
    if not done.ok:
        raise PackageError(
            "BUNDLE_INCOMPLETE",
            f"the bundle does not run on a bare Python: it {done.describe()}",
            hint="the lines below name what is missing in this environment: " + (done.tail(3) or "none"),
            details={"output": done.tail()},
        )
