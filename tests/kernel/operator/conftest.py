"""One compiled planner and one compiled kernel for all tests of this folder."""

from __future__ import annotations

import pytest

from tests.support.operator_kernel import Operator, Planner, build_operator


@pytest.fixture(scope="session")
def planner(tmp_path_factory: pytest.TempPathFactory) -> Planner:
    return Planner(tmp_path_factory.mktemp("planner"))


@pytest.fixture(scope="session")
def operator(planner: Planner, tmp_path_factory: pytest.TempPathFactory) -> Operator:
    return build_operator(planner, tmp_path_factory.mktemp("kernel"))


@pytest.fixture(scope="session")
def bf16_operator(planner: Planner, tmp_path_factory: pytest.TempPathFactory) -> Operator:
    return build_operator(planner, tmp_path_factory.mktemp("bf16"), dtype="bfloat16_t", extra=["-O1"])
