"""``detect``: what this machine is, with the source of each fact."""

from __future__ import annotations

from typing import TYPE_CHECKING

from smallq_deploy.cli.options import Call, command, option
from smallq_deploy.cli.render import Answer, Block, Facts, Line, Table
from smallq_deploy.cli.session import Session

if TYPE_CHECKING:
    from smallq_deploy.machine.environment import Environment


@command("detect", example="smallq-deploy detect --json")
@option("--boards", is_flag=True, help="Also ask each card for its board: product, firmware, compatibility.")
def detect(call: Call, boards: bool) -> Answer:
    """Show every CANN toolkit, which one is chosen and why, the NPUs and the driver.

    Every fact names the file or command it comes from, and every place that was looked at says why it was taken or
    passed over. Also works on a machine that has none of them, and then ends with exit status 0: nothing found is an
    answer.
    """
    from smallq_deploy.machine.environment import detect_environment

    session = Session(call, mutating=False)
    found = detect_environment(cann=call.cann, opp=call.opp, thorough=boards)
    for warning in found.warnings:
        call.events.warning(warning)
    blocks: list[Block] = []
    if found.toolkit is not None:
        session.__dict__["discovery"] = found.discovery
        blocks.append(Facts([("chosen", f"{session.toolkit.home} ({found.discovery.why})")]))
    else:
        blocks.append(Line(f"no CANN toolkit: {found.discovery.why}"))
    facts = [(fact.name, fact.value, fact.source) for fact in found.facts]
    if not found.devices.driver:
        facts.append(("driver", "not found", ""))
    if not found.unit:
        facts.append(("compute unit", "unknown: name it with --soc when you build", ""))
    blocks.append(Table(("fact", "value", "source"), facts))
    blocks.extend(_devices(found))
    rows = [
        (
            str(item.path),
            item.origin,
            "yes" if item.taken else "no",
            item.reason,
            _elsewhere(item.real_path, str(item.path)),
        )
        for item in found.discovery.candidates
    ]
    if rows:
        columns = ("place", "looked at because of", "usable", "what", "real path")
        blocks.append(Table(columns, rows, "where CANN was looked for"))
    return Answer(found.to_dict(), blocks)


def _elsewhere(real_path: str, path: str) -> str:
    return real_path if real_path != path else "same"


def _devices(found: Environment) -> list[Block]:
    devices = found.devices
    rows = [
        (
            str(npu.index) if npu.index >= 0 else "hidden",
            str(npu.npu_id) if npu.npu_id >= 0 else "",
            npu.soc or "unknown",
            npu.unit or "unknown",
            npu.health,
            npu.bus_id,
        )
        for npu in (*devices.npus, *devices.hidden)
    ]
    columns = ("device", "NPU", "SoC", "unit", "health", "bus")
    blocks: list[Block] = [Table(columns, rows) if rows else Line("no NPU found")]
    boards = [
        (str(item.npu_id), item.product, item.firmware, item.driver, item.compatibility, item.pci_device)
        for item in devices.boards
    ]
    if boards:
        blocks.append(Table(("NPU", "product", "firmware", "driver", "compatibility", "PCI device"), boards, "boards"))
    return blocks
