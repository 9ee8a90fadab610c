"""Both SSH engines on real hosts: what travels, what comes back, and which state every kind of trouble is."""

from __future__ import annotations

import hashlib
import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from smallq_deploy.fleet.engines.openssh import OpenSshTransport
from smallq_deploy.fleet.engines.pyinfra_ssh import PyinfraTransport
from smallq_deploy.fleet.node import PLACE, command_for, read_answer
from smallq_deploy.fleet.transport import Outcome, State, Task, Transport, Upload
from tests.support import sshd

Run = Callable[..., dict[str, Outcome]]


@pytest.fixture(scope="module", params=[PyinfraTransport, OpenSshTransport], ids=["pyinfra", "openssh"])
def engine(request: pytest.FixtureRequest) -> Iterator[Transport]:
    made: Transport = request.param()
    yield made
    made.close()


@pytest.fixture
def run(engine: Transport) -> Run:
    def through(*tasks: Task, stop: threading.Event | None = None) -> dict[str, Outcome]:
        found: list[Outcome] = []
        engine.run(tasks, found.append, stop)
        assert sorted(item.host for item in found) == sorted(task.host.name for task in tasks)
        return {item.host: item for item in found}

    return through


def _upload(path: Path, content: bytes) -> Upload:
    path.write_bytes(content)
    return Upload(path, hashlib.sha256(content).hexdigest(), "tool.pyz")


def _gone(pids: Callable[[], object], seconds: float = 15.0) -> bool:
    until = time.monotonic() + seconds
    while (left := pids()) and time.monotonic() < until:
        time.sleep(0.1)
    return not left


def test_twenty_hosts_get_a_file_once_and_answer_with_their_own_status(
    farm: sshd.Farm, run: Run, tmp_path: Path, engine: Transport
) -> None:
    content = f"echo from $HOME {type(engine).__name__}\nexit 5\n".encode() + b"#" * 200_000
    upload = _upload(tmp_path / "tool", content)
    tasks = [Task(host, f'sh "$SMALLQ_FLEET_HOME/{PLACE}/tool.pyz"', (upload,), 60) for host in farm.hosts]
    for travelled in (1, 0):
        found = run(*tasks)
        for server in farm.servers:
            outcome = found[server.name]
            assert (outcome.state, outcome.exit_status, outcome.uploaded) == (State.DONE, 5, travelled), outcome
            assert outcome.stdout == f"from {server.home} {type(engine).__name__}\n"
            assert (server.home / PLACE / "tool.pyz").read_bytes() == content
            assert not [item for item in (server.home / PLACE).iterdir() if item.name.startswith(".")]


def test_output_is_exact_however_long_and_whatever_bytes(farm: sshd.Farm, run: Run) -> None:
    command = "head -c 5000000 /dev/zero | tr '\\0' x; printf '\\n\\377|\\r\\n'; echo \"it's said\" >&2; exit 255"
    outcome = run(Task(farm.hosts[0], command))["n01"]
    assert (outcome.state, outcome.exit_status, outcome.stderr) == (State.DONE, 255, "it's said\n")
    assert outcome.stdout == "x" * 5_000_000 + "\n\ufffd|\r\n"


def test_a_hang_is_ended_by_our_own_time_and_soon_there_too(farm: sshd.Farm, run: Run) -> None:
    hang = Task(farm.hosts[0], "sleep 300 & sleep 301", timeout=10.0)
    found = run(hang, *(Task(host, "true") for host in farm.hosts[1:]))
    assert (found["n01"].state, found["n01"].error) == (State.TIMED_OUT, "no answer within 10 s")
    assert all(found[host.name].state is State.DONE for host in farm.hosts[1:])
    assert _gone(lambda: sshd.session_pids(farm[0].directory))


def test_a_server_that_accepts_and_says_nothing_is_unreachable(farm: sshd.Farm, run: Run) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(5)
        host = replace(farm.hosts[0], port=silent.getsockname()[1])
        outcome = run(Task(host, "true", timeout=2.0))["n01"]
    assert (outcome.state, outcome.error) == (State.UNREACHABLE, "no connection within 2 s")


def test_nobody_listening_and_no_such_name_are_unreachable(farm: sshd.Farm, run: Run) -> None:
    closed = replace(farm.hosts[0], name="closed", port=sshd.free_ports(1)[0])
    nameless = replace(farm.hosts[0], name="nameless", address="no-such-host.invalid")
    found = run(Task(closed, "true"), Task(nameless, "true"))
    assert {item.state for item in found.values()} == {State.UNREACHABLE}
    assert "Connection refused" in found["closed"].error
    assert "no-such-host.invalid" in found["nameless"].error


def test_a_key_that_host_does_not_know_is_refused(farm: sshd.Farm, run: Run, tmp_path: Path) -> None:
    host = replace(farm.hosts[0], key=str(sshd.make_key(tmp_path / "other")))
    outcome = run(Task(host, "true"))["n01"]
    assert outcome.state is State.REFUSED, outcome
    assert read_answer(host, outcome).code == "HOST_REFUSED"


def test_host_keys_are_never_taken_on_trust(farm: sshd.Farm, run: Run, tmp_path: Path) -> None:
    lines = farm.known_hosts.read_text().splitlines()
    (tmp_path / "none").touch()
    changed = lines[0].split()[0] + " " + " ".join(lines[1].split()[1:])
    (tmp_path / "changed").write_text(changed + "\n")
    unknown = replace(farm.hosts[0], name="unknown", known_hosts=str(tmp_path / "none"))
    other = replace(farm.hosts[0], name="other", known_hosts=str(tmp_path / "changed"))
    mark = farm[0].home / "ran"
    found = run(Task(unknown, f"touch {mark}"), Task(other, f"touch {mark}"))
    assert (found["unknown"].state, found["other"].state) == (State.REFUSED, State.REFUSED), found
    assert "host key" in found["unknown"].error and "changed" in found["other"].error
    assert not mark.exists() and (tmp_path / "none").read_text() == ""


