"""Install on a small opp: what is refused and why, what is kept, what is put back."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

import pytest

from smallq_deploy.base.errors import (
    ConflictError,
    ExitStatus,
    NoToolkitError,
    PackageError,
    Problems,
    SmallqError,
    SmokeError,
)
from smallq_deploy.base.events import Events
from smallq_deploy.base.fsops import tree_digest
from smallq_deploy.operate.planner import InstallOptions, make_plan
from smallq_deploy.package.runfile import read_run
from smallq_deploy.store.generations import list_generations, load_generation
from smallq_deploy.store.history import read_history
from smallq_deploy.store.paths import Store
from tests.support import packages
from tests.support.opp import FAIL, INCONCLUSIVE, PASS, FakeSmoke, World, environment, release
from tests.support.world import live_digest, others_digest, settled_problems


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path / "w").make()


def codes(error: SmallqError) -> list[str]:
    return [problem.code for problem in error.problems]


def refusal(world: World, package: Path, **options: Any) -> list[str]:
    """Codes of a refused install; asserts that nothing was changed."""
    before = tree_digest(world.opp)
    plan = world.plan(package, **options)
    assert plan.decision == "refused"
    with pytest.raises(SmallqError) as caught:
        world.install(package, **options)
    assert codes(caught.value) == [problem.code for problem in plan.problems]
    assert tree_digest(world.opp) == before
    return codes(caught.value)


def test_install_adopts_and_keeps_everything_it_needs(world: World) -> None:
    others = others_digest(world.store)
    found = live_digest(world.store)
    package = world.package("1")
    events = Events()
    report = world.install(package, events=events)
    assert report.change is not None
    assert (report.decision, report.change.live, report.change.adopted) == ("install", 2, 1)
    assert list(settled_problems(world.store, (live_digest(world.store),), others)) == []
    kept = load_generation(world.store, 2)
    assert kept.proven
    assert kept.package_sha256 == read_run(package).file_sha256
    assert world.store.package_file(2).read_bytes() == package.read_bytes()
    assert (kept.ops, kept.units, kept.arch) == ((packages.OPERATOR,), ("ascend910b",), packages.ARCH)
    assert kept.toolkit_remark == "simulated toolkit"
    assert kept.release == "smallq-flash-attention-0.1.0"
    assert load_generation(world.store, 1).manifest_digest == found
    assert load_generation(world.store, 1).ops == (packages.OPERATOR,)
    assert str(world.live) in (world.live / "bin" / "set_env.bash").read_text()
    assert [step.name for step in events.steps if step.result == "ok"][-1] == "smoke test"
    json.dumps(report.to_dict())


def test_what_plan_says_is_what_install_does(world: World) -> None:
    plan = world.plan(world.package("1"))
    assert (plan.decision, plan.problems) == ("install", ())
    assert plan.space_needed > 0
    text = "\n".join(plan.steps)
    assert "generation 1 (adopted)" in text
    assert "load_priority=other,customize" in text
    assert "generation 2" in text
    json.dumps(plan.to_dict())
    assert not world.store.exists, "a plan changes nothing"
    world.install(world.package("1"))
    assert world.store.config_ini.read_text() == "load_priority=other,customize\n"
    assert [item.number for item in list_generations(world.store)] == [1, 2]


def test_the_same_package_again_changes_nothing(world: World) -> None:
    world.install(world.package("1"))
    before = tree_digest(world.opp)
    report = world.install(world.package("1"))
    assert (report.decision, report.change) == ("nothing", None)
    assert "live and proven" in report.plan.reasons[0]
    assert tree_digest(world.opp) == before
    assert world.install(world.package("1"), reinstall=True).decision == "reinstall"


@pytest.mark.parametrize("spoil", ["config", "tree", "proof"])
def test_the_same_package_again_where_something_is_not_right(world: World, spoil: str) -> None:
    world.install(world.package("1"), no_smoke=spoil == "proof")
    if spoil == "config":
        world.store.config_ini.write_text("load_priority=other\n")
    if spoil == "tree":
        (world.live / "version.info").unlink()
    assert world.install(world.package("1")).decision in ("install", "reinstall")
    assert "customize" in world.store.config_ini.read_text()
    assert load_generation(world.store, list_generations(world.store)[-1].number).proven


def test_a_failed_smoke_test_puts_everything_back(world: World) -> None:
    world.install(world.package("1"))
    before = live_digest(world.store)
    config = world.store.config_ini.read_bytes()
    with pytest.raises(SmokeError) as caught:
        world.install(world.package("2"), smoke=FAIL)
    assert caught.value.code == "SMOKE_WRONG_NUMBERS"
    assert caught.value.exit_status == ExitStatus.SMOKE_FAILED
    assert "generation 2 is live again" in caught.value.message
    assert caught.value.details["change"]["kept"] is False
    assert (live_digest(world.store), world.store.config_ini.read_bytes()) == (before, config)
    failed = load_generation(world.store, 3)
    assert failed.failed
    assert world.store.tree_dir(3).is_dir()
    last = read_history(world.store)[-1]
    assert (last["result"], last["smoke"]["verdict"]) == ("undone", "fail")


def test_a_failed_first_install_leaves_the_machine_as_it_was(tmp_path: Path) -> None:
    world = World(tmp_path / "w").make(found="", other=False)
    with pytest.raises(SmokeError):
        world.install(world.package("1"), smoke=FAIL)
    assert not world.live.exists()
    assert not world.store.config_ini.exists()


def test_the_smoke_test_sees_the_new_tree_live(world: World) -> None:
    seen = []

    def smoke() -> FakeSmoke:
        seen.append((live_digest(world.store), world.store.config_ini.read_text()))
        return PASS

    world.install(world.package("1"), smoke=smoke)
    assert seen == [(live_digest(world.store), "load_priority=other,customize\n")]


def test_an_inconclusive_smoke_test(world: World) -> None:
    with pytest.raises(SmokeError) as caught:
        world.install(world.package("1"), smoke=INCONCLUSIVE)
    assert caught.value.code == "SMOKE_INCONCLUSIVE"
    assert "--keep-unproven" in caught.value.hint
    report = world.install(world.package("1"), smoke=INCONCLUSIVE, keep_unproven=True)
    assert report.change is not None
    assert report.change.generation is not None
    assert not report.change.generation.proven
    assert report.change.generation.flags == {"keep_unproven": True}
    with pytest.raises(SmokeError):
        world.install(world.package("2"), smoke=FAIL, keep_unproven=True)


def test_no_smoke_is_recorded_and_not_called(world: World) -> None:
    def never() -> FakeSmoke:
        raise AssertionError("called")

    report = world.install(world.package("1"), smoke=never, no_smoke=True)
    assert report.change is not None
    assert report.change.generation is not None
    assert report.change.generation.flags == {"no_smoke": True}
    assert read_history(world.store)[-1]["smoke"]["verdict"] == "skipped"


def test_an_error_inside_the_smoke_test_undoes_too(world: World) -> None:
    before = live_digest(world.store)

    def broken() -> FakeSmoke:
        raise NoToolkitError("SET_ENV_FAILED", "set_env.sh fails")

    with pytest.raises(NoToolkitError):
        world.install(world.package("1"), smoke=broken)
    assert live_digest(world.store) == before


# --- refusals ---


def test_machine_refusals_come_all_together(world: World) -> None:
    package = world.package("x", unit="ascend310p", arch="aarch64" if packages.ARCH != "aarch64" else "x86_64")
    plan = make_plan(environment(world.opp, version="8.1.RC1"), release(), world.store, read_run(package))
    assert [problem.code for problem in plan.problems] == ["WRONG_ARCH", "WRONG_UNIT", "CANN_VERSION"]
    assert {problem.exit_status for problem in plan.problems} == {ExitStatus.INCOMPATIBLE}


def test_allow_untested_lifts_versions_only_and_is_recorded(world: World) -> None:
    old = environment(world.opp, version="8.1.RC1")
    run = read_run(world.package("1"))
    assert [p.code for p in make_plan(old, release(), world.store, run).problems] == ["CANN_VERSION"]
    lifted = InstallOptions(allow_untested=True)
    assert make_plan(old, release(), world.store, run, lifted).decision == "install"
    wrong = read_run(world.package("u", unit="ascend310p"))
    assert [p.code for p in make_plan(old, release(), world.store, wrong, lifted).problems] == ["WRONG_UNIT"]
    world.install(world.package("1"), allow_untested=True)
    assert load_generation(world.store, 2).flags == {"allow_untested": True}


def test_another_host_architecture_needs_no_smoke(world: World) -> None:
    other = environment(world.opp, host_arch="riscv64")
    run = read_run(world.package("1"))
    assert [p.code for p in make_plan(other, release(), world.store, run).problems] == ["HOST_ARCH"]
    assert make_plan(other, release(), world.store, run, InstallOptions(no_smoke=True)).decision == "install"


def test_an_unknown_compute_unit_is_a_warning(world: World) -> None:
    plan = make_plan(environment(world.opp, soc=""), release(), world.store, read_run(world.package("1")))
    assert plan.decision == "install"
    assert any("compute unit" in text for text in plan.warnings)


def test_no_toolkit_at_all(world: World) -> None:
    from dataclasses import replace

    nothing = replace(environment(world.opp), toolkit=None)
    plan = make_plan(nothing, release(), world.store, read_run(world.package("1")))
    assert [problem.code for problem in plan.problems] == ["NO_TOOLKIT"]


def test_another_operator_in_the_package(world: World) -> None:
    expected = ["MISSING_OPERATOR", "FOREIGN_OPERATORS", "SHADOWED"]
    assert refusal(world, world.package("v", ops=["VecAddSample"])) == expected


def test_another_vendor_name_in_the_package(world: World) -> None:
    assert refusal(world, world.package("v", vendor="mine")) == ["VENDOR_MISMATCH"]


def test_operators_that_would_be_lost(tmp_path: Path) -> None:
    world = World(tmp_path / "w").make(found="")
    packages.make_vendor_tree(world.live, ops=[packages.OPERATOR, "HcPost"])
    assert refusal(world, world.package("1")) == ["FOREIGN_OPERATORS"]
    assert "HcPost" in world.plan(world.package("1")).problems[0].message
    world.install(world.package("1"), drop_foreign=True)
    assert load_generation(world.store, 1).ops == ("HcPost", packages.OPERATOR)
    assert load_generation(world.store, 2).flags == {"drop_foreign": True}


def test_the_same_operator_in_a_vendor_that_comes_first(world: World) -> None:
    packages.make_vendor_tree(world.store.vendors / "rival", vendor="rival")
    world.store.config_ini.write_text("load_priority=rival,other\n")
    assert refusal(world, world.package("1")) == ["SHADOWED"]
    assert world.plan(world.package("1"), allow_shadowed=True).decision == "install"
    first = world.plan(world.package("1"), priority_first=True)
    assert any("wins" in text for text in first.warnings)
    world.install(world.package("1"), priority_first=True)
    assert world.store.config_ini.read_text() == "load_priority=customize,rival,other\n"


def test_the_same_operator_in_a_vendor_that_cann_does_not_load(world: World) -> None:
    packages.make_vendor_tree(world.store.vendors / "rival", vendor="rival")
    assert world.plan(world.package("1")).decision == "install"


def test_the_same_operator_built_into_cann_is_a_warning(world: World) -> None:
    packages.make_vendor_tree(world.opp / "built-in")
    assert any("built into CANN" in text for text in world.plan(world.package("1")).warnings)


def test_too_little_space(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.statvfs(world.opp)
    package = world.package("1")

    class Full:
        f_bavail, f_frsize, f_favail, f_files, f_flag = 10, 4096, real.f_favail, real.f_files, 0

    monkeypatch.setattr(os, "statvfs", lambda path: Full)
    assert refusal(world, package) == ["NO_SPACE"]


def test_too_few_inodes(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    package = world.package("1")

    class Full:
        f_bavail, f_frsize, f_favail, f_files, f_flag = 10**9, 4096, 3, 10**9, 0

    monkeypatch.setattr(os, "statvfs", lambda path: Full)
    assert refusal(world, package) == ["NO_SPACE"]


def test_a_linked_vendors_directory(tmp_path: Path) -> None:
    world = World(tmp_path / "w")
    world.opp.mkdir(parents=True)
    world.store.vendors.symlink_to("/etc")
    assert refusal(world, world.package("1")) == ["VENDORS_IS_LINK"]


def test_a_linked_live_directory(world: World, tmp_path: Path) -> None:
    world.live.rename(tmp_path / "aside")
    world.live.symlink_to(tmp_path / "aside")
    assert refusal(world, world.package("1")) == ["LIVE_NOT_A_DIRECTORY"]


def test_no_opp_directory(tmp_path: Path) -> None:
    world = World(tmp_path / "w")
    (tmp_path / "w").mkdir()
    plan = world.plan(world.package("1"))
    assert [problem.code for problem in plan.problems] == ["NO_OPP"]


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become somebody else")
def test_no_permission_names_the_directory() -> None:
    with tempfile.TemporaryDirectory() as directory:  # pytest's own directories are closed to others
        os.chmod(directory, 0o755)
        world = World(Path(directory, "w")).make()
        package = world.package("1")
        pid = os.fork()
        if pid == 0:  # somebody else, in a process of its own
            good = False
            try:
                os.setgroups([])
                os.setgid(65534)
                os.setuid(65534)
                first = world.plan(package).problems[0]
                good = first.code == "NO_PERMISSION" and str(world.store.vendors) in first.message
            finally:
                os._exit(0 if good else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


@pytest.mark.parametrize(
    ("damage", "text"),
    [("missing_kernel", "kernel"), ("kernel_digest", "sha256"), ("no_symbols", "aclnnSmallqFlashAttention")],
)
def test_a_package_whose_tree_does_not_fit_together(world: World, damage: str, text: str) -> None:
    before = live_digest(world.store), others_digest(world.store)
    with pytest.raises(SmallqError) as caught:
        world.install(world.package(damage, damage=damage))
    assert set(codes(caught.value)) == {"BAD_TREE"}
    assert any(text in problem.message for problem in caught.value.problems)
    assert (live_digest(world.store), others_digest(world.store)) == before
    assert list((world.store.root / "staging").iterdir()) == []


def test_files_that_the_release_requires(world: World) -> None:
    from smallq_deploy.operate.installer import install

    wanted = release(required_files=("op_api/lib/none.so",), required_symbols=("aclnnMissing",))
    plan = make_plan(environment(world.opp), wanted, world.store, read_run(world.package("1")))
    with pytest.raises(Problems) as caught:
        install(plan, smoke=lambda: PASS)
    assert codes(caught.value) == ["BAD_TREE", "BAD_TREE"]


def test_a_package_exchanged_between_check_and_use(world: World) -> None:
    plan = world.plan(world.package("1"))
    plan.run.path.write_bytes(world.package("2").read_bytes())
    from smallq_deploy.operate.installer import install

    with pytest.raises(PackageError) as caught:
        install(plan, smoke=lambda: PASS)
    assert caught.value.code == "PACKAGE_CHANGED"


def test_a_plan_is_made_again_under_the_lock(world: World) -> None:
    """What was true when the user was asked must still be true."""
    plan = world.plan(world.package("1"))
    packages.make_vendor_tree(world.store.vendors / "rival", vendor="rival")
    world.store.config_ini.write_text("load_priority=rival,other\n")
    from smallq_deploy.operate.installer import install

    with pytest.raises(ConflictError) as caught:
        install(plan, smoke=lambda: PASS)
    assert caught.value.code == "SHADOWED"


def test_a_dry_run_changes_nothing(world: World) -> None:
    before = tree_digest(world.opp)
    report = world.install(world.package("1"), dry_run=True)
    assert (report.decision, report.change) == ("install", None)
    assert tree_digest(world.opp) == before


@pytest.mark.parametrize("layout", ["nested", "both", "double", "empty"])
def test_whatever_was_found_comes_back(tmp_path: Path, layout: str) -> None:
    from smallq_deploy.operate.installer import rollback

    world = World(tmp_path / "w").make(found=layout)
    before = live_digest(world.store), world.store.config_ini.read_text()
    world.install(world.package("1"))
    rollback(world.store, operator=packages.OPERATOR, smoke=lambda: PASS)
    assert (live_digest(world.store), world.store.config_ini.read_text()) == before


def test_both_ways_of_unpacking_leave_the_same_tree(tmp_path: Path) -> None:
    first, second = (World(tmp_path / name).make() for name in "ab")
    first.install(first.package("1"))
    second.install(second.package("1"), use_installer=True)
    script = "bin/set_env.bash"
    assert (first.live / script).read_text().replace("/a/", "/b/") == (second.live / script).read_text()
    for world in (first, second):
        (world.live / script).write_text("")
    assert live_digest(first.store) == live_digest(second.store)
    assert load_generation(second.store, 2).flags == {"use_installer": True}


def test_a_program_that_has_the_old_library_mapped_is_named(world: World) -> None:
    import mmap

    from smallq_deploy.operate.inuse import processes_using

    with open(world.live / "op_api" / "lib" / "libcust_opapi.so", "rb") as stream:
        with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ):
            assert os.getpid() in [process.pid for process in processes_using(world.live)]
            assert any("until restarted" in text for text in world.plan(world.package("1")).warnings)


def test_the_directory_name_of_another_vendor(world: World) -> None:
    package = world.package("m", vendor="mine")
    plan = make_plan(environment(world.opp), release(), Store(world.opp, "mine"), read_run(package))
    from smallq_deploy.operate.installer import install

    install(plan, smoke=lambda: PASS)
    assert world.store.config_ini.read_text() == "load_priority=other,mine\n"
    assert live_digest(world.store) != live_digest(Store(world.opp, "mine"))
