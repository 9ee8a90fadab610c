"""What is in a vendor directory (``<opp>/vendors/<vendor>``), and bringing it into the one form we install.

The tree's parts and names: cann.md 5; where the runtime looks: cann.md 6; the nested layout: cann.md 6.5.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import shlex
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from smallq_deploy.base.errors import ConflictError, PackageError, access_error
from smallq_deploy.base.fsops import remove_tree, sha256_file, walk_tree
from smallq_deploy.package.elf import HEADER_BYTES, machine_name

PARTS = ("framework", "op_api", "op_impl", "op_proto")
TBE = "op_impl/ai_core/tbe"
API_LIBRARY = "op_api/lib/libcust_opapi.so"
SET_ENV = "bin/set_env.bash"
VENDOR_PATTERN = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}"
DIR_MODE = 0o755
FILE_MODE = 0o644  # libraries too: dlopen reads, it does not execute
_MAX_DEPTH = 8


@dataclass(frozen=True)
class VendorTree:
    """What a vendor directory holds.

    ``layout``: ``flat`` (where the runtime looks), ``nested`` (below ``vendors/<name>``, also twice), ``both``,
    ``empty`` or ``absent``. ``ops`` are all operators found anywhere in it, ``flat_ops`` those where the runtime looks;
    ``inner`` is the nested copy. ``op_files`` maps each operator to its own files, relative to the copy holding them,
    ``op_units`` to the compute units it is there for.
    """

    root: Path
    layout: str
    ops: tuple[str, ...]
    units: tuple[str, ...]
    arch: str
    op_files: Mapping[str, tuple[str, ...]]
    flat_ops: tuple[str, ...] = ()
    inner: Path | None = None
    op_units: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def snake_case(operator: str) -> str:
    """File name part of an operator: SmallqFlashAttention -> smallq_flash_attention (op_build's rule, cann.md 8)."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", operator).lower()


def _has_parts(root: Path) -> bool:
    return any((root / part).is_dir() for part in PARTS)


def _children(directory: Path) -> list[Path]:
    """Sub directories (links do not count), sorted; empty when ``directory`` is a link or cannot be listed."""
    try:
        if directory.is_symlink():
            return []
        with os.scandir(directory) as entries:
            return sorted(Path(entry.path) for entry in entries if entry.is_dir(follow_symlinks=False))
    except OSError:
        return []


def nested_copies(root: Path) -> tuple[Path, ...]:
    """Every directory below ``root/vendors/<name>`` (and again below that) that holds parts of a vendor tree."""
    found: list[Path] = []
    level = [root]
    for _ in range(_MAX_DEPTH):
        level = [child for place in level for child in _children(place / "vendors") if not child.name.startswith(".")]
        found += [place for place in level if _has_parts(place)]
    return tuple(found)


def _load_json(path: Path) -> Any:
    with open(path, encoding="utf-8") as stream:
        return json.load(stream)


def ops_info_files(root: Path) -> Iterator[tuple[str, Path]]:
    """(compute unit, path) of each ``aic-<unit>-ops-info.json`` of a flat vendor tree or of ``opp/built-in``."""
    for directory in _children(root / TBE / "config"):
        path = directory / f"aic-{directory.name}-ops-info.json"
        if path.is_file():
            yield directory.name, path


def units_of_ops(root: Path) -> dict[str, tuple[str, ...]]:
    """Operator type -> compute units that a flat vendor tree (or ``opp/built-in``) registers it for, sorted.

    Unreadable files count as none.
    """
    found: dict[str, set[str]] = {}
    for unit, path in ops_info_files(root):
        try:
            content = _load_json(path)
        except (OSError, ValueError, RecursionError):
            continue
        for operator in content if isinstance(content, dict) else ():
            found.setdefault(operator, set()).add(unit)
    return {operator: tuple(sorted(units)) for operator, units in sorted(found.items())}


def ops_of_vendor(root: Path) -> frozenset[str]:
    """Operator types that a flat vendor tree (or ``opp/built-in``) registers; unreadable files count as none."""
    return frozenset(units_of_ops(root))


def other_vendors(vendors: Path, *, without: str = "") -> dict[str, dict[str, tuple[str, ...]]]:
    """Operator types, with their units, of each directory in ``<opp>/vendors`` but ``without`` and hidden ones."""
    return {
        child.name: units_of_ops(child)
        for child in _children(vendors)
        if child.name != without and not child.name.startswith(".")
    }


def tree_arch(root: Path) -> str:
    """Architecture of a flat tree's libraries as their ELF headers say it ('' when it has none)."""
    places = [root / API_LIBRARY]
    for base in (root / TBE / "op_tiling" / "lib" / "linux", root / "op_proto" / "lib" / "linux"):
        for directory in _children(base):
            places += sorted(directory.glob("*.so"))
    for path in places:
        try:
            if not path.is_file():
                continue  # a named pipe would never answer
            with open(path, "rb") as stream:
                name = machine_name(stream.read(HEADER_BYTES))
        except OSError:
            continue
        if name:
            return name
    return ""


def _operator_files(root: Path, operator: str) -> tuple[str, ...]:
    name = snake_case(operator)
    own = re.compile(
        rf"^(op_api/include/aclnn_{name}\.h|op_proto/inc/{name}_proto\.h"
        rf"|{TBE}/kernel/[^/]+/{name}/.*|{TBE}/kernel/config/[^/]+/{name}\.json"
        rf"|{TBE}/customize_impl/(dynamic/{name}\.py|ascendc/{name}/.*))$"
    )
    return tuple(path for path, info in walk_tree(root) if not stat.S_ISDIR(info.st_mode) and own.match(path))


def inspect_vendor(root: Path) -> VendorTree:
    """Describe a vendor directory; never changes it. Raises AccessError when it cannot be read."""
    if not root.is_dir():
        return VendorTree(root, "absent", (), (), "", {})
    try:
        copies = nested_copies(root)
        flat = _has_parts(root)
        layout = ("both" if flat else "nested") if copies else ("flat" if flat else "empty")
        flat_ops = ops_of_vendor(root)
        holders = ([root] if flat else []) + list(copies)
        ops: dict[str, tuple[str, ...]] = {}
        units: set[str] = set()
        op_units: dict[str, tuple[str, ...]] = {}
        for place in holders:
            units.update(unit for unit, _ in ops_info_files(place))
            for operator, there in units_of_ops(place).items():
                ops.setdefault(operator, _operator_files(place, operator))
                op_units[operator] = tuple(sorted({*op_units.get(operator, ()), *there}))
        arch = next((name for name in map(tree_arch, holders) if name), "")
    except OSError as error:
        raise access_error(error, f"read the vendor directory {root}") from error
    inner = copies[-1] if copies else None
    names = tuple(sorted(ops))
    return VendorTree(root, layout, names, tuple(sorted(units)), arch, ops, tuple(sorted(flat_ops)), inner, op_units)


# --- flatten and normalise: both work on a staged tree, never on the live one ---


def _later(nested: Path, flat: Path) -> Path:
    """Of two copies of a vendor tree, the one installed last.

    CANN's install script copies without keeping times, so the time of the aclnn library is the time of its install;
    equal libraries mean that one was copied from the other, and then the nested one is the copy without stale files.
    """
    try:
        first, second = nested / API_LIBRARY, flat / API_LIBRARY
        if not second.is_file() or (first.is_file() and sha256_file(first) == sha256_file(second)):
            return nested
        if not first.is_file():
            return flat
        return flat if second.stat().st_mtime_ns > first.stat().st_mtime_ns else nested
    except OSError as error:
        raise access_error(error, f"compare {nested} with {flat}") from error


def flatten(root: Path) -> bool:
    """Bring a nested vendor tree to the flat form; returns whether anything changed.

    Where a flat and a nested copy exist, the one installed last stays and the other goes (see :func:`_later`); it must
    have every operator of the other. Raises ConflictError LAYOUT_CONFLICT when operators would be lost or when several
    nested copies with different operators exist; nothing is changed then.
    """
    copies = nested_copies(root)
    if not copies:
        return False
    keep = copies[-1]
    for copy in copies[:-1]:
        keep = _later(keep, copy)
    if _has_parts(root):
        keep = _later(keep, root)
    lost = {name for place in (root, *copies) for name in ops_of_vendor(place)} - ops_of_vendor(keep)
    if lost:
        raise ConflictError(
            "LAYOUT_CONFLICT",
            f"{root} holds several copies of a vendor tree, and the latest ({keep.relative_to(root)}) lacks "
            f"{', '.join(sorted(lost))}",
            hint="build all operators into one package, or move one copy to a vendor directory of its own",
            details={"lost": sorted(lost), "copies": [str(copy) for copy in copies]},
        )
    try:
        for path, info in itertools.chain([("", root.lstat())], walk_tree(root)):
            if stat.S_ISDIR(info.st_mode) and info.st_mode & 0o700 != 0o700:
                (root / path).chmod(0o700)  # a directory moves only when it is writable; normalise sets the final mode
        if keep == root:
            remove_tree(root / "vendors")
            return True
        aside = root / ".inner"
        os.rename(keep, aside)
        for entry in list(root.iterdir()):
            if entry != aside:
                remove_tree(entry)
        for entry in list(aside.iterdir()):
            os.rename(entry, root / entry.name)
        aside.rmdir()
    except OSError as error:
        raise access_error(error, f"flatten {root}") from error
    return True


def set_env_text(final: Path) -> str:
    """``bin/set_env.bash`` for a tree that will live at ``final``: works under ``set -u``, does not grow when sourced
    again, leaves no trailing colon."""
    place = shlex.quote(str(final))
    library = shlex.quote(str(final / "op_api" / "lib"))
    return f"""#!/bin/bash
# Source this file to use the operators of this vendor directory without an entry in vendors/config.ini.
case ":${{ASCEND_CUSTOM_OPP_PATH:-}}:" in
    *:{place}:*) ;;
    *) export ASCEND_CUSTOM_OPP_PATH={place}"${{ASCEND_CUSTOM_OPP_PATH:+:${{ASCEND_CUSTOM_OPP_PATH}}}}" ;;
esac
case ":${{LD_LIBRARY_PATH:-}}:" in
    *:{library}:*) ;;
    *) export LD_LIBRARY_PATH={library}"${{LD_LIBRARY_PATH:+:${{LD_LIBRARY_PATH}}}}" ;;
esac
"""


def normalise(root: Path, *, final: Path) -> None:
    """Give a flat staged tree the form every installed tree has, whichever way it came here. Idempotent.

    ``bin/set_env.bash`` names ``final``; a stray inner config.ini and the package's own uninstall script (which would
    delete the live directory behind our back) go; directories 755, files 644, no special bits; as root the owner of the
    vendors directory becomes the owner of everything. Raises PackageError UNSAFE_MEMBER for devices, sockets and pipes.
    """
    owner = final.parent.stat() if os.geteuid() == 0 and final.parent.is_dir() else None
    try:
        _settle(root, root.lstat(), owner)
        for name, info in walk_tree(root):
            _settle(root / name, info, owner)
        for stray in ("config.ini", "vendors/config.ini", "scripts/uninstall.sh"):
            if not (root / stray).parent.is_symlink():  # it may lead to somebody else's files
                (root / stray).unlink(missing_ok=True)
        for directory in (root / "vendors", root / "scripts"):
            if directory.is_dir() and not directory.is_symlink() and not any(directory.iterdir()):
                directory.rmdir()
        script = root / SET_ENV
        if script.parent.is_symlink() or script.parent.is_file():
            script.parent.unlink()
        script.parent.mkdir(exist_ok=True)
        if script.is_symlink() or not script.is_file() or script.read_text(errors="replace") != set_env_text(final):
            remove_tree(script)
            script.write_text(set_env_text(final))
        for path in (script.parent, script):
            _settle(path, path.lstat(), owner)
    except OSError as error:
        raise access_error(error, f"bring {root} into its final form") from error


def _settle(path: Path, info: os.stat_result, owner: os.stat_result | None) -> None:
    if owner is not None and (info.st_uid, info.st_gid) != (owner.st_uid, owner.st_gid):
        os.chown(path, owner.st_uid, owner.st_gid, follow_symlinks=False)
    if stat.S_ISLNK(info.st_mode):
        return
    if not stat.S_ISDIR(info.st_mode) and not stat.S_ISREG(info.st_mode):
        raise PackageError(
            "UNSAFE_MEMBER", f"{path} is neither a file, a directory nor a link", hint="remove it and try again"
        )
    wanted = DIR_MODE if stat.S_ISDIR(info.st_mode) else FILE_MODE
    if stat.S_IMODE(info.st_mode) != wanted:
        path.chmod(wanted)
