"""Builds without a checkout, with the project template of a toolkit: made-up ones, and the simulated toolkit's own."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from smallq_deploy.base.errors import BuildError, IncompatibleError
from smallq_deploy.base.fsops import tree_digest
from smallq_deploy.machine.environment import Environment, detect_environment
from smallq_deploy.operate.builder import BuildResult, build
from smallq_deploy.package.releases import default_release
from smallq_deploy.package.runfile import extract_vendor
from smallq_deploy.package.vendortree import normalise
from smallq_deploy.smoke.runner import run_smoke
from tests.support.packages import make_run
from tests.support.toolkits import make_new, write

UNIT = "ascend910b"
TEMPLATE = "cann-8.5.0/tools/op_project_templates/ascendc/customize"
PRESETS = {
    "configurePresets": [
        {
            "name": "default",
            "cacheVariables": {
                "ASCEND_COMPUTE_UNIT": {"type": "STRING", "value": "__COMPUTE_UNIT__"},
                "vendor_name": {"type": "STRING", "value": "customize"},
                "ASCEND_CANN_PACKAGE_PATH": {"type": "PATH", "value": "/usr/local/Ascend/latest"},
                "ENABLE_TEST": {"type": "BOOL", "value": "True"},
            },
        }
    ]
}


@pytest.fixture(autouse=True)
def own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    if "real_builds" not in request.fixturenames:
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def template(tmp_path: Path) -> Path:
    """A toolkit's template whose build.sh shows what it got and then leaves a package."""
    make_new(tmp_path / "Ascend", remark="made-up toolkit")
    place = tmp_path / "Ascend" / TEMPLATE
    write(place / "CMakeLists.txt", "project(opp)\n")
    write(place / "CMakePresets.json", json.dumps(PRESETS))
    write(place / "cmake/makeself.cmake", "")
    write(place / "scripts/install.sh", "vendor_name=customize\n")
    write(place / "op_host/CMakeLists.txt", "aux_source_directory(. srcs)\n")
    write(place / "op_kernel/CMakeLists.txt", "# options\nadd_kernels_compile()\n")
    package = make_run(tmp_path / "good.run", vendor="acme_ops")
    write(
        place / "build.sh",
        f"cp -r . {tmp_path}/seen\nnproc > {tmp_path}/jobs\nmkdir build_out\n"
        f"cp {package} build_out/custom_opp_debian_x.run\n",
    )
    return place


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    place = tmp_path / "smallq_flash_attention"
    write(
        place / "CMakeLists.txt",
        "add_ops_compile_options(\n    OP_NAME SmallqFlashAttention\n    OPTIONS --cce-auto-sync=off\n"
        "            -mllvm -cce-x=false\n)\n",
    )
    write(place / "op_host/smallq_flash_attention_def.cpp", "// definition\n")
    write(place / "op_kernel/smallq_flash_attention.cpp", "// kernel\n").chmod(0o666)
    return place


def standalone(tmp_path: Path, sources: Path, **options: object) -> BuildResult:
    environment = detect_environment(cann=tmp_path / "Ascend", environ={}, root=tmp_path / "root")
    settings: dict[str, object] = {"unit": UNIT, "sources": sources, "vendor": "acme_ops", **options}
    return build(environment.discovery, default_release(), **settings)  # type: ignore[arg-type]


def test_the_template_is_filled_in_a_copy(
    tmp_path: Path, template: Path, sources: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPS_CPU_NUMBER", "3")
    template.chmod(0o555)
    before = tree_digest(template)
    result = standalone(tmp_path, sources)
    assert tree_digest(template) == before
    assert result.run.vendor == "acme_ops"
    assert result.provenance["route"] == "standalone"
    seen = tmp_path / "seen"
    variables = json.loads((seen / "CMakePresets.json").read_text())["configurePresets"][0]["cacheVariables"]
    assert {name: entry["value"] for name, entry in variables.items()} == {
        "ASCEND_COMPUTE_UNIT": UNIT,
        "vendor_name": "acme_ops",
        "ASCEND_CANN_PACKAGE_PATH": str(tmp_path / "Ascend/cann-8.5.0"),
        "ENABLE_TEST": "False",
    }
    assert (seen / "op_host/smallq_flash_attention_def.cpp").is_file()
    assert (seen / "op_host/CMakeLists.txt").read_text() == (template / "op_host/CMakeLists.txt").read_text()
    assert "OPS_LOG_E" in (seen / "op_host/error/ops_error.h").read_text()
    assert (seen / "op_kernel/smallq_flash_attention.cpp").stat().st_mode & 0o777 == 0o644
    assert (seen / "op_kernel/CMakeLists.txt").read_text().splitlines() == [
        "# options",
        "add_ops_compile_options(SmallqFlashAttention OPTIONS --cce-auto-sync=off -mllvm -cce-x=false)",
        "add_kernels_compile()",
    ]
    assert (tmp_path / "jobs").read_text().strip() == "3"


def test_old_package_in_build_out_is_not_taken(tmp_path: Path, template: Path, sources: Path) -> None:
    make_run(template / "build_out.run", vendor="acme_ops")
    (template / "build_out").mkdir()
    shutil.move(template / "build_out.run", template / "build_out/custom_opp_old.run")
    write(template / "build.sh", "exit 0\n")
    with pytest.raises(BuildError) as caught:
        standalone(tmp_path, sources)
    assert caught.value.code == "NO_PACKAGE"
    assert Path(caught.value.details["log"]).is_file()


@pytest.mark.parametrize("missing", ["build.sh", "CMakePresets.json", "cmake/makeself.cmake", "."])
def test_toolkit_without_template(tmp_path: Path, template: Path, sources: Path, missing: str) -> None:
    if missing == ".":
        shutil.rmtree(template)
    else:
        (template / missing).unlink()
    with pytest.raises(BuildError) as caught:
        standalone(tmp_path, sources)
    assert caught.value.code == "NO_TEMPLATE"
    assert ("does not exist" if missing == "." else missing) in caught.value.message
    assert "--recipes" in caught.value.hint


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("CMakePresets.json", "{"),
        ("CMakePresets.json", "[]"),
        ("CMakePresets.json", '{"configurePresets": []}'),
        ("CMakePresets.json", '{"configurePresets": [{"cacheVariables": {"vendor_name": {"value": "x"}}}]}'),
        ("op_kernel/CMakeLists.txt", "npu_op_kernel_library(x)\n"),
    ],
)
def test_template_of_an_unknown_form(tmp_path: Path, template: Path, sources: Path, name: str, text: str) -> None:
    write(template / name, text)
    with pytest.raises(BuildError) as caught:
        standalone(tmp_path, sources)
    assert caught.value.code == "NO_TEMPLATE"
    assert Path(name).name in caught.value.message


