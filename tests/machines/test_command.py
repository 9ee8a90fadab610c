"""What `detect` prints on a machine of data, and that nothing a program or file can print makes the parsers fail."""

from __future__ import annotations

import copy
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smallq_deploy.machine.devices import visible_devices
from smallq_deploy.machine.facts import read_facts
from smallq_deploy.machine.npusmi import parse_board, parse_list, parse_map, parse_npu_smi
from smallq_deploy.machine.places import shared_file_system
from tests.benchmarks.detect_eight import detect_eight
from tests.cli.support import checked, smallq
from tests.machines import test_machines as cases
from tests.machines.builder import Tree

_MARKS = ("|", " ", "  ", "\t", "\n", ":", "-", "0", "1", "32768", "9" * 5000, "²", "١")
_WORDS = ("NA", "910B3", "OK", "0000:C1:00.0", "Mcu", "Process id", "Version: 25.5.0", "Total Count", "Chip Count")
_HEADER = ("NPU ID", "Chip ID", "Chip Logic ID", "Chip Name")
CELLS = st.sampled_from((*_MARKS, *_WORDS, *_HEADER))
OUTPUT = st.one_of(st.text(max_size=200), st.lists(CELLS, max_size=60).map("".join))


def named(name: str) -> dict[str, Any]:
    return copy.deepcopy(next(item for item in cases.MACHINES if item["machine"] == name))


@pytest.mark.parametrize(
    ("name", "path", "value"),
    [
        ("new-layout", ["chosen"], "/usr/local/Ascend/cann"),
        ("new-layout", ["all_facts", "version"], ["8.5.0", "elsewhere"]),
        ("new-layout", ["candidates", 1, 2], "another reason"),
        ("new-layout", ["candidates", 0, 1], "passed"),
        ("new-layout", ["warnings"], ["a warning that does not come"]),
        ("share-info-of-another-version", ["warnings"], []),
        ("visible-devices", ["devices", 0, 1], 1),
        ("visible-devices", ["hidden"], []),
    ],
)
def test_a_wrong_expectation_is_noticed(name: str, path: list[Any], value: Any, tmp_path: Path) -> None:
    machine = named(name)
    place = machine["expect"]
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    with pytest.raises(AssertionError):
        cases.test_machine(machine, tmp_path.resolve() / "root")


def test_the_command_says_everything_with_its_source(tmp_path: Path) -> None:
    root = tmp_path.resolve()
    tree = Tree(root)
    tree.new("8.5.0", at="/home/Ascend", arch=os.uname().machine)
    tree.new("8.5.0", at="/home/Ascend", name="cann-8.5.0.bak", links=False)
    ran = smallq("detect", "--cann", root / "home/Ascend")
    assert ran.status == 0
    lines = [" ".join(line.split()) for line in ran.stdout.splitlines()]
    home = root / "home/Ascend"
    record = home / f"cann/{os.uname().machine}-linux/ascend_toolkit_install.info"
    assert f"version 8.5.0 {record}" in lines
    assert f"inner version V100R001C25SPC001B212 {record}" in lines
    assert any(line.startswith(f"{home}/cann --cann yes CANN 8.5.0") for line in lines)
    assert any("a copy is used only when --cann names it" in line for line in lines)
    data = checked(smallq("detect", "--boards", "--json", "--cann", root / "home/Ascend"), "detect")
    assert data["toolkit"]["installed_as"].startswith("/home/Ascend/cann-8.5.0/")
    assert all(fact["source"] for fact in data["facts"])


def test_eight_toolkits_side_by_side() -> None:
    measured = detect_eight(repeats=1)
    assert (measured.toolkits, measured.devices) == (8, 8)


@given(OUTPUT)
def test_whatever_npu_smi_prints_is_read(text: str) -> None:
    _, rows = parse_npu_smi(text)
    assert all(row.npu_id >= 0 for row in rows)
    assert all(row.logic_id >= 0 for row in parse_map(text))
    parse_board(text)
    assert all(card.chips >= 0 for card in parse_list(text)[1])


@given(st.text(alphabet="0123456789, -+²١a", max_size=12), st.integers(1, 16))
def test_visible_devices_are_devices(value: str, count: int) -> None:
    ids, odd = visible_devices(value, count)
    assert list(ids) == sorted(set(ids))
    assert all(0 <= item < count for item in ids)
    assert odd or value == ",".join(value.split(","))
    assert bool(ids) or odd
    if not odd:
        assert len(ids) == len(value.split(","))


@pytest.mark.parametrize("content", [b"", b"\0" * 100, b"\xff\xfe=\xff\n=\n==\n", b"version=\n" * 5000, b"[version]\n"])
def test_files_that_are_no_version_files(content: bytes, tmp_path: Path) -> None:
    for name in ("aarch64-linux/ascend_toolkit_install.info", "share/info/runtime/version.info", "version.cfg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    facts = read_facts(tmp_path, "aarch64")
    assert facts.statements == ()
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/mountinfo").write_bytes(content)
    assert shared_file_system(tmp_path / "home", tmp_path) == ""
