"""The fleet half: 10,000 fake hosts through the real wave loop, 100 real sshd against Ansible: ``make bench-fleet``.

Prints tables and ends with status 1 if a bar is missed. Clients, sshd and what runs in their sessions share this
host's cores, so wall clocks of both sides hold the servers' work too.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from smallq_deploy.fleet.bundles import NodeBundle, tool_bundle
from smallq_deploy.fleet.node import PLACE
from smallq_deploy.fleet.rollout.ledger import read_ledger
from smallq_deploy.fleet.rollout.waves import Closed, Ended, Kind
from smallq_deploy.package.releases import load_release
from tests.benchmarks.bench_tool import Figure
from tests.benchmarks.fleet_controller import FAILING, HANGING, RUN
from tests.conftest import CHECKOUT
from tests.support import sshd

SECONDS_BAR, MEGABYTES_BAR = 30.0, 300.0
WALL_BAR, CPU_BAR = 4.0, 5.0
KILLS_A_ROLLOUT = 2
FORKS = 50
CONTROLLER = [sys.executable, "-m", "tests.benchmarks.fleet_controller"]


def _start(folder: Path, hosts: int, budget: str) -> subprocess.Popen[str]:
    argv = [*CONTROLLER, "fake", str(folder), str(hosts), budget]
    child = subprocess.Popen(argv, cwd=CHECKOUT, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    if child.stdout.readline() != "go\n":
        raise RuntimeError("the controller did not start")
    return child


def _finish(child: subprocess.Popen[str]) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(child.communicate(timeout=600)[0])
    return answer


def _runs(folder: Path) -> Counter[str]:
    return Counter((folder / "runs").read_text().split()) if (folder / "runs").exists() else Counter()


def _ends(folder: Path) -> tuple[Counter[str], str]:
    """How often each host's change ended, and how the run did, as the ledger says."""
    _, events, _ = read_ledger(folder / RUN / "ledger")
    ends = Counter(event.host for event in events if isinstance(event, Ended) and event.kind is not Kind.PLAN)
    return ends, events[-1].result if isinstance(events[-1], Closed) else ""


def size(work: Path, hosts: int) -> tuple[list[Figure], float]:
    """One rollout whose budget allows the 4 % that fail, and one whose budget does not."""
    bad = sum(number % 100 in (*FAILING, HANGING) for number in range(1, hosts + 1))
    (work / "whole").mkdir()
    answer = _finish(_start(work / "whole", hosts, "6%"))
    ends, result = _ends(work / "whole")
    complete = result == "done" and len(ends) == hosts and max(ends.values()) == 1
    memory = f"controller {answer['controller']:.0f} MB + worker {answer['worker']:.0f} MB"
    total = answer["controller"] + answer["worker"]
    seconds = float(answer["seconds"])
    figures = [
        Figure(f"{hosts} fake hosts, {bad} of them bad", f"{seconds:.1f} s", "30 s", seconds <= SECONDS_BAR),
        Figure("peak memory", memory, "300 MB together", total <= MEGABYTES_BAR),
        Figure("ledger", f"{len(ends)} hosts ended once, {result}", "complete", complete),
    ]
    (work / "budget").mkdir()
    answer = _finish(_start(work / "budget", hosts, "0.5%"))
    ends, result = _ends(work / "budget")
    quarter = hosts // 4  # of the waves 1, 5 %, 25 %, 100 % the third exceeds the budget
    value = f"{answer['result']} after {len(ends)} of {hosts} hosts"
    met = answer["result"] != "done" and len(ends) <= quarter
    return [*figures, Figure("the same with --max-fail 0.5%", value, f"at most {quarter} hosts", met)], seconds


def kills(work: Path, hosts: int, count: int, seconds: float) -> list[Figure]:
    """Controllers killed at random moments, two in each rollout, which is then brought to its end."""
    seed = random.SystemRandom().randrange(2**32)
    chance, most, done, amid = random.Random(seed), 0, 0, 0
    complete = True
    while done < count:
        folder = work / f"killed{done}"
        folder.mkdir()
        for _ in range(min(KILLS_A_ROLLOUT, count - done)):
            child = _start(folder, hosts, "6%")
            before = len(_runs(folder))
            time.sleep(chance.uniform(0, seconds))
            child.kill()
            child.communicate()
            done += 1
            amid += before < len(_runs(folder)) < hosts
        _finish(_start(folder, hosts, "6%"))
        ends, result = _ends(folder)
        complete = complete and result in ("done", "stopped") and max(ends.values()) == 1
        complete = complete and (result == "stopped" or len(ends) == hosts)
        most = max(most, *_runs(folder).values())
    value = f"{done} killed, {amid} amid changes; most runs of a host {most} (seed {seed})"
    return [
        Figure(f"controller killed at random moments, {hosts} hosts", value, "at most 2 runs", complete and most <= 2)
    ]


@dataclass(frozen=True)
class Cost:
    """Of one command line: wall clock, and processor time of it and all its children."""

    wall: float
    cpu: float


