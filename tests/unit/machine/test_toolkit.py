"""Which toolkit is found, chosen and used, for every layout and every way to be broken."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from smallq_deploy.base.errors import ExitStatus, NoToolkitError, UsageError
from smallq_deploy.machine.toolkit import Discovery, discover, read_toolkit, require_toolkit
from tests.support.toolkits import install_info, make_new, make_old, write


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Stands for /: usual places lie below it."""
    return tmp_path / "root"


def usual(root: Path) -> Path:
    return root / "usr/local/Ascend"


def look(root: Path, environ: dict[str, str] | None = None, **options: Path) -> Discovery:
    return discover(environ=environ or {}, root=root, **options)


def test_nothing(root: Path) -> None:
    found = look(root)
    assert found.chosen is None
    assert not found.ambiguous
    assert [str(item.path) for item in found.candidates] == [str(usual(root))]
    with pytest.raises(NoToolkitError) as caught:
        require_toolkit(found, mutating=False)
    assert caught.value.code == "NO_TOOLKIT"
    assert caught.value.exit_status == ExitStatus.NO_TOOLKIT
    assert str(usual(root)) in caught.value.message


def test_new_layout(root: Path) -> None:
    home = make_new(usual(root), "8.5.0", remark="simulated toolkit")
    found = look(root)
    toolkit = require_toolkit(found, mutating=True)
    assert toolkit.home == toolkit.real_home == home
    assert str(toolkit.version) == "8.5.0"
    assert toolkit.layout == "new"
    assert toolkit.opp == home / "opp"
    assert toolkit.vendors == home / "opp/vendors"
    assert toolkit.set_env == home / "set_env.sh"
    assert toolkit.remark == "simulated toolkit"
    assert toolkit.inner_version == "V100R001C25SPC001B212"
    assert toolkit.install_root == usual(root)
    assert toolkit.sources["version"].endswith("ascend_toolkit_install.info")
    assert toolkit.warnings == ()
    assert "only one" in found.why
    # The links cann and ascend-toolkit/latest are the same toolkit, and say so.
    assert [item.taken for item in found.candidates] == [True, False, False]
    assert all("the same toolkit as" in item.reason for item in found.candidates[1:])


def test_old_layout_resolves_the_opp_link(root: Path) -> None:
    real = make_old(usual(root), "8.1.RC1")
    toolkit = require_toolkit(look(root), mutating=True)
    latest = usual(root) / "ascend-toolkit/latest"
    assert toolkit.home == latest
    assert toolkit.real_home == real
    assert toolkit.opp == real / "opp"
    assert os.path.islink(latest / "opp")
    assert toolkit.layout == "old"
    assert toolkit.set_env == usual(root) / "ascend-toolkit/set_env.sh"
    assert toolkit.install_root == usual(root)
    env = toolkit.environment({"HOME": "/home/x", "PATH": "/usr/bin:/bin"})
    assert env["ASCEND_OPP_PATH"] == str(latest / "opp")


def test_old_version_that_is_not_active_cannot_be_used(root: Path) -> None:
    make_old(usual(root), "8.0.0", active=False)
    make_old(usual(root), "8.1.RC1")
    found = look(root)
    assert [str(item.version) for item in found.toolkits] == ["8.1.RC1"]
    assert not found.ambiguous
    refused = [item for item in found.candidates if item.path.name == "8.0.0"]
    assert len(refused) == 1
    assert "not active" in refused[0].reason


def test_missing_set_env(root: Path) -> None:
    home = make_new(usual(root))
    (home / "set_env.sh").unlink()
    found = look(root)
    assert found.chosen is None
    assert any("set_env.sh" in item.reason for item in found.candidates)
    asked = look(root, cann=home)
    for mutating in (False, True):
        with pytest.raises(NoToolkitError) as caught:
            require_toolkit(asked, mutating=mutating)
        assert caught.value.code == "MISSING_SET_ENV"
        assert str(home) in caught.value.message


@pytest.mark.parametrize(
    ("remove", "code"),
    [("opp", "MISSING_OPP"), ("share", "ok"), ("set_env.sh", "MISSING_SET_ENV")],
)
def test_incomplete_home(root: Path, remove: str, code: str) -> None:
    home = make_new(usual(root))
    victim = home / remove
    if victim.is_dir():
        shutil.rmtree(victim)
    else:
        victim.unlink()
    if code == "ok":
        # Without share/info it looks like the old layout, whose set_env.sh would lie one directory up.
        code = "MISSING_SET_ENV"
    with pytest.raises(NoToolkitError) as caught:
        read_toolkit(home)
    assert caught.value.code == code
    assert caught.value.hint


def test_not_a_toolkit(tmp_path: Path) -> None:
    with pytest.raises(NoToolkitError) as caught:
        read_toolkit(tmp_path)
    assert caught.value.code == "NOT_A_TOOLKIT"
    (tmp_path / "opp").mkdir()
    with pytest.raises(NoToolkitError) as caught:
        read_toolkit(tmp_path)
    assert caught.value.code == "NO_VERSION"


