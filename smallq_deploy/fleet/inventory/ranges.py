"""Host lists as Slurm writes them: ``npu[001-016,020],login1`` to names, and names to the shortest such text."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Sequence

MAX_HOSTS = 20_000
_PIECE = re.compile(r"([0-9]{1,18})(?:-([0-9]{1,18}))?")
_NUMBER = re.compile(r"([0-9]{1,18})")


def quoted(word: str) -> str:
    """A word of somebody's file for a message, without what follows a '=': that may be a password on a wrong line."""
    start, sign, _ = word.partition("=")
    return f"{start + ('=...' if sign else '')!a:.80}"


def split_list(text: str, separators: str = ",") -> list[str]:
    """The parts between separators that stand outside brackets, without blanks around them; empty ones left out."""
    parts, depth, start = [], 0, 0
    for at, sign in enumerate(text):
        depth += (sign == "[") - (sign == "]" and depth > 0)
        if sign in separators and not depth:
            parts.append(text[start:at])
            start = at + 1
    return [part.strip() for part in (*parts, text[start:]) if part.strip()]


def _numbers(inside: str) -> list[tuple[int, int, int]]:
    """``001-016,020`` as (first, last, width); width 0 is no padding."""
    found = []
    for piece in inside.split(","):
        match = _PIECE.fullmatch(piece.strip())
        if match is None:
            step = "/" in piece or ":" in piece
            raise ValueError(
                f"[{inside:.40}] has steps, which are not read: write the numbers out"
                if step
                else f"[{inside:.40}] is no range such as [001-016,020]"
            )
        low, high = match[1], match[2] or match[1]
        width = len(low) if low.startswith("0") and len(low) > 1 else 0
        if high.startswith("0") and len(high) > 1 and len(high) != len(low):
            raise ValueError(f"[{piece:.40}] has two widths: write [001-016] or [1-16]")
        if int(high) < int(low):
            raise ValueError(f"[{piece:.40}] runs backwards")
        found.append((int(low), int(high), width))
    return found


def expand(text: str, limit: int = MAX_HOSTS) -> list[str]:
    """The names of one word, such as ``rack[1-2]-npu[01-16]``, the last bracket fastest.

    Zero padding is that of the first number. Raises ValueError for a wrong range and for more than ``limit`` names; it
    judges no name.
    """
    if "[" not in text and "]" not in text:
        return [text]
    parts = re.split(r"\[([^\[\]]*)\]", text)
    if any(sign in outside for outside in parts[::2] for sign in "[]"):
        raise ValueError(f"{quoted(text)} has a bracket without its partner")
    numbers = []
    count = 1
    for inside in parts[1::2]:
        numbers.append(_numbers(inside))
        count *= sum(high - low + 1 for low, high, _ in numbers[-1])
        if count > 10**20:
            break
    if count > limit:
        raise ValueError(f"{quoted(text)} stands for {count} names; at most {limit} are read")
    columns: list[Iterable[str]] = []
    for at, part in enumerate(parts):
        if at % 2 == 0:
            columns.append((part,))
            continue
        columns.append(
            [str(n).zfill(width) for low, high, width in numbers[at // 2] for n in range(low, high + 1)],
        )
    return ["".join(row) for row in itertools.product(*columns)]


def expand_list(text: str, limit: int = MAX_HOSTS) -> list[str]:
    """The names of a whole list, ``npu[001-016,020],login1``, in its order. Raises ValueError."""
    names: list[str] = []
    for word in split_list(text):
        names += expand(word, limit - len(names))
    return names


def natural(name: str) -> tuple[tuple[int, int, str], ...]:
    """A key to sort names by: npu2 before npu10."""
    return tuple(
        (0, int(part), part) if part.isdecimal() and part.isascii() else (1, 0, part)
        for part in _NUMBER.split(name)
        if part
    )


def _fold(texts: Sequence[str]) -> str:
    """Different numbers, as their shortest range: ``[001-016,020]``, or the number alone."""
    if len(texts) == 1:
        return texts[0]
    widths = {len(text) for text in texts if text.startswith("0") and len(text) > 1}
    order = sorted(texts, key=lambda text: (len(text) if len(text) in widths else 0, int(text)))
    pieces: list[list[str]] = []
    for text in order:
        if pieces:
            first, last = pieces[-1][0], pieces[-1][-1]
            width = len(first) if first.startswith("0") and len(first) > 1 else 0
            if text == str(int(last) + 1).zfill(width):
                pieces[-1].append(text)
                continue
        pieces.append([text])
    return "[" + ",".join(f"{piece[0]}-{piece[-1]}" if len(piece) > 1 else piece[0] for piece in pieces) + "]"


def compress(names: Iterable[str]) -> str:
    """The names as a short list, each once: ``npu[001-498],npu500``; :func:`expand_list` gives the same set."""
    rows = {tuple(_NUMBER.split(name)) for name in names if name}
    longest = max((len(row) for row in rows), default=0)
    # Numbers stand at the odd places of a row. The last one is folded first; rows that then differ in one earlier
    # number only are folded again, so that racks of equal hosts become one word.
    for at in range(longest - 1 - longest % 2, 0, -2):
        alike: dict[tuple[str, ...], list[str]] = {}
        kept = set()
        for row in rows:
            if at < len(row):
                alike.setdefault((*row[:at], "", *row[at + 1 :]), []).append(row[at])
            else:
                kept.add(row)
        rows = kept | {(*key[:at], _fold(numbers), *key[at + 1 :]) for key, numbers in alike.items()}
    return ",".join(sorted(("".join(row) for row in rows), key=natural))
