"""The two programs that run one case: test_aclnn.cpp and aclnn_call.py obey the same environment variables."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.integration.sweep.conftest import PROGRAMS, Environment, Swept, grid, write_matrix


@pytest.fixture(scope="session")
def compiled(
    operator_environment: Environment, simulated_toolkit: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """test_aclnn, built as its CMakeLists.txt says, with the toolkit given by -DCANN_PATH alone."""
    build = tmp_path_factory.mktemp("test_aclnn")
    vendor = operator_environment["ASCEND_CUSTOM_OPP_PATH"].split(":")[0]
    paths = [f"-DCANN_PATH={simulated_toolkit / 'cann'}", f"-DOP_VENDOR_DIR={vendor}"]
    bare = {"PATH": operator_environment["PATH"], "HOME": operator_environment["HOME"]}
    for command in (["cmake", "-S", str(PROGRAMS), "-B", str(build), *paths], ["cmake", "--build", str(build)]):
        done = subprocess.run(command, env=bare, capture_output=True, text=True, timeout=200, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    return build / "test_aclnn"


@pytest.fixture(params=["compiled", "python"])
def program(request: pytest.FixtureRequest) -> list[str]:
    if request.param == "python":
        return [sys.executable, str(PROGRAMS / "aclnn_call.py")]
    return [str(request.getfixturevalue("compiled"))]


CASE = {"NUM_HEADS": "2", "Q_LEN": "3", "KV_LEN": "5", "HEAD_DIM": "16", "HEAD_DIM_V": "8"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Inputs of CASE: with equal keys every output row is the mean of the values."""
    np.ones((2, 3, 16), np.float16).tofile(tmp_path / "q.bin")
    np.ones((2, 5, 16), np.float16).tofile(tmp_path / "k.bin")
    np.arange(80, dtype=np.float16).reshape(2, 5, 8).tofile(tmp_path / "v.bin")
    return tmp_path


def run(
    program: list[str], operator_environment: Environment, folder: Path, fault: str = "", **case: str
) -> tuple[int, str]:
    env = {**operator_environment, **CASE, "IO_DIR": str(folder), "SMALLQ_SIM_FAULT": fault, **case}
    env = {name: value for name, value in env.items() if value != "unset"}
    done = subprocess.run(program, env=env, capture_output=True, text=True, timeout=100, check=False)
    assert "Traceback" not in done.stderr
    return done.returncode, done.stdout + done.stderr


def test_one_case(program: list[str], operator_environment: Environment, folder: Path) -> None:
    status, text = run(program, operator_environment, folder, DEVICE_ID="4", REPEAT="3")
    assert status == 0, text
    assert "device 4 is open" in text and "simulated (median of 3 after warm-up)" in text
    out = np.fromfile(folder / "o.bin", np.float16).reshape(2, 3, 8)
    mean = np.arange(80).reshape(2, 5, 8).mean(axis=1, keepdims=True)
    assert np.array_equal(out, np.broadcast_to(mean, (2, 3, 8)).astype(np.float16))


def test_what_it_refuses(program: list[str], operator_environment: Environment, folder: Path) -> None:
    for case, status, text in (
        ({"NUM_HEADS": "unset"}, 2, "set NUM_HEADS"),
        ({"Q_LEN": "0"}, 2, "Q_LEN must be a number of at least 1, got '0'"),
        ({"DEVICE_ID": "x"}, 2, "DEVICE_ID must be a number"),
        ({"DTYPE": "float32"}, 2, "DTYPE must be"),
        ({"IO_DIR": "unset"}, 2, "IO_DIR"),
        ({"KV_LEN": "6"}, 2, "k.bin"),
        ({"DEVICE_ID": "99"}, 3, "aclrtSetDevice returned 107001"),
    ):
        got, said = run(program, operator_environment, folder, **case)
        assert got == status and text in said, (case, said)
        assert not (folder / "o.bin").exists()


def test_python_without_the_toolkits_environment(operator_environment: Environment, folder: Path) -> None:
    program = [sys.executable, str(PROGRAMS / "aclnn_call.py")]
    status, said = run(program, operator_environment, folder, LD_LIBRARY_PATH="unset")
    assert status == 3 and "source the toolkit's set_env.sh first" in said


@pytest.mark.parametrize(
    ("fault", "text"),
    [
        ("oom", "aclrtMalloc returned 207018"),
        ("set_device_fails@4", "aclrtSetDevice returned 507033: E39007"),
        ("no_device", "aclrtSetDevice returned 207004"),
    ],
)
def test_faults_are_named_with_the_runtimes_message(
    program: list[str], operator_environment: Environment, folder: Path, fault: str, text: str
) -> None:
    status, said = run(program, operator_environment, folder, fault=fault, DEVICE_ID="4")
    assert status == 3 and text in said
    assert "returned" not in said.replace(text, "")  # everything that was made could be given back


def test_a_call_the_operator_refuses(program: list[str], operator_environment: Environment, folder: Path) -> None:
    np.ones((3, 5, 24), np.float16).tofile(folder / "k.bin")
    np.ones((3, 5, 8), np.float16).tofile(folder / "v.bin")
    np.ones((2, 3, 24), np.float16).tofile(folder / "q.bin")
    status, said = run(program, operator_environment, folder, KV_HEADS="3", HEAD_DIM="24")  # 3 does not divide 2
    assert status == 3 and "GetWorkspaceSize returned 561002" in said


def test_the_sweep_with_the_compiled_program(compiled: Path, sweep: Callable[..., Swept], tmp_path: Path) -> None:
    matrix = write_matrix(tmp_path / "m.json", grid("m", 2, 32, [1, 2], [33, 70]))
    ran = sweep("--matrix", matrix, "--devices", "0,1", "--program", compiled)
    assert ran.status == 0, ran.err
    assert ran.found["passed"] == 4
