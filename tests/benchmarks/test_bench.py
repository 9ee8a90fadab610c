"""The benchmark's own rules: what counts as missed, what it prints, that its plot is well formed."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest

from tests.benchmarks import plot
from tests.benchmarks.bench_kernel import Row, line, summary
from tests.benchmarks.modelled import Modelled, Shape


def _time(kernel_us: float, roofline_us: float = 100.0) -> Modelled:
    return Modelled(kernel_us + 6, kernel_us, 6, roofline_us, "HBM", 1, 0, 0)


def _row(this: float = 110, scalar: float = 40_000, row: float = 1_500, barred: bool = True) -> Row:
    return Row(Shape(64, 1, 4096), _time(this), _time(scalar), _time(row), _time(row), barred)


def test_bars_met(capsys: pytest.CaptureFixture[str]) -> None:
    assert _row().verdicts() == []
    assert line(_row()).endswith("| met")
    assert summary([_row()], []) == 0
    assert "all bars within reach are met" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("row", "text"),
    [
        (_row(this=116), "1.160 times the roofline, bar 1.15"),
        (_row(scalar=23_000), "198.3 times faster than scalar-dot, bar 200"),
        (_row(row=1_100), "9.5 times faster than row-dot, bar 10"),
    ],
)
def test_a_missed_bar_is_named_and_ends_with_status_1(row: Row, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert line(row).endswith("| MISSED")
    assert summary([row], []) == 1
    assert f"MISSED: 64 heads, 4096 keys: {text}" in capsys.readouterr().out


def test_a_bar_that_no_kernel_could_meet_is_told_apart(capsys: pytest.CaptureFixture[str]) -> None:
    row = _row(row=1_000)  # a kernel at the roofline would take 106 us with its launch
    assert line(row).endswith("| beyond the roofline")
    assert summary([row], []) == 0
    assert "the roofline allows 9.5" in capsys.readouterr().out


def test_rows_without_a_bar_and_other_failures(capsys: pytest.CaptureFixture[str]) -> None:
    assert _row(this=200, barred=False).verdicts() == []
    assert summary([_row()], ["grouped heads: 2.0 reads"]) == 1
    assert "MISSED: grouped heads: 2.0 reads" in capsys.readouterr().out


def test_the_plot_is_one_file_with_every_curve() -> None:
    keys = (128, 1024, 16384)
    lines = [plot.Line(f"q {rows}", {key: 6 + key * rows / 70 for key in keys}) for rows in range(1, 9)]
    page = plot.page("Modelled time", "a note", lines, plot.Line("roof", {key: 6 + key / 80 for key in keys}))
    drawing = ET.fromstring(page[page.index("<svg") : page.index("</svg>") + len("</svg>")])
    curves = [element for element in drawing.iter() if element.tag.endswith("polyline")]
    assert len(curves) == 9
    assert all(len(curve.attrib["points"].split()) == len(keys) for curve in curves)
    labels = {element.text for element in drawing.iter() if element.tag.endswith("text")}
    assert {"q 1", "q 8", "roof", "16384"} <= labels
    assert "http" not in page.replace("http://www.w3.org/2000/svg", "")


def test_labels_keep_clear_of_each_other_and_close_to_their_curves() -> None:
    assert plot.apart([0, 40, 80], 15) == [0, 40, 80]
    assert plot.apart([50, 50, 50], 10) == [40, 50, 60]
    assert plot.apart([0, 51, 49, 100], 10) == [0, 45, 55, 100]
    assert plot.apart([], 10) == []
