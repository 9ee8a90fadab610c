"""More commands for the modelled disk, beside those of tests/support/cutscenarios.py, and how a command is tried."""

from __future__ import annotations

from collections.abc import Callable

from smallq_deploy.base.errors import SmallqError
from smallq_deploy.operate import gc, inuse, mover, preflight
from smallq_deploy.operate.mover import uninstall
from smallq_deploy.operate.repair import repair
from tests.support import packages
from tests.support.cutscenarios import CUTS, Scenario
from tests.support.opp import FAIL, PASS, World, release


def _two(world: World) -> None:
    world.make()
    world.install(world.package("1"))
    world.install(world.package("2"))


def _edited(world: World) -> None:
    _two(world)
    (world.live / "version.info").write_text("edited")


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


def _repair(world: World) -> object:
    return repair(world.store, release(), smoke=lambda: PASS, unit=packages.UNIT, arch=packages.ARCH)


SCENARIOS = {
    **CUTS,
    "first install fails": Scenario(lambda world: world.make(found=""), _failing(), 0, ends=False),
    "failing smoke, by renames": Scenario(_two, _failing("renames"), 0, ends=False),
    "failing smoke, by a copy": Scenario(_two, _failing("copy"), 0, ends=False),
    "after a failed one": Scenario(_failed, lambda world: world.install(world.package("9")), 0),
    "uninstall an edited one": Scenario(_edited, lambda world: uninstall(world.store), 0, edited=True),
    "first install fails, no other vendor": Scenario(_alone, _failing(), 0, ends=False),
    "uninstall, no other vendor": Scenario(_alone_installed, lambda world: uninstall(world.store), 0),
    "purge": Scenario(_two, lambda world: uninstall(world.store, purge=True), 0),
    "repair of config.ini": Scenario(_unlisted, _repair, 0),
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
    gc.users_of = lambda store: inuse.Users()  # type: ignore[attr-defined]
