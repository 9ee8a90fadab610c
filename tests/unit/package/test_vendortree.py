"""Vendor trees: described as they are, flattened by the documented rule, checked for what an aclnn call needs."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from smallq_deploy.base.errors import ConflictError, PackageError
from smallq_deploy.base.fsops import tree_digest, tree_entries
from smallq_deploy.package.elf import machine_name, read_elf
from smallq_deploy.package.validate import validate_vendor
from smallq_deploy.package.vendortree import (
    API_LIBRARY,
    TBE,
    flatten,
    inspect_vendor,
    normalise,
    ops_of_vendor,
    other_vendors,
    snake_case,
)
from tests.support.elf import tiny_elf
from tests.support.packages import ARCH, OPERATOR, UNIT, make_vendor_tree

OTHER_ARCH = "aarch64" if ARCH == "x86_64" else "x86_64"


def codes(root: Path, **options: object) -> dict[str, str]:
    """Findings as {code: severity}."""
    findings = validate_vendor(root, operator=OPERATOR, unit=UNIT, arch=ARCH, **options)  # type: ignore[arg-type]
    return {finding.code: finding.severity for finding in findings}


@pytest.mark.parametrize(
    ("operator", "name"),
    [("SmallqFlashAttention", "smallq_flash_attention"), ("VecAddSample", "vec_add_sample"), ("MoeV2", "moe_v2")],
)
def test_file_names_of_operators(operator: str, name: str) -> None:
    assert snake_case(operator) == name


@pytest.mark.parametrize(
    ("layout", "expected", "flat"),
    [
        ("flat", "flat", True),
        ("nested", "nested", False),
        ("double", "nested", False),
        ("both", "both", True),
        ("empty", "empty", False),
    ],
)
def test_layouts(tmp_path: Path, layout: str, expected: str, flat: bool) -> None:
    tree = inspect_vendor(make_vendor_tree(tmp_path / "customize", layout=layout))
    assert tree.layout == expected
    assert tree.ops == ((OPERATOR,) if layout != "empty" else ())
    assert tree.flat_ops == ((OPERATOR,) if flat else ())
    if layout != "empty":
        assert (tree.units, tree.arch) == ((UNIT,), ARCH)
        assert any(name.endswith(".o") for name in tree.op_files[OPERATOR])
        assert "op_api/lib/libcust_opapi.so" not in tree.op_files[OPERATOR]


def test_a_missing_directory_is_absent(tmp_path: Path) -> None:
    assert inspect_vendor(tmp_path / "none").layout == "absent"


def test_operators_of_other_vendors(tmp_path: Path) -> None:
    make_vendor_tree(tmp_path / "customize")
    make_vendor_tree(tmp_path / "other", ops=("VecAddSample", OPERATOR))
    make_vendor_tree(tmp_path / ".smallq-deploy" / "tree")
    (tmp_path / "config.ini").write_text("load_priority=other\n")
    assert other_vendors(tmp_path, without="customize") == {
        "other": {OPERATOR: ("ascend910b",), "VecAddSample": ("ascend910b",)}
    }
    assert ops_of_vendor(tmp_path / "none") == frozenset()


@pytest.mark.parametrize("layout", ["nested", "double"])
def test_flatten_moves_the_inner_tree_up(tmp_path: Path, layout: str) -> None:
    root = make_vendor_tree(tmp_path / "customize", layout=layout)
    (root / "bin").mkdir()
    (root / "vendors" / "config.ini").write_text("load_priority=customize\n")
    assert flatten(root)
    assert tree_digest(root) == tree_digest(make_vendor_tree(tmp_path / "expected"))
    assert not flatten(root)


@pytest.mark.parametrize(("newer", "kept"), [("nested", "new"), ("flat", "old")])
def test_of_two_copies_the_later_install_stays(tmp_path: Path, newer: str, kept: str) -> None:
    root = make_vendor_tree(tmp_path / "customize", content="old")
    inner = make_vendor_tree(root / "vendors" / "customize", content="new")
    os.utime((inner if newer == "flat" else root) / API_LIBRARY, (1, 1))
    assert flatten(root)
    assert (root / API_LIBRARY).read_bytes().endswith(kept.encode())
    assert inspect_vendor(root).layout == "flat"


def test_of_two_equal_copies_the_one_without_stale_files_stays(tmp_path: Path) -> None:
    """`cp -rf` of the inner tree over an older install leaves files of the older one."""
    root = make_vendor_tree(tmp_path / "customize", layout="both")
    (root / TBE / "kernel" / UNIT / "stale.o").write_bytes(b"old")
    os.utime(root / API_LIBRARY, (2_000_000_000, 2_000_000_000))
    assert flatten(root)
    assert tree_digest(root) == tree_digest(make_vendor_tree(tmp_path / "expected"))


def test_flatten_refuses_to_lose_operators(tmp_path: Path) -> None:
    root = make_vendor_tree(tmp_path / "customize", ops=("VecAddSample",), content="old")
    os.utime(root / API_LIBRARY, (1, 1))
    make_vendor_tree(root / "vendors" / "customize")
    before = tree_digest(root)
    with pytest.raises(ConflictError) as caught:
        flatten(root)
    assert caught.value.code == "LAYOUT_CONFLICT"
    assert "VecAddSample" in caught.value.message
    assert tree_digest(root) == before


def test_normalise(tmp_path: Path) -> None:
    root = make_vendor_tree(tmp_path / "staged", set_env="/old/place")
    final = tmp_path / "opp" / "vendors" / "customize"
    (root / "config.ini").write_text("load_priority=customize\n")
    (root / "scripts").mkdir()
    (root / "scripts" / "uninstall.sh").write_text("rm -rf everything\n")
    (root / API_LIBRARY).chmod(0o4750)
    (root / "op_api").chmod(0o550)
    normalise(root, final=final)
    entries = {entry.path: entry for entry in tree_entries(root)}
    assert {entry.mode for entry in entries.values() if entry.kind == "file"} == {0o644}
    assert {entry.mode for entry in entries.values() if entry.kind == "dir"} == {0o755}
    assert "config.ini" not in entries
    assert "scripts" not in entries
    assert entries[f"{TBE}/op_tiling/liboptiling.so"].target.startswith("lib/linux/")
    assert "/old/place" not in (root / "bin" / "set_env.bash").read_text()
    once = tree_digest(root)
    normalise(root, final=final)
    assert tree_digest(root) == once
    assert codes(root, final=final) == {}


def test_set_env_works_under_set_u_and_does_not_grow(tmp_path: Path) -> None:
    final = tmp_path / "opp with space" / "vendors" / "customize"
    final.parent.mkdir(parents=True)
    root = make_vendor_tree(final)
    normalise(root, final=final)
    script = final / "bin" / "set_env.bash"
    done = subprocess.run(
        ["bash", "-euc", 'source "$1"; source "$1"; echo "$ASCEND_CUSTOM_OPP_PATH|$LD_LIBRARY_PATH"', "-", script],
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == f"{final}|{final}/op_api/lib\n"
    done = subprocess.run(
        ["bash", "-euc", 'source "$1"; echo "$ASCEND_CUSTOM_OPP_PATH|$LD_LIBRARY_PATH"', "-", script],
        env={"PATH": os.environ["PATH"], "ASCEND_CUSTOM_OPP_PATH": "/a:/b", "LD_LIBRARY_PATH": "/c"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == f"{final}:/a:/b|{final}/op_api/lib:/c\n"
    assert codes(final) == {}


def test_normalise_refuses_what_is_no_file(tmp_path: Path) -> None:
    root = make_vendor_tree(tmp_path / "staged")
    os.mkfifo(root / "op_api" / "pipe")
    with pytest.raises(PackageError) as caught:
        normalise(root, final=tmp_path / "final")
    assert caught.value.code == "UNSAFE_MEMBER"


def test_a_good_tree_has_no_findings(tmp_path: Path) -> None:
    root = make_vendor_tree(tmp_path / "customize", set_env=str(tmp_path / "customize"))
    assert validate_vendor(root, operator=OPERATOR, unit=UNIT, arch=ARCH) == ()
    assert validate_vendor(root, operator=OPERATOR) == ()


def kernel(root: Path, suffix: str) -> Path:
    return next((root / TBE / "kernel" / UNIT).rglob(f"*{suffix}"))


def index(root: Path) -> Path:
    return root / TBE / "kernel" / "config" / UNIT / "binary_info_config.json"


def test_each_fault_has_its_finding(tmp_path: Path) -> None:
    """One fault at a time in a good tree; the finding names it, and nothing else is found."""
    info = f"{TBE}/config/{UNIT}/aic-{UNIT}-ops-info.json"
    tiling = f"{TBE}/op_tiling/lib/linux/{ARCH}/libcust_opmaster_rt2.0.so"
    header = "op_api/include/aclnn_smallq_flash_attention.h"
    faults = {
        "no library": (lambda root: (root / API_LIBRARY).unlink(), {"MISSING_FILE": "fail"}),
        "no header": (lambda root: (root / header).unlink(), {"MISSING_FILE": "fail"}),
        "empty header": (lambda root: (root / header).write_text(""), {"MISSING_SYMBOL": "fail"}),
        "text for a library": (lambda root: (root / API_LIBRARY).write_text("text"), {"BAD_ELF": "fail"}),
        "cut library": (lambda root: os.truncate(root / API_LIBRARY, 200), {"BAD_ELF": "fail"}),
        "another package's library": (
            lambda root: (root / API_LIBRARY).write_bytes(tiny_elf(["aclnnOther"], arch=ARCH)),
            {"MISSING_SYMBOL": "fail"},
        ),
        "library of another machine": (
            lambda root: (root / API_LIBRARY).write_bytes(
                tiny_elf([f"aclnn{OPERATOR}", f"aclnn{OPERATOR}GetWorkspaceSize"], arch=OTHER_ARCH)
            ),
            {"WRONG_ARCH": "fail"},
        ),
        "no kernel": (lambda root: kernel(root, ".o").unlink(), {"MISSING_KERNEL": "fail"}),
        "another kernel": (lambda root: kernel(root, ".o").write_bytes(b"x"), {"KERNEL_DIGEST": "fail"}),
        "no kernel description": (lambda root: kernel(root, ".json").unlink(), {"MISSING_FILE": "fail"}),
        "no index": (lambda root: index(root).unlink(), {"MISSING_FILE": "fail"}),
        "broken index": (lambda root: index(root).write_text("{"), {"BAD_JSON": "fail"}),
        "index without us": (lambda root: index(root).write_text("{}"), {"MISSING_KERNEL": "fail"}),
        "index leading out": (
            lambda root: index(root).write_text(
                json.dumps({OPERATOR: {"binaryList": [{"binPath": "../../x.o", "jsonPath": "a.json"}]}})
            ),
            {"BAD_JSON": "fail"},
        ),
        "no operator": (lambda root: (root / info).write_text("{}"), {"MISSING_OPERATOR": "fail"}),
        "broken operator list": (lambda root: (root / info).write_text("[1"), {"BAD_JSON": "fail"}),
        "other unit": (
            lambda root: (root / TBE / "config" / UNIT).rename(root / TBE / "config" / "ascend910_93"),
            {"WRONG_UNIT": "fail"},
        ),
        "no tiling library": (
            lambda root: (root / tiling).unlink(),
            {"MISSING_FILE": "fail", "DANGLING_LINK": "warn"},
        ),
        "link out": (lambda root: os.symlink("/etc/passwd", root / "op_api" / "x"), {"LINK_OUTSIDE": "warn"}),
        "closed to others": (lambda root: (root / API_LIBRARY).chmod(0o600), {"WRONG_MODE": "warn"}),
        "closed directory": (lambda root: root.chmod(0o750), {"WRONG_MODE": "warn"}),
        "stray config.ini": (lambda root: (root / "config.ini").write_text("x"), {"STRAY_CONFIG_INI": "warn"}),
    }
    for number, (name, (fault, expected)) in enumerate(faults.items()):
        root = make_vendor_tree(tmp_path / str(number) / "customize")
        fault(root)
        assert codes(root) == expected, name


def test_required_files_and_symbols_of_a_release(tmp_path: Path) -> None:
    root = make_vendor_tree(tmp_path / "customize")
    found = validate_vendor(root, operator=OPERATOR, symbols=("extra_symbol",), files=("op_api/extra.h", API_LIBRARY))
    assert [(item.code, item.path) for item in found] == [
        ("MISSING_SYMBOL", API_LIBRARY),
        ("MISSING_FILE", "op_api/extra.h"),
    ]


def test_wrong_machine_and_unit(tmp_path: Path) -> None:
    root = make_vendor_tree(tmp_path / "customize", arch=OTHER_ARCH, unit="ascend910_93")
    assert set(codes(root)) == {"WRONG_ARCH", "WRONG_UNIT", "MISSING_FILE"}


def test_layout_findings_and_dangling_set_env(tmp_path: Path) -> None:
    nested = tmp_path / "customize"
    inner = nested / "vendors" / "customize"
    make_vendor_tree(nested, layout="nested", set_env=str(inner))
    assert codes(nested) == {"NESTED_LAYOUT": "fail"}
    # The usual README then copies the inner tree up and deletes it: set_env.bash still names the deleted place.
    flatten(nested)
    assert codes(nested) == {"SET_ENV_DANGLING": "warn"}
    both = make_vendor_tree(tmp_path / "both", layout="both")
    assert codes(both) == {"BOTH_LAYOUTS": "warn"}


def test_set_env_through_a_link_is_no_finding(tmp_path: Path) -> None:
    (tmp_path / "latest").symlink_to("real")
    (tmp_path / "real").mkdir()
    root = make_vendor_tree(tmp_path / "real" / "customize", set_env=str(tmp_path / "latest" / "customize"))
    assert codes(root) == {}


@pytest.mark.parametrize("parent", ["my.opp", "x.json"])
def test_paths_that_cann_cuts(tmp_path: Path, parent: str) -> None:
    root = make_vendor_tree(tmp_path / parent / "customize")
    assert codes(root) == {"PATH_TRAP": "fail"}


def test_elf_facts(tmp_path: Path) -> None:
    path = tmp_path / "x.so"
    path.write_bytes(tiny_elf(["one", "two"], arch="aarch64", needed=["libnnopbase.so"]))
    info = read_elf(path)
    assert (info.arch, info.exported, info.needed) == ("aarch64", {"one", "two"}, ("libnnopbase.so",))
    assert machine_name(b"text") == ""
    assert machine_name(tiny_elf(arch="riscv64")) == "em243"
    for raw in (b"", b"\x7fELF", b"\x7fELF" + bytes(60), path.read_bytes()[:300]):
        path.write_bytes(raw)
        with pytest.raises(PackageError) as caught:
            read_elf(path)
        assert caught.value.code == "BAD_ELF"
