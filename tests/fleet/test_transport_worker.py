"""The worker process of the pyinfra engine: it may die or hang, and it never outlives its controller."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from smallq_deploy.base.errors import UsageError
from smallq_deploy.fleet.engines import pyinfra_ssh
from smallq_deploy.fleet.engines.pyinfra_ssh import PyinfraTransport
from smallq_deploy.fleet.hosts import Host
from smallq_deploy.fleet.transport import Outcome, State, Task
from tests.conftest import CHECKOUT
from tests.support import sshd


@pytest.fixture
def engine() -> Iterator[PyinfraTransport]:
    made = PyinfraTransport()
    yield made
    made.close()


def _fakes(count: int) -> list[Task]:
    return [Task(Host(f"f{number:05d}", address="@fake"), "true", timeout=5.0) for number in range(count)]


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_fake_hosts_end_as_scripted_and_a_hanging_one_by_its_time() -> None:
    script = {"f00001": {"exit_status": 9, "stderr": "no"}, "f00002": {"delay": 600}, "f00003": {"stdout": '{"a": 1}'}}
    engine, found = PyinfraTransport(fake=lambda task: script.get(task.host.name, {})), dict[str, Outcome]()
    start = time.monotonic()
    engine.run(_fakes(1000), lambda outcome: found.__setitem__(outcome.host, outcome))
    engine.close()
    assert len(found) == 1000 and time.monotonic() - start < 60
    assert (found["f00001"].exit_status, found["f00001"].stderr) == (9, "no")
    assert found["f00002"].state is State.TIMED_OUT
    assert found["f00003"].stdout == '{"a": 1}'
    others = {(item.state, item.exit_status) for name, item in found.items() if name > "f00003"}
    assert others == {(State.DONE, 0)}


def test_a_killed_worker_loses_what_ran_and_the_next_run_has_a_new_one(
    farm: sshd.Farm, engine: PyinfraTransport
) -> None:
    found: list[Outcome] = []
    killer = threading.Timer(1.5, lambda: os.kill(engine.worker_pid, signal.SIGKILL))
    killer.start()
    tasks = [Task(host, "true" if number < 3 else "sleep 6") for number, host in enumerate(farm.hosts)]
    engine.run(tasks, found.append)
    killer.join()
    states = {item.host: item.state for item in found}
    assert len(found) == 20
    assert all(states[host.name] is State.LOST for host in farm.hosts[3:])
    again: list[Outcome] = []
    engine.run(tasks[:3], again.append)
    assert [item.state for item in again] == [State.DONE] * 3


def test_a_worker_that_hangs_itself_is_given_up(monkeypatch: pytest.MonkeyPatch, engine: PyinfraTransport) -> None:
    monkeypatch.setattr(pyinfra_ssh, "_GRACE", 0.5)
    found: list[Outcome] = []
    engine.run(_fakes(1), found.append)
    pid = engine.worker_pid
    os.kill(pid, signal.SIGSTOP)
    engine.run([Task(Host("f", address="@fake"), "true", timeout=0.5)], found.append)
    assert [item.state for item in found] == [State.DONE, State.LOST]
    assert not _alive(pid)


def test_an_interrupted_run_leaves_nothing_for_the_next(engine: PyinfraTransport) -> None:
    def interrupt(outcome: Outcome) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        engine.run(_fakes(50), interrupt)
    found: list[Outcome] = []
    engine.run(_fakes(3), found.append)
    assert [item.host for item in found] == ["f00000", "f00001", "f00002"]


def test_the_worker_ends_with_a_controller_that_is_killed(farm: sshd.Farm) -> None:
    program = (
        "import json, sys\n"
        "from smallq_deploy.fleet.engines.pyinfra_ssh import PyinfraTransport\n"
        "from smallq_deploy.fleet.transport import Task\n"
        "engine = PyinfraTransport()\n"
        "tasks = [Task.from_dict(item) for item in json.loads(sys.argv[1])]\n"
        "engine.run(tasks, lambda outcome: print(engine.worker_pid, flush=True))\n"
    )
    import json

    tasks = [Task(farm.hosts[0], "true").to_dict(), Task(farm.hosts[1], "sleep 20").to_dict()]
    controller = subprocess.Popen(
        [sys.executable, "-c", program, json.dumps(tasks)], stdout=subprocess.PIPE, text=True, cwd=CHECKOUT
    )
    assert controller.stdout is not None
    worker = int(controller.stdout.readline())
    assert _alive(worker)
    controller.kill()
    controller.wait()
    controller.stdout.close()
    until = time.monotonic() + 10
    while _alive(worker) and time.monotonic() < until:
        time.sleep(0.05)
    assert not _alive(worker)


def test_without_the_extra_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch, engine: PyinfraTransport) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "gevent" else real(name))
    with pytest.raises(UsageError) as caught:
        engine.run(_fakes(1), lambda outcome: None)
    assert caught.value.code == "FLEET_EXTRA_MISSING"
    assert "smallq-deploy[fleet]" in caught.value.hint
