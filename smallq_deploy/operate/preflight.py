"""Every check before a change, all failures at once. Looking changes nothing and needs no lock."""

from __future__ import annotations

import fcntl
import os
import stat
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from smallq_deploy.base.errors import (
    AccessError,
    ConflictError,
    IncompatibleError,
    InstallError,
    NoToolkitError,
    PackageError,
    SmallqError,
    UsageError,
)
from smallq_deploy.base.filesystem import shared_kind
from smallq_deploy.base.fsops import tree_size
from smallq_deploy.base.versions import CannVersion
from smallq_deploy.operate.downgrade import downgrade
from smallq_deploy.operate.foreign import losses
from smallq_deploy.operate.inuse import Process, processes_using
from smallq_deploy.store.configini import ConfigIni, read_config, with_vendor
from smallq_deploy.store.generations import read_state
from smallq_deploy.store.live import LiveState, check_place, observe_live
from smallq_deploy.store.paths import Store

if TYPE_CHECKING:
    from smallq_deploy.machine.environment import Environment
    from smallq_deploy.operate.planner import InstallOptions
    from smallq_deploy.package.compat import Compat, Verdict
    from smallq_deploy.package.releases import Release
    from smallq_deploy.package.runfile import RunFile
    from smallq_deploy.package.vendortree import VendorTree

_SLACK = 1 << 20  # bytes for records, journal and directories
_BLOCK = 4096
_ST_RDONLY = 1
_GET_FLAGS, _IMMUTABLE, _APPEND_ONLY = 0x80086601, 0x10, 0x20  # linux/fs.h: FS_IOC_GETFLAGS on 64 bits, FS_*_FL


@dataclass(frozen=True)
class Facts:
    """What was seen on the machine; :func:`check` judges it. Sizes in bytes."""

    live: LiveState
    tree: VendorTree
    config: ConfigIni
    others: dict[str, dict[str, tuple[str, ...]]] = field(default_factory=dict)  # vendor -> operator -> units
    built_in: dict[str, tuple[str, ...]] = field(default_factory=dict)
    free_bytes: int = 0
    free_inodes: int | None = None  # None: the file system has no inode table (btrfs)
    space_needed: int = 0
    inodes_needed: int = 0
    mounted: bool = False
    blocked: tuple[SmallqError, ...] = ()  # directories that cannot be written
    users: tuple[Process, ...] = ()  # they have the old libraries mapped
    open_to_all: int = 0  # mode of the vendors directory, when everybody may write there
    compat: Compat | None = None  # what is known of the release; None: nothing
    shared: str = ""  # the kind of file system, where other hosts may use this opp too


