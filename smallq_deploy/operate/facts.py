"""Everything about one machine that a fleet is compared by, in one look: what it is, what is installed, is it well?"""

from __future__ import annotations

import os
import platform
import shutil
import socket
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from smallq_deploy import __version__
from smallq_deploy.base.errors import SmallqError
from smallq_deploy.base.filesystem import shared_kind
from smallq_deploy.machine.environment import Environment
from smallq_deploy.machine.places import mount_of
from smallq_deploy.operate.status import Status, status
from smallq_deploy.operate.verifier import LETTERS, Difference, compare
from smallq_deploy.package.vendortree import ops_of_vendor, other_vendors
from smallq_deploy.store.generations import Generation, check_manifest
from smallq_deploy.store.history import read_history
from smallq_deploy.store.live import LiveState, live_exists, read_tree
from smallq_deploy.store.paths import Store
from smallq_deploy.store.recovery import steady

_SHOWN = 20  # paths of drift; the counts are of all


@dataclass(frozen=True)
class Vendor:
    """Another directory in opp/vendors. ``clashes``: our operators that it has too; ``first``: config.ini names it
    before ours, so that CANN uses its copies."""

    name: str
    operators: tuple[str, ...]
    clashes: tuple[str, ...]
    listed: bool
    first: bool

    def to_dict(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "operators": list(self.operators),
            "clashes": list(self.clashes),
            "listed": self.listed,
            "first": self.first,
        }


@dataclass(frozen=True)
class Drift:
    """What of the live tree is not as installed. ``kinds``: letters of ``verify``, ``missing`` and ``added``, counted;
    ``contents``: every file was read, not only where sizes and times differ."""

    differences: tuple[Difference, ...] = ()
    contents: bool = False

    @property
    def kinds(self) -> dict[str, int]:
        counts: Counter[str] = Counter()
        for item in self.differences:
            if item.letters in ("missing", "added"):
                counts[item.letters] += 1
            else:
                counts.update(letter for letter in LETTERS if letter in item.letters and letter != "T")
        return dict(sorted(counts.items()))

    def to_dict(self) -> dict[str, Any]:
        return {
            "count": len(self.differences),
            "kinds": self.kinds,
            "paths": [item.path for item in self.differences[:_SHOWN]],
            "contents": self.contents,
        }


@dataclass(frozen=True)
class Installed:
    """What lies in one opp directory. ``smoke``: the last verdict on the live generation, with its time (UTC)."""

    status: Status
    drift: Drift
    vendors: tuple[Vendor, ...]
    smoke: Mapping[str, str] | None

    @property
    def kind(self) -> str:
        """The kind of LiveState, or ``interrupted`` where an open transaction leaves it undecided."""
        live = self.status.live
        if live is None:
            return "interrupted"
        return "changed" if live.kind == "current" and self.drift.differences else live.kind


@dataclass(frozen=True)
class HostFacts:
    """One machine. ``time`` is its clock (UTC, epoch seconds) when it was read; ``place`` the opp directory.

    ``problem`` says why there is no toolkit or why what is installed cannot be read; that is an answer too.
    """

    host: str
    time: float
    kernel: str
    system: Mapping[str, str]
    environment: Environment
    vendor: str
    place: Mapping[str, Any] | None = None
    installed: Installed | None = None
    problem: SmallqError | None = None
    warnings: tuple[str, ...] = field(default=())

    @property
    def soc(self) -> str:
        """The SoC of all devices, several joined by '+', '' when unknown."""
        names = dict.fromkeys(npu.soc or npu.unit or "unknown" for npu in self._npus)
        return "+".join(names)

    @property
    def _npus(self) -> Sequence[Any]:
        return (*self.environment.devices.npus, *self.environment.devices.hidden)

    def to_dict(self) -> dict[str, Any]:
        found, toolkit, devices = self.installed, self.environment.toolkit, self.environment.devices
        state = found.status if found is not None else None
        return {
            "host": self.host,
            "time": round(self.time, 3),
            "tool": __version__,
            "python": self.environment.python,
            "arch": self.environment.host_arch,
            "kernel": self.kernel,
            "os": dict(self.system),
            "container": self.environment.container,
            "soc": self.soc,
            "npus": [
                {"index": npu.logic_id if npu.index < 0 else npu.index, "soc": npu.soc, "health": npu.health}
                for npu in self._npus
            ],
            "driver": devices.driver,
            "firmware": devices.firmware,
            "cann": None
            if toolkit is None
            else {
                "version": str(toolkit.version),
                "inner_version": toolkit.inner_version,
                "home": str(toolkit.home),
                "arch": toolkit.arch,
                "kind": toolkit.kind,
                "remark": toolkit.remark,
            },
            "vendor": self.vendor,
            "opp": dict(self.place) if self.place is not None else None,
            "live": _live(found) if found is not None else None,
            "smoke": self._smoke(),
            "drift": found.drift.to_dict() if found is not None else None,
            "vendors": [item.to_dict() for item in found.vendors] if found is not None else [],
            "load_priority": list(state.order) if state is not None else [],
            "listed": state.listed if state is not None else False,
            "transaction": state.transaction if state is not None else None,
            "generations": len(state.generations) if state is not None else 0,
            "pins": len(state.pins) if state is not None else 0,
            "processes": len({item.pid for item in state.users.processes}) if state is not None else 0,
            "processes_unseen": state.users.unseen if state is not None else 0,
            "problem": self.problem.to_dict() if self.problem is not None else None,
        }

    def _smoke(self) -> dict[str, Any] | None:
        if self.installed is None or self.installed.smoke is None:
            return None
        record = self.installed.smoke
        age = max(0, int(self.time - _epoch(record["time"]))) if _epoch(record["time"]) else None
        return {**record, "age": age}


