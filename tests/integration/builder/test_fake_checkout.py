"""The builder around a build.sh that does what a test says: every lie a build can tell is found."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
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
from tests.support.packages import OPERATOR, Files, make_run, pack, package_members, vendor_files, write_run
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
        made_for = settings.pop("release", release)
        return build(environment.discovery, made_for, **settings)  # type: ignore[arg-type]

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


@pytest.mark.parametrize("version", ["", "none", "8.5.t4.0"], ids=["check off", "no version", "a version"])
def test_all_forms_of_the_package_name(run_build: Build, tmp_path: Path, version: str) -> None:
    name = f"CANN-custom_ops-{version}-linux.{ARCH}.run"
    result = run_build(f"mkdir -p output\ncp {make_run(tmp_path / 'good.run')} output/{name}\n")
    assert result.package.name == name


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
        ("/usr/bin/ld: cannot find -lopapi: No such file or directory", "ops package"),
        ("set_env.sh: line 3: PYTHONPATH: unbound variable", "PYTHONPATH is not set"),
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


LISTED = """function(op_add_subdirectory OP_LIST)
    file(GLOB OP_HOST_CMAKE_FILES
        "${CMAKE_CURRENT_SOURCE_DIR}/src/first_op/CMakeLists.txt"
        "${CMAKE_CURRENT_SOURCE_DIR}/src/second_op/CMakeLists.txt"
        "${CMAKE_CURRENT_SOURCE_DIR}/src/**/**/**/CMakeLists.txt"
    )
endfunction()
"""
ENTRY = '"${CMAKE_CURRENT_SOURCE_DIR}/src/smallq_flash_attention/CMakeLists.txt"'
EVERY = LISTED.replace("src/first_op/", "src/*/").replace("second_op", "utils")


@pytest.mark.parametrize(
    ("listing", "changed"),
    [(LISTED, True), (LISTED.replace("first_op", "smallq_flash_attention"), False), (EVERY, False)],
    ids=["one by one", "ours among them", "every directory"],
)
def test_operator_list_of_older_checkouts(
    run_build: Build, recipes: Path, tmp_path: Path, listing: str, changed: bool
) -> None:
    listed = write(recipes / "ops/ascendc/cmake/func.cmake", listing)
    seen = tmp_path / "seen"
    result = run_build(f"cp cmake/func.cmake {seen}\n" + put(make_run(tmp_path / "good.run")))
    assert listed.read_text() == listing, "the user's checkout was changed"
    assert result.provenance["changes"] == (
        ["cmake/func.cmake: smallq_flash_attention added to the operator list"] if changed else []
    )
    lines = seen.read_text().splitlines()
    assert [line.strip() for line in lines].count(ENTRY) == (0 if listing == EVERY else 1)
    assert [line for line in lines if line.strip() != ENTRY] == [
        line for line in listing.splitlines() if line.strip() != ENTRY
    ]


def test_first_pass_follows_the_number_of_jobs(
    run_build: Build, recipes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPS_CPU_NUMBER", "3")
    write(recipes / "ops/ascendc/cmake/scripts/prepare.sh", 'JOB_NUM="-j64"\necho "jobs $JOB_NUM"\n')
    result = run_build("bash cmake/scripts/prepare.sh\n" + put(make_run(tmp_path / "good.run")))
    assert "jobs -j3" in result.log.read_text()


def test_nothing_of_the_callers_shell_gets_in(
    run_build: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An exported `set -u`, a start-up file, make and CMake settings: each has broken somebody's build."""
    startup = write(tmp_path / "startup", "echo started; exit 9\n")
    for name, value in {
        "SHELLOPTS": "nounset",
        "BASH_ENV": str(startup),
        "MAKEFLAGS": "-n",
        "CMAKE_GENERATOR": "Ninja",
        "CMAKE_CXX_COMPILER_LAUNCHER": "ccache",
        "TAR_OPTIONS": "--no-such-option",
    }.items():
        monkeypatch.setenv(name, value)
    script = 'echo "unset: $no_such_variable"\nenv\n'
    result = run_build(script + put(make_run(tmp_path / "good.run")))
    lines = result.log.read_text().splitlines()
    assert lines[0] == "unset: "
    assert "CCACHE_DISABLE=1" in lines
    assert not [
        line for line in lines if line.startswith(("MAKE", "CMAKE_GEN", "CMAKE_CXX", "TAR_", "BASH_ENV", "SHELLOPTS"))
    ]


