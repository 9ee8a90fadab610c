"""From the options of a change to a rollout and back: bundle, plan, question, ledger, run, report."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from smallq_deploy.base.errors import (
    ExitStatus,
    HostsFailedError,
    SmallqError,
    UsageError,
    access_error,
    raise_problems,
)
from smallq_deploy.cli.fleet_options import Fleet, stop_on_interrupt
from smallq_deploy.cli.options import Call, option
from smallq_deploy.cli.render import Answer, Block, Bullets, Facts, Line, Table

if TYPE_CHECKING:
    from collections.abc import Iterator

    from smallq_deploy.fleet.bundles import NodeBundle
    from smallq_deploy.fleet.hosts import Host
    from smallq_deploy.fleet.rollout.actions import HostAction
    from smallq_deploy.fleet.rollout.outcome import HostResult, Report
    from smallq_deploy.fleet.rollout.policy import Policy
    from smallq_deploy.fleet.rollout.runs import RunInfo
    from smallq_deploy.fleet.rollout.waves import Event, RolloutState, Step

_SHOWN = 40  # failed hosts in the text; --json has all
_BUNDLE = "bundle.pyz"

_POLICY = (
    option("--waves", default="1,5%,25%,100%", metavar="SIZES",
           help="How many hosts are changed after each wave. Default: 1,5%,25%,100%."),
    option("--max-fail", default="0", metavar="N|P%", help="Failed hosts allowed in all. Default: 0."),
    option("--max-fail-wave", default="", metavar="N|P%", help="Failed hosts allowed in one wave."),
    option("--soak", default="0", metavar="TIME", help="Wait between waves, as 90s, 10m. Default: not at all."),
    option("--on-fail", type=click.Choice(["stop", "rollback-wave", "rollback-all"]), default="rollback-wave",
           help="When too many failed: leave it, take the failing wave back (default), or everything."),
    option("--skip-unplannable", is_flag=True, help="Leave out hosts whose plan is impossible, and go on."),
    option("--before", default="", metavar="COMMAND", help="Run here before a host is changed; {host} is its name."),
    option("--after", default="", metavar="COMMAND", help="Run here after a host was changed."),
    option("--remote-before", default="", metavar="COMMAND", help="Run on the host before it is changed."),
    option("--remote-after", default="", metavar="COMMAND", help="Run on the host after it was changed."),
    option("--batch", type=click.IntRange(min=1), metavar="N",
           help="Hosts changed at once. Default: a wave; with hooks 16."),
)  # fmt: skip


def rollout_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Waves, budgets and hooks."""
    for add in reversed(_POLICY):
        function = add(function)
    return function


@dataclass(frozen=True)
class Plan:
    """How a rollout goes on, out of the options of :func:`rollout_options`."""

    policy: Policy
    hooks: Mapping[str, Any]
    batch: int

    @staticmethod
    def take(values: dict[str, Any]) -> Plan:
        """Raises UsageError BAD_WAVES, BAD_MAX_FAIL, BAD_SOAK, BAD_HOOK."""
        from smallq_deploy.fleet.rollout.hooks import Hooks
        from smallq_deploy.fleet.rollout.policy import Policy

        names = ("waves", "max_fail", "max_fail_wave", "soak", "on_fail", "skip_unplannable")
        policy = Policy.parse(**{name: values.pop(name) for name in names})
        hooks = Hooks(*(values.pop(name) for name in ("before", "after", "remote_before", "remote_after")))
        return Plan(policy, hooks.to_dict(), values.pop("batch") or 0)


