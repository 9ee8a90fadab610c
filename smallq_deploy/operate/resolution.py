"""What a process with a given environment would get for an operator: tiling from where, kernels from where, symbols
from where.

The order of directories is smoke/resolve.py's (cann.md 6.1: ASCEND_CUSTOM_OPP_PATH, config.ini, built-in). Within it
the first directory whose tiling library registers the operator gives the tiling, while kernels of *every* directory are
added: that is how two copies of one operator get mixed. Programs linked against libcust_opapi.so take the first one on
LD_LIBRARY_PATH, whatever that order says (cann.md 7.1).
"""

from __future__ import annotations

import json
import os
import platform
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from smallq_deploy.base.errors import AccessError, UsageError
from smallq_deploy.machine.facts import read_key_values
from smallq_deploy.package.vendortree import TBE, ops_of_vendor
from smallq_deploy.smoke import resolve

TILING = "libcust_opmaster_rt2.0.so"
BUILT_IN = "built into CANN"
_ENVIRONMENT_LIMIT = 4 << 20
_INDEX_LIMIT = 64 << 20


@dataclass(frozen=True)
class Source:
    """One directory that the runtime looks in for the operator, in its order.

    ``origin``: ASCEND_CUSTOM_OPP_PATH, the path of config.ini, or BUILT_IN. ``tiling``: its tiling library names the
    operator; ``kernels``: how many of its kernels the index has; ``symbols``: its library has the aclnn functions.
    """

    path: Path
    origin: str
    exists: bool
    registers: bool
    tiling: bool
    kernels: int
    symbols: bool

    def to_dict(self) -> dict[str, Any]:
        return {
            "path": str(self.path),
            "origin": self.origin,
            "exists": self.exists,
            "registers": self.registers,
            "tiling": self.tiling,
            "kernels": self.kernels,
            "symbols": self.symbols,
        }


@dataclass(frozen=True)
class Resolution:
    """The answer for one operator. ``passed_over`` are entries of ASCEND_CUSTOM_OPP_PATH that do not exist: the runtime
    skips them without a word. ``linked`` is what a program linked with -lcust_opapi loads (None: nothing)."""

    operator: str
    opp: Path | None
    unit: str
    arch: str
    sources: tuple[Source, ...]
    passed_over: tuple[str, ...]
    linked: Path | None
    linked_has_symbols: bool

    @property
    def tiling(self) -> Path | None:
        """The directory whose tiling functions are used: the first that registers them."""
        return next((item.path for item in self.sources if item.tiling), None)

    @property
    def kernels(self) -> tuple[Path, ...]:
        """Every directory that adds kernels, in order."""
        return tuple(item.path for item in self.sources if item.kernels)

    @property
    def symbols(self) -> Path | None:
        """The directory of the library that gives the aclnn functions, by the runtime's order."""
        return next((item.path for item in self.sources if item.symbols), None)

    @property
    def mixed(self) -> bool:
        """True when the parts do not all come from one directory."""
        parts = {self.tiling, self.symbols, *self.kernels} - {None}
        return len({os.path.realpath(part) for part in parts if part is not None}) > 1

    def sentence(self) -> str:
        """The answer in words."""
        kernels = " and ".join(map(str, self.kernels)) or "nowhere"
        return (
            f"for operator {self.operator}, a process with this environment loads tiling from "
            f"{self.tiling or 'nowhere'}, kernels from {kernels}, symbols from {self.symbols or 'nowhere'}"
        )

    def to_dict(self) -> dict[str, Any]:
        return {
            "operator": self.operator,
            "opp": str(self.opp) if self.opp else None,
            "unit": self.unit,
            "arch": self.arch,
            "tiling": str(self.tiling) if self.tiling else None,
            "kernels": [str(path) for path in self.kernels],
            "symbols": str(self.symbols) if self.symbols else None,
            "linked": str(self.linked) if self.linked else None,
            "linked_has_symbols": self.linked_has_symbols,
            "mixed": self.mixed,
            "sources": [item.to_dict() for item in self.sources],
            "passed_over": list(self.passed_over),
        }


def scene(home: Path | None, opp: Path) -> tuple[str, str]:
    """(os, architecture) by which the runtime names directories, from the scene.info it reads (cann.md 6.1)."""
    places = [home / "share/info" / name / "scene.info" for name in ("opbase", "ops_base")] if home else []
    for place in (*places, opp / "scene.info"):
        found = read_key_values(place) or {}
        if found.get("arch"):
            return found.get("os") or "linux", found["arch"]
    return "linux", platform.machine()


