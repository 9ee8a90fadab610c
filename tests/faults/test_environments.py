"""Row 14: machines that lie, or are others a moment later: a reasoned refusal, and nothing written."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from smallq_deploy.base.errors import SmallqError
from smallq_deploy.base.fsops import FileEntry, tree_digest, tree_entries
from smallq_deploy.machine.environment import Environment, detect_environment
from smallq_deploy.machine.toolkit import Toolkit, discover, require_toolkit
from smallq_deploy.operate.installer import install
from smallq_deploy.operate.planner import InstallOptions, make_plan
from smallq_deploy.package.runfile import read_run
from smallq_deploy.store.generations import list_generations
from smallq_deploy.store.paths import Store
from tests.machines import test_machines as machines
from tests.support import opp, packages
from tests.support.faultrows import FaultRow
from tests.support.opp import PASS, World, release
from tests.support.toolkits import install_info, make_new

# Machines of tests/machines whose files, links, variables or commands say what is not so.
LYING = [
    item
    for item in machines.MACHINES
    if {"problem", "ambiguous", "warnings"} & {k for k, v in item["expect"].items() if v}
]
root = machines.root


@pytest.mark.parametrize("machine", LYING, ids=[item["machine"] for item in LYING])
def test_a_lie_is_refused_or_told(machine: dict[str, Any], root: Path, fault_row: FaultRow) -> None:
    """A command that would change something gets no toolkit, or the lie is among the warnings; nothing is written."""
    found = machines.look(machine, root)
    before = None if machine.get("deny") else tree_digest(root)
    wrong = []
    try:
        toolkit = require_toolkit(found.discovery, mutating=True)
    except SmallqError as error:
        if not (error.hint and error.message and error.exit_status in (2, 3)):
            wrong.append(f"a poor refusal: {error.code} {error.message} ({error.hint})")
    else:
        if machine["expect"].get("problem") or machine["expect"].get("ambiguous"):
            wrong.append(f"not refused: {toolkit.home}")
        told = machines.as_on_the_machine(found.warnings, root)
        if not machine["expect"].get("warnings") or not told:
            wrong.append("nothing is told")
    if before is not None and tree_digest(root) != before:
        wrong.append("looking changed something")
    fault_row("14", 1, [f"{machine['machine']}: {text}" for text in wrong])


def _other(arch: str) -> str:
    return "aarch64" if arch == "x86_64" else "x86_64"


HERE = packages.ARCH
UNFIT: dict[str, tuple[Callable[[Path], Environment], str]] = {
    "too old a CANN": (lambda place: opp.environment(place, version="8.1.RC1"), "CANN_VERSION"),
    "a pre-release": (lambda place: opp.environment(place, version="8.5.0.alpha001"), "CANN_PRERELEASE"),
    "a toolkit of another architecture": (lambda place: opp.environment(place, arch=_other(HERE)), "WRONG_ARCH"),
    "a host of another architecture": (lambda place: opp.environment(place, host_arch=_other(HERE)), "HOST_ARCH"),
    "another chip": (lambda place: opp.environment(place, soc="Ascend310P3", unit="ascend310p"), "WRONG_UNIT"),
    "no toolkit": (lambda place: replace(opp.environment(place), toolkit=None), "NO_TOOLKIT"),
}


def test_machines_that_do_not_fit(tmp_path: Path, fault_row: FaultRow) -> None:
    world = World(tmp_path).make()
    package, before, wrong = world.package(), tree_digest(world.opp), []
    for name, (machine, code) in UNFIT.items():
        plan = make_plan(machine(world.opp), release(), world.store, read_run(package), InstallOptions())
        codes = [problem.code for problem in plan.problems]
        if plan.decision != "refused" or code not in codes or not all(item.hint for item in plan.problems):
            wrong.append(f"{name}: {plan.decision} {codes}")
        try:
            install(plan, smoke=lambda: PASS)
            wrong.append(f"{name}: installed")
        except SmallqError as error:
            if code not in [item.code for item in error.problems]:
                wrong.append(f"{name}: {error.code}")
        if tree_digest(world.opp) != before:
            wrong.append(f"{name}: something was written")
    fault_row("14", len(UNFIT), wrong, what="machines that do not fit")


@dataclass
class Planned:
    """A machine with generation 1 live, and a package that is planned to follow."""

    top: Path
    cann: Path
    home: Path
    store: Store
    package: Path
    other: Path

    @property
    def live(self) -> Path:
        return self.store.live

    def toolkit_now(self) -> Toolkit:
        return require_toolkit(discover(cann=self.cann, environ={}, root=self.top / "root"), mutating=True)

    def swap_toolkit(self, version: str = "9.0.0") -> None:
        self.cann.unlink()
        self.cann.symlink_to(make_new(self.top, version, active=False))

    def say(self, version: str, arch: str = HERE) -> None:
        install_info(self.home, version, arch)

    def replace_by(self, path: Path, target: Path) -> None:
        path.rename(self.top / f"moved-{path.name}")
        path.symlink_to(target)


def planned(top: Path, package: Path, other: Path) -> tuple[Planned, Any]:
    top.mkdir()
    home = make_new(top)
    mine = top / "op.run"
    shutil.copy2(package, mine)
    (top / "opp elsewhere").mkdir()
    machine = Planned(top, top / "cann", home, Store(home / "opp"), mine, other)
    environment = detect_environment(cann=machine.cann, environ={}, root=top / "root")
    options = InstallOptions(no_smoke=True)
    first = make_plan(environment, release(), machine.store, read_run(other), options)
    install(first, smoke=lambda: PASS, toolkit_now=machine.toolkit_now)
    plan = make_plan(environment, release(), machine.store, read_run(mine), options)
    assert plan.decision == "install", plan.reasons
    return machine, plan


def edit_info(machine: Planned) -> None:
    path = machine.home / f"{HERE}-linux" / "ascend_toolkit_install.info"
    path.write_text(path.read_text().replace("B212", "B999"))


def foreign(machine: Planned) -> None:
    shutil.rmtree(machine.live)
    packages.make_vendor_tree(machine.live, ops=(packages.OPERATOR, "VecAddSample"))


def rival(machine: Planned) -> None:
    packages.make_vendor_tree(machine.store.vendors / "rival")
    machine.store.config_ini.write_text("load_priority=rival,customize\n")


def newer(machine: Planned) -> None:
    environment = detect_environment(cann=machine.cann, environ={}, root=machine.top / "root")
    run = read_run(machine.other)
    options = InstallOptions(no_smoke=True, reinstall=True)
    install(make_plan(environment, release(version="0.2.0"), machine.store, run, options), smoke=lambda: PASS)


def by_file(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    path.write_text("")


def by_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


# What happens between plan and install, and the code of the refusal.
MEANWHILE: dict[str, tuple[Callable[[Planned], object], str]] = {
    "another toolkit became active": (lambda it: it.swap_toolkit(), "TOOLKIT_CHANGED"),
    "the same version elsewhere": (lambda it: it.replace_by(it.cann, make_new(it.top / "b")), "TOOLKIT_CHANGED"),
    "the toolkit was upgraded in place": (
        lambda it: shutil.copytree(make_new(it.top / "b", "9.0.0"), it.home, symlinks=True, dirs_exist_ok=True),
        "TOOLKIT_CHANGED",
    ),
    "a patch of the toolkit": (edit_info, "TOOLKIT_CHANGED"),
    "the active link is gone": (lambda it: it.cann.unlink(), "NOT_A_TOOLKIT"),
    "the active link dangles": (lambda it: it.replace_by(it.cann, it.top / "gone"), "NOT_A_TOOLKIT"),
    "the toolkit was removed": (lambda it: shutil.rmtree(it.home), "NOT_A_TOOLKIT"),
    "its opp was removed": (lambda it: shutil.rmtree(it.home / "opp"), "MISSING_OPP"),
    "its opp is a link elsewhere": (
        lambda it: it.replace_by(it.home / "opp", it.top / "opp elsewhere"),
        "MISSING_SET_ENV",
    ),
    "its set_env.sh was removed": (lambda it: (it.home / "set_env.sh").unlink(), "MISSING_SET_ENV"),
    "its record names another version": (lambda it: it.say("8.5.1"), "TOOLKIT_CHANGED"),
    "the package is another one": (lambda it: shutil.copy(it.other, it.package), "PACKAGE_CHANGED"),
    "the package was cut off": (lambda it: it.package.write_bytes(it.package.read_bytes()[:2000]), "PACKAGE_CHANGED"),
    "the package is longer": (lambda it: it.package.write_bytes(it.package.read_bytes() + b"x"), "PACKAGE_CHANGED"),
    "the package is empty": (lambda it: it.package.write_bytes(b""), "PACKAGE_CHANGED"),
    "the package is a link to another": (lambda it: it.replace_by(it.package, it.other), "PACKAGE_CHANGED"),
    "the package is gone": (lambda it: it.package.unlink(), "IO_ERROR"),
    "the package is a directory": (lambda it: by_directory(it.package), "IO_ERROR"),
    "foreign operators came": (foreign, "FOREIGN_OPERATORS"),
    "the live directory is a link": (lambda it: it.replace_by(it.live, it.top), "LIVE_NOT_A_DIRECTORY"),
    "the live directory is a file": (lambda it: by_file(it.live), "LIVE_NOT_A_DIRECTORY"),
    "the vendors directory is a link": (lambda it: it.replace_by(it.store.vendors, it.top), "NOT_PLAIN"),
    "the vendors directory is a file": (lambda it: by_file(it.store.vendors), "NOT_PLAIN"),
    "another vendor comes first": (rival, "SHADOWED"),
    "config.ini is a directory": (lambda it: by_directory(it.store.config_ini), "CONFIG_NOT_A_FILE"),
    "a newer release was installed": (newer, "DOWNGRADE"),
    "the state was damaged": (lambda it: it.store.state.write_text("{"), "STORE_DAMAGED"),
}


def content(machine: Planned) -> list[FileEntry]:
    """What a refused install may not touch: everything but the store's notes (the history tells of an attempt)."""
    notes = ("lock", "history", "state")
    found = [entry for entry in tree_entries(machine.top) if entry.path.rpartition("/")[2] not in notes]
    return [replace(entry, mtime_ns=0) for entry in found]


