"""What is known about a release on a machine: tested combinations, known-bad ones, the driver each CANN wants.

Data, not code: ``manifests/compat/*.yaml`` of the tool and of the user's own manifests directory (format:
docs/reference/manifests.md). :func:`judge` puts release, machine and data together, for the plan and the selection.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from packaging.version import Version

from smallq_deploy.base.errors import IncompatibleError, SmallqError
from smallq_deploy.base.versions import CannSpecifier, CannVersion, DriverSpecifier, DriverVersion
from smallq_deploy.package.data import data_root
from smallq_deploy.package.releases import ANY_CANN, NAME_PATTERN, UNIT_PATTERN, Release, header, texts
from smallq_deploy.package.yamlfile import Reader, Value

if TYPE_CHECKING:
    from packaging.specifiers import SpecifierSet

    from smallq_deploy.machine.environment import Environment

# How sure a tested combination is, the surest first.
EVIDENCE = {
    "hardware": "smoke test and sweep passed on real devices",
    "simulated": "built, installed and called in the simulated toolkit only",
    "compiled": "the sources compile against its public headers; nothing was run",
}
_TEXT = r"[^\x00-\x08\x0b-\x1f\x7f]{1,2000}"
_ARCH = r"x86_64|aarch64"


@dataclass(frozen=True)
class Target:
    """The machine a release is judged for; '' and None are "not known", and what is not known refuses nothing."""

    cann: CannVersion | None = None
    unit: str = ""
    arch: str = ""
    driver: DriverVersion | None = None

    @staticmethod
    def of(environment: Environment, unit: str = "") -> Target:
        """``unit`` overrides the compute unit of the devices."""
        toolkit, driver = environment.toolkit, None
        with contextlib.suppress(SmallqError):
            driver = DriverVersion.parse(environment.devices.driver)
        return Target(
            toolkit.version if toolkit else None,
            unit or environment.unit,
            toolkit.arch if toolkit else environment.host_arch,
            driver,
        )

    def __str__(self) -> str:
        parts = (f"CANN {self.cann}" if self.cann else "", self.unit, self.arch)
        return ", ".join(part for part in parts if part) or "an unknown machine"

    def to_dict(self) -> dict[str, Any]:
        return {
            "cann": str(self.cann or ""),
            "unit": self.unit,
            "arch": self.arch,
            "driver": str(self.driver or ""),
        }


@dataclass(frozen=True)
class Policy:
    """What the user accepts. Known-bad combinations are never accepted."""

    allow_prerelease: bool = False
    allow_untested: bool = False


@dataclass(frozen=True)
class Tested:
    """A tested combination; ``evidence`` is a key of EVIDENCE, ``source`` tells where the result can be seen."""

    cann: CannSpecifier
    units: tuple[str, ...]
    arches: tuple[str, ...]
    evidence: str
    source: str

    def to_dict(self) -> dict[str, Any]:
        return {
            "cann": str(self.cann),
            "units": list(self.units),
            "arches": list(self.arches),
            "evidence": self.evidence,
            "source": self.source,
        }


@dataclass(frozen=True)
class KnownBad:
    """A combination that must not be used. Every key that is given must match; () and None match everything."""

    reason: str
    advice: str
    source: str
    cann: CannSpecifier | None = None
    units: tuple[str, ...] = ()
    arches: tuple[str, ...] = ()
    driver: DriverSpecifier | None = None

    def matches(self, target: Target) -> bool:
        """Where the machine's value is not known, the combination is not known to be there."""
        if self.cann is not None and (target.cann is None or self.cann.rejects(target.cann, allow_prerelease=True)):
            return False
        if self.driver is not None and (target.driver is None or not self.driver.matches(target.driver)):
            return False
        return (not self.units or target.unit in self.units) and (not self.arches or target.arch in self.arches)


@dataclass(frozen=True)
class DriverPair:
    """The driver that was published with a CANN release. A newer driver with an older CANN is the supported way."""

    cann: CannVersion
    driver: DriverVersion
    source: str


@dataclass(frozen=True)
class Compat:
    """Everything known for one release."""

    tested: tuple[Tested, ...] = ()
    known_bad: tuple[KnownBad, ...] = ()
    drivers: tuple[DriverPair, ...] = ()

    def evidence(self, target: Target) -> Tested | None:
        """The surest test of this CANN and compute unit, with this architecture where there is one."""
        order = list(EVIDENCE)
        fitting = [
            item
            for item in self.tested
            if (target.cann is None or not item.cann.rejects(target.cann, allow_prerelease=True))
            and (not target.unit or target.unit in item.units)
        ]
        return min(
            fitting,
            key=lambda item: (target.arch not in item.arches, order.index(item.evidence)),
            default=None,
        )

    def driver_for(self, cann: CannVersion) -> DriverPair | None:
        """The pair of ``cann``, else that of the newest CANN before it."""
        return max((pair for pair in self.drivers if pair.cann <= cann), key=lambda pair: pair.cann, default=None)


