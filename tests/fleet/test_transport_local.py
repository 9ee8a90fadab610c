"""The engine whose hosts are directories of this machine."""

from __future__ import annotations

import hashlib
import threading
from dataclasses import replace
from pathlib import Path

from smallq_deploy.fleet.engines.local import LocalTransport
from smallq_deploy.fleet.hosts import Host
from smallq_deploy.fleet.node import PLACE
from smallq_deploy.fleet.transport import Outcome, State, Task, Upload
from tests.support.processes import left_running


def _run(*tasks: Task, stop: threading.Event | None = None, parallel: int = 8) -> dict[str, Outcome]:
    found: list[Outcome] = []
    LocalTransport(parallel).run(tasks, found.append, stop)
    assert len(found) == len(tasks)
    return {outcome.host: outcome for outcome in found}


def _host(home: Path, name: str = "here") -> Host:
    home.mkdir(exist_ok=True)
    return Host(name, address=f"local:{home}")


def _upload(path: Path, content: bytes = b"bundle") -> Upload:
    path.write_bytes(content)
    return Upload(path, hashlib.sha256(content).hexdigest(), "bundle.pyz")


def test_a_command_ends_with_its_status_output_and_home(tmp_path: Path) -> None:
    host = _host(tmp_path / "home")
    command = "printf '%s|%s' \"$HOME\" \"$SMALLQ_FLEET_HOME\"; printf 'a\\377b\\r\\n\\n' >&2; exit 7"
    outcome = _run(Task(host, command))["here"]
    assert (outcome.state, outcome.exit_status) == (State.DONE, 7)
    assert outcome.stdout == f"{tmp_path}/home|{tmp_path}/home"
    assert outcome.stderr.startswith("a\ufffdb")


def test_output_of_several_megabytes_on_one_line_is_whole(tmp_path: Path) -> None:
    command = "head -c 6000000 /dev/zero | tr '\\0' x"
    assert _run(Task(_host(tmp_path / "home"), command))["here"].stdout == "x" * 6_000_000


def test_a_file_travels_once_and_again_only_when_it_was_changed_there(tmp_path: Path) -> None:
    upload = _upload(tmp_path / "made")
    task = Task(_host(tmp_path / "home"), f'cat "$HOME/{PLACE}/bundle.pyz"', (upload,))
    place = tmp_path / "home" / PLACE
    assert [_run(task)["here"].uploaded for _ in range(2)] == [1, 0]
    assert (place.stat().st_mode & 0o777, [item.name for item in place.iterdir()]) == (0o700, ["bundle.pyz"])
    (place / "bundle.pyz").write_bytes(b"half")
    outcome = _run(task)["here"]
    assert (outcome.uploaded, outcome.stdout) == (1, "bundle")


def test_a_file_that_is_not_what_its_digest_says_is_refused_and_nothing_runs(tmp_path: Path) -> None:
    upload = replace(_upload(tmp_path / "made"), sha256="0" * 64)
    outcome = _run(Task(_host(tmp_path / "home"), f"touch {tmp_path}/ran", (upload,)))["here"]
    assert (outcome.state, outcome.error) == (State.UPLOAD_FAILED, "bundle.pyz: what arrived is not what was sent")
    assert not (tmp_path / "ran").exists()
    assert list((tmp_path / "home" / PLACE).iterdir()) == []


def test_what_was_not_used_for_a_month_goes(tmp_path: Path) -> None:
    import os

    task = Task(_host(tmp_path / "home"), "true", (_upload(tmp_path / "made"),))
    _run(task)
    place = tmp_path / "home" / PLACE
    for name in ("older.pyz", "bundle.pyz"):
        (place / name).touch()
        os.utime(place / name, (1, 1))
    (place / "newer.pyz").touch()
    assert _run(task)["here"].state is State.DONE
    assert sorted(item.name for item in place.iterdir()) == ["bundle.pyz", "newer.pyz"]


def test_a_place_that_cannot_be_made_is_an_upload_that_failed(tmp_path: Path) -> None:
    host = _host(tmp_path / "home")
    (tmp_path / "home" / ".cache").write_text("a file")
    outcome = _run(Task(host, "true", (_upload(tmp_path / "made"),)))["here"]
    assert outcome.state is State.UPLOAD_FAILED
    assert ".cache" in outcome.error


def test_a_command_that_hangs_is_ended_with_its_children_and_holds_no_other(tmp_path: Path) -> None:
    hang = Task(_host(tmp_path / "a", "hang"), f"cd {tmp_path}/a; sleep 300 & sleep 301", timeout=1.0)
    found = _run(hang, *(Task(_host(tmp_path / "b", f"n{i}"), "true") for i in range(5)), parallel=2)
    assert (found["hang"].state, found["hang"].error) == (State.TIMED_OUT, "no answer within 1 s")
    assert all(found[f"n{i}"].state is State.DONE for i in range(5))
    assert left_running(f"{tmp_path}/a") == []


def test_hosts_whose_turn_did_not_come_before_the_stop_are_skipped(tmp_path: Path) -> None:
    stop = threading.Event()
    found: list[Outcome] = []

    def on_outcome(outcome: Outcome) -> None:
        found.append(outcome)
        stop.set()

    tasks = [Task(_host(tmp_path / "home", f"n{i}"), "sleep 0.2") for i in range(9)]
    LocalTransport(2).run(tasks, on_outcome, stop)
    assert sorted({item.state.value for item in found}) == ["done", "skipped"]
    assert len(found) == 9 and sum(item.state is State.DONE for item in found) <= 4


def test_a_home_that_is_not_there_is_a_host_that_is_not_there(tmp_path: Path) -> None:
    assert _run(Task(Host("gone", address=f"local:{tmp_path}/gone"), "true"))["gone"].state is State.UNREACHABLE