def test_what_changes_between_plan_and_install(tmp_path: Path, fault_row: FaultRow) -> None:
    package, other = (packages.make_run(tmp_path / f"op-{name}.run", content=name) for name in ("2", "1"))
    wrong = []
    for number, (name, (change, code)) in enumerate(MEANWHILE.items()):
        machine, plan = planned(tmp_path / f"machine{number}", package, other)
        change(machine)
        before = content(machine)
        try:
            install(plan, smoke=lambda: PASS, toolkit_now=machine.toolkit_now)
            wrong.append(f"{name}: installed")
        except SmallqError as error:
            if code not in [item.code for item in error.problems] or not error.hint:
                wrong.append(f"{name}: {error.code} instead of {code}: {error.message}")
        if content(machine) != before:
            wrong.append(f"{name}: something was written")
    fault_row("14", len(MEANWHILE), wrong, what="between plan and install")


def test_an_edit_between_plan_and_install_is_kept(tmp_path: Path) -> None:
    """The plan said that generation 1 is live; the directory as it is now becomes a generation of its own."""
    package, other = (packages.make_run(tmp_path / f"op-{name}.run", content=name) for name in ("2", "1"))
    machine, plan = planned(tmp_path / "machine", package, other)
    (machine.live / "op_api" / "note.h").write_text("theirs")
    install(plan, smoke=lambda: PASS, toolkit_now=machine.toolkit_now)
    kept = [item for item in list_generations(machine.store) if item.origin == "adopted"]
    assert len(kept) == 1
    assert (machine.store.tree_dir(kept[0].number) / "op_api" / "note.h").read_text() == "theirs"


