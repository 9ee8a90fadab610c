"""Packages made to do harm (row 10): refused before anything is written, or harmless; never executed to be looked at.

Each is installed in a child with an address space of 1 GB, and 20 s for each package.
"""

from __future__ import annotations

import json
import os
import resource
import select
import shutil
import stat
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from smallq_deploy.base.errors import SmallqError
from tests.support import hostile, packages
from tests.support.faultrows import FULL, FaultRow
from tests.support.hostile import PACKAGES, differences, fingerprint
from tests.support.opp import World
from tests.support.world import live_digest, others_digest, settled_problems

SEED = 20261124
_PARTS = 4
_MEMORY = 1 << 30  # bytes
_PATIENCE = 20  # seconds for one package
# What a package may be refused for: itself, this machine, a conflict with what is there.
_REFUSALS = (2, 4, 5, 7)


class Place:
    """A machine on a memory file system, something beside it that must not change, and a marker no script may leave."""

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()
        self.world = World(self.root / "machine")
        self.sentinel = self.root / "sentinel"
        self.sentinel.mkdir()
        (self.sentinel / "file").write_text("theirs")
        (self.sentinel / "file").chmod(0o640)
        self.marker = self.root / "executed"
        self.trap = f"echo executed >>'{self.marker}'"
        self.package = self.root / "op.run"
        self.again()
        self.before = fingerprint(self.sentinel)
        self.beside = set(os.listdir(self.root))

    def again(self) -> None:
        """The machine as before the first install."""
        shutil.rmtree(self.world.root, ignore_errors=True)
        self.world.root.mkdir()
        self.world.make()
        self.others = others_digest(self.world.store)
        self.found = fingerprint(self.world.opp)

    def outside(self) -> list[str]:
        """What happened where nothing may."""
        bad = [f"{path} was changed" for path in differences(self.before, fingerprint(self.sentinel))]
        if self.marker.exists():
            bad.append("a script of the package was executed")
            self.marker.unlink()
        extra = set(os.listdir(self.root)) - self.beside - {self.package.name}
        return bad + [f"{name} is new beside the machine" for name in sorted(extra)]

    def install(self) -> tuple[str, list[str]]:
        """(the code that refused it, '' when it was installed; violations). The machine is then as before."""
        store = self.world.store
        try:
            self.world.install(self.package)
        except SmallqError as error:
            bad = self.outside()
            if error.exit_status not in _REFUSALS:
                bad.append(f"exit status {int(error.exit_status)}: {error.code} {error.message}")
            if not error.message.isprintable() or len(error.message) > 1000:
                bad.append(f"a message that cannot be shown: {error.message[:100]!r}")
            if error.code == "BAD_TREE":  # found in the unpacked tree: staged, never live
                bad += settled_problems(store, (live_digest(store),), self.others)
                found = {path: self.found[path] for path in fingerprint(store.live)}
                bad += [f"{path} was changed" for path in differences(found, fingerprint(store.live))]
                self.again()
            elif changed := differences(self.found, fingerprint(self.world.opp)):
                bad.append(f"{error.code}, but {changed[0]} was changed")
                self.again()
            return error.code, bad
        bad = [*self.outside(), *settled_problems(store, (live_digest(store),), self.others)]
        bad += _strange(store.live)
        self.again()
        return "", bad


def _strange(live: Path) -> Iterator[str]:
    """Entries that no installed tree has."""
    for directory, names, files in os.walk(live):
        for name in (*names, *files):
            path = Path(directory, name)
            mode = path.lstat().st_mode
            if stat.S_ISLNK(mode):
                if not Path(os.path.realpath(path)).is_relative_to(live):
                    yield f"{path} leads out"
            elif stat.S_IMODE(mode) != (0o755 if stat.S_ISDIR(mode) else 0o644):
                yield f"{path} has mode {stat.S_IMODE(mode):04o}"
            elif not stat.S_ISDIR(mode) and not stat.S_ISREG(mode):
                yield f"{path} is no file"


@pytest.fixture
def place() -> Iterator[Place]:
    home = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=home) as directory:
        yield Place(Path(directory))


