"""``fleet check`` and ``fleet report``: what all hosts have, what differs, and what changed since."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from smallq_deploy.base.errors import SmallqError, UsageError
from smallq_deploy.cli.fleet_options import Fleet, inventory_options, reach_options, stop_on_interrupt
from smallq_deploy.cli.options import PATH, Call, command, option
from smallq_deploy.cli.render import Answer, Block, Bullets, Facts, Line, Table, print_blocks
from smallq_deploy.cli.session import Session

if TYPE_CHECKING:
    from smallq_deploy.fleet.bundles import NodeBundle
    from smallq_deploy.fleet.check.compare import Comparison
    from smallq_deploy.fleet.check.matrix import Intended, Matrix
    from smallq_deploy.fleet.transport import Transport

_SHOWN = 30
_WIDEST = 100  # characters of a list of hosts
_COLUMNS = ("arch", "soc", "npus", "health", "driver", "cann", "release", "digest", "state", "drift", "smoke", "age")

_FILES = (
    option("--save", type=PATH, metavar="FILE", help="Also write the check, for `fleet report`."),
    option("--html", type=PATH, metavar="FILE", help="Also write one HTML page with everything."),
    option("--csv", type=PATH, metavar="FILE", help="Also write a row a host."),
    option("--prometheus", type=PATH, metavar="FILE", help="Also write metrics, for node_exporter's textfile."),
)


def _file_options(function: Callable[..., Any]) -> Callable[..., Any]:
    for add in reversed(_FILES):
        function = add(function)
    return function


@command(
    "fleet check", toolkit=False, release=True, example="smallq-deploy fleet check -i hosts.yaml --html fleet.html"
)
@inventory_options
@option("--verify", "contents", is_flag=True, help="Read every installed file on every host.")
@option("--all", "every", is_flag=True, help="A row for every host, also where all are alike.")
@option("--expect", metavar="RELEASE|FILE", help="What should be installed: a release's id, a package or a bundle.")
@option("--expect-cann", metavar="RANGE", help="Which CANN should be there, for example '>=8.5.0,<9.0.0'.")
@option("--watch", type=click.FloatRange(min=5), metavar="SECONDS", help="Again and again, until Ctrl-C.")
@_file_options
@reach_options(timeout=120.0)
def check(
    call: Call,
    contents: bool,
    every: bool,
    expect: str | None,
    expect_cann: str | None,
    watch: float | None,
    **values: Any,
) -> Answer:
    """Ask all hosts what they are and what they have, and say which differ from the others, outliers first.

    Nothing is changed anywhere but for the tool's one file in the login user's cache. Exit status 0 where all hosts
    are alike and well, 10 where some differ or something is wrong on one, 11 where some could not be asked.
    """
    from smallq_deploy.fleet.bundles import tool_bundle

    targets = {name: values.pop(name) for name in ("save", "html", "csv", "prometheus")}
    fleet = Fleet.take(call, values)
    intended = _intended(expect, expect_cann)
    for problem in fleet.unresolved():
        call.events.warning(problem.message)
    if watch is not None and call.json:
        raise UsageError("USAGE", "--watch prints for people: it excludes --json", hint="leave one of them out")
    words = ("facts", *(["--verify"] if contents else []))
    with call.events.step("pack the tool into one file"):
        bundle = tool_bundle(Session(call, mutating=False).release, fleet.runtimes)
    with fleet.engine() as engine:
        while True:
            with stop_on_interrupt(call, "asking no further host; once more ends at once") as stop:
                found = _look(fleet, bundle, words, engine, intended, stop)
                _write_files(call, found, targets)
                answer = Answer(found.to_dict(), check_blocks(found, every=every), found.failure)
                if watch is None or stop.is_set():
                    return answer
                call.progress.pause()
                print_blocks([Line(time.strftime("%Y-%m-%d %H:%M:%S")), *answer.blocks], no_color=call.no_color)
                if stop.wait(watch):
                    return answer


def _look(
    fleet: Fleet, bundle: NodeBundle, words: Sequence[str], engine: Transport, intended: Intended, stop: Any
) -> Matrix:
    from smallq_deploy.fleet.ask import ask
    from smallq_deploy.fleet.check.matrix import Arrivals, Matrix

    hosts, arrivals = fleet.inventory.hosts, Arrivals()

    def told(answer: Any) -> None:
        arrivals(answer)
        fleet.call.events.output(f"{len(arrivals.times)} of {len(hosts)}")

    began = time.time()
    with fleet.call.events.step(f"ask {len(hosts)} hosts"):
        answers = ask(hosts, bundle, words, engine, timeout=fleet.timeout, on_answer=told, stop=stop)
    return Matrix.of(
        answers,
        hosts,
        now=time.time(),
        began=began,
        arrivals=arrivals.times,
        intended=intended,
        inventory=fleet.inventory.source,
    )


def _intended(expect: str | None, cann: str | None) -> Intended:
    """What the options say should be there. Raises what reading a package, bundle or release raises, BAD_SPECIFIER."""
    from smallq_deploy.base.versions import CannSpecifier
    from smallq_deploy.fleet.check.matrix import Intended

    if cann is not None:
        CannSpecifier.parse(cann)
    release, packages = "", tuple[str, ...]()
    if expect is not None and Path(expect).is_file():
        packages = _digests(Path(expect))
    elif expect is not None:
        from smallq_deploy.package.acquire import find_release
        from smallq_deploy.package.selection import find_releases

        release = find_release(expect, find_releases().releases).id
    return Intended(release, packages, cann or "")


def _digests(path: Path) -> tuple[str, ...]:
    from smallq_deploy.operate.bundlefile import HEAD, open_bundle
    from smallq_deploy.package.runfile import read_run

    with open(path, "rb") as stream:
        is_bundle = stream.read(len(HEAD)) == HEAD
    if not is_bundle:
        return (read_run(path).file_sha256,)
    with open_bundle(path) as opened:
        return tuple(entry.sha256 for entry in opened.index.packages)


def check_blocks(found: Matrix, *, every: bool) -> list[Block]:
    """A check as people read it: what cannot be asked, what differs, what is wrong, and then what is usual."""
    summary = found.summary
    blocks: list[Block] = []
    if found.failures:
        points = [f"{_short(fault.names)}: {fault.text} [{fault.code}]" for fault in found.failures[:_SHOWN]]
        blocks.append(Bullets(f"could not be asked: {summary['failed']} of {summary['hosts']} hosts", points))
    norm = found.norm
    if norm is not None and found.outliers:
        points = [f"{_short(group.names)}: {'; '.join(map(str, group.differs))}" for group in found.outliers[:_SHOWN]]
        title = f"{summary['alike']} hosts are alike, {summary['differ']} differ:"
        blocks.append(Bullets(title, [*points, *_more(len(found.outliers))]))
    if found.faults:
        points = [f"{_short(fault.names)}: {fault.text} [{fault.code}]" for fault in found.faults[:_SHOWN]]
        blocks.append(Bullets("not as it should be:", [*points, *_more(len(found.faults))]))
    if norm is not None:
        from smallq_deploy.fleet.check.columns import BY_KEY

        title = f"{len(norm.hosts)} hosts like this" if found.outliers or found.failed else "all hosts like this"
        pairs = [(BY_KEY[key].title, value) for key, value in norm.values.items()]
        blocks += [Line(f"{title}: {_short(norm.names)}"), Facts(pairs)]
    if every or len(found.rows) <= 8:
        blocks.append(_table(found))
    return blocks


def _short(names: str) -> str:
    """A list of hosts that fits a line; --json has it whole."""
    if len(names) <= _WIDEST:
        return names
    cut = names.rfind(",", 0, _WIDEST)
    return f"{names[: cut if cut > 0 else _WIDEST]},..."


def _more(count: int) -> list[str]:
    return [f"... and {count - _SHOWN} more (--json and --html have all)"] if count > _SHOWN else []


def _table(found: Matrix) -> Table:
    from smallq_deploy.fleet.check.columns import BY_KEY

    columns = [BY_KEY[key] for key in _COLUMNS]
    rows = []
    for row in found.rows:
        if row.ok:
            rows.append((row.host, *(column.text(row) for column in columns)))
        else:
            rows.append((row.host, row.code, *("" for _ in columns[1:])))
    return Table(("host", *(column.title for column in columns)), rows)


def _write_files(call: Call, found: Matrix, targets: dict[str, Path | None]) -> None:
    for name, path in targets.items():
        if path is not None:
            _writer(name)(found, path)
            call.events.note(f"written: {path}")


def _writer(name: str) -> Callable[[Matrix, Path], None]:
    if name == "html":
        from smallq_deploy.fleet.check.html import write_html

        return write_html
    if name == "csv":
        from smallq_deploy.fleet.check.spreadsheet import write_csv

        return write_csv
    if name == "prometheus":
        from smallq_deploy.fleet.check.prometheus import write_prometheus

        return write_prometheus
    from smallq_deploy.fleet.check.saved import save

    return save


@command("fleet report", toolkit=False, example="smallq-deploy fleet report monday.json today.json")
@click.argument("old", type=PATH)
@click.argument("new", type=PATH)
def report(call: Call, old: Path, new: Path) -> Answer:
    """Compare two checks that `fleet check --save` wrote: hosts that came or went, what changed, what is wrong now.

    Equal changes are told together. Exit status 10 where anything changed.
    """
    from smallq_deploy.fleet.check.compare import compare
    from smallq_deploy.fleet.check.saved import load

    found = compare(load(old), load(new))
    return Answer(found.to_dict(), _report_blocks(found), _report_error(found))


def _report_blocks(found: Comparison) -> list[Block]:
    from smallq_deploy.fleet.inventory.ranges import compress

    if found.same:
        return [Line(f"nothing changed on {len(found.unchanged)} hosts")]
    blocks: list[Block] = []
    if found.gone or found.added:
        blocks.append(Facts([("gone", compress(found.gone)), ("new", compress(found.added))]))
    if found.changed:
        points = [f"{_short(item.names)}: {'; '.join(map(str, item.changes))}" for item in found.changed[:_SHOWN]]
        blocks.append(Bullets("changed:", [*points, *_more(len(found.changed))]))
    for title, faults in (("wrong now, and was not:", found.appeared), ("was wrong, and is no longer:", found.mended)):
        if faults:
            points = [f"{_short(fault.names)}: {fault.text} [{fault.code}]" for fault in faults[:_SHOWN]]
            blocks.append(Bullets(title, [*points, *_more(len(faults))]))
    blocks.append(Line(f"unchanged: {len(found.unchanged)} hosts"))
    return blocks


def _report_error(found: Comparison) -> SmallqError | None:
    from smallq_deploy.base.errors import DifferencesError

    if found.same:
        return None
    hosts = sum(len(item.hosts) for item in found.changed)
    return DifferencesError(
        "FLEET_CHANGED",
        f"the two checks differ: {hosts} hosts changed, {len(found.gone)} went, {len(found.added)} came",
        hint="`smallq-deploy fleet check` shows how they are now",
    )


check.short_help = "What all hosts have, and which differ."
report.short_help = "Compare two saved checks."
