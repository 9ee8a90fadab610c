"""Every shape of a matrix on every device: runs ``src_op/tests/run_model_tests.py``, which also works on its own.

There is one engine: that program. Here it gets the toolkit's environment, the operator's library and a checked matrix,
and its JSON becomes a :class:`SweepReport`. It needs numpy in the Python that runs this tool.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from smallq_deploy.base.errors import SmallqError, SmokeError, UsageError
from smallq_deploy.base.events import Events
from smallq_deploy.base.proc import Completed, run
from smallq_deploy.machine.toolkit import Toolkit
from smallq_deploy.package.data import data_root
from smallq_deploy.package.releases import Release, ShapeMatrix, SweepCase, load_matrix, matrix_path
from smallq_deploy.smoke import resolve
from smallq_deploy.smoke.runner import child_environment

_USAGE, _INTERRUPTED = 2, 130


@dataclass(frozen=True)
class SweepOptions:
    """What of the matrix is run, where and how; empty values are the engine's defaults. Times in seconds, memory in GB.

    ``program`` is a built test_aclnn to use instead of the engine's own caller; ``junit`` a file to write.
    """

    devices: str = ""
    models: str = ""
    q_lengths: str = ""
    kv_lengths: str = ""
    quick: bool = False
    timeout: float = 600.0
    repeat: int = 0
    memory: float | None = None
    program: Path | None = None
    resume: bool = False
    junit: Path | None = None

    def arguments(self) -> list[str]:
        """For the engine's command line."""
        pairs = {
            "--devices": self.devices,
            "--models": self.models,
            "--qlen": self.q_lengths,
            "--kvlen": self.kv_lengths,
            "--timeout": f"{self.timeout:g}",
            "--repeat": str(self.repeat),
            "--memory": "" if self.memory is None else f"{self.memory:g}",
            "--program": "" if self.program is None else str(self.program.absolute()),
            "--junit": "" if self.junit is None else str(self.junit.absolute()),
        }
        words = [f"{name}={value}" for name, value in pairs.items() if value]
        return words + [name for name, on in (("--quick", self.quick), ("--resume", self.resume)) if on]


@dataclass(frozen=True)
class SweepReport:
    """The engine's document (see sweep_report.document there), with the matrix and the library it is about."""

    matrix: ShapeMatrix
    library: str
    found: Mapping[str, Any]

    @property
    def passed(self) -> bool:
        return bool(self.found["verdict"] == "pass")

    def to_dict(self) -> dict[str, Any]:
        return {**self.found, "source": str(self.matrix.source), "library": self.library}

    def error(self) -> SmallqError | None:
        """None when every case passed on devices that all work, else a SmokeError that names what did not."""
        if self.passed:
            return None
        parts = []
        if self.found["failed"]:
            parts.append(f"{self.found['failed']} of {self.found['total']} cases did not pass")
        if self.found["not_run"]:
            parts.append(f"{self.found['not_run']} were not run")
        for device in self.found["devices"]:
            if device["given_up"]:
                parts.append(f"device {device['device']} was given up: {device['given_up']}")
        details = {key: self.found[key] for key in ("total", "passed", "failed", "not_run", "devices")}
        hint = "`smallq-deploy sweep --resume` runs only what has not passed, once the cause is gone"
        return SmokeError("SWEEP_FAILED", "; ".join(parts), hint=hint, details=details)


def find_matrix(text: str) -> ShapeMatrix:
    """A matrix by name or file; raises PackageError BAD_MANIFEST or NO_MANIFEST."""
    named = matrix_path(text) if "/" not in text and not text.endswith((".yaml", ".yml")) else Path(text)
    return load_matrix(named)


def default_state(matrix: str, environ: Mapping[str, str]) -> Path:
    """Where results are kept between runs; the same place as the engine's own."""
    base = environ.get("XDG_STATE_HOME") or os.path.join(os.path.expanduser("~"), ".local", "state")
    return Path(base, "smallq-deploy", "sweep", f"{matrix}.jsonl")


