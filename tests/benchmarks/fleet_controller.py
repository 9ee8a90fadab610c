"""Controllers that `make bench-fleet` starts, measures and kills: ``python -m tests.benchmarks.fleet_controller``.

``fake FOLDER HOSTS BUDGET`` rolls out over that many hosts of pyinfra's fake connector, 3 % failing and 1 % hanging; a
folder with a ledger is gone on with. ``true HOSTS.json`` and ``facts HOSTS.json`` ask real hosts. Each prints one JSON
object at its end.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from smallq_deploy.fleet.ask import task_for
from smallq_deploy.fleet.bundles import NodeBundle, existing
from smallq_deploy.fleet.engines.pyinfra_ssh import PyinfraTransport
from smallq_deploy.fleet.hosts import Host
from smallq_deploy.fleet.rollout.action import Verdict
from smallq_deploy.fleet.rollout.controller import Rollout
from smallq_deploy.fleet.rollout.ledger import Ledger
from smallq_deploy.fleet.rollout.policy import Policy
from smallq_deploy.fleet.transport import Outcome, State, Task
from tests.support.fleetsim import NEW, OLD, SimInstall, envelope, header_of

RUN = "20261201T000000Z-000000"
HANG_SECONDS = 1.0  # our own time for a fake host; a hanging one would take ten minutes


class FakeInstall(SimInstall):
    """SimInstall's words with a short time."""

    def tasks(self, hosts: Iterable[Host], told: Mapping[str, Mapping[str, Any]]) -> list[Task]:
        return [Task(host, "install", timeout=HANG_SECONDS) for host in hosts]


class FakeHosts:
    """What fake hosts answer; every install that is begun leaves a line in ``log``."""

    def __init__(self, log: Path) -> None:
        self._log = open(log, "a", buffering=1)  # noqa: SIM115 (as long as the controller)

    def __call__(self, task: Task) -> Mapping[str, Any]:
        name = task.host.name
        kind = int(name[3:]) % 100
        if task.command == "plan":
            return {"stdout": envelope(name, 0, data={"would": True}).stdout}
        if task.command != "install":
            return {"stdout": envelope(name, 0, data={"live": OLD if kind in FAILING else NEW}).stdout}
        self._log.write(f"{name}\n")
        if kind == HANGING:
            return {"delay": 600.0}
        if kind in FAILING:
            return {"exit_status": 8, "stdout": envelope(name, 8, "INSTALL_FAILED").stdout}
        return {"stdout": envelope(name, 0, data={"changed": True, "before": 1}).stdout}


FAILING, HANGING = (33, 66, 99), 50


def _peak(pid: int) -> float:
    """Peak resident memory of a process in MB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1000
    return 0.0


def fake(folder: Path, count: int, budget: str) -> dict[str, Any]:
    """A rollout over fake hosts, new or resumed."""
    path = folder / RUN / "ledger"
    start = time.monotonic()
    if path.exists():
        ledger = Ledger.open(path)
    else:
        hosts = tuple(Host(f"npu{number:05d}", address="@fake") for number in range(1, count + 1))
        ledger = Ledger.create(folder, header_of(hosts, Policy.parse(max_fail=budget, on_fail="stop"), RUN))
    engine = PyinfraTransport(fake=FakeHosts(folder / "runs"))
    print("go", flush=True)
    with ledger:
        report = Rollout(ledger.header.hosts, FakeInstall(), engine, ledger).run()
    worker = _peak(engine.worker_pid) if engine.worker_pid else 0.0
    engine.close()
    return {
        "result": report.result,
        "counts": report.counts,
        "seconds": time.monotonic() - start,
        "controller": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000,
        "worker": worker,
    }


class Plain:
    """One command on every host that changes nothing."""

    name = "ask"

    def __init__(self, bundle: NodeBundle | None) -> None:
        self._bundle = bundle

    def plan(self, hosts: Iterable[Host]) -> list[Task]:
        return []

    def tasks(self, hosts: Iterable[Host], told: Mapping[str, Mapping[str, Any]]) -> list[Task]:
        if self._bundle is None:
            return [Task(host, "exec /bin/true") for host in hosts]
        return [task_for(host, self._bundle, ["facts"], 300.0) for host in hosts]

    def undo(self, hosts: Iterable[Host], told: Mapping[str, Mapping[str, Any]]) -> list[Task]:
        return []

    def confirm(self, hosts: Iterable[Host]) -> list[Task]:
        return self.tasks(hosts, {})

    def judge_plan(self, host: Host, outcome: Outcome) -> Verdict:
        return Verdict(True, True)

    def judge(self, host: Host, outcome: Outcome) -> Verdict:
        good = outcome.state is State.DONE and (self._bundle is not None or outcome.exit_status == 0)
        return Verdict(good, False, "" if good else "NOT_DONE", outcome.error or outcome.stderr[-300:])

    judge_confirm = judge


def real(file: Path, bundle: NodeBundle | None) -> dict[str, Any]:
    """The wave loop over real hosts, all in one wave."""
    hosts = tuple(replace(Host.from_dict(item)) for item in json.loads(file.read_text()))
    folder = file.parent / f"run-{time.monotonic_ns()}"
    engine = PyinfraTransport()
    with Ledger.create(folder, header_of(hosts, Policy.parse(waves="100%", on_fail="stop"), RUN)) as ledger:
        report = Rollout(hosts, Plain(bundle), engine, ledger).run()
    engine.close()
    return {"result": report.result, "counts": report.counts}


def main(words: list[str]) -> None:
    if words[0] == "fake":
        answer = fake(Path(words[1]), int(words[2]), words[3])
    else:
        answer = real(Path(words[1]), existing(Path(words[2])) if words[0] == "facts" else None)
    print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
