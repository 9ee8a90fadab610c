"""The operator built from its sources in the simulated toolkit, put where the runtime looks, and called."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from smallq_deploy.base.fsops import sha256_file, tree_digest
from smallq_deploy.machine.environment import Environment, detect_environment
from smallq_deploy.operate.builder import build
from smallq_deploy.package.data import data_root
from smallq_deploy.package.releases import Release, default_release
from smallq_deploy.package.runfile import extract_vendor, read_run
from smallq_deploy.package.vendortree import normalise
from smallq_deploy.smoke.report import SmokeReport
from smallq_deploy.smoke.resolve import OPAPI
from smallq_deploy.smoke.runner import run_smoke

KERNELS = Path("op_impl/ai_core/tbe/kernel/ascend910b/smallq_flash_attention")
Installed = tuple[Environment, Path]


@pytest.fixture(scope="module")
def release() -> Release:
    return default_release()


def put(package: Path, root: Path) -> Installed:
    """Install by hand what the installer would: the flat tree and its line in config.ini."""
    environment = detect_environment(cann=root)
    assert environment.toolkit is not None
    live = environment.toolkit.vendors / "customize"
    extract_vendor(read_run(package), live)
    normalise(live, final=live)
    (environment.toolkit.vendors / "config.ini").write_text("load_priority=customize\n")
    return environment, live


@pytest.fixture
def installed(operator_package: Path, fresh_toolkit: Callable[..., Path]) -> Installed:
    return put(operator_package, fresh_toolkit())


def smoke(installed: Installed, release: Release, **options: object) -> SmokeReport:
    environment, live = installed
    assert environment.toolkit is not None
    settings: dict[str, object] = {"live": live, "timeout": 60.0, **options}
    return run_smoke(environment.toolkit, release, **settings)  # type: ignore[arg-type]


def test_machine_is_seen(simulated_toolkit: Path) -> None:
    environment = detect_environment(cann=simulated_toolkit)
    assert environment.toolkit is not None
    assert environment.toolkit.remark == "simulated toolkit"
    assert environment.unit == "ascend910b"
    assert [npu.soc for npu in environment.devices.npus] == ["Ascend910B3"] * 8
    assert environment.devices.driver
    assert environment.warnings == ()


def test_old_layout_is_seen(fresh_toolkit: Callable[..., Path]) -> None:
    root = fresh_toolkit(cann_version="8.1.RC1")
    environment = detect_environment(cann=root)
    toolkit = environment.toolkit
    assert toolkit is not None
    assert (str(toolkit.version), toolkit.layout) == ("8.1.RC1", "old")
    assert toolkit.opp == root / "ascend-toolkit/8.1.RC1/opp"
    assert toolkit.environment()["ASCEND_HOME_PATH"] == str(root / "ascend-toolkit/latest")
    assert environment.unit == "ascend910b"


def test_pass(installed: Installed, release: Release) -> None:
    _, live = installed
    report = smoke(installed, release)
    assert report.verdict == "pass", report.message
    assert report.remark == "simulated toolkit"
    assert report.library == str(live / OPAPI)
    assert report.library_inode == (live / OPAPI).stat().st_ino
    assert len(report.cases) == len(release.smoke_cases)
    for case in report.cases:
        assert case.bound is not None
        assert case.bound < 0.5
    # fp16 output cannot be closer to a float64 reference than this everywhere: the numbers were really compared.
    assert max(case.max_abs or 0.0 for case in report.cases) > 1e-6


FAULTS = [
    ("set_device_fails", "inconclusive", "SMOKE_INCONCLUSIVE", 507033, 8),
    ("no_device", "inconclusive", "SMOKE_INCONCLUSIVE", 207004, 1),
    ("no_permission", "inconclusive", "SMOKE_INCONCLUSIVE", 207006, 1),
    ("driver_old", "inconclusive", "SMOKE_INCONCLUSIVE", 507899, 8),
    ("oom", "inconclusive", "SMOKE_INCONCLUSIVE", 207018, 8),
    ("soc_mismatch", "fail", "SMOKE_ACLNN_ERROR", 561003, 1),
    ("dies", "fail", "SMOKE_CRASHED", None, 1),
    ("wrong_numbers", "fail", "SMOKE_WRONG_NUMBERS", None, 1),
]


@pytest.mark.parametrize(("fault", "verdict", "reason", "code", "asked"), FAULTS, ids=[row[0] for row in FAULTS])
def test_faults(
    operator_package: Path,
    fresh_toolkit: Callable[..., Path],
    release: Release,
    monkeypatch: pytest.MonkeyPatch,
    fault: str,
    verdict: str,
    reason: str,
    code: int | None,
    asked: int,
) -> None:
    installed = put(operator_package, fresh_toolkit())
    monkeypatch.setenv("SMALLQ_SIM_FAULT", fault)
    report = smoke(installed, release)
    assert (report.verdict, report.reason, report.code) == (verdict, reason, code), report.message
    assert len(report.devices) == asked
    assert report.hint


def test_device_that_hangs(installed: Installed, release: Release, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SMALLQ_SIM_FAULT", "device_hangs")
    report = smoke(installed, release, timeout=3.0, device=5)
    assert report.verdict == "inconclusive"
    assert "hung while opening device 5" in report.message


def test_all_devices(installed: Installed, release: Release, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SMALLQ_SIM_DEVICES", "2")
    report = smoke(installed, release, device="all")
    assert report.verdict == "pass"
    assert [item.device for item in report.devices] == [0, 1]


def test_unknown_device(installed: Installed, release: Release) -> None:
    report = smoke(installed, release, device=99)
    assert report.verdict == "inconclusive"
    assert "no device 99" in report.message


def remove_kernel(live: Path) -> None:
    for kernel in (live / KERNELS).glob("*.o"):  # one for each data type
        kernel.unlink()


def change_kernel(live: Path) -> None:
    for kernel in (live / KERNELS).glob("*.o"):
        kernel.write_bytes(b"\x7fELF" + bytes(1000))


def remove_index(live: Path) -> None:
    shutil.rmtree(live / "op_impl/ai_core/tbe/kernel/config")


def remove_tiling(live: Path) -> None:
    shutil.rmtree(live / "op_impl/ai_core/tbe/op_tiling")


def empty_library(live: Path) -> None:
    """The names are in the file, but no library is around them."""
    (live / OPAPI).write_text("\0aclnnSmallqFlashAttentionGetWorkspaceSize\0")


DAMAGES = [
    (remove_kernel, "SMOKE_ACLNN_ERROR", (561003, 561113), ".o"),
    (change_kernel, "SMOKE_ACLNN_ERROR", (561113,), "Cause:"),
    (remove_index, "SMOKE_ACLNN_ERROR", (561003, 561112), "binary_info_config.json"),
    (remove_tiling, "SMOKE_ACLNN_ERROR", (561002,), "tiling"),
    (empty_library, "SMOKE_NO_LIBRARY", (None,), "libcust_opapi.so"),
]


@pytest.mark.parametrize(("damage", "reason", "codes", "words"), DAMAGES, ids=[row[0].__name__ for row in DAMAGES])
def test_damaged_installation(
    installed: Installed,
    release: Release,
    damage: Callable[[Path], None],
    reason: str,
    codes: tuple[int | None, ...],
    words: str,
) -> None:
    _, live = installed
    damage(live)
    report = smoke(installed, release, device=0)
    assert (report.verdict, report.reason) == ("fail", reason), report.message
    assert report.code in codes
    assert words in report.message


def test_other_vendor_in_front_is_noticed(installed: Installed, release: Release) -> None:
    _, live = installed
    shutil.copytree(live, live.parent / "other", symlinks=True)
    (live.parent / "config.ini").write_text("load_priority=other,customize\n")
    assert smoke(installed, release).reason == "SMOKE_OUTSIDE_LIVE_TREE"
    (live.parent / "config.ini").write_text("load_priority=customize,other\n")
    assert smoke(installed, release).verdict == "pass"


def test_live_tree_that_is_a_link_is_noticed(installed: Installed, release: Release, tmp_path: Path) -> None:
    """A library that leads out of the live tree is not what was installed there."""
    _, live = installed
    shutil.move(live / OPAPI, tmp_path / "libcust_opapi.so")
    (live / OPAPI).symlink_to(tmp_path / "libcust_opapi.so")
    report = smoke(installed, release)
    assert report.reason == "SMOKE_OUTSIDE_LIVE_TREE"
    assert str(tmp_path) in report.message


def test_changed_arithmetic_gives_wrong_numbers(
    simulated_toolkit: Path, fresh_toolkit: Callable[..., Path], release: Release, tmp_path: Path
) -> None:
    """One arithmetic line of the kernel changed: builds, installs, and does not pass."""
    sources = tmp_path / "smallq_flash_attention"
    shutil.copytree(data_root() / "src_op/smallq_flash_attention", sources)
    line = "Muls<float>(score, score, shape.scale,"
    (header,) = [path for path in (sources / "op_kernel").iterdir() if line in path.read_text()]
    header.write_text(header.read_text().replace(line, line.replace("scale", "scale * 1.5f"), 1))
    recipes = simulated_toolkit / "cann-recipes-infer"
    digest = tree_digest(recipes)
    result = build(
        detect_environment(cann=simulated_toolkit).discovery,
        release,
        recipes=recipes,
        unit="ascend910b",
        sources=sources,
    )
    assert tree_digest(recipes) == digest
    assert result.provenance["compiler"].startswith("bisheng (simulated toolkit)")
    assert result.provenance["toolkit"]["remark"] == "simulated toolkit"
    assert sha256_file(result.package) == result.provenance["package"]["sha256"]
    report = smoke(put(result.package, fresh_toolkit()), release)
    assert report.reason == "SMOKE_WRONG_NUMBERS"
    # One key has weight 1 whatever the scale is.
    assert {case.name for case in report.cases if case.passed} == {"one-key"}
