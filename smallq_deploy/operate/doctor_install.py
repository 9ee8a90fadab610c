"""Checks of what is installed: place, files, store, libraries, processes, operators left in other toolkits."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

from smallq_deploy.base.errors import ConflictError, InstallError, NoToolkitError, UsageError
from smallq_deploy.base.fsops import sha256_file, tree_size
from smallq_deploy.machine.facts import read_key_values
from smallq_deploy.machine.places import shared_file_system
from smallq_deploy.machine.toolkit import Toolkit
from smallq_deploy.operate.doctor import (
    FAIL,
    PASS,
    WARN,
    Context,
    Finding,
    Skip,
    check,
    host_can_run,
    worst,
)
from smallq_deploy.operate.inuse import processes_using
from smallq_deploy.operate.migrate import left_behind, other_opps
from smallq_deploy.operate.preflight import is_mount_point, unwritable
from smallq_deploy.operate.verifier import static_findings, verify
from smallq_deploy.package.buildcheck import unresolved_functions
from smallq_deploy.package.elf import read_elf
from smallq_deploy.package.vendortree import API_LIBRARY, TBE
from smallq_deploy.store.generations import list_generations
from smallq_deploy.store.live import check_place
from smallq_deploy.store.recovery import open_transaction

_ROOM = 64 << 20  # bytes; several times what the operator's package unpacks to
_SYSTEM_LIBRARIES = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib")
_SHOWN = 8


@check(
    "place", "install", "installing exchanges one directory by one rename; a link or mount point cannot be exchanged"
)
def place(context: Context) -> Finding:
    store = context.place
    try:
        check_place(store)
    except (ConflictError, NoToolkitError) as error:
        return Finding(FAIL, error.message, (error.code,), mend=(error.hint,))
    if is_mount_point(store.live):
        mend = f"mount {store.vendors} instead of {store.live}"
        return Finding(FAIL, f"{store.live} is a mount point", mend=(mend,))
    where = store.vendors if store.vendors.exists() else store.opp
    shared = shared_file_system(where, context.root)
    if shared:
        text = f"{store.vendors} is shared ({shared}): every node that mounts it sees the same install"
        why = "two nodes that install at once do not see each other's lock on every server"
        advice = "install once, on one node; run `smallq-deploy verify` on the others"
        return Finding(WARN, text, why=why, mend=(advice,))
    return Finding(PASS, f"{store.vendors} can be switched")


@check("writable", "install", "installing needs to write beside the live directory")
def writable(context: Context) -> Finding:
    problems = list(unwritable(context.place))
    if problems:
        lines = tuple(item.message for item in problems)
        return Finding(WARN, lines[0], lines[1:], mend=tuple(dict.fromkeys(item.hint for item in problems)))
    return Finding(PASS, f"this user can install into {context.place.vendors}")


@check("space", "install", "old, new and staging tree are there at the same time during a switch")
def space(context: Context) -> Finding:
    store = context.place
    folder = store.vendors if store.vendors.is_dir() else store.opp
    volume = os.statvfs(folder)
    free = volume.f_bavail * volume.f_frsize
    live = tree_size(store.live) if store.live.is_dir() else 0
    needed = 2 * live + _ROOM
    evidence = (f"{free >> 20} MiB free, about {needed >> 20} MiB wanted",)
    if volume.f_files and volume.f_favail < 200:
        return Finding(FAIL, f"{folder} has {volume.f_favail} inodes left", evidence, mend=(f"df -i {folder}",))
    if free < needed:
        status = FAIL if free < needed - _ROOM // 2 else WARN
        return Finding(status, f"{folder} has {free >> 20} MiB left", evidence, mend=(f"df -h {folder}",))
    return Finding(PASS, f"{free >> 20} MiB free in {folder}")


@check("readable", "install", "a user who cannot read an operator's files gets 561003, as if it were not installed")
def readable(context: Context) -> Finding:
    tree, store = context.tree, context.place
    findings = []
    for path in (store.vendors, store.live, store.config_ini):
        if path.exists() and not os.access(path, os.R_OK | (os.X_OK if path.is_dir() else 0)):
            findings.append(Finding(FAIL, f"this user may not read {path}", mend=("smallq-deploy repair",)))
    # CANN's own choice for opp (0750 without --install-for-all) is not ours to judge; being narrower than it is.
    opened = stat.S_IMODE(store.opp.stat().st_mode) & 0o005
    if opened and stat.S_IMODE(store.vendors.stat().st_mode) & 0o005 != 0o005:
        text = f"{store.vendors} is closed to other users, though {store.opp} is open"
        findings.append(Finding(WARN, text, mend=(f"chmod o+rx {store.vendors}",)))
    return worst(findings, f"{tree.root} and config.ini can be read by this user")


@check("files", "install", "a missing or foreign file shows only when the operator is called")
def files(context: Context) -> Finding:
    assert context.tree is not None
    unit = context.unit
    found = static_findings(context.place, context.release, unit=unit, arch=context.toolkit.arch)
    findings = [
        Finding(item.severity, f"[{item.code}] {item.message}", mend=(item.hint,) if item.hint else ())
        for item in found
    ]
    return worst(findings, f"{context.live} is complete for {unit or ', '.join(context.tree.units)}")


@check("unchanged", "install", "files that were edited after the install are not what was proven")
def unchanged(context: Context) -> Finding:
    assert context.tree is not None
    generation = context.generation
    if generation is None:
        raise Skip(f"smallq-deploy did not install {context.live}, so there is nothing to compare it with")
    report = verify(context.place, context.release, unit=context.unit, arch=context.toolkit.arch)
    if report.differences:
        lines = tuple(f"{item.letters} {item.path}" for item in report.differences[:_SHOWN])
        text = f"{len(report.differences)} of {report.checked} entries differ from generation {generation.number}"
        return Finding(FAIL, text, lines, mend=("smallq-deploy verify", "smallq-deploy install --reinstall"))
    return Finding(PASS, f"{report.checked} entries are as generation {generation.number} was installed")


@check("proven", "install", "only a call that gave the right numbers proves an install")
def proven(context: Context) -> Finding:
    assert context.tree is not None
    generation = context.generation
    if generation is None:
        return Finding(WARN, f"{context.live} was not installed by smallq-deploy: nothing proves it",
                       mend=("smallq-deploy smoke",))  # fmt: skip
    flags = ", ".join(sorted(name.replace("_", "-") for name, value in generation.flags.items() if value is True))
    if not generation.proven:
        text = f"generation {generation.number} is unproven: no smoke test passed for it"
        return Finding(WARN, text, (f"recorded: {flags}",) if flags else (), mend=("smallq-deploy smoke",))
    return Finding(PASS, f"generation {generation.number} passed its smoke test")


@check("built-for", "install", "a package of a newer CANN may need functions that this one has not")
def built_for(context: Context) -> Finding:
    from smallq_deploy.machine.facts import parse_version

    assert context.tree is not None
    chosen, generation = context.toolkit, context.generation
    built = parse_version(generation.toolkit_version) if generation is not None else None
    findings = []
    if generation is not None and generation.origin == "installed" and built is not None and built != chosen.version:
        text = f"it was installed for CANN {built}, the toolkit is CANN {chosen.version} now"
        findings.append(
            Finding(WARN, text, mend=("smallq-deploy migrate", "or: smallq-deploy build && smallq-deploy install"))
        )
    compiler = (read_key_values(context.live / "version.info") or {}).get("custom_opp_compiler_version", "")
    for part in ("compiler", "runtime"):
        record = chosen.real_home / part / "version.info"
        wanted = (read_key_values(record) or {}).get("required_opp_abi_version", "")
        if compiler and wanted and not _within(compiler, wanted):
            text = f"graph mode ignores it: built with compiler {compiler}, {record} wants {wanted}"
            findings.append(
                Finding(WARN, text, mend=(f"build it again for CANN {chosen.version}: smallq-deploy build",))
            )
            break
    return worst(findings, f"built with compiler {compiler or 'unknown'}, for CANN {chosen.version}")


def _within(version: str, ranges: str) -> bool:
    """'7.7.0.1' within '>=6.3, <=7.7', compared in as many parts as the bound has; True for what is not understood."""
    numbers = [int(part) for part in re.findall(r"\d+", version)]
    for clause in ranges.split(","):
        found = re.match(r"^\s*(>=|<=|>|<|==)\s*([\d.]+)\s*$", clause)
        if not found or not numbers:
            return True
        bound = [int(part) for part in found[2].split(".") if part]
        cut = (numbers + [0] * len(bound))[: len(bound)]
        good = {">=": cut >= bound, "<=": cut <= bound, ">": cut > bound, "<": cut < bound, "==": cut == bound}
        if not good[found[1]]:
            return False
    return True


@check("libraries", "install", "a library with an unknown symbol or a missing dependency cannot be loaded at all")
def libraries(context: Context) -> Finding:
    assert context.tree is not None
    chosen, library = context.toolkit, context.live / API_LIBRARY
    if not library.is_file():
        raise Skip(f"{library} is missing; see the check named files")
    found = read_elf(library)
    findings = []
    base = _toolkit_library(chosen, "libnnopbase.so")
    missing = unresolved_functions(library, base) if base is not None else ()
    if missing:
        text = f"{library.name} needs {', '.join(missing[:_SHOWN])}, which {base} does not have"
        why = "the package was built with a newer CANN than this one"
        mend = (f"build it with CANN {chosen.version}: smallq-deploy build",)
        findings.append(Finding(FAIL, text, (str(library),), why, mend))
    if host_can_run(chosen):
        folders = [part for part in context.effective.get("LD_LIBRARY_PATH", "").split(":") if part]
        folders += [*_SYSTEM_LIBRARIES, f"/lib/{chosen.arch}-linux-gnu", f"/usr/lib/{chosen.arch}-linux-gnu"]
        places = (*folders, str(chosen.home / "lib64"))
        gone = [name for name in found.needed if not any(os.path.exists(os.path.join(part, name)) for part in places)]
        if gone:
            text = f"{library.name} needs {', '.join(gone)}, which no library directory has"
            findings.append(Finding(WARN, text, tuple(folders[:_SHOWN]), mend=(f"source {chosen.set_env}",)))
    return worst(findings, f"it needs {', '.join(found.needed) or 'no library'}: found, with the functions it calls")


def _toolkit_library(chosen: Toolkit, name: str) -> Path | None:
    places = (chosen.home / "lib64" / name, chosen.home / f"{chosen.arch}-linux/lib64" / name)
    return next((path for path in places if path.is_file()), None)


@check("tiling-library", "install", "without the tiling library of its architecture a call ends with 561002")
def tiling_library(context: Context) -> Finding:
    assert context.tree is not None
    folder = context.live / TBE / "op_tiling"
    link = folder / "liboptiling.so"
    if not link.is_symlink() and not link.exists():
        mend = ("smallq-deploy install --reinstall",)
        return Finding(WARN, f"{link} is missing: the package was probably for another architecture", mend=mend)
    if not link.exists():
        text = f"{link} points to {os.readlink(link)}, which does not exist"
        return Finding(WARN, text, mend=("smallq-deploy install --reinstall",))
    return Finding(PASS, f"{link.name} leads to {os.path.realpath(link)}")


@check("store", "install", "an open transaction or a damaged record stands in the way of the next change")
def store(context: Context) -> Finding:
    found = context.place
    if not found.exists:
        raise Skip(f"smallq-deploy has not installed anything into {found.vendors}")
    try:
        opened, generations = open_transaction(found), list_generations(found)
    except (InstallError, UsageError) as error:
        return Finding(FAIL, error.message, (error.code,), mend=(error.hint,))
    if opened is not None and opened.running:
        owner = opened.owner.get("pid", "?")
        return Finding(WARN, f"a {opened.action} is running (pid {owner})", mend=("wait until it has ended",))
    if opened is not None:
        text = f"a {opened.action} begun {opened.started} was interrupted in phase '{opened.phase}'"
        return Finding(FAIL, text, mend=("smallq-deploy recover",))
    findings = []
    staging = found.root / "staging"
    left = sorted(os.listdir(staging)) if staging.is_dir() else []
    if left:
        findings.append(
            Finding(WARN, f"{staging} holds {len(left)} leftovers", tuple(left), mend=("smallq-deploy recover",))
        )
    for item in generations:
        package = found.package_file(item.number)
        if item.origin != "installed" or not item.package_sha256 or item.failed:
            continue
        if not package.is_file() or sha256_file(package) != item.package_sha256:
            text = f"the package of generation {item.number} is {'changed' if package.is_file() else 'gone'}"
            findings.append(Finding(WARN, text, (str(package),), mend=("smallq-deploy install --reinstall",)))
    return worst(findings, f"no open transaction; generations on record: {len(generations)}")


@check("processes", "install", "a process keeps the libraries it has loaded until it is restarted")
def processes(context: Context) -> Finding:
    found = context.place
    evidence = [] if os.geteuid() == 0 else ["without root only the processes of this user can be looked at"]
    old = {process.pid: process for process in processes_using(found.root)} if found.exists else {}
    for other in other_opps(context.environment, found.opp):
        old.update({process.pid: process for process in processes_using(other / "vendors")})
    current = len(processes_using(found.live)) if found.live.is_dir() else 0
    if old:
        names = ", ".join(str(process) for _, process in sorted(old.items())[:_SHOWN])
        text = f"{len(old)} process{'es' if len(old) > 1 else ''} still use an earlier install: {names}"
        return Finding(WARN, text, tuple(evidence), mend=("restart them",))
    return Finding(PASS, f"no process uses an earlier install; of the installed one: {current}", tuple(evidence))


@check("left-behind", "install", "after a switch of CANN, operators in the old tree are not found any more")
def operators_left(context: Context) -> Finding:
    found = left_behind(context.environment, context.place)
    if not found:
        return Finding(PASS, "no other toolkit here has operators that this one lacks")
    lines = tuple(f"{item.vendors / item.vendor} (CANN {item.version}): {', '.join(item.missing)}" for item in found)
    names = ", ".join(dict.fromkeys(name for item in found for name in item.missing))
    text = f"installed for another CANN, but not in {context.place.vendors}: {names}"
    return Finding(WARN, text, lines, mend=("smallq-deploy migrate",))
