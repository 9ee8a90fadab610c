"""``fleet smoke``, ``run-sweep`` and the hidden ``relay``: questions that change nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from smallq_deploy.base.errors import HostsFailedError, SmallqError
from smallq_deploy.cli.fleet_options import Fleet, inventory_options, reach_options, stop_on_interrupt
from smallq_deploy.cli.options import PATH, Call, command, option
from smallq_deploy.cli.render import Answer, Block, Bullets, Facts, Line, Table
from smallq_deploy.cli.session import Session
from smallq_deploy.cli.smoke import device_option, timeout_option

if TYPE_CHECKING:
    from smallq_deploy.fleet.node import Answer as HostAnswer

_SHOWN = 40


def ask_all(fleet: Fleet, words: Sequence[str], what: str) -> list[HostAnswer]:
    """The command ``words`` on every host; failures are told as they come."""
    from smallq_deploy.fleet.ask import ask
    from smallq_deploy.fleet.bundles import tool_bundle

    call, hosts = fleet.call, fleet.inventory.hosts
    done: list[str] = []

    def told(answer: HostAnswer) -> None:
        done.append(answer.host)
        call.events.output(f"{len(done)} of {len(hosts)}")
        if not answer.ok:
            call.events.note(f"{answer.host}: {answer.message} [{answer.code}]")

    with call.events.step("pack the tool into one file"):
        bundle = tool_bundle(Session(call, mutating=False).release, fleet.runtimes)
    words_of_stop = "asking no further host; once more ends at once"
    with fleet.engine() as engine, stop_on_interrupt(call, words_of_stop) as stop:
        with call.events.step(f"{what} on {len(hosts)} hosts"):
            return ask(hosts, bundle, words, engine, timeout=fleet.timeout, on_answer=told, stop=stop)


def failure(answers: Sequence[HostAnswer], what: str) -> SmallqError | None:
    """HOSTS_FAILED where an answer is not good."""
    bad = [answer for answer in answers if not answer.ok]
    if not bad:
        return None
    codes = Counter(answer.code for answer in bad)
    return HostsFailedError(
        "HOSTS_FAILED",
        f"{what}: {len(bad)} of {len(answers)} hosts failed or could not be asked "
        f"({', '.join(f'{count} {code}' for code, count in codes.most_common())})",
        hint="each host's reason stands above, and with --json in the answer",
        details={"hosts": {answer.host: answer.code for answer in bad}},
    )


def failed_block(answers: Sequence[HostAnswer]) -> list[Block]:
    """One line for each host that failed."""
    bad = [answer for answer in answers if not answer.ok]
    lines = [f"{answer.host}: {answer.message} [{answer.code}] ({answer.hint})" for answer in bad[:_SHOWN]]
    more = [f"and {len(bad) - _SHOWN} more (--json has all)"] if len(bad) > _SHOWN else []
    return [Bullets("hosts that failed:", [*lines, *more])] if bad else []


def _record(answer: HostAnswer, name: str) -> dict[str, Any]:
    return {
        "host": answer.host,
        "ok": answer.ok,
        "code": answer.code,
        "message": answer.message,
        "hint": answer.hint,
        "seconds": round(answer.seconds, 3),
        name: answer.data.get(name),
    }


@command("fleet smoke", toolkit=False, release=True, example="smallq-deploy fleet smoke -i hosts.yaml --device all")
@inventory_options
@device_option
@timeout_option
@reach_options(timeout=900.0)
def smoke(call: Call, device: str, smoke_timeout: float, **values: Any) -> Answer:
    """Call the installed operator on every host and check its numbers there.

    Exit status 11 when it fails on one, or one cannot be asked.
    """
    fleet = Fleet.take(call, values)
    words = ("smoke", "--device", device, "--smoke-timeout", f"{smoke_timeout:g}")
    answers = ask_all(fleet, words, "smoke test")
    verdicts = Counter(str((answer.data.get("smoke") or {}).get("verdict", "not asked")) for answer in answers)
    blocks: list[Block] = [
        Table(("hosts", "smoke test"), [(str(count), verdict) for verdict, count in verdicts.most_common()]),
        *failed_block(answers),
    ]
    return Answer({"hosts": [_record(answer, "smoke") for answer in answers]}, blocks, failure(answers, "smoke"))


@command("fleet run-sweep", toolkit=False, release=True, example="smallq-deploy fleet run-sweep -i hosts.yaml --quick")
@inventory_options
@option("--matrix", default="models", metavar="NAME", help="The shapes. Default: models; also: acceptance, grouped.")
@option("--models", default="", metavar="NAMES", help="Only these groups of the matrix, separated by commas.")
@option("--quick", is_flag=True, help="Only qLen 1 and 4 with short kvLen.")
@option("--devices", default="", metavar="LIST|all", help="NPUs of each host. Default: 1-7 where they are, else 0.")
@reach_options(timeout=7200.0)
def run_sweep(call: Call, matrix: str, models: str, quick: bool, devices: str, **values: Any) -> Answer:
    """Run every shape of a matrix on all hosts and all their NPUs, and compare with float64 there.

    Needs numpy on the hosts. A device that hangs, fails or computes wrongly is named with its host. Exit status 11
    when a host fails or cannot be asked.
    """
    fleet = Fleet.take(call, values)
    words = ["sweep", "--matrix", matrix]
    for name, value in (("--models", models), ("--devices", devices)):
        words += [name, value] if value else []
    answers = ask_all(fleet, [*words, *(["--quick"] if quick else [])], f"sweep {matrix}")
    rows: list[tuple[str, ...]] = []
    sick: list[str] = []
    for answer in answers:
        found = answer.data.get("sweep")
        if not isinstance(found, dict):
            rows.append((answer.host, answer.code, "", "", ""))
            continue
        counts = (str(found.get(name, "")) for name in ("passed", "failed", "not_run"))
        rows.append((answer.host, str(found.get("verdict", "")), *counts))
        sick += [f"{answer.host} device {each['device']}: {each['given_up']}" for each in found.get("devices", ())
                 if each.get("given_up")]  # fmt: skip
    blocks: list[Block] = [Table(("host", "sweep", "passed", "failed", "not run"), rows)]
    if sick:
        blocks.append(Bullets("devices that were given up:", sick[:_SHOWN]))
    blocks += failed_block(answers)
    return Answer({"hosts": [_record(answer, "sweep") for answer in answers]}, blocks, failure(answers, "run-sweep"))


@command("fleet relay", toolkit=False, example="smallq-deploy fleet relay tasks.json --json")
@click.argument("file", type=PATH)
def relay(call: Call, file: Path) -> Answer:
    """What a relay does for its hosts: the tasks of FILE, through the ssh program. The controller calls it."""
    import json

    from smallq_deploy.base.errors import PackageError, access_error
    from smallq_deploy.fleet.engines.relay import run_relay

    try:
        document = json.loads(file.read_bytes())
        found = run_relay(document)
    except OSError as error:
        raise access_error(error, f"read {file}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise PackageError(
            "BAD_TASKS", f"{file} holds no tasks for a relay: {error}", hint="only `fleet` commands write such files"
        ) from error
    return Answer(found, [Facts([("outcomes", str(len(found["outcomes"])))]), Line("--json prints them")])


smoke.short_help = "Call the installed operator on many hosts."
run_sweep.short_help = "Every shape of a matrix on all hosts and NPUs."
relay.hidden = True
