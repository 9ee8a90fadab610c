"""NPUs of this machine: npu-smi, /dev/davinci*, PCI, and which of them a process may use (cann.md 3)."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from smallq_deploy.base.errors import NoToolkitError
from smallq_deploy.base.versions import compute_unit
from smallq_deploy.machine.driver import Driver, driver_roots, read_driver
from smallq_deploy.machine.facts import read_key_values, read_text
from smallq_deploy.machine.npusmi import (
    Board,
    NpuSmi,
    NpuSmiRow,
    parse_board,
    parse_list,
    parse_map,
    parse_npu_smi,
    soc_of_board,
)
from smallq_deploy.machine.toolkit import DEFAULT_PATH, Toolkit

__all__ = [
    "Devices",
    "Npu",
    "NpuSmiRow",
    "detect_devices",
    "parse_npu_smi",
    "require_device",
    "unit_of",
    "visible_devices",
]

NPU_SMI_TIMEOUT = 20.0  # seconds for all its calls together; a sick driver lets npu-smi hang
VISIBLE = "ASCEND_RT_VISIBLE_DEVICES"
_HUAWEI = "0x19e5"
# PCI device -> compute unit (cann.md 3.3); the marketing name within a unit cannot be told from PCI.
_PCI_UNITS = {
    "0xd100": "ascend310",
    "0xd500": "ascend310p",
    "0xd801": "ascend910",
    "0xd802": "ascend910b",
    "0xd803": "ascend910_93",
    "0xd806": "ascend950",
}
_TABLE = "built-in table"


@dataclass(frozen=True)
class Npu:
    """One chip. ``index`` is the logical id that aclrtSetDevice takes; ``npu_id`` the card number npu-smi prints.

    ``soc`` like Ascend910B3 ('' unknown), ``unit`` like ascend910b ('' unknown) by ``unit_source``, ``health`` OK or
    what npu-smi says. ``logic_id`` counts all devices, also those that ASCEND_RT_VISIBLE_DEVICES hides; an ``index``
    of -1 is such a hidden one.
    """

    index: int
    soc: str
    health: str
    bus_id: str
    npu_id: int = -1
    unit: str = ""
    chip_id: int = -1
    logic_id: int = -1
    unit_source: str = ""

    def to_dict(self) -> dict[str, Any]:
        return {
            "index": self.index,
            "soc": self.soc,
            "unit": self.unit,
            "health": self.health,
            "bus_id": self.bus_id,
            "npu_id": self.npu_id,
            "chip_id": self.chip_id,
            "logic_id": self.logic_id,
            "unit_source": self.unit_source,
        }


@dataclass(frozen=True)
class Devices:
    """All NPUs a process may use, the driver's version ('' unknown), and where each was read.

    ``hidden`` are devices that ASCEND_RT_VISIBLE_DEVICES (``visible``, None when it is not set) takes away; ``boards``
    what the cards say of themselves, where that was asked; ``pci`` (bus id, device id) of processors on the bus.
    """

    npus: tuple[Npu, ...] = ()
    driver: str = ""
    sources: Mapping[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    hidden: tuple[Npu, ...] = ()
    visible: str | None = None
    host_driver: Driver = field(default_factory=Driver)
    boards: tuple[Board, ...] = ()
    pci: tuple[tuple[str, str], ...] = ()

    @property
    def firmware(self) -> str:
        return self.host_driver.firmware

    def to_dict(self) -> dict[str, Any]:
        return {
            "npus": [npu.to_dict() for npu in self.npus],
            "hidden": [npu.to_dict() for npu in self.hidden],
            "visible": self.visible,
            "driver": self.driver,
            "driver_inner_version": self.host_driver.inner_version,
            "firmware": self.firmware,
            "boards": [board.to_dict() for board in self.boards],
            "pci": [{"bus_id": bus, "device": device} for bus, device in self.pci],
            "sources": dict(self.sources),
            "warnings": list(self.warnings),
        }


def require_device(devices: Devices, device: int | str) -> None:
    """Raise NoToolkitError UNKNOWN_DEVICE for a device number that this machine is known not to have."""
    if isinstance(device, int) and devices.npus and device not in [npu.index for npu in devices.npus]:
        last = len(devices.npus) - 1
        limit = f" ({VISIBLE}={devices.visible} leaves so many)" if devices.hidden else ""
        raise NoToolkitError(
            "UNKNOWN_DEVICE",
            f"there is no device {device}: this machine has {'device 0 only' if last == 0 else f'devices 0 to {last}'}"
            + limit,
            hint="see `smallq-deploy detect` for the devices, or leave --device out",
        )


def _unit_and_source(soc: str, toolkit: Toolkit | None) -> tuple[str, str]:
    if toolkit is not None and re.fullmatch(r"\w[\w-]*", soc):
        ini = toolkit.real_home / f"{toolkit.arch}-linux" / "data" / "platform_config" / f"{soc}.ini"
        short = (read_key_values(ini) or {}).get("Short_SoC_version", "")
        if short:
            return short.lower(), str(ini)
    unit = compute_unit(soc) if soc else ""
    return unit, _TABLE if unit else ""


def unit_of(soc: str, toolkit: Toolkit | None) -> str:
    """Compute unit of a SoC: by the toolkit's platform_config ini, else by the built-in table; '' unknown."""
    return _unit_and_source(soc, toolkit)[0]


