"""The builder around a build.sh that does what a test says: every lie a build can tell is found."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from smallq_deploy.base.errors import BuildError, ExitStatus, IncompatibleError, NoToolkitError, SmallqError, UsageError
from smallq_deploy.base.events import Event, Events
from smallq_deploy.base.fsops import sha256_file, tree_digest
from smallq_deploy.machine.environment import Environment, detect_environment
from smallq_deploy.operate.builder import BuildResult, build, find_built
from smallq_deploy.operate.buildroutes import build_command
from smallq_deploy.operate.buildspace import job_count
from smallq_deploy.operate.built import content_digest, data_home
from smallq_deploy.package.releases import Release, default_release
from tests.support.packages import make_run
from tests.support.toolkits import make_new, write

ARCH = os.uname().machine
UNIT = "ascend910b"
NAME = f"CANN-custom_ops--linux.{ARCH}.run"


@pytest.fixture(scope="module")
def release() -> Release:
    return default_release()


@pytest.fixture
def environment(tmp_path: Path) -> Environment:
    make_new(tmp_path / "Ascend", remark="made-up toolkit")
    return detect_environment(cann=tmp_path / "Ascend", environ={}, root=tmp_path / "root")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def recipes(tmp_path: Path) -> Path:
    """A checkout with an old package in output/, as an earlier build leaves it."""
    project = tmp_path / "recipes/ops/ascendc"
    write(project / "CMakeLists.txt", 'set(VENDOR_NAME "customize" CACHE STRING "vendor name")\n')
    (project / "src").mkdir()
    (project / "output").mkdir()
    make_run(project / "output" / "CANN-custom_ops-old-linux.x.run")
    return tmp_path / "recipes"


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    place = tmp_path / "smallq_flash_attention"
    write(place / "op_host/smallq_flash_attention_def.cpp", "// definition\n")
    kernel = write(place / "op_kernel/smallq_flash_attention.cpp", "// kernel\n")
    kernel.chmod(0o666)
    return place


Build = Callable[..., BuildResult]


@pytest.fixture
def run_build(environment: Environment, release: Release, recipes: Path, sources: Path, cache: Path) -> Build:
    """``run_build(script)`` builds with a build.sh of these lines."""

    def go(script: str, **options: object) -> BuildResult:
        write(recipes / "ops/ascendc/build.sh", "set -e\n" + script)
        settings: dict[str, object] = {"recipes": recipes, "unit": UNIT, "sources": sources, **options}
        return build(environment, release, **settings)  # type: ignore[arg-type]

    return go


def put(package: Path) -> str:
    """Lines of a build.sh that ends with ``package`` in output/."""
    return f"echo building\nmkdir -p output\ncp {package} output/{NAME}\n"


def test_a_good_build(run_build: Build, recipes: Path, sources: Path, cache: Path, tmp_path: Path) -> None:
    package = make_run(tmp_path / "good.run")
    lines: list[str] = []

    def sink(event: Event) -> None:
        if event.kind == "output":
            lines.append(event.text)

    write(recipes / "ops/ascendc/build.sh", "set -e\n" + put(package))
    before = tree_digest(recipes)
    result = run_build(put(package), events=Events(sink), output=tmp_path / "out")
    assert tree_digest(recipes) == before
    assert lines == ["building"]
    assert result.log.read_text() == "building\n"
    assert sha256_file(result.package) == sha256_file(package)
    assert sha256_file(tmp_path / "out" / NAME) == sha256_file(package)
    assert result.copied_to == tmp_path / "out" / NAME
    assert (tmp_path / "out" / NAME).stat().st_mode & 0o777 == 0o755
    assert result.to_dict()["package"] == str(tmp_path / "out" / NAME)
    assert list((cache / "smallq-deploy/build").iterdir()) == []
    provenance = json.loads((result.package.parent / "provenance.json").read_text())
    assert provenance == json.loads(json.dumps(dict(result.provenance)))
    assert provenance["source_digest"] == content_digest(sources)
    assert provenance["toolkit"]["version"] == "8.5.0"
    assert provenance["toolkit"]["remark"] == "made-up toolkit"
    assert provenance["unit"] == UNIT
    assert provenance["arch"] == ARCH
    assert provenance["package"]["sha256"] == sha256_file(package)
    assert provenance["command"][:6] == ["bash", "build.sh", "-n", "smallq_flash_attention", "-c", UNIT]


def test_what_build_sh_sees(run_build: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASCEND_CUSTOM_OPP_PATH", "/stale")
    seen = tmp_path / "seen"
    script = f"""
