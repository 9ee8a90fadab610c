"""verify: drift of an installed tree letter by letter, causes in a tree we did not install, an open transaction."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from smallq_deploy.base.errors import OpenTransactionError, SmallqError
from smallq_deploy.base.fsops import tree_digest
from smallq_deploy.operate.mover import rollback, uninstall
from smallq_deploy.operate.readahead import TreeReader
from smallq_deploy.operate.verifier import LETTERS, VerifyReport, verify, verify_while
from smallq_deploy.package.vendortree import API_LIBRARY, TBE
from tests.support import packages
from tests.support.opp import World, release

LINK = f"{TBE}/op_tiling/liboptiling.so"
HEADER = "op_api/include/aclnn_smallq_flash_attention.h"


@pytest.fixture
def world(tmp_path: Path) -> World:
    made = World(tmp_path).make(found="")
    made.install(made.package())
    return made


def check(world: World) -> VerifyReport:
    return verify(world.store, release(), unit=packages.UNIT, arch=packages.ARCH)


def codes(report: VerifyReport) -> set[str]:
    return {finding.code for finding in report.findings}


def test_a_fresh_install_is_clean(world: World) -> None:
    before = tree_digest(world.opp)
    report = check(world)
    assert (report.state, report.clean, report.failure) == ("installed", True, None)
    assert report.checked == sum(1 for _ in world.live.rglob("*"))
    assert tree_digest(world.opp) == before


def test_times_alone_are_no_difference(world: World) -> None:
    for path in world.live.rglob("*"):
        os.utime(path, (1, 1), follow_symlinks=False)
    assert check(world).clean


def same_size(path: Path) -> None:
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1
    path.write_bytes(raw)


def by_link(path: Path) -> None:
    path.unlink()
    path.symlink_to("/etc/hostname")


def relink(path: Path) -> None:
    path.unlink()
    path.symlink_to("elsewhere.so")


DRIFT: list[tuple[str, Callable[[Path], object], str]] = [
    (HEADER, lambda path: path.write_text(path.read_text() + "// more\n"), "S.5.T"),
    (HEADER, same_size, "..5.T"),
    (HEADER, lambda path: path.chmod(0o600), ".M..."),
    (HEADER, lambda path: path.unlink(), "missing"),
    (HEADER, by_link, ".M.L."),
    (API_LIBRARY, lambda path: os.truncate(path, 100), "S.5.T"),
    (LINK, relink, "...L."),
    ("op_api", lambda path: path.chmod(0o700), ".M..."),
    ("op_api/new.h", lambda path: path.write_text("x"), "added"),
    ("op_api/new", lambda path: path.mkdir(), "added"),
]


@pytest.mark.parametrize(("name", "drift", "letters"), DRIFT)
def test_drift(world: World, name: str, drift: Callable[[Path], object], letters: str) -> None:
    drift(world.live / name)
    report = check(world)
    assert [(item.path, item.letters) for item in report.differences] == [(name, letters)]
    assert report.failure is not None
    assert (report.failure.code, report.failure.exit_status) == ("DIFFERENCES", 10)
    assert "entries differ" in report.failure.message
    assert report.failure.details["differences"] == [{"path": name, "letters": letters}]
    assert len(letters) == len(LETTERS) or letters in ("missing", "added")


def read_ahead(world: World, tree: Path) -> VerifyReport:
    ahead = TreeReader(tree)
    return verify_while(world.store, lambda: (release(), packages.UNIT), arch=packages.ARCH, ahead=ahead)


@pytest.mark.parametrize("earlier", ["as installed", "another tree", "nothing", "a link"])
def test_what_was_read_too_early_never_makes_a_difference(world: World, tmp_path: Path, earlier: str) -> None:
    """Reading may begin in the middle of a switch, where another tree or none lies in the live directory."""
    tree = world.live if earlier == "as installed" else tmp_path / "earlier"
    if earlier == "another tree":
        shutil.copytree(world.live, tree, symlinks=True)
        (tree / HEADER).write_text("of another generation")
    elif earlier == "a link":
        tree.symlink_to(world.live)
    report = read_ahead(world, tree)
    assert (report.state, report.clean) == ("installed", True)
    assert report.checked == sum(1 for _ in world.live.rglob("*"))


def test_what_differs_is_found_by_reading_ahead_too(world: World) -> None:
    same_size(world.live / HEADER)
    assert [(item.path, item.letters) for item in read_ahead(world, world.live).differences] == [(HEADER, "..5.T")]


def test_a_tree_that_cannot_be_read(world: World) -> None:
    (world.live / "/".join("d" * 202)).mkdir(parents=True)
    with pytest.raises(SmallqError, match="nested more than 200 deep") as caught:
        read_ahead(world, world.live)
    assert str(world.live / "d") in caught.value.message


def test_a_deleted_tree(world: World) -> None:
    shutil.rmtree(world.live)
    report = check(world)
    assert report.state == "missing"
    assert "NOT_INSTALLED" in codes(report)
    assert report.failure is not None
    assert "generation 1 should be live" in report.findings[0].message


def test_nothing_installed(tmp_path: Path, world: World) -> None:
    empty = World(tmp_path / "other").make(found="", other=False)
    report = check(empty)
    assert (report.state, codes(report)) == ("absent", {"NOT_INSTALLED"})
    uninstall(world.store)
    report = check(world)
    assert (report.state, codes(report)) == ("absent", {"NOT_INSTALLED"})


def test_config_ini(world: World) -> None:
    config = world.store.config_ini
    config.write_text("load_priority=other\n")
    assert codes(check(world)) == {"VENDOR_NOT_LISTED"}
    config.unlink()
    report = check(world)
    assert codes(report) == {"VENDOR_NOT_LISTED"}
    assert "does not exist" in report.findings[0].message
    config.write_text("load_priority = other, customize\n")
    assert codes(check(world)) == {"CONFIG_MALFORMED"}
    config.write_text("load_priority=other,gone,customize\n")
    report = check(world)
    assert codes(report) == {"CONFIG_DANGLING"}
    assert "gone" in report.findings[0].message


def test_another_vendor_that_wins(world: World) -> None:
    packages.make_vendor_tree(world.store.vendors / "rival")
    world.store.config_ini.write_text("load_priority=customize,rival\n")
    assert check(world).clean
    world.store.config_ini.write_text("load_priority=rival,customize\n")
    report = check(world)
    assert codes(report) == {"SHADOWED"}
    assert "rival" in report.findings[0].message


def test_a_tree_we_did_not_install(tmp_path: Path) -> None:
    """Static checks only, and the causes are named."""
    world = World(tmp_path).make(found="")
    packages.make_vendor_tree(world.live, layout="nested", set_env="/deleted/vendors/customize")
    report = check(world)
    assert (report.state, report.generation, report.checked) == ("unknown", None, 0)
    assert codes(report) == {"NESTED_LAYOUT", "VENDOR_NOT_LISTED"}
    assert report.failure is not None
    assert report.failure.exit_status == 10
    assert "repair" in report.failure.hint
    shutil.rmtree(world.live)
    packages.make_vendor_tree(world.live, set_env="/deleted/vendors/customize")
    assert codes(check(world)) == {"SET_ENV_DANGLING", "VENDOR_NOT_LISTED"}


def test_a_good_hand_made_install_is_clean(tmp_path: Path) -> None:
    world = World(tmp_path).make(found="")
    packages.make_vendor_tree(world.live, set_env=str(world.live))
    world.store.config_ini.write_text("load_priority=customize\n")
    assert check(world).clean
    assert not world.store.exists


def test_an_adopted_generation_is_compared_with_what_was_found(tmp_path: Path) -> None:
    world = World(tmp_path).make(found="nested")
    world.install(world.package())
    rollback(world.store, operator=packages.OPERATOR, to=1)
    report = check(world)
    assert (report.state, report.differences) == ("adopted", ())
    assert "NESTED_LAYOUT" in codes(report)


def test_an_open_transaction_stands_in_the_way(world: World) -> None:
    def killed() -> None:
        raise KeyboardInterrupt

    saved = world.store.journal
    with pytest.raises(KeyboardInterrupt):
        world.install(world.package("2"), smoke=lambda: killed())  # type: ignore[arg-type,return-value]
    assert not saved.exists()  # undone in an orderly way: nothing stands in the way
    assert check(world).clean

    pid = os.fork()
    if pid == 0:
        world.install(world.package("2"), smoke=lambda: os._exit(0))  # type: ignore[arg-type,return-value]
    os.waitpid(pid, 0)
    with pytest.raises(OpenTransactionError) as caught:
        check(world)
    assert (caught.value.code, caught.value.exit_status) == ("OPEN_TRANSACTION", 12)
