"""Hosts that exist in memory, behind the engines' protocol: each follows a script and answers as the tool would.

What a host has and what was done to it can be kept in a file, so that they outlive a controller that is killed:
``python -m tests.support.fleetsim FOLDER HOSTS`` is such a controller.
"""

from __future__ import annotations

import json
import random
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from smallq_deploy.fleet.hosts import Host
from smallq_deploy.fleet.node import read_answer
from smallq_deploy.fleet.rollout.action import Verdict
from smallq_deploy.fleet.rollout.controller import Rollout
from smallq_deploy.fleet.rollout.ledger import Header, Ledger
from smallq_deploy.fleet.rollout.policy import Policy
from smallq_deploy.fleet.transport import Outcome, State, Task

# Scripts whose host says nothing of a command: how the engine saw it.
NO_ANSWER = {
    "unreachable": (State.UNREACHABLE, "connect: timed out"),
    "no-route": (State.UNREACHABLE, "no route to host"),
    "no-name": (State.UNREACHABLE, "name or service not known"),
    "auth": (State.REFUSED, "permission denied (publickey)"),
    "host-key": (State.REFUSED, "the host's key has changed"),
    "disk-full": (State.UPLOAD_FAILED, "no space left on device"),
    "relay-dead": (State.UNREACHABLE, "its relay r1 cannot be reached"),
}
# Scripts that fail in the tool itself: exit status, code.
REFUSALS = {
    "wrong-arch": (4, "ARCH_MISMATCH"),
    "no-toolkit": (3, "NO_TOOLKIT"),
    "read-only": (14, "READ_ONLY"),
    "bad-package": (5, "BAD_PACKAGE"),
}
FAILURES = {
    "fails": (8, "INSTALL_FAILED"),
    "smoke": (9, "SMOKE_FAILED"),
    "busy": (7, "LOCK_BUSY"),
    "no-space": (8, "NO_SPACE"),
}
NEW, OLD = "new", "old"


@dataclass
class World:
    """``scripts``: what each host does, ok where nothing is said; a script may name one kind of command, as in
    ``install:unreachable``. ``log``: a file with one line a run of a command."""

    scripts: dict[str, str] = field(default_factory=dict)
    live: dict[str, str] = field(default_factory=dict)
    shared: dict[str, str] = field(default_factory=dict)
    log: Path | None = None
    ran: list[tuple[str, str]] = field(default_factory=list)
    seed: int = 0
    asked: int = 0
    drained: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        if self.log is not None and self.log.exists():
            for line in self.log.read_text().splitlines():
                host, word, live = line.split()
                self.ran.append((host, word))
                self.live[self.shared.get(host, host)] = live

    def copy(self) -> World:
        return World(
            dict(self.scripts),
            dict(self.live),
            dict(self.shared),
            None,
            list(self.ran),
            self.seed,
            0,
            set(self.drained),
        )

    def has(self, host: str) -> str:
        return self.live.get(self.shared.get(host, host), OLD)

    def runs(self, word: str) -> Counter[str]:
        """How often each host ran ``word``."""
        return Counter(host for host, done in self.ran if done == word)

    def perform(self, task: Task) -> Outcome:
        name, word = task.host.name, task.command.split()[0]
        script = self.scripts.get(name, "ok")
        if ":" in script:
            only, _, script = script.partition(":")
            script = script if only == word else "ok"
        if script.startswith("flaky"):
            self.asked += 1
            fresh = random.Random(f"{self.seed} {self.asked}")
            script = "unreachable" if fresh.random() < float(script[5:]) else "ok"
        if script in NO_ANSWER:
            state, why = NO_ANSWER[script]
            return Outcome(name, state, error=why)
        return self._answer(name, word, script, task.command)

    def _answer(self, name: str, word: str, script: str, command: str) -> Outcome:
        before = self.has(name)
        if script in REFUSALS and word in ("plan", "install"):
            return envelope(name, *REFUSALS[script])
        if script == "python" and word != "sh":
            return Outcome(name, State.DONE, 97, "@@smallq python 3.8.10\n")
        if word in ("install", "rollback"):
            fails = script in FAILURES or script == "hang"
            # As there: a rollback goes to what was live before, so two of them return.
            after = NEW if word == "install" or before == OLD else OLD
            if script == "undo-fails" and word == "rollback":
                fails = True
            self._set(name, word, before if fails else after)
            if script == "hang" or script == "hang-done":
                return Outcome(name, State.TIMED_OUT, error="no end within 900 s")
            if script == "cut-off":
                return Outcome(name, State.LOST, error="the connection ended")
            if script == "half":
                return Outcome(name, State.DONE, 0, '{"schema_version": 1, "data": {"cha')
            if script == "noise":
                return Outcome(name, State.DONE, 0, "Welcome to host!\n")
            if fails:
                return envelope(name, *FAILURES.get(script, (8, "INSTALL_FAILED")))
            return envelope(name, 0, data={"changed": before != after, "before": 1})
        if word == "plan":
            return envelope(name, 0, data={"would": before != NEW})
        if word == "sh":
            if script != "hook":
                (self.drained.discard if "undrain" in command else self.drained.add)(name)
            return Outcome(name, State.DONE, 1 if script == "hook" else 0, stderr="no" if script == "hook" else "")
        return envelope(name, 0, data={"live": before})

    def _set(self, name: str, word: str, live: str) -> None:
        if self.log is not None:
            with open(self.log, "a") as stream:
                stream.write(f"{name} {word} {live}\n")
        self.ran.append((name, word))
        self.live[self.shared.get(name, name)] = live


