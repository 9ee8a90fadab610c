"""Operators in several places: what a change takes away, and whose copy is used after it."""

from __future__ import annotations

from pathlib import Path

import pytest

from smallq_deploy.operate.mover import rollback, uninstall
from smallq_deploy.store.generations import load_generation
from tests.support import packages
from tests.support.opp import World
from tests.support.packages import OPERATOR, UNIT

OTHER_UNIT = "ascend910_93"


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path / "w").make(found="")


def add_unit(live: Path, operator: str) -> None:
    """The operator for one compute unit more."""
    files = packages.vendor_files(ops=[operator], unit=OTHER_UNIT)
    packages.write_files(live, {name: content for name, content in files.items() if f"/{OTHER_UNIT}/" in name})


def rows(world: World, package: Path, **options: bool) -> list[tuple[str, tuple[str, ...], str, str]]:
    """The plan's table of operators."""
    plan = world.plan(package, **options)
    return [(item.operator, item.units, item.source, item.outcome) for item in plan.operators]


def test_the_plan_lists_every_operator_that_would_be_lost_with_its_units(world: World) -> None:
    packages.make_vendor_tree(world.live, ops=[OPERATOR, "HcPost"])
    assert rows(world, world.package("1")) == [
        ("HcPost", (UNIT,), "the live directory", "lost"),
        (OPERATOR, (UNIT,), "the package", "used"),
    ]
    (problem,) = world.plan(world.package("1")).problems
    assert problem.details == {"operators": ["HcPost"], "units": {"HcPost": [UNIT]}}


def test_losing_a_compute_unit_of_a_foreign_operator_is_a_loss(world: World) -> None:
    packages.make_vendor_tree(world.live, ops=[OPERATOR, "HcPost"])
    add_unit(world.live, "HcPost")
    package = world.package("1", ops=[OPERATOR, "HcPost"])
    (problem,) = world.plan(package).problems
    assert (problem.code, problem.details["units"]) == ("FOREIGN_OPERATORS", {"HcPost": [OTHER_UNIT]})
    assert ("HcPost", (OTHER_UNIT,), "the live directory", "lost") in rows(world, package)
    world.install(package, drop_foreign=True)
    assert load_generation(world.store, 2).flags == {"drop_foreign": True}


def test_losing_a_compute_unit_of_our_own_operator_is_said_not_refused(world: World) -> None:
    packages.make_vendor_tree(world.live, ops=[OPERATOR])
    add_unit(world.live, OPERATOR)
    plan = world.plan(world.package("1"))
    assert plan.decision == "install"
    assert f"{OPERATOR} is no longer there for {OTHER_UNIT}: the new package lacks it" in plan.warnings


def test_a_package_with_everything_loses_nothing(world: World) -> None:
    packages.make_vendor_tree(world.live, ops=[OPERATOR, "HcPost"])
    assert all(outcome == "used" for *_, outcome in rows(world, world.package("1", ops=[OPERATOR, "HcPost"])))


@pytest.mark.parametrize(
    ("config", "first", "ours", "rival"),
    [
        ("rival", False, "unused: vendor rival comes first", "used"),
        ("rival", True, "used", "unused: vendor customize comes first"),
        ("", False, "used", "unused: config.ini does not name it"),
    ],
)
def test_who_wins_where_two_vendors_have_it(world: World, config: str, first: bool, ours: str, rival: str) -> None:
    packages.make_vendor_tree(world.store.vendors / "rival", vendor="rival")
    world.store.config_ini.write_text(f"load_priority={config}\n")
    assert rows(world, world.package("1"), priority_first=first) == [
        (OPERATOR, (UNIT,), "the package", ours),
        (OPERATOR, (UNIT,), "vendor rival", rival),
    ]


def test_a_built_in_operator_stands_behind_the_custom_one(world: World) -> None:
    packages.make_vendor_tree(world.opp / "built-in", ops=[OPERATOR])
    assert (OPERATOR, (UNIT,), "built into CANN", "unused: vendor customize comes first") in rows(
        world, world.package("1")
    )


@pytest.mark.parametrize(
    ("where", "note"),
    [
        ("vendors/rival", f"{OPERATOR}: that of vendor rival is used after this"),
        ("built-in", f"{OPERATOR}: the one built into CANN is used after this"),
        ("", f"{OPERATOR}: no vendor and no part of CANN has it after this"),
    ],
)
def test_uninstall_and_rollback_say_who_takes_over(world: World, where: str, note: str) -> None:
    if where:
        packages.make_vendor_tree(world.opp / where)
    if where.startswith("vendors/"):
        world.store.config_ini.write_text("load_priority=rival\n")
    world.install(world.package("1"), priority_first=True)
    assert uninstall(world.store, dry_run=True).notes == (note,)
    assert rollback(world.store, operator="", dry_run=True).notes == (note,)
    assert uninstall(world.store).notes == (note,)


def test_a_rollback_between_two_builds_hands_nothing_over(world: World) -> None:
    world.install(world.package("1"))
    world.install(world.package("2"))
    assert rollback(world.store, operator="").notes == ()


def test_a_rollback_behind_another_vendor_says_whose_is_used(world: World) -> None:
    packages.make_vendor_tree(world.store.vendors / "rival", vendor="rival")
    world.store.config_ini.write_text("load_priority=rival\n")
    world.install(world.package("1"), allow_shadowed=True)
    world.install(world.package("2"), allow_shadowed=True)
    assert rollback(world.store, operator="").notes == (f"{OPERATOR}: that of vendor rival is used after this",)