def _record(case: SweepCase) -> dict[str, Any]:
    """A case under the engine's names."""
    return {
        "name": case.name,
        "model": case.model,
        "heads": case.num_heads,
        "kv_heads": case.kv_heads,
        "q_len": case.q_len,
        "kv_len": case.kv_len,
        "head_dim": case.head_dim,
        "head_dim_v": case.v_head_dim,
        "dtype": case.dtype,
        "causal": case.causal,
        "distribution": case.distribution,
        "seed": case.seed,
    }


def _library(toolkit: Toolkit, release: Release, env: Mapping[str, str]) -> str:
    winner = resolve.winner(resolve.bases(release.operator, toolkit.opp, env))
    if winner is None:
        raise SmokeError(
            "SMOKE_NO_LIBRARY",
            f"programs do not find {release.operator} in {toolkit.opp}",
            hint="install it first: `smallq-deploy install`; `smallq-deploy smoke` says what is missing",
        )
    return str(winner.library)


def run_sweep(
    toolkit: Toolkit,
    release: Release,
    matrix: ShapeMatrix,
    options: SweepOptions,
    *,
    events: Events | None = None,
    environ: Mapping[str, str] | None = None,
) -> SweepReport:
    """Run the matrix (or what --resume leaves of it) on the installed operator; progress goes to ``events``.

    Raises UsageError NO_NUMPY and BAD_SWEEP (the engine refuses the options), SmokeError SMOKE_NO_LIBRARY and
    SWEEP_BROKEN (the engine ended without a result). Cases and devices that fail are in the report.
    """
    if importlib.util.find_spec("numpy") is None:
        raise UsageError(
            "NO_NUMPY",
            f"a sweep computes its references with numpy, and {sys.executable} has none",
            hint="install it beside this tool: pip install numpy",
        )
    events = events or Events()
    caller = os.environ if environ is None else environ
    env = {**child_environment(toolkit)}
    if "XDG_STATE_HOME" in caller:
        env["XDG_STATE_HOME"] = caller["XDG_STATE_HOME"]
    library = _library(toolkit, release, env)
    tolerance = matrix.tolerance.to_dict()
    request = {"name": matrix.name, "tolerance": tolerance, "cases": [_record(case) for case in matrix.cases]}
    engine = data_root() / "src_op" / "tests" / "run_model_tests.py"
    with tempfile.TemporaryDirectory(prefix="smallq-sweep-") as folder:
        cases, answer = Path(folder, "matrix.json"), Path(folder, "result.json")
        cases.write_text(json.dumps(request), encoding="utf-8")
        words = [f"--matrix={cases}", f"--json={answer}", f"--work={folder}", f"--opapi={library}"]
        words += ["--no-summary", f"--state={default_state(matrix.name, caller)}", *options.arguments()]
        done = run([sys.executable, str(engine), *words], env=env, cwd=folder, on_line=events.note, merge_stderr=True)
        found = _read(answer, done)
    return SweepReport(matrix, library, found)


def _read(answer: Path, done: Completed) -> Mapping[str, Any]:
    try:
        found = json.loads(answer.read_text(encoding="utf-8"))
        if isinstance(found, dict) and done.returncode in (0, 1):
            return found
    except (OSError, ValueError):
        pass
    last: Sequence[str] = done.tail(1).splitlines()
    text = (last[-1] if last else "").removeprefix("run_model_tests: ").removeprefix("run_model_tests.py: error: ")
    if done.returncode == _USAGE:
        raise UsageError("BAD_SWEEP", text, hint="`smallq-deploy sweep --help` shows how it is used")
    if done.returncode == _INTERRUPTED:
        raise KeyboardInterrupt
    raise SmokeError("SWEEP_BROKEN", f"the sweep {done.describe()}", details={"output": done.tail()})