def gather_facts(store: Store, run: RunFile, release: Release) -> Facts:
    """Look at everything that :func:`check` needs.

    Raises ConflictError VENDORS_IS_LINK, LIVE_NOT_A_DIRECTORY, CONFIG_NOT_A_FILE, NoToolkitError NO_OPP, InstallError
    STORE_DAMAGED, PackageError BAD_MANIFEST (compatibility data), and the typed form of an OSError.
    """
    from smallq_deploy.package.compat import compat_of
    from smallq_deploy.package.vendortree import inspect_vendor, other_vendors, units_of_ops

    check_place(store)
    live = observe_live(store)
    existing = _existing(store.vendors)
    volume = os.statvfs(existing)
    packed = run.path.stat().st_size if run.path.exists() else 0
    sizes = [-(-max(member.size, 1) // _BLOCK) * _BLOCK for member in run.members]
    old = tree_size(store.live) if live.exists else 0
    return Facts(
        live,
        inspect_vendor(store.live),
        read_config(store),
        other_vendors(store.vendors, without=store.vendor) if store.vendors.is_dir() else {},
        units_of_ops(store.opp / "built-in"),
        volume.f_bavail * volume.f_frsize,
        volume.f_favail if volume.f_files else None,
        sum(sizes) + packed + old + _SLACK,
        len(sizes) + 20,
        is_mount_point(store.live),
        tuple(unwritable(store)),
        processes_using(store.live) if live.exists else (),
        _open_to_all(store.vendors),
        compat_of(release),
        shared_kind(existing),
    )


def _open_to_all(directory: Path) -> int:
    mode = stat.S_IMODE(directory.stat().st_mode) if directory.is_dir() else 0
    return mode if mode & 0o002 else 0


def verdict_on(
    environment: Environment, release: Release, run: RunFile, compat: Compat | None, options: InstallOptions
) -> Verdict:
    """What the release and the compatibility data say of this machine."""
    from smallq_deploy.package.compat import Compat, Policy, Target, judge

    target = Target.of(environment, options.unit)
    if target.unit not in run.units:  # refused as WRONG_UNIT, or not known
        target = replace(target, unit="")
    policy = Policy(allow_prerelease=options.allow_prerelease, allow_untested=options.allow_untested)
    return judge(release, target, compat or Compat(), policy)


def check(
    facts: Facts, environment: Environment, release: Release, store: Store, run: RunFile, options: InstallOptions
) -> tuple[tuple[SmallqError, ...], tuple[str, ...]]:
    """(problems, warnings), every one of them; the first problem decides the exit status."""
    warnings: list[str] = list(environment.warnings)
    problems = [
        *_package(release, store, run),
        *_machine(facts, environment, release, run, options, warnings),
        *facts.blocked,
        *_room(facts, store),
        *_vendors(facts, release, store, run, options, warnings),
        *downgrade(facts.live.generation, release, options.allow_downgrade, warnings),
    ]
    if facts.tree.layout in ("nested", "both"):
        warnings.append(f"{store.live} has the nested layout of a hand-made install; the new tree is flat")
    if facts.open_to_all:
        warnings.append(
            f"every user of this machine can replace what is in {store.vendors} (mode {facts.open_to_all:04o}): "
            "`chmod o-w` it"
        )
    if facts.shared:
        warnings.append(
            f"{store.vendors} is on a shared file system ({facts.shared}): the change is for every host that uses it, "
            "and what runs there is not seen from here"
        )
    for note in facts.config.problems:
        warnings.append(f"{store.config_ini}: {note}; it is rewritten in the form every reader of CANN accepts")
    if facts.live.kind == "changed" and facts.live.generation is not None:
        warnings.append(
            f"{store.live} was changed since generation {facts.live.generation.number} was installed "
            f"({len(facts.live.differences)} differences); it is kept as a generation of its own"
        )
    if facts.users:
        names = ", ".join(map(str, facts.users[:5]))
        more = f" and {len(facts.users) - 5} more" if len(facts.users) > 5 else ""
        warnings.append(f"running with the present libraries, until restarted: {names}{more}")
    return tuple(problems), tuple(dict.fromkeys(warnings))


def _package(release: Release, store: Store, run: RunFile) -> Iterator[SmallqError]:
    if release.operator not in run.ops:
        yield PackageError(
            "MISSING_OPERATOR",
            f"{run.path.name} does not contain {release.operator} (it has {', '.join(sorted(run.ops)) or 'nothing'})",
            hint="build the package with this operator, see `smallq-deploy build --help`",
        )
    if run.vendor != store.vendor:
        yield UsageError(
            "VENDOR_MISMATCH",
            f"{run.path.name} is for vendor {run.vendor}, not {store.vendor}",
            hint=f"say --vendor {run.vendor}, or build the package with that vendor name",
        )


def _machine(
    facts: Facts,
    environment: Environment,
    release: Release,
    run: RunFile,
    options: InstallOptions,
    warnings: list[str],
) -> Iterator[SmallqError]:
    toolkit = environment.toolkit
    if toolkit is None:
        yield NoToolkitError("NO_TOOLKIT", "no usable CANN toolkit was found", hint="see `smallq-deploy detect`")
        return
    if run.arch and toolkit.arch and run.arch != toolkit.arch:
        yield IncompatibleError(
            "WRONG_ARCH",
            f"the package is for {run.arch}, the toolkit {toolkit.home} for {toolkit.arch}",
            hint="build the package on such a machine, or choose the toolkit with --cann",
        )
    elif environment.host_arch != toolkit.arch and not options.no_smoke:
        yield IncompatibleError(
            "HOST_ARCH",
            f"no smoke test is possible: the host is {environment.host_arch}, the toolkit is for {toolkit.arch}",
            hint="add --no-smoke; the generation is then marked unproven",
        )
    unit = options.unit or environment.unit
    if unit and unit not in run.units:
        yield IncompatibleError(
            "WRONG_UNIT",
            f"the package is for {', '.join(run.units) or 'no compute unit'}, the devices here are {unit}",
            hint=f"build it for this machine: smallq-deploy build --soc {unit}",
        )
    elif not unit:
        warnings.append("the compute unit of this machine is unknown (no device found); the package's was not compared")
    built = _built_with(run)
    if built is not None and built > toolkit.version:
        warnings.append(
            f"the package was built with CANN {built}, this is {toolkit.version}: it may need functions this one lacks"
        )
    verdict = verdict_on(environment, release, run, facts.compat, options)
    warnings += verdict.warnings
    yield from verdict.problems
    evidence = verdict.evidence
    if evidence is not None and evidence.evidence == "compiled":
        warnings.append(
            f"{release.name} {release.version} was never run with CANN {toolkit.version}: its sources compile "
            f"({evidence.source}), the smoke test is the proof"
        )
    if evidence is not None and toolkit.arch not in evidence.arches:
        warnings.append(f"{release.name} {release.version} was not tried on {toolkit.arch} ({evidence.source})")


def _built_with(run: RunFile) -> CannVersion | None:
    """The CANN a package was built with; None where it does not tell: up to 8.3 it names a component's version."""
    try:
        version = CannVersion.parse(run.compiler_version)
    except UsageError:
        return None
    return version if version.release >= (8, 5) else None


def _room(facts: Facts, store: Store) -> Iterator[SmallqError]:
    if facts.mounted:
        yield ConflictError(
            "LIVE_IS_MOUNT",
            f"{store.live} is a mount point, it cannot be switched",
            hint="mount the vendors directory instead, or install inside that mount's own opp",
        )
    if facts.space_needed > facts.free_bytes:
        yield InstallError(
            "NO_SPACE",
            f"{store.vendors} needs {_amount(facts.space_needed)} free (old, new and staging tree), "
            f"it has {_amount(facts.free_bytes)}",
            hint="free space on that file system and run the command again",
            details={"needed": facts.space_needed, "free": facts.free_bytes},
        )
    if facts.free_inodes is not None and facts.free_inodes < facts.inodes_needed:
        yield InstallError(
            "NO_SPACE",
            f"{store.vendors} has {facts.free_inodes} inodes free, {facts.inodes_needed} are needed",
            hint="remove files on that file system and run the command again",
        )


def _amount(size: int) -> str:
    """Exact enough that what is missing can be seen, even when it is one page."""
    return f"{-(-size // 1024):,} KiB ({size / (1 << 20):.1f} MiB)"


def _vendors(
    facts: Facts, release: Release, store: Store, run: RunFile, options: InstallOptions, warnings: list[str]
) -> Iterator[SmallqError]:
    gone = losses(facts.tree.op_units, run.op_units)
    ours = gone.pop(release.operator, ()) if release.operator in run.ops else ()
    if ours:  # the units of this machine's devices are the release's to judge
        warnings.append(f"{release.operator} is no longer there for {', '.join(ours)}: the new package lacks it")
    lost = [f"{name} ({', '.join(units)})" if units else name for name, units in gone.items()]
    if lost and options.drop_foreign:
        warnings.append(f"operators that the new package does not have and that go: {', '.join(lost)} (--drop-foreign)")
    elif lost:
        yield ConflictError(
            "FOREIGN_OPERATORS",
            f"{store.live} holds {', '.join(lost)}, which {run.path.name} does not have: it would be lost",
            hint="build all operators into one package, or give this one a directory of its own (`build` and "
            "`install` with --vendor NAME); --drop-foreign lets them go",
            details={"operators": list(gone), "units": {name: list(units) for name, units in gone.items()}},
        )
    order = after_order(facts.config, store.vendor, options.priority_first)
    for name in order:
        same = sorted(set(facts.others.get(name, ())) & set(run.ops))
        if not same:
            continue
        if order.index(name) > order.index(store.vendor):
            warnings.append(f"{', '.join(same)} is also in vendor {name}; {store.vendor} comes first and wins")
        elif options.allow_shadowed:
            warnings.append(f"{', '.join(same)} of vendor {name} comes first and is used (--allow-shadowed)")
        else:
            yield ConflictError(
                "SHADOWED",
                f"vendor {name} also has {', '.join(same)} and comes first in {store.config_ini}: CANN would use that",
                hint="--priority first puts this one in front; --allow-shadowed leaves it behind",
                details={"vendor": name, "operators": same, "order": list(order)},
            )
    builtin = sorted(set(facts.built_in) & set(run.ops))
    if builtin:
        warnings.append(f"{', '.join(builtin)} is also built into CANN; the custom one wins")


def after_order(config: ConfigIni, vendor: str, first: bool) -> tuple[str, ...]:
    """The vendors in the order CANN will try them after the install."""
    from smallq_deploy.store.configini import parse

    return parse(with_vendor(config, vendor, listed=True, first=first) or "").names


def unwritable(store: Store) -> Iterator[SmallqError]:
    """One error for each place that must be changed and cannot be."""
    home = _existing(store.vendors)
    current = read_state(store).of(store.vendor).current
    places = [home, store.live, store.root, store.generations, store.root / "staging"]
    if current:
        places.append(store.generation_dir(current))  # the tree that is live now goes back there
    for place in places:
        if not os.path.isdir(place):
            continue
        if not os.access(place, os.W_OK | os.X_OK | os.R_OK) or _frozen(place):
            if os.statvfs(place).f_flag & _ST_RDONLY:
                yield AccessError(
                    "READ_ONLY",
                    f"{place} is on a read-only file system",
                    hint="remount it read-write, or choose another --opp",
                    details={"path": str(place)},
                )
                return
            yield _no_permission(place)
    for path in (store.config_ini, *(store.root / name for name in ("lock", "state", "history", "journal"))):
        opened = path.name in ("lock", "history") and path.exists() and not os.access(path, os.R_OK | os.W_OK)
        if opened or _frozen(path, append_only=path != store.history):
            yield _no_permission(path)
    # In a sticky directory (as /tmp) only its owner and a file's own owner may rename the file.
    uid, info = os.geteuid(), home.stat()
    if info.st_mode & stat.S_ISVTX and uid not in (0, info.st_uid):
        for path in (store.live, store.config_ini):
            owner = path.lstat().st_uid if os.path.lexists(path) else uid
            if owner != uid:
                yield AccessError(
                    "NO_PERMISSION",
                    f"{path} belongs to uid {owner}, and {home} is sticky: you (uid {uid}) cannot replace it",
                    hint=f"run as its owner or as root, or `chmod -t {home}`",
                    details={"path": str(path)},
                )


def _no_permission(place: Path) -> AccessError:
    owner, uid = place.stat().st_uid, os.geteuid()
    if _frozen(place):
        message, hint = (
            "it is immutable or append-only",
            f"`lsattr -d {place}` shows it, `chattr -i -a {place}` undoes it",
        )
    elif uid in (0, owner):
        message = f"its mode is {stat.S_IMODE(place.stat().st_mode):04o} and you are uid {uid}"
        hint = f"`chmod u+rwx {place}`" if uid else "a file system with root_squash, SELinux or AppArmor: see `dmesg`"
    else:
        message, hint = f"it belongs to uid {owner}, you are uid {uid}", "run as its owner or as root"
    return AccessError(
        "NO_PERMISSION", f"no permission to change {place} ({message})", hint=hint, details={"path": str(place)}
    )


def _frozen(path: Path, *, append_only: bool = True) -> bool:
    """Has this file or directory the attribute i (or a) of chattr? False where that cannot be told."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        flags = fcntl.ioctl(fd, _GET_FLAGS, bytes(8))
    except OSError:
        return False
    finally:
        os.close(fd)
    return bool(int.from_bytes(flags[:4], sys.byteorder) & (_IMMUTABLE | (_APPEND_ONLY if append_only else 0)))


def is_mount_point(path: Path) -> bool:
    """Also for a bind mount within one file system, which os.path.ismount does not see."""
    try:
        lines = Path("/proc/self/mountinfo").read_text(errors="surrogateescape").splitlines()
    except OSError:
        return os.path.ismount(path)
    # Field 5 is the mount point; space, tab, newline and backslash are written in octal (proc(5)).
    text = "".join(f"\\{ord(sign):03o}" if sign in " \t\n\\" else sign for sign in str(path))
    return any(line.split(" ", 5)[4] == text for line in lines)


def _existing(path: Path) -> Path:
    while not path.exists():
        path = path.parent
    return path
