"""Every command that changes something, on the small world of tests/support/opp.py, for the tests of power cuts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from unittest import mock

from smallq_deploy.base.errors import SmallqError
from smallq_deploy.operate import gc, inuse, mover, preflight
from smallq_deploy.operate.gc import collect, pin
from smallq_deploy.operate.mover import recover_store, restore, rollback, uninstall
from smallq_deploy.operate.repair import repair
from tests.support import packages
from tests.support.opp import FAIL, PASS, World, release


@dataclass(frozen=True)
class Scenario:
    """What is there and durable, what is done, and how often the power is cut on a real file system in a full run."""

    prepare: Callable[[World], object]
    act: Callable[[World], object]
    cuts: int = 0
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


def _unlisted(world: World) -> None:
    """The name of the vendor is missing in config.ini: nothing but that file is to be changed."""
    world.make(found="")
    packages.make_vendor_tree(world.live, content="1", set_env=str(world.live))


def _failed(world: World) -> None:
    """A generation that did not pass its smoke test is kept to look at; the next install drops it."""
    _two(world)
    attempt(world, lambda world: world.install(world.package("3"), smoke=FAIL))


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


def _upgrade(method: str = "", **options: object) -> Callable[[World], object]:
    return lambda world: world.install(world.package("9"), method=method, **options)  # type: ignore[arg-type]


def _repair(world: World) -> object:
    return repair(world.store, release(), smoke=lambda: PASS, unit=packages.UNIT, arch=packages.ARCH)


def _rollback(world: World) -> object:
    return rollback(world.store, operator=packages.OPERATOR, smoke=lambda: PASS)


def _restore(world: World) -> object:
    return restore(world.store, operator=packages.OPERATOR, smoke=lambda: PASS)


SCENARIOS = {
    "first install": Scenario(_nothing, _upgrade(), 45),
    "first install fails": Scenario(_nothing, _upgrade(smoke=FAIL), ends=False),
    "adopting install": Scenario(_found, _upgrade(), 45),
    "upgrade": Scenario(_two, _upgrade(), 60),
    "upgrade by renames": Scenario(_two, _upgrade("renames"), 30),
    "upgrade by a copy": Scenario(_two, _upgrade("copy"), 20),
    "failing smoke": Scenario(_two, _upgrade(smoke=FAIL), 40, ends=False),
    "failing smoke, by renames": Scenario(_two, _upgrade("renames", smoke=FAIL), ends=False),
    "failing smoke, by a copy": Scenario(_two, _upgrade("copy", smoke=FAIL), 20, ends=False),
    "after a failed one": Scenario(_failed, _upgrade()),
    "rollback": Scenario(_two, _rollback, 30),
    "uninstall": Scenario(_two, lambda world: uninstall(world.store), 25),
    "uninstall an edited one": Scenario(_edited, lambda world: uninstall(world.store), edited=True),
    "purge": Scenario(_two, lambda world: uninstall(world.store, purge=True), 20),
    "gc": Scenario(_many, lambda world: collect(world.store, keep=0, adopted=True), 25),
    "pin": Scenario(_two, lambda world: pin(world.store, 2, reason="kept")),
    "restore": Scenario(_edited, _restore, 30, edited=True),
    "repair": Scenario(_nested, _repair, 30),
    "repair of config.ini": Scenario(_unlisted, _repair),
    "recover": Scenario(_interrupted, lambda world: recover_store(world.store), 15),
}


def attempt(world: World, act: Callable[[World], object]) -> str:
    """'' when it ended well, else the code of its error."""
    try:
        act(world)
    except SmallqError as error:
        return error.code
    return ""


def quiet_processes() -> None:
    """The search for processes that use the libraries only reads; it is another row's."""
    preflight.processes_using = mover.processes_using = lambda directory: ()  # type: ignore[attr-defined]
    gc.users_of = lambda store: inuse.Users()