def test_version_files_that_disagree_are_a_warning(root: Path) -> None:
    home = make_new(usual(root), "8.5.0")
    write(home / "share/info/opbase/version.info", "Version=8.5.1\nversion_dir=cann\n")
    toolkit = require_toolkit(look(root), mutating=False)
    assert str(toolkit.version) == "8.5.0"
    (warning,) = toolkit.warnings
    assert "8.5.0" in warning
    assert "8.5.1" in warning
    assert "opbase" in warning


def test_version_without_install_info(root: Path) -> None:
    home = make_new(usual(root), "8.5.0")
    next(home.glob("*-linux/ascend_toolkit_install.info")).unlink()
    toolkit = require_toolkit(look(root), mutating=False)
    assert str(toolkit.version) == "8.5.0"
    assert toolkit.sources["version"].endswith("share/info/runtime/version.info")
    assert toolkit.arch == os.uname().machine


def test_version_cfg_is_the_last_resort(root: Path) -> None:
    real = make_old(usual(root), "8.1.RC1")
    next(real.glob("*-linux/ascend_toolkit_install.info")).unlink()
    write(real / "opp/version.info", "Version=7.7.0.1.238\n")
    toolkit = require_toolkit(look(root), mutating=False)
    assert str(toolkit.version) == "8.1.RC1"
    assert toolkit.sources["version"].endswith("version.cfg")


def test_host_architecture_is_read_first(root: Path) -> None:
    home = make_new(usual(root), "8.5.0")
    other = "aarch64" if os.uname().machine != "aarch64" else "x86_64"
    install_info(home, "8.3.RC1", other)
    assert str(require_toolkit(look(root), mutating=False).version) == "8.5.0"


def test_several_toolkits(root: Path) -> None:
    make_new(usual(root), "9.0.0", active=False)
    home = make_new(usual(root), "8.5.0")
    make_old(usual(root.parent / "elsewhere"), "8.1.RC1")
    found = look(root, environ={"HOME": str(root.parent / "elsewhere/usr/local")})
    assert [str(item.version) for item in found.toolkits] == ["8.5.0", "9.0.0", "8.1.RC1"]
    assert found.ambiguous
    assert require_toolkit(found, mutating=False).home == home
    assert "order" in found.why
    with pytest.raises(UsageError) as caught:
        require_toolkit(found, mutating=True)
    assert caught.value.code == "SEVERAL_TOOLKITS"
    assert caught.value.exit_status == ExitStatus.USAGE
    assert "--cann" in caught.value.hint
    for version in ("8.5.0", "9.0.0", "8.1.RC1"):
        assert version in caught.value.message


def test_environment_variable_chooses(root: Path) -> None:
    make_new(usual(root), "8.5.0")
    newer = make_new(usual(root), "9.0.0", active=False)
    for name, value in (
        ("ASCEND_HOME_PATH", newer),
        ("ASCEND_TOOLKIT_HOME", newer),
        ("ASCEND_OPP_PATH", newer / "opp"),
    ):
        found = look(root, environ={name: str(value)})
        assert require_toolkit(found, mutating=True).home == newer
        assert name in found.why


def test_environment_variables_that_contradict_each_other(root: Path) -> None:
    first = make_new(usual(root), "8.5.0")
    second = make_new(usual(root), "9.0.0", active=False)
    found = look(root, environ={"ASCEND_HOME_PATH": str(first), "ASCEND_OPP_PATH": str(second / "opp")})
    assert require_toolkit(found, mutating=True).home == first
    assert any("ASCEND_OPP_PATH" in warning for warning in found.warnings)


def test_stale_environment_variable(root: Path) -> None:
    home = make_new(usual(root), "8.5.0")
    found = look(root, environ={"ASCEND_HOME_PATH": str(root / "gone")})
    assert require_toolkit(found, mutating=False).home == home
    assert any("ASCEND_HOME_PATH" in warning for warning in found.warnings)
    with pytest.raises(NoToolkitError) as caught:
        require_toolkit(found, mutating=True)
    assert "ASCEND_HOME_PATH" in caught.value.message


def test_cann_option_takes_a_home_a_link_or_a_root(root: Path, tmp_path: Path) -> None:
    make_new(usual(root), "9.0.0")
    wanted = make_new(tmp_path / "opt", "8.5.0")
    for place in (wanted, tmp_path / "opt", tmp_path / "opt/cann", tmp_path / "opt/ascend-toolkit/latest"):
        found = look(root, cann=place)
        assert require_toolkit(found, mutating=True).home == wanted
        assert len(found.toolkits) == 1


def test_cann_option_takes_the_folder_of_old_versions(root: Path) -> None:
    real = make_old(usual(root), "8.1.RC1")
    toolkit = require_toolkit(look(root, cann=usual(root) / "ascend-toolkit"), mutating=True)
    assert toolkit.real_home == real
    assert toolkit.home == usual(root) / "ascend-toolkit/latest"


def test_cann_option_with_a_root_of_several(root: Path) -> None:
    active = make_new(usual(root), "8.5.0")
    make_new(usual(root), "9.0.0", active=False)
    found = look(root, cann=usual(root))
    assert require_toolkit(found, mutating=False).home == active
    with pytest.raises(UsageError):
        require_toolkit(found, mutating=True)
    assert require_toolkit(look(root, cann=active), mutating=True).home == active


