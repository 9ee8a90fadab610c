"""One compiled planner and one compiled kernel for all tests of this folder."""

from __future__ import annotations

import pytest

from tests.support.operator_kernel import Kernel, Planner, build_kernel


@pytest.fixture(scope="session")
def planner(tmp_path_factory: pytest.TempPathFactory) -> Planner:
    return Planner(tmp_path_factory.mktemp("planner"))


@pytest.fixture(scope="session")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> Kernel:
    return Kernel(build_kernel(tmp_path_factory.mktemp("kernel")))