def kernel_count(root: Path, operator: str, unit: str) -> int:
    """Kernels of ``operator`` that the index of a vendor directory (or of built-in) lists for ``unit``."""
    index = root / TBE / "kernel" / "config" / unit / "binary_info_config.json"
    try:
        if not unit or index.stat().st_size > _INDEX_LIMIT:
            return 0
        content = json.loads(index.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return 0
    entry = content.get(operator) if isinstance(content, dict) else None
    listed = entry.get("binaryList") if isinstance(entry, dict) else None
    return len(listed) if isinstance(listed, list) else 0


def _names(library: Path, text: bytes) -> bool:
    try:
        return os.path.isfile(library) and text in library.read_bytes()
    except OSError:
        return False


def resolve_operator(operator: str, environ: Mapping[str, str], *, unit: str) -> Resolution:
    """What a process with ``environ`` gets for ``operator`` on a device of ``unit``; reads files, runs nothing."""
    passed_over = tuple(
        entry for entry in environ.get("ASCEND_CUSTOM_OPP_PATH", "").split(":") if entry and not os.path.isdir(entry)
    )
    linked = next(
        (
            Path(folder, resolve.OPAPI.name)
            for folder in environ.get("LD_LIBRARY_PATH", "").split(":")
            if folder and os.path.isfile(os.path.join(folder, resolve.OPAPI.name))
        ),
        None,
    )
    has = linked is not None and _names(linked, f"aclnn{operator}GetWorkspaceSize\0".encode())
    text = environ.get("ASCEND_OPP_PATH", "")
    if not text:
        return Resolution(operator, None, unit, platform.machine(), (), passed_over, linked, has)
    opp = Path(text)
    home = Path(environ["ASCEND_HOME_PATH"]) if environ.get("ASCEND_HOME_PATH") else None
    system, arch = scene(home, opp)
    sources = []
    for base in resolve.bases(operator, opp, environ):
        library = base.path / TBE / "op_tiling" / "lib" / system / arch / TILING
        sources.append(
            Source(
                base.path,
                base.origin,
                base.exists,
                operator in ops_of_vendor(base.path),
                _names(library, operator.encode() + b"\0"),
                kernel_count(base.path, operator, unit),
                base.has_operator,
            )
        )
    latest = home / "opp_latest" if home is not None else None
    built_in = (latest if latest is not None and latest.is_dir() else opp) / "built-in"
    # An operator that CANN itself has is complete in CANN's own libraries, so its registration is enough.
    if operator in ops_of_vendor(built_in):
        count = kernel_count(built_in, operator, unit)
        sources.append(Source(built_in, BUILT_IN, True, True, True, count, True))
    return Resolution(operator, opp, unit, arch, tuple(sources), passed_over, linked, has)


def graph_vendors(config_ini: Path) -> tuple[str, ...]:
    """Vendor names as the graph engine reads them: from the first line only, trimmed (cann.md 6.2)."""
    try:
        first = config_ini.read_text(encoding="utf-8", errors="surrogateescape").split("\n", 1)[0]
    except OSError:
        return ()
    key, equals, names = first.partition("=")
    if not equals or key.lstrip().startswith("#"):
        return ()
    return tuple(name.strip() for name in names.split(",") if name.strip())


def read_environment(source: str) -> tuple[dict[str, str], str]:
    """The environment that ``--environment`` names: (variables, where it is from).

    ``source`` is a process id, or a file: a copy of /proc/PID/environ, or lines as ``env`` or ``export -p`` print them.
    Raises UsageError NO_SUCH_ENVIRONMENT, BAD_ENVIRONMENT; AccessError NO_PERMISSION for somebody else's process.
    """
    is_pid = source.isdigit() and not os.path.exists(source)
    path = Path("/proc", source, "environ") if is_pid else Path(source)
    what = f"process {source}" if is_pid else str(path)
    hint = "give the number of a running process, or a file with the output of `env`"
    try:
        if not is_pid and not path.is_file():
            raise UsageError("NO_SUCH_ENVIRONMENT", f"--environment {source}: no such process or file", hint=hint)
        with open(path, "rb") as stream:
            raw = stream.read(_ENVIRONMENT_LIMIT)
    except PermissionError as error:
        raise AccessError(
            "NO_PERMISSION", f"no permission to read the environment of {what}", hint="run as its owner or as root"
        ) from error
    except OSError as error:
        raise UsageError("NO_SUCH_ENVIRONMENT", f"--environment {source}: {error.strerror}", hint=hint) from error
    text = raw.decode("utf-8", "replace")
    found = dict(_variables(text.split("\0") if "\0" in text or is_pid else text.splitlines(), shell="\0" not in text))
    if not found:
        raise UsageError("BAD_ENVIRONMENT", f"--environment {source} holds no NAME=VALUE", hint=hint)
    return found, f"{what} (as it was started{_elsewhere(source)})" if is_pid else what


def _elsewhere(pid: str) -> str:
    """What to add of a process that sees other files than this one."""
    try:
        same = os.readlink(f"/proc/{pid}/ns/mnt") == os.readlink("/proc/self/ns/mnt")
    except OSError:
        return ""
    return "" if same else "; it is in a container or mount namespace, whose files were not looked at"


def _variables(items: list[str], *, shell: bool) -> list[tuple[str, str]]:
    """NAME=VALUE pairs; with ``shell`` also ``export NAME="VALUE"`` and ``declare -x NAME="VALUE"``."""
    pairs = []
    for item in items:
        name, equals, value = item.partition("=")
        words = name.split()
        exported = shell and len(words) > 1 and words[0] in ("export", "declare")
        if exported:
            name = words[-1]
            try:
                value = "".join(shlex.split(value))
            except ValueError:
                continue
        if equals and name and (name[0].isalpha() or name[0] == "_") and name.replace("_", "a").isalnum():
            pairs.append((name, value))
    return pairs
