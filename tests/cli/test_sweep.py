"""``sweep``: its JSON, its table, its failures."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.support import checked, smallq

MATRIX = """schema: 1
name: tiny
description: six shapes
tolerance: {abs: 0.001, rel: 0.001, rel_l2: 0.0005}
grids:
  - {name: a, num_heads: 2, head_dim: 17, v_head_dim: 8, q_len: [1, 3], kv_len: [5, 65]}
cases:
  - [1, 2, 3, 4, 5]
  - [3, 1, 70, 16, 16, peaky]
"""


@pytest.fixture
def installed(fresh_toolkit: Callable[..., Path], operator_package: Path) -> Path:
    root = fresh_toolkit()
    assert smallq("install", operator_package, "--cann", root, "--no-smoke", "--yes").status == 0
    return root


def test_sweep(installed: Path, own_home: Path, tmp_path: Path) -> None:
    matrix, junit = tmp_path / "tiny.yaml", tmp_path / "out" / "junit.xml"
    matrix.write_text(MATRIX)
    base = ("sweep", "--cann", installed, "--matrix", matrix, "--devices", "1,4")
    ran = smallq(*base, "--json")
    assert ran.status == 0 and ran.stderr == ""
    found = checked(ran, "sweep")["sweep"]
    assert (found["verdict"], found["passed"], found["simulated"]) == ("pass", 6, True)
    assert {model["model"]: model["cases"] for model in found["models"]} == {"a": 4, "cases": 2}
    assert found["library"].startswith(str(installed))
    state = own_home / ".local" / "state" / "smallq-deploy" / "sweep" / "tiny.jsonl"
    assert found["state"] == str(state) and len(state.read_text().splitlines()) == 7

    sick = {"SMALLQ_SIM_FAULT": "wrong_numbers@4"}
    ran = smallq(*base, "--json", env=sick)
    assert (ran.status, ran.codes) == (9, ["SWEEP_FAILED"])
    failed = checked(ran, "sweep")["sweep"]["failed"]
    assert failed >= 1 and f"{failed} of 6 cases did not pass" in ran.document["errors"][0]["message"]

    ran = smallq(*base, "--resume", "--junit", junit)
    assert (ran.status, "BAD_SWEEP" in ran.stderr) == (2, True)  # there is no directory for it
    junit.parent.mkdir()
    ran = smallq(*base, "--resume", "--junit", junit)
    assert ran.status == 0, ran.stderr
    assert f"6 passed, 0 failed, 0 not run, {6 - failed} of them earlier" in ran.stdout
    assert "computed by the simulated toolkit, not by an NPU" in ran.stdout
    assert junit.read_text().count("<testcase ") == 6


def test_sweep_refuses(installed: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.yaml"
    bad.write_text(MATRIX.replace("head_dim: 17", "head_dim: 0"))
    for arguments, status, code in (
        (("--matrix", bad), 5, "BAD_MANIFEST"),
        (("--matrix", "nothing"), 5, "NO_MANIFEST"),
        (("--models", "nothing"), 2, "BAD_SWEEP"),
        (("--devices", "x"), 2, "BAD_SWEEP"),
        (("--program", tmp_path / "nothing"), 2, "BAD_SWEEP"),
        (("--case-timeout", "0"), 2, "BAD_VALUE"),
    ):
        ran = smallq("sweep", "--cann", installed, *arguments, "--json")
        assert (ran.status, ran.codes) == (status, [code]), ran.document
    assert smallq("uninstall", "--cann", installed, "--yes").status == 0
    ran = smallq("sweep", "--cann", installed, "--json")
    assert (ran.status, ran.codes) == (9, ["SMOKE_NO_LIBRARY"])


def test_sweep_without_numpy(installed: Path, tmp_path: Path) -> None:
    """A Python without numpy: the tool says so instead of the program."""
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\n"
        "class Hide:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'numpy':\n"
        "            raise ModuleNotFoundError(name)\n"
        "sys.meta_path.insert(0, Hide())\n"
        "import importlib.util as u\n"
        "real = u.find_spec\n"
        "u.find_spec = lambda name, package=None: None if name == 'numpy' else real(name, package)\n"
    )
    path = os.pathsep.join([str(tmp_path), str(Path(__file__).resolve().parents[2])])
    ran = smallq("sweep", "--cann", installed, "--json", env={"PYTHONPATH": path})
    assert (ran.status, ran.codes) == (2, ["NO_NUMPY"]), json.dumps(ran.document)
    assert "pip install numpy" in ran.document["errors"][0]["hint"]
