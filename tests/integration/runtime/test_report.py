"""SMALLQ_SIM_REPORT: one line of modelled figures a launch."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.integration.runtime.test_call import ADD
from tests.support.acl_toolkit import Child, Toolkit


@pytest.fixture
def target(toolkit: Toolkit, vendor: Path) -> Path:
    return toolkit.install(vendor)


def test_every_launch_appends_a_line(target: Path, child: Child, tmp_path: Path) -> None:
    file = tmp_path / "report.jsonl"
    for launches in (1, 2):
        assert child(ADD, target, "float16", SMALLQ_SIM_REPORT=str(file))["wrong"] == 0
        assert len(file.read_text().splitlines()) == launches
    reports = [json.loads(line) for line in file.read_text().splitlines()]
    assert reports[0] == reports[1]
    assert reports[0]["label"] == "modelled, not measured"
    assert reports[0]["us"] > reports[0]["launch_us"] and reports[0]["bytes_written"] >= 7 * 333 * 2


def test_a_file_that_cannot_be_written_fails_the_call(target: Path, child: Child, tmp_path: Path) -> None:
    answer = child(ADD, target, "float16", SMALLQ_SIM_REPORT=str(tmp_path / "missing" / "report.jsonl"))
    assert answer["code"] != 0 and "SMALLQ_SIM_REPORT" in answer["message"]