def test_compiler_cache_is_off(run_build: Build, tmp_path: Path) -> None:
    result = run_build('echo "$*"  # --ccache\n' + put(make_run(tmp_path / "good.run")))
    assert result.log.read_text().splitlines()[0].endswith("--ccache off")


def test_output_that_is_a_link(run_build: Build, recipes: Path, tmp_path: Path) -> None:
    """Neither emptied nor written to: the link is not followed."""
    shutil.rmtree(recipes / "ops/ascendc/output")
    other = tmp_path / "other"
    write(other / "CANN-custom_ops-mine-linux.x.run", "mine")
    (recipes / "ops/ascendc/output").symlink_to(other)
    run_build(put(make_run(tmp_path / "good.run")))
    assert [path.name for path in other.iterdir()] == ["CANN-custom_ops-mine-linux.x.run"]


def two_types(files: Files, kernels: int) -> Files:
    """The operator for float16 and bfloat16, with this number of kernel objects."""
    (info,) = [name for name in files if name.endswith("ops-info.json")]
    files[info] = json.dumps(
        {OPERATOR: {"input0": {"dtype": "float16,bfloat16"}, **json.loads(files[info])[OPERATOR]}}
    ).encode()
    (kernel,) = [name for name in files if name.endswith(".o")]
    for number in range(1, kernels):
        files[kernel.replace(".o", f"{number}.o")] = files[kernel]
        files[kernel.replace(".o", f"{number}.json")] = files[kernel.replace(".o", ".json")]
    return files


@pytest.mark.parametrize(("kernels", "code"), [(1, "BAD_KERNEL"), (2, "")])
def test_kernel_of_one_data_type_failed_silently(run_build: Build, tmp_path: Path, kernels: int, code: str) -> None:
    package = write_run(tmp_path / "p.run", pack(package_members({"customize": two_types(vendor_files(), kernels)})))
    if not code:
        assert run_build(put(package)).run.ops == (OPERATOR,)
        return
    error = fails(run_build, put(package))
    assert error.code == code
    assert "1 of 2 data type combinations" in error.message


@pytest.mark.parametrize(
    "line",
    [
        "[ERROR] op SmallqFlashAttention: not any obj compile success",
        "[ERROR] [ascend910b] smallq_flash_attention.json not generated!",
    ],
)
def test_log_that_tells_of_a_failed_kernel(run_build: Build, tmp_path: Path, line: str) -> None:
    error = fails(run_build, f'echo "{line}"\n' + put(make_run(tmp_path / "good.run")))
    assert error.code == "BAD_KERNEL"
    assert line in error.message


def test_several_chips(run_build: Build, release: Release, environment: Environment, tmp_path: Path) -> None:
    both = replace(release, units=(UNIT, "ascend910_93"))
    files = vendor_files()
    one = write_run(tmp_path / "one.run", pack(package_members({"customize": files})))
    files |= vendor_files(unit="ascend910_93")
    two = write_run(tmp_path / "two.run", pack(package_members({"customize": files})))
    error = fails(run_build, put(one), unit=both.units, release=both)
    assert error.code == "WRONG_UNIT"
    assert "nothing for ascend910_93" in error.message
    sources = tmp_path / "smallq_flash_attention"
    result = run_build('echo "$*"\n' + put(two), unit=both.units, release=both)
    assert f"-c {UNIT};ascend910_93" in result.log.read_text()
    for unit in both.units:
        assert find_built(environment, both, unit, sources=sources) == result.package
    assert find_built(environment, both, "ascend310p", sources=sources) is None


