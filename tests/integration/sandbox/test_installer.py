"""install.sh of both generations: where it installs, what it does to what is there, what it writes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from smallq_deploy.sandbox.create import SandboxInfo

from .conftest import FOREIGN, PackageMaker, call


def install(package: Path, *options: str, **env: str) -> str:
    done = call([package, "--quiet", *options], env=env)
    assert done.code == 0, done.all
    assert done.out.splitlines()[-1] == "SUCCESS"
    return done.out


def vendor_of(sandbox: SandboxInfo, name: str = "customize") -> Path:
    return sandbox.opp / "vendors" / name


def test_8_1_merges_and_leaves_a_mixture(old: SandboxInfo, make_package: PackageMaker) -> None:
    install(make_package(old, ops=["first_op"]), ASCEND_OPP_PATH=str(old.opp))
    install(make_package(old, ops=["second_op"]), ASCEND_OPP_PATH=str(old.opp))
    vendor = vendor_of(old)
    assert sorted(entry.name for entry in (vendor / "op_api/include").iterdir()) == [
        "aclnn_first_op.h",
        "aclnn_second_op.h",
    ], "the first operator looks installed"
    assert (vendor / "op_api/lib/libcust_opapi.so").read_text() == "second_op", "and is not in the library"


def test_8_5_replaces_and_drops_the_first_operator(new: SandboxInfo, make_package: PackageMaker) -> None:
    install(make_package(new, ops=["first_op"]), ASCEND_OPP_PATH=str(new.opp))
    vendor = vendor_of(new)
    (vendor / "bin").mkdir()
    install(make_package(new, ops=["second_op"]), ASCEND_OPP_PATH=str(new.opp))
    assert [entry.name for entry in (vendor / "op_api/include").iterdir()] == ["aclnn_second_op.h"]
    kernels = vendor / "op_impl/ai_core/tbe/kernel/ascend910b"
    assert [entry.name for entry in kernels.iterdir()] == ["second_op"]
    assert (vendor / "bin").is_dir(), "only the package's own parts are emptied"


def test_the_variants_can_be_told_apart(old: SandboxInfo, new: SandboxInfo) -> None:
    path = "tools/op_project_templates/ascendc/customize/scripts/install.sh"
    assert "install-for-all" not in (old.home / path).read_text()
    text = (new.home / path).read_text()
    assert "install-for-all" in text and "apply_chmod" not in text
    assert "@" not in text.replace("@load_priority", "").replace("$others@", "")


def test_install_path_writes_set_env_and_no_config(
    new: SandboxInfo, make_package: PackageMaker, tmp_path: Path
) -> None:
    target = tmp_path / "target"
    install(make_package(new), f"--install-path={target}/", ASCEND_OPP_PATH=str(new.opp))
    vendor = target / "vendors/customize"
    assert (vendor / "bin/set_env.bash").read_text() == (
        "#!/bin/bash\n"
        f"export ASCEND_CUSTOM_OPP_PATH={vendor}:${{ASCEND_CUSTOM_OPP_PATH}}\n"
        f"export LD_LIBRARY_PATH={vendor}/op_api/lib/:${{LD_LIBRARY_PATH}}\n"
    )
    assert not (target / "vendors/config.ini").exists()
    assert list((new.opp / "vendors").iterdir()) == []


def test_a_missing_parent_is_not_made(new: SandboxInfo, make_package: PackageMaker, tmp_path: Path) -> None:
    done = call([make_package(new), "--quiet", f"--install-path={tmp_path}/a/b"])
    assert done.code == 1
    assert f"[ERROR] create {tmp_path}/a/b failed" in done.out


def test_the_order_of_targets(new: SandboxInfo, make_package: PackageMaker, tmp_path: Path) -> None:
    package = make_package(new)
    asked, custom = tmp_path / "asked", tmp_path / "custom/deep"
    both = {"ASCEND_CUSTOM_OPP_PATH": str(custom), "ASCEND_OPP_PATH": str(new.opp)}
    install(package, f"--install-path={asked}", **both)
    assert (asked / "vendors/customize").is_dir() and not custom.exists()
    install(package, **both)
    assert (custom / "vendors/customize").is_dir()
    assert (custom / "vendors/config.ini").read_text() == "load_priority=customize\n"
    assert not (custom / "vendors/customize/bin").exists()
    assert list((new.opp / "vendors").iterdir()) == []


def test_a_colon_in_the_custom_path(
    old: SandboxInfo, new: SandboxInfo, make_package: PackageMaker, tmp_path: Path
) -> None:
    """What a shell that sourced set_env.bash has: 8.5 refuses it, 8.1 takes it literally."""
    value = f"{tmp_path}/somewhere:"
    done = call([make_package(new), "--quiet"], env={"ASCEND_CUSTOM_OPP_PATH": value, "ASCEND_OPP_PATH": str(new.opp)})
    assert done.code == 1
    assert "several paths" in done.out
    install(make_package(old), ASCEND_CUSTOM_OPP_PATH=value, ASCEND_OPP_PATH=str(old.opp))
    assert (tmp_path / "somewhere:/vendors/customize").is_dir()


def test_a_new_config_is_unreadable_for_others(new: SandboxInfo, make_package: PackageMaker) -> None:
    install(make_package(new), ASCEND_OPP_PATH=str(new.opp))
    config = new.opp / "vendors/config.ini"
    assert config.read_text() == "load_priority=customize\n"
    assert config.stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize(
    ("before", "vendor", "after"),
    [
        ("load_priority=other\n", "customize", "load_priority=customize,other\n"),
        ("load_priority=a,b\n", "b", "load_priority=b,a\n"),
        ("load_priority=a,b,c\n", "b", "load_priority=b,a,c\n"),
        ("load_priority=customize\n", "customize", "load_priority=customize\n"),
        # The quirks: an empty list and blanks around "=" keep the vendor out, word cutting damages names.
        ("load_priority=\n", "customize", "load_priority=\n"),
        ("", "customize", ""),
        ("load_priority = other\n", "customize", "load_priority = other\n"),
        ("load_priority=customize-x\n", "x", "load_priority=x,customize-\n"),
    ],
)
def test_config_ini_is_edited_as_cann_does(
    new: SandboxInfo, make_package: PackageMaker, before: str, vendor: str, after: str
) -> None:
    config = new.opp / "vendors/config.ini"
    config.write_text(before)
    install(make_package(new, vendor=vendor), ASCEND_OPP_PATH=str(new.opp))
    assert config.read_text() == after


def test_a_package_for_another_architecture_installs_without_its_link(
    new: SandboxInfo, make_package: PackageMaker
) -> None:
    install(make_package(new, arch=FOREIGN), ASCEND_OPP_PATH=str(new.opp))
    tiling = vendor_of(new) / "op_impl/ai_core/tbe/op_tiling"
    assert (tiling / f"lib/linux/{FOREIGN}").is_dir()
    assert not os.path.lexists(tiling / "liboptiling.so")


def test_the_tiling_link_is_relative(new: SandboxInfo, make_package: PackageMaker) -> None:
    install(make_package(new), ASCEND_OPP_PATH=str(new.opp))
    link = vendor_of(new) / "op_impl/ai_core/tbe/op_tiling/liboptiling.so"
    assert os.readlink(link) == f"lib/linux/{os.uname().machine}/libcust_opmaster_rt2.0.so"
    assert link.read_text() == "first_op"


@pytest.mark.parametrize("which", ["old", "new"])
def test_the_usual_readme_route_nests(which: str, request: pytest.FixtureRequest, make_package: PackageMaker) -> None:
    """--install-path=$ASCEND_HOME_PATH/opp/vendors/customize, then the copy upwards and the removal."""
    sandbox: SandboxInfo = request.getfixturevalue(which)
    customize = sandbox.home / "opp/vendors/customize"
    install(make_package(sandbox), f"--install-path={customize}")
    nested = vendor_of(sandbox) / "vendors/customize"
    assert (nested / "op_api/lib/libcust_opapi.so").is_file()
    assert not (sandbox.opp / "vendors/config.ini").exists()
    flatten = f"cp -rf {customize}/vendors/customize/. {customize}/ && rm -rf {customize}/vendors"
    assert call(["bash", "-c", flatten]).code == 0
    assert (vendor_of(sandbox) / "op_api/lib/libcust_opapi.so").is_file()
    script = (vendor_of(sandbox) / "bin/set_env.bash").read_text()
    assert "vendors/customize/vendors/customize" in script, "it names a directory that is gone"


def test_upgrade_sh_needs_answers(new: SandboxInfo, make_package: PackageMaker, tmp_path: Path) -> None:
    env = {"ASCEND_OPP_PATH": str(new.opp)}
    install(make_package(new, ops=["first_op"]), **env)
    call([make_package(new, ops=["second_op"]), "--noexec", f"--extract={tmp_path}/x"])
    ended = call(["bash", "upgrade.sh"], env=env, cwd=tmp_path / "x", stdin="maybe\n")
    assert ended.code == 1
    assert "needs a terminal" in ended.out
    replaced = call(["bash", "upgrade.sh"], env=env, cwd=tmp_path / "x", stdin="r\n" * 6)
    assert replaced.code == 0
    assert [entry.name for entry in (vendor_of(new) / "op_api/include").iterdir()] == ["aclnn_second_op.h"]
