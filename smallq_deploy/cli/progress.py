"""Where events go while a command runs: stderr (plain or with a spinner) and the log file."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from smallq_deploy.base.errors import access_error
from smallq_deploy.base.events import Event
from smallq_deploy.base.visible import visible
from smallq_deploy.cli.render import wants_colour

Sink = Callable[[Event], None]


def plain_line(event: Event, *, show_output: bool) -> str | None:
    """An event as one line for stderr, or None where nothing is to be said."""
    indent = "  " * event.depth
    if event.kind == "done":
        return f"{indent}ok      {event.text} ({event.seconds:.1f} s)"
    if event.kind == "failed":
        return f"{indent}failed  {event.text} ({event.seconds:.1f} s)"
    if event.kind == "note":
        return f"{indent}{event.text}"
    if event.kind == "warning":
        return f"warning: {event.text}"
    if event.kind == "output" and show_output:
        return f"{indent}| {event.text}"
    return None


class Progress:
    """The sink a command's events go to. Use as a context manager: it ends the spinner and closes the log."""

    def __init__(self, *, quiet: bool, silent: bool, show_output: bool, no_color: bool, log_file: Path | None) -> None:
        self._quiet = quiet
        self._silent = silent
        self._show_output = show_output
        self._log: IO[str] | None = None
        self._status: Any = None
        self._names: list[str] = []
        self._rich = not (quiet or silent) and wants_colour(sys.stderr, no_color)
        if log_file is not None:
            try:
                log_file.parent.mkdir(parents=True, exist_ok=True)
                self._log = open(log_file, "a", encoding="utf-8")  # noqa: SIM115 - closed by close()
            except OSError as error:
                raise access_error(error, f"write the log file {log_file}") from error

    def log(self, text: str) -> None:
        """One line in the log file, with the time in UTC."""
        if self._log is not None:
            self._log.write(time.strftime("%Y-%m-%dT%H:%M:%SZ ", time.gmtime()) + visible(text) + "\n")
            self._log.flush()

    def __call__(self, event: Event) -> None:
        logged = f"start   {event.text}" if event.kind == "start" else plain_line(event, show_output=True) or event.text
        self.log(logged)
        if self._silent or (self._quiet and event.kind != "warning"):
            return
        if self._rich:
            self._spin(event)
        line = plain_line(event, show_output=self._show_output)
        if line is not None:
            self._write(line)

    def _write(self, line: str) -> None:
        line = visible(line)
        if self._status is not None:
            self._status.console.print(line, highlight=False, markup=False, soft_wrap=True)
        else:
            sys.stderr.write(line + "\n")
            sys.stderr.flush()

    def _spin(self, event: Event) -> None:
        if event.kind == "start":
            self._names.append(event.text)
        elif event.kind in ("done", "failed") and self._names:
            self._names.pop()
        if not self._names:
            self.pause()
            return
        text = self._names[-1]
        if event.kind == "output" and not self._show_output:
            text += f"  {event.text[:60]}"
        from rich.text import Text

        if self._status is None:
            from rich.console import Console

            self._status = Console(stderr=True, highlight=False).status(Text(text))
            self._status.start()
        else:
            self._status.update(Text(text))

    def pause(self) -> None:
        """Take the spinner away (before a question or the answer)."""
        if self._status is not None:
            self._status.stop()
            self._status = None

    def close(self) -> None:
        """End the spinner and close the log file."""
        self.pause()
        if self._log is not None:
            self._log.close()
            self._log = None
