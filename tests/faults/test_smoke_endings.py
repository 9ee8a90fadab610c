"""Row 13: a real install whose smoke test ends in every bad way: undone, in bounded time, and nothing is left running.

The test process is replaced by one that behaves as told; everything around it is real.
"""

from __future__ import annotations

import os
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from smallq_deploy.base.errors import ExitStatus, SmokeError
from smallq_deploy.operate.installer import install
from smallq_deploy.package.releases import default_release
from smallq_deploy.smoke.report import SmokeReport
from smallq_deploy.smoke.runner import run_smoke
from smallq_deploy.store.generations import list_generations, read_state
from tests.support.faultrows import FaultRow
from tests.support.opp import World
from tests.support.toolkits import write
from tests.support.world import live_digest, others_digest, world_problems

LIMIT = 3.0  # seconds a test may take
# What every fake test process begins with; `leftover` is what its children do.
PRELUDE = """\
import json, os, resource, signal, subprocess, sys, time
if sys.argv[1] == "leftover":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if "chatty" in sys.argv:
        while True:
            os.write(1, b"still here\\n" * 100)
            time.sleep(0.001)
    time.sleep(300)
request = json.load(open(sys.argv[1]))
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
names = [case["name"] for case in request["cases"]]
def progress(phase, **facts):
    with open(sys.argv[2], "a") as stream:
        stream.write(json.dumps({"phase": phase, **facts}) + "\\n")
def case(name, passed=True, detail=""):
    return dict(name=name, passed=passed, max_abs=0.1, bound=0.2, rel_l2=0.3, detail=detail, seconds=0.01)
def answer(status="done", cases=None, **more):
    cases = [case(name) for name in names] if cases is None else cases
    library = request["library"]
    mapped = [dict(path=library, device="fe:01", inode=os.stat(library).st_ino)]
    document = dict(status=status, cases=cases, mapped=mapped, device_count=1, soc="Ascend910B3", at={}) | more
    json.dump(document, open(sys.argv[3], "w"))
def status(number):
    answer("acl_error", cases=[], function="aclThing", number=number, text="EZ9999", at=dict(case=names[0]))
def leave(*options, **how):
    return subprocess.Popen([sys.executable, __file__, "leftover", *options], **how)
def give(raw):
    open(sys.argv[3], "wb").write(raw)
progress("load", library=request["library"])
progress("device", device=0, device_count=1)
progress("case", case=names[0])
"""


@dataclass(frozen=True)
class Ending:
    """``body``: what the test process does; ``reason`` '' is a pass."""

    body: str
    verdict: str
    reason: str
    hangs: bool = False


def failed(body: str, reason: str, *, hangs: bool = False) -> Ending:
    return Ending(body, "fail", reason, hangs)


