"""The table of findings in the emulator's README is the list of findings in its sources."""

from __future__ import annotations

import re

from tests.support.emulator import INCLUDE

# Raise(SIM_FINDING, "CODE", ...), Finding{..., "CODE", ...} and messages that start with "CODE: ".
RAISED = re.compile(r'SIM_(?:FINDING|HANG|BAD_LAUNCH),\s*"([A-Z_]+)"|Finding\{[^}"]*"([A-Z_]+)"|"([A-Z_]{4,}): "')


def test_every_code_is_documented() -> None:
    raised = {
        code for header in INCLUDE.rglob("*.h") for groups in RAISED.findall(header.read_text()) for code in groups
    }
    table = re.findall(r"^\| ([A-Z_]+) \| (?:always|strict) \|", (INCLUDE.parent / "README.md").read_text(), re.M)
    assert raised - {""} == set(table)
    assert len(table) == len(set(table))


def test_codes_made_from_two_pipes_are_documented() -> None:
    assert '"MISSING_SYNC_" + pair' in (INCLUDE / "emu" / "check_order.h").read_text()
    assert "| MISSING_SYNC_a_b | strict |" in (INCLUDE.parent / "README.md").read_text()
