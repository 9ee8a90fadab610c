"""Saves what today's code leaves on disk, for tests that later versions must still read it.

    python tests/data/make_state.py DIRECTORY PLACE

DIRECTORY is ``tests/data/state/v<schema>``; the stores are made below PLACE (such as /opt/sample), which is removed
again: its path stands in the files, so it should be nobody's. A saved state is made once, with the release that first
wrote its schema, and never again. Archives, because git keeps neither modes nor times.
"""

from __future__ import annotations

import contextlib
import shutil
import sys
import tarfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

from smallq_deploy.base.errors import SmokeError
from smallq_deploy.operate.mover import rollback, uninstall
from smallq_deploy.store import transaction
from tests.support import packages
from tests.support.opp import FAIL, PASS, FakeSmoke, World


class Died(BaseException):
    """The process ends here."""


def several_generations(world: World) -> None:
    """1 adopted, 2 and 3 installed, 4 failed its smoke test; rolled back from 3 to 2."""
    world.make()
    world.install(world.package("1"))
    world.install(world.package("2"), no_smoke=True)
    with contextlib.suppress(SmokeError):
        world.install(world.package("3"), smoke=FAIL)
    rollback(world.store, operator=packages.OPERATOR, smoke=lambda: PASS)


def nothing_live(world: World) -> None:
    """2 was live and was removed."""
    world.make()
    world.install(world.package("1"))
    uninstall(world.store)


def interrupted(world: World) -> None:
    """2 was live; the process that had just made 3 live died before the smoke test decided."""
    world.make()
    world.install(world.package("1"))

    def die() -> FakeSmoke:
        raise Died

    transaction._Transaction._give_up = lambda self, error: None  # type: ignore[method-assign]
    with contextlib.suppress(Died):
        world.install(world.package("2"), smoke=die)


def main(target: Path, place: Path) -> None:
    owner = {"pid": 4242, "host": "node1", "user": "operator", "command": "smallq-deploy install", "since": ""}
    transaction.owner_record = lambda: owner
    target.mkdir(parents=True, exist_ok=True)
    for make in (several_generations, nothing_live, interrupted):
        place.mkdir()
        try:
            world = World(place)
            make(world)
            with tarfile.open(target / f"{make.__name__.replace('_', '-')}.tar.gz", "w:gz") as archive:
                archive.add(world.opp, "opp", filter=_anonymous)
        finally:
            shutil.rmtree(place)


def _anonymous(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    return entry


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
