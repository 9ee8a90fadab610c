"""Which processes run which generation: who has files of a vendor directory mapped, seen in /proc/<pid>/maps.

The kernel names a mapped file by where its directory entry is now (proc(5)): after a switch a process that loaded the
old libraries shows them below ``.smallq-deploy``, where the old tree lies.
"""

from __future__ import annotations

import os
import pwd
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from smallq_deploy.store.generations import read_state
from smallq_deploy.store.paths import Store

_COMMAND_LENGTH = 120  # characters shown of a command line


@dataclass(frozen=True)
class Process:
    """``generation``: the number of the one whose files are mapped; None where no generation describes them."""

    pid: int
    user: str
    command: str
    generation: int | None = None

    def __str__(self) -> str:
        return f"{self.command.split(' ')[0].rpartition('/')[2] or '?'} (pid {self.pid}, {self.user})"

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Users:
    """What was found; ``unseen`` counts processes of other users that only root may look at."""

    processes: tuple[Process, ...] = ()
    unseen: int = 0


def processes_using(directory: Path) -> tuple[Process, ...]:
    """Every process we may look at that has a file below ``directory`` mapped."""
    needle = f" {directory}/".encode(errors="surrogateescape")
    return tuple(_process(pid) for pid, maps in _all_maps([]) if needle in maps)


def users_of(store: Store) -> Users:
    """Processes that run the live generation or an older one of this store, with the generation each runs.

    A process that has files of several generations mapped is named once for each.
    """
    unseen: list[int] = []
    live = f" {store.live}/".encode(errors="surrogateescape")
    kept = re.compile(rb" " + re.escape(os.fsencode(store.generations)) + rb"/(\d+)/tree/")
    current = read_state(store).of(store.vendor).current or None
    found = []
    for pid, maps in _all_maps(unseen):
        numbers: set[int | None] = {int(match[1]) for match in kept.finditer(maps)}
        if live in maps:
            numbers.add(current)
        found += [_process(pid, number) for number in sorted(numbers, key=lambda item: item or 0)]
    return Users(tuple(found), len(unseen))


def _all_maps(unseen: list[int]) -> Iterator[tuple[int, bytes]]:
    for name in sorted((name for name in os.listdir("/proc") if name.isdigit()), key=int):
        try:
            with open(f"/proc/{name}/maps", "rb") as stream:
                yield int(name), stream.read()
        except PermissionError:
            unseen.append(int(name))
        except OSError:
            continue  # ended meanwhile


def _process(pid: int, generation: int | None = None) -> Process:
    place = f"/proc/{pid}"
    try:
        owner = os.stat(place).st_uid
        user = _user_name(owner)
        with open(f"{place}/cmdline", "rb") as stream:
            words = stream.read(4096).rstrip(b"\0").replace(b"\0", b" ").decode(errors="replace")
        if not words:
            with open(f"{place}/comm", encoding="utf-8", errors="replace") as text:
                words = text.read().strip()
    except OSError:
        user, words = "?", "ended"
    return Process(pid, user, re.sub(r"[^\x20-\x7e]", "?", words)[:_COMMAND_LENGTH], generation)


def _user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
