"""The table of the fault matrix counts what was done and says what is missing."""

from __future__ import annotations

import json

import pytest

from tests.support import faultrows
from tests.support.faultrows import ROWS, FaultRow, Tally


def test_rows_of_several_tests_are_added() -> None:
    tally = Tally()
    tally.add([("fault_row", json.dumps(["8", 200, 0])), ("measured", "x")])
    tally.add([("fault_row", json.dumps(["8", 300, 2]))])
    (line,) = [line for line in tally.table() if line.startswith("8 ")]
    assert line.split()[:2] == ["8", "500"]
    assert " 2 " in line


def test_a_row_below_its_bar_is_named() -> None:
    tally = Tally()
    tally.add([("fault_row", json.dumps([name, row.bar, 0])) for name, row in ROWS.items()])
    assert tally.shortfalls() == []
    tally.done["9"] -= 1
    assert tally.shortfalls() == ["row 9: 29 attacks, the bar is 30"]


def test_a_skip_counts_only_where_the_machine_lacks_something(monkeypatch: pytest.MonkeyPatch) -> None:
    tally = Tally()
    tally.add([("fault_row", json.dumps([name, row.bar, 0])) for name, row in ROWS.items() if name != "1"])
    tally.add([("fault_skip", json.dumps(["1", "no strace: it is not installed"]))])
    monkeypatch.setattr(faultrows, "lacking", lambda ability: "not installed" if ability == "strace" else "")
    assert not [text for text in tally.shortfalls() if text.startswith("row 1")]
    monkeypatch.setattr(faultrows, "lacking", lambda ability: "")
    assert "row 1 was skipped, though this machine allows it" in tally.shortfalls()


def test_violations_fail_the_test() -> None:
    said: list[tuple[str, object]] = []
    row = FaultRow(lambda name, value: said.append((name, value)))
    row("9", 3)
    with pytest.raises(AssertionError, match="1 violations in 3 attacks"):
        row("9", 3, ["a file outside changed"])
    assert len(said) == 2
