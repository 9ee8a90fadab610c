"""``demo``: all of it once, narrated, in a temporary directory with a simulated toolkit.

The steps are in demo_steps.py; here is the stage they play on: commands run as subprocesses, checks, the table.
"""

from __future__ import annotations

import os
import shlex
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from smallq_deploy.base.errors import DifferencesError, ExitStatus, SmallqError, access_error
from smallq_deploy.base.fsops import remove_tree
from smallq_deploy.base.proc import Completed, run
from smallq_deploy.cli.options import Call, command, option
from smallq_deploy.cli.render import Answer, Block, Line, Table

REMARK = "simulated toolkit"
_TIMEOUT = 900.0  # seconds for one command


class StepFailedError(Exception):
    """A command or check of a step did not come out as it should; ``status`` of the command, if it was one."""

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


@dataclass
class Played:
    """One row of the table at the end."""

    step: str
    result: str
    seconds: float
    detail: str = ""

    def to_dict(self) -> dict[str, Any]:
        return {"step": self.step, "result": self.result, "seconds": round(self.seconds, 3), "detail": self.detail}


@dataclass
class Stage:
    """The temporary directory, and how commands are run and shown in it."""

    root: Path
    say: Callable[[str], None]
    env: dict[str, str]
    played: list[Played] = field(default_factory=list)
    set_env: Path | None = None

    @contextmanager
    def step(self, title: str, story: str) -> Iterator[None]:
        """A named step; records result and seconds also when it fails."""
        self.say("")
        self.say(f"== {len(self.played) + 1}. {title}  [{REMARK}]")
        self.say(f"   {story}")
        start = time.monotonic()
        try:
            yield
        except StepFailedError as error:
            self.played.append(Played(title, "failed", time.monotonic() - start, str(error)))
            self.say(f"   FAILED: {error}")
            raise
        except BaseException:
            self.played.append(Played(title, "failed", time.monotonic() - start, "interrupted"))
            raise
        self.played.append(Played(title, "ok", time.monotonic() - start))

    def tool(self, *arguments: str, expect: int = 0, lines: int = 40) -> Completed:
        """``smallq-deploy`` with ``arguments``: shown as a user types it, its output below. ``lines`` at most."""
        self.say(f"$ smallq-deploy {shlex.join(arguments)}")
        return self._run([sys.executable, "-m", "smallq_deploy", *arguments], expect, lines)

    def ask(self, *arguments: str) -> dict[str, Any]:
        """``data`` of a command's JSON document; not shown."""
        import json

        done = run([sys.executable, "-m", "smallq_deploy", *arguments, "--json"], env=self.env, cwd=self.root)
        try:
            data = json.loads(done.stdout)["data"]
        except (ValueError, KeyError) as error:
            raise StepFailedError(f"smallq-deploy {shlex.join(arguments)} --json gave no document") from error
        assert isinstance(data, dict)
        return data

    def shell(self, line: str, *, expect: int = 0, lines: int = 6) -> Completed:
        """A line of shell in the environment of the toolkit's set_env.sh, as a user without this tool types it."""
        self.say(f"$ {line}")
        script = f"source {shlex.quote(str(self.set_env))} && {line}" if self.set_env is not None else line
        return self._run(["bash", "-c", script], expect, lines)

    def check(self, holds: bool, text: str) -> None:
        """One of the demo's own checks."""
        if not holds:
            raise StepFailedError(f"not so: {text}")
        self.say(f"   checked: {text}")

    def _run(self, argv: Sequence[str], expect: int, lines: int) -> Completed:
        shown = 0

        def show(line: str) -> None:
            nonlocal shown
            shown += 1
            if shown <= lines:
                self.say(f"  {line.replace(str(self.root) + '/', '')}")

        done = run(argv, env=self.env, cwd=self.root, timeout=_TIMEOUT, on_line=show, merge_stderr=True)
        if shown > lines:
            self.say(f"  ... {shown - lines} more lines")
        if done.returncode != expect or done.timed_out:
            if shown > lines:
                self.say("\n".join(f"  {line}" for line in done.tail(20).splitlines()))
            message = f"{done.describe()}, expected {expect}"
            raise StepFailedError(message, max(done.returncode, 0))
        if expect:
            self.say(f"   exit status {expect}, as it should be")
        return done