def test_hashed_known_hosts_are_read(farm: sshd.Farm, run: Run, tmp_path: Path) -> None:
    hashed = tmp_path / "hashed"
    shutil.copy(farm.known_hosts, hashed)
    subprocess.run(["ssh-keygen", "-q", "-H", "-f", str(hashed)], check=True, capture_output=True)
    found = run(*(Task(replace(host, known_hosts=str(hashed)), "true") for host in farm.hosts[:3]))
    assert {item.state for item in found.values()} == {State.DONE}, found


def test_a_host_whose_link_is_down_is_unreachable_and_the_others_answer(namespace_farm: sshd.Farm, run: Run) -> None:
    sshd.link(namespace_farm[2], "down")
    try:
        found = run(*(Task(host, "echo here", timeout=10.0) for host in namespace_farm.hosts))
    finally:
        sshd.link(namespace_farm[2], "up")
    assert found.pop("x3").state is State.UNREACHABLE
    assert {(item.state, item.stdout) for item in found.values()} == {(State.DONE, "here\n")}


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small file system needs root")
def test_a_full_disk_fails_the_upload_says_so_and_leaves_nothing(one_host: sshd.Farm, run: Run, tmp_path: Path) -> None:
    home = one_host[0].home
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(home)], check=True)
    try:
        upload = _upload(tmp_path / "tool", os.urandom(3_000_000))
        outcome = run(Task(one_host.hosts[0], f"touch {tmp_path}/ran", (upload,)))["n01"]
        assert list((home / PLACE).iterdir()) == []
    finally:
        subprocess.run(["umount", "-l", str(home)], check=True)
    assert outcome.state is State.UPLOAD_FAILED
    assert "No space left on device" in outcome.error
    assert not (tmp_path / "ran").exists()


def test_a_connection_that_is_cut_while_the_command_runs_is_lost(one_host: sshd.Farm, run: Run, tmp_path: Path) -> None:
    server, mark = one_host[0], tmp_path / "begun"

    def cut() -> None:
        _gone(lambda: not mark.exists())
        for pid in _sessions_of(server.pid):
            with suppress(ProcessLookupError):
                os.kill(pid, 9)

    thread = threading.Thread(target=cut)
    thread.start()
    outcome = run(Task(server.host, f"touch {mark}; sleep 30", timeout=20.0))["n01"]
    thread.join()
    assert outcome.state is State.LOST, outcome
    assert read_answer(server.host, outcome).code == "HOST_LOST"


def _sessions_of(pid: int) -> list[int]:
    """The sshd processes of a server's sessions."""
    return [int(item) for item in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_hosts_not_begun_when_the_run_is_stopped_are_skipped(
    farm: sshd.Farm, tmp_path: Path, engine: Transport
) -> None:
    stop, found = threading.Event(), list[Outcome]()

    def on_outcome(outcome: Outcome) -> None:
        found.append(outcome)
        stop.set()

    narrow = type(engine)(2)  # type: ignore[call-arg]
    narrow.run([Task(host, f"touch {tmp_path}/$$; sleep 0.5") for host in farm.hosts], on_outcome, stop)
    narrow.close()
    done = [item for item in found if item.state is State.DONE]
    assert len(found) == 20 and len(done) == len(list(tmp_path.iterdir())) <= 4
    assert {item.state for item in found} == {State.DONE, State.SKIPPED}


def test_a_jump_host_is_used_with_the_same_key_and_known_hosts(namespace_farm: sshd.Farm, run: Run) -> None:
    first, behind = namespace_farm[0], namespace_farm[1]
    host = replace(behind.host, jump=f"{first.host.user}@{first.host.address}")
    outcome = run(Task(host, 'echo "$HOME $SSH_CONNECTION"'))["x2"]
    assert outcome.state is State.DONE, outcome
    home, client = outcome.stdout.split()[:2]
    assert (home, client) == (str(behind.home), first.host.address)


def test_a_jump_host_that_is_away_is_named(namespace_farm: sshd.Farm, run: Run) -> None:
    port = sshd.free_ports(1)[0]
    outcome = run(Task(replace(namespace_farm.hosts[1], jump=f"127.0.0.1:{port}"), "true"))["x2"]
    assert outcome.state is State.UNREACHABLE
    assert "127.0.0.1" in outcome.error, outcome


def test_a_python_that_is_too_old_is_said_with_its_version(one_host: sshd.Farm, run: Run) -> None:
    programs = one_host[0].root / "bin"
    programs.mkdir()
    for name in ("sh", "cat", "tail", "timeout", "true"):
        (programs / name).symlink_to(shutil.which(name) or f"/bin/{name}")
    python = programs / "python3"
    python.write_text('#!/bin/sh\ncase "$2" in *exit*) exit 1 ;; *) echo 3.8.10 ;; esac\n')
    python.chmod(0o755)
    host = one_host.hosts[0]
    outcome = run(Task(host, f"PATH={programs}\n" + command_for(host, "tool.pyz", ["facts"])))["n01"]
    answer = read_answer(host, outcome)
    assert (answer.code, answer.asked) == ("PYTHON_TOO_OLD", False)
    assert "3.8.10" in answer.message
