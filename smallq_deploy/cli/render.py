"""Answers as data for people: blocks of text, and the one place that prints them.

A command returns an :class:`Answer`; its ``data`` goes into the JSON envelope, its ``blocks`` onto the terminal.
``rich`` is imported only when stdout is a terminal and colours are wanted.
"""

from __future__ import annotations

import os
import sys
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import IO, Any

from smallq_deploy.base.errors import EXIT_MEANINGS, ExitStatus, SmallqError
from smallq_deploy.base.visible import visible


@dataclass(frozen=True)
class Line:
    """One sentence, or one line that must stay as it is (a path, a shell line)."""

    text: str


@dataclass(frozen=True)
class Facts:
    """Names and values, values aligned; an empty value is left out."""

    pairs: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Table:
    """Rows under column names; ``title`` stands above."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    title: str = ""


@dataclass(frozen=True)
class Bullets:
    """A heading and its points."""

    title: str
    points: Sequence[str]


Block = Line | Facts | Table | Bullets


@dataclass(frozen=True)
class Answer:
    """What a command gives back: ``data`` for machines, ``blocks`` for people, and an optional failed verdict.

    ``error`` is for commands whose answer can be "not as it should be" (smoke, verify): the data is complete, and the
    error says why the exit status is not 0.
    """

    data: Mapping[str, Any] = field(default_factory=dict)
    blocks: Sequence[Block] = ()
    error: SmallqError | None = None
    raw: bool = False  # the text is read by a shell: nothing may stand before it


_GOOD = frozenset({"ok", "pass", "passed", "live", "yes", "proven"})
_BAD = frozenset({"fail", "failed", "no", "missing", "undone", "refused"})


def width(text: str) -> int:
    """Columns a text takes on a terminal (Chinese characters take two)."""
    return sum(2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text)


def _pad(text: str, columns: int) -> str:
    return text + " " * (columns - width(text))


def plain_lines(blocks: Sequence[Block]) -> list[str]:
    """The blocks as lines of plain text, one empty line between blocks of more than one line."""
    out: list[str] = []
    previous: Block | None = None
    for block in blocks:
        if isinstance(block, Facts) and not any(value for _, value in block.pairs):
            continue
        if previous is not None and not (isinstance(block, Line) and isinstance(previous, Line)):
            out.append("")
        previous = block
        if isinstance(block, Line):
            out.append(visible(block.text))
        elif isinstance(block, Facts):
            pairs = [(name, value) for name, value in block.pairs if value]
            space = max((width(name) for name, _ in pairs), default=0)
            out.extend(f"{_pad(name, space)}  {visible(value)}" for name, value in pairs)
        elif isinstance(block, Bullets):
            out.append(block.title)
            out.extend(f"  - {visible(point)}" for point in block.points)
        else:
            out.extend(_table_lines(block))
    return out


def _table_lines(table: Table) -> list[str]:
    rows = [list(table.columns), *[[visible(cell, lines=False) for cell in row] for row in table.rows]]
    spaces = [max(width(row[index]) for row in rows) for index in range(len(table.columns))]
    lines = ["  ".join(_pad(cell, space) for cell, space in zip(row, spaces, strict=True)).rstrip() for row in rows]
    lines.insert(1, "  ".join("-" * space for space in spaces))
    return ([table.title] if table.title else []) + lines


def wants_colour(stream: IO[str], no_color: bool) -> bool:
    """Colours and rich only on a terminal, and not with --no-color or NO_COLOR (https://no-color.org)."""
    return not no_color and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb" and stream.isatty()


def print_blocks(blocks: Sequence[Block], *, no_color: bool = False, raw: bool = False) -> None:
    """The answer on stdout; ``raw`` lines are for a shell and printed as they are."""
    if raw:
        sys.stdout.write("".join(block.text + "\n" for block in blocks if isinstance(block, Line)))
        sys.stdout.flush()
        return
    if not wants_colour(sys.stdout, no_color):
        sys.stdout.write("".join(line + "\n" for line in plain_lines(blocks)))
        sys.stdout.flush()
        return
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False, soft_wrap=True)
    for line in plain_lines(blocks):
        text = Text(line)
        for word in _GOOD | _BAD:
            style = "green" if word in _GOOD else "bold red"
            text.highlight_regex(rf"(?<![\w/.-]){word}(?![\w/.-])", style=style)
        if line and set(line) <= {"-", " "}:
            text.stylize("dim")
        console.print(text)


def error_lines(error: SmallqError, *, verbose: bool = False) -> list[str]:
    """An error as a person reads it: what failed, what to do, and what the exit status means."""
    return [visible(line, lines=False) for line in _error_lines(error, verbose)]


def _error_lines(error: SmallqError, verbose: bool) -> Iterator[str]:
    for problem in error.problems:
        first, *rest = problem.message.splitlines() or [""]
        yield f"error: {first} [{problem.code}]"
        yield from (f"       {line}" for line in rest)
        if problem.hint:
            yield from (
                f"{'hint:  ' if index == 0 else '       '}{line}"
                for index, line in enumerate(problem.hint.splitlines())
            )
        if verbose:
            yield from (f"       {name}: {value}" for name, value in problem.details.items() if name != "report")
    status = ExitStatus(error.exit_status)
    yield f"exit status {int(status)}: {EXIT_MEANINGS[status]}"
    if verbose:
        cause = error.__cause__ or error.__context__
        while cause is not None:
            yield f"caused by {type(cause).__name__}: {cause}"
            cause = cause.__cause__ or cause.__context__


def print_error(error: SmallqError, *, verbose: bool = False, no_color: bool = False) -> None:
    """The error on stderr."""
    colour = wants_colour(sys.stderr, no_color)
    for line in error_lines(error, verbose=verbose):
        if colour and line.startswith("error:"):
            line = f"\x1b[1;31merror:\x1b[0m{line[6:]}"
        sys.stderr.write(line + "\n")
    sys.stderr.flush()
