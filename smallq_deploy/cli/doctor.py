"""``doctor``: every check at once, where the operator comes from, and a bundle for support."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from smallq_deploy.base.errors import UsageError
from smallq_deploy.cli.options import PATH, Call, command, option
from smallq_deploy.cli.render import Answer, Block, Bullets, Line, Table
from smallq_deploy.cli.session import Session

if TYPE_CHECKING:
    from smallq_deploy.operate.doctor import Diagnosis, Result

_DETAILED = ("fail", "warn", "unknown")
_SUMMARY = (("fail", "failed"), ("warn", "warned"), ("unknown", "could not be checked"), ("pass", "passed"),
            ("skip", "do not apply here"))  # fmt: skip


@command("doctor", release=True, example="smallq-deploy doctor --environment 4711")
@option(
    "--environment",
    metavar="FILE|PID",
    help="Examine this environment instead of the shell's: of a running process, or a file with the output of `env`.",
)
@option("--bundle", type=PATH, metavar="FILE", help="Also write all that support needs, without secrets, to a .tar.gz.")
@option("--anonymous", is_flag=True, help="In the bundle, also replace host names, user names and IP addresses.")
def doctor(call: Call, environment: str | None, bundle: Path | None, anonymous: bool) -> Answer:
    """Check everything that can be checked without changing anything, and say how to mend what is wrong.

    All checks are made, whatever the others find. Also says which directory an operator's tiling, kernels and symbols
    come from. Exit status 10 when a check fails; warnings and what could not be checked leave it at 0.
    """
    from smallq_deploy.machine.environment import detect_environment
    from smallq_deploy.operate.doctor import Context, diagnose
    from smallq_deploy.operate.resolution import read_environment
    from smallq_deploy.store.paths import Store

    if anonymous and bundle is None:
        raise UsageError("USAGE", "--anonymous is about the bundle", hint="add --bundle FILE")
    session = Session(call, mutating=False)
    release = session.release
    environ: Mapping[str, str] = os.environ
    source = "this shell"
    if environment is not None:
        environ, source = read_environment(environment)
    if bundle is not None:
        from smallq_deploy.operate.support_bundle import refuse_existing

        refuse_existing(bundle)
    found = detect_environment(cann=call.cann, opp=call.opp)
    store = None
    if found.toolkit is not None:
        session.__dict__["discovery"] = found.discovery
        store = Store(session.toolkit.opp, session.vendor)
    named = (("--cann", call.cann), ("--opp", call.opp), ("--vendor", call.vendor), ("--release", call.release))
    options = " ".join(f"{name} {shlex.quote(str(value))}" for name, value in named if value is not None)
    diagnosis = diagnose(Context(found, release, store, environ, source, options=options))
    data: dict[str, Any] = {
        "toolkit": found.toolkit.to_dict() if found.toolkit else None,
        **diagnosis.to_dict(),
        "bundle": None,
    }
    blocks = diagnosis_blocks(diagnosis, verbose=call.verbose > 0)
    if bundle is not None:
        from smallq_deploy.operate.support_bundle import write_bundle

        written = write_bundle(
            bundle, data, found, store, environ, anonymous=anonymous, events=call.events, root=Path("/")
        )
        data["bundle"] = written.to_dict()
        blocks.append(Line(f"wrote {written.path}: {len(written.members)} files, {written.redacted} values left out"))
    return Answer(data, blocks, error=diagnosis.failure)


def diagnosis_blocks(diagnosis: Diagnosis, *, verbose: bool = False) -> list[Block]:
    """A diagnosis as people read it: a sentence, the resolution, what is wrong in full, the rest in one line each."""
    counts = diagnosis.counts
    words = ", ".join(f"{counts[status]} {word}" for status, word in _SUMMARY if counts[status])
    blocks: list[Block] = [Line(f"doctor: {len(diagnosis.results)} checks: {words}")]
    looked = next((item.status for item in diagnosis.results if item.check.name == "resolution"), "skip")
    if diagnosis.resolution is not None and looked != "skip":
        blocks.append(Line(diagnosis.resolution.sentence()))
    for status in _DETAILED:
        blocks += [_details(item) for item in diagnosis.results if item.status == status]
    if verbose:
        blocks += [_details(item) for item in diagnosis.results if item.status not in _DETAILED]
        return blocks
    rows = [
        (item.check.section, item.check.name, item.status, item.finding.message)
        for item in diagnosis.results
        if item.status not in _DETAILED
    ]
    if rows:
        blocks.append(Table(("about", "check", "result", "what"), rows))
    return blocks


def _details(item: Result) -> Bullets:
    found = item.finding
    why = found.why or item.check.why
    points = [
        *(f"seen: {line}" for line in found.evidence),
        *([f"why it matters: {why}"] if why and item.status in _DETAILED else []),
        *(f"mend: {line}" for line in found.mend),
    ]
    return Bullets(f"{item.status}: {item.check.name}: {found.message}", points)
