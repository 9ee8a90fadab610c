"""What `sandbox create` leaves: directories, links, version files, environment scripts; and what `destroy` removes."""

from __future__ import annotations

import errno
import json
import os
import sys
from pathlib import Path

import pytest

from smallq_deploy.base.errors import BuildError, SmallqError, UsageError
from smallq_deploy.base.fsops import tree_digest
from smallq_deploy.base.proc import sourced_environment
from smallq_deploy.sandbox import native_cache
from smallq_deploy.sandbox.create import MARKER, SandboxInfo, create, destroy

from .conftest import FOREIGN, call


def info_file(path: Path) -> dict[str, str]:
    return dict(line.split("=", 1) for line in path.read_text().splitlines() if "=" in line)


def source(sandbox: SandboxInfo, script: Path | None = None) -> dict[str, str]:
    base = {"PATH": "/usr/bin:/bin", "HOME": "/nonexistent"}
    return sourced_environment(script or sandbox.set_env, base=base)


def test_old_layout(old: SandboxInfo) -> None:
    toolkit = old.root / "ascend-toolkit"
    assert old.layout == "old"
    assert old.home == toolkit / "latest"
    assert old.opp == toolkit / "8.1.RC1/opp"
    latest = toolkit / "latest"
    assert latest.is_dir() and not latest.is_symlink()
    assert os.readlink(latest / "opp") == "../8.1.RC1/opp"
    assert os.readlink(latest / "ops") == "../8.1.RC1/opp"
    assert os.readlink(latest / "lib64") == f"{FOREIGN}-linux/lib64"
    assert not (latest / f"{FOREIGN}-linux").is_symlink()
    assert os.readlink(toolkit / "8.1") == "./8.1.RC1"
    assert (latest / "toolkit/version.info").is_file()
    assert not (latest / "share").exists()


def test_new_layout(new: SandboxInfo) -> None:
    root = new.root
    assert new.layout == "new"
    assert new.home == root / "cann-8.5.0"
    assert new.opp == root / "cann-8.5.0/opp" and not new.opp.is_symlink()
    assert os.readlink(root / "cann") == str(root / "cann-8.5.0")
    assert os.readlink(root / "ascend-toolkit/latest") == str(root / "cann")
    assert os.readlink(root / "ascend-toolkit/set_env.sh") == str(root / "ascend-toolkit/latest/set_env.sh")
    assert os.readlink(new.home / "lib64") == f"{FOREIGN}-linux/lib64"
    assert not (new.home / "toolkit/version.info").exists(), "gone since 8.5: the package name says none"
    assert new.set_env.stat().st_mode & 0o777 == 0o440


@pytest.mark.parametrize("which", ["old", "new"])
def test_no_link_dangles_and_the_opp_is_clean(which: str, request: pytest.FixtureRequest) -> None:
    sandbox: SandboxInfo = request.getfixturevalue(which)
    dangling = [
        os.path.join(directory, name)
        for directory, names, files in os.walk(sandbox.root)
        for name in (*names, *files)
        if not os.path.exists(os.path.join(directory, name))
    ]
    assert dangling == []
    assert list((sandbox.opp / "vendors").iterdir()) == []
    assert (sandbox.opp / "scene.info").read_text() == f"os=linux\nos_version=\narch={FOREIGN}"
    assert (sandbox.opp / "vendors").stat().st_mode & 0o777 == 0o750


