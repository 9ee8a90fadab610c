"""NPUs and driver from npu-smi's table, from device files and from version files."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from smallq_deploy.base.errors import NoToolkitError
from smallq_deploy.machine.devices import Devices, Npu, detect_devices, parse_npu_smi, require_device, unit_of
from smallq_deploy.machine.environment import detect_environment
from smallq_deploy.machine.toolkit import Toolkit, discover, require_toolkit
from tests.support.toolkits import make_new, write

HEADER = """\
+------------------------------------------------------------------------------------------------+
| npu-smi 25.5.0                   Version: 25.5.0                                               |
+---------------------------+---------------+----------------------------------------------------+
| NPU   Name                | Health        | Power(W)    Temp(C)           Hugepages-Usage(page)|
| Chip                      | Bus-Id        | AICore(%)   Memory-Usage(MB)  HBM-Usage(MB)        |
+===========================+===============+====================================================+
"""
CHIP = """\
| {npu:<5} {name:<19} | {health:<13} | 94.1        36                0    / 0             |
| 0                         | 0000:{bus}:00.0  | 0           0    / 0          3374 / 65536         |
+===========================+===============+====================================================+
"""
PROCESSES = """\
+---------------------------+---------------+----------------------------------------------------+
| NPU     Chip              | Process id    | Process name             | Process memory(MB)      |
+===========================+===============+====================================================+
| 0       0                 | 4711          | python3                  | 123                     |
+===========================+===============+====================================================+
"""
# Narrower columns and a second chip on each card, as an A3 machine prints it.
A3 = """\
+--------------------------------------------------------------------------+
| npu-smi 26.0.rc1         Version: 26.0.rc1                               |
+------------------+---------+---------------------------------------------+
| NPU Name         | Health  | Power(W) Temp(C) Hugepages-Usage(page)      |
| Chip Phy-ID      | Bus-Id  | AICore(%) Memory-Usage(MB) HBM-Usage(MB)    |
+==================+=========+=============================================+
| 0 Ascend910      | OK      | 160.0 36 0 / 0                              |
| 0 0              | 0000:9D:00.0 | 0 0 / 0 3100 / 65536                   |
+------------------+---------+---------------------------------------------+
| 0 Ascend910      | Warning | - 37 0 / 0                                  |
| 1 1              | 0000:9F:00.0 | 0 0 / 0 2900 / 65536                   |
+==================+=========+=============================================+
"""


def table(*chips: tuple[int, str, str, str]) -> str:
    rows = [CHIP.format(npu=npu, name=name, health=health, bus=bus) for npu, name, health, bus in chips]
    return HEADER + "".join(rows) + PROCESSES


def npu_smi(path: Path, output: str, *, code: int = 0, before: str = "") -> Path:
    write(path, f"#!/bin/bash\n{before}\ncat <<'TABLE'\n{output}TABLE\nexit {code}\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "root"


def test_table_of_an_a2_machine() -> None:
    driver, rows = parse_npu_smi(table((0, "910B3", "OK", "C1"), (1, "910B3", "OK", "C2")))
    assert driver == "25.5.0"
    assert [(row.npu_id, row.name, row.health, row.bus_id) for row in rows] == [
        (0, "910B3", "OK", "0000:C1:00.0"),
        (1, "910B3", "OK", "0000:C2:00.0"),
    ]


def test_table_with_two_chips_a_card_and_other_widths() -> None:
    driver, rows = parse_npu_smi(A3)
    assert driver == "26.0.rc1"
    assert [(row.npu_id, row.name, row.health, row.bus_id) for row in rows] == [
        (0, "Ascend910", "OK", "0000:9D:00.0"),
        (0, "Ascend910", "Warning", "0000:9F:00.0"),
    ]


@pytest.mark.parametrize(
    "text", ["", "dcmi module initialize failed. ret is -8005\n", "|\n||\n| |\n", HEADER, PROCESSES]
)
def test_no_table_is_no_device(text: str) -> None:
    assert parse_npu_smi(text)[1] == ()


def test_nothing(root: Path) -> None:
    found = detect_devices({}, None, root)
    assert found == Devices()


def test_devices_of_npu_smi(root: Path) -> None:
    program = npu_smi(root / "usr/local/bin/npu-smi", table((0, "910B3", "OK", "C1"), (4, "910B3", "Alarm", "C2")))
    write(root / "usr/local/Ascend/driver/version.info", "Version=25.5.0\nascendhal_version=7.35.23\n")
    found = detect_devices({}, None, root)
    assert [(npu.index, npu.npu_id, npu.soc, npu.unit) for npu in found.npus] == [
        (0, 0, "Ascend910B3", "ascend910b"),
        (1, 4, "Ascend910B3", "ascend910b"),
    ]
    assert found.driver == "25.5.0"
    assert found.sources["npus"] == f"{program} info"
    assert found.sources["driver"].endswith("driver/version.info")
    (warning,) = found.warnings
    assert "Alarm" in warning


def test_the_toolkits_own_installation_root_comes_first(root: Path) -> None:
    home = make_new(root / "opt/Ascend")
    npu_smi(root / "usr/local/bin/npu-smi", table((0, "310P3", "OK", "C1")))
    npu_smi(root / "opt/Ascend/driver/tools/npu-smi", table((0, "910B4", "OK", "C1")))
    toolkit = require_toolkit(discover(cann=home, environ={}, root=root), mutating=True)
    assert [npu.soc for npu in detect_devices({}, toolkit, root).npus] == ["Ascend910B4"]
    assert [npu.soc for npu in detect_devices({}, None, root).npus] == ["Ascend310P3"]


def test_npu_smi_that_fails_or_hangs_is_a_warning(root: Path) -> None:
    program = root / "usr/local/bin/npu-smi"
    npu_smi(program, "dcmi module initialize failed. ret is -8005\n", code=255)
    (warning,) = detect_devices({}, None, root).warnings
    assert "-8005" in warning
    npu_smi(program, "", before="sleep 60")
    start = time.monotonic()
    found = detect_devices({}, None, root, timeout=0.5)
    assert time.monotonic() - start < 10
    assert "did not end" in found.warnings[0]


def test_npu_smi_that_a_container_mount_made_a_directory(root: Path) -> None:
    (root / "usr/local/bin/npu-smi").mkdir(parents=True)
    assert "directory" in detect_devices({}, None, root).warnings[0]


def pci(root: Path, bus: str, device: str) -> None:
    write(root / "sys/bus/pci/devices" / bus / "vendor", "0x19e5\n")
    write(root / "sys/bus/pci/devices" / bus / "device", device + "\n")


def test_device_files_without_npu_smi(root: Path) -> None:
    for name in ("davinci0", "davinci2", "davinci_manager", "null"):
        write(root / "dev" / name, "")
    pci(root, "0000:c1:00.0", "0xd802")
    pci(root, "0000:c2:00.0", "0xd802")
    pci(root, "0000:00:00.0", "0x1234")
    found = detect_devices({}, None, root)
    assert [(npu.index, npu.npu_id, npu.soc, npu.unit) for npu in found.npus] == [
        (0, 0, "", "ascend910b"),
        (1, 2, "", "ascend910b"),
    ]
    assert found.sources["npus"] == "/dev/davinci*"


def test_bare_ascend910_is_told_apart_by_pci(root: Path) -> None:
    npu_smi(root / "usr/local/bin/npu-smi", A3)
    found = detect_devices({}, None, root)
    assert [npu.unit for npu in found.npus] == ["", ""]
    assert any("does not tell" in warning for warning in found.warnings)
    pci(root, "0000:9d:00.0", "0xd803")
    pci(root, "0000:9f:00.0", "0xd803")
    assert [npu.unit for npu in detect_devices({}, None, root).npus] == ["ascend910_93"] * 2


def test_driver_in_an_unusual_place(root: Path) -> None:
    write(root / "etc/ascend_install.info", "UserName=HwHiAiUser\nDriver_Install_Path_Param=/opt/hdk\n")
    write(root / "opt/hdk/driver/version.info", "Version=24.1.rc1\n")
    assert detect_devices({}, None, root).driver == "24.1.rc1"


def test_driver_versions_that_disagree(root: Path) -> None:
    npu_smi(root / "usr/local/bin/npu-smi", table((0, "910B3", "OK", "C1")))
    write(root / "usr/local/Ascend/driver/version.info", "Version=24.1.rc1\n")
    found = detect_devices({}, None, root)
    assert found.driver == "24.1.rc1"
    assert any("25.5.0" in warning for warning in found.warnings)


def toolkit_in(root: Path) -> Toolkit:
    make_new(root / "usr/local/Ascend")
    return require_toolkit(discover(environ={}, root=root), mutating=True)


def test_unit_by_the_toolkits_own_table(root: Path) -> None:
    toolkit = toolkit_in(root)
    folder = toolkit.home / f"{toolkit.arch}-linux/data/platform_config"
    write(folder / "Ascend910B3.ini", "[version]\nSoC_version=Ascend910B3\nShort_SoC_version=Ascend910B\n")
    write(folder / "Ascend960.ini", "[version]\nShort_SoC_version=Ascend960\n")
    assert unit_of("Ascend910B3", toolkit) == "ascend910b"
    assert unit_of("Ascend960", toolkit) == "ascend960"
    assert unit_of("Ascend960", None) == ""
    # The literal Ascend910B without a digit is the old chip.
    assert unit_of("Ascend910B", None) == "ascend910"
    assert unit_of("../../../etc/passwd", toolkit) == ""


def test_require_device() -> None:
    two = Devices(tuple(Npu(index, "Ascend910B3", "OK", "") for index in range(2)))
    require_device(two, 1)
    require_device(two, "auto")
    require_device(Devices(), 5)  # nothing is known, so nothing can be refused
    with pytest.raises(NoToolkitError) as caught:
        require_device(two, 2)
    assert caught.value.code == "UNKNOWN_DEVICE"
    assert "0 to 1" in caught.value.message


def test_environment_in_one_object(root: Path) -> None:
    toolkit_in(root)
    npu_smi(root / "usr/local/bin/npu-smi", table((0, "910B3", "OK", "C1"), (1, "910B3", "OK", "C2")))
    environment = detect_environment(environ={}, root=root)
    assert environment.unit == "ascend910b"
    assert environment.warnings == ()
    assert environment.to_dict()["toolkit"]["version"] == "8.5.0"
    npu_smi(root / "usr/local/bin/npu-smi", table((0, "910B3", "OK", "C1"), (1, "310P3", "OK", "C2")))
    mixed = detect_environment(environ={}, root=root)
    assert mixed.unit == ""
    assert any("several compute units" in warning for warning in mixed.warnings)


def test_environment_of_a_machine_with_nothing(root: Path) -> None:
    environment = detect_environment(environ={}, root=root)
    assert environment.toolkit is None
    assert environment.unit == ""
    assert environment.to_dict()["toolkit"] is None
