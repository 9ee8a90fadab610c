"""Static checks of a vendor tree: does everything an aclnn call needs lie where CANN looks, and fit together?

The list is cann.md 13 item 10; where CANN looks is cann.md 6.1.
"""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from smallq_deploy.base.errors import PackageError, access_error
from smallq_deploy.base.fsops import sha256_file, walk_tree
from smallq_deploy.package.elf import HEADER_BYTES, machine_name, read_elf
from smallq_deploy.package.vendortree import API_LIBRARY, SET_ENV, TBE, inspect_vendor, ops_of_vendor, snake_case

_JSON_LIMIT = 32 << 20


@dataclass(frozen=True)
class Finding:
    """Something that is not as it should be. ``severity``: ``fail`` (the operator will not work) or ``warn``.

    ``path`` is relative to the vendor directory, or absolute where it lies outside.
    """

    code: str
    severity: str
    message: str
    hint: str = ""
    path: str = ""

    def to_dict(self) -> dict[str, Any]:
        return {
            "code": self.code,
            "severity": self.severity,
            "message": self.message,
            "hint": self.hint,
            "path": self.path,
        }


_REINSTALL = "install the package again, or build it again when it comes out the same"


def validate_vendor(
    root: Path,
    *,
    operator: str,
    unit: str = "",
    arch: str = "",
    vendor: str = "",
    final: Path | None = None,
    symbols: Sequence[str] = (),
    files: Sequence[str] = (),
) -> tuple[Finding, ...]:
    """Check the vendor directory ``root`` for ``operator``; an empty tuple means that nothing was found.

    ``unit`` and ``arch`` are what the machine needs ('' = whatever the tree has). ``final`` is where a staged tree will
    live; without it the tree is taken to live at ``root``. ``symbols`` and ``files`` are what a release requires on top
    (``required_symbols``, ``files_for(...)``). Reads every library and kernel; changes nothing. Raises AccessError when
    the tree cannot be read.
    """
    try:
        tree = inspect_vendor(root)
        if tree.layout in ("absent", "empty"):
            where = f"{root} holds no operator files" if tree.layout == "empty" else f"{root} does not exist"
            return (Finding("NO_VENDOR_TREE", "fail", where, "install a package"),)
        found: list[Finding] = []
        if tree.layout in ("nested", "both"):
            found.append(_layout(root, tree.layout, tree.inner, vendor or root.name))
        if tree.layout != "nested":
            units = (unit,) if unit else tree.units
            found += _operator(root, operator, units)
            found += _library(root, operator, symbols)
            found += _architecture(root, arch)
            for name in units:
                found += _kernels(root, operator, name)
            named = {finding.path for finding in found}
            found += (
                Finding("MISSING_FILE", "fail", f"{name} is missing, which the release requires", _REINSTALL, name)
                for name in files
                if name not in named and not (root / name).is_file()
            )
        found += _links_and_modes(root)
        found += _set_env(root, final)
        found += _place(final or root)
    except OSError as error:
        raise access_error(error, f"check the vendor directory {root}") from error
    return tuple(found)


def _layout(root: Path, layout: str, inner: Path | None, vendor: str) -> Finding:
    place = inner.relative_to(root) if inner is not None else Path("vendors", vendor)
    if layout == "both":
        text = f"{root} holds the operator twice: directly and below {place}; only the direct copy is found"
        return Finding("BOTH_LAYOUTS", "warn", text, "`smallq-deploy repair` keeps the later one", str(place))
    text = f"the files lie in {root / place}, but CANN looks for them in {root}"
    return Finding("NESTED_LAYOUT", "fail", text, "`smallq-deploy repair` moves them up", str(place))


def _load(root: Path, path: str) -> tuple[Any, Finding | None]:
    """JSON of ``root/path``: (content, None) or (None, the finding)."""
    try:
        info = (root / path).stat()
        if not stat.S_ISREG(info.st_mode):
            raise ValueError("it is no file")
        if info.st_size > _JSON_LIMIT:
            raise ValueError("larger than 32 MiB")
        return json.loads((root / path).read_text(encoding="utf-8")), None
    except FileNotFoundError:
        return None, Finding("MISSING_FILE", "fail", f"{path} is missing", _REINSTALL, path)
    except (ValueError, RecursionError) as error:
        return None, Finding("BAD_JSON", "fail", f"{path} is not valid JSON: {error}", _REINSTALL, path)


