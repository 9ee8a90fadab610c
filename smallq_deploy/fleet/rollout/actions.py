"""What a rollout does to hosts, in the words of the single-host tool: install, rollback, uninstall, and back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from smallq_deploy.base.errors import ExitStatus
from smallq_deploy.fleet.ask import TIMEOUT, task_for
from smallq_deploy.fleet.bundles import NodeBundle
from smallq_deploy.fleet.hosts import Host
from smallq_deploy.fleet.node import Answer, read_answer
from smallq_deploy.fleet.rollout.action import Verdict
from smallq_deploy.fleet.transport import Outcome, State, Task

# Where the command on the host kept the old state, or never left it.
_UNCHANGED = frozenset(
    {
        ExitStatus.USAGE,
        ExitStatus.NO_TOOLKIT,
        ExitStatus.INCOMPATIBLE,
        ExitStatus.BAD_PACKAGE,
        ExitStatus.CONFLICT,
        ExitStatus.INSTALL_FAILED,
        ExitStatus.NO_PERMISSION,
    }
)
_MAY_BE_UNPROVEN = frozenset({"--no-smoke", "--keep-unproven"})
_NOT_BEGUN = frozenset({State.UNREACHABLE, State.REFUSED, State.UPLOAD_FAILED})


@dataclass(frozen=True)
class HostAction:
    """One change of hosts. ``words`` are the command's, ``dry`` those that only say what it would do, ``extra`` options
    as the user gave them; ``timeout`` in seconds for a host that has none of its own.

    ``expected``: sha256 of the packages one of which must be live and proven afterwards (an install). ``per_host``:
    words more for one host.
    """

    name: str
    words: tuple[str, ...]
    dry: tuple[str, ...]
    bundle: NodeBundle
    extra: tuple[str, ...] = ()
    timeout: float = 900.0
    expected: frozenset[str] = frozenset()
    per_host: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def plan(self, hosts: Iterable[Host]) -> list[Task]:
        """What the change would do there; nothing is changed."""
        return [self._task(host, (*self.dry, *self._extra(host)), TIMEOUT) for host in hosts]

    def tasks(self, hosts: Iterable[Host], told: Mapping[str, Mapping[str, Any]]) -> list[Task]:
        """The change itself. A rollback goes where the plan said: two without a number would return."""
        tasks = []
        for host in hosts:
            words, target = (*self.words, *self._extra(host)), told.get(host.name, {}).get("to")
            pinned = self.name == "rollback" and "--to" not in words and isinstance(target, int)
            tasks.append(self._task(host, (*words, *(("--to", str(target)) if pinned else ())), self.timeout))
        return tasks

    def undo(self, hosts: Iterable[Host], told: Mapping[str, Mapping[str, Any]]) -> list[Task]:
        """Back to the generation that was live before, which the change named in its answer."""
        tasks = []
        for host in hosts:
            before = told.get(host.name, {}).get("before")
            back = ("--to", str(before)) if isinstance(before, int) else ()
            # No smoke test: what was live before is wanted whatever it computes; contents are compared instead.
            tasks.append(self._task(host, ("rollback", "--yes", "--no-smoke", *back), self.timeout))
        return tasks

    def confirm(self, hosts: Iterable[Host]) -> list[Task]:
        """What is live there; nothing is changed."""
        return [self._task(host, ("facts",), TIMEOUT) for host in hosts]

    def judge_plan(self, host: Host, outcome: Outcome) -> Verdict:
        """``changed``: would the change change anything?"""
        answer = read_answer(host, outcome)
        if not answer.ok:
            return _verdict(answer, changed=False)
        return _verdict(answer, changed=answer.data.get("decision") != "nothing", told=_told(answer.data))

    def judge(self, host: Host, outcome: Outcome) -> Verdict:
        """What came of the change, or of the way back."""
        answer = read_answer(host, outcome)
        told = _told(answer.data)
        if outcome.state in _NOT_BEGUN:
            return _verdict(answer, changed=False)
        if answer.ok:
            return _verdict(answer, changed="live" in told, told=told)
        if not answer.asked:
            return _verdict(answer, changed=None)
        if answer.exit_status == ExitStatus.SMOKE_FAILED:
            # An install has put the old tree back; a rollback leaves what it made live.
            return _verdict(answer, changed=self.name == "rollback", told=told)
        # Busy with what? Where an earlier attempt was lost, it may be that one.
        known = answer.exit_status in _UNCHANGED and answer.code != "LOCK_BUSY"
        return _verdict(answer, changed=False if known else None, told=told)

    def judge_confirm(self, host: Host, outcome: Outcome) -> Verdict:
        """Is there what the change was to bring?"""
        answer = read_answer(host, outcome)
        if not answer.ok:
            return _verdict(answer, changed=None)
        live, problem = answer.data.get("live") or {}, answer.data.get("problem")
        number, state = live.get("generation"), live.get("state", "not to be seen")
        wrong = ""
        if problem:
            wrong = str(problem.get("message"))
        elif self.name == "uninstall":
            wrong = "" if state == "absent" else f"the vendor directory there is {state}"
        elif state != "current":
            wrong = f"the vendor directory there is {state}"
        elif self.expected and live.get("package_sha256") not in self.expected:
            wrong = f"generation {number} is live there, from another package"
        elif self.expected and not live.get("proven") and not _MAY_BE_UNPROVEN & set(self.extra):
            wrong = f"generation {number} is live there, but not proven"
        if not wrong:
            return Verdict(True, False, data={"live": number})
        hint = "`smallq-deploy status` there shows more; run the same fleet command again"
        return Verdict(False, None if problem else False, "NOT_CONFIRMED", wrong, hint)

    def _extra(self, host: Host) -> tuple[str, ...]:
        return (*self.extra, *self.per_host.get(host.name, ()))

    def _task(self, host: Host, words: Sequence[str], timeout: float) -> Task:
        return task_for(host, self.bundle, words, timeout)


def _told(data: Mapping[str, Any]) -> dict[str, Any]:
    """What the ledger keeps of an answer: enough for the way back and for the report."""
    told: dict[str, Any] = {"decision": data.get("decision")}
    if isinstance(data.get("to"), int):
        told["to"] = data["to"]
    change = data.get("change")
    if isinstance(change, Mapping):
        smoke = change.get("smoke") or {}
        told |= {"live": change.get("live"), "before": change.get("previous"), "smoke": smoke.get("verdict")}
    return told


def _verdict(answer: Answer, *, changed: bool | None, told: Mapping[str, Any] | None = None) -> Verdict:
    return Verdict(answer.ok, changed, answer.code, answer.message, answer.hint, dict(told or {}))


def install(bundle: NodeBundle, extra: Sequence[str], timeout: float) -> HostAction:
    """Install the package of ``bundle`` that fits each host."""
    packages = frozenset(entry.sha256 for entry in bundle.index.packages)
    return HostAction("install", ("install", "--yes"), ("plan",), bundle, tuple(extra), timeout, packages)


def rollback(
    bundle: NodeBundle, extra: Sequence[str], timeout: float, per_host: Mapping[str, tuple[str, ...]] | None = None
) -> HostAction:
    """Make an earlier generation live; ``per_host``: which one."""
    words, dry = ("rollback", "--yes"), ("rollback", "--dry-run")
    return HostAction("rollback", words, dry, bundle, tuple(extra), timeout, per_host=per_host or {})


def uninstall(bundle: NodeBundle, extra: Sequence[str], timeout: float) -> HostAction:
    """Take the operator out; generations stay, so that the way back is a rollback."""
    return HostAction("uninstall", ("uninstall", "--yes"), ("uninstall", "--dry-run"), bundle, tuple(extra), timeout)