@dataclass(frozen=True)
class CompatFile:
    """One file. ``release`` '' speaks of every release; ``versions`` None of every version."""

    path: Path
    release: str
    versions: SpecifierSet | None
    compat: Compat

    def speaks_of(self, release: Release) -> bool:
        if self.release and self.release != release.name:
            return False
        return self.versions is None or self.versions.contains(Version(release.version), prereleases=True)


def user_manifests(environ: Mapping[str, str] | None = None) -> Path:
    """``$XDG_DATA_HOME/smallq-deploy/manifests``: ``releases/`` and ``compat/`` of the user's own."""
    environ = os.environ if environ is None else environ
    base = environ.get("XDG_DATA_HOME") or os.path.join(os.path.expanduser("~"), ".local", "share")
    return Path(base) / "smallq-deploy" / "manifests"


def manifest_files(kind: str, directories: Iterable[Path] | None = None) -> list[Path]:
    """``*.yaml`` of the ``kind`` folder in each manifests directory: by default the tool's, then the user's."""
    roots = [data_root() / "manifests", user_manifests()] if directories is None else directories
    return [path for root in roots for path in sorted((root / kind).glob("*.yaml"))]


def load_compat(path: Path) -> CompatFile:
    """Read a compatibility file. Raises PackageError BAD_MANIFEST (or Problems) and NO_MANIFEST."""
    reader = Reader(path)
    members = header(reader.load(), (), ("description", "release", "versions", "tested", "known_bad", "drivers"))
    if "description" in members:
        members["description"].text(_TEXT, "text")
    release = members["release"].text(NAME_PATTERN, "a lower-case name") if "release" in members else ""
    compat = Compat(
        tuple(_tested(item) for item in _items(members, "tested")),
        tuple(_known_bad(item) for item in _items(members, "known_bad")),
        tuple(_driver_pair(item) for item in _items(members, "drivers")),
    )
    if not {"tested", "known_bad", "drivers"} & set(members):
        reader.add(0, "", "says nothing: give at least one of tested, known_bad, drivers")
    if compat.tested and not release:
        members["tested"].problem("needs the key 'release': a test is of one release")
    versions = _versions(members["versions"]) if "versions" in members else None
    if versions is not None and not release:
        members["versions"].problem("needs the key 'release'")
    reader.finish()
    return CompatFile(path, release, versions, compat)


def compat_of(release: Release, directories: Iterable[Path] | None = None) -> Compat:
    """What all compatibility files say of ``release``. Raises as :func:`load_compat` does."""
    found = [item.compat for item in map(load_compat, manifest_files("compat", directories)) if item.speaks_of(release)]
    return Compat(
        tuple(item for compat in found for item in compat.tested),
        tuple(item for compat in found for item in compat.known_bad),
        tuple(item for compat in found for item in compat.drivers),
    )


@dataclass(frozen=True)
class Verdict:
    """Why a release does not fit a machine (() when it does), what to tell besides, and the best test there is."""

    problems: tuple[SmallqError, ...] = ()
    warnings: tuple[str, ...] = ()
    evidence: Tested | None = None
    target: Target = field(default_factory=Target)

    def to_dict(self) -> dict[str, Any]:
        return {"target": self.target.to_dict(), "tested": self.evidence.to_dict() if self.evidence else None}


def judge(release: Release, target: Target, compat: Compat, policy: Policy) -> Verdict:
    """Everything that speaks against ``release`` on ``target``, all at once; what ``policy`` lifts is a warning."""
    problems: list[SmallqError] = [
        IncompatibleError("KNOWN_BAD", f"known not to work with {target}: {bad.reason} ({bad.source})", hint=bad.advice)
        for bad in compat.known_bad
        if bad.matches(target)
    ]
    warnings: list[str] = []
    for problem in _doubts(release, target, compat):
        allowed = policy.allow_prerelease if problem.code == "CANN_PRERELEASE" else policy.allow_untested
        if not allowed:
            problems.append(problem)
        elif problem.code == "CANN_PRERELEASE" and target.cann is not None:
            warnings.append(f"--allow-prerelease: CANN {target.cann} is taken as the {target.cann.final} it leads to")
        else:
            warnings.append(f"--allow-untested: {problem.message}")
    return Verdict(tuple(problems), tuple(warnings), compat.evidence(target), target)


