"""Every check of a machine that changes nothing, all at once: a registry of small functions and the one loop over them.

A check is ``run(context) -> Finding`` under a name and a section. One that fails never stops the rest; one that cannot
be made says why (status ``unknown``). The checks themselves are in doctor_machine, doctor_lookup and doctor_install.
"""

from __future__ import annotations

import importlib
import os
import platform
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from smallq_deploy.base.errors import DifferencesError, SmallqError
from smallq_deploy.operate.resolution import Resolution, resolve_operator

if TYPE_CHECKING:
    from smallq_deploy.machine.environment import Environment
    from smallq_deploy.machine.toolkit import Toolkit
    from smallq_deploy.package.releases import Release
    from smallq_deploy.package.vendortree import VendorTree
    from smallq_deploy.store.generations import Generation
    from smallq_deploy.store.paths import Store

PASS, WARN, FAIL, SKIP, UNKNOWN = "pass", "warn", "fail", "skip", "unknown"
STATUSES = (FAIL, WARN, UNKNOWN, PASS, SKIP)  # worst first
_MODULES = ("doctor_machine", "doctor_lookup", "doctor_install")


@dataclass(frozen=True)
class Finding:
    """What one check found. ``status``: pass, warn, fail, skip (does not apply here) or unknown (could not be checked).

    ``evidence`` is what was seen and where; ``why`` why it matters; ``mend`` the commands that mend it.
    """

    status: str
    message: str
    evidence: tuple[str, ...] = ()
    why: str = ""
    mend: tuple[str, ...] = ()


@dataclass(frozen=True)
class Check:
    """A registered check. ``why`` says why it matters, for findings that do not say it better."""

    name: str
    section: str
    why: str
    run: Callable[[Context], Finding]


@dataclass(frozen=True)
class Result:
    """A check and its finding."""

    check: Check
    finding: Finding

    @property
    def status(self) -> str:
        return self.finding.status

    def to_dict(self) -> dict[str, Any]:
        found = self.finding
        return {
            "name": self.check.name,
            "section": self.check.section,
            "status": found.status,
            "message": found.message,
            "evidence": list(found.evidence),
            "why": found.why or self.check.why,
            "mend": list(found.mend),
        }


_REGISTRY: dict[str, Check] = {}


def check(name: str, section: str, why: str) -> Callable[[Callable[[Context], Finding]], Callable[[Context], Finding]]:
    """Register a check; the order of registration is the order of the report."""

    def register(function: Callable[[Context], Finding]) -> Callable[[Context], Finding]:
        if name in _REGISTRY:
            raise ValueError(f"two checks are called {name}")
        _REGISTRY[name] = Check(name, section, why, function)
        return function

    return register


def checks() -> tuple[Check, ...]:
    """Every check, in the order of the report."""
    for module in _MODULES:
        importlib.import_module(f"smallq_deploy.operate.{module}")
    return tuple(_REGISTRY.values())


@dataclass
class Context:
    """What the checks look at, each thing read once.

    ``environ`` is the environment that is examined: of this process (``source`` says so), or what --environment names.
    ``store`` is None on a machine without a toolkit. ``root`` stands for / where usual places are looked at.
    """

    environment: Environment
    release: Release
    store: Store | None
    environ: Mapping[str, str]
    source: str = "this shell"
    root: Path = Path("/")
    options: str = ""  # what the commands that mend need besides, such as "--cann DIR"

    @property
    def toolkit(self) -> Toolkit:
        """Raises Skip where there is none."""
        if self.environment.toolkit is None:
            raise Skip("no CANN toolkit was found")
        return self.environment.toolkit

    @property
    def place(self) -> Store:
        """The store beside the live directory. Raises Skip where there is no toolkit."""
        if self.store is None:
            raise Skip("no CANN toolkit was found")
        return self.store

    @property
    def live(self) -> Path:
        return self.place.live

    @property
    def unit(self) -> str:
        """The compute unit of the devices; where none tells it, the release's only one, else ''."""
        units = self.release.units
        return self.environment.unit or (units[0] if len(units) == 1 else "")

    @cached_property
    def tree(self) -> VendorTree:
        """The live directory. Raises Skip where there is nothing to look at, AccessError."""
        from smallq_deploy.package.vendortree import inspect_vendor

        found = inspect_vendor(self.live)
        if found.layout in ("absent", "empty"):
            raise Skip(f"nothing is installed in {self.live}")
        return found

    @cached_property
    def generation(self) -> Generation | None:
        """The generation that should be live; None where nothing was installed by us. Raises as the store does."""
        from smallq_deploy.store.generations import find_generation, read_state

        return find_generation(self.place, read_state(self.place).of(self.place.vendor).current)

    @cached_property
    def sourced(self) -> bool:
        """True when the examined environment names an opp directory, as set_env.sh does."""
        return bool(self.environ.get("ASCEND_OPP_PATH"))

    @cached_property
    def effective(self) -> dict[str, str]:
        """The environment that lookups are computed with: the examined one; where no set_env.sh was sourced in it, the
        toolkit's, with what the examined one would leave in it (ASCEND_CUSTOM_OPP_PATH and LD_LIBRARY_PATH)."""
        if self.sourced:
            return dict(self.environ)
        try:
            found = self.toolkit.environment()
        except SmallqError:
            # The check named set-env says why; the other questions can be answered from the directories.
            drivers = [str(self.toolkit.install_root / "driver/lib64" / part) for part in ("", "common", "driver")]
            found = {
                "ASCEND_HOME_PATH": str(self.toolkit.home),
                "ASCEND_OPP_PATH": str(self.toolkit.opp),
                "LD_LIBRARY_PATH": ":".join([str(self.toolkit.home / "lib64"), *drivers]),
                "PATH": self.environ.get("PATH", os.defpath),
            }
        custom = self.environ.get("ASCEND_CUSTOM_OPP_PATH", "")
        if custom:
            found["ASCEND_CUSTOM_OPP_PATH"] = ":".join(
                dict.fromkeys([*custom.split(":"), *found.get("ASCEND_CUSTOM_OPP_PATH", "").split(":")])
            ).strip(":")
        libraries = [*found.get("LD_LIBRARY_PATH", "").split(":"), *self.environ.get("LD_LIBRARY_PATH", "").split(":")]
        found["LD_LIBRARY_PATH"] = ":".join(dict.fromkeys(part for part in libraries if part))
        return found

    @cached_property
    def resolution(self) -> Resolution:
        """Where the operator comes from in this environment."""
        return resolve_operator(self.release.operator, self.effective, unit=self.unit)


