"""NPUs and driver of this machine: npu-smi, /dev/davinci*, PCI, driver/version.info (cann.md 2.1, 3)."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from smallq_deploy.base.errors import NoToolkitError
from smallq_deploy.base.proc import run
from smallq_deploy.base.versions import compute_unit
from smallq_deploy.machine.facts import read_key_values, read_text
from smallq_deploy.machine.toolkit import DEFAULT_PATH, Toolkit

NPU_SMI_TIMEOUT = 20.0  # seconds; a sick driver lets npu-smi hang
_BUS_ID = re.compile(r"^[0-9A-Fa-f]{4,8}:[0-9A-Fa-f]{2}:[0-9A-Fa-f]{2}\.[0-9A-Fa-f]$")
_HUAWEI = "0x19e5"
# PCI device -> compute unit (cann.md 3.3); the marketing name within a unit cannot be told from PCI.
_PCI_UNITS = {"0xd500": "ascend310p", "0xd801": "ascend910", "0xd802": "ascend910b", "0xd803": "ascend910_93"}


@dataclass(frozen=True)
class Npu:
    """One chip. ``index`` is the logical id that aclrtSetDevice takes; ``npu_id`` the card number npu-smi prints.

    ``soc`` like Ascend910B3 ('' unknown), ``unit`` like ascend910b ('' unknown), ``health`` OK or what npu-smi says.
    """

    index: int
    soc: str
    health: str
    bus_id: str
    npu_id: int = -1
    unit: str = ""

    def to_dict(self) -> dict[str, Any]:
        return {
            "index": self.index,
            "soc": self.soc,
            "unit": self.unit,
            "health": self.health,
            "bus_id": self.bus_id,
            "npu_id": self.npu_id,
        }


@dataclass(frozen=True)
class Devices:
    """All NPUs, the driver's version ('' unknown), and where each was read."""

    npus: tuple[Npu, ...] = ()
    driver: str = ""
    sources: Mapping[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        return {
            "npus": [npu.to_dict() for npu in self.npus],
            "driver": self.driver,
            "sources": dict(self.sources),
            "warnings": list(self.warnings),
        }


def require_device(devices: Devices, device: int | str) -> None:
    """Raise NoToolkitError UNKNOWN_DEVICE for a device number that this machine is known not to have."""
    if isinstance(device, int) and devices.npus and device not in [npu.index for npu in devices.npus]:
        last = len(devices.npus) - 1
        raise NoToolkitError(
            "UNKNOWN_DEVICE",
            f"there is no device {device}: this machine has {'device 0 only' if last == 0 else f'devices 0 to {last}'}",
            hint="see `smallq-deploy detect` for the devices, or leave --device out",
        )


def unit_of(soc: str, toolkit: Toolkit | None) -> str:
    """Compute unit of a SoC: by the toolkit's platform_config ini, else by the built-in table; '' unknown."""
    if toolkit is not None and re.fullmatch(r"\w[\w-]*", soc):
        ini = toolkit.real_home / f"{toolkit.arch}-linux" / "data" / "platform_config" / f"{soc}.ini"
        short = (read_key_values(ini) or {}).get("Short_SoC_version", "")
        if short:
            return short.lower()
    return compute_unit(soc) if soc else ""


@dataclass(frozen=True)
class NpuSmiRow:
    """One chip of the table that ``npu-smi info`` prints, as printed."""

    npu_id: int
    name: str
    health: str
    bus_id: str


def parse_npu_smi(text: str) -> tuple[str, tuple[NpuSmiRow, ...]]:
    """(driver version, chips) of the output of ``npu-smi info``.

    Column widths differ between versions, so rows are read by their '|' cells: a line with card number, name and
    health, then one line for each of the card's chips with its bus id. The process table below is not read.
    """
    driver = ""
    rows: list[NpuSmiRow] = []
    card: tuple[int, str, str] | None = None
    for line in text.splitlines():
        if not line.startswith("|"):
            continue
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if not driver and (found := re.search(r"Version:\s*(\S+)", line)):
            driver = found[1]
            continue
        if any("Process" in cell for cell in cells):
            break
        if len(cells) < 3:
            continue
        words = cells[0].split()
        if not words or not words[0].isdigit():
            continue
        if _BUS_ID.match(cells[1]):
            if card is not None:
                rows.append(NpuSmiRow(card[0], card[1], card[2], cells[1]))
        elif len(words) >= 2:
            card = (int(words[0]), " ".join(words[1:]), cells[1])
    return driver, tuple(rows)


def _npu_smi_places(environ: Mapping[str, str], toolkit: Toolkit | None, root: Path) -> Iterator[Path]:
    """The installation root of the toolkit first: what lies beside it belongs to it."""
    if toolkit is not None:
        for folder in ("driver/tools", "driver/bin"):
            yield toolkit.install_root / folder / "npu-smi"
    on_path = shutil.which("npu-smi", path=environ.get("PATH", DEFAULT_PATH))
    if on_path and root == Path("/"):
        yield Path(on_path)
    for folder in ("usr/local/bin", "usr/local/sbin"):
        yield root / folder / "npu-smi"


def _pci(bus_id: str, root: Path) -> str:
    """PCI device id such as 0xd802 of one of Huawei's processors; '' for anything else."""
    folder = root / "sys/bus/pci/devices" / bus_id.lower()
    if (read_text(folder / "vendor") or "").strip() != _HUAWEI:
        return ""
    return (read_text(folder / "device") or "").strip()


def _pci_processors(root: Path) -> list[str]:
    """Bus ids of the processors that the PCI table shows."""
    try:
        names = sorted(os.listdir(root / "sys/bus/pci/devices"))
    except OSError:
        return []
    return [name for name in names if _pci(name, root) in _PCI_UNITS]


class _Collector:
    def __init__(self, toolkit: Toolkit | None, root: Path) -> None:
        self.toolkit = toolkit
        self.root = root
        self.sources: dict[str, str] = {}
        self.warnings: list[str] = []

    def soc_and_unit(self, name: str, bus_id: str) -> tuple[str, str]:
        """A3 prints the bare name Ascend910, which is also the old chip's: the PCI id tells them apart."""
        soc = name if name.lower().startswith("ascend") else f"Ascend{name}"
        if soc != "Ascend910":
            return soc, unit_of(soc, self.toolkit)
        unit = _PCI_UNITS.get(_pci(bus_id, self.root), "")
        if not unit:
            self.warnings.append(f"npu-smi calls the chip at {bus_id} {name}, which does not tell its compute unit")
        return soc, unit

    def ask_npu_smi(self, environ: Mapping[str, str], timeout: float) -> tuple[str, tuple[Npu, ...]] | None:
        for program in _npu_smi_places(environ, self.toolkit, self.root):
            if os.path.isdir(program):
                self.warnings.append(
                    f"{program} is a directory: probably a container mount of a file that the host does not have"
                )
            elif os.path.isfile(program):
                return self._run_npu_smi(program, environ, timeout)
        return None

    def _run_npu_smi(
        self, program: Path, environ: Mapping[str, str], timeout: float
    ) -> tuple[str, tuple[Npu, ...]] | None:
        roots = [self.root / "usr/local/Ascend", *([self.toolkit.install_root] if self.toolkit else [])]
        libraries = [root / "driver/lib64" / part for root in roots for part in ("", "common", "driver")]
        path = environ.get("LD_LIBRARY_PATH", "").split(":") + [str(item) for item in libraries if item.is_dir()]
        env = {
            **{name: value for name, value in environ.items() if not name.startswith("LD_")},
            "LD_LIBRARY_PATH": ":".join(part for part in path if part),
        }
        env.setdefault("PATH", DEFAULT_PATH)
        done = run([program, "info"], env=env, cwd="/", timeout=timeout)
        if not done.ok:
            said = done.tail(2).replace("\n", " ")
            self.warnings.append(f"{program} info {done.describe()}" + (f": {said}" if said else ""))
            return None
        driver, rows = parse_npu_smi(done.stdout)
        if not rows:
            self.warnings.append(f"{program} info printed no device")
        self.sources["npus"] = f"{program} info"
        npus = []
        for index, row in enumerate(rows):
            soc, unit = self.soc_and_unit(row.name, row.bus_id)
            npus.append(Npu(index, soc, row.health, row.bus_id, row.npu_id, unit))
            if row.health != "OK":
                self.warnings.append(f"NPU {row.npu_id} at {row.bus_id} reports health {row.health}")
        return driver, tuple(npus)

    def device_files(self) -> tuple[Npu, ...]:
        """What can be known without npu-smi: one device for each /dev/davinciN, its unit by PCI."""
        try:
            names = os.listdir(self.root / "dev")
        except OSError:
            return ()
        numbers = sorted(int(found[1]) for name in names if (found := re.fullmatch(r"davinci(\d+)", name)))
        if not numbers:
            return ()
        self.sources["npus"] = "/dev/davinci*"
        buses = _pci_processors(self.root)
        units = {_PCI_UNITS[_pci(bus, self.root)] for bus in buses}
        unit = units.pop() if len(units) == 1 else ""
        return tuple(Npu(index, "", "unknown", "", number, unit) for index, number in enumerate(numbers))

    def driver_version(self, printed: str) -> str:
        installed = (read_key_values(self.root / "etc/ascend_install.info") or {}).get("Driver_Install_Path_Param", "")
        places = [self.toolkit.install_root / "driver/version.info"] if self.toolkit else []
        if installed:
            places.append(self.root / installed.lstrip("/") / "driver/version.info")
        places.append(self.root / "usr/local/Ascend/driver/version.info")
        for place in places:
            version = (read_key_values(place) or {}).get("Version", "")
            if version:
                self.sources["driver"] = str(place)
                if printed and printed.lower() != version.lower():
                    self.warnings.append(f"driver version: {place} says {version}, npu-smi says {printed}")
                return version
        if printed:
            self.sources["driver"] = self.sources["npus"]
        return printed


def detect_devices(
    environ: Mapping[str, str] | None = None,
    toolkit: Toolkit | None = None,
    root: Path = Path("/"),
    *,
    timeout: float = NPU_SMI_TIMEOUT,
) -> Devices:
    """NPUs and driver; an empty answer on a machine without. Never raises; what is odd becomes a warning.

    ``root`` stands for / where usual places are searched; ``timeout`` (seconds) bounds npu-smi.
    """
    environ = os.environ if environ is None else environ
    collector = _Collector(toolkit, root)
    answer = collector.ask_npu_smi(environ, timeout)
    printed, npus = answer if answer is not None else ("", ())
    if not npus:
        npus = collector.device_files()
    driver = collector.driver_version(printed)
    return Devices(npus, driver, collector.sources, tuple(dict.fromkeys(collector.warnings)))