def unit_named(name: str, toolkit: Toolkit | None) -> str:
    """The compute unit a user means: a unit's own name (ascend910b) as it is, else the unit of a chip (Ascend910B3).

    The case tells them apart: ascend910b is a unit, Ascend910B is a chip of an older one.
    """
    if re.fullmatch(r"ascend[a-z0-9_]{1,40}", name):
        return name
    return unit_of(name, toolkit) or name.lower()


def visible_devices(value: str, count: int) -> tuple[tuple[int, ...], str]:
    """(logical ids that a process sees, what is wrong) for a value of ASCEND_RT_VISIBLE_DEVICES.

    The runtime reads ids between commas up to the first that is no number or no device of the machine; ids that
    repeat or fall make every call that needs a device fail, as does a list that leaves none.
    """
    ids: list[int] = []
    said = f"{VISIBLE}={value!r}"
    cut = ""
    for part in value.split(","):
        if not re.fullmatch(r"[0-9]{1,9}", part) or int(part) >= count:
            cut = f"{said}: it is read up to {part!r} only, which is no device of this machine (0 to {count - 1})"
            break
        if ids and int(part) <= ids[-1]:
            return (), f"{said}: ids must rise and not repeat; with this value no device can be used"
        ids.append(int(part))
    if not ids:
        return (), f"{said}: it names no device of this machine (0 to {count - 1}), so none can be used"
    return tuple(ids), cut


def _npu_smi_places(environ: Mapping[str, str], toolkit: Toolkit | None, root: Path) -> Iterator[Path]:
    """The installation root of the toolkit first: what lies beside it belongs to it."""
    if toolkit is not None:
        for folder in ("driver/tools", "driver/bin"):
            yield toolkit.install_root / folder / "npu-smi"
    if root == Path("/"):
        on_path = shutil.which("npu-smi", path=environ.get("PATH", DEFAULT_PATH))
        if on_path:
            yield Path(on_path)
    for folder in ("usr/local/bin", "usr/local/sbin"):
        yield root / folder / "npu-smi"


def _pci(bus_id: str, root: Path) -> str:
    """PCI device id such as 0xd802 of one of Huawei's processors; '' for anything else."""
    if not bus_id:
        return ""
    folder = root / "sys/bus/pci/devices" / bus_id.lower()
    if (read_text(folder / "vendor") or "").strip() != _HUAWEI:
        return ""
    return (read_text(folder / "device") or "").strip().lower()


def _pci_processors(root: Path) -> tuple[tuple[str, str], ...]:
    """(bus id, device id) of the processors that the PCI table shows."""
    try:
        names = sorted(os.listdir(root / "sys/bus/pci/devices"))
    except OSError:
        return ()
    found = [(name, _pci(name, root)) for name in names]
    return tuple((name, device) for name, device in found if device in _PCI_UNITS)