def start(fleet: Fleet, bundle: NodeBundle, make: Callable[[NodeBundle], HostAction], plan: Plan) -> Answer:
    """Ask, and run a new rollout over the hosts of ``fleet``. ``make`` makes the action over a bundle file."""
    from smallq_deploy.fleet.rollout.ledger import Header, Ledger
    from smallq_deploy.fleet.rollout.runs import controller_lock, fleet_folder, new_run_id

    call, inventory, action = fleet.call, fleet.inventory, make(bundle)
    if not plan.policy.skip_unplannable:
        raise_problems(fleet.unresolved())
    with fleet.engine() as engine:
        if call.dry_run:
            return _planned(fleet, action, engine)
        hosts, live = _look(fleet, bundle, engine)
        run = new_run_id()
        folder = fleet_folder(inventory.name, inventory.digest)
        count = f"{len(hosts)} host{'s' if len(hosts) != 1 else ''}"
        call.confirm(f"{action.name} on {count} of {inventory.source}, waves {plan.policy.to_dict()['waves']}?")
        options = {
            "words": list(action.words),
            "dry": list(action.dry),
            "extra": list(action.extra),
            "per_host": {name: list(words) for name, words in action.per_host.items()},
            "timeout": action.timeout,
            "expected": sorted(action.expected),
            "live": live,
            "hooks": dict(plan.hooks),
            "batch": plan.batch,
            "transport": fleet.transport_name,
            "parallel": fleet.parallel,
            "relays": [host.to_dict() for host in inventory.relays],
            "bundle": {"sha256": bundle.sha256, "name": bundle.path.name},
        }
        header = Header(run, action.name, inventory.name, inventory.digest, hosts, plan.policy, options)
        with controller_lock(folder, run):
            with Ledger.create(folder, header) as ledger:
                _keep(bundle.path, ledger.path.with_name(_BUNDLE))
                report = _perform(call, action, engine, ledger, plan.hooks, plan.batch)
    return answer_of(report)


def resume(call: Call, run: RunInfo, transport: str | None, parallel: int) -> Answer:
    """Go on with a run whose controller is gone. Raises what reading the ledger raises, BAD_BUNDLE, FLEET_BUSY."""
    from smallq_deploy.fleet.bundles import existing
    from smallq_deploy.fleet.engines.choose import make_engine
    from smallq_deploy.fleet.hosts import Host
    from smallq_deploy.fleet.rollout.actions import HostAction
    from smallq_deploy.fleet.rollout.ledger import Ledger
    from smallq_deploy.fleet.rollout.runs import controller_lock

    with controller_lock(run.path.parent.parent, run.run), Ledger.open(run.path) as ledger:
        options = ledger.header.options
        bundle = existing(run.path.with_name(_BUNDLE))
        if bundle.sha256 != options["bundle"]["sha256"]:
            raise UsageError(
                "BUNDLE_CHANGED",
                f"{bundle.path} is not the bundle that run {run.run} began with",
                hint="start a new run; hosts that are as wanted already are left alone",
            )
        action = HostAction(
            ledger.header.action,
            tuple(options["words"]),
            tuple(options["dry"]),
            bundle,
            tuple(options["extra"]),
            float(options["timeout"]),
            frozenset(options["expected"]),
            {name: tuple(words) for name, words in options["per_host"].items()},
        )
        relays = [Host.from_dict(record) for record in options["relays"]]
        engine = make_engine(transport or options["transport"], parallel or int(options["parallel"]), relays)
        try:
            report = _perform(call, action, engine, ledger, options["hooks"], int(options["batch"]))
        finally:
            engine.close()
    return answer_of(report)


def _keep(source: Path, target: Path) -> None:
    """The bundle beside the ledger: a resumed run must send the same file."""
    try:
        try:
            os.link(source, target)
        except OSError:
            shutil.copyfile(source, target)
    except OSError as error:
        raise access_error(error, f"write {target}") from error


def _look(fleet: Fleet, bundle: NodeBundle, engine: Any) -> tuple[tuple[Host, ...], dict[str, int]]:
    """The hosts, with what they themselves tell of an opp that several of them use; and which generation is live where
    (0: none; hosts with a tree that has no number yet are not in it)."""
    from smallq_deploy.fleet.ask import ask
    from smallq_deploy.fleet.sharing import with_shared

    hosts = fleet.inventory.hosts
    with fleet.call.events.step(f"ask {len(hosts)} hosts what they are"):
        answers = ask(hosts, bundle, ("facts",), engine, timeout=fleet.timeout)
    found = with_shared(hosts, answers)
    shared = [host for host in found if host.shared_opp]
    if shared:
        places = len({host.shared_opp for host in shared})
        fleet.call.events.note(f"{len(shared)} hosts share {places} opp: each is changed once, and verified everywhere")
    live = {answer.host: _generation(answer.data.get("live")) for answer in answers}
    return found, {name: number for name, number in live.items() if number is not None}


