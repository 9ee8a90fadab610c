"""The planner and the sanitized kernels, compiled once a session, and only when a test asks for them."""

from __future__ import annotations

import pytest

from tests.support.operator_kernel import Operator, Planner
from tests.support.sanitized import build_sanitized


@pytest.fixture(scope="session")
def planner(tmp_path_factory: pytest.TempPathFactory) -> Planner:
    return Planner(tmp_path_factory.mktemp("planner"))


@pytest.fixture(scope="session")
def sanitized(planner: Planner, tmp_path_factory: pytest.TempPathFactory) -> Operator:
    return build_sanitized(planner, tmp_path_factory.mktemp("sanitized"))