GARBAGE, CRASHED, HUNG, STATUS = "SMOKE_GARBAGE", "SMOKE_CRASHED", "SMOKE_HUNG", "SMOKE_ACLNN_ERROR"
WRONG = "answer(cases=[case(name, False, 'off') for name in names])"
DOUBLE = "if os.fork() == 0:\n    os.setsid()\n    leave()\n    os._exit(0)\n"
ENDINGS = {
    "wrong numbers": failed(WRONG, "SMOKE_WRONG_NUMBERS"),
    "one wrong case": failed("answer(cases=[case(n, n != names[-1], 'off') for n in names])", "SMOKE_WRONG_NUMBERS"),
    "a parameter is refused": failed("status(161002)", STATUS),
    "no kernel is found": failed("status(561003)", STATUS),
    "an exception of the vector core": failed("status(507035)", STATUS),
    "a device that cannot be set up": Ending("status(507033)", "inconclusive", "SMOKE_INCONCLUSIVE"),
    "no permission for the device": Ending("status(207006)", "inconclusive", "SMOKE_INCONCLUSIVE"),
    "writes beyond the output": failed("answer('overrun', cases=[], text='beyond')", "SMOKE_OVERRUN"),
    "a library that cannot be loaded": failed(
        "answer('library_error', cases=[], library='/x', text='invalid ELF header', operator=True)", "SMOKE_NO_LIBRARY"
    ),
    "hangs": failed("time.sleep(300)", HUNG, hangs=True),
    "hangs after a good answer": failed("answer()\ntime.sleep(300)", HUNG, hangs=True),
    "ignores SIGTERM and spins": failed(
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\nwhile True: pass", HUNG, hangs=True
    ),
    "stopped": failed("os.kill(os.getpid(), signal.SIGSTOP)", HUNG, hangs=True),
    "closes its output and sleeps": failed("os.close(1)\nos.close(2)\ntime.sleep(300)", HUNG, hangs=True),
    "hangs, with a child in a session of its own": failed(DOUBLE + "time.sleep(300)", HUNG, hangs=True),
    "SIGSEGV": failed("os.kill(os.getpid(), signal.SIGSEGV)", CRASHED),
    "a real wild read": failed("import ctypes\nctypes.string_at(8)", CRASHED),
    "abort": failed("os.abort()", CRASHED),
    "killed for its memory": failed("os.kill(os.getpid(), signal.SIGKILL)", CRASHED),
    "exit 3": failed("os._exit(3)", CRASHED),
    "an exception": failed("raise RuntimeError('no')", CRASHED),
    "a good answer, then a crash": failed("answer()\nos.abort()", CRASHED),
    "a device that crashes while it is opened": Ending(
        "progress('device', device=0)\nos.abort()", "inconclusive", "SMOKE_INCONCLUSIVE"
    ),
    "ends without a report": failed("", GARBAGE),
    "half a report": failed("answer()\nos.truncate(sys.argv[3], os.path.getsize(sys.argv[3]) // 2)", GARBAGE),
    "an empty report": failed("give(b'')", GARBAGE),
    "a report of bytes": failed("give(bytes(range(256)))", GARBAGE),
    "a report nested without end": failed("give(b'[' * 500_000)", GARBAGE),
    "a report of 40 MB": failed("give(b'[' + b'1,' * 20_000_000 + b'1]')", GARBAGE),
    "a pipe instead of a report": failed("os.mkfifo(sys.argv[3])", GARBAGE),
    "a link instead of a report": failed("os.symlink('/dev/zero', sys.argv[3])", GARBAGE),
    "passes, but did not run every case": failed("answer(cases=[])", GARBAGE),
    "passes with impossible numbers": failed("answer(cases=[{**case(n), 'bound': None} for n in names])", GARBAGE),
    "another library was used": failed(
        "answer(mapped=[dict(path='/x/libcust_opapi.so', device='1', inode=1)])", "SMOKE_OUTSIDE_LIVE_TREE"
    ),
    "babbles 30 MB, then crashes": failed("os.write(1, b'x' * 30_000_000)\nos.abort()", CRASHED),
    "babbles lines and control characters": failed("print('\\x1b[2J\\0\\n' * 300_000)\nos._exit(1)", CRASHED),
    "leaves a child": failed(WRONG + "\nleave()", "SMOKE_WRONG_NUMBERS"),
    "leaves a child that is a leader": failed(WRONG + "\nleave(start_new_session=True)", "SMOKE_WRONG_NUMBERS"),
    "leaves a grandchild": failed(WRONG + "\n" + DOUBLE, "SMOKE_WRONG_NUMBERS"),
    "leaves one that goes on talking": failed(
        WRONG + "\nleave('chatty', start_new_session=True)", "SMOKE_WRONG_NUMBERS"
    ),
    "leaves twenty": failed("for n in range(20): leave(start_new_session=n % 2 == 0)\nos.abort()", CRASHED),
    "passes, and leaves one": Ending("answer()\nleave(start_new_session=True)", "pass", ""),
    "passes, and leaves one that talks": Ending("answer()\nleave('chatty', start_new_session=True)", "pass", ""),
}
# In `make test`: one of every kind, the quick ones.
FEW = (
    "one wrong case",
    "no kernel is found",
    "a device that cannot be set up",
    "closes its output and sleeps",
    "a real wild read",
    "killed for its memory",
    "ends without a report",
    "half a report",
    "a pipe instead of a report",
    "another library was used",
    "babbles 30 MB, then crashes",
    "leaves a grandchild",
    "passes, and leaves one that talks",
)


