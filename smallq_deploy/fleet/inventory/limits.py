"""``-l``: which hosts of an inventory are meant, in the patterns that Ansible's users know.

Terms stand between commas or colons: a host, a group, ``all``, a range ``npu[001-016]``, a glob ``npu0*``, or ``@FILE``
with a name a line. ``!term`` leaves hosts out and ``&term`` keeps only those, both after everything else was added.
"""

from __future__ import annotations

import dataclasses
import fnmatch
from collections.abc import Sequence
from pathlib import Path

from smallq_deploy.base.errors import SmallqError, UsageError, raise_problems
from smallq_deploy.fleet.hosts import Inventory
from smallq_deploy.fleet.inventory.assemble import relays_of
from smallq_deploy.fleet.inventory.ranges import compress, expand, split_list
from smallq_deploy.fleet.inventory.settings import near

_FILE_LIMIT = 10 * 1024 * 1024


def limited(inventory: Inventory, limit: Sequence[str]) -> Inventory:
    """The hosts of ``limit`` (several count together), in the inventory's order; all of them when it is empty.

    Raises UsageError NO_SUCH_HOST for a term that matches nothing and when nothing is left, BAD_LIMIT for one that is
    no pattern or an unreadable file.
    """
    if not limit:
        return inventory
    names = dict.fromkeys(host.name for host in inventory)
    chosen: dict[str, set[str]] = {"": set(), "&": set(names), "!": set()}
    problems: list[SmallqError] = []
    positive = False
    for text in limit:
        terms = _terms(text, inventory, names)
        if not terms:  # an empty shell variable must not mean every host
            problems.append(UsageError("BAD_LIMIT", "--limit is empty", hint="write `all` for every host"))
        for term in terms:
            sign = term[0] if term[0] in "!&" else ""
            positive = positive or not sign
            try:
                found = _matching(term[len(sign) :].strip(), inventory, names)
            except SmallqError as error:
                problems.append(error)
                continue
            chosen[sign] = chosen[sign] & found if sign == "&" else chosen[sign] | found
    raise_problems(problems)
    left = ((chosen[""] if positive else set(names)) & chosen["&"]) - chosen["!"]
    if not left:
        raise UsageError(
            "NO_SUCH_HOST",
            f"--limit {','.join(limit)!a:.200} leaves no host of {inventory.name}",
            hint=f"the inventory has {len(inventory)} hosts: {_short(names)}",
        )
    hosts = tuple(host for host in inventory if host.name in left)
    return dataclasses.replace(
        inventory,
        hosts=hosts,
        relays=relays_of(hosts, inventory.relays),
        groups={
            group: kept for group, hosts in inventory.groups.items() if (kept := tuple(n for n in hosts if n in left))
        },
    )


def _terms(text: str, inventory: Inventory, names: dict[str, None]) -> list[str]:
    """Split at commas, and at colons where the part is not a name with colons itself, as IPv6 addresses are."""
    terms: list[str] = []
    for part in split_list(text):
        bare = part.lstrip("!&")
        if bare in names or bare in inventory.groups or bare.startswith("@"):
            terms.append(part)
        else:
            terms += split_list(part, ":")
    return terms


def _matching(term: str, inventory: Inventory, names: dict[str, None]) -> set[str]:
    if term.startswith("@"):
        return _from_file(Path(term[1:]), names)
    try:
        words = expand(term) if term else []
    except ValueError as error:
        hint = "hosts are written npu[001-016,020]; docs/reference/inventory.md lists the patterns"
        raise UsageError("BAD_LIMIT", f"--limit: {error}", hint=hint) from error
    if not words:
        raise UsageError("BAD_LIMIT", "--limit: a '!' or '&' stands alone", hint="write !NAME without a blank")
    found: set[str] = set()
    missing: list[str] = []
    for word in words:
        some: set[str] = set()
        if word == "all":
            some = set(names)
        elif word in names:
            some = {word}
        elif word in inventory.groups:
            some = set(inventory.groups[word])
        elif "*" in word or "?" in word:
            some = set(fnmatch.filter(names, word))
            for group in fnmatch.filter(inventory.groups, word):
                some.update(inventory.groups[group])
            if len(words) > 1 and not some:
                continue
        if not some and word not in inventory.groups:
            missing.append(word)
        found |= some
    if missing or (not found and ("*" in term or "?" in term)):
        raise _unknown(missing or [term], inventory, names)
    return found


def _unknown(missing: list[str], inventory: Inventory, names: dict[str, None]) -> UsageError:
    what = f"{missing[0]!a:.80}" if len(missing) == 1 else f"{compress(missing):.200}"
    close = near(missing[0], (*names, *inventory.groups)) if len(missing) == 1 else ""
    return UsageError(
        "NO_SUCH_HOST",
        f"--limit: {what} matches no host or group of {inventory.name}{close}",
        hint=f"its hosts: {_short(names)}"
        + (f"; its groups: {', '.join(list(inventory.groups)[:10])}" if inventory.groups else ""),
        details={"missing": missing[:100]},
    )


def _short(names: dict[str, None]) -> str:
    text = compress(names)
    return text if len(text) <= 200 else text[:197] + "..."


def _from_file(path: Path, names: dict[str, None]) -> set[str]:
    """The hosts named in a file, as a summary of failed hosts is: one a line, ranges and # remarks allowed."""
    try:
        with open(path, "rb") as stream:
            raw = stream.read(_FILE_LIMIT + 1)
        text = raw.decode("utf-8")
        if len(raw) > _FILE_LIMIT:
            raise ValueError("it is larger than 10 MiB")
        words = [word for line in text.splitlines() for word in split_list(line.partition("#")[0])]
        found = [name for word in words for name in expand(word)]
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise UsageError("BAD_LIMIT", f"--limit: cannot read {path}: {why:.200}", hint="one host a line") from error
    missing = [name for name in found if name not in names]
    if missing or not found:
        what = f"names {compress(missing):.200}, no host of the inventory" if missing else "names no host"
        raise UsageError("NO_SUCH_HOST", f"--limit: {path} {what}", hint=f"its hosts: {_short(names)}")
    return set(found)
