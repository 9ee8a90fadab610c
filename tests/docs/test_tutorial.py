"""The tutorial, command by command, from an empty directory: what it prints is what the page says.

In a ``console`` block a line that begins with ``$`` is typed; the lines below are its output. ``...`` in them stands
for anything, also for lines; ``[exit status N]`` at the end for a status that is not 0.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import CHECKOUT

PAGE = CHECKOUT / "docs" / "tutorial" / "first-install.md"


@dataclass
class Typed:
    line: str
    command: str
    expected: str
    status: int


def commands(text: str) -> list[Typed]:
    """Every typed command of the ``console`` blocks, in order."""
    found: list[Typed] = []
    for block in re.findall(r"^```console\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, _, output = part.partition("\n")
            status = re.search(r"^\[exit status (\d+)\]\n?", output, re.MULTILINE)
            if status:
                output = output[: status.start()]
            found.append(Typed(part, command, output.strip("\n"), int(status[1]) if status else 0))
    return found


def matches(expected: str, actual: str) -> bool:
    """Does ``actual`` begin with ``expected``, where ``...`` is anything?"""
    pattern = re.escape(expected).replace(re.escape("..."), ".*?")
    return re.match(pattern, actual, re.DOTALL) is not None


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """A directory with ``smallq-deploy``, as an installed tool has it."""
    place = tmp_path / "bin"
    place.mkdir()
    script = place / "smallq-deploy"
    script.write_text(f'#!/bin/sh\nPYTHONPATH="{CHECKOUT}" exec "{sys.executable}" -m smallq_deploy "$@"\n')
    script.chmod(0o755)
    return place


def test_tutorial(tmp_path: Path, programs: Path) -> None:
    place = tmp_path / "empty"
    place.mkdir()
    typed = commands(PAGE.read_text(encoding="utf-8"))
    assert len(typed) > 12
    script = "".join(f'{item.command}\nprintf "\\n@@%s@@\\n" "$?"\n' for item in typed)
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=place,
        env={**os.environ, "PATH": f"{programs}:{os.environ['PATH']}"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=280,
    )
    parts = re.split(r"\n@@(\d+)@@\n", done.stdout)
    for item, output, status in zip(typed, parts[0::2], parts[1::2], strict=False):
        assert int(status) == item.status, f"$ {item.command}\n{output}\n{done.stderr}"
        assert matches(item.expected, output), f"$ {item.command}\nprinted:\n{output}\nexpected:\n{item.expected}"
    assert len(parts) == 2 * len(typed) + 1
    assert not (place / "ascend").exists()


def test_matching_is_not_blind() -> None:
    assert matches("a ... c\nd", "a bb c\nd and more")
    assert not matches("a ... c\nd", "a bb c\ne")