def left_running(script: Path) -> list[str]:
    """Processes that were started with ``script`` and are not dead."""
    found = []
    for name in os.listdir("/proc"):
        try:
            if name.isdigit() and os.fsencode(script) in Path("/proc", name, "cmdline").read_bytes():
                found.append(name)
        except OSError:
            continue
    return found


@pytest.fixture
def world(tmp_path: Path) -> World:
    """Generation 1 is what was found, 2 is proven and live; a test installs the next."""
    made = World(tmp_path).make()
    home = made.opp.parent
    write(home / "set_env.sh", f"export ASCEND_HOME_PATH={home} ASCEND_OPP_PATH={made.opp}\n")
    made.install(made.package("1"))
    return made


def attempt(
    world: World, ending: Ending, script: Path, **options: bool
) -> tuple[SmokeReport, SmokeError | None, float]:
    """Install with a smoke test that ends like this; the report, how the install failed, and the time it took."""
    script.write_text(PRELUDE + ending.body)
    plan = world.plan(world.package("2"), **options)
    release = replace(plan.release, smoke_cases=default_release().smoke_cases)
    reports: list[SmokeReport] = []

    def smoke() -> SmokeReport:
        assert plan.environment.toolkit is not None
        reports.append(
            run_smoke(
                plan.environment.toolkit,
                release,
                live=world.live,
                timeout=LIMIT if ending.hangs else 30.0,
                command=[sys.executable, str(script)],
                environ={},
            )
        )
        return reports[-1]

    begun, error = time.monotonic(), None
    try:
        install(plan, smoke=smoke)
    except SmokeError as caught:
        error = caught
    return reports[0], error, time.monotonic() - begun


def test_endings(world: World, tmp_path: Path, fault_row: FaultRow) -> None:
    from tests.support.faultrows import FULL

    chosen = ENDINGS if FULL else {name: ENDINGS[name] for name in FEW}
    before, others = live_digest(world.store), others_digest(world.store)
    wrong: list[str] = []
    for number, (name, ending) in enumerate(chosen.items()):
        script = tmp_path / f"child{number}.py"
        report, error, seconds = attempt(world, ending, script)
        if (report.verdict, report.reason) != (ending.verdict, ending.reason):
            wrong.append(f"{name}: {report.verdict} {report.reason}: {report.message}")
        if running := left_running(script):
            wrong.append(f"{name}: left running: {running}")
        if seconds > 25:
            wrong.append(f"{name}: took {seconds:.0f} s")
        state = read_state(world.store).of("customize").current
        if ending.verdict == "pass":
            wrong += world_problems(world.store, (live_digest(world.store),), others)
            if error is not None or live_digest(world.store) == before:
                wrong.append(f"{name}: not installed: {error}")
            world.install(world.package("1"), reinstall=True)
            continue
        if error is None or error.code != ending.reason or error.exit_status != ExitStatus.SMOKE_FAILED:
            wrong.append(f"{name}: the install says {error and error.code}")
        elif not error.hint or "is live again" not in error.message:
            wrong.append(f"{name}: a poor answer: {error.message} ({error.hint})")
        last = list_generations(world.store)[-1]
        if not last.failed or last.number == state:
            wrong.append(f"{name}: the undone generation is not marked as failed")
        wrong += [f"{name}: {text}" for text in world_problems(world.store, (before,), others)]
    fault_row("13", len(chosen), wrong, what="during a real install")


@pytest.mark.parametrize("name", ["a device that cannot be set up", "wrong numbers"])
def test_keep_unproven_keeps_only_what_could_not_be_decided(world: World, tmp_path: Path, name: str) -> None:
    before = live_digest(world.store)
    _, error, _ = attempt(world, ENDINGS[name], tmp_path / "child.py", keep_unproven=True)
    current = read_state(world.store).of("customize").current
    assert current is not None
    generation = next(item for item in list_generations(world.store) if item.number == current)
    if ENDINGS[name].verdict == "inconclusive":
        assert error is None
        assert live_digest(world.store) != before
        assert not generation.proven
        assert generation.flags.get("keep_unproven") is True
    else:
        assert error is not None
        assert live_digest(world.store) == before
        assert generation.proven
