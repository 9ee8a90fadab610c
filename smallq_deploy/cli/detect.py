"""``detect``: what this machine is, with the source of each fact."""

from __future__ import annotations

from smallq_deploy.cli.options import Call, command
from smallq_deploy.cli.render import Answer, Block, Facts, Line, Table
from smallq_deploy.cli.session import Session


@command("detect", example="smallq-deploy detect --json")
def detect(call: Call) -> Answer:
    """Show every CANN toolkit, which one is chosen and why, the NPUs and the driver.

    Also works on a machine that has none of them, and then ends with exit status 0: nothing found is an answer.
    """
    from smallq_deploy.machine.environment import detect_environment

    session = Session(call, mutating=False)
    found = detect_environment(cann=call.cann, opp=call.opp)
    for warning in found.warnings:
        call.events.warning(warning)
    blocks: list[Block] = []
    if found.toolkit is not None:
        session.__dict__["discovery"] = found.discovery
        toolkit = session.toolkit
        blocks.append(
            Facts(
                [
                    ("chosen", f"{toolkit.home} ({found.discovery.why})"),
                    ("version", f"{toolkit.version}  (from {toolkit.sources.get('version', '?')})"),
                    ("inner version", toolkit.inner_version),
                    ("remark", toolkit.remark),
                    ("architecture", toolkit.arch + (f", host {found.host_arch}" * (found.host_arch != toolkit.arch))),
                    ("opp", str(toolkit.opp)),
                    ("set_env.sh", str(toolkit.set_env)),
                    ("compute unit", found.unit or "unknown: name it with --soc when you build"),
                    ("driver", found.devices.driver or "not found"),
                ]
            )
        )
    else:
        blocks.append(Line(f"no CANN toolkit: {found.discovery.why}"))
        blocks.append(Facts([("host", found.host_arch), ("driver", found.devices.driver or "not found")]))
    npus = [(str(npu.index), npu.soc, npu.health, npu.bus_id) for npu in found.devices.npus]
    blocks.append(Table(("NPU", "SoC", "health", "bus"), npus) if npus else Line("no NPU found"))
    rows = [
        (str(item.path), item.origin, "yes" if item.taken else "no", item.reason) for item in found.discovery.candidates
    ]
    if rows:
        blocks.append(Table(("place", "looked at because of", "usable", "what"), rows, "where CANN was looked for"))
    return Answer(found.to_dict(), blocks)
