"""A rollout's memory: what was written is read back, and what was damaged is not believed."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import zlib
from pathlib import Path

import pytest

from smallq_deploy.base.errors import ConflictError, PackageError, SmallqError, UsageError
from smallq_deploy.fleet.hosts import Host
from smallq_deploy.fleet.rollout.ledger import Header, Ledger, read_ledger
from smallq_deploy.fleet.rollout.policy import Policy
from smallq_deploy.fleet.rollout.runs import controller_lock, find_run, fleet_folder, new_run_id, runs
from smallq_deploy.fleet.rollout.waves import Asked, Begun, Closed, Ended, Event, Kind, Skipped, Soaked
from tests.conftest import CHECKOUT

EVENTS: list[Event] = [
    Ended(Kind.PLAN, "a", True, True, data={"decision": "install"}),
    Begun(Kind.CHANGE, ("a", "b"), 1),
    Ended(Kind.CHANGE, "a", False, None, "HOST_TIMEOUT", "it took too long", "look there", {"x": [1]}, 12.5, True),
    Skipped(Kind.CHANGE, ("b",)),
    Soaked(1),
    Asked("pause"),
    Closed("stopped", "1 host failed"),
]


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "state"


def _header(run: str = "20261201T023020Z-4f1c2a") -> Header:
    hosts = (Host("a", "192.0.2.1", 2222, user="root", key="~/.ssh/id", groups=("g",)), Host("b", shared_opp="nfs"))
    return Header(run, "install", "pod", "c0ffee" * 10, hosts, Policy.parse(max_fail="2%"), {"bundle": "ab"})


def _written(folder: Path) -> Path:
    with Ledger.create(folder, _header()) as ledger:
        for event in EVENTS:
            ledger.append(event)
    return ledger.path


def test_what_was_written_is_read(tmp_path: Path) -> None:
    path = _written(tmp_path)
    header, events, _ = read_ledger(path)
    assert list(events) == EVENTS
    assert header == _header()
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700


def test_a_torn_last_line_is_dropped_and_written_over(tmp_path: Path) -> None:
    path = _written(tmp_path)
    whole = path.read_bytes()
    last = whole.rstrip(b"\n").rfind(b"\n") + 1
    for end in range(last, len(whole)):
        path.write_bytes(whole[:end])
        assert list(read_ledger(path)[1]) == EVENTS[:-1]
    with Ledger.open(path) as ledger:
        assert list(ledger.events) == EVENTS[:-1]
        ledger.append(EVENTS[-1])
    assert list(read_ledger(path)[1]) == EVENTS


def test_a_damaged_byte_anywhere_is_found(tmp_path: Path) -> None:
    path = _written(tmp_path)
    whole = path.read_bytes()
    for place in range(0, len(whole) - 1, 7):
        damaged = bytearray(whole)
        damaged[place] ^= 1
        path.write_bytes(damaged)
        with pytest.raises(PackageError) as caught:
            read_ledger(path)
        # A line end that is none joins two lines: the first of them is named.
        assert caught.value.details["line"] == whole[:place].count(b"\n") + 1
        assert f"{path}:{caught.value.details['line']}:" in caught.value.message


def test_a_missing_line_is_found(tmp_path: Path) -> None:
    path = _written(tmp_path)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:3] + lines[4:]))
    with pytest.raises(PackageError, match="missing or out of order") as caught:
        read_ledger(path)
    assert caught.value.details["line"] == 4


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ({"event": "ended", "kind": "change", "host": "stranger", "ok": True, "n": 2}, "not in the first line"),
        ({"event": "ended", "kind": "dance", "host": "a", "ok": True, "n": 2}, "dance"),
        ({"event": "party", "n": 2}, "party"),
        ({"event": "ended", "n": 2}, "missing"),
        ({"n": 2}, "event"),
        ([2], "missing or out of order"),
    ],
)
def test_a_line_that_means_nothing_is_named(tmp_path: Path, document: object, words: str) -> None:
    path = _written(tmp_path)
    first = path.read_bytes().splitlines(keepends=True)[0]
    text = json.dumps(document).encode()
    path.write_bytes(first + b"%08x %s\n" % (zlib.crc32(text), text))
    with pytest.raises(PackageError, match=words) as caught:
        read_ledger(path)
    assert caught.value.code == "BAD_LEDGER"
    assert caught.value.details["line"] == 2


@pytest.mark.parametrize("content", [b"", b"no line", b"\n", b"00000000 {}\n", b"\0" * 5000])
def test_what_is_no_ledger_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "ledger"
    path.write_bytes(content)
    with pytest.raises(PackageError, match=f"{path}:1: "):
        read_ledger(path)


def test_a_newer_ledger_is_refused_with_its_version(tmp_path: Path) -> None:
    path = tmp_path / "ledger"
    text = json.dumps({"n": 1, "schema_version": 2, "whatever": 1}).encode()
    path.write_bytes(b"%08x %s\n" % (zlib.crc32(text), text))
    with pytest.raises(UsageError, match="schema version 2, this tool reads 1") as caught:
        read_ledger(path)
    assert caught.value.code == "LEDGER_NEWER"


def test_a_full_disk_is_an_answer(tmp_path: Path) -> None:
    ledger = Ledger.create(tmp_path, _header())
    try:
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (ledger.path.stat().st_size + 10, hard))
        try:
            with pytest.raises(SmallqError, match="cannot write"):
                ledger.append(EVENTS[0])
            with pytest.raises(SmallqError, match="cannot write"):
                ledger.append(EVENTS[0])
            with pytest.raises(SmallqError, match="cannot write"):
                ledger.sync()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    finally:
        with pytest.raises(SmallqError):
            ledger.close()
    assert read_ledger(ledger.path)[1] == ()


def test_runs_are_listed_latest_first_and_found_by_their_beginning() -> None:
    folder = fleet_folder("pod", "c0ffee" * 10)
    for run in ("20261201T023020Z-000001", "20261202T023020Z-000002"):
        Ledger.create(folder, _header(run)).close()
    with Ledger.open(folder / "20261201T023020Z-000001" / "ledger") as ledger:
        ledger.append(EVENTS[-1])
    (folder / "20261203T023020Z-000003").mkdir()
    (folder / "20261203T023020Z-000003" / "ledger").write_text("x\n")
    listed = [(info.run, info.result, info.busy, bool(info.problem)) for info in runs()]
    assert listed == [
        ("20261203T023020Z-000003", "", False, True),
        ("20261202T023020Z-000002", "", False, False),
        ("20261201T023020Z-000001", "stopped", False, False),
    ]
    assert find_run("20261201").run == "20261201T023020Z-000001"
    assert find_run().run == "20261203T023020Z-000003"
    with pytest.raises(UsageError, match="3 runs begin with 2026") as caught:
        find_run("2026")
    assert caught.value.code == "AMBIGUOUS_RUN"
    with pytest.raises(UsageError, match="no run 'x'") as caught:
        find_run("x")
    assert caught.value.code == "NO_SUCH_RUN"


def test_folders_of_inventories_have_plain_names() -> None:
    assert fleet_folder("../../etc/pod one.yaml", "12345678" * 8).name == "etc-pod-one-yaml-12345678"
    assert fleet_folder("..", "12345678" * 8).name == "inventory-12345678"
    assert sorted([new_run_id(), "20200101T000000Z-ffffff"])[0] == "20200101T000000Z-ffffff"


_HOLD = """
import sys
from pathlib import Path
from smallq_deploy.fleet.rollout.runs import controller_lock
with controller_lock(Path(sys.argv[1]), "20261201T023020Z-4f1c2a"):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_an_inventory_has_one_controller(tmp_path: Path) -> None:
    folder = fleet_folder("pod", "c0ffee" * 10)
    Ledger.create(folder, _header()).close()
    child = subprocess.Popen(
        [sys.executable, "-c", _HOLD, str(folder)],
        cwd=CHECKOUT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdin and child.stdout
    try:
        assert child.stdout.readline() == "held\n"
        with pytest.raises(ConflictError) as caught, controller_lock(folder, "20261202T000000Z-000000"):
            pass
        assert caught.value.code == "FLEET_BUSY"
        for words in (f"pid {child.pid}", os.uname().nodename, "20261201T023020Z-4f1c2a"):
            assert words in caught.value.message
        assert find_run().busy
        child.kill()  # a dead controller holds nothing
        child.wait()
        assert not find_run().busy
        with controller_lock(folder, "20261202T000000Z-000000"):
            pass
    finally:
        child.kill()
        child.wait()
        child.stdin.close()
        child.stdout.close()
