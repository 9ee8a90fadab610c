"""A modelled disk that keeps only what POSIX promises, for power cuts that no real file system here would show.

Real file systems write more than they must: one fsync of ext4 commits every directory. This model keeps a file's
content and mode as of its last fsync (nothing of one never synced), and a change of a directory only when that
directory was synced after it, with what that change depends on; a rename is atomic. For a cut at any moment it builds
the states allowed: nothing more than promised, everything but unsynced contents, and some of the changes in between.
Ideas: ALICE (OSDI 2014), SQLite's test/writecrash.test.
"""

from __future__ import annotations

import os
import random
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

Place = tuple[int, str]  # inode of a directory, name
Change = dict[Place, "int | None"]  # what each place holds afterwards; one of these is atomic


@dataclass
class Node:
    """An inode: the last durable content (None: never synced) or, for links, the target; ``mode`` as of then."""

    kind: str
    mode: int
    content: bytes | None = None
    target: str = ""


class StrictDisk:
    """Watches a tree; call :meth:`look` before each change of a directory and :meth:`synced` after each fsync."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.nodes: dict[int, Node] = {}
        self.changes: list[Change] = []
        self.durable: set[int] = set()  # numbers of changes
        self.top = root.stat().st_ino
        self._keep: list[int] = []  # open descriptors: an inode's number is not given out twice meanwhile
        self.start = self.entries = self._walk(everything_durable=True)

    def close(self) -> None:
        for fd in self._keep:
            os.close(fd)
        self._keep.clear()

    def _walk(self, *, everything_durable: bool = False) -> dict[Place, int]:
        found: dict[Place, int] = {}
        for directory, names, files in os.walk(self.root):
            here = os.lstat(directory).st_ino
            for name in (*names, *files):
                path = os.path.join(directory, name)
                info = os.lstat(path)
                found[here, name] = info.st_ino
                if info.st_ino not in self.nodes:
                    self._add(path, info, everything_durable)
        return found

    def _add(self, path: str, info: os.stat_result, durable: bool) -> None:
        mode = stat.S_IMODE(info.st_mode)
        if stat.S_ISLNK(info.st_mode):
            self.nodes[info.st_ino] = Node("link", mode, target=os.readlink(path))
            self._keep.append(os.open(path, os.O_PATH | os.O_NOFOLLOW))
            return
        kind = "dir" if stat.S_ISDIR(info.st_mode) else "file"
        content = Path(path).read_bytes() if durable and kind == "file" else None
        self.nodes[info.st_ino] = Node(kind, mode, content)
        self._keep.append(os.open(path, os.O_PATH | os.O_NOFOLLOW))

    def look(self) -> None:
        """Note what changed since the last look."""
        now = self._walk()
        places = {place: now.get(place) for place in {*self.entries, *now} if self.entries.get(place) != now.get(place)}
        while places:
            # Together belongs what shares an inode: both ends of a rename, both sides of an exchange.
            group = {next(iter(places))}
            while True:
                inodes = {value for place in group for value in (self.entries.get(place), now.get(place))} - {None}
                more = {place for place in places if {self.entries.get(place), now.get(place)} & inodes}
                if more <= group:
                    break
                group |= more
            self.changes.append({place: places.pop(place) for place in group})
        self.entries = now

    def synced(self, fd: int) -> None:
        """An fsync of ``fd`` ended."""
        self.look()
        info = os.fstat(fd)
        node = self.nodes.get(info.st_ino)
        if node is None and info.st_ino != self.top:
            return
        if node is not None:
            node.mode = stat.S_IMODE(info.st_mode)
        if stat.S_ISDIR(info.st_mode):
            mine = {n for n, change in enumerate(self.changes) if any(place[0] == info.st_ino for place in change)}
            self.durable |= self._closed(mine)
        elif node is not None:
            node.content = Path(f"/proc/self/fd/{fd}").read_bytes()

    def _closed(self, wanted: set[int]) -> set[int]:
        """``wanted`` and every earlier change of the directories they touch."""
        found = set(wanted)
        latest: dict[int, int] = {}
        for number in sorted(wanted, reverse=True):
            for inode, _ in self.changes[number]:
                latest[inode] = max(latest.get(inode, -1), number)
        for number in range(len(self.changes) - 1, -1, -1):
            if number in found or any(latest.get(inode, -1) > number for inode, _ in self.changes[number]):
                found.add(number)
                for inode, _ in self.changes[number]:
                    latest[inode] = max(latest.get(inode, -1), number)
        return found

    def states(self, chance: random.Random, more: int) -> Iterator[tuple[str, set[int]]]:
        """Sets of changes that may be on the disk now: the least, all, and ``more`` in between."""
        yield "only what was synced", set(self.durable)
        pending = [number for number in range(len(self.changes)) if number not in self.durable]
        if pending:
            yield "all but unsynced contents", set(range(len(self.changes)))
        for _ in range(min(more, len(pending))):
            yield "some", self.durable | self._closed({chance.choice(pending)})

    def build(self, chosen: set[int], target: Path) -> None:
        """Write one of these states to ``target``."""
        entries: dict[Place, int] = dict(self.start)
        for number in sorted(chosen):
            for place, inode in self.changes[number].items():
                if inode is None:
                    entries.pop(place, None)
                else:
                    entries[place] = inode
        below: dict[int, list[tuple[str, int]]] = {}
        for (directory, name), inode in entries.items():
            below.setdefault(directory, []).append((name, inode))

        def write(directory: int, path: Path) -> None:
            for name, inode in below.get(directory, ()):
                node, place = self.nodes[inode], path / name
                if node.kind == "link":
                    place.symlink_to(node.target)
                elif node.kind == "dir":
                    place.mkdir()
                    write(inode, place)
                    place.chmod(node.mode)
                else:
                    place.write_bytes(node.content or b"")
                    place.chmod(node.mode)

        target.mkdir()
        write(self.top, target)
