"""Every row of the table is caught and named, or silent where it is legal; the unchanged kernel has no finding."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.kernel.hazards.faults import FAULTS, LEGAL, Fault, run, verdict
from tests.support.attention_cases import compare, make_inputs, reference
from tests.support.emulator import SIM_OK
from tests.support.operator_kernel import Operator, Planner, build_operator


@pytest.fixture(scope="session")
def planner(tmp_path_factory: pytest.TempPathFactory) -> Planner:
    return Planner(tmp_path_factory.mktemp("planner"))


@pytest.fixture(scope="session")
def operator(planner: Planner, tmp_path_factory: pytest.TempPathFactory) -> Operator:
    return build_operator(planner, tmp_path_factory.mktemp("kernel"))


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: f"{fault.row}-{fault.name}".replace(" ", "-"))
def test_row(planner: Planner, tmp_path: Path, fault: Fault) -> None:
    outcome = run(planner, tmp_path, fault)
    assert verdict(fault, outcome) == ""
    if fault.codes != LEGAL:
        assert "[smallq_flash_attention" in outcome.message  # the kernel's own line


def test_clean_kernel_has_no_finding(operator: Operator) -> None:
    for fault in FAULTS:
        inputs = make_inputs(fault.case)
        outcome = operator.run(*inputs, **fault.options)
        assert (outcome.status, outcome.message) == (SIM_OK, ""), fault.name
        assert compare(outcome.output, reference(*inputs)).passed
