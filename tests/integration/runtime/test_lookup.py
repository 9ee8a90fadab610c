"""Which vendor directory wins, and the code a user sees when files are missing or wrong."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.support.acl_toolkit import ARCH, UNIT, Child, Toolkit

# arguments: the vendor whose aclnn library is called. Logs show which files were used.
CALL = """
acl = Acl(); acl.start()
op = TinyAdd(acl, arguments[0])
x = np.ones((2, 40), np.float16)
code, z = op.add(x, x)
result.update(code=code, message=acl.message(), ok=bool((z == 2).all()))
"""
LOG = {"ASCEND_SLOG_PRINT_TO_STDOUT": "1", "ASCEND_GLOBAL_LOG_LEVEL": "1"}


def kernel_dir(vendor: Path) -> Path:
    return vendor / "op_impl" / "ai_core" / "tbe" / "kernel"


def kernel_files(vendor: Path, suffix: str) -> list[Path]:
    return sorted((kernel_dir(vendor) / UNIT / "tiny_add").glob(f"*{suffix}"))


def opmaster(vendor: Path) -> Path:
    return vendor / f"op_impl/ai_core/tbe/op_tiling/lib/linux/{ARCH}/libcust_opmaster_rt2.0.so"


def used_kernel(answer: dict[str, str]) -> str:
    return next(line.split("kernel ", 1)[1] for line in answer["stdout"].splitlines() if " kernel /" in line)


def used_tiling(answer: dict[str, str]) -> str:
    return next(line for line in answer["stdout"].splitlines() if "loaded " in line and "opmaster" in line)


@pytest.mark.parametrize(
    ("config", "code"),
    [
        ("load_priority=customize\n", 0),
        ("load_priority=other,customize", 0),
        ("# a comment\nload_priority=customize\n", 0),
        ("\nanything_priority_goes=customize\n", 0),
        ("load_priority=customize \n", 561003),
        ("load_priority= customize\n", 561003),
        ("load_priority=\n", 561003),
        ("#load_priority=customize\n", 561003),
        ("load_priority=other\nload_priority=customize\n", 561003),
        (None, 561003),
    ],
)
def test_config_ini(toolkit: Toolkit, vendor: Path, child: Child, config: str | None, code: int) -> None:
    target = toolkit.install(vendor, configure=False)
    if config is not None:
        (toolkit.vendors / "config.ini").write_text(config)
    answer = child(CALL, target)
    assert answer["code"] == code, answer["message"]
    if code:
        assert "no kernel of operator TinyAdd for ascend910b" in answer["message"]


def test_custom_path_comes_before_config_ini(toolkit: Toolkit, vendor: Path, child: Child, tmp_path: Path) -> None:
    target = toolkit.install(vendor)
    first, second = tmp_path / "first", tmp_path / "second"
    shutil.copytree(vendor, first)
    shutil.copytree(vendor, second)
    answer = child(CALL, target, **LOG)
    assert answer["ok"] and used_kernel(answer).startswith(str(target))
    path = f":{tmp_path / 'gone'}:{first}:{second}:"
    answer = child(CALL, target, ASCEND_CUSTOM_OPP_PATH=path, **LOG)
    assert answer["ok"] and used_kernel(answer).startswith(str(first))
    assert str(first) in used_tiling(answer)
    assert f"{tmp_path / 'gone'} is not a directory, skipped" in answer["stdout"]


def test_tiling_of_one_vendor_with_the_kernel_of_another(
    toolkit: Toolkit, vendor: Path, child: Child, tmp_path: Path
) -> None:
    target = toolkit.install(vendor)
    first = tmp_path / "first"
    shutil.copytree(vendor, first)
    shutil.rmtree(kernel_dir(first))
    answer = child(CALL, target, ASCEND_CUSTOM_OPP_PATH=str(first), **LOG)
    assert answer["ok"]
    assert used_kernel(answer).startswith(str(target)) and str(first) in used_tiling(answer)


def test_nested_layout_is_not_found(toolkit: Toolkit, vendor: Path, child: Child) -> None:
    nested = toolkit.vendors / "customize" / "vendors" / "customize"
    shutil.copytree(vendor, nested)
    (toolkit.vendors / "config.ini").write_text("load_priority=customize\n")
    answer = child(CALL, nested)
    assert answer["code"] == 561003
    assert f"{toolkit.vendors}/customize/op_impl" in answer["message"] and "(missing)" in answer["message"]
    assert child(CALL, nested, ASCEND_CUSTOM_OPP_PATH=str(nested))["ok"]


@pytest.mark.parametrize("suffix", [".o", ".json"])
def test_missing_kernel_file(toolkit: Toolkit, vendor: Path, child: Child, suffix: str) -> None:
    target = toolkit.install(vendor)
    for file in kernel_files(target, suffix):
        file.unlink()
    answer = child(CALL, target)
    assert answer["code"] == 561113
    assert "unusable" in answer["message"] if suffix == ".json" else "missing" in answer["message"]


def test_replaced_kernel_object(toolkit: Toolkit, vendor: Path, child: Child) -> None:
    target = toolkit.install(vendor)
    for file in kernel_files(target, ".o"):
        file.write_bytes(file.read_bytes() + b"\0")
    answer = child(CALL, target)
    assert answer["code"] == 561113 and "sha256" in answer["message"]


def test_dropped_index_entry_and_broken_index(toolkit: Toolkit, vendor: Path, child: Child) -> None:
    target = toolkit.install(vendor)
    index = kernel_dir(target) / "config" / UNIT / "binary_info_config.json"
    content = json.loads(index.read_text())
    content["TinyAdd"]["binaryList"] = [
        entry for entry in content["TinyAdd"]["binaryList"] if "0,2" in entry["simplifiedKey"][0]
    ]
    index.write_text(json.dumps(content))
    answer = child(CALL, target)
    assert answer["code"] == 561003 and "not for these data types" in answer["message"]
    index.write_text('{"TinyAdd": ')
    answer = child(CALL, target)
    assert answer["code"] == 561108 and "binary_info_config.json" in answer["message"]


def test_parent_directory_with_the_object_suffix_leads_astray(
    toolkit: Toolkit, vendor: Path, child: Child, tmp_path: Path
) -> None:
    target = tmp_path / "my.opp" / "customize"
    shutil.copytree(vendor, target)
    answer = child(CALL, target, ASCEND_CUSTOM_OPP_PATH=str(target))
    assert answer["code"] == 561113
    assert f"cannot read {tmp_path}/my.json" in answer["message"]


def test_missing_and_foreign_tiling_library(toolkit: Toolkit, vendor: Path, child: Child) -> None:
    target = toolkit.install(vendor)
    content = bytearray(opmaster(target).read_bytes())
    # e_machine of the ELF header: an architecture this host is not.
    content[18:20] = (0xF3).to_bytes(2, "little")
    opmaster(target).write_bytes(content)
    answer = child(CALL, target)
    assert answer["code"] == 561002 and "libcust_opmaster_rt2.0.so" in answer["message"]
    opmaster(target).unlink()
    assert child(CALL, target)["code"] == 561002


@pytest.mark.parametrize("name", ["ASCEND_HOME_PATH", "ASCEND_OPP_PATH"])
def test_unset_paths(toolkit: Toolkit, vendor: Path, child: Child, name: str) -> None:
    target = toolkit.install(vendor)
    scenario = """
        import os
        acl = Acl(); acl.start()
        op = TinyAdd(acl, arguments[0])
        x = np.ones(8, np.float16)
        tensors = [acl.tensor(acl.upload(x), x.shape, "float16") for _ in range(3)]
        ctypes.CDLL(None).unsetenv(arguments[1].encode())
        result.update(code=op.first(*tensors), message=acl.message())
    """
    answer = child(scenario, target, name)
    assert answer["code"] == 561107 and f"{name} is not set" in answer["message"]


def test_index_is_read_once_and_objects_at_first_use(toolkit: Toolkit, vendor: Path, child: Child) -> None:
    target = toolkit.install(vendor)
    scenario = """
        import shutil
        acl = Acl(); acl.start()
        op = TinyAdd(acl, arguments[0])
        half, single = np.ones(8, np.float16), np.ones(8, np.float32)
        first = op.add(half, half)[0]
        shutil.rmtree(arguments[0] + "/op_impl/ai_core/tbe/kernel")
        result.update(first=first, again=op.add(half, half)[0], other=op.add(single, single)[0])
    """
    answer = child(scenario, target)
    assert (answer["first"], answer["again"], answer["other"]) == (0, 0, 561113)


def test_soc_mismatch_fault(toolkit: Toolkit, vendor: Path, child: Child) -> None:
    target = toolkit.install(vendor)
    answer = child(CALL, target, SMALLQ_SIM_FAULT="soc_mismatch")
    assert answer["code"] == 561003 and "this device is ascend310p" in answer["message"]
