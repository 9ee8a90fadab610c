"""npu-smi of the sandbox: the forms that tools and people read."""

from __future__ import annotations

from pathlib import Path

import pytest

from smallq_deploy.sandbox.create import SandboxInfo, create

from .conftest import FOREIGN, call


def test_the_table_has_two_lines_a_device(new: SandboxInfo) -> None:
    done = call([new.npu_smi, "info"])
    assert done.code == 0
    lines = done.out.splitlines()
    assert "npu-smi 25.5.0" in lines[1] and "Version: 25.5.0" in lines[1]
    assert {len(line) for line in lines} == {98}, "every line is as wide as the frame"
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| ")]
    devices = [row for row in cells if len(row) == 3 and row[0].split()[1:] == ["910B3"]]
    assert [row[0].split()[0] for row in devices] == [str(index) for index in range(8)]
    assert {row[1] for row in devices} == {"OK"}
    buses = [row[1] for row in cells if len(row) == 3 and row[1].startswith("0000:")]
    assert buses[0] == "0000:C1:00.0" and len(set(buses)) == 8
    assert "No running processes found in NPU 7" in done.out


def test_lists(new: SandboxInfo) -> None:
    listing = call([new.npu_smi, "info", "-l"]).out
    assert listing.split("\n")[0].split() == ["Total", "Count", ":", "8"]
    rows = [line.split() for line in call([new.npu_smi, "info", "-m"]).out.splitlines()[1:]]
    assert rows[0] == ["0", "0", "0", "Ascend", "910B3"]
    assert rows[1] == ["0", "1", "-", "Mcu"]
    assert len(rows) == 16


def test_board(new: SandboxInfo) -> None:
    pairs = dict(
        (part.strip() for part in line.split(":", 1))
        for line in call([new.npu_smi, "info", "-t", "board", "-i", "3", "-c", "0"]).out.splitlines()
    )
    assert pairs["NPU ID"] == "3"
    assert pairs["Software Version"] == "25.5.0"
    assert pairs["PCI Device ID"] == "0xD802"
    assert pairs["Chip Name"] == "910B3"
    assert "simulated" in pairs["Product Name"]


@pytest.mark.parametrize("card", ["8", "x", ""])
def test_a_card_that_is_not_there(new: SandboxInfo, card: str) -> None:
    done = call([new.npu_smi, "info", "-t", "board", "-i", card])
    assert done.code == 1
    assert "Invalid card id" in done.out


def test_the_environment_decides_how_many(old: SandboxInfo) -> None:
    assert (
        "Total Count                    : 2" in call([old.npu_smi, "info", "-l"], env={"SMALLQ_SIM_DEVICES": "2"}).out
    )
    done = call([old.npu_smi, "info"], env={"SMALLQ_SIM_FAULT": "oom,no_device"})
    assert done.code == 255
    assert "-8005" in done.err


def test_another_chip(tmp_path: Path) -> None:
    small = create(tmp_path / "b4", soc="Ascend910B4", devices=10, arch=FOREIGN)
    table = call([small.npu_smi, "info"]).out
    assert "910B4" in table and "/ 32768" in table
    assert "No running processes found in NPU 9" in table
    open_size = create(tmp_path / "b2c", soc="Ascend910B2C", devices=1, arch=FOREIGN)
    done = call([open_size.npu_smi, "info"])
    assert done.err == "" and "910B2C" in done.out


def test_unknown_words_show_the_usage(new: SandboxInfo) -> None:
    for words in ([], ["set"], ["info", "-z"], ["info", "-t", "power"]):
        done = call([new.npu_smi, *words])
        assert done.code == 1
        assert "Usage: npu-smi info" in done.out