def _cost(argv: list[str], env: dict[str, str] | None = None, *, may_fail: bool = False) -> Cost:
    start = time.monotonic()
    with tempfile.TemporaryFile("w+") as output:
        child = subprocess.Popen(argv, cwd=CHECKOUT, stdout=output, stderr=output, env={**os.environ, **(env or {})})
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        wall = time.monotonic() - start
        output.seek(0)
        text = output.read()
    if child.returncode != 0 and not may_fail:
        raise RuntimeError(f"{argv[:4]} ended with {child.returncode}: {text[-2000:]}")
    return Cost(wall, usage.ru_utime + usage.ru_stime)


def _ansible(work: Path, farm: sshd.Farm) -> tuple[list[str], dict[str, str]]:
    """The start of its command line, and its environment: its own defaults but for the places it writes to."""
    lines = [
        f"{host.name} ansible_host={host.address} ansible_port={host.port} ansible_user={host.user} "
        f"ansible_ssh_private_key_file={host.key} ansible_python_interpreter=/usr/bin/python3 "
        f"ansible_ssh_common_args='-o UserKnownHostsFile={farm.known_hosts}'"
        for host in farm.hosts
    ]
    (work / "hosts.ini").write_text("\n".join(lines) + "\n")
    program = shutil.which("ansible", path=str(Path(sys.executable).parent)) or "ansible"
    env = {
        "ANSIBLE_HOME": str(work / "ansible"),
        "ANSIBLE_LOCAL_TEMP": str(work / "ansible" / "tmp"),
        "ANSIBLE_SSH_CONTROL_PATH_DIR": tempfile.mkdtemp(prefix="cp", dir=work),
        "ANSIBLE_SSH_ARGS": "-C -o ControlMaster=auto -o ControlPersist=5s",
    }
    return [program, "all", "-i", str(work / "hosts.ini"), "-f", str(FORKS)], env


def _pair(name: str, ours: Cost, theirs: Cost, hosts: int, bars: bool) -> list[Figure]:
    wall, cpu = theirs.wall / ours.wall, theirs.cpu / ours.cpu
    each = f"{ours.cpu / hosts * 1000:.1f} ms / {theirs.cpu / hosts * 1000:.1f} ms = {cpu:.1f} times"
    return [
        Figure(
            f"{name}, {hosts} hosts, wall: ours / ansible -f {FORKS}",
            f"{ours.wall:.2f} s / {theirs.wall:.2f} s = {wall:.1f} times",
            f"at least {WALL_BAR:.0f} times" if bars else "",
            wall >= WALL_BAR if bars else None,
        ),
        Figure(f"{name}, controller CPU a host", each, f"at least {CPU_BAR:.0f} times", cpu >= CPU_BAR),
    ]


def rivals(work: Path, count: int) -> list[Figure]:
    """The same hosts, the same commands, one after the other: ours, Ansible's."""
    (manifest,) = (CHECKOUT / "manifests" / "releases").glob("*.yaml")
    bundle: NodeBundle = tool_bundle(load_release(manifest))
    figures: list[Figure] = []
    with sshd.loopback(work / "farm", count) as farm:
        listed = work / "hosts.json"
        listed.write_text(json.dumps([host.to_dict() for host in farm.hosts]))
        ansible, env = _ansible(work, farm)
        ours = _cost([*CONTROLLER, "true", str(listed)])
        theirs = _cost([*ansible, "-m", "command", "-a", "/bin/true"], env)
        figures += _pair("/bin/true", ours, theirs, count, bars=True)
        facts = [*CONTROLLER, "facts", str(listed), str(bundle.path)]
        first = _cost(facts)
        size = bundle.path.stat().st_size / 1e6
        figures.append(Figure(f"facts, the bundle of {size:.1f} MB sent first", f"{first.wall:.2f} s", "", None))
        ours = _cost(facts)
        there = f"/usr/bin/python3 $HOME/{PLACE}/{bundle.name} facts --json || true"
        theirs = _cost([*ansible, "-m", "shell", "-a", there], env)
        figures += _pair("facts --json", ours, theirs, count, bars=False)
        time.sleep(6)  # its control masters end by themselves
    return figures


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hosts", type=int, default=10_000)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--real", type=int, default=100)
    options = parser.parse_args()
    print(f"{os.cpu_count()} cores, shared by controllers, workers, sshd and their sessions", flush=True)
    figures: list[Figure] = []
    with tempfile.TemporaryDirectory(prefix="bf-") as place:
        work = Path(place)
        os.environ |= {"XDG_DATA_HOME": str(work / "data"), "XDG_STATE_HOME": str(work / "state")}
        if options.real:
            figures += rivals(work, options.real)
            print("\n".join(figure.line() for figure in figures), flush=True)
        if options.hosts:
            sized, seconds = size(work, options.hosts)
            print("\n".join(figure.line() for figure in sized), flush=True)
            killed = kills(work, options.hosts, options.kills, seconds) if options.kills else []
            print("\n".join(figure.line() for figure in killed), flush=True)
            figures += sized + killed
    return 1 if any(figure.met is False for figure in figures) else 0


if __name__ == "__main__":
    sys.exit(main())