MEMORY = "MemTotal: 99999999 kB\nMemAvailable:   {} kB\n"
MANY = 1 << 30  # kB
JOBS = [
    ({"proc/meminfo": MEMORY.format(MANY)}, None, 64),
    ({"proc/meminfo": MEMORY.format(5 << 20)}, None, 2),
    ({"proc/meminfo": MEMORY.format(1 << 20)}, None, 1),
    ({"proc/meminfo": MEMORY.format(MANY), "sys/fs/cgroup/memory.max": "max\n"}, None, 64),
    ({"proc/meminfo": MEMORY.format(MANY), "sys/fs/cgroup/memory.max": f"{9 << 30}\n"}, None, 4),
    (
        {
            "proc/meminfo": MEMORY.format(MANY),
            "proc/self/cgroup": "0::/user.slice/build.service\n",
            "sys/fs/cgroup/user.slice/memory.max": f"{6 << 30}\n",
            "sys/fs/cgroup/user.slice/build.service/memory.max": f"{12 << 30}\n",
        },
        None,
        3,
    ),
    (
        {
            "proc/meminfo": MEMORY.format(MANY),
            "proc/self/cgroup": "3:cpu,cpuacct:/x\n2:memory:/docker/1\n",
            "sys/fs/cgroup/memory/docker/1/memory.limit_in_bytes": f"{4 << 30}\n",
        },
        None,
        2,
    ),
    ({"proc/meminfo": MEMORY.format(MANY), "sys/fs/cgroup/cpu.max": "350000 100000\n"}, None, 3),
    ({"proc/meminfo": MEMORY.format(1 << 20)}, "12", 12),
    ({}, None, 64),
]


@pytest.mark.parametrize(("files", "asked", "count"), JOBS)
def test_jobs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, str], asked: str | None, count: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(64)))
    for name, text in files.items():
        write(tmp_path / name, text)
    assert job_count(tmp_path, asked).count == count


@pytest.mark.parametrize("asked", ["0", "-1", "all", "4 8"])
def test_number_of_jobs_that_is_none(run_build: Build, monkeypatch: pytest.MonkeyPatch, asked: str) -> None:
    monkeypatch.setenv("OPS_CPU_NUMBER", asked)
    error = fails(run_build, "")
    assert error.code == "BAD_VALUE"
    assert "OPS_CPU_NUMBER" in error.message


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
        build(nothing.discovery, release, recipes=recipes, unit=UNIT, sources=sources)


def test_options_by_checkout(tmp_path: Path) -> None:
    write(tmp_path / "build.sh", "case $1 in -n) ;; esac")
    assert build_command(tmp_path, "SmallqFlashAttention", [UNIT])[2:] == ["-n", "smallq_flash_attention", "-c", UNIT]
    write(tmp_path / "build.sh", "--disable-check-compatible|--disable-check-compatiable) ;; --ccache)")
    assert "--disable-check-compatible" in build_command(tmp_path, "SmallqFlashAttention", [UNIT])


def test_workspace_can_be_kept(run_build: Build, tmp_path: Path) -> None:
    result = run_build(put(make_run(tmp_path / "good.run")), keep_workspace=True)
    assert result.workspace is not None
    assert (result.workspace / "ascendc/src/smallq_flash_attention/op_kernel").is_dir()


@pytest.mark.parametrize("name", ["my cache", "c++", "common", "x(1)", "a;b", "ophost-data"])
def test_cache_directory_that_build_projects_do_not_survive(
    run_build: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / name))
    monkeypatch.setattr("tempfile.tempdir", "/tmp")
    seen = tmp_path / "seen"
    run_build(f"pwd > {seen}\n" + put(make_run(tmp_path / "good.run")))
    assert re.fullmatch(r"/tmp/[\w./-]+\n", seen.read_text())
    assert name not in seen.read_text()
