"""What npu-smi prints, read as data: `info`, `info -m`, `info -l`, `info -t board` (cann.md 3.1, 3.2).

Column widths and columns differ between driver versions: tables are read by their cells and header names.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from smallq_deploy.base.proc import Completed, run

_BUS_ID = re.compile(r"^[0-9A-Fa-f]{4,8}:[0-9A-Fa-f]{2}:[0-9A-Fa-f]{2}\.[0-9A-Fa-f]$")
_MAX_CHIPS = 64  # on one card; more is a misprint
_NO_BUS_ID = ("", "-", "NA", "N/A")


@dataclass(frozen=True)
class NpuSmiRow:
    """One chip of the table that ``npu-smi info`` prints, as printed; -1 and '' for what is not there."""

    npu_id: int
    name: str
    health: str
    bus_id: str
    chip_id: int = -1
    phy_id: int = -1


@dataclass(frozen=True)
class MapRow:
    """One chip of ``npu-smi info -m``; ``logic_id`` is its place in the order in which programs count devices."""

    npu_id: int
    chip_id: int
    logic_id: int
    name: str


@dataclass(frozen=True)
class Card:
    """One card of ``npu-smi info -l``."""

    npu_id: int
    product: str
    chips: int


@dataclass(frozen=True)
class Board:
    """What ``npu-smi info -t board -i ID`` says of a card; '' where it says nothing."""

    npu_id: int
    product: str
    firmware: str
    driver: str
    compatibility: str
    pci_device: str
    source: str

    def to_dict(self) -> dict[str, object]:
        return {
            "npu_id": self.npu_id,
            "product": self.product,
            "firmware": self.firmware,
            "driver": self.driver,
            "compatibility": self.compatibility,
            "pci_device": self.pci_device,
            "source": self.source,
        }


def _is_number(text: str) -> bool:
    return re.fullmatch(r"[0-9]{1,9}", text) is not None


def parse_npu_smi(text: str) -> tuple[str, tuple[NpuSmiRow, ...]]:
    """(driver version, chips) of the output of ``npu-smi info``.

    A line with card number, name and health is followed by one line for each of the card's chips with its bus id
    (NA for a chip that the driver lost). Management processors and the process table below are not read.
    """
    driver = ""
    rows: list[NpuSmiRow] = []
    card: tuple[int, str, str] | None = None
    waiting = False  # the card's first chip has not come yet
    for line in text.splitlines():
        line = line.strip()
        if not line.startswith("|"):
            continue
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if not driver and (found := re.search(r"Version:\s*(\S+)", line)):
            driver = found[1]
            continue
        if any("Process" in cell for cell in cells):
            break
        words = cells[0].split()
        if len(cells) < 3 or not words or not _is_number(words[0]):
            continue
        has_bus = bool(_BUS_ID.match(cells[1]))
        numbers = all(_is_number(word) or word == "-" for word in words)
        if card is not None and (has_bus or (waiting and numbers and cells[1] in _NO_BUS_ID)):
            ids = [int(word) if _is_number(word) else -1 for word in words] + [-1]
            if card[1].lower() != "mcu":
                rows.append(NpuSmiRow(*card, cells[1] if has_bus else "", ids[0], ids[1]))
            waiting = False
        elif len(words) >= 2:
            card = (int(words[0]), " ".join(words[1:]), cells[1] or "unknown")
            waiting = True
    return driver, tuple(rows)


def parse_map(text: str) -> tuple[MapRow, ...]:
    """The chips of ``npu-smi info -m``, by the names in its header; rows without a logic id (MCU) are left out."""
    header: list[str] = []
    rows = []
    for line in text.splitlines():
        cells = [cell.strip(" |") for cell in re.split(r"\s{2,}|\t+|\s*\|\s*", line.strip(" \t|")) if cell.strip(" |")]
        if "Chip ID" in cells and "NPU ID" in cells:
            header = cells
            continue
        words = line.replace("|", " ").split()
        if not header or not words or not _is_number(words[0]):
            continue
        if len(cells) != len(header) and header[-1] == "Chip Name":
            # Narrow columns: everything before the name is one word each.
            ids = len(header) - 1
            cells = [*words[:ids], " ".join(words[ids:])]
        row = dict(zip(header, cells, strict=False))
        numbers = [row.get(name, "") for name in ("NPU ID", "Chip ID", "Chip Logic ID")]
        if all(_is_number(number) for number in numbers):
            npu, chip, logic = (int(number) for number in numbers)
            rows.append(MapRow(npu, chip, logic, row.get("Chip Name", "").replace(" ", "")))
    return tuple(rows)


def _pairs(text: str) -> list[tuple[str, str]]:
    found = []
    for line in text.splitlines():
        name, colon, value = line.partition(":")
        if colon:
            found.append((name.strip(), value.strip()))
    return found


def parse_list(text: str) -> tuple[int, tuple[Card, ...]]:
    """(total count, cards) of ``npu-smi info -l``; the total is -1 when it is not printed."""
    total = -1
    cards: list[dict[str, str]] = []
    for name, value in _pairs(text):
        if name == "Total Count" and _is_number(value):
            total = int(value)
        elif name == "NPU ID":
            cards.append({name: value})
        elif cards:
            cards[-1].setdefault(name, value)
    return total, tuple(
        Card(
            int(card["NPU ID"]),
            card.get("Product Name", ""),
            min(int(count), _MAX_CHIPS) if _is_number(count := card.get("Chip Count", "")) else 1,
        )
        for card in cards
        if _is_number(card["NPU ID"])
    )


def parse_board(text: str) -> dict[str, str]:
    """The ``name : value`` lines of ``npu-smi info -t board``; {} for an error."""
    found: dict[str, str] = {}
    for name, value in _pairs(text):
        if name and value and value not in ("NA", "N/A"):
            found.setdefault(name, value)
    return found if {"NPU ID", "Chip Name", "PCI Device ID", "Product Name"} & set(found) else {}


def soc_of_board(board: Mapping[str, str]) -> str:
    """The SoC's name by ``-t board -i ID -c CHIP``; '' when it is not told.

    A2 prints Chip Type Ascend and Chip Name 910B3, A3 Chip Name Ascend910 and NPU Name 9392: Ascend910_9392.
    """
    chip, npu = board.get("Chip Name", "").replace(" ", ""), board.get("NPU Name", "")
    if not chip:
        return ""
    soc = chip if chip.lower().startswith("ascend") else f"Ascend{chip}"
    return f"{soc}_{npu}" if re.fullmatch(r"\w+", npu) else soc


# What npu-smi prints when it cannot answer, and what that means (cann.md 3.1).
_MEANINGS = (
    (
        "-8005",
        "the driver has not started the device: is it loaded, and was the machine restarted after its installation?",
    ),
    ("-8020", "the device is in use or being reset: wait for the other program, or ask who holds the card"),
    (
        "error while loading shared libraries",
        "the driver's libraries are not here: a container needs the host's driver/lib64",
    ),
    ("Invalid card id", "the card is not given to this job or container"),
    ("Permission denied", "this user may not open the devices: it has to be in the driver's group (HwHiAiUser)"),
    (
        "dcmi module initialize failed",
        "the driver does not answer this user: is it loaded, and may the user open /dev/davinci*?",
    ),
)


def meaning(text: str) -> str:
    """A known complaint of npu-smi in words; '' for anything else."""
    return next((words for mark, words in _MEANINGS if mark.lower() in text.lower()), "")


class NpuSmi:
    """One npu-smi program. Its calls together take at most ``timeout`` seconds; after one that hung none is made."""

    def __init__(self, program: Path, env: Mapping[str, str], timeout: float) -> None:
        self.program = program
        self.hung = False
        self._env = env
        self._end = time.monotonic() + timeout

    def source(self, *arguments: str) -> str:
        """How a person would ask the same."""
        return " ".join([str(self.program), "info", *arguments])

    def ask(self, *arguments: str) -> Completed | None:
        """``npu-smi info ARGUMENTS``; None when there is no time left for it."""
        left = self._end - time.monotonic()
        if self.hung or left <= 0:
            return None
        done = run([self.program, "info", *arguments], env=self._env, cwd="/", timeout=left)
        self.hung = done.timed_out
        return done

    def complaint(self, done: Completed, *arguments: str) -> str:
        """Why an answer is no answer, in words; '' when there is nothing to complain of."""
        said = done.tail(2).replace("\n", " ").strip()
        known = meaning(done.stdout + done.stderr)
        if done.ok and not known:
            return ""
        how = "" if done.ok or (known and not done.timed_out) else f" {done.describe()}"
        words = "; ".join(part for part in (said, known) if part)
        return f"{self.source(*arguments)}{how}" + (f": {words}" if words else "")
