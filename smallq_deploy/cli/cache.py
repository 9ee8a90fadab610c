"""``cache info`` and ``cache prune``: the packages that `build` can take instead of building them again."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from smallq_deploy.base.errors import UsageError
from smallq_deploy.cli.options import Call, command, group, option
from smallq_deploy.cli.render import Answer, Block, Line, Table

if TYPE_CHECKING:
    from smallq_deploy.operate.buildcache import CacheEntry

_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


@group(epilog="\b\nExample:\n  smallq-deploy cache info")
def cache() -> None:
    """Look at the build cache, or make it smaller.

    It holds packages by everything that went into them: sources, build project, toolkit, compilers, flags. Nothing
    depends on it; it can be deleted at any time.
    """


def _size(text: str) -> int:
    """Bytes of ``500M``. Raises UsageError BAD_SIZE."""
    found = re.fullmatch(r"(\d+)\s*([KMG]?)(?:i?B)?", text.strip(), re.IGNORECASE)
    if not found:
        raise UsageError("BAD_SIZE", f"{text!r} is no size", hint="bytes, or a number with K, M or G, such as 500M")
    return int(found[1]) * _UNITS[found[2].upper()]


def _readable(size: int) -> str:
    for unit, factor in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if size >= factor:
            return f"{size / factor:.1f} {unit}"
    return f"{size} B"


def _packages(entries: tuple[CacheEntry, ...]) -> str:
    return f"{len(entries)} package{'' if len(entries) == 1 else 's'}"


def _table(entries: tuple[CacheEntry, ...]) -> list[Block]:
    rows = [
        (
            entry.key,
            str(entry.identity.get("operator", "?")),
            str(entry.identity.get("unit", "?")),
            entry.to_dict()["toolkit"] or "?",
            _readable(entry.size),
            entry.used,
            entry.damage or "",
        )
        for entry in entries
    ]
    return [Table(("key", "operator", "unit", "CANN", "size", "last used", "damage"), rows)] if rows else []


def _data(root: Path, entries: tuple[CacheEntry, ...], **more: Any) -> dict[str, Any]:
    return {
        "root": str(root),
        "entries": [entry.to_dict() for entry in entries],
        "size": sum(entry.size for entry in entries),
        **more,
    }


@command("cache info", toolkit=False, example="smallq-deploy cache info")
@option("--check", is_flag=True, help="Read every package and say which are damaged.")
def info(call: Call, check: bool) -> Answer:
    """List the packages in the build cache, the least recently used first."""
    from smallq_deploy.operate.buildcache import BuildCache

    found = BuildCache()
    entries = found.entries(check=check)
    total = sum(entry.size for entry in entries)
    damaged = [entry for entry in entries if entry.damage]
    for entry in damaged:
        call.events.warning(f"{entry.folder} is damaged ({entry.damage}); `smallq-deploy cache prune` removes it")
    text = f"{_packages(entries)}, {_readable(total)} of {_readable(found.limit)}, in {found.root}"
    return Answer(_data(found.root, entries, limit=found.limit), [Line(text), *_table(entries)])


@command("cache prune", toolkit=False, example="smallq-deploy cache prune --max-size 200M")
@option("--max-size", metavar="SIZE", default="1G", help="What may stay, such as 200M. 0 removes all. Default: 1G.")
def prune(call: Call, max_size: str) -> Answer:
    """Remove damaged packages from the build cache, then the least recently used ones until it fits in a size.

    Packages that another smallq-deploy is building or taking at this moment stay. What is installed or kept for
    `install` is not touched.
    """
    from smallq_deploy.operate.buildcache import BuildCache

    limit = _size(max_size)
    found = BuildCache()
    gone = found.prune(limit)
    left = sum(entry.size for entry in found.entries())
    freed = sum(entry.size for entry in gone)
    text = f"removed {_packages(gone)} ({_readable(freed)}); {_readable(left)} stay in {found.root}"
    return Answer(_data(found.root, gone, left=left), [Line(text), *_table(gone)])


cache.add_command(info)
cache.add_command(prune)
