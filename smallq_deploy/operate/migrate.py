"""After a switch of CANN: which operators stayed in the tree of another toolkit, and how to bring them into this one.

Operators of the release are built again from source for the new toolkit and installed as any package is, with plan,
smoke test and generation. Of somebody else's operators the sources are not known; they are named, with what to do. The
old tree is never changed.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from smallq_deploy.base.errors import DifferencesError, SmallqError
from smallq_deploy.base.events import Events
from smallq_deploy.machine.facts import read_facts
from smallq_deploy.operate.proving import Smoke
from smallq_deploy.package.compat import Policy, Target, compat_of, judge
from smallq_deploy.package.vendortree import inspect_vendor, other_vendors
from smallq_deploy.store.generations import Generation, load_generation, read_state
from smallq_deploy.store.paths import Store

if TYPE_CHECKING:
    from smallq_deploy.machine.environment import Environment
    from smallq_deploy.operate.installer import InstallReport
    from smallq_deploy.package.releases import Release

REBUILD, REINSTALL, BY_HAND = "rebuild", "reinstall", "by-hand"


@dataclass(frozen=True)
class Left:
    """A vendor directory of another toolkit with operators that the chosen toolkit's directory of that name lacks.

    ``generation`` is what the old store says of it; None when smallq-deploy did not install it.
    """

    vendor: str
    vendors: Path
    version: str
    operators: tuple[str, ...]
    missing: tuple[str, ...]
    units: tuple[str, ...]
    generation: Generation | None = None


@dataclass(frozen=True)
class Item:
    """What migrate does about one directory: ``action`` rebuild, reinstall (a package built here fits) or by-hand."""

    left: Left
    action: str
    reason: str
    hint: str = ""
    unit: str = ""
    recipes: Path | None = None
    package: Path | None = None
    outcome: str = ""  # after execution: migrated | failed
    error: SmallqError | None = None
    report: InstallReport | None = None

    def to_dict(self) -> dict[str, Any]:
        change = self.report.change if self.report is not None else None
        return {
            "vendor": self.left.vendor,
            "found_in": str(self.left.vendors / self.left.vendor),
            "found_version": self.left.version,
            "operators": list(self.left.operators),
            "missing": list(self.left.missing),
            "release": self.left.generation.release if self.left.generation else "",
            "action": self.action,
            "reason": self.reason,
            "hint": self.hint,
            "unit": self.unit,
            "recipes": str(self.recipes) if self.recipes else None,
            "package": str(self.package) if self.package else None,
            "outcome": self.outcome,
            "error": self.error.to_dict() if self.error else None,
            "generation": change.live if change is not None else None,
        }


@dataclass(frozen=True)
class Migration:
    """``decision``: ``nothing`` (no operator was left behind), ``planned``, or ``done`` (see each item's outcome)."""

    store: Store
    decision: str
    items: tuple[Item, ...]

    @property
    def possible(self) -> tuple[Item, ...]:
        """What can be built and installed without a human."""
        return tuple(item for item in self.items if item.action != BY_HAND)

    @property
    def failure(self) -> SmallqError | None:
        """What the caller raises after having shown the report: the first failure, or that something is left."""
        failed = next((item.error for item in self.items if item.error is not None), None)
        left = [item for item in self.items if item.action == BY_HAND]
        if failed is not None or not left or self.decision == "planned":
            return failed
        names = ", ".join(dict.fromkeys(name for item in left for name in item.left.missing))
        return DifferencesError(
            "OPERATORS_LEFT",
            f"not migrated: {names}",
            hint=left[0].hint,
            details={"vendors": [item.left.vendor for item in left]},
        )

    def to_dict(self) -> dict[str, Any]:
        return {
            "target": str(self.store.vendors),
            "decision": self.decision,
            "items": [item.to_dict() for item in self.items],
        }


def other_opps(environment: Environment, opp: Path) -> tuple[Path, ...]:
    """The opp directories of every other toolkit: those that discovery looked at, usable or not (an inactive toolkit of
    the old layout is not), and those beside the chosen one."""
    places = [item.path for item in environment.discovery.candidates]
    if environment.toolkit is not None:
        root = environment.toolkit.install_root
        places += [*sorted(root.glob("cann-*")), *sorted(root.glob("ascend-toolkit/*"))]
    found = [Path(os.path.realpath(place / "opp")) for place in places if os.path.isdir(place / "opp")]
    own = {os.path.realpath(opp)}
    if environment.toolkit is not None:
        own.add(os.path.realpath(environment.toolkit.home / "opp"))  # not the same with --opp
    return tuple(path for path in dict.fromkeys(found) if str(path) not in own)


def left_behind(environment: Environment, store: Store) -> tuple[Left, ...]:
    """Operators in other toolkits' vendor directories that no vendor directory of the chosen toolkit has.

    Raises AccessError where a directory may not be read.
    """
    here = other_vendors(store.vendors)
    everywhere = frozenset(name for operators in here.values() for name in operators)
    return tuple(_left(environment, store, everywhere))


def _left(environment: Environment, store: Store, present: frozenset[str]) -> Iterator[Left]:
    for opp in other_opps(environment, store.opp):
        for vendor, registered in other_vendors(opp / "vendors").items():
            tree = inspect_vendor(opp / "vendors" / vendor)
            operators = frozenset({*tree.ops, *registered})
            missing = operators - present
            if missing:
                yield Left(
                    vendor,
                    opp / "vendors",
                    _version(opp, environment.host_arch),
                    tuple(sorted(operators)),
                    tuple(sorted(missing)),
                    tree.units,
                    _generation(opp, vendor),
                )


def _version(opp: Path, host_arch: str) -> str:
    statements = read_facts(opp.parent, host_arch).statements
    return str(statements[0].version) if statements else "unknown"


def _generation(opp: Path, vendor: str) -> Generation | None:
    """What the store of that opp says is live; None where it says nothing, or cannot be understood."""
    try:
        store = Store(opp, vendor)
        current = read_state(store).of(vendor).current
        return load_generation(store, current) if current else None
    except SmallqError:
        return None


def plan(
    environment: Environment,
    release: Release,
    store: Store,
    *,
    recipes: Path | None = None,
    unit: str = "",
    policy: Policy | None = None,
) -> Migration:
    """What would be migrated, and how; builds and changes nothing.

    ``policy`` is what the user accepts of the new toolkit (default: nothing untested). Raises AccessError, and
    PackageError for compatibility data that cannot be understood.
    """
    found = left_behind(environment, store)
    # Of several old toolkits, the first in the order of discovery speaks for a vendor directory.
    unique = {(item.vendor, item.missing): item for item in reversed(found)}
    items = tuple(
        _decide(item, environment, release, recipes, unit, policy or Policy()) for item in reversed(unique.values())
    )
    return Migration(store, "planned" if items else "nothing", items)


def _decide(
    left: Left, environment: Environment, release: Release, recipes: Path | None, unit: str, policy: Policy
) -> Item:
    from smallq_deploy.operate.builder import find_built

    toolkit = environment.toolkit
    assert toolkit is not None
    foreign = [name for name in left.operators if name != release.operator]
    new = f"CANN {toolkit.version}"
    if release.operator not in left.operators:
        return Item(
            left,
            BY_HAND,
            f"the sources of {', '.join(left.missing)} are not known to smallq-deploy",
            f"build {', '.join(left.missing)} with its own project against {new}, then: "
            f"smallq-deploy install PACKAGE --vendor {left.vendor}, or the package's own installer",
        )
    if foreign:
        return Item(
            left,
            BY_HAND,
            f"{left.vendor} holds {release.operator} together with {', '.join(foreign)}, whose sources are not known",
            f"build all of them into one package against {new} and install it, or give {release.operator} a vendor "
            "directory of its own",
        )
    wanted = unit or environment.unit or (left.units[0] if len(left.units) == 1 else "")
    if wanted not in release.units:
        known = ", ".join(release.units)
        return Item(left, BY_HAND, f"for which chip to build is not known ({wanted or 'no device tells it'})",
                    f"name it: smallq-deploy migrate --soc {known}")  # fmt: skip
    problems = judge(release, Target.of(environment, wanted), compat_of(release), policy).problems
    if problems:
        return Item(left, BY_HAND, problems[0].message, problems[0].hint, wanted)
    built = find_built(environment, release, wanted, vendor=left.vendor)
    if built is not None:
        return Item(left, REINSTALL, f"a package for {new} was built here", unit=wanted, package=built)
    place = recipes or recorded_recipes(left.generation)
    if place is None or not place.is_dir():
        gone = f" ({place} is gone)" if place is not None else ""
        return Item(left, BY_HAND, f"no record tells the checkout it was built with{gone}",
                    "smallq-deploy migrate --recipes DIR, with a checkout of cann-recipes-infer", wanted)  # fmt: skip
    return Item(left, REBUILD, f"for {new}, with the checkout {place}", unit=wanted, recipes=place)


def recorded_recipes(generation: Generation | None) -> Path | None:
    """The checkout that the generation's package was built with, by the provenance kept on this machine."""
    from smallq_deploy.operate.built import kept_records

    if generation is None or not generation.package_sha256:
        return None
    for _, record in kept_records():
        package = record.get("package")
        if isinstance(package, dict) and package.get("sha256") == generation.package_sha256 and record.get("recipes"):
            return Path(str(record["recipes"]))
    return None


def migrate(
    planned: Migration,
    environment: Environment,
    release: Release,
    *,
    smoke: Callable[[Store], Smoke],
    options: dict[str, Any] | None = None,
    events: Events | None = None,
) -> Migration:
    """Build and install every item that can be; one that fails does not stop the others.

    ``smoke`` makes the smoke test of a vendor's store; ``options`` are those of InstallOptions for every install.
    Failures are part of the answer (Item.error), with the old state of that vendor directory kept.
    """
    events = events or Events()
    items = []
    for item in planned.items:
        if item.action == BY_HAND:
            items.append(item)
            continue
        try:
            with events.step(f"migrate {release.operator} into {planned.store.vendors / item.left.vendor}"):
                items.append(_one(item, planned.store.opp, environment, release, smoke, options or {}, events))
        except SmallqError as error:
            items.append(replace(item, outcome="failed", error=error))
    return replace(planned, decision="done" if items else "nothing", items=tuple(items))


def _one(
    item: Item,
    opp: Path,
    environment: Environment,
    release: Release,
    smoke: Callable[[Store], Smoke],
    options: dict[str, Any],
    events: Events,
) -> Item:
    from smallq_deploy.operate.builder import build
    from smallq_deploy.operate.installer import install
    from smallq_deploy.operate.planner import InstallOptions, make_plan
    from smallq_deploy.package.runfile import read_run

    store = Store(opp, item.left.vendor)
    package = item.package
    if package is None:
        assert item.recipes is not None
        package = build(
            environment.discovery, release, recipes=item.recipes, unit=item.unit, vendor=item.left.vendor, events=events
        ).package
    made = make_plan(environment, release, store, read_run(package), InstallOptions(unit=item.unit, **options))
    for warning in made.warnings:
        events.warning(warning)
    report = install(made, smoke=smoke(store), events=events)
    return replace(item, package=package, outcome="migrated", report=report)
