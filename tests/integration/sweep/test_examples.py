"""The examples that can run here do, as their text says."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.conftest import CHECKOUT
from tests.integration.sweep.conftest import Environment

EXAMPLE = CHECKOUT / "src_op" / "examples" / "ctypes_caller.py"


def call(operator_environment: Environment, *code: str, fault: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *(code or (str(EXAMPLE),))]
    env = {**operator_environment, "SMALLQ_SIM_FAULT": fault, "PYTHONPATH": str(EXAMPLE.parent)}
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=120, check=False)


def test_the_ctypes_caller_computes(operator_environment: Environment) -> None:
    done = call(operator_environment)
    assert done.returncode == 0, done.stderr
    assert "output (8, 4, 128), largest difference from float64" in done.stdout
    wrong = call(operator_environment, fault="wrong_numbers")
    assert wrong.returncode == 1


@pytest.mark.parametrize(
    ("fault", "text"), [("set_device_fails", "aclrtSetDevice returned 507033: E39007"), ("oom", "207018")]
)
def test_the_ctypes_caller_says_what_failed(operator_environment: Environment, fault: str, text: str) -> None:
    done = call(operator_environment, fault=fault)
    assert done.returncode == 1 and text in done.stderr and "Traceback" not in done.stderr


def test_the_ctypes_caller_is_a_module(operator_environment: Environment) -> None:
    """Refused shapes raise, and the caller stays usable."""
    code = (
        "import numpy as np, ctypes_caller as c\n"
        "half = lambda *s: np.ones(s, np.float16)\n"
        "with c.Caller(3) as caller:\n"
        "    try:\n"
        "        caller.attention(half(2, 1, 16), half(2, 5, 8), half(2, 5, 8))\n"
        "    except c.AclError as error:\n"
        "        print('refused', error)\n"
        "    print(caller.attention(half(2, 1, 16), half(2, 5, 16), half(2, 5, 8)).sum())\n"
    )
    done = call(operator_environment, "-c", code)
    assert done.returncode == 0, done.stderr
    assert "refused GetWorkspaceSize returned 561002" in done.stdout and done.stdout.splitlines()[-1] == "16.0"


def test_the_ctypes_caller_without_an_environment() -> None:
    done = call({"PATH": "/usr/bin:/bin"})
    assert done.returncode == 1 and "set_env.sh was not sourced" in done.stderr


def test_what_is_unproven_says_so() -> None:
    for path in (EXAMPLE.parent / "torch_npu").glob("*.*"):
        assert "UNPROVEN" in path.read_text().splitlines()[0 if path.suffix == ".py" else 1]
