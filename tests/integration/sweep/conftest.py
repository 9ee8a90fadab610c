"""The operator installed in a simulated toolkit, and small matrices for it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import CHECKOUT

PROGRAMS = CHECKOUT / "src_op" / "tests"
Environment = dict[str, str]
TOLERANCE = {"abs": 1e-3, "rel": 1e-3, "rel_l2": 5e-4}


def grid(name: str, heads: int, head_dim: int, q_len: list[int], kv_len: list[int], **more: Any) -> dict[str, Any]:
    """One grid of a matrix, with v_head_dim = head_dim where ``more`` does not say another."""
    sizes = {"num_heads": heads, "head_dim": head_dim, "v_head_dim": head_dim}
    return {"name": name, **sizes, "q_len": q_len, "kv_len": kv_len, **more}


def write_matrix(path: Path, *grids: dict[str, Any]) -> Path:
    """A matrix in JSON, which is YAML as well."""
    matrix = {"schema": 1, "name": "small", "description": "test", "tolerance": TOLERANCE, "grids": list(grids)}
    path.write_text(json.dumps(matrix))
    return path


@dataclass(frozen=True)
class Swept:
    """How run_model_tests.py ended; ``found`` is what it wrote to --json."""

    status: int
    out: str
    err: str
    found: dict[str, Any]

    def device(self, number: int) -> dict[str, Any]:
        return next(each for each in self.found["devices"] if each["device"] == number)


@pytest.fixture
def sweep(operator_environment: Environment, tmp_path: Path) -> Callable[..., Swept]:
    """Runs run_model_tests.py; its state and JSON files are those of the test. ``fault`` is SMALLQ_SIM_FAULT."""

    def run(*arguments: str | Path, fault: str = "", env: Environment | None = None) -> Swept:
        answer = tmp_path / "answer.json"
        answer.unlink(missing_ok=True)
        words = ["--state", tmp_path / "state.jsonl", "--json", answer, *arguments]
        done = subprocess.run(
            [sys.executable, str(PROGRAMS / "run_model_tests.py"), *map(str, words)],
            env={**(operator_environment if env is None else env), "SMALLQ_SIM_FAULT": fault},
            capture_output=True,
            text=True,
            timeout=250,
            check=False,
        )
        found = json.loads(answer.read_text()) if answer.exists() else {}
        return Swept(done.returncode, done.stdout, done.stderr, found)

    return run
