"""The cost model on the real kernel, against what the paper model says of the same instruction sequence."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.support.emulator import SIM_OK
from tests.support.launch_report import ReportingKernel
from tests.support.operator_kernel import Force, Operator, Planner, build_operator

# One worker compiles for all of them.
pytestmark = pytest.mark.xdist_group("operator-cost")


@pytest.fixture(scope="module")
def operator(tmp_path_factory: pytest.TempPathFactory) -> Operator:
    planner = Planner(tmp_path_factory.mktemp("planner"))
    built = build_operator(planner, tmp_path_factory.mktemp("kernel"), only_key=1)
    return Operator(planner, ReportingKernel(built.kernel.path))


def report(operator: Operator, heads: int, q_len: int, kv_len: int, head_dim: int, **options: Any) -> dict[str, Any]:
    """Zeros: no instruction depends on values."""
    q, k = (np.zeros((heads, rows, head_dim), np.float16) for rows in (q_len, kv_len))
    outcome = operator.run(q, k, np.zeros_like(k), strict=False, force=Force(parts=1), **options)
    assert outcome.status == SIM_OK, outcome.message
    assert isinstance(operator.kernel, ReportingKernel) and operator.kernel.report is not None
    return operator.kernel.report


@pytest.mark.parametrize(
    ("head_dim", "q_len", "on_trace", "paper"),
    [(64, 1, 11.6, 12.2), (128, 1, 19.4, 20.0), (128, 4, 47.0, 48.0), (128, 8, 89.9, 91.4)],
)
def test_vector_cycles_a_key(operator: Operator, head_dim: int, q_len: int, on_trace: float, paper: float) -> None:
    """Difference of 4096 and 2048 keys of one head: design/kernel-validation.md (e) and kernel.md 5.3."""
    busy = [
        got["busy"]["V"] * got["cycles"]
        for got in (report(operator, 1, q_len, keys, head_dim) for keys in (4096, 2048))
    ]
    cycles = (busy[0] - busy[1]) / 2048
    assert cycles == pytest.approx(on_trace, rel=0.02)
    assert cycles == pytest.approx(paper, rel=0.06)


@pytest.mark.parametrize(("heads", "microseconds"), [(32, 58.5), (40, 71.3)])
def test_one_query_token_is_bound_by_memory(operator: Operator, heads: int, microseconds: float) -> None:
    """4096 keys, head size 128, launch included: kernel.md 5.4 and the same formula for 40 heads; 10 % apart."""
    got = report(operator, heads, 1, 4096, 128)
    assert got["bound"] == "HBM"
    assert got["us"] == pytest.approx(microseconds, rel=0.1)
    assert got["roofline_us"] <= got["kernel_us"] <= 1.15 * got["roofline_us"]
    assert got["bytes_hbm"] == pytest.approx(got["roofline_bytes"], rel=0.001)


def test_many_query_tokens_are_bound_by_the_vector_pipe(operator: Operator) -> None:
    got = report(operator, 32, 8, 1024, 128)
    assert got["bound"] == "vector" and got["busy"]["V"] > 0.9
    assert got["us"] == pytest.approx(59.4, rel=0.1)


def test_report_does_not_depend_on_threads(operator: Operator) -> None:
    assert len({str(report(operator, 41, 2, 300, 100, threads=threads)) for threads in (1, 2, 5)}) == 1