def test_every_version_file_of_the_old_layout_agrees(old: SandboxInfo) -> None:
    install = info_file(old.home / f"{FOREIGN}-linux/ascend_toolkit_install.info")
    assert install["version"] == "8.1.RC1"
    assert install["innerversion"] == "V100R001C21SPC001B238"
    assert install["arch"] == FOREIGN
    assert install["remark"] == "simulated toolkit"
    assert Path(install["path"]) == old.root / f"ascend-toolkit/8.1.RC1/{FOREIGN}-linux"
    for component in ("runtime", "compiler", "toolkit", "opp", "opp_kernel", "hccl"):
        record = info_file(old.home / component / "version.info")
        assert (record["Version"], record["version_dir"]) == ("7.7.0.1.238", "8.1.RC1"), component
    assert info_file(old.home / "compiler/version.info")["required_opp_abi_version"] == '">=6.3, <=7.7"'
    config = (old.home / "version.cfg").read_text().splitlines()
    assert "opp_running_version=[7.7.0.1.238:8.1.RC1]" in config
    assert len(config) == 1 + 3 * 8
    assert info_file(old.root / "driver/version.info")["Version"] == "25.0.rc1"


def test_every_version_file_of_the_new_layout_agrees(new: SandboxInfo) -> None:
    for name, package in (("toolkit", "Ascend-cann-toolkit"), ("ops", "Ascend-cann-910b-ops")):
        install = info_file(new.home / f"{FOREIGN}-linux/ascend_{name}_install.info")
        assert (install["package_name"], install["version"]) == (package, "8.5.0")
        assert "simulated toolkit" in install["remark"]
    for package in ("runtime", "ops_base", "asc-devkit", "bisheng-compiler", "metadef"):
        assert info_file(new.home / f"share/info/{package}/version.info")["Version"] == "8.5.0"
    assert info_file(new.home / "compiler/version.info")["Version"] == "8.5.0"
    assert info_file(new.opp / "version.info")["Version"] == "8.5.0"
    assert info_file(new.root / "driver/version.info")["Version"] == "25.5.0"


def test_platform_files_hold_what_tiling_reads(new: SandboxInfo) -> None:
    for name, vector_cores in (("Ascend910B3", "40"), ("Ascend910B1", "48"), ("Ascend910B4", "40")):
        record = info_file(new.home / f"{FOREIGN}-linux/data/platform_config/{name}.ini")
        assert record["SoC_version"] == name
        assert record["Short_SoC_version"] == "Ascend910B"
        assert record["vector_core_cnt"] == vector_cores
        assert record["ub_size"] == "196608"


def test_environment_of_the_old_layout(old: SandboxInfo) -> None:
    env = source(old)
    latest = str(old.root / "ascend-toolkit/latest")
    assert env["ASCEND_HOME_PATH"] == env["ASCEND_TOOLKIT_HOME"] == env["ASCEND_AICPU_PATH"] == latest
    assert env["ASCEND_OPP_PATH"] == latest + "/opp"
    assert env["TOOLCHAIN_HOME"] == latest + "/toolkit"
    assert f"{latest}/lib64" in env["LD_LIBRARY_PATH"].split(":")
    assert "driver" not in env["LD_LIBRARY_PATH"]
    assert "ASCEND_CUSTOM_OPP_PATH" not in env


@pytest.mark.parametrize("through", ["set_env.sh", "ascend-toolkit/set_env.sh", "cann/set_env.sh"])
def test_environment_of_the_new_layout_is_the_real_directory(new: SandboxInfo, through: str) -> None:
    script = new.home / through if through == "set_env.sh" else new.root / through
    env = source(new, script)
    home = str(new.root / "cann-8.5.0")
    assert env["ASCEND_HOME_PATH"] == env["ASCEND_TOOLKIT_HOME"] == home
    assert env["ASCEND_OPP_PATH"] == home + "/opp"
    assert f"{new.root}/driver/lib64/driver" in env["LD_LIBRARY_PATH"].split(":")
    assert "ASCEND_CUSTOM_OPP_PATH" not in env


def test_new_environment_drops_another_cann_of_the_same_root(new: SandboxInfo) -> None:
    stale = f"{new.root}/cann-8.2/lib64"
    base = {"PATH": "/usr/bin:/bin", "HOME": "/", "LD_LIBRARY_PATH": f"{stale}:/keep/me"}
    libraries = sourced_environment(new.set_env, base=base)["LD_LIBRARY_PATH"].split(":")
    assert stale not in libraries
    assert libraries[-1] == "/keep/me"