def test_the_command_looks_again(tmp_path: Path) -> None:
    """The active toolkit changes right after the command has made its plan."""
    package, other = (packages.make_run(tmp_path / f"op-{name}.run", content=name) for name in ("2", "1"))
    machine, _ = planned(tmp_path / "machine", package, other)
    make_new(machine.top, "9.0.0", active=False)
    program = (
        "import os, sys\n"
        "from smallq_deploy.operate import planner\n"
        "from smallq_deploy.cli.main import run\n"
        "link, other, make = sys.argv[1], sys.argv[2], planner.make_plan\n"
        "def then(*arguments):\n"
        "    made = make(*arguments)\n"
        "    os.unlink(link); os.symlink(other, link)\n"
        "    return made\n"
        "planner.make_plan = then\n"
        "sys.exit(run(sys.argv[3:]))\n"
    )
    before = tree_digest(machine.store.opp)
    command: list[str | Path] = ["install", machine.package, "--cann", machine.cann, "--no-smoke", "--allow-untested"]
    done = subprocess.run(
        [sys.executable, "-c", program, machine.cann, machine.top / "cann-9.0.0", *command],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 7, done.stderr
    assert "TOOLKIT_CHANGED" in done.stderr
    assert tree_digest(machine.store.opp) == before
    assert list((machine.top / "cann-9.0.0" / "opp" / "vendors").iterdir()) == []