class Skip(Exception):
    """Raised by a check, or by what it asks, to say that it does not apply; the text says why."""


@dataclass(frozen=True)
class Diagnosis:
    """All findings, and the effective resolution (None where there is no environment to compute it with)."""

    results: tuple[Result, ...]
    resolution: Resolution | None
    source: str

    @property
    def counts(self) -> dict[str, int]:
        return {status: sum(item.status == status for item in self.results) for status in STATUSES}

    @property
    def failure(self) -> DifferencesError | None:
        """What the caller raises after having shown the report; None when no check failed."""
        failed = [item for item in self.results if item.status == FAIL]
        if not failed:
            return None
        names = ", ".join(item.check.name for item in failed)
        return DifferencesError(
            "DOCTOR_FINDINGS",
            f"{len(failed)} check{'s' if len(failed) > 1 else ''} failed: {names}",
            hint="each finding above names the command that mends it",
            details={"failed": [item.check.name for item in failed]},
        )

    def to_dict(self) -> dict[str, Any]:
        return {
            "environment_source": self.source,
            "counts": self.counts,
            "checks": [item.to_dict() for item in self.results],
            "resolution": self.resolution.to_dict() if self.resolution else None,
        }


def diagnose(context: Context, only: Sequence[Check] | None = None) -> Diagnosis:
    """Make every check. Never raises for what a check runs into: that is its finding."""
    results = tuple(
        Result(item, _with_options(_attempt(item, context), context.options))
        for item in (checks() if only is None else only)
    )
    try:
        resolution = context.resolution
    except (Skip, SmallqError, OSError, ValueError):
        resolution = None  # the check named resolution says why
    return Diagnosis(results, resolution, context.source)


def _with_options(found: Finding, options: str) -> Finding:
    """The commands that mend, for the toolkit and vendor that were looked at."""
    if not options:
        return found
    mend = tuple(
        re.sub(r"(smallq-deploy [a-z]+)(?![^`]*--(?:cann|opp))", rf"\1 {options}", line) for line in found.mend
    )
    return replace(found, mend=mend)


def _attempt(item: Check, context: Context) -> Finding:
    try:
        return item.run(context)
    except Skip as reason:
        return Finding(SKIP, str(reason))
    except SmallqError as error:
        mend = (error.hint,) if error.hint else ()
        return Finding(UNKNOWN, f"could not be checked: {error.message}", (error.code,), mend=mend)
    except Exception as error:
        return Finding(UNKNOWN, f"could not be checked: {type(error).__name__}: {error}")


def worst(findings: Sequence[Finding], good: str) -> Finding:
    """Several findings as one: the worst status, every message as evidence; ``good`` is the message of no finding."""
    bad = [item for item in findings if item.status in (FAIL, WARN)]
    if not bad:
        return Finding(PASS, good, tuple(line for item in findings for line in item.evidence))
    bad.sort(key=lambda item: STATUSES.index(item.status))
    first = bad[0]
    more = f" (and {len(bad) - 1} more)" if len(bad) > 1 else ""
    evidence = [line for item in bad for line in (*((item.message,) if len(bad) > 1 else ()), *item.evidence)]
    mend = tuple(dict.fromkeys(line for item in bad for line in item.mend))
    return Finding(first.status, first.message + more, tuple(evidence), first.why, mend)


def host_can_run(toolkit: Toolkit) -> bool:
    """True where programs of the toolkit can run on this host."""
    return toolkit.arch == platform.machine()


def same_place(first: Path | str, second: Path | str) -> bool:
    """True for two names of one directory."""
    return os.path.realpath(first) == os.path.realpath(second)
