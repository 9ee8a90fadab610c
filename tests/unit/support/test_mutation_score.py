"""The mutation table counts survivors and fails below its bar."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.mutation_score import main


@pytest.mark.parametrize(("statuses", "status", "said"), [([1, 1, 1, 0], 1, "75.0%"), ([1, 1, 1, 36], 0, "100.0%")])
def test_share(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    statuses: list[int],
    status: int,
    said: str,
) -> None:
    (tmp_path / "mutants").mkdir()
    record = {"exit_code_by_key": {str(number): code for number, code in enumerate(statuses)}}
    (tmp_path / "mutants" / "a.py.meta").write_text(json.dumps(record))
    monkeypatch.chdir(tmp_path)
    assert main(["85"]) == status
    assert said in capsys.readouterr().out


def test_a_mutant_that_was_not_run_is_no_success(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mutants").mkdir()
    record = {"exit_code_by_key": {**{str(number): 1 for number in range(99)}, "99": None}}
    (tmp_path / "mutants" / "a.py.meta").write_text(json.dumps(record))
    monkeypatch.chdir(tmp_path)
    assert main(["85"]) == 1