@pytest.mark.parametrize("make", [False, True])
def test_cann_option_that_names_nothing(root: Path, tmp_path: Path, make: bool) -> None:
    make_new(usual(root))
    place = tmp_path / "nothing"
    if make:
        place.mkdir()
    found = look(root, cann=place)
    with pytest.raises(NoToolkitError) as caught:
        require_toolkit(found, mutating=False)
    assert caught.value.code == "NOT_A_TOOLKIT"
    assert str(place) in caught.value.message


def test_opp_option_names_its_toolkit(root: Path) -> None:
    make_new(usual(root), "8.5.0")
    other = make_new(usual(root), "9.0.0", active=False)
    toolkit = require_toolkit(look(root, opp=other / "opp"), mutating=True)
    assert toolkit.home == other


def test_opp_option_elsewhere_reaches_the_environment(root: Path, tmp_path: Path) -> None:
    make_new(usual(root), "8.5.0")
    (tmp_path / "opp/built-in").mkdir(parents=True)
    found = look(root, opp=tmp_path / "opp")
    toolkit = require_toolkit(found, mutating=True)
    assert toolkit.opp == tmp_path / "opp"
    assert any("ASCEND_OPP_PATH" in warning for warning in found.warnings)
    assert toolkit.environment({})["ASCEND_OPP_PATH"] == str(tmp_path / "opp")
    with pytest.raises(UsageError) as caught:
        look(root, opp=tmp_path / "missing")
    assert caught.value.code == "NO_SUCH_OPP"


def test_a_root_of_ones_own_is_found_by_its_vendor_directories(root: Path, tmp_path: Path) -> None:
    home = make_new(usual(root), "8.5.0")
    vendors = tmp_path / "mine/vendors"
    for name in ("b", "a"):
        (vendors / name).mkdir(parents=True)
    (vendors / "config.ini").write_text("load_priority=b,missing,a\n")
    found = look(root, opp=tmp_path / "mine")
    toolkit = require_toolkit(found, mutating=True)
    assert toolkit.private
    assert any("smallq-deploy env --opp" in warning for warning in found.warnings)
    environment = toolkit.environment({"ASCEND_CUSTOM_OPP_PATH": "/elsewhere"})
    assert environment["ASCEND_CUSTOM_OPP_PATH"] == f"{vendors}/b:{vendors}/a"
    assert environment["ASCEND_OPP_PATH"] == str(home / "opp")
    (tmp_path / "my.opp").mkdir()
    with pytest.raises(UsageError) as caught:
        look(root, opp=tmp_path / "my.opp")
    assert caught.value.code == "BAD_PATH"


def test_environment_is_clean(root: Path) -> None:
    home = make_new(usual(root))
    toolkit = require_toolkit(look(root), mutating=True)
    (usual(root) / "driver/lib64/driver").mkdir(parents=True)
    env = toolkit.environment(
        {
            "HOME": "/home/x",
            "PATH": "/usr/bin:/bin",
            "ASCEND_CUSTOM_OPP_PATH": "/stale",
            "LD_LIBRARY_PATH": "/somewhere/else",
            "ASCEND_RT_VISIBLE_DEVICES": "3",
            "SECRET": "x",
        }
    )
    assert env["ASCEND_HOME_PATH"] == str(home)
    assert env["HOME"] == "/home/x"
    assert env["ASCEND_RT_VISIBLE_DEVICES"] == "3"
    assert "ASCEND_CUSTOM_OPP_PATH" not in env
    assert "SECRET" not in env
    libraries = env["LD_LIBRARY_PATH"].split(":")
    assert "/somewhere/else" not in libraries
    assert "" not in libraries
    assert libraries[0] == str(home / "lib64")
    assert libraries[-1] == str(usual(root) / "driver/lib64/driver")
    assert "" not in env["PYTHONPATH"].split(":")


def test_set_env_that_fails_or_activates_another(root: Path) -> None:
    home = make_new(usual(root))
    toolkit = require_toolkit(look(root), mutating=True)
    write(home / "set_env.sh", "exit 3\n")
    with pytest.raises(NoToolkitError) as caught:
        toolkit.environment({})
    assert caught.value.code == "SET_ENV_FAILED"
    write(home / "set_env.sh", "export ASCEND_OPP_PATH=/elsewhere/opp\n")
    with pytest.raises(NoToolkitError) as caught:
        toolkit.environment({})
    assert caught.value.code == "SET_ENV_OTHER_TOOLKIT"


def test_conda_and_home_are_searched(root: Path, tmp_path: Path) -> None:
    conda = make_new(tmp_path / "env/Ascend", "8.5.0")
    assert require_toolkit(look(root, environ={"CONDA_PREFIX": str(tmp_path / "env")}), mutating=True).home == conda


def test_to_dict_is_plain(root: Path) -> None:
    import json

    make_new(usual(root))
    document = json.loads(json.dumps(look(root).to_dict()))
    assert document["toolkits"][0]["version"] == "8.5.0"
    assert document["chosen"].endswith("cann-8.5.0")
