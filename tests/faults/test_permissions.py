"""Places that cannot be changed (row 7): read-only mounts, immutable files, other owners, closed directories.

Every place is met by a real child of its own: as root below private mounts, as an ordinary user, or as a root whom the
file system does not know (a user namespace, as with root_squash). The message names the path and what to do about it,
and nothing has changed; with the cause gone the same command works.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from smallq_deploy.base.errors import SmallqError, access_error
from smallq_deploy.operate.mover import rollback, uninstall
from tests.support import packages
from tests.support.faultrows import FULL, FaultRow
from tests.support.hostile import differences, fingerprint
from tests.support.killer import Victim, why_not
from tests.support.mounts import in_child_as, mount, with_own_mounts
from tests.support.opp import PASS, World
from tests.support.world import live_digest, others_digest, settled_problems, world_problems

NOBODY = 65534
_CLONE_NEWUSER, _PR_SET_DUMPABLE = 0x10000000, 4


@dataclass(frozen=True)
class Case:
    """``close(world)`` shuts a place and returns its path; ``status``: how an install ends, 0 when it must work."""

    close: Callable[[World], Path]
    status: int = 14
    command: str = "install"
    code: str = ""


def run(world: World, command: str) -> None:
    if command == "install":
        world.install(world.root / "op-3.run")
    elif command == "rollback":
        rollback(world.store, operator=packages.OPERATOR, smoke=lambda: PASS)
    else:
        uninstall(world.store, purge=True)


def tried(world: World, name: str, case: Case) -> list[str]:
    """The violations of one closed place (not opened again here)."""
    before = fingerprint(world.store.vendors) if os.geteuid() == 0 else {}
    path = case.close(world)
    closed = fingerprint(world.store.vendors) if before else {}
    try:
        run(world, case.command)
    except SmallqError as error:
        bad = []
        if int(error.exit_status) != case.status or (case.code and error.code != case.code):
            bad.append(f"{name}: {error.code}, exit status {int(error.exit_status)}: {error.message}")
        if str(path) not in error.message:
            bad.append(f"{name}: the message does not name {path}: {error.message}")
        if not error.hint:
            bad.append(f"{name}: no hint")
        if closed and (changed := differences(closed, fingerprint(world.store.vendors))):
            bad.append(f"{name}: refused, but {changed[0]} was changed")
        return bad
    return [] if case.status == 0 else [f"{name}: it went through"]


def machine(root: Path, *, owner: int = 0) -> World:
    """Two generations installed, a third package beside; everything belongs to ``owner``."""
    world = World(root.resolve()).make()
    for content in "12":
        world.install(world.package(content))
    world.package("3")
    subprocess.run(["chown", "-R", f"{owner}:{owner}", str(root)], check=True)
    return world


def chosen(cases: dict[str, Case]) -> dict[str, Case]:
    """All of them in a full run, else every third."""
    return cases if FULL else dict(list(cases.items())[::3])


# --- root, mounts ---


def bound(pick: Callable[[World], Path]) -> Callable[[World], Path]:
    def close(world: World) -> Path:
        place = pick(world)
        mount("--bind", place, place)
        mount("-o", "remount,bind,ro", place)
        return place

    return close


MOUNTS = {
    "vendors is read-only": Case(bound(lambda w: w.store.vendors), code="READ_ONLY"),
    "opp is read-only": Case(bound(lambda w: w.opp), code="READ_ONLY"),
    "the store is read-only": Case(bound(lambda w: w.store.root), code="READ_ONLY"),
    "generations is read-only": Case(bound(lambda w: w.store.generations), code="READ_ONLY"),
    "staging is read-only": Case(bound(lambda w: w.store.root / "staging"), code="READ_ONLY"),
    "live is a read-only mount": Case(bound(lambda w: w.live), 14),
    "the current generation is read-only": Case(bound(lambda w: w.store.generation_dir(3)), code="READ_ONLY"),
    "uninstall, vendors read-only": Case(bound(lambda w: w.store.vendors), command="uninstall", code="READ_ONLY"),
    "rollback, vendors read-only": Case(bound(lambda w: w.store.vendors), command="rollback", code="READ_ONLY"),
}


def test_read_only_mounts(memory: Path, fault_row: FaultRow) -> None:
    fault_row.need("7")
    violations = []
    for number, (name, case) in enumerate(chosen(MOUNTS).items()):
        world = machine(memory / str(number))
        old, others = live_digest(world.store), others_digest(world.store)
        violations += with_own_mounts(lambda world=world, name=name, case=case: tried(world, name, case))  # type: ignore[misc]
        violations += [f"{name}: {text}" for text in world_problems(world.store, (old,), others)]
        run(world, case.command)  # the mounts are gone with the child
    fault_row("7", len(chosen(MOUNTS)), violations, what="read-only mounts")


def test_a_config_ini_that_is_mounted_from_elsewhere(memory: Path, fault_row: FaultRow) -> None:
    """As containers do; it cannot be replaced by a rename, so the switch is undone."""
    fault_row.need("7")
    world = machine(memory / "w")
    world.store.config_ini.write_text("load_priority=other\n")  # so that it must be written
    old, others = live_digest(world.store), others_digest(world.store)

    def body() -> list[str]:
        mount("--bind", world.store.config_ini, world.store.config_ini)
        try:
            run(world, "install")
        except SmallqError as error:
            good = error.code == "IO_ERROR" and "config.ini" in error.message and "findmnt" in error.hint
            bad = [] if good else [f"{error.code} {error.message} ({error.hint})"]
            return bad + list(settled_problems(world.store, (old,), others))
        return ["it went through"]

    violations = [text for text in with_own_mounts(body) if "config.ini does not name" not in text]
    fault_row("7", 1, violations, what="config.ini is a mount")


# --- root, chattr ---


def chattr(letter: str, pick: Callable[[World], Path]) -> Callable[[World], Path]:
    def close(world: World) -> Path:
        place = pick(world)
        subprocess.run(["chattr", f"+{letter}", str(place)], check=True, capture_output=True)
        return place

    return close


def _frozen_package(world: World) -> Path:
    """It is met, and named, where the purge has put its generation aside."""
    chattr("i", lambda w: w.store.package_file(2))(world)
    return world.store.root / "staging" / "purged-2" / "package.run"


FROZEN = {
    "vendors +i": Case(chattr("i", lambda w: w.store.vendors)),
    "vendors +a": Case(chattr("a", lambda w: w.store.vendors)),
    "live +i": Case(chattr("i", lambda w: w.live)),
    "store +i": Case(chattr("i", lambda w: w.store.root)),
    "generations +i": Case(chattr("i", lambda w: w.store.generations)),
    "staging +i": Case(chattr("i", lambda w: w.store.root / "staging")),
    "current generation +i": Case(chattr("i", lambda w: w.store.generation_dir(3))),
    "config.ini +i": Case(chattr("i", lambda w: w.store.config_ini)),
    "config.ini +a": Case(chattr("a", lambda w: w.store.config_ini)),
    "state +i": Case(chattr("i", lambda w: w.store.state)),
    "history +i": Case(chattr("i", lambda w: w.store.history)),
    "history +a": Case(chattr("a", lambda w: w.store.history), 0),
    "lock +i": Case(chattr("i", lambda w: w.store.root / "lock")),
    "a file of the live tree +i": Case(chattr("i", lambda w: w.live / "version.info"), 0),
    "a directory of the live tree +i": Case(chattr("i", lambda w: w.live / "op_api"), 0),
    "purge, a kept package +i": Case(_frozen_package, command="uninstall"),
}


def test_immutable_places(memory: Path, fault_row: FaultRow) -> None:
    fault_row.need("7")
    probe = memory / "probe"
    probe.touch()
    if subprocess.run(["chattr", "+i", str(probe)], capture_output=True).returncode != 0:
        fault_row.skip("7", "chattr +i does not work here")
    subprocess.run(["chattr", "-i", str(probe)], check=True)
    violations = []
    for number, (name, case) in enumerate(chosen(FROZEN).items()):
        world = machine(memory / str(number))
        others = others_digest(world.store)
        loose: list[Path] = []

        def close(world: World, case: Case = case, loose: list[Path] = loose) -> Path:
            loose.append(case.close(world))
            return loose[0]

        spared = case.command == "uninstall"  # the purge has begun; what it names is what stops it
        try:
            found = tried(world, name, Case(close, case.status, case.command, case.code))
            violations += [text for text in found if not (spared and "was changed" in text)]
        finally:
            subprocess.run(["chattr", "-R", "-f", "-i", "-a", str(memory / str(number))], capture_output=True)
        run(world, "uninstall" if spared else "install")
        violations += [
            f"{name}: {text}" for text in settled_problems(world.store, (live_digest(world.store), "absent"), others)
        ]
    fault_row("7", len(chosen(FROZEN)), violations, what="immutable places")


# --- an ordinary user ---


def owned(pick: Callable[[World], Path], mode: int, owner: int = 0) -> Callable[[World], Path]:
    """The place with another owner and mode (as root, before the user comes)."""

    def close(world: World) -> Path:
        place = pick(world)
        os.chown(place, owner, owner)
        place.chmod(mode)
        return place

    return close


def sticky(world: World) -> Path:
    """As /tmp is: everybody may write, but only owners may rename."""
    owned(lambda w: w.store.vendors, 0o1777)(world)
    return owned(lambda w: w.live, 0o777)(world)


def sticky_config(world: World) -> Path:
    owned(lambda w: w.store.vendors, 0o1777)(world)
    return owned(lambda w: w.store.config_ini, 0o644)(world)


USER = {
    "vendors of root": Case(owned(lambda w: w.store.vendors, 0o755)),
    "vendors 0500": Case(owned(lambda w: w.store.vendors, 0o500, NOBODY)),
    "vendors 0300": Case(owned(lambda w: w.store.vendors, 0o300, NOBODY)),
    "opp 0700 of root": Case(owned(lambda w: w.opp, 0o700)),
    "live of root": Case(owned(lambda w: w.live, 0o755)),
    "live 0500": Case(owned(lambda w: w.live, 0o500, NOBODY)),
    "live 0700 of root": Case(owned(lambda w: w.live, 0o700)),
    "a directory in live 0700 of root": Case(owned(lambda w: w.live / "op_api", 0o700)),
    "a file in live 0000 of root": Case(owned(lambda w: w.live / "version.info", 0)),
    "store 0500": Case(owned(lambda w: w.store.root, 0o500, NOBODY)),
    "store of root": Case(owned(lambda w: w.store.root, 0o755)),
    "store 0700 of root": Case(owned(lambda w: w.store.root, 0o700)),
    "generations 0500": Case(owned(lambda w: w.store.generations, 0o500, NOBODY)),
    "staging of root": Case(owned(lambda w: w.store.root / "staging", 0o755)),
    "current generation of root": Case(owned(lambda w: w.store.generation_dir(3), 0o755)),
    "rollback, its generation of root": Case(owned(lambda w: w.store.generation_dir(2), 0o755), command="rollback"),
    "lock 0600 of root": Case(owned(lambda w: w.store.root / "lock", 0o600)),
    "history of root": Case(owned(lambda w: w.store.history, 0o644)),
    "state 0600 of root": Case(owned(lambda w: w.store.state, 0o600)),
    "config.ini 0600 of root": Case(owned(lambda w: w.store.config_ini, 0o600)),
    "config.ini of root": Case(owned(lambda w: w.store.config_ini, 0o644), 0),
    "sticky vendors, live of root": Case(sticky),
    "sticky vendors, config.ini of root": Case(sticky_config),
    "package 0600 of root": Case(owned(lambda w: w.root / "op-3.run", 0o600)),
}


def test_an_ordinary_user(memory: Path, fault_row: FaultRow) -> None:
    fault_row.need("7")
    violations = []
    for number, (name, case) in enumerate(chosen(USER).items()):
        world = machine(memory / str(number), owner=NOBODY)
        others = others_digest(world.store)
        modes = {path: path.lstat() for path in (world.opp, *world.opp.rglob("*"), *world.root.glob("*.run"))}
        place = case.close(world)
        before = fingerprint(world.store.vendors)
        shut = Case(lambda world, place=place: place, case.status, case.command, case.code)  # type: ignore[misc]
        found = in_child_as(NOBODY, memory, lambda world=world, name=name, shut=shut: tried(world, name, shut))  # type: ignore[misc]
        violations += found
        if (
            case.status
            and case.command == "install"
            and (changed := differences(before, fingerprint(world.store.vendors)))
        ):
            violations.append(f"{name}: refused, but {changed[0]} was changed")
        for path, info in modes.items():
            if path.exists() and not path.is_symlink():  # opened again
                os.chown(path, info.st_uid, info.st_gid)
                path.chmod(info.st_mode & 0o7777)
        violations += in_child_as(NOBODY, memory, lambda world=world: run(world, "install") or [])  # type: ignore[misc]
        violations += [f"{name}: {text}" for text in settled_problems(world.store, (live_digest(world.store),), others)]
        shutil.rmtree(memory / str(number))
    fault_row("7", len(chosen(USER)), violations, what="as an ordinary user")


def test_a_root_whom_the_file_system_does_not_know(memory: Path, fault_row: FaultRow) -> None:
    """As on NFS with root_squash: uid 0, and refused nevertheless."""
    fault_row.need("7")
    world = machine(memory / "w")

    def body() -> list[str]:
        libc = ctypes.CDLL(None)
        libc.prctl(_PR_SET_DUMPABLE, 1, 0, 0, 0)  # a process that changed its user may not write its own uid_map
        if libc.unshare(_CLONE_NEWUSER) != 0:
            return ["no user namespace"]
        Path("/proc/self/uid_map").write_text(f"0 {NOBODY} 1")
        if os.geteuid() != 0:
            return [f"uid {os.geteuid()}"]
        problems = world.plan(world.root / "op-3.run").problems
        bad = [] if problems else ["it would go through"]
        for problem in problems:
            known = problem.code == "NO_PERMISSION" and str(world.store.vendors) in problem.message
            if not known or "root_squash" not in problem.hint or int(problem.exit_status) != 14:
                bad.append(f"{problem.code} {problem.message} ({problem.hint})")
        return bad

    violations = in_child_as(NOBODY, memory, body)
    if violations == ["no user namespace"]:
        fault_row.skip("7", "user namespaces are not allowed")
    fault_row("7", 1, violations, what="root_squash")


def test_what_a_security_module_refuses(fault_row: FaultRow, memory: Path) -> None:
    """EACCES for root where owners and modes allow everything (injected, as SELinux would answer)."""
    if reason := why_not():
        fault_row.skip("7", f"no strace: {reason}")
    calls = ("mkdir", "renameat2", "rename", "symlink", "unlink")[: 5 if FULL else 2]
    bad = []
    with Victim() as victim:
        for number, call in enumerate(calls):
            world = machine(memory / str(number))
            old, others = live_digest(world.store), others_digest(world.store)
            arguments = (str(world.root), "install", str(world.root / "op-3.run"))
            ended = victim.run(arguments, "-e", f"trace={call}", "-e", f"inject={call}:error=EACCES:when=1")
            if ended != 14:
                bad.append(f"{call}: exit status {ended}")
            bad += [f"{call}: {text}" for text in world_problems(world.store, (old,), others)]
    hint = access_error(PermissionError(13, "Permission denied", "/x"), "write /x").hint
    if os.geteuid() == 0 and "SELinux" not in hint:
        bad.append(f"the hint does not think of SELinux: {hint}")
    fault_row("7", len(calls), bad, what="EACCES for root")