def _doubts(release: Release, target: Target, compat: Compat) -> Iterator[SmallqError]:
    """What the user can accept: a pre-release, or what nobody tested."""
    name = f"{release.name} {release.version}"
    fit = release.cann.judge(target.cann) if target.cann is not None else None
    if fit is not None and fit.fit == "no":
        yield IncompatibleError(
            "CANN_VERSION",
            f"{name} needs CANN {release.cann}: {fit.reason}",
            hint="choose another toolkit with --cann, or accept the risk with --allow-untested",
        )
    if fit is not None and fit.fit == "prerelease":
        yield IncompatibleError(
            "CANN_PRERELEASE",
            f"{name}: {fit.reason}",
            hint="choose a released CANN with --cann, or take this one as the release it leads to: --allow-prerelease",
        )
    unit_known = not target.unit or target.unit in release.units
    if not unit_known:
        yield IncompatibleError(
            "UNTESTED_UNIT",
            f"{name} was not released for {target.unit} (only {', '.join(release.units)})",
            hint="accept the risk with --allow-untested",
        )
    # What the release itself excludes needs no second refusal.
    if fit is not None and fit.fit != "no" and unit_known and compat.tested and compat.evidence(target) is None:
        ranges = " or ".join(dict.fromkeys(str(item.cann) for item in compat.tested))
        yield IncompatibleError(
            "UNTESTED_CANN",
            f"{name} was never tested with {target} (tested: CANN {ranges})",
            hint="choose another toolkit with --cann, or accept the risk with --allow-untested",
        )
    pair = compat.driver_for(target.cann) if target.cann is not None else None
    if pair is not None and target.driver is not None and target.driver < pair.driver:
        yield IncompatibleError(
            "DRIVER_TOO_OLD",
            f"CANN {target.cann} needs driver {pair.driver} or newer, this machine has {target.driver} ({pair.source})",
            hint="update the driver, choose an older CANN with --cann, or accept the risk with --allow-untested",
        )


def _items(members: Mapping[str, Value], key: str) -> list[Value]:
    return members[key].items(at_least=1, at_most=1000) if key in members else []


def _versions(value: Value) -> SpecifierSet | None:
    from packaging.specifiers import InvalidSpecifier, SpecifierSet  # half of what this module would take to import

    text = value.text()
    try:
        return SpecifierSet(text)
    except InvalidSpecifier:
        value.problem(f"{text!r:.80} is not a specifier of release versions such as >=0.1.0,<0.2")
        return None


def _units(value: Value | None) -> tuple[str, ...]:
    return texts(value, UNIT_PATTERN, "a compute unit such as ascend910b")


def _arches(value: Value | None) -> tuple[str, ...]:
    return texts(value, _ARCH, "x86_64 or aarch64")


def _line(parts: Mapping[str, Value], key: str) -> str:
    return parts[key].text(_TEXT, "text") if key in parts else ""


def _tested(value: Value) -> Tested:
    parts = value.mapping(("cann", "units", "arches", "evidence", "source"))
    evidence = (parts["evidence"].as_type(str) if "evidence" in parts else "") or ""
    if evidence and evidence not in EVIDENCE:
        parts["evidence"].problem(f"{evidence!r:.40} is not one of {', '.join(EVIDENCE)}")
    return Tested(
        parts["cann"].parsed(CannSpecifier.parse, ANY_CANN) if "cann" in parts else ANY_CANN,
        _units(parts.get("units")),
        _arches(parts.get("arches")),
        evidence,
        _line(parts, "source"),
    )


def _known_bad(value: Value) -> KnownBad:
    parts = value.mapping(("reason", "advice", "source"), ("cann", "units", "arches", "driver"))
    if not {"cann", "units", "arches", "driver"} & set(parts):
        value.problem("says of no combination: give at least one of cann, units, arches, driver")
    return KnownBad(
        _line(parts, "reason"),
        _line(parts, "advice"),
        _line(parts, "source"),
        parts["cann"].parsed(CannSpecifier.parse, ANY_CANN) if "cann" in parts else None,
        _units(parts.get("units")),
        _arches(parts.get("arches")),
        parts["driver"].parsed(DriverSpecifier.parse, _ANY_DRIVER) if "driver" in parts else None,
    )


_ANY_DRIVER = DriverSpecifier.parse(">=0.0.0")


def _driver_pair(value: Value) -> DriverPair:
    parts = value.mapping(("cann", "driver", "source"))
    none, nothing = CannVersion.parse("0.0.0"), DriverVersion.parse("0.0.0")
    return DriverPair(
        parts["cann"].parsed(CannVersion.parse, none) if "cann" in parts else none,
        parts["driver"].parsed(DriverVersion.parse, nothing) if "driver" in parts else nothing,
        _line(parts, "source"),
    )