class _Collector:
    def __init__(self, toolkit: Toolkit | None, root: Path, driver: Driver) -> None:
        self.toolkit = toolkit
        self.root = root
        self.driver = driver
        self.sources: dict[str, str] = {}
        self.warnings: list[str] = []
        self.boards: list[Board] = []
        self.bare_names: dict[str, str] = {}  # name npu-smi's table prints -> SoC of one such chip by its board

    # --- names and units

    def unit_by_pci(self, device: str) -> str:
        """The unit of the 950 was called ascend910_95 before CANN 9."""
        unit = _PCI_UNITS.get(device, "")
        before_9 = self.toolkit is not None and self.toolkit.version.release < (9, 0)
        return "ascend910_95" if unit == "ascend950" and before_9 else unit

    def soc_and_unit(self, row: NpuSmiRow, smi: NpuSmi) -> tuple[str, str, str]:
        """(SoC, unit, source of the unit). A3 prints the bare name Ascend910, which is also the old chip's."""
        soc = row.name if row.name.lower().startswith("ascend") else f"Ascend{row.name}"
        if row.name in ("", "NA", "-"):
            soc = ""
        device = _pci(row.bus_id, self.root)
        by_pci = self.unit_by_pci(device)
        pci_source = f"PCI device {device} at {row.bus_id}"
        if soc in ("", "Ascend910", "Ascend950"):
            soc = self._soc_by_board(row, smi) or soc
        unit, source = ("", "") if soc == "Ascend910" else _unit_and_source(soc, self.toolkit)
        if not unit and by_pci:
            return soc, by_pci, pci_source
        if not unit:
            self.warnings.append(
                f"npu-smi calls the chip at {row.bus_id or 'an unknown bus id'} {row.name or 'nothing'}, which does "
                "not tell its compute unit"
            )
        elif by_pci and by_pci != unit and {unit, by_pci} != {"ascend950", "ascend910_95"}:
            # The literal name 910B (no digit) is the old A1 chip; what is on the bus cannot be a matter of naming.
            self.warnings.append(
                f"the chip at {row.bus_id} is called {row.name} ({unit} by {source}), but its PCI device {device} is "
                f"{by_pci}; PCI counts"
            )
            return soc, by_pci, pci_source
        return soc, unit, source

    def _soc_by_board(self, row: NpuSmiRow, smi: NpuSmi) -> str:
        if row.name not in self.bare_names:
            self.bare_names[row.name] = ""
            for arguments in (("-c", str(max(row.chip_id, 0))), ()):
                done = smi.ask("-t", "board", "-i", str(row.npu_id), *arguments)
                board = parse_board(done.stdout) if done is not None and done.ok else {}
                soc = soc_of_board(board)
                if soc and soc != "Ascend910":
                    self.bare_names[row.name] = soc
                    self.sources["soc"] = smi.source("-t", "board", "-i", str(row.npu_id), *arguments)
                    break
        return self.bare_names[row.name]

    # --- npu-smi

    def npu_smi(self, environ: Mapping[str, str], timeout: float) -> NpuSmi | None:
        for program in _npu_smi_places(environ, self.toolkit, self.root):
            if os.path.isdir(program):
                self.warnings.append(
                    f"{program} is a directory: probably a container mount of a file that the host does not have"
                )
            elif os.path.isfile(program):
                if not os.access(program, os.X_OK):
                    self.warnings.append(f"{program} may not be executed by this user")
                    continue
                return NpuSmi(program, self._environment(environ), timeout)
        return None

    def _environment(self, environ: Mapping[str, str]) -> dict[str, str]:
        install_root = self.toolkit.install_root if self.toolkit else None
        roots = driver_roots(self.root, install_root, self.driver.record)
        libraries = [place / "driver/lib64" / part for place in roots for part in ("", "common", "driver")]
        path = environ.get("LD_LIBRARY_PATH", "").split(":") + [str(item) for item in libraries if item.is_dir()]
        env = {
            **{name: value for name, value in environ.items() if not name.startswith("LD_")},
            "LD_LIBRARY_PATH": ":".join(part for part in path if part),
        }
        env.setdefault("PATH", DEFAULT_PATH)
        return env

    def by_npu_smi(self, smi: NpuSmi, thorough: bool) -> tuple[str, tuple[Npu, ...]]:
        """(driver version, devices in the order in which programs count them)."""
        done = smi.ask()
        assert done is not None  # the first call always has time
        complaint = smi.complaint(done)
        if complaint:
            self.warnings.append(complaint)
        driver, rows = parse_npu_smi(done.stdout)
        source = smi.source()
        if not rows and not smi.hung:
            rows, source = self._rows_without_table(smi)
        if not rows:
            if not complaint:
                self.warnings.append(f"{smi.source()} printed no device")
            return driver, ()
        self.sources["npus"] = source
        rows = self._in_logical_order(rows, smi, thorough)
        npus = []
        for index, row in enumerate(rows):
            soc, unit, unit_source = self.soc_and_unit(row, smi)
            npus.append(Npu(index, soc, row.health, row.bus_id, row.npu_id, unit, row.chip_id, index, unit_source))
            if row.health not in ("OK", "unknown"):
                self.warnings.append(f"NPU {row.npu_id} at {row.bus_id or 'no bus'} reports health {row.health}")
        if thorough:
            self._ask_boards(smi, list(dict.fromkeys(row.npu_id for row in rows)))
        return driver, tuple(npus)

    def _rows_without_table(self, smi: NpuSmi) -> tuple[tuple[NpuSmiRow, ...], str]:
        """The shorter forms can answer where the table does not."""
        done = smi.ask("-m")
        mapped = parse_map(done.stdout) if done is not None else ()
        if mapped:
            rows = (NpuSmiRow(row.npu_id, row.name, "unknown", "", row.chip_id) for row in mapped)
            return tuple(rows), smi.source("-m")
        done = smi.ask("-l")
        _, cards = parse_list(done.stdout) if done is not None else (0, ())
        chips = (NpuSmiRow(card.npu_id, "", "unknown", "", chip) for card in cards for chip in range(card.chips))
        return tuple(chips), smi.source("-l")

    def _in_logical_order(self, rows: tuple[NpuSmiRow, ...], smi: NpuSmi, thorough: bool) -> tuple[NpuSmiRow, ...]:
        """By `info -m`, asked only where the table's order may not be the order in which programs count."""
        plain = [row.npu_id for row in rows] == list(range(len(rows)))
        if plain and not thorough:
            return rows
        done = smi.ask("-m")
        mapped = parse_map(done.stdout) if done is not None and done.ok else ()
        order = {(row.npu_id, row.chip_id): row.logic_id for row in mapped}
        keys = [(row.npu_id, max(row.chip_id, 0)) for row in rows]
        if not all(key in order for key in keys) or len(set(order.values())) != len(order):
            if done is not None and mapped:
                self.warnings.append(f"{smi.source('-m')} does not name every chip of {smi.source()}")
            return rows
        self.sources["order"] = smi.source("-m")
        return tuple(row for _, row in sorted(zip(keys, rows, strict=True), key=lambda item: order[item[0]]))

    def _ask_boards(self, smi: NpuSmi, cards: list[int]) -> None:
        done = smi.ask("-l")
        total, listed = parse_list(done.stdout) if done is not None and done.ok else (-1, ())
        if listed and {card.npu_id for card in listed} != set(cards):
            ids = ", ".join(str(card.npu_id) for card in listed)
            self.warnings.append(f"{smi.source('-l')} counts {total} cards ({ids}), {smi.source()} shows {len(cards)}")
        for card in cards:
            arguments = ("-t", "board", "-i", str(card))
            done = smi.ask(*arguments)
            if done is None:
                self.warnings.append(f"no time was left to ask for the board of NPU {card}")
                return
            complaint = smi.complaint(done, *arguments)
            board = parse_board(done.stdout)
            if complaint or not board:
                self.warnings.append(complaint or f"{smi.source(*arguments)} printed no board")
                continue
            found = Board(
                card,
                board.get("Product Name", ""),
                board.get("Firmware Version", ""),
                board.get("Software Version", ""),
                board.get("Compatibility", ""),
                board.get("PCI Device ID", ""),
                smi.source(*arguments),
            )
            self.boards.append(found)
            if found.compatibility not in ("", "OK"):
                self.warnings.append(f"NPU {card}: driver and firmware do not go together ({found.compatibility})")

    # --- without npu-smi

    def device_files(self) -> tuple[Npu, ...]:
        """What can be known without npu-smi: one device for each /dev/davinciN, its unit by PCI."""
        try:
            names = os.listdir(self.root / "dev")
        except OSError:
            return ()
        numbers = sorted(int(found[1]) for name in names if (found := re.fullmatch(r"davinci([0-9]{1,9})", name)))
        if not numbers:
            return ()
        self.sources["npus"] = "/dev/davinci*"
        units = {self.unit_by_pci(device) for _, device in _pci_processors(self.root)}
        unit = units.pop() if len(units) == 1 else ""
        source = "PCI devices of this host" if unit else ""
        return tuple(
            Npu(index, "", "unknown", "", number, unit, -1, index, source) for index, number in enumerate(numbers)
        )

    def check_against(self, npus: tuple[Npu, ...], pci: tuple[tuple[str, str], ...]) -> None:
        """What should be seen together and is not."""
        if pci and not npus:
            self.warnings.append(
                f"the PCI bus shows {len(pci)} NPU{'s' * (len(pci) > 1)}, but there is no device to use: the driver is "
                "not loaded, or the container was started without /dev/davinci*"
            )
        if npus and not self.driver.version and self.sources.get("npus") == "/dev/davinci*":
            self.warnings.append(
                "there are /dev/davinci* files but no driver: a container needs the host's driver directory as well"
            )

    def driver_version(self, printed: str) -> str:
        if self.driver.version:
            if printed and printed.lower() != self.driver.version.lower():
                place = self.sources["driver"]
                self.warnings.append(
                    f"driver version: {place} says {self.driver.version}, npu-smi says {printed}: was the machine "
                    "restarted after the driver was updated?"
                )
            return self.driver.version
        if printed:
            self.sources["driver"] = self.sources.get("npus", "npu-smi info")
        return printed