def envelope(host: str, status: int, code: str = "", data: Mapping[str, Any] | None = None) -> Outcome:
    errors = [{"code": code, "message": f"{code} there", "hint": f"about {code}", "details": {}}] if code else []
    document = {
        "schema_version": 1,
        "command": "x",
        "status": "error" if status else "ok",
        "exit_status": status,
        "data": dict(data or {}),
        "warnings": [],
        "errors": errors,
    }
    return Outcome(host, State.DONE, status, json.dumps(document))


class SimTransport:
    """``parallel`` hosts are begun before the first of them answers. ``before`` is called before each begins."""

    def __init__(self, world: World, parallel: int = 1, before: Callable[[Task], None] = lambda task: None) -> None:
        self.world = world
        self.parallel = parallel
        self.before = before
        self.calls = 0

    def run(
        self, tasks: Sequence[Task], on_outcome: Callable[[Outcome], None], stop: threading.Event | None = None
    ) -> None:
        self.calls += 1
        flying: deque[Outcome] = deque()
        for task in tasks:
            if stop is not None and stop.is_set():
                flying.append(Outcome(task.host.name, State.SKIPPED))
                continue
            self.before(task)
            flying.append(self.world.perform(task))
            if len(flying) >= self.parallel:
                on_outcome(flying.popleft())
        while flying:
            on_outcome(flying.popleft())

    def close(self) -> None:
        pass


class SimInstall:
    """An install, in the words that :class:`World` knows; its answers are read as real ones are."""

    name = "install"

    def plan(self, hosts: Iterable[Host]) -> list[Task]:
        return [Task(host, "plan") for host in hosts]

    def tasks(self, hosts: Iterable[Host], told: Mapping[str, Mapping[str, Any]]) -> list[Task]:
        return [Task(host, "install") for host in hosts]

    def undo(self, hosts: Iterable[Host], told: Mapping[str, Mapping[str, Any]]) -> list[Task]:
        return [Task(host, "rollback") for host in hosts]

    def confirm(self, hosts: Iterable[Host]) -> list[Task]:
        return [Task(host, "facts") for host in hosts]

    def judge_plan(self, host: Host, outcome: Outcome) -> Verdict:
        answer = read_answer(host, outcome)
        return Verdict(answer.ok, bool(answer.data.get("would")), answer.code, answer.message, answer.hint)

    def judge(self, host: Host, outcome: Outcome) -> Verdict:
        answer = read_answer(host, outcome)
        never = outcome.state in (State.UNREACHABLE, State.REFUSED, State.UPLOAD_FAILED)
        unknown = not answer.asked and not never
        changed = None if unknown else bool(answer.data.get("changed"))
        return Verdict(answer.ok, changed, answer.code, answer.message, answer.hint, {"before": 1} if changed else {})

    def judge_confirm(self, host: Host, outcome: Outcome) -> Verdict:
        answer = read_answer(host, outcome)
        if not answer.ok:
            return Verdict(False, None, answer.code, answer.message, answer.hint)
        there = answer.data["live"] == NEW
        return Verdict(there, False, "" if there else "NOT_CONFIRMED", "" if there else "it is not there")


class MemoryLedger:
    """A ledger without a disk."""

    def __init__(self, header: Header, events: Sequence[Any] = ()) -> None:
        self.path = Path("/nonexistent/ledger")
        self.header = header
        self.events = tuple(events)
        self.written: list[Any] = list(events)
        self.before: Callable[[Any], None] = lambda event: None
        self.after: Callable[[Any], None] = lambda event: None

    def append(self, event: Any) -> None:
        self.before(event)
        self.written.append(event)
        self.after(event)

    def sync(self) -> None:
        pass


def hosts_of(names: Iterable[str], shared: Mapping[str, str] | None = None) -> tuple[Host, ...]:
    return tuple(Host(name, shared_opp=(shared or {}).get(name, "")) for name in names)


def header_of(hosts: Sequence[Host], policy: Policy, run: str = "20261201T000000Z-000000") -> Header:
    return Header(run, "install", "test", "0" * 64, tuple(hosts), policy)


def main(folder: Path, count: int) -> int:
    """A controller over ``count`` hosts, new or resumed; says ``go`` once it begins."""
    log = folder / "runs"
    names = [f"npu{number:04d}" for number in range(1, count + 1)]
    scripts = dict.fromkeys(names[50::97], "fails")
    world = World(scripts, log=log)
    path = folder / "20261201T000000Z-000000" / "ledger"
    if path.exists():
        ledger = Ledger.open(path)
    else:
        hosts = hosts_of(names)
        ledger = Ledger.create(folder, header_of(hosts, Policy.parse(max_fail="10%", on_fail="stop")))
    transport = SimTransport(world, 40, lambda task: time.sleep(0.0002 * (task.command == "install")))
    print("go", flush=True)
    with ledger:
        report = Rollout(ledger.header.hosts, SimInstall(), transport, ledger).run()
    print(json.dumps({"result": report.result, "counts": report.counts}), flush=True)
    return int(report.exit_status)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2])))