def _live(found: Installed) -> dict[str, Any]:
    generation = found.status.current
    return {
        "state": found.kind,
        "generation": generation.number if generation else None,
        "origin": generation.origin if generation else "",
        "release": generation.release if generation else "",
        "package_sha256": generation.package_sha256 if generation else "",
        "digest": generation.manifest_digest if generation else "",
        "built_for": generation.toolkit_version if generation else "",
        "operators": list(generation.ops) if generation else [],
        "created": generation.created if generation else "",
        "proven": bool(generation and generation.proven),
        "flags": sorted(name for name, value in generation.flags.items() if value is True) if generation else [],
    }


def _epoch(text: str) -> float:
    """0 for what is no time of ours."""
    try:
        return datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=timezone.utc).timestamp()
    except ValueError:
        return 0.0


def read_facts(environment: Environment, vendor: str, *, contents: bool = False) -> HostFacts:
    """Look at this machine; changes nothing and takes no lock. ``contents`` reads every installed file.

    Raises UsageError BAD_VENDOR_NAME only: what cannot be read is told as ``problem``.
    """
    toolkit = environment.toolkit
    store = Store(toolkit.opp if toolkit is not None else Path("/"), vendor)
    place: dict[str, Any] | None = None
    installed: Installed | None = None
    problem: SmallqError | None = environment.discovery.problem
    warnings: tuple[str, ...] = environment.warnings
    if toolkit is not None:
        place = _place(store)
        try:
            installed = installed_in(store, contents=contents)
            warnings = tuple(dict.fromkeys((*warnings, *installed.status.warnings)))
        except SmallqError as error:
            problem = error
    return HostFacts(
        host=socket.gethostname(),
        time=time.time(),
        kernel=platform.release(),
        system=_system(),
        environment=environment,
        vendor=vendor,
        place=place,
        installed=installed,
        problem=problem,
        warnings=warnings,
    )


def installed_in(store: Store, *, contents: bool = False) -> Installed:
    """What lies there; ``contents`` reads every file. Raises what ``status`` raises."""
    return steady(store, lambda: _installed(store, contents))


def _installed(store: Store, contents: bool) -> Installed:
    found = status(store)
    generation = found.current
    drift = Drift()
    if found.live is not None and generation is not None:
        drift = _drift(store, found.live, generation, contents)
    own: Set[str] = set(generation.ops) if generation is not None else set()
    if not own and live_exists(store):
        own = ops_of_vendor(store.live)
    return Installed(found, drift, _vendors(store, own, found.order), _last_smoke(store, generation))


def _drift(store: Store, live: LiveState, generation: Generation, contents: bool) -> Drift:
    """Letters only where there is something to tell: a tree whose sizes and times are right is not read again."""
    if not live.exists or (live.kind == "current" and not contents):
        return Drift()
    return Drift(compare(check_manifest(store, generation), read_tree(store.live)), contents)


def _vendors(store: Store, own: Set[str], order: Sequence[str]) -> tuple[Vendor, ...]:
    if not store.vendors.is_dir():
        return ()
    before = order[: order.index(store.vendor)] if store.vendor in order else order
    return tuple(
        Vendor(name, tuple(sorted(ops)), tuple(sorted(own & set(ops))), name in order, name in before)
        for name, ops in sorted(other_vendors(store.vendors, without=store.vendor).items())
    )


def _last_smoke(store: Store, generation: Generation | None) -> dict[str, str] | None:
    """The history has the tests of rollbacks too; the generation's own record is what its install proved."""
    if generation is None:
        return None
    for record in reversed(read_history(store, vendor=store.vendor)):
        smoke = record.get("smoke")
        if record.get("to") == generation.number and isinstance(smoke, dict) and smoke.get("verdict"):
            if smoke["verdict"] == "skipped":
                continue
            return _smoke_record(smoke, record.get("time"))
    return _smoke_record(generation.smoke, generation.created) if generation.smoke else None


def _smoke_record(smoke: Mapping[str, Any], when: Any) -> dict[str, str]:
    return {"verdict": str(smoke.get("verdict")), "reason": str(smoke.get("reason") or ""), "time": str(when or "")}


def _place(store: Store) -> dict[str, Any]:
    """Where the opp is, so that two hosts that share one can be told from two that have their own."""
    path = store.vendors if store.vendors.is_dir() else store.opp
    try:
        inode, free = os.stat(path).st_ino, shutil.disk_usage(path).free
    except OSError:
        inode, free = 0, 0
    mount = mount_of(path)
    return {
        "path": str(store.opp),
        "live_path": str(store.live),
        "shared": shared_kind(path) or (mount.kind if mount is not None and mount.shared else ""),
        "file_system": mount.kind if mount is not None else "",
        "mount_source": mount.source if mount is not None else "",
        "mount_path": mount.inside if mount is not None else "",
        "inode": inode,
        "free_bytes": free,
    }


def _system() -> dict[str, str]:
    try:
        found = platform.freedesktop_os_release()
    except OSError:
        found = {}
    return {
        "id": found.get("ID", sys.platform),
        "version": found.get("VERSION_ID", ""),
        "name": found.get("PRETTY_NAME", ""),
    }
