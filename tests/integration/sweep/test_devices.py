"""Several devices, some of them sick: what is named, what completes, what a second run does."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.integration.sweep.conftest import PROGRAMS, Environment, Swept, grid, write_matrix

Sweep = Callable[..., Swept]
MODELS = [
    grid("small-64", 3, 64, [1, 2, 4], [1, 65, 130, 200, 257]),
    grid("odd-17", 2, 17, [1, 3, 5], [2, 63, 64, 100, 129], v_head_dim=40),
]
CASES = 30


@pytest.fixture
def matrix(tmp_path: Path) -> Path:
    return write_matrix(tmp_path / "small.json", *MODELS)


def names(swept: Swept, *statuses: str) -> set[str]:
    return {each["case"]["name"] for each in swept.found["results"] if each["status"] in statuses}


def test_every_case_passes_and_is_written_down(sweep: Sweep, matrix: Path, tmp_path: Path) -> None:
    junit = tmp_path / "junit.xml"
    ran = sweep("--matrix", matrix, "--devices", "0,5-6", "--junit", junit, "--repeat", "1", "-v")
    assert ran.status == 0, ran.err
    assert "30 cases, 0 failed" in ran.out and "simulated toolkit: no NPU took part" in ran.out
    assert ran.err.count("\npass ") + ran.err.startswith("pass ") == CASES
    assert (ran.found["verdict"], ran.found["passed"], ran.found["not_run"]) == ("pass", CASES, 0)
    assert sum(each["cases"] for each in ran.found["devices"]) == CASES
    assert all(ran.device(number)["cases"] > 0 for number in (0, 5, 6))
    for result in ran.found["results"]:
        assert result["bound"] <= 1 and result["time_us"] > 0 and result["time_kind"] == "simulated"
    suites = {suite.get("name"): suite for suite in ElementTree.parse(junit).getroot()}
    assert {name: suite.get("tests") for name, suite in suites.items()} == {"small-64": "15", "odd-17": "15"}
    again = sweep("--matrix", matrix, "--devices", "0", "--resume")
    assert again.status == 0 and again.found["resumed"] == CASES and "0 cases on device(s) 0" in again.err


def test_one_device_hangs_and_one_is_wrong(sweep: Sweep, matrix: Path) -> None:
    """Issue: the summary names them, the rest completes, and --resume after the fix runs only what is left."""
    limits = ("--matrix", matrix, "--devices", "all", "--open-timeout", "5")
    ran = sweep(*limits, fault="device_hangs@3,wrong_numbers@5")
    assert ran.status == 1
    assert "device 3 was given up: it cannot be opened: the device was not open after 5 s" in ran.out
    assert "device 5: " in ran.out and "cases not passed (wrong)" in ran.out
    assert len(ran.found["devices"]) == 8
    wrong = {each["device"] for each in ran.found["results"] if each["status"] == "wrong"}
    assert wrong == {5}
    failed = names(ran, "wrong")
    assert names(ran, "passed") | failed == names(ran, "passed", "wrong", "hung")
    assert ran.found["passed"] + len(failed) == CASES and ran.found["not_run"] == 0
    assert ran.device(3)["cases"] == 0 and ran.device(5)["failed"] == len(failed) >= 1

    fixed = sweep(*limits, "--resume", "-v")
    assert fixed.status == 0, fixed.err
    assert f"{len(failed)} cases on device(s)" in fixed.err and f"{CASES - len(failed)} passed earlier" in fixed.err
    ran_now = {line.split()[1] for line in fixed.err.splitlines() if line.startswith("pass ")}
    assert ran_now == failed
    assert (fixed.found["passed"], fixed.found["resumed"]) == (CASES, CASES - len(failed))


def test_a_device_whose_process_dies_leaves_its_cases_to_the_others(sweep: Sweep, matrix: Path) -> None:
    ran = sweep("--matrix", matrix, "--devices", "1,2", fault="dies@2")
    assert ran.status == 1
    assert ran.found["passed"] == CASES  # every case was computed, by device 1
    assert ran.device(2)["given_up"].endswith("the process was ended by SIGSEGV")
    assert ran.found["verdict"] == "fail" and "device 2 was given up" in ran.out


def test_a_device_that_is_not_there(sweep: Sweep, matrix: Path) -> None:
    ran = sweep("--matrix", matrix, "--devices", "1,99")
    assert ran.status == 1 and ran.found["passed"] == CASES
    assert "107001" in ran.device(99)["given_up"]


def test_no_device_works(sweep: Sweep, matrix: Path) -> None:
    ran = sweep("--matrix", matrix, "--devices", "1,2", fault="set_device_fails")
    assert ran.status == 1
    assert (ran.found["passed"], ran.found["not_run"]) == (0, CASES)
    assert "--resume runs what is left" in ran.out


def test_results_of_another_operator_do_not_count(sweep: Sweep, matrix: Path, tmp_path: Path) -> None:
    few = ("--matrix", matrix, "--devices", "0", "--kvlen", "1,2")
    assert sweep(*few).status == 0
    state = tmp_path / "state.jsonl"
    lines = state.read_text().splitlines()
    # A run that was killed can leave half a line at the end: what stands before it counts.
    state.write_text("\n".join(lines[:3]) + '\n{"case": {"na')
    ran = sweep(*few, "--resume")
    assert ran.found["resumed"] == 2 and "ends in the middle; 2 results were read" in ran.err
    state.write_text(json.dumps({"state": 1, "operator": "0" * 64}) + "\n" + "\n".join(lines[1:]) + "\n")
    ran = sweep(*few, "--resume")
    assert ran.status == 0 and ran.found["resumed"] == 0
    assert "not the one of the earlier run" in ran.err


def test_interrupted_and_resumed(
    sweep: Sweep, matrix: Path, operator_environment: Environment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIGTERM: no process and no input file stays behind; what had passed is not run again."""
    work = tmp_path / "work"
    work.mkdir()
    command = [sys.executable, str(PROGRAMS / "run_model_tests.py"), "--matrix", str(matrix), "--devices", "0,1"]
    command += ["--state", str(tmp_path / "state.jsonl"), "--work", str(work), "-v"]
    process = subprocess.Popen(
        command, env=operator_environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    passed = 0
    while passed < 3:
        passed += process.stderr.readline().startswith("pass ")
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "were not run" in out and list(work.iterdir()) == []
    deadline = time.monotonic() + 10
    while _users_of(work) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert _users_of(work) == []
    ran = sweep("--matrix", matrix, "--devices", "0,1", "--resume")
    assert ran.status == 0 and 3 <= ran.found["resumed"] < CASES and ran.found["passed"] == CASES


def _users_of(directory: Path) -> list[int]:
    """Processes whose current directory is below ``directory``."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if os.readlink(entry / "cwd").startswith(str(directory)):
                    found.append(int(entry.name))
            except OSError:
                continue
    return found


def test_wrong_command_lines(sweep: Sweep, matrix: Path, operator_environment: Environment, tmp_path: Path) -> None:
    bare = {"HOME": operator_environment["HOME"], "PATH": operator_environment["PATH"]}
    not_installed = {name: value for name, value in operator_environment.items() if name != "ASCEND_CUSTOM_OPP_PATH"}
    (tmp_path / "empty.json").write_text('{"schema": 1, "name": "x", "tolerance": {"abs": 1, "rel": 1, "rel_l2": 1}}')
    for arguments, env, text in (
        (["--matrix", matrix], bare, "set_env.sh"),
        (["--matrix", matrix], not_installed, "not installed"),
        (["--matrix", matrix, "--models", "none"], operator_environment, "the matrix has: small-64, odd-17"),
        (["--matrix", matrix, "--kvlen", "7"], operator_environment, "no case of the matrix is left"),
        (["--matrix", "nothing"], operator_environment, "matrices by name: acceptance, grouped, models"),
        (["--matrix", tmp_path / "empty.json"], operator_environment, "has no cases"),
        (["--matrix", matrix, "--devices", "a"], operator_environment, "--devices: 'a' is not a list of numbers"),
        (["--matrix", matrix, "--program", "no/such"], operator_environment, "there is no program"),
        (["--matrix", matrix, "--timeout", "0"], operator_environment, "must be positive"),
    ):
        ran = sweep(*arguments, env=env)
        assert (ran.status, text in ran.err) == (2, True), ran.err
        assert "Traceback" not in ran.err
