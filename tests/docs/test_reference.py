"""The reference pages say what the program does: generated parts are fresh, codes complete, links whole."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from smallq_deploy.operate.verifier import REPAIRABLE
from tests.docs.codes import error_codes, finding_codes, smoke_codes
from tests.docs.generate import DOCS, PARTS, pages, rewritten

CODES = DOCS / "reference" / "error-codes.md"


def test_generated_parts_are_fresh() -> None:
    found = pages()
    for page in found:
        text = page.read_text(encoding="utf-8")
        assert text == rewritten(text), f"{page} is stale: run python -m tests.docs.generate"
    together = "".join(page.read_text(encoding="utf-8") for page in found)
    assert all(f"<!-- generated: {name} -->" in together for name in PARTS)


def rows(section: str) -> list[list[str]]:
    text = CODES.read_text(encoding="utf-8")
    if section:
        text = text.partition(f"## {section}")[2].partition("\n## ")[0]
    return [
        [cell.strip() for cell in line.strip("|").split(" | ")] for line in text.splitlines() if line.startswith("| `")
    ]


def codes_of(cell: str) -> list[str]:
    return re.findall(r"`([A-Z0-9_]+)`", cell)


def test_every_error_code_is_documented_with_its_exit_status() -> None:
    documented = {
        code: {int(number) for number in re.findall(r"\d+", row[1])}
        for row in rows("")
        if re.fullmatch(r"[\d, ]+", row[1])
        for code in codes_of(row[0])
    }
    smoke = smoke_codes()
    real = {code: statuses for code, statuses in error_codes().items() if code not in smoke | {"DIFFERENCES"}}
    assert documented == real


def test_every_reason_of_the_smoke_test_is_documented() -> None:
    assert {code for row in rows("The smoke test") for code in codes_of(row[0])} == smoke_codes()


def test_every_finding_is_documented() -> None:
    section = rows("Findings of `verify` and `repair`")
    assert {code for row in section for code in codes_of(row[0])} == finding_codes()
    assert {code for row in section if row[1] == "yes" for code in codes_of(row[0])} == REPAIRABLE


@pytest.mark.parametrize("page", sorted(DOCS.rglob("*.md")), ids=lambda page: str(page.relative_to(DOCS)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
        if not target.startswith(("http://", "https://")):
            assert (page.parent / target).exists(), target
