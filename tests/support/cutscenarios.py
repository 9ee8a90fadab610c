"""What is done while the power may go: for the cuts on real file systems, on the modelled disk, and the mutants."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

from smallq_deploy.base.errors import SmallqError
from smallq_deploy.operate.gc import collect, pin
from smallq_deploy.operate.mover import recover_store, restore, rollback, uninstall
from smallq_deploy.operate.repair import repair
from smallq_deploy.store import switch
from tests.support import packages
from tests.support.opp import FAIL, PASS, World, release

SEED = 20260804


@dataclass(frozen=True)
class Scenario:
    """What is there and durable, what is done, and how often the power is cut on each real file system in a full run;
    0: only on the modelled disk."""

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


def attempt(world: World, act: Callable[[World], object]) -> str:
    """'' when it ended well, else the code of its error."""
    try:
        act(world)
    except SmallqError as error:
        return error.code
    return ""


def _unlisted(world: World) -> None:
    """The name of the vendor is missing in config.ini: nothing but that file is to be changed."""
    world.make(found="")
    packages.make_vendor_tree(world.live, content="1", set_env=str(world.live))


def _alone(world: World) -> None:
    """No other vendor: config.ini comes with the first install and goes with the uninstall."""
    world.make(found="", other=False)


def _alone_installed(world: World) -> None:
    _alone(world)
    world.install(world.package("1"))


def _failed(world: World) -> None:
    """A generation that did not pass its smoke test is kept to look at; the next install drops it."""
    _two(world)
    attempt(world, lambda world: world.install(world.package("3"), smoke=FAIL))


def _failing(method: str = "") -> Callable[[World], object]:
    return lambda world: world.install(world.package("9"), smoke=FAIL, method=method)


def _rollback_by_copy(world: World) -> object:
    """The store lies in a lower layer of overlayfs: its trees can be copied, not moved."""
    real = switch.move

    def move(source: Path, target: Path) -> None:
        if source.is_relative_to(world.store.generations):
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
        real(source, target)

    with mock.patch.object(switch, "move", move):
        return rollback(world.store, operator=packages.OPERATOR, smoke=lambda: PASS)


def _repair(world: World) -> object:
    return repair(world.store, release(), smoke=lambda: PASS, unit=packages.UNIT, arch=packages.ARCH)


CUTS = {
    "first install": Scenario(_nothing, lambda world: world.install(world.package("9")), 45),
    "adopting install": Scenario(_found, lambda world: world.install(world.package("9")), 45),
    "upgrade": Scenario(_two, lambda world: world.install(world.package("9")), 60),
    "upgrade by renames": Scenario(_two, lambda world: world.install(world.package("9"), method="renames"), 30),
    "upgrade by copy": Scenario(_two, lambda world: world.install(world.package("9"), method="copy"), 30),
    "failing smoke": Scenario(_two, _failing(), 40, ends=False),
    "rollback": Scenario(_two, lambda world: rollback(world.store, operator=packages.OPERATOR, smoke=lambda: PASS), 30),
    "uninstall": Scenario(_two, lambda world: uninstall(world.store), 25),
    "gc": Scenario(_many, lambda world: collect(world.store, keep=0, adopted=True), 25),
    "restore": Scenario(
        _edited, lambda world: restore(world.store, operator=packages.OPERATOR, smoke=lambda: PASS), 30, edited=True
    ),
    "repair": Scenario(_nested, _repair, 30),
    "pin": Scenario(_two, lambda world: pin(world.store, 1, reason="kept"), 8),
    "recover": Scenario(_interrupted, lambda world: recover_store(world.store), 15),
    "first install fails": Scenario(_nothing, _failing(), 0, ends=False),
    "failing smoke, by renames": Scenario(_two, _failing("renames"), 0, ends=False),
    "failing smoke, by a copy": Scenario(_two, _failing("copy"), 0, ends=False),
    "after a failed one": Scenario(_failed, lambda world: world.install(world.package("9")), 0),
    "uninstall an edited one": Scenario(_edited, lambda world: uninstall(world.store), 0, edited=True),
    "first install fails, no other vendor": Scenario(_alone, _failing(), 0, ends=False),
    "uninstall, no other vendor": Scenario(_alone_installed, lambda world: uninstall(world.store), 0),
    "purge": Scenario(_two, lambda world: uninstall(world.store, purge=True), 0),
    "rollback by a copy": Scenario(_two, _rollback_by_copy, 0),
    "repair of config.ini": Scenario(_unlisted, _repair, 0),
}