def test_environment_scripts_die_under_set_u_as_real_ones_do(old: SandboxInfo, new: SandboxInfo) -> None:
    for sandbox in (old, new):
        done = call(["bash", "-uc", 'source "$1"; echo survived', "-", sandbox.set_env])
        assert "unbound variable" in done.err
        assert "survived" not in done.out


def test_new_environment_needs_bash(new: SandboxInfo) -> None:
    done = call(["sh", "-c", f". {new.set_env} && echo went-on"])
    if "went-on" in done.out:
        pytest.skip("sh is bash here")
    assert "has to be sourced in bash" in done.err


def test_compiler_and_npu_smi_are_on_the_path(old: SandboxInfo, new: SandboxInfo) -> None:
    for sandbox in (old, new):
        env = source(sandbox)
        done = call(["bash", "-c", "bisheng --version && command -v npu-smi"], env=env)
        assert done.code == 0, done.all
        version, npu_smi = done.out.splitlines()
        assert version.startswith(f"bisheng (simulated toolkit) {sandbox.version} build ")
        assert Path(npu_smi).resolve() == sandbox.npu_smi


def test_bisheng_refuses_what_it_cannot_do(new: SandboxInfo) -> None:
    env = source(new)
    assert call(["bisheng", "x.cpp", "-o", "x.o"], env=env).code == 1
    done = call(["bisheng", "--sim-kernel", "x.cpp"], env=env)
    assert done.code == 1
    assert "needs one source file and -o" in done.err


def test_unusual_choices(tmp_path: Path) -> None:
    alpha = create(tmp_path / "alpha", cann_version="8.5.0.alpha002", arch=FOREIGN)
    assert alpha.layout == "old", "the alphas of 8.5.0 still had the old layout"
    nine = create(tmp_path / "nine", cann_version="9.0.0", soc="910B1", devices=2, arch=FOREIGN)
    assert nine.layout == "new"
    assert (nine.home / "share/info/opbase/version.info").is_file()
    assert (nine.home / f"{FOREIGN}-linux/data/sim/devices.conf").read_text() == "soc=Ascend910B1\ndevices=2\n"
    forced = create(tmp_path / "forced", cann_version="8.5.0", layout="old", arch=FOREIGN)
    assert forced.home == tmp_path / "forced/ascend-toolkit/latest"


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"cann_version": "banana"}, "BAD_VERSION"),
        ({"soc": "Ascend910B9"}, "UNKNOWN_SOC"),
        ({"devices": 65}, "BAD_DEVICE_COUNT"),
        ({"devices": -1}, "BAD_DEVICE_COUNT"),
        ({"layout": "round"}, "BAD_LAYOUT"),
        ({"arch": "riscv64"}, "BAD_ARCH"),
    ],
)
def test_values_that_make_no_sense_are_refused(tmp_path: Path, options: dict[str, object], code: str) -> None:
    with pytest.raises(UsageError) as caught:
        create(tmp_path / "sandbox", **options)  # type: ignore[arg-type]
    assert caught.value.code == code
    assert caught.value.hint
    assert not (tmp_path / "sandbox").exists()


def test_a_path_with_a_blank_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        create(tmp_path / "a sandbox", arch=FOREIGN)
    assert caught.value.code == "BAD_SANDBOX_PATH"


def test_create_leaves_a_used_directory_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("keep")
    with pytest.raises(UsageError) as caught:
        create(tmp_path, arch=FOREIGN)
    assert caught.value.code == "SANDBOX_NOT_EMPTY"
    assert [entry.name for entry in tmp_path.iterdir()] == ["mine"]


def test_a_create_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(spec: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(tmp_path))

    monkeypatch.setattr("smallq_deploy.sandbox.create.create_driver", full)
    with pytest.raises(SmallqError) as caught:
        create(tmp_path / "sandbox", arch=FOREIGN)
    assert caught.value.code == "NO_SPACE"
    assert list(tmp_path.iterdir()) == []