def _operator(root: Path, operator: str, units: tuple[str, ...]) -> Iterator[Finding]:
    if not units:
        yield Finding("MISSING_OPERATOR", "fail", f"{root} registers no operator for any unit", _REINSTALL)
    for unit in units:
        path = f"{TBE}/config/{unit}/aic-{unit}-ops-info.json"
        content, problem = _load(root, path)
        if problem is not None and problem.code == "MISSING_FILE":
            has = ", ".join(sorted(inspect_vendor(root).units)) or "no unit"
            text = f"{path} is missing: the tree is built for {has}, not for {unit}"
            yield Finding("WRONG_UNIT", "fail", text, f"build the operator for {unit}", path)
        elif problem is not None:
            yield problem
        elif not isinstance(content, dict) or operator not in content:
            has = ", ".join(sorted(ops_of_vendor(root))) or "none"
            text = f"{path} does not register {operator} (registered: {has})"
            yield Finding("MISSING_OPERATOR", "fail", text, _REINSTALL, path)


def _library(root: Path, operator: str, more: Sequence[str]) -> Iterator[Finding]:
    symbols = (f"aclnn{operator}GetWorkspaceSize", f"aclnn{operator}")
    header = f"op_api/include/aclnn_{snake_case(operator)}.h"
    if not (root / header).is_file():
        yield Finding("MISSING_FILE", "fail", f"{header} is missing", _REINSTALL, header)
    else:
        text = (root / header).read_text(encoding="utf-8", errors="replace")
        for symbol in symbols:
            if not re.search(rf"\b{symbol}\s*\(", text):
                yield Finding("MISSING_SYMBOL", "fail", f"{header} does not declare {symbol}", _REINSTALL, header)
    if not (root / API_LIBRARY).is_file():
        yield Finding("MISSING_FILE", "fail", f"{API_LIBRARY} is missing", _REINSTALL, API_LIBRARY)
        return
    try:
        exported = read_elf(root / API_LIBRARY).exported
    except PackageError as error:
        yield Finding("BAD_ELF", "fail", error.message, _REINSTALL, API_LIBRARY)
        return
    for symbol in dict.fromkeys((*symbols, *more)):
        if symbol not in exported:
            text = f"{API_LIBRARY} does not export {symbol}: another package was probably installed over this one"
            yield Finding("MISSING_SYMBOL", "fail", text, _REINSTALL, API_LIBRARY)


def _architecture(root: Path, arch: str) -> Iterator[Finding]:
    tiling = f"{TBE}/op_tiling/lib/linux"
    names = [entry.name for entry in (root / tiling).iterdir()] if (root / tiling).is_dir() else []
    wanted = arch or (names[0] if len(names) == 1 else "")
    if not wanted or not (root / tiling / wanted / "libcust_opmaster_rt2.0.so").is_file():
        has = ", ".join(sorted(names)) or "none"
        code = "WRONG_ARCH" if names and arch and arch not in names else "MISSING_FILE"
        text = f"there is no tiling library for {arch or 'any architecture'} in {tiling} (there: {has})"
        yield Finding(code, "fail", text, "use the package built for this architecture", tiling)
    if not wanted:
        return
    for path in sorted((root).rglob("*.so")):
        if path.is_symlink() or not path.is_file():
            continue
        name = str(path.relative_to(root))
        with open(path, "rb") as stream:
            machine = machine_name(stream.read(HEADER_BYTES))
        if not machine:
            yield Finding("BAD_ELF", "fail", f"{name} is not a shared object", _REINSTALL, name)
        elif machine != wanted:
            hint = "use the package built for this architecture"
            yield Finding("WRONG_ARCH", "fail", f"{name} is built for {machine}, not for {wanted}", hint, name)