def in_child(place: Place, works: Sequence[Callable[[], object]]) -> list[tuple[str, list[str]]]:
    """What :meth:`Place.install` says after each of ``works`` wrote its package; a hang or a crash is a violation."""
    results: list[tuple[str, list[str]]] = []
    while len(results) < len(works):
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                os.close(reader)
                for work in works[len(results) :]:
                    work()  # with the memory that its making needs
                    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, resource.getrlimit(resource.RLIMIT_AS)[1]))
                    try:
                        answer = place.install()
                    except BaseException:
                        answer = ("CRASH", [traceback.format_exc(limit=-4)])
                    resource.setrlimit(resource.RLIMIT_AS, resource.getrlimit(resource.RLIMIT_AS)[1:] * 2)
                    os.write(writer, json.dumps(answer).encode() + b"\n")
                status = 0
            finally:
                os._exit(status)
        os.close(writer)
        with os.fdopen(reader, "rb", buffering=0) as stream:
            rest = b""
            while select.select([stream], [], [], _PATIENCE)[0]:
                data = stream.read(1 << 16)
                if not data:
                    break
                *lines, rest = (rest + data).split(b"\n")
                for line in lines:
                    code, bad = json.loads(line)
                    results.append((code, bad))
            else:
                os.kill(pid, 9)
        _, status = os.waitpid(pid, 0)
        if status:
            results.append(("", [f"the child hung or died (wait status {status})"]))
            place.again()
    return results


def _writer(place: Place, name: str) -> Callable[[], object]:
    return lambda: (place.package.unlink(missing_ok=True), PACKAGES[name][1](place.package, place.trap))


@pytest.mark.parametrize("part", range(_PARTS))
def test_packages_made_by_hand(part: int, place: Place, fault_row: FaultRow) -> None:
    names = sorted(PACKAGES)[part::_PARTS]
    answers = in_child(place, [_writer(place, name) for name in names])
    violations = []
    for name, (code, bad) in zip(names, answers, strict=True):
        violations += [f"{name}: {text}" for text in bad]
        if code != PACKAGES[name][0]:
            violations.append(f"{name}: {code or 'installed'} instead of {PACKAGES[name][0] or 'installed'}")
    fault_row("10", len(names), violations, what=f"part {part + 1} of {_PARTS}, through the library")


@pytest.mark.parametrize("part", range(_PARTS))
def test_random_packages(part: int, place: Place, fault_row: FaultRow) -> None:
    count = 1300 if FULL else 40
    tar = hostile.good_tar(trap=place.trap)
    seeds = [SEED + part * 1_000_000 + number for number in range(count)]

    def writer(seed: int) -> Callable[[], object]:
        return lambda: hostile.random_package(place.package, seed, place.trap, tar)

    answers = in_child(place, [writer(seed) for seed in seeds])
    violations = [f"seed {seed}: {text}" for seed, (_, bad) in zip(seeds, answers, strict=True) for text in bad]
    kept = sum(not code for code, _ in answers)
    kinds = len({code for code, _ in answers})
    fault_row("10 fuzz", count, violations, what=f"seeds from {seeds[0]}, {kept} harmless, {kinds} kinds of answers")


def test_the_trap_is_real(place: Place) -> None:
    """The check that no script ran would see one that did."""
    packages.make_run(place.package, trap=place.trap)
    subprocess.run(["bash", str(place.package), f"--install-path={place.root}/there"], check=True, capture_output=True)
    assert place.marker.read_text() == "executed\nexecuted\n"
    assert place.outside() == ["a script of the package was executed", "there is new beside the machine"]


def test_a_changed_sentinel_is_seen(place: Place) -> None:
    (place.sentinel / "file").chmod(0o644)
    (place.world.live / "new").write_text("x")
    assert place.outside() == [f"{place.sentinel}/file was changed"]
    changed = differences(place.found, fingerprint(place.world.opp))
    assert str(place.world.live / "new") in changed


def test_hostile_packages_through_the_command(fresh_toolkit: Callable[..., Path], tmp_path: Path, place: Place) -> None:
    """The real command: the documented exit status, one JSON document, nothing written, no script run."""
    root = fresh_toolkit()
    (vendors,) = (path.resolve() / "vendors" for path in root.glob("cann-*/opp"))
    before = fingerprint(vendors)
    names = ("traversal", "gigabytes of directory names", "bomb of zeros", "trailing garbage", "pax path absolute")
    for name in names:
        _writer(place, name)()
        done = subprocess.run(
            [sys.executable, "-m", "smallq_deploy", "install", str(place.package), "--cann", str(root), "--json"],
            capture_output=True,
            text=True,
            timeout=60,
        )
        answer = json.loads(done.stdout)
        assert (done.returncode, answer["exit_status"]) == (5, 5), (name, done.stdout, done.stderr)
        assert [error["code"] for error in answer["errors"]] == [PACKAGES[name][0]], name
        assert "Traceback" not in done.stderr
        assert differences(before, fingerprint(vendors)) == [], name
        assert place.outside() == [], name
