"""The compiled planner and kernels of the operator's tests; nothing is collected outside ``make kernel-full``."""

import os

from tests.kernel.operator.conftest import bf16_operator, operator, planner

__all__ = ["bf16_operator", "operator", "planner"]

collect_ignore_glob = [] if os.environ.get("SMALLQ_KERNEL_FULL") else ["test_*.py"]
