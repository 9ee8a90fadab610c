"""How fast installs, rollbacks and verifications are, each against what people type today: ``make bench``.

Every figure is wall clock of this host, of whole commands as a user starts them, medians of alternating runs in one
process; the goals are ratios of the same run. Prints a table and ends with status 1 where a goal is missed. Each
command runs once before it is timed, so that modules are compiled and packages cached, as they are from a user's
second command on. Before each timed run everything is written out (sync), so that nobody pays for what another left in
the page cache. The payload is half random and half zeros. docs/reference/benchmarks.md explains the rows.
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.support import packages
from tests.support.toolkits import make_new

SMALL, LARGE = 1, 300  # MB of payload
INSTALL_RATIO, INSTALL_SECONDS, ROLLBACK_SECONDS, VERIFY_RATIO, MEMORY = 1.6, 0.5, 0.2, 1.2, 10.0
_FILES = 20
_TOP = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Line:
    """One row; ``met`` None: no goal."""

    name: str
    value: str
    goal: str = ""
    met: bool | None = None

    def text(self) -> str:
        verdict = {True: "met", False: "MISSED", None: ""}[self.met]
        return f"{self.name:<44} {self.value:<52} {self.goal:<18} {verdict}"


def at_most(name: str, value: float, goal: float, text: str, goal_text: str) -> Line:
    """A row whose goal is an upper bound."""
    return Line(name, text, goal_text, value <= goal)


class Machine:
    """A toolkit of files alone, packages of one size, and what rivals do with them."""

    def __init__(self, place: Path, megabytes: int) -> None:
        place.mkdir()
        self.place, self.megabytes = place, megabytes
        home = make_new(place / "Ascend")
        self.vendors = (home / "opp" / "vendors").resolve()
        self.vendors.mkdir(exist_ok=True)
        self.live = self.vendors / "customize"
        self.packages = [self._package(content) for content in ("1", "2")]
        # No PYTHON* of the caller: PYTHONDONTWRITEBYTECODE would have every command compile its modules again.
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "SMALLQ_"))}
        compiled = str(place.parent / "bytecode")
        self.env = {**kept, "HOME": str(place), "PYTHONPATH": str(_TOP), "PYTHONPYCACHEPREFIX": compiled}

    def _package(self, content: str) -> Path:
        files = packages.vendor_files(content=content)
        chance = random.Random(f"{content}{self.megabytes}")
        each = self.megabytes * 1_000_000 // _FILES
        for number in range(_FILES):
            name = f"op_impl/ai_core/tbe/kernel/{packages.UNIT}/smallq_flash_attention/Big_{number}.o"
            files[name] = chance.randbytes(each // 2) + bytes(each // 2)
        members = packages.package_members({"customize": files})
        return packages.write_run(self.place / f"op-{content}.run", packages.pack(members))

    def command(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "smallq_deploy", *words, "--cann", str(self.place / "Ascend"), "--json"]

    def install(self, number: int = 0) -> list[str]:
        return self.command("install", str(self.packages[number]), "--no-smoke")

    def shell_lines(self, *, durable: bool) -> list[str]:
        """The three lines of the usual README; ``durable``: and what makes them survive a power cut."""
        live = self.live
        lines = f"bash {self.packages[0]} --quiet --install-path={live} && cp -rf {live}/vendors/customize/. {live}/"
        return ["bash", "-c", lines + f" && rm -rf {live}/vendors" + (f" && sync -f {live}" if durable else "")]

    def empty(self) -> None:
        for path in self.vendors.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    def run(self, argv: Sequence[str], *, ends: Sequence[int] = (0,)) -> float:
        """Seconds of a command."""
        os.sync()
        begun = time.perf_counter()
        done = subprocess.run(argv, env=self.env, capture_output=True, text=True)
        seconds = time.perf_counter() - begun
        if done.returncode not in ends:
            raise RuntimeError(f"{' '.join(argv)} ended {done.returncode}: {done.stdout[-800:]} {done.stderr[-400:]}")
        return seconds

    def memory(self, argv: Sequence[str]) -> float:
        """Peak MB of a command, its children included."""
        code = "import resource, subprocess, sys; subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, check=True); "
        code += "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
        done = subprocess.run([sys.executable, "-c", code, *argv], env=self.env, capture_output=True, text=True)
        if done.returncode != 0:
            raise RuntimeError(done.stderr[-800:])
        return int(done.stdout) * 1024 / 1e6


def medians(repeats: int, *runs: Callable[[], float]) -> list[float]:
    """The median of each, run in turn, the order reversed every other time; each runs once before that counts."""
    times: list[list[float]] = [[] for _ in runs]
    for run in runs:
        run()
    for number in range(repeats):
        order = list(enumerate(runs))
        for place, run in reversed(order) if number % 2 else order:
            times[place].append(run())
    return [statistics.median(found) for found in times]


def installs(machine: Machine, repeats: int) -> list[Line]:
    """An install from nothing against the shell lines, and against a plain copy of the tree that is made durable."""
    source = machine.place / "tree"
    machine.empty()
    machine.run(machine.install())
    shutil.copytree(machine.live, source, symlinks=True)

    def timed(argv: Sequence[str]) -> Callable[[], float]:
        def once() -> float:
            machine.empty()
            return machine.run(argv)

        return once

    copy = ["bash", "-c", f"cp -a {source} {machine.live} && sync -f {machine.live}"]
    ours, lines, durable, plain = medians(
        repeats,
        timed(machine.install()),
        timed(machine.shell_lines(durable=False)),
        timed(machine.shell_lines(durable=True)),
        timed(copy),
    )
    size = f"{machine.megabytes} MB"
    name = f"install {size} / shell lines"
    value = f"{ours:.2f} s / {lines:.2f} s = {ours / lines:.2f} times"
    first = (
        at_most(name, ours / lines, INSTALL_RATIO, value, f"<= {INSTALL_RATIO} times")
        if machine.megabytes == LARGE
        else at_most(name, ours, INSTALL_SECONDS, value, f"<= {INSTALL_SECONDS} s")
    )
    return [
        first,
        Line(
            f"install {size} / shell lines and sync -f", f"{ours:.2f} s / {durable:.2f} s = {ours / durable:.2f} times"
        ),
        Line(f"install {size} / cp -a and sync -f", f"{ours:.2f} s / {plain:.2f} s = {ours / plain:.2f} times"),
    ]


def rollbacks(machine: Machine, repeats: int) -> list[Line]:
    machine.empty()
    machine.run(machine.install(0))
    machine.run(machine.install(1))
    quick, checked = medians(
        repeats,
        lambda: machine.run(machine.command("rollback", "--no-smoke", "--no-verify")),
        lambda: machine.run(machine.command("rollback", "--no-smoke")),
    )
    size = f"{machine.megabytes} MB"
    return [
        at_most(
            f"rollback {size} --no-smoke --no-verify",
            quick,
            ROLLBACK_SECONDS,
            f"{quick:.3f} s",
            f"<= {ROLLBACK_SECONDS} s",
        ),
        Line(f"rollback {size} --no-smoke (contents compared)", f"{checked:.3f} s"),
    ]


def verifies(machine: Machine, repeats: int) -> list[Line]:
    machine.empty()
    machine.run(machine.install())
    files = sorted(str(path) for path in machine.live.rglob("*") if path.is_file() and not path.is_symlink())
    sums = machine.place / "sums"
    sums.write_text(subprocess.run(["sha256sum", *files], capture_output=True, text=True, check=True).stdout)
    ours, coreutils, openssl = medians(
        repeats,
        lambda: machine.run(machine.command("verify")),
        lambda: machine.run(["sha256sum", "-c", "--quiet", str(sums)]),
        lambda: machine.run(["openssl", "dgst", "-sha256", *files]),
    )
    best = min(coreutils, openssl)
    value = f"{ours:.2f} s / sha256sum -c {coreutils:.2f}, openssl {openssl:.2f} s"
    name = f"verify {machine.megabytes} MB / the faster"
    if machine.megabytes != LARGE:
        return [Line(name, value)]
    return [at_most(name, ours / best, VERIFY_RATIO, f"{value} = {ours / best:.2f} times", f"<= {VERIFY_RATIO} times")]


def starts(machine: Machine, repeats: int) -> list[Line]:
    """Commands that read little, against the interpreter alone."""
    bare, version, status, plan = medians(
        repeats,
        lambda: machine.run([sys.executable, "-c", "pass"]),
        lambda: machine.run([sys.executable, "-m", "smallq_deploy", "--version"]),
        lambda: machine.run(machine.command("status")),
        lambda: machine.run(machine.command("plan", str(machine.packages[0]))),
    )
    named = (("--version", version), ("status", status), (f"plan, package of {machine.megabytes} MB", plan))
    return [
        Line(f"{name} / python -c pass", f"{seconds * 1000:.0f} ms / {bare * 1000:.0f} ms = {seconds / bare:.1f} times")
        for name, seconds in named
    ]


def memories(small: Machine, large: Machine) -> list[Line]:
    lines = []
    for name, words in (("install", None), ("verify", ("verify",))):
        found = []
        for machine in (small, large):
            if words is None:
                machine.empty()
            found.append(machine.memory(machine.install() if words is None else machine.command(*words)))
        value = f"{found[1]:.0f} MB at {LARGE} MB, {found[0]:.0f} MB at {SMALL} MB"
        lines.append(at_most(f"peak memory of {name}", found[1] - found[0], MEMORY, value, f"<= {MEMORY:.0f} MB apart"))
    return lines


def durable_writes(machine: Machine) -> list[Line]:
    """How often our commands wait for the disk; the shell lines never do."""
    if shutil.which("strace") is None:
        return []
    lines = []
    for name, argv in (("install", machine.install(0)), ("rollback", machine.command("rollback", "--no-smoke"))):
        if name == "install":
            machine.empty()
            machine.run(machine.install(1))
        trace = machine.place / "trace"
        machine.run(["strace", "-f", "-qq", "-e", "trace=fsync,fdatasync", "-o", str(trace), *argv])
        calls = sum(" resumed>" not in line for line in trace.read_text().splitlines() if "sync(" in line)
        lines.append(Line(f"{name} {machine.megabytes} MB waits for the disk", f"{calls} times (fsync)"))
    return lines


def report(lines: Sequence[Line]) -> int:
    """Print the rows; 1 when a goal is missed."""
    print("\n".join(line.text().rstrip() for line in lines))
    missed = [line.name for line in lines if line.met is False]
    print(f"{len(missed)} goals missed" + (f": {'; '.join(missed)}" if missed else ""))
    return 1 if missed else 0


def main() -> int:
    parser = argparse.ArgumentParser(description="The deployer's own speed against what people type today.")
    parser.add_argument("--repeats", type=int, default=7, help="runs of each; half of them for changes of 300 MB")
    parser.add_argument("--place", type=Path, help="work below this directory (default: the system's temporary one)")
    arguments = parser.parse_args()
    few = max(3, arguments.repeats // 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    busy = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="smallq-bench-", dir=arguments.place) as work:
        small, large = Machine(Path(work, "small"), SMALL), Machine(Path(work, "large"), LARGE)
        lines = [
            *installs(small, arguments.repeats),
            *installs(large, few),
            *rollbacks(small, arguments.repeats),
            *rollbacks(large, few),
            *verifies(small, arguments.repeats),
            *verifies(large, arguments.repeats),
            *starts(small, arguments.repeats * 2 + 1),
            *memories(small, large),
            *durable_writes(small),
        ]
    print(f"{os.cpu_count()} processors, medians of {arguments.repeats} ({few} at {LARGE} MB), wall clock of this host")
    threads = min(4, os.cpu_count() or 1)
    print(f"verify hashes in {threads} threads from 16 MiB on; sha256sum and openssl are one process each")
    if busy > 0.5:
        print(f"other programs were running (load {busy:.1f} before the start): repeat this on a quiet machine")
    return report(lines)


if __name__ == "__main__":
    sys.exit(main())