def _environment(root: Path) -> dict[str, str]:
    """The caller's environment without CANN and without our options; everything kept stays below ``root``."""
    env = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("ASCEND_", "SMALLQ_")) and name != "TOOLCHAIN_HOME"
    }
    package_parent = str(Path(__file__).resolve().parents[2])
    env["PYTHONPATH"] = ":".join(part for part in (package_parent, env.get("PYTHONPATH", "")) if part)
    env["XDG_DATA_HOME"] = str(root / "data")
    env["TMPDIR"] = str(root / "tmp")
    # A cache that the caller has set up on purpose saves compiling; the default one would be left behind.
    env.setdefault("XDG_CACHE_HOME", str(root / "cache"))
    env["NO_COLOR"] = "1"
    env["SMALLQ_DEPLOY_CANN"] = str(root / "ascend")
    env["SMALLQ_DEPLOY_RECIPES"] = str(root / "ascend" / "cann-recipes-infer")
    return env


def _say(call: Call) -> Callable[[str], None]:
    def say(text: str) -> None:
        call.progress.log(text)
        if call.json or call.quiet:
            return
        sys.stdout.write(text + "\n")
        sys.stdout.flush()

    return say


@command("demo", toolkit=False, example="smallq-deploy demo")
@option("--keep", is_flag=True, help="Leave the temporary directory, to look around in it.")
def demo(call: Call, keep: bool) -> Answer:
    """Play the whole path in a simulated toolkit: build, install, prove, break, roll back, repair, remove.

    Runs the real commands in a temporary directory (below TMPDIR), shows each with its output, checks what each left
    on disk, and removes everything at its end. Needs g++, cmake and about three minutes; no NPU.
    """
    from smallq_deploy.cli.demo_steps import STEPS, play

    say = _say(call)
    try:
        root = Path(os.path.realpath(tempfile.mkdtemp(prefix="smallq-demo-")))
    except OSError as error:
        raise access_error(error, f"make a directory in {tempfile.gettempdir()}") from error
    stage = Stage(root, say, _environment(root))
    (root / "tmp").mkdir()
    failure: StepFailedError | None = None
    start = time.monotonic()
    say(f"smallq-deploy demo: everything below happens in a {REMARK}; no time or number in it is an NPU's.")
    say(f"$ cd {root}")
    say("$ export SMALLQ_DEPLOY_CANN=$PWD/ascend SMALLQ_DEPLOY_RECIPES=$PWD/ascend/cann-recipes-infer")
    try:
        play(stage)
    except StepFailedError as error:
        failure = error
    finally:
        if not keep:
            remove_tree(root)
    seconds = time.monotonic() - start
    rows = [(item.step, item.result, f"{item.seconds:.1f}") for item in stage.played]
    rows += [(title, "not reached", "") for title in STEPS[len(stage.played) :]]
    rows.append(("all", "failed" if failure else "ok", f"{seconds:.1f}"))
    blocks: list[Block] = [Line(""), Table(("step", "result", "seconds"), rows, f"the demo in a {REMARK}:")]
    blocks.append(Line(f"left in {root}" if keep else "nothing was left behind"))
    data = {
        "remark": REMARK,
        "steps": [item.to_dict() for item in stage.played],
        "not_reached": list(STEPS[len(stage.played) :]),
        "seconds": round(seconds, 3),
        "directory": str(root) if keep else None,
    }
    return Answer(data, blocks, error=_verdict(stage, failure))


def _verdict(stage: Stage, failure: StepFailedError | None) -> SmallqError | None:
    if failure is None:
        return None
    last = stage.played[-1]
    error = DifferencesError(
        "DEMO_FAILED",
        f"step {len(stage.played)} ({last.step}): {failure}",
        hint="the output above shows the command; --keep leaves the directory to look into",
    )
    # A command that failed for a documented reason (no compiler, no space) says it better than "not as expected".
    if failure.status in {int(status) for status in ExitStatus} - {int(ExitStatus.OK)}:
        error.exit_status = ExitStatus(failure.status)
    return error