def _apply_visible(
    npus: tuple[Npu, ...], value: str | None, warnings: list[str]
) -> tuple[tuple[Npu, ...], tuple[Npu, ...]]:
    """(devices a process sees, numbered as it numbers them; hidden ones)."""
    if value is None or not npus:
        return npus, ()
    ids, odd = visible_devices(value, len(npus))
    if odd:
        warnings.append(odd)
    seen = tuple(replace(npus[logic], index=index) for index, logic in enumerate(ids))
    return seen, tuple(replace(npu, index=-1) for npu in npus if npu.logic_id not in ids)


def detect_devices(
    environ: Mapping[str, str] | None = None,
    toolkit: Toolkit | None = None,
    root: Path = Path("/"),
    *,
    timeout: float = NPU_SMI_TIMEOUT,
    thorough: bool = False,
) -> Devices:
    """NPUs and driver; an empty answer on a machine without. Never raises; what is odd becomes a warning.

    ``root`` stands for / where usual places are searched; ``timeout`` (seconds) bounds npu-smi; ``thorough`` also asks
    each card for its board, which takes a moment for each.
    """
    environ = os.environ if environ is None else environ
    driver = read_driver(root, toolkit.install_root if toolkit else None)
    collector = _Collector(toolkit, root, driver)
    collector.sources.update(driver.sources)
    collector.warnings.extend(driver.warnings)
    smi = collector.npu_smi(environ, timeout)
    printed, npus = collector.by_npu_smi(smi, thorough) if smi is not None else ("", ())
    if not npus:
        npus = collector.device_files()
    pci = _pci_processors(root)
    collector.check_against(npus, pci)
    version = collector.driver_version(printed)
    value = environ.get(VISIBLE)
    seen, hidden = _apply_visible(npus, value, collector.warnings)
    if value is not None:
        collector.sources["visible"] = f"environment variable {VISIBLE}"
    return Devices(
        seen,
        version,
        collector.sources,
        tuple(dict.fromkeys(collector.warnings)),
        hidden,
        value,
        driver,
        tuple(collector.boards),
        pci,
    )