def _generation(live: Any) -> int | None:
    if not isinstance(live, dict):
        return None
    if live.get("state") == "absent":
        return 0
    number = live.get("generation")
    return number if live.get("state") == "current" and isinstance(number, int) else None


def _planned(fleet: Fleet, action: HostAction, engine: Any) -> Answer:
    """``--dry-run``: every host's plan, and nothing else."""
    hosts = fleet.inventory.hosts
    rows, data, impossible = [], [], 0
    found: dict[str, Any] = {}
    with fleet.call.events.step(f"plan on {len(hosts)} hosts"):
        engine.run(action.plan(hosts), lambda outcome: found.update({outcome.host: outcome}), None)
    for host in hosts:
        verdict = action.judge_plan(host, found[host.name])
        impossible += not verdict.ok
        word = str(verdict.data.get("decision") or "possible") if verdict.ok else "impossible"
        rows.append((host.name, word, f"{verdict.message} [{verdict.code}]" if verdict.code else ""))
        told = {"code": verdict.code, "message": verdict.message, "hint": verdict.hint}
        data.append({"host": host.name, "possible": verdict.ok, "decision": word, **told})
    error: SmallqError | None = None
    if impossible:
        error = HostsFailedError(
            "HOSTS_UNPLANNABLE",
            f"{impossible} of {len(hosts)} hosts cannot be changed",
            hint="mend them, leave them out with --limit, or let them out with --skip-unplannable",
        )
    return Answer(
        {"planned": data, "rollout": None}, [Table(("host", "plan", "why"), rows), Line("nothing was changed")], error
    )


def _perform(call: Call, action: HostAction, engine: Any, ledger: Any, hooks: Mapping[str, Any], batch: int) -> Report:
    from smallq_deploy.fleet.rollout.controller import Rollout
    from smallq_deploy.fleet.rollout.hooks import Hooks

    header = ledger.header
    call.events.note(f"run {header.run}, ledger {ledger.path}")
    told = _Told(call, action.name, len(header.hosts))
    words = "stopping after the hosts that run; once more ends at once"
    with stop_on_interrupt(call, words) as stop, told.step():
        rollout = Rollout(
            header.hosts,
            action,
            engine,
            ledger,
            hooks=Hooks.from_dict(hooks),
            batch=batch,
            watch=told,
            announce=told.announce,
            stop=stop,
        )
        return rollout.run()


