"""A forked child's findings, death, exception and silence all reach the test."""

from __future__ import annotations

import os
import signal
import time

from tests.support.forked import in_child


def test_what_it_found_is_told() -> None:
    mine = os.getpid()
    assert in_child(lambda: [f"in a process of its own: {os.getpid() != mine}", "ä\n"]) == [
        "in a process of its own: True",
        "ä\n",
    ]
    assert in_child(list) == []


def test_an_exception_is_a_violation() -> None:
    (said,) = in_child(lambda: [str(1 // 0)])
    assert "ZeroDivisionError" in said


def test_a_death_is_a_violation() -> None:
    def die() -> list[str]:
        os.kill(os.getpid(), signal.SIGKILL)
        return []

    assert in_child(die) == ["the child died"]


def test_a_hang_is_ended_and_is_a_violation() -> None:
    def hang() -> list[str]:
        time.sleep(60)
        return []

    begun = time.monotonic()
    assert in_child(hang, patience=0.2) == ["it hangs"]
    assert time.monotonic() - begun < 20
