"""repair: what the three lines of the usual README leave is recognised and put right; what was found can come back."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from smallq_deploy.base.errors import ConflictError
from smallq_deploy.base.fsops import tree_digest
from smallq_deploy.operate.mover import rollback
from smallq_deploy.operate.repair import RepairReport, diagnose, repair
from smallq_deploy.operate.verifier import verify
from smallq_deploy.package.vendortree import API_LIBRARY, TBE, inspect_vendor
from smallq_deploy.store.history import read_history
from tests.support import packages
from tests.support.opp import FAIL, PASS, World, release


@pytest.fixture
def world(tmp_path: Path) -> World:
    """An opp where nothing of ours was installed; vendor "other" is there and named in config.ini."""
    return World(tmp_path).make(found="")


def codes(report: RepairReport) -> set[str]:
    return {finding.code for finding in report.found}


def assert_right(world: World) -> None:
    report = verify(world.store, release(), unit=packages.UNIT, arch=packages.ARCH)
    assert report.clean, report.to_dict()
    assert inspect_vendor(world.live).layout == "flat"
    assert world.store.config_ini.read_text() == "load_priority=other,customize\n"
    assert str(world.live) in (world.live / "bin" / "set_env.bash").read_text()


def test_the_readme_route_step_by_step(world: World, tmp_path: Path) -> None:
    """The package's script into vendors/customize (nested), then `cp -rf` up, then `rm -rf`: repair after each step."""
    run = world.package()
    for steps, expected in (
        (1, {"NESTED_LAYOUT", "VENDOR_NOT_LISTED"}),
        (2, {"BOTH_LAYOUTS", "VENDOR_NOT_LISTED"}),
        (3, {"SET_ENV_DANGLING", "VENDOR_NOT_LISTED"}),
    ):
        shutil.rmtree(world.live, ignore_errors=True)
        shutil.rmtree(world.store.root, ignore_errors=True)
        world.store.config_ini.write_text("load_priority=other\n")
        world.live.mkdir()
        home = tmp_path / "home"
        home.mkdir(exist_ok=True)
        commands = f"HOME={home} {run} --quiet --install-path={world.live} >/dev/null"
        commands += f"\ncp -rf {world.live}/vendors/customize/. {world.live}" if steps > 1 else ""
        commands += f"\nrm -rf {world.live}/vendors" if steps > 2 else ""
        assert os.system(f"set -e\n{commands}") == 0
        found = tree_digest(world.live)
        assert not verify(world.store, release(), unit=packages.UNIT).clean

        report = repair(world.store, release(), smoke=lambda: PASS)
        assert (report.decision, codes(report), report.remaining, report.failure) == ("repaired", expected, (), None)
        assert report.change is not None
        assert report.change.generation is not None
        assert (report.change.generation.origin, report.change.generation.proven) == ("repaired", True)
        assert_right(world)

        rollback(world.store, operator=packages.OPERATOR, to=report.change.adopted)
        assert tree_digest(world.live) == found
        assert world.store.config_ini.read_text() == "load_priority=other\n"


def test_the_repaired_tree_equals_an_install(world: World, tmp_path: Path) -> None:
    packages.make_vendor_tree(world.live, layout="double", set_env="/gone", content="1")
    repair(world.store, release())
    fresh = World(tmp_path / "fresh").make(found="")
    fresh.install(fresh.package())
    assert tree_digest(world.live / "op_api") == tree_digest(fresh.live / "op_api")
    assert tree_digest(world.live / "op_impl") == tree_digest(fresh.live / "op_impl")


def test_old_flat_copy_with_stale_files_below_a_new_nested_one(world: World) -> None:
    packages.make_vendor_tree(world.live, content="old")
    stale = world.live / TBE / "kernel" / packages.UNIT / "stale.o"
    stale.write_bytes(b"old")
    os.utime(world.live / API_LIBRARY, (1, 1))
    packages.make_vendor_tree(world.live / "vendors" / "customize", content="new")
    report = repair(world.store, release())
    assert codes(report) == {"BOTH_LAYOUTS", "VENDOR_NOT_LISTED"}
    assert (world.live / API_LIBRARY).read_bytes().endswith(b"new")
    assert not stale.exists()
    assert_right(world)


def test_modes_that_lock_other_users_out(world: World) -> None:
    packages.make_vendor_tree(world.live, set_env=str(world.live))
    world.store.config_ini.write_text("load_priority=other,customize\n")
    for path in (world.live, world.live / "op_api", world.live / API_LIBRARY):
        path.chmod(0o750)
    report = repair(world.store, release())
    assert codes(report) == {"WRONG_MODE"}
    assert_right(world)


