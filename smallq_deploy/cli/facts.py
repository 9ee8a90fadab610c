"""``facts``: everything about this machine that a fleet is compared by."""

from __future__ import annotations

from typing import TYPE_CHECKING

from smallq_deploy.cli.options import Call, command, option
from smallq_deploy.cli.render import Answer, Block, Bullets, Facts
from smallq_deploy.cli.session import Session

if TYPE_CHECKING:
    from smallq_deploy.operate.facts import HostFacts

_UNKNOWN = "unknown"


@command("facts", example="smallq-deploy facts --json")
@option("--verify", "contents", is_flag=True, help="Read every installed file and compare its content.")
def facts(call: Call, contents: bool) -> Answer:
    """Show in one look what this machine is, what is installed on it and whether it is well.

    It is what `fleet check` asks every host. It changes nothing, waits for nobody, and ends with exit status 0 also
    where there is no toolkit or what is installed cannot be read: that is an answer, told as the problem. Without
    --verify installed files are compared by size and time, as `status` does.
    """
    from smallq_deploy.machine.environment import detect_environment
    from smallq_deploy.operate.facts import read_facts

    session = Session(call, mutating=False)
    environment = detect_environment(cann=call.cann, opp=call.opp)
    if environment.toolkit is not None:
        session.__dict__["discovery"] = environment.discovery  # looked up once
        assert session.toolkit is not None  # tells which one, and its warnings
    found = read_facts(environment, session.vendor, contents=contents)
    for warning in found.warnings:
        if warning not in call.events.warnings:
            call.events.warning(warning)
    return Answer(found.to_dict(), _blocks(found))


def _blocks(found: HostFacts) -> list[Block]:
    data = found.to_dict()
    healths = [npu["health"] for npu in data["npus"]]
    well = sum(health == "OK" for health in healths)
    npus = f"{len(healths)} x {data['soc']}, {well} healthy" if healths else "none found"
    cann, opp = data["cann"], data["opp"]
    pairs = [
        ("host", f"{data['host']}, {data['arch']}"),
        ("system", f"{data['os']['name'] or data['os']['id']}, kernel {data['kernel']}"),
        ("NPUs", npus),
        ("driver", data["driver"] or "not found"),
        ("firmware", data["firmware"]),
        ("CANN", f"{cann['version']} ({cann['inner_version'] or 'no inner version'})" if cann else "none found"),
        ("opp", opp["path"] if opp else ""),
        ("shared", f"{opp['shared']}: other hosts may use this directory too" if opp and opp["shared"] else ""),
        ("free", f"{opp['free_bytes'] / 2**30:.1f} GiB" if opp else ""),
    ]
    blocks: list[Block] = [Facts(pairs)]
    if found.installed is not None:
        blocks.append(Facts(_installed_pairs(found)))
    clashes = [
        f"vendor {item.name} also has {', '.join(item.clashes)}" + (" and comes first" if item.first else "")
        for item in (found.installed.vendors if found.installed is not None else ())
        if item.clashes
    ]
    if clashes:
        blocks.append(Bullets("the same operators elsewhere:", clashes))
    if found.problem is not None:
        hint = f" ({found.problem.hint})" if found.problem.hint else ""
        blocks.append(Bullets("problem:", [f"[{found.problem.code}] {found.problem.message}{hint}"]))
    return blocks


def _installed_pairs(found: HostFacts) -> list[tuple[str, str]]:
    data = found.to_dict()
    live, smoke, drift, opened = data["live"], data["smoke"], data["drift"], data["transaction"]
    kinds = ", ".join(f"{name} {count}" for name, count in drift["kinds"].items())
    compared = "contents" if drift["contents"] else "sizes and times"
    known = live["generation"] is not None and live["state"] != "interrupted"
    return [
        ("vendor", data["vendor"]),
        ("state", live["state"]),
        ("generation", str(live["generation"] or "")),
        ("release", live["release"] or live["origin"]),
        ("package", live["package_sha256"][:16]),
        ("smoke", f"{smoke['verdict']}, {smoke['time']}" if smoke else "never" if live["generation"] else ""),
        ("drift", f"{drift['count']} differ: {kinds}" if drift["count"] else f"none, by {compared}" * known),
        ("load_priority", ", ".join(data["load_priority"]) or "no vendor is listed"),
        ("other vendors", ", ".join(item["name"] for item in data["vendors"])),
        ("open", f"a {opened['action']} in phase {opened['phase']}" if opened else ""),
        ("pins", str(data["pins"] or "")),
        ("processes", f"{data['processes']} use it" if data["processes"] else ""),
    ]