umask > {seen}
pwd >> {seen}
stat -c %a src/smallq_flash_attention/op_kernel/smallq_flash_attention.cpp >> {seen}
ls output 2>/dev/null | wc -l >> {seen}
echo "$ASCEND_HOME_PATH|$ASCEND_CUSTOM_OPP_PATH|$OPS_CPU_NUMBER" >> {seen}
"""
    old = os.umask(0o002)
    try:
        run_build(script + put(make_run(tmp_path / "good.run")))
    finally:
        os.umask(old)
    umask, where, mode, leftovers, variables = seen.read_text().split("\n")[:5]
    assert int(umask, 8) == 0o022
    assert not where.startswith(str(tmp_path / "recipes"))
    assert mode == "644"
    assert leftovers.strip() == "0"
    home, custom, jobs = variables.split("|")
    assert home.endswith("cann-8.5.0")
    assert custom == ""
    assert int(jobs) == job_count().count >= 1


def test_find_built(
    run_build: Build, environment: Environment, release: Release, sources: Path, tmp_path: Path
) -> None:
    assert find_built(environment, release, UNIT, sources=sources) is None
    result = run_build(put(make_run(tmp_path / "good.run")))
    assert find_built(environment, release, UNIT, sources=sources) == result.package
    assert find_built(environment, release, "ascend310p", sources=sources) is None
    assert find_built(environment, release, UNIT, sources=sources, vendor="other") is None
    # Made from other sources than those that come with the tool.
    assert find_built(environment, release, UNIT) is None
    (sources / "op_kernel/smallq_flash_attention.cpp").chmod(0o600)
    assert find_built(environment, release, UNIT, sources=sources) == result.package
    kernel = write(sources / "op_kernel/smallq_flash_attention.cpp", "// changed\n")
    assert find_built(environment, release, UNIT, sources=sources) is None
    kernel.write_text("// kernel\n")
    result.package.write_bytes(b"damaged")
    assert find_built(environment, release, UNIT, sources=sources) is None


def test_building_again_replaces(
    run_build: Build, environment: Environment, release: Release, sources: Path, tmp_path: Path
) -> None:
    first = run_build(put(make_run(tmp_path / "one.run", content="1")))
    second = run_build(put(make_run(tmp_path / "one.run", content="2")), rebuild=True)
    assert first.package == second.package
    assert first.run.file_sha256 != second.run.file_sha256
    assert find_built(environment, release, UNIT, sources=sources) == second.package
    assert [path.name for path in (data_home() / "packages").iterdir()] == [second.package.parent.name]


def test_vendor_name(run_build: Build, tmp_path: Path) -> None:
    package = make_run(tmp_path / "acme.run", vendor="acme")
    result = run_build("grep -q 'VENDOR_NAME \"acme\"' CMakeLists.txt\n" + put(package), vendor="acme")
    assert result.run.vendor == "acme"
    with pytest.raises(BuildError) as caught:
        run_build(put(package))
    assert caught.value.code == "WRONG_VENDOR"
    with pytest.raises(UsageError) as bad:
        run_build(put(package), vendor="a-b")
    assert bad.value.code == "BAD_VENDOR"


def fails(run_build: Build, script: str, **options: object) -> SmallqError:
    with pytest.raises(SmallqError) as caught:
        run_build(script, **options)
    error = caught.value
    assert not list((data_home() / "packages").glob("*")), "a refused package was kept"
    if isinstance(error, BuildError):
        assert error.exit_status == ExitStatus.BUILD_FAILED
        assert error.hint
        assert Path(error.details["log"]).is_file()
    return error


def test_failing_build(run_build: Build, cache: Path) -> None:
    error = fails(run_build, "echo one\necho 'x.cpp:3: error: no such thing' >&2\nexit 4\n")
    assert error.code == "BUILD_FAILED"
    assert "exit status 4" in error.message
    assert "no such thing" in error.message
    assert error.details["log_tail"].splitlines() == ["one", "x.cpp:3: error: no such thing"]
    assert "build.sh" in error.details["command"]
    assert list((cache / "smallq-deploy/build").iterdir()) == []


@pytest.mark.parametrize(
    ("line", "advice"),
    [
        ("Error: bisheng compilation tool not found, Please check", "no kernel compiler"),
        ("Check version compatibility failed.", "matching branch"),
        ("ModuleNotFoundError: No module named 'decorator'", "pip install decorator"),
        ("c++: fatal error: Killed signal terminated program cc1plus", "OPS_CPU_NUMBER=1"),
        ("cp: No space left on device", "XDG_CACHE_HOME"),
    ],
)
def test_known_symptoms_give_the_hint(run_build: Build, line: str, advice: str) -> None:
    assert advice in fails(run_build, f'echo "{line}"\nexit 1\n').hint


def test_build_that_never_ends(run_build: Build) -> None:
    error = fails(run_build, "sleep 60\n", timeout=1.0)
    assert error.code == "BUILD_FAILED"
    assert "did not end" in error.message


def test_old_package_in_output_is_not_taken(run_build: Build) -> None:
    assert fails(run_build, "echo done\n").code == "NO_PACKAGE"


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"damage": "no_ops"}, "EMPTY_PACKAGE"),
        ({"ops": ("VecAddSample",)}, "EMPTY_PACKAGE"),
        ({"unit": "ascend910_93"}, "WRONG_UNIT"),
        ({"arch": "aarch64" if ARCH != "aarch64" else "x86_64"}, "WRONG_ARCH"),
        ({"damage": "missing_kernel"}, "BAD_KERNEL"),
        ({"damage": "kernel_digest"}, "BAD_TREE"),
        ({"damage": "no_symbols"}, "BAD_TREE"),
        ({"damage": "truncated"}, "TRUNCATED"),
        ({"damage": "flipped_byte"}, "CHECKSUM"),
    ],
)
def test_success_that_is_none(run_build: Build, tmp_path: Path, options: dict[str, object], code: str) -> None:
    package = make_run(tmp_path / "bad.run", **options)  # type: ignore[arg-type]
    error = fails(run_build, put(package) + "echo '[ERROR] op X: not any obj compile success'\n")
    assert isinstance(error, BuildError)
    assert error.code == code
    assert "ended with 0, but" in error.message
    assert "not any obj compile success" in error.message


def test_two_packages(run_build: Build, tmp_path: Path) -> None:
    script = put(make_run(tmp_path / "good.run")) + "cp output/*.run output/CANN-custom_ops-2-linux.x.run\n"
    assert fails(run_build, script).code == "SEVERAL_PACKAGES"


def test_not_a_checkout(run_build: Build, tmp_path: Path) -> None:
    error = fails(run_build, "", recipes=tmp_path / "missing")
    assert error.code == "NOT_A_CHECKOUT"
    assert "does not exist" in error.message
    (tmp_path / "empty").mkdir()
    assert fails(run_build, "", recipes=tmp_path / "empty").code == "NOT_A_CHECKOUT"


def test_project_directory_itself_is_a_checkout(run_build: Build, recipes: Path, tmp_path: Path) -> None:
    assert run_build(put(make_run(tmp_path / "good.run")), recipes=recipes / "ops/ascendc").package.is_file()


def test_not_sources(run_build: Build, tmp_path: Path) -> None:
    # The parent of the operator's directory is accepted: the build goes on and finds nothing.
    assert fails(run_build, "", sources=tmp_path).code == "NO_PACKAGE"
    (tmp_path / "other").mkdir()
    assert fails(run_build, "", sources=tmp_path / "other").code == "NOT_SOURCES"


def test_unit_of_another_release(run_build: Build) -> None:
    error = fails(run_build, "", unit="ascend310p")
    assert isinstance(error, IncompatibleError)
    assert error.code == "UNIT_NOT_SUPPORTED"


def test_missing_tools(
    run_build: Build, environment: Environment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bin").mkdir()
    for name in ("bash", "dirname", "readlink", "env"):
        (tmp_path / "bin" / name).symlink_to(str(shutil.which(name)))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setattr("sys.executable", str(tmp_path / "bin/python"))
    with pytest.raises(BuildError) as caught:
        run_build("")
    assert caught.value.code == "MISSING_TOOL"
    assert "g++" in caught.value.message
    assert "apt-get install cmake make g++" in caught.value.hint
    assert "gcc-c++" in caught.value.hint


def test_machine_without_toolkit(release: Release, recipes: Path, sources: Path, tmp_path: Path) -> None:
    nothing = detect_environment(environ={}, root=tmp_path / "root")
    write(recipes / "ops/ascendc/build.sh", "")
    with pytest.raises(NoToolkitError):
        build(nothing, release, recipes=recipes, unit=UNIT, sources=sources)


def test_options_by_checkout(tmp_path: Path) -> None:
    write(tmp_path / "build.sh", "case $1 in -n) ;; esac")
    assert build_command(tmp_path, "SmallqFlashAttention", [UNIT])[2:] == ["-n", "smallq_flash_attention", "-c", UNIT]
    write(tmp_path / "build.sh", "--disable-check-compatible|--disable-check-compatiable) ;; --ccache)")
    assert "--disable-check-compatible" in build_command(tmp_path, "SmallqFlashAttention", [UNIT])


def test_workspace_can_be_kept(run_build: Build, tmp_path: Path) -> None:
    result = run_build(put(make_run(tmp_path / "good.run")), keep_workspace=True)
    assert result.workspace is not None
    assert (result.workspace / "ascendc/src/smallq_flash_attention/op_kernel").is_dir()


def test_cache_directory_with_a_space(run_build: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "my cache"))
    seen = tmp_path / "seen"
    run_build(f"pwd > {seen}\n" + put(make_run(tmp_path / "good.run")))
    assert " " not in seen.read_text()
