"""The tables of src_op/docs are what the planner answers, and both languages have the same ones."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support.operator_kernel import OPERATOR, Planner

PAGES = sorted((OPERATOR.parent / "docs").glob("algorithm*.md"))
KEYS = 16384
TILES = ("qTile", "blockK", "stepBlocks", "partRows", "castRows", "qGroup")


def rows(page: Path, marker: str) -> list[list[str]]:
    """Cells of the table behind a comment that begins with ``marker``."""
    text = page.read_text(encoding="utf-8").partition(f"<!-- {marker}")[2]
    lines = text.partition("\n\n")[0].splitlines()[3:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_both_languages_are_there() -> None:
    assert [page.name for page in PAGES] == ["algorithm.md", "algorithm.zh-CN.md"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_tile_table_is_the_planners(planner: Planner, page: Path) -> None:
    table = rows(page, "planner table")
    assert len(table) >= 12
    for sizes, kind, *cells in table:
        head_dim, head_dim_v = (int(size) for size in sizes.split("/"))
        wide = {"fp16": False, "bf16": True}[kind]
        for q_rows, cell in zip((1, 4, 8), cells, strict=True):
            shape = (head_dim, head_dim_v, q_rows, KEYS)
            plan = planner.plan(*shape, wide=wide) or planner.plan(*shape, wide=wide, large=True)
            assert plan is not None, sizes
            expected = "/".join(str(plan.tiles[name]) for name in TILES) + f", {plan.ub_bytes}"
            assert cell == expected, f"{sizes}, {q_rows} rows, {kind}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_buffer_table_is_the_layout(planner: Planner, page: Path) -> None:
    plan = planner.plan(128, 128, 8, KEYS)
    assert plan is not None
    table = rows(page, "planner buffers")
    counts = [[int(number) for number in re.findall(r"\d+", cells[1])] for cells in table]
    found = {cells[0]: numbers[-1] for cells, numbers in zip(table, counts, strict=True)}
    assert found == {name: size for name, size in plan.layout.items() if size}
    assert sum(numbers[0] * numbers[-1] if len(numbers) > 1 else numbers[0] for numbers in counts) == plan.ub_bytes
