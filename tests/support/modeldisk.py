"""The modelled disk: every state a power cut may leave when the file system promises no more than fsync does.

Real file systems keep more than they promise (ext4 writes data before the rename that shows it, one fsync flushes the
whole journal), so a missing fsync can stay unseen there. The papers on ALICE (Pillai and others, OSDI 2014) and
SQLite's writecrash test do what is done here: note what a run changes, and build the disks that a cut may leave.

The rules. A file's bytes and mode are on the disk once the file was synced; before that it holds what it held then, all
it holds now, or half of it. A change of directory entries is on the disk once every directory it touches was synced;
before that it may have happened or not. A rename or an exchange is one change, and counts as durable only when *both*
its directories were synced. A change comes after the earlier ones of the same name or the same file, and a directory
goes only when it is empty. Everything else may happen in any order.

A run is watched by looking at the tree before each of its calls: whatever made a change, the next look sees it.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import random
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.powercut import around_each_call

# What file data that was not synced may be after the cut.
OLD, HALF, NOW = "old", "half", "now"
_NO_INODE = 1 << 60


@dataclass
class _Inode:
    kind: int
    mode: int
    mode_safe: int
    data: bytes = b""
    data_safe: bytes = b""
    target: str = ""
    seen: tuple[int, ...] = ()
    entries: dict[str, int] = field(default_factory=dict)

    @property
    def pending(self) -> bool:
        return self.data != self.data_safe or self.mode != self.mode_safe


class _Change:
    """Entries that change together: (directory, name, inode before, inode after), 0 for none."""

    def __init__(self, entries: list[tuple[int, str, int, int]]) -> None:
        self.entries = entries
        self.names = {(directory, name) for directory, name, _, _ in entries}
        self.directories = {directory for directory, _, _, _ in entries}
        self.inodes = {inode for _, _, before, after in entries for inode in (before, after) if inode}
        self.removed = {before for _, _, before, _ in entries} - {after for _, _, _, after in entries}
        self.needs: list[_Change] = []
        self.synced: set[int] = set()


@dataclass(frozen=True)
class Point:
    """The disk at one moment: what is safe, and what may or may not be there."""

    call: str
    safe: dict[int, dict[str, int]]
    changes: tuple[_Change, ...]
    # inode -> (kind, mode now, mode safe, data now, data safe, link target)
    inodes: dict[int, tuple[int, int, int, bytes, bytes, str]]
    pending: frozenset[int]


State = tuple[frozenset[int], str, frozenset[int]]  # places in Point.changes; what data holds; inodes that are NOW


class Recorder:
    """Watches the tree below ``root``; ``points`` are the moments before each call and the one after the last."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.inodes: dict[int, _Inode] = {}
        self.safe: dict[int, dict[str, int]] = {}
        self.changes: list[_Change] = []
        self.points: list[Point] = []
        self.top = root.lstat().st_ino
        self._look()
        for number in list(self.inodes):
            self._sync_inode(number)
        self.safe = {number: dict(item.entries) for number, item in self.inodes.items() if stat.S_ISDIR(item.kind)}
        self.changes = []

    def _look(self) -> None:
        """Find what changed since the last look."""
        found: list[tuple[int, str, int, int]] = []

        def visit(path: str, number: int) -> None:
            known = self.inodes[number].entries
            present: dict[str, int] = {}
            inside = []
            with os.scandir(path) as entries:
                for entry in entries:
                    info = entry.stat(follow_symlinks=False)
                    present[entry.name] = info.st_ino
                    self._note(entry.path, info)
                    if stat.S_ISDIR(info.st_mode):
                        inside.append((entry.path, info.st_ino))
            for name in known.keys() | present.keys():
                if known.get(name) != present.get(name):
                    found.append((number, name, known.get(name, 0), present.get(name, 0)))
            self.inodes[number].entries = present
            for place, child in inside:
                visit(place, child)

        self._note(str(self.root), self.root.lstat())
        visit(str(self.root), self.top)
        if not found:
            return
        # A directory that went away, with what was in it at the last look: that went before.
        reachable = self._reachable()
        gone = [before for _, _, before, _ in found if before and before not in reachable]
        while gone:
            number = gone.pop()
            item = self.inodes[number]
            for name, child in item.entries.items():
                found.insert(0, (number, name, child, 0))
                if child not in reachable:
                    gone.append(child)
            item.entries = {}
        self.changes += self._grouped(found)

    def _reachable(self) -> set[int]:
        seen, todo = {self.top}, [self.top]
        while todo:
            for child in self.inodes[todo.pop()].entries.values():
                if child not in seen:
                    seen.add(child)
                    todo.append(child)
        return seen

    def _note(self, path: str, info: os.stat_result) -> None:
        mode = stat.S_IMODE(info.st_mode)
        item = self.inodes.get(info.st_ino)
        if item is None:
            item = self.inodes[info.st_ino] = _Inode(stat.S_IFMT(info.st_mode), mode, mode)
        item.mode = mode
        seen = (info.st_size, info.st_mtime_ns, info.st_ctime_ns)
        if item.seen == seen:
            return
        item.seen = seen
        if stat.S_ISREG(info.st_mode):
            with open(path, "rb") as stream:
                item.data = stream.read()
        elif stat.S_ISLNK(info.st_mode):
            item.target = os.readlink(path)

    def _grouped(self, found: list[tuple[int, str, int, int]]) -> list[_Change]:
        """Entries that share an inode changed by one call: a rename or an exchange."""
        groups: list[tuple[set[int], list[tuple[int, str, int, int]]]] = []
        for entry in found:
            inodes, entries = {inode for inode in entry[2:] if inode}, [entry]
            apart = []
            for group in groups:
                if group[0] & inodes:
                    inodes, entries = inodes | group[0], group[1] + entries
                else:
                    apart.append(group)
            groups = [*apart, (inodes, entries)]
        made: list[_Change] = []
        for _, entries in groups:
            new = _Change(entries)
            new.needs = [
                change
                for change in [*self.changes, *made]
                if change.inodes & new.inodes or change.directories & new.removed or change.names & new.names
            ]
            made.append(new)
        return made

    def point(self, call: str) -> None:
        self._look()
        kept = {
            number: (item.kind, item.mode, item.mode_safe, item.data, item.data_safe, item.target)
            for number, item in self.inodes.items()
        }
        pending = frozenset(number for number, item in self.inodes.items() if item.pending)
        safe = {number: dict(entries) for number, entries in self.safe.items()}
        self.points.append(Point(call, safe, tuple(self.changes), kept, pending))

    def synced(self, number: int) -> None:
        """An fsync of this inode came back."""
        if number not in self.inodes:
            return
        self._sync_inode(number)
        self._sync_directory(number)

    def _sync_inode(self, number: int) -> None:
        item = self.inodes[number]
        item.data_safe, item.mode_safe = item.data, item.mode

    def _sync_directory(self, number: int) -> None:
        for change in self.changes:
            if number in change.directories:
                change.synced.add(number)
        durable: set[_Change] = set()
        more = True
        while more:
            more = False
            for change in self.changes:
                if change not in durable and change.synced >= change.directories:
                    more = True
                    todo = [change]
                    while todo:
                        item = todo.pop()
                        if item not in durable:
                            durable.add(item)
                            todo += [need for need in item.needs if need in self.changes]
        for change in [change for change in self.changes if change in durable]:
            _apply(self.safe, change)
        self.changes = [change for change in self.changes if change not in durable]
        for change in self.changes:
            change.needs = [need for need in change.needs if need not in durable]

    def _after(self, name: str, arguments: tuple[Any, ...]) -> None:
        if name in ("fsync", "fdatasync"):
            self.synced(os.fstat(arguments[0]).st_ino)

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Every call that happens inside is a point; what it made durable is noted."""
        with around_each_call(self.point, self._after):
            yield
        self.point("end")


def _apply(entries: dict[int, dict[str, int]], change: _Change) -> None:
    for directory, name, _, after in change.entries:
        held = entries.setdefault(directory, {})
        if after:
            held[name] = after
        else:
            held.pop(name, None)


def states(point: Point, chance: random.Random, most: int) -> list[State]:
    """What a cut at ``point`` may leave: nothing pending, everything, everything but one, only one, random subsets.

    At most about ``most``; the first ones are always among them, of the others a random choice is.
    """
    count = len(point.changes)
    every, none = frozenset(range(count)), frozenset[int]()
    bare: list[State] = [(none, OLD, none), (every, NOW, none), (every, OLD, none), (every, HALF, none)]
    files = sorted(point.pending)
    single: list[State] = [(every - {one}, NOW, none) for one in range(count)]
    single += [(frozenset({one}), NOW, none) for one in range(count)]
    single += [(every, OLD, point.pending - {one}) for one in files]
    single += [(every, HALF, point.pending - {one}) for one in files]
    chance.shuffle(single)
    mixed: list[State] = []
    for _ in range(min(most // 4, count)):
        some = frozenset(one for one in every if chance.random() < 0.5)
        mixed.append((some, chance.choice((OLD, HALF, NOW)), none))
    chosen = [*bare, *single[: max(0, most - len(bare) - len(mixed))], *mixed]
    return list(dict.fromkeys((_closed(point, some), how, kept) for some, how, kept in chosen))


def _closed(point: Point, some: frozenset[int]) -> frozenset[int]:
    """Leave out changes whose needs are left out."""
    places = {id(change): place for place, change in enumerate(point.changes)}
    taken: set[int] = set()
    for place in sorted(some):
        if all(places[id(need)] in taken for need in point.changes[place].needs if id(need) in places):
            taken.add(place)
    return frozenset(taken)


@dataclass(frozen=True)
class Image:
    """One disk after a cut, as data: equal ones need to be judged once."""

    tree: tuple[Any, ...]
    numbers: tuple[int, ...]

    def build(self, root: Path, journal: Path) -> None:
        """Make it below ``root``. The inode numbers in the journal are replaced by those that the new files got."""
        real: dict[int, int] = {}
        _build(self.tree, root, real, {})
        try:
            record = json.loads(journal.read_bytes())
            for key in ("old_tree", "new_tree"):
                if record[key] is not None:
                    record[key]["ino"] = real.get(record[key]["ino"], _NO_INODE + record[key]["ino"])
        except (OSError, ValueError, KeyError, TypeError):
            return  # none, or half of one
        journal.write_text(json.dumps(record))


def image(point: Point, state: State, top: int) -> Image:
    """The disk that ``state`` describes."""
    some, how, kept = state
    entries = {number: dict(held) for number, held in point.safe.items()}
    for place in sorted(some):
        _apply(entries, point.changes[place])
    numbers: list[int] = []

    def part(number: int) -> tuple[Any, ...]:
        kind, mode, mode_safe, data, data_safe, target = point.inodes[number]
        which = NOW if number in kept else how
        if stat.S_ISDIR(kind):
            numbers.append(number)
            inside = tuple((name, part(child)) for name, child in sorted(entries.get(number, {}).items()))
            return ("dir", mode if how == NOW else mode_safe, number, inside)
        if stat.S_ISLNK(kind):
            return ("link", target)
        if which == HALF and data.startswith(data_safe):
            data = data_safe + data[len(data_safe) :][: (len(data) - len(data_safe)) // 2]
        elif which != NOW:
            data = data_safe
        return ("file", mode if which == NOW else mode_safe, number, data)

    tree = part(top)
    assert len(set(numbers)) == len(numbers), f"a directory has two names at {point.call}"
    return Image(tree, tuple(numbers))


def _build(part: tuple[Any, ...], path: Path, real: dict[int, int], files: dict[int, Path]) -> None:
    if part[0] == "link":
        os.symlink(part[1], path)
        return
    _, mode, number, held = part
    if part[0] == "dir":
        os.mkdir(path)
        real[number] = path.lstat().st_ino
        for name, child in held:
            _build(child, path / name, real, files)
    elif number in files:
        os.link(files[number], path)
        return
    else:
        files[number] = path
        path.write_bytes(held)
    os.chmod(path, mode)


def sample(points: Sequence[Point], seed: int, cuts: int, each: int) -> Iterator[tuple[str, Point, State]]:
    """(what, point, state): states of ``cuts`` of the points (0: all), the last point always among them."""
    chance = random.Random(seed)
    chosen = set(range(len(points)))
    if cuts and cuts < len(points):
        chosen = {*chance.sample(range(len(points) - 1), cuts), len(points) - 1}
    for number, point in enumerate(points):
        if number in chosen:
            what = f"before call {number + 1} of {len(points) - 1}, {point.call}"
            what = "after the end" if point is points[-1] else what
            for state in itertools.islice(states(point, chance, each), each):
                left = f"{len(point.changes) - len(state[0])} of {len(point.changes)} changes lost, data {state[1]}"
                yield f"{what} ({left})", point, state
