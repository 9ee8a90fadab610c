"""Modelled time over the number of keys as one self-contained HTML page with a hand-written SVG."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 880, 520
LEFT, RIGHT, TOP, BOTTOM = 72, 172, 56, 64
LABEL_GAP = 15.0
# Light to dark as q rows grow; the roofline is dashed and grey.
COLOURS = ("#7fb8e6", "#5aa3da", "#3c8dcb", "#2878b8", "#1f65a0", "#195487", "#13436d", "#0d3253")


@dataclass(frozen=True)
class Line:
    """One curve: a label and time in microseconds by number of keys."""

    label: str
    points: Mapping[int, float]


@dataclass(frozen=True)
class _Scale:
    low: float
    high: float
    start: float
    end: float

    def at(self, value: float) -> float:
        """Position of a value on this logarithmic axis."""
        part = (math.log(value) - math.log(self.low)) / (math.log(self.high) - math.log(self.low))
        return self.start + part * (self.end - self.start)


def _ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 times powers of ten within [low, high]."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    values = [factor * 10.0**power for power in powers for factor in (1, 2, 5)]
    return [value for value in values if low * 0.999 <= value <= high * 1.001]


def _text(x: float, y: float, text: str, anchor: str = "start", extra: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{extra}>{html.escape(text)}</text>'


def _axes(x: _Scale, y: _Scale, keys: Sequence[int]) -> list[str]:
    parts = []
    for value in _ticks(y.low, y.high):
        at = y.at(value)
        parts.append(f'<line class="grid" x1="{x.start}" x2="{x.end}" y1="{at:.1f}" y2="{at:.1f}"/>')
        parts.append(_text(x.start - 8, at + 4, f"{value:g}", "end"))
    for key in keys:
        at = x.at(key)
        parts.append(f'<line class="grid" x1="{at:.1f}" x2="{at:.1f}" y1="{y.start}" y2="{y.end}"/>')
        parts.append(_text(at, y.start + 20, f"{key}", "middle"))
    parts.append(_text((x.start + x.end) / 2, HEIGHT - 14, "keys (kvLen), logarithmic", "middle"))
    middle = (y.start + y.end) / 2
    parts.append(_text(18, middle, "modelled time, µs, logarithmic", "middle", f' transform="rotate(-90 18 {middle})"'))
    return parts


def _curve(line: Line, x: _Scale, y: _Scale, colour: str, dashed: bool) -> list[str]:
    points = sorted(line.points.items())
    path = " ".join(f"{x.at(key):.1f},{y.at(time):.1f}" for key, time in points)
    dash = ' stroke-dasharray="6 4"' if dashed else ""
    parts = [f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"{dash}/>']
    if not dashed:
        for key, time in points:
            note = html.escape(f"{line.label}, {key} keys: {time:.1f} µs (modelled)")
            circle = f'<circle cx="{x.at(key):.1f}" cy="{y.at(time):.1f}" r="3" fill="{colour}">'
            parts.append(f"{circle}<title>{note}</title></circle>")
    return parts


def apart(wanted: Sequence[float], gap: float) -> list[float]:
    """Positions in the order of ``wanted`` (ascending), at least ``gap`` apart, as close to it as that permits.

    Neighbours that would overlap form a block around the middle of what they want (least squares).
    """
    blocks: list[tuple[float, int]] = []  # sum of what the members want, less the gaps before them; members
    for index, value in enumerate(wanted):
        total, count = value - index * gap, 1
        while blocks and blocks[-1][0] / blocks[-1][1] > total / count:
            before, members = blocks.pop()
            total, count = total + before, count + members
        blocks.append((total, count))
    starts = [total / count for total, count in blocks for _ in range(count)]
    return [start + index * gap for index, start in enumerate(starts)]


def _labels(lines: Sequence[tuple[Line, str]], x: _Scale, y: _Scale) -> list[str]:
    """A label for the end of each curve and a thin line to it; labels keep clear of each other."""
    ends = sorted((y.at(line.points[max(line.points)]), line.label, colour) for line, colour in lines)
    parts = []
    for (end, label, colour), at in zip(ends, apart([end for end, _, _ in ends], LABEL_GAP), strict=True):
        ends_at = f'x1="{x.end + 5}" y1="{end:.1f}" x2="{x.end + 22}" y2="{at:.1f}"'
        parts.append(f'<line {ends_at} stroke="{colour}"/>')
        parts.append(_text(x.end + 26, at + 4, label, extra=' font-weight="600"'))
    return parts


def svg(title: str, lines: Sequence[Line], roofline: Line) -> str:
    """The drawing alone."""
    keys = sorted(roofline.points)
    times = [time for line in (*lines, roofline) for time in line.points.values()]
    x = _Scale(keys[0], keys[-1], LEFT, WIDTH - RIGHT)
    y = _Scale(min(times) / 1.2, max(times) * 1.2, HEIGHT - BOTTOM, TOP)
    coloured = [(line, COLOURS[index * len(COLOURS) // len(lines)]) for index, line in enumerate(lines)]
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="{html.escape(title)}" font-family="sans-serif" font-size="12">',
        "<style>.grid{stroke:#ddd;stroke-width:1}text:not([fill]){fill:#333}</style>",
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>',
        _text(LEFT, 28, title, extra=' font-size="15" font-weight="600"'),
        *_axes(x, y, keys),
        *_curve(roofline, x, y, "#777777", True),
    ]
    for line, colour in coloured:
        parts += _curve(line, x, y, colour, False)
    parts += _labels([*coloured, (roofline, "#777777")], x, y)
    return "\n".join([*parts, "</svg>"])


def page(title: str, note: str, lines: Sequence[Line], roofline: Line) -> str:
    """The drawing, what it means, and its numbers as a table."""
    keys = sorted(roofline.points)
    head = "".join(f"<th>{key}</th>" for key in keys)
    rows = "".join(
        f"<tr><th>{html.escape(line.label)}</th>"
        + "".join(f"<td>{line.points[key]:.1f}</td>" for key in keys)
        + "</tr>"
        for line in (*lines, roofline)
    )
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>\n'
        "<style>body{font-family:sans-serif;max-width:60rem;margin:1rem auto;padding:0 1rem}"
        "table{border-collapse:collapse}td,th{padding:.2rem .6rem;text-align:right;border-bottom:1px solid #ddd}"
        "</style>"
        f"</head><body>\n{svg(title, lines, roofline)}\n<p>{html.escape(note)}</p>\n"
        f"<table><caption>Modelled time, µs, by keys</caption><tr><th></th>{head}</tr>{rows}</table>\n"
        "</body></html>\n"
    )