def test_unit_of_another_release(tmp_path: Path, template: Path, sources: Path) -> None:
    with pytest.raises(IncompatibleError):
        standalone(tmp_path, sources, unit=[UNIT, "ascend310p"])


# --- in the simulated toolkit ---

Builds = tuple[BuildResult, BuildResult]


@pytest.fixture(scope="module")
def real_builds(simulated_toolkit: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Builds]:
    """Ours from the toolkit's template for the vendor name smallq_ops, and a small operator for the name acme_ops from
    a checkout that lists its operators one by one, for two chips."""
    place = tmp_path_factory.mktemp("standalone")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_DATA_HOME", str(place / "data"))
        environment = detect_environment(cann=simulated_toolkit)
        ours = build(environment.discovery, default_release(), unit=UNIT, vendor="smallq_ops")
        checkout = place / "recipes"
        shutil.copytree(simulated_toolkit / "cann-recipes-infer", checkout)
        sources = place / "vec_add_sample"
        shutil.move(checkout / "ops/ascendc/src/vec_add_sample", sources)
        functions = checkout / "ops/ascendc/cmake/functions.cmake"
        text = functions.read_text()
        glob = "file(GLOB _files ${CMAKE_SOURCE_DIR}/src/*/CMakeLists.txt)"
        assert glob in text
        listed = 'file(GLOB _files\n        "${CMAKE_SOURCE_DIR}/src/first_op/CMakeLists.txt"\n    )'
        functions.write_text(text.replace(glob, listed))
        other = replace(default_release(), operator="VecAddSample", units=(UNIT, "ascend910_93"))
        small = build(
            environment.discovery, other, unit=other.units, recipes=checkout, sources=sources, vendor="acme_ops"
        )
        yield ours, small


def put(result: BuildResult, environment: Environment) -> Path:
    assert environment.toolkit is not None
    live = environment.toolkit.vendors / result.run.vendor
    extract_vendor(result.run, live)
    normalise(live, final=live)
    return live


@pytest.mark.xdist_group("standalone")
def test_real_builds(real_builds: Builds, simulated_toolkit: Path) -> None:
    ours, small = real_builds
    assert (ours.run.ops, ours.run.vendor) == (("SmallqFlashAttention",), "smallq_ops")
    assert ours.package.name.startswith("custom_opp_")
    assert ours.provenance["recipes"].endswith("op_project_templates/ascendc/customize")
    assert (small.run.ops, small.run.vendor) == (("VecAddSample",), "acme_ops")
    assert set(small.run.units) == {UNIT, "ascend910_93"}
    assert small.provenance["changes"] == [
        "cmake/functions.cmake: vec_add_sample added to the operator list",
        "CMakeLists.txt: VENDOR_NAME is acme_ops",
    ]
    assert not (simulated_toolkit / TEMPLATE / "build_out").exists()


@pytest.mark.xdist_group("standalone")
def test_two_packages_live_together(real_builds: Builds, fresh_toolkit: Callable[..., Path]) -> None:
    environment = detect_environment(cann=fresh_toolkit())
    assert environment.toolkit is not None
    lives = [put(result, environment) for result in reversed(real_builds)]
    (environment.toolkit.vendors / "config.ini").write_text("load_priority=acme_ops,smallq_ops\n")
    report = run_smoke(environment.toolkit, default_release(), live=lives[1], timeout=60.0, device="0")
    assert report.verdict == "pass", report.message
    assert lives[0] != lives[1]
    assert all((live / "op_api/lib/libcust_opapi.so").is_file() for live in lives)


@pytest.mark.xdist_group("standalone")
def test_same_public_interface_on_both_ways(real_builds: Builds, operator_package: Path) -> None:
    """What a program calls and what the runtime reads is the same, whichever way the package was built."""
    from smallq_deploy.package.runfile import read_run

    def interface(names: set[str], vendor: str) -> set[str]:
        kept = (
            "op_api/",
            "op_impl/ai_core/tbe/config/",
            "op_impl/ai_core/tbe/kernel/",
            "op_impl/ai_core/tbe/op_tiling/",
        )
        return {name.replace(vendor, "VENDOR") for name in names if name.startswith(kept)}

    ours = real_builds[0].run
    usual = read_run(operator_package)
    assert interface({member.path for member in ours.vendor_members}, "smallq_ops") == interface(
        {member.path for member in usual.vendor_members}, "customize"
    )
