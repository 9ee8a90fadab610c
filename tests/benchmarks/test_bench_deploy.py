"""The speed benchmark's own rules: a goal that is missed is said and ends with 1; a command that fails is no figure."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.benchmarks.bench_deploy import Line, Machine, at_most, medians, report


def test_a_goal_that_is_missed_ends_with_1(capsys: pytest.CaptureFixture[str]) -> None:
    quick = at_most("rollback", 0.2, 0.2, "0.200 s", "<= 0.2 s")
    slow = at_most("install", 1.61, 1.6, "1.61 s / 1.00 s = 1.61 times", "<= 1.6 times")
    assert report([quick, Line("status", "200 ms")]) == 0
    assert "MISSED" not in capsys.readouterr().out
    assert report([quick, slow]) == 1
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].endswith("met") and printed[1].endswith("MISSED")
    assert printed[2] == "1 goals missed: install"


def test_runs_alternate_and_the_first_of_each_does_not_count() -> None:
    ran: list[str] = []

    def run(name: str, *seconds: float) -> float:
        ran.append(name)
        return seconds[ran.count(name) - 1]

    assert medians(3, lambda: run("a", 90, 5, 1, 2), lambda: run("b", 90, 3, 9, 4)) == [2, 4]
    assert ran == ["a", "b", "a", "b", "b", "a", "a", "b"]


def test_the_rivals_work_and_a_failing_command_is_no_figure(tmp_path: Path) -> None:
    machine = Machine(tmp_path / "machine", 1)
    machine.run(machine.shell_lines(durable=True))
    by_hand = {path.name: path.stat().st_size for path in machine.live.rglob("Big_*.o")}
    assert len(by_hand) == 20 and sum(by_hand.values()) == 1_000_000
    assert not (machine.live / "vendors").exists()
    machine.empty()
    with pytest.raises(RuntimeError, match=r"verify .* ended 10"):
        machine.run(machine.command("verify"))
    machine.run(machine.install())
    assert {path.name: path.stat().st_size for path in machine.live.rglob("Big_*.o")} == by_hand
