"""What is done while the power may go: for the cuts on real file systems, on the modelled disk, and the mutants."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from unittest import mock

from smallq_deploy.operate.gc import collect, pin
from smallq_deploy.operate.mover import recover_store, restore, rollback, uninstall
from smallq_deploy.operate.repair import repair
from tests.support import packages
from tests.support.opp import FAIL, PASS, World, release

SEED = 20260804


@dataclass(frozen=True)
class Scenario:
    """What is there and durable, what is done, and how often the power is cut in a full run."""

    prepare: Callable[[World], object]
    act: Callable[[World], object]
    cuts: int
    ends: bool = True  # it ends well
    edited: bool = False  # somebody changed the live tree before


def _nothing(world: World) -> None:
    world.make(found="")


def _found(world: World) -> None:
    world.make()


def _two(world: World) -> None:
    world.make()
    world.install(world.package("1"))
    world.install(world.package("2"))


def _many(world: World) -> None:
    _two(world)
    world.install(world.package("3"))
    world.install(world.package("4"))


def _edited(world: World) -> None:
    _two(world)
    (world.live / "version.info").write_text("edited")


def _nested(world: World) -> None:
    world.make(found="nested")


def _interrupted(world: World) -> None:
    """A process died right after the switch."""
    _two(world)

    class Died(BaseException):
        pass

    def die() -> None:
        raise Died

    with mock.patch("smallq_deploy.store.transaction._Transaction._give_up", lambda self, error: None):
        try:
            world.install(world.package("3"), smoke=die)  # type: ignore[arg-type]
        except Died:
            return
    raise AssertionError("it lived")


CUTS = {
    "first install": Scenario(_nothing, lambda world: world.install(world.package("9")), 45),
    "adopting install": Scenario(_found, lambda world: world.install(world.package("9")), 45),
    "upgrade": Scenario(_two, lambda world: world.install(world.package("9")), 60),
    "upgrade by renames": Scenario(_two, lambda world: world.install(world.package("9"), method="renames"), 30),
    "upgrade by copy": Scenario(_two, lambda world: world.install(world.package("9"), method="copy"), 30),
    "failing smoke": Scenario(_two, lambda world: world.install(world.package("9"), smoke=FAIL), 40, ends=False),
    "rollback": Scenario(_two, lambda world: rollback(world.store, operator=packages.OPERATOR, smoke=lambda: PASS), 30),
    "uninstall": Scenario(_two, lambda world: uninstall(world.store), 25),
    "gc": Scenario(_many, lambda world: collect(world.store, keep=0, adopted=True), 25),
    "restore": Scenario(
        _edited, lambda world: restore(world.store, operator=packages.OPERATOR, smoke=lambda: PASS), 30, edited=True
    ),
    "repair": Scenario(
        _nested,
        lambda world: repair(world.store, release(), smoke=lambda: PASS, unit=packages.UNIT, arch=packages.ARCH),
        30,
    ),
    "pin": Scenario(_two, lambda world: pin(world.store, 1, reason="kept"), 8),
    "recover": Scenario(_interrupted, lambda world: recover_store(world.store), 15),
}