def _kernels(root: Path, operator: str, unit: str) -> Iterator[Finding]:
    index = f"{TBE}/kernel/config/{unit}/binary_info_config.json"
    content, problem = _load(root, index)
    if problem is not None:
        yield problem
        return
    entry = content.get(operator) if isinstance(content, dict) else None
    binaries = entry.get("binaryList") if isinstance(entry, dict) else None
    if not isinstance(binaries, list) or not binaries:
        yield Finding("MISSING_KERNEL", "fail", f"{index} lists no kernel of {operator}", _REINSTALL, index)
        return
    for binary in binaries:
        names = (binary.get("binPath"), binary.get("jsonPath")) if isinstance(binary, dict) else (None, None)
        if not all(isinstance(name, str) and name and ".." not in name.split("/") for name in names):
            text = f"{index} has a kernel entry without usable binPath and jsonPath"
            yield Finding("BAD_JSON", "fail", text, _REINSTALL, index)
            continue
        yield from _one_kernel(root, f"{TBE}/kernel/{names[0]}", f"{TBE}/kernel/{names[1]}")


def _one_kernel(root: Path, binary: str, description: str) -> Iterator[Finding]:
    content, problem = _load(root, description)
    if problem is not None:
        yield problem
    if not (root / binary).is_file():
        text = f"the kernel index names {binary}, which is missing"
        yield Finding("MISSING_KERNEL", "fail", text, _REINSTALL, binary)
        return
    stated = content.get("sha256") if isinstance(content, dict) else None
    if isinstance(stated, str) and stated.lower() != sha256_file(root / binary):
        text = f"{binary} is not the kernel its description was written for (sha256 differs)"
        yield Finding("KERNEL_DIGEST", "fail", text, _REINSTALL, binary)


def _links_and_modes(root: Path) -> Iterator[Finding]:
    home = os.path.realpath(root)
    closed: list[str] = []
    for name, info in walk_tree(root):
        if stat.S_ISLNK(info.st_mode):
            target = os.path.realpath(root / name)
            if target != home and not target.startswith(home + os.sep):
                text = f"{name} is a link out of the vendor directory, to {os.readlink(root / name)}"
                yield Finding("LINK_OUTSIDE", "warn", text, "replace it by a file of this package", name)
            elif not os.path.exists(target):
                text = f"{name} is a dangling link to {os.readlink(root / name)}"
                yield Finding("DANGLING_LINK", "warn", text, _REINSTALL, name)
            continue
        needed = 0o005 if stat.S_ISDIR(info.st_mode) else 0o004
        if info.st_mode & needed != needed:
            closed.append(name)
    if closed or root.stat().st_mode & 0o005 != 0o005:
        first = closed[0] if closed else str(root)
        text = f"{max(len(closed), 1)} entries cannot be read by other users, first {first}"
        yield Finding("WRONG_MODE", "warn", text, "`smallq-deploy repair` resets the modes", first)
    if (root / "config.ini").exists():
        text = "config.ini inside the vendor directory is read by nothing"
        yield Finding("STRAY_CONFIG_INI", "warn", text, "`smallq-deploy repair` removes it", "config.ini")


_EXPORT = re.compile(r"""^[^#\n]*\bexport\s+(ASCEND_CUSTOM_OPP_PATH|LD_LIBRARY_PATH)=["']?([^"'$:\n]+)""", re.MULTILINE)


def set_env_paths(root: Path) -> tuple[str, ...]:
    """The directories that ``bin/set_env.bash`` of a vendor directory puts into the environment."""
    if not (root / SET_ENV).is_file():
        return ()
    text = (root / SET_ENV).read_text(encoding="utf-8", errors="replace")
    return tuple(match[2].rstrip("/") for match in _EXPORT.finditer(text))


def _set_env(root: Path, final: Path | None) -> Iterator[Finding]:
    place = final or root
    # A live tree may be reached through a link (ascend-toolkit/latest): compare real paths.
    home = os.path.realpath(place)
    for name in set_env_paths(root):
        real = os.path.realpath(name)
        inside = real == home or real.startswith(home + os.sep)
        # The final place of a staged tree need not exist yet.
        if inside and (final is not None or os.path.isdir(name)):
            continue
        why = "which is not this directory" if os.path.isdir(name) else "which does not exist"
        text = f"{SET_ENV} points to {name}, {why}: sourcing it does not reach {place}"
        yield Finding("SET_ENV_DANGLING", "warn", text, "`smallq-deploy repair` rewrites it", SET_ENV)
        return


def _place(place: Path) -> Iterator[Finding]:
    for trap in (".json", ".o"):
        if trap in str(place):
            text = f"{place} contains {trap!r}: CANN cuts kernel paths at the first such text and finds no kernel"
            yield Finding("PATH_TRAP", "fail", text, "install CANN below a path without it", str(place))
            return
