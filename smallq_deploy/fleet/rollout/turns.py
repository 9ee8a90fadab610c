"""The turns of hosts: their hooks, what an engine carries there and back, and the events that come of it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from smallq_deploy.fleet.hosts import Host
from smallq_deploy.fleet.rollout.action import Action, Verdict
from smallq_deploy.fleet.rollout.hooks import Hooks, remote_command, run_local
from smallq_deploy.fleet.rollout.waves import (
    CHANGING,
    DRAIN_FAILED,
    Begun,
    Ended,
    Event,
    HostState,
    Kind,
    RolloutState,
    Run,
    Skipped,
)
from smallq_deploy.fleet.transport import Outcome, State, Task, Transport

_HOOKED = 16  # hosts out of service at once, where nothing else is said
_HOOKS_AT_ONCE = 16
_LONG = 1000  # characters of a message that are kept


class Turns:
    """Performs :class:`Run` steps. ``emit`` writes an event and takes it into ``state``; ``durable`` returns when all
    that was written is. Nothing is begun any more once ``halt`` is set."""

    def __init__(
        self,
        hosts: Sequence[Host],
        action: Action,
        transport: Transport,
        hooks: Hooks,
        batch: int,
        state: RolloutState,
        emit: Callable[[Event], None],
        durable: Callable[[], None],
        halt: threading.Event,
    ) -> None:
        self._hosts = {host.name: host for host in hosts}
        self._action = action
        self._transport = transport
        self._hooks = hooks
        self._batch = batch
        self._state = state
        self._emit = emit
        self._durable = durable
        self._halt = halt

    def perform(self, step: Run) -> None:
        """The turns of ``step``, or those of them that begin before ``halt``."""
        hosts = [self._hosts[name] for name in step.hosts]
        if step.kind is Kind.RELEASE:
            self._release(hosts)
            return
        hooked = bool(self._hooks) and step.kind in CHANGING
        size = self._batch or (_HOOKED if hooked else len(hosts))
        if step.kind not in CHANGING:
            size = len(hosts)
        for start in range(0, len(hosts), size):
            if self._halt.is_set():
                return
            batch = hosts[start : start + size]
            if step.kind in CHANGING:
                self._emit(Begun(step.kind, tuple(host.name for host in batch), step.wave))
                self._durable()
            self._turn(step.kind, self._drain(step.kind, batch) if hooked else batch)
            if hooked:
                self._release([host for host in batch if self._state.hosts[host.name].due])

    def _turn(self, kind: Kind, hosts: Sequence[Host]) -> None:
        tasks = self._tasks(kind, hosts)
        if not tasks and kind is Kind.PLAN:
            for host in hosts:
                self._emit(Ended(kind, host.name, True, None))
            return
        skipped: list[str] = []

        def take(outcome: Outcome) -> None:
            if outcome.state is State.SKIPPED:
                skipped.append(outcome.host)
            else:
                self._end(kind, self._hosts[outcome.host], outcome)
            if self._state.halted and kind in (Kind.CHANGE, Kind.CONFIRM, Kind.VERIFY):
                self._halt.set()

        try:
            self._carry(tasks, take)
        finally:
            if skipped and kind in CHANGING:
                self._give_back(kind, skipped)

    def _give_back(self, kind: Kind, names: Sequence[str]) -> None:
        """Hosts whose turn did not begin; those that hooks took out of service go back."""
        if self._hooks:
            self._release([self._hosts[name] for name in names], only_failures=True)
        self._emit(Skipped(kind, tuple(names)))

    def _tasks(self, kind: Kind, hosts: Sequence[Host]) -> list[Task]:
        if not hosts:
            return []
        if kind is Kind.PLAN:
            return self._action.plan(hosts)
        if kind is Kind.CHANGE:
            return self._action.tasks(hosts, self._told(hosts, lambda host: host.plan))
        if kind is not Kind.UNDO:
            return self._action.confirm(hosts)
        return self._action.undo(hosts, self._told(hosts, lambda host: host.last))

    def _told(self, hosts: Sequence[Host], which: Callable[[HostState], Ended | None]) -> dict[str, Mapping[str, Any]]:
        """What hosts told in one of their answers."""
        answers = {host.name: which(self._state.hosts[host.name]) for host in hosts}
        return {name: answer.data if answer is not None else {} for name, answer in answers.items()}

    def _carry(self, tasks: Sequence[Task], take: Callable[[Outcome], None]) -> None:
        """Run tasks; every one has an outcome. What ``take`` raises comes after the hosts that run have ended."""
        left = {task.host.name for task in tasks}
        raised: list[BaseException] = []

        def once(outcome: Outcome) -> None:
            if outcome.host not in left or raised:
                return
            left.discard(outcome.host)
            try:
                take(outcome)
            except Exception as error:
                raised.append(error)
                self._halt.set()

        if tasks:
            self._transport.run(tasks, once, self._halt)
        for name in [task.host.name for task in tasks if task.host.name in left]:
            once(Outcome(name, State.LOST, error="the engine said nothing of this host"))
        if raised:
            raise raised[0]

    def _end(self, kind: Kind, host: Host, outcome: Outcome) -> None:
        if kind is Kind.PLAN:
            verdict = self._action.judge_plan(host, outcome)
        elif kind in CHANGING:
            verdict = self._action.judge(host, outcome)
        else:
            verdict = self._action.judge_confirm(host, outcome)
        self._emit(_ended(kind, host, verdict, outcome.seconds, held=bool(self._hooks) and kind in _HELD))

    def _drain(self, kind: Kind, hosts: Sequence[Host]) -> list[Host]:
        """Run the hooks before; the hosts whose hooks went well."""
        failed = self._hook(hosts, self._hooks.before, self._hooks.remote_before, remote_first=False)
        for host in hosts:
            if why := failed.get(host.name):
                hint = "the host was not touched: look at the hook, then run the same fleet command again"
                verdict = Verdict(False, False, DRAIN_FAILED, f"the hook before failed: {why}", hint)
                self._emit(_ended(kind, host, verdict, 0.0, held=True))
        return [host for host in hosts if host.name not in failed]

    def _release(self, hosts: Sequence[Host], *, only_failures: bool = False) -> None:
        """Run the hooks after."""
        failed = self._hook(hosts, self._hooks.after, self._hooks.remote_after, remote_first=True)
        for host in hosts:
            why = failed.get(host.name, "")
            hint = "the host is not back in service: look at the hook, and run it by hand" if why else ""
            message = f"the hook after failed: {why}" if why else ""
            if why or not only_failures:
                verdict = Verdict(not why, False, "UNDRAIN_FAILED" if why else "", message, hint)
                self._emit(_ended(Kind.RELEASE, host, verdict, 0.0))

    def _hook(self, hosts: Iterable[Host], local: str, remote: str, *, remote_first: bool) -> dict[str, str]:
        """Run two hooks for each host, the second where the first went well; those that failed, and why."""
        failed: dict[str, str] = {}
        for here in (False, True) if remote_first else (True, False):
            left = [host for host in hosts if host.name not in failed]
            if not left or not (local if here else remote).strip():
                continue
            failed |= self._hook_here(left, local) if here else self._hook_there(left, remote)
        return failed

    def _hook_here(self, hosts: Sequence[Host], text: str) -> dict[str, str]:
        def one(host: Host) -> str:
            return run_local(text, host, self._action.name, self._hooks.timeout)

        with ThreadPoolExecutor(min(_HOOKS_AT_ONCE, len(hosts)), thread_name_prefix="hook") as pool:
            ends = list(pool.map(one, hosts))
        return {host.name: why for host, why in zip(hosts, ends, strict=True) if why}

    def _hook_there(self, hosts: Sequence[Host], text: str) -> dict[str, str]:
        failed: dict[str, str] = {}

        def take(outcome: Outcome) -> None:
            if outcome.state is not State.DONE:
                failed[outcome.host] = outcome.error or outcome.state.value
            elif outcome.exit_status != 0:
                tail = outcome.stderr.strip()[-200:]
                failed[outcome.host] = f"exit status {outcome.exit_status}" + (f": {tail}" if tail else "")

        tasks = [Task(host, remote_command(text, host), timeout=self._hooks.timeout) for host in hosts]
        left = {task.host.name for task in tasks}

        def once(outcome: Outcome) -> None:
            left.discard(outcome.host)
            take(outcome)

        self._transport.run(tasks, once)
        return failed | dict.fromkeys(left, "the engine said nothing of this host")


# What a dead controller may have left half done, its hooks with it.
_HELD = CHANGING | {Kind.CONFIRM, Kind.LOOK, Kind.LOOK_UNDO}


def _ended(kind: Kind, host: Host, verdict: Verdict, seconds: float, *, held: bool = False) -> Ended:
    return Ended(
        kind,
        host.name,
        verdict.ok,
        verdict.changed,
        verdict.code[:80],
        verdict.message[:_LONG],
        verdict.hint[:_LONG],
        dict(verdict.data),
        round(seconds, 3),
        held,
    )