class _Told:
    """What is said while a rollout runs: each failure, each wave, and on a terminal how far it is."""

    def __init__(self, call: Call, action: str, hosts: int) -> None:
        self._events, self._action, self._hosts = call.events, action, hosts
        self._begun, self._waves, self._tenth = time.monotonic(), 0, 0
        self._planned = self._done = self._changing = 0

    @contextmanager
    def step(self) -> Iterator[None]:
        with self._events.step(f"{self._action} on {self._hosts} hosts"):
            yield

    def __call__(self, event: Event, state: RolloutState) -> None:
        from smallq_deploy.fleet.rollout.waves import Begun, Ended, Kind

        if isinstance(event, Begun):
            if event.kind is Kind.CHANGE and event.wave > self._waves:
                self._waves = event.wave
                size = len(state.waves[event.wave - 1])
                self._events.note(f"wave {event.wave} of {len(state.waves)}: {size} host{'s' * (size != 1)}")
            elif event.kind is Kind.UNDO:
                self._events.note(f"taking wave {event.wave} back: {len(event.hosts)} hosts ({state.over})")
        elif isinstance(event, Ended):
            self._planned += event.kind is Kind.PLAN
            self._done += event.kind in (Kind.CHANGE, Kind.VERIFY, Kind.CONFIRM)
            if not event.ok:
                hint = f"; {event.hint}" if event.hint else ""
                self._events.note(f"{event.host}: {event.kind.value} failed: {event.message} [{event.code}]{hint}")
            self._progress(state)

    def announce(self, step: Step) -> None:
        """What is waited for."""
        from smallq_deploy.fleet.rollout.waves import Pause, Soak

        if isinstance(step, Soak):
            self._events.note(f"waiting {step.seconds:g} s after wave {step.wave}")
        elif isinstance(step, Pause):
            self._events.note("paused: `smallq-deploy fleet resume` goes on")

    def _progress(self, state: RolloutState) -> None:
        if not state.waves:
            self._events.output(f"planned {self._planned} of {self._hosts}")
            return
        changing = self._changing or sum(len(wave) for wave in state.waves)
        self._changing = changing
        left = (time.monotonic() - self._begun) / max(self._done, 1) * (changing - self._done)
        text = f"wave {self._waves} of {len(state.waves)}, {self._done} of {changing} hosts, {state.failed} failed"
        self._events.output(f"{text}, about {left:.0f} s left")
        if changing >= 50 and self._done * 10 // changing > self._tenth:
            self._tenth = self._done * 10 // changing
            self._events.note(text)


_RESULTS = {
    "done": "every host has had its turn",
    "refused": "nothing was changed: not every host can be changed as planned",
    "stopped": "stopped: too many hosts failed; what was done stays",
    "rolled-back": "stopped: too many hosts failed; taken back",
    "aborted": "aborted; what was done stays",
    "interrupted": "interrupted: no further host was begun",
}


def answer_of(report: Report) -> Answer:
    """A report as an answer; its error says why the exit status is not 0."""
    from smallq_deploy.fleet.rollout.outcome import STATUSES

    because = f" ({report.reason})" if report.reason else ""
    blocks: list[Block] = [
        Line(f"fleet {report.action}: {_RESULTS.get(report.result, report.result)}{because}"),
        Facts([("run", report.run), ("took", f"{report.seconds:.1f} s")]),
        Table(("hosts", "how they stand"), [(str(count), STATUSES[name]) for name, count in report.counts.items()]),
    ]
    failed = report.failed
    if failed:
        blocks.append(Bullets("hosts that are not as wanted:", [_failed_line(host) for host in failed[:_SHOWN]]))
        if len(failed) > _SHOWN:
            blocks.append(Line(f"... and {len(failed) - _SHOWN} more (--json lists all)"))
    if report.drained:
        blocks.append(Bullets("still out of service (--after did not run for them):", list(report.drained)))
    if report.how_to_resume:
        blocks.append(Line(f"to go on: {report.how_to_resume}"))
    return Answer({"planned": None, "rollout": report.to_dict()}, blocks, error=_error(report))


def _failed_line(host: HostResult) -> str:
    why = f": {host.message} [{host.code}]" if host.code else ""
    return f"{host.name} {host.status.replace('-', ' ')}{why}" + (f" ({host.hint})" if host.hint else "")


def _error(report: Report) -> SmallqError | None:
    status = report.exit_status
    if status is ExitStatus.OK:
        return None
    if status is ExitStatus.INTERRUPTED:
        done = sum(host.status not in ("not-run", "unknown") for host in report.hosts)
        stop = SmallqError(
            "INTERRUPTED",
            f"fleet {report.action} interrupted; {done} of {len(report.hosts)} hosts had their turn",
            hint=f"`{report.how_to_resume}` goes on",
            details={"run": report.run},
        )
        stop.exit_status = status
        return stop
    codes = sorted({host.code for host in report.failed if host.code})
    return HostsFailedError(
        "HOSTS_FAILED",
        f"fleet {report.action} {report.result}: {len(report.failed)} of {len(report.hosts)} hosts are not as wanted",
        hint="`smallq-deploy fleet check` shows what each has; the same command again changes only what is left",
        details={"run": report.run, "result": report.result, "codes": codes},
    )
