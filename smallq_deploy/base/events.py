"""Steps, notes and warnings of a running command, as data.

Use cases report through :class:`Events`; who shows them (terminal, log, nobody) is the sink the CLI passes in.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Event:
    """One thing that happened: kind is ``start``, ``done``, ``failed``, ``note``, ``warning`` or ``output``."""

    kind: str
    text: str
    depth: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class Step:
    """A finished step: ``result`` is ``ok`` or ``failed``; seconds of wall clock."""

    name: str
    result: str
    seconds: float
    depth: int = 0

    def to_dict(self) -> dict[str, Any]:
        return {"name": self.name, "result": self.result, "seconds": round(self.seconds, 3)}


@dataclass
class RunningStep:
    """What ``with events.step(...) as step`` gives: a step can end badly without raising."""

    result: str = "ok"

    def fail(self) -> None:
        """Report this step as failed; the command goes on."""
        self.result = "failed"


@dataclass
class Events:
    """Collects steps and warnings and hands every event to ``sink``."""

    sink: Callable[[Event], None] = lambda event: None
    steps: list[Step] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    _depth: int = 0

    @contextmanager
    def step(self, name: str) -> Iterator[RunningStep]:
        """A named step; its end is reported with its duration also when it raises."""
        start = time.monotonic()
        depth = self._depth
        self.sink(Event("start", name, depth))
        self._depth += 1
        running = RunningStep()
        result = "failed"
        try:
            yield running
            result = running.result
        finally:
            self._depth = depth
            seconds = time.monotonic() - start
            self.steps.append(Step(name, result, seconds, depth))
            self.sink(Event("done" if result == "ok" else "failed", name, depth, seconds))

    def note(self, text: str) -> None:
        """Something worth saying that is no warning."""
        self.sink(Event("note", text, self._depth))

    def warning(self, text: str) -> None:
        """Something the user should look at; part of the JSON envelope. The same text is kept once."""
        if text not in self.warnings:
            self.warnings.append(text)
            self.sink(Event("warning", text, self._depth))

    def output(self, line: str) -> None:
        """One line of a child process' output."""
        self.sink(Event("output", line, self._depth))
