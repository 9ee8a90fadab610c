"""The rivals compute attention, too: the operator's cases and tolerance, strict, without a finding."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.benchmarks.rivals import MAX_ROWS, RIVALS, Rival, build_rival
from tests.support import emulator
from tests.support.attention_cases import EXTREME_CASES, NORMAL_CASES, AttentionCase, compare, make_inputs, reference

# One worker compiles for all of them.
pytestmark = pytest.mark.xdist_group("rivals")

MOST = {"scalar_dot": 400_000, "row_dot": 2_000_000, "row_dot_tuned": 2_000_000}  # multiply-adds of a case


def cases_for(rival: str) -> list[AttentionCase]:
    """Cases of the operator's own tables that a rival can do in the time of a test."""
    cases = (*NORMAL_CASES, *EXTREME_CASES)
    fits = [case for case in cases if case.multiply_adds <= MOST[rival] and case.q_len <= MAX_ROWS]
    return [case for case in fits if max(case.head_dim, case.head_dim_v) <= 256]


@pytest.fixture(scope="module", params=RIVALS)
def rival(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Rival:
    return build_rival(request.param, tmp_path_factory.mktemp("rival"))


def test_same_cases_as_the_operator(rival: Rival, record_property: Callable[[str, object], None]) -> None:
    cases = cases_for(rival.name)
    assert len(cases) >= 60
    assert len({case.kv_len for case in cases}) >= 8 and len({case.head_dim for case in cases}) >= 9
    worst, name = 0.0, ""
    for case in cases:
        q, k, v = make_inputs(case)
        outcome = rival.run(q, k, v)
        assert (outcome.status, outcome.message) == (emulator.SIM_OK, ""), case.name
        comparison = compare(outcome.output, reference(q, k, v, large=case.large))
        assert comparison.passed, f"{case.name}: {comparison}"
        worst, name = max((worst, name), (comparison.bound, case.name))
    text = f"{rival.name}: {len(cases)} cases, worst error {worst:.3f} of the tolerance ({name})"
    record_property("measured", text)


def test_more_heads_than_cores_repeat_to_the_bit(rival: Rival) -> None:
    q, k, v = make_inputs(AttentionCase(83, 2, 40, 17, 40))
    first = rival.run(q, k, v, threads=1)
    second = rival.run(q, k, v, threads=3)
    assert (first.status, first.message) == (emulator.SIM_OK, "")
    assert first.output.tobytes() == second.output.tobytes()