def test_destroy_clears_up_after_a_create_that_was_killed(tmp_path: Path) -> None:
    program = (
        "import os, signal, smallq_deploy.sandbox.create as c\n"
        "c.create_driver = lambda spec: os.kill(os.getpid(), signal.SIGKILL)\n"
        f"c.create(c.Path({str(tmp_path / 'sandbox')!r}), arch={FOREIGN!r})\n"
    )
    done = call([sys.executable, "-c", program], cwd=Path(__file__).resolve().parents[3])
    assert done.code == -9
    assert (tmp_path / "sandbox/cann-8.5.0").is_dir()
    destroy(tmp_path / "sandbox")
    assert list(tmp_path.iterdir()) == []


def test_destroy_removes_what_create_made_and_what_was_installed(new: SandboxInfo) -> None:
    vendor = new.opp / "vendors/customize"
    vendor.mkdir()
    (vendor / "locked").mkdir(mode=0o500)
    count = destroy(new.root)
    assert count > 50
    assert not new.root.exists()


def test_destroy_keeps_other_files(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    sandbox = create(root, arch=FOREIGN)
    (root / "notes.txt").write_text("mine")
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_text("precious")
    (sandbox.opp / "vendors/elsewhere").symlink_to(outside)
    destroy(root)
    assert [entry.name for entry in root.iterdir()] == ["notes.txt"]
    assert (outside / "file").read_text() == "precious"


def test_destroy_refuses_what_is_no_sandbox(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(UsageError) as caught:
        destroy(tmp_path)
    assert caught.value.code == "NOT_A_SANDBOX"
    assert (tmp_path / "file").exists()


@pytest.mark.parametrize("entries", [["../precious"], ["/"], [".."], [""]])
def test_destroy_does_not_trust_a_forged_marker(tmp_path: Path, entries: list[str]) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (tmp_path / "precious").mkdir()
    (root / MARKER).write_text(json.dumps({"entries": entries, "root_created": True}))
    before = tree_digest(tmp_path)
    with pytest.raises(UsageError) as caught:
        destroy(root)
    assert caught.value.code == "BAD_SANDBOX_MARKER"
    assert tree_digest(tmp_path) == before


def test_a_missing_compiler_is_named_with_the_command_that_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BuildError) as caught:
        create(tmp_path / "sandbox")
    assert caught.value.code == "NO_COMPILER"
    assert "apt install g++ cmake make" in caught.value.hint
    assert "dnf install gcc-c++ cmake make" in caught.value.hint
    assert not (tmp_path / "sandbox").exists()


def test_the_digest_follows_the_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    native = tmp_path / "native"
    (native / "runtime").mkdir(parents=True)
    for name in ("common", "include", "opbuild"):
        (native / name).mkdir()
    (native / "build_native.sh").write_text("true\n")
    (native / "runtime/a.cpp").write_text("int a;\n")
    monkeypatch.setattr(native_cache, "NATIVE", native)
    first = native_cache.source_digest()
    assert first == native_cache.source_digest()
    (native / "runtime/a.cpp").write_text("int b;\n")
    assert native_cache.source_digest() != first


def test_a_failing_library_build_shows_the_compilers_words_and_leaves_no_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    native = tmp_path / "native"
    for name in ("common", "include", "opbuild", "runtime"):
        (native / name).mkdir(parents=True)
    (native / "build_native.sh").write_text("echo 'a.cpp:1: error: no'; exit 3\n")
    monkeypatch.setattr(native_cache, "NATIVE", native)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with pytest.raises(BuildError) as caught:
        native_cache.native_libraries()
    assert caught.value.code == "NATIVE_BUILD_FAILED"
    assert "error: no" in caught.value.details["output"]
    assert sorted(entry.name for entry in native_cache.cache_root().iterdir()) == ["lock"]