def test_config_ini_alone_makes_no_generation(world: World) -> None:
    packages.make_vendor_tree(world.live, set_env=str(world.live))
    before = tree_digest(world.live)
    for text in ("load_priority=other\n", "load_priority = other , customize\n", "# comment\nload_priority=other\n"):
        world.store.config_ini.write_text(text)
        world.store.config_ini.chmod(0o640)
        report = repair(world.store, release())
        assert (report.decision, report.change, report.remaining) == ("config", None, ())
        assert world.store.config_ini.read_text().startswith("load_priority=other,customize\n")
        assert world.store.config_ini.stat().st_mode & 0o777 == 0o644
    assert tree_digest(world.live) == before
    assert not list(world.store.generations.iterdir())
    assert [line["action"] for line in read_history(world.store)] == ["repair"] * 3


def test_an_install_whose_config_entry_went_keeps_its_generation(tmp_path: Path) -> None:
    world = World(tmp_path).make(found="")
    world.install(world.package())
    world.store.config_ini.write_text("load_priority=other\n")
    assert repair(world.store, release()).decision == "config"
    report = verify(world.store, release())
    assert report.clean
    assert report.generation is not None
    assert report.generation.number == 1


def test_nothing_to_repair_changes_nothing(tmp_path: Path) -> None:
    world = World(tmp_path).make(found="")
    world.install(world.package())
    before = tree_digest(world.opp)
    report = repair(world.store, release())
    assert (report.decision, report.found, report.remaining, report.failure) == ("nothing", (), (), None)
    assert tree_digest(world.opp) == before


def test_no_directory_at_all(world: World) -> None:
    assert diagnose(world.store, release()) == ()
    assert repair(world.store, release()).decision == "nothing"
    assert not world.store.exists


def test_dry_run(world: World) -> None:
    packages.make_vendor_tree(world.live, layout="nested")
    before = tree_digest(world.opp)
    report = repair(world.store, release(), dry_run=True)
    assert (report.decision, codes(report)) == ("planned", {"NESTED_LAYOUT", "VENDOR_NOT_LISTED"})
    assert report.failure is None
    assert tree_digest(world.opp) == before


def test_a_smoke_failure_leaves_the_repaired_tree_and_says_so(world: World) -> None:
    packages.make_vendor_tree(world.live, layout="nested")
    report = repair(world.store, release(), smoke=lambda: FAIL)
    assert report.failure is not None
    assert (report.failure.code, report.failure.exit_status) == ("SMOKE_WRONG_NUMBERS", 9)
    assert "left in place" in report.failure.message
    assert_right(world)


def test_a_tree_without_our_operator_is_repaired_but_not_smoked(world: World) -> None:
    packages.make_vendor_tree(world.live, layout="nested", ops=("VecAddSample",))

    def smoke() -> object:
        raise AssertionError("nothing to test here")

    report = repair(world.store, release(), smoke=smoke)  # type: ignore[arg-type]
    assert report.decision == "repaired"
    assert {finding.code for finding in report.remaining} >= {"MISSING_OPERATOR"}
    assert report.failure is not None
    assert report.failure.exit_status == 10


def test_what_needs_a_package_is_reported_not_repaired(world: World) -> None:
    packages.make_vendor_tree(world.live, set_env=str(world.live))
    world.store.config_ini.write_text("load_priority=other,gone,customize\n")
    (world.live / API_LIBRARY).unlink()
    before = tree_digest(world.opp)
    report = repair(world.store, release())
    assert report.decision == "nothing"
    assert {finding.code for finding in report.remaining} == {"MISSING_FILE", "CONFIG_DANGLING"}
    assert report.failure is not None
    assert (report.failure.code, report.failure.exit_status) == ("MISSING_FILE", 10)
    assert tree_digest(world.opp) == before


def test_two_copies_with_different_operators_are_not_touched(world: World) -> None:
    packages.make_vendor_tree(world.live, ops=("VecAddSample",))
    os.utime(world.live / API_LIBRARY, (1, 1))
    packages.make_vendor_tree(world.live / "vendors" / "customize")
    before = tree_digest(world.live)
    with pytest.raises(ConflictError) as caught:
        repair(world.store, release())
    assert (caught.value.code, caught.value.exit_status) == ("LAYOUT_CONFLICT", 7)
    assert tree_digest(world.live) == before
    assert world.store.config_ini.read_text() == "load_priority=other\n"
    assert not world.store.journal.exists()


def test_other_vendors_are_untouched(world: World) -> None:
    other = tree_digest(world.store.vendors / "other")
    packages.make_vendor_tree(world.live, layout="nested")
    repair(world.store, release())
    assert tree_digest(world.store.vendors / "other") == other


def test_an_interrupted_repair_is_recovered_by_the_next(world: World) -> None:
    packages.make_vendor_tree(world.live, layout="nested")
    pid = os.fork()
    if pid == 0:
        repair(world.store, release(), smoke=lambda: os._exit(0))  # type: ignore[arg-type,return-value]
    os.waitpid(pid, 0)
    assert world.store.journal.exists()
    report = repair(world.store, release())
    assert report.recovered is not None
    assert report.recovered.outcome == "undone"
    assert_right(world)
