"""What a fresh package must show: a digest for every kernel, and only functions that the toolkit has."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from smallq_deploy.base.errors import PackageError
from smallq_deploy.package.buildcheck import kernel_problems, unresolved_functions
from smallq_deploy.package.elf import read_elf
from tests.support.packages import OPERATOR, UNIT, make_vendor_tree, snake

KERNELS = f"op_impl/ai_core/tbe/kernel/{UNIT}"


def library(path: Path, code: str) -> Path:
    """A shared object of a few lines of C, without the standard library."""
    command = ["g++", "-shared", "-fPIC", "-nostdlib", "-x", "c++", "-", "-o", str(path)]
    subprocess.run(command, input=f'extern "C" {{ {code} }}', text=True, check=True)
    return path


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return make_vendor_tree(tmp_path / "customize", ops=(OPERATOR, "VecAddSample"))


def kernel(tree: Path, operator: str = "VecAddSample") -> Path:
    (found,) = (tree / KERNELS / snake(operator)).glob("*.o")
    return found


def test_whole_kernels(tree: Path) -> None:
    assert kernel_problems(tree) == ()


def swap(binary: Path) -> None:
    binary.write_bytes(b"another kernel")


def no_description(binary: Path) -> None:
    binary.with_suffix(".json").unlink()


def no_digest(binary: Path) -> None:
    binary.with_suffix(".json").write_text(json.dumps({"binFileName": binary.stem}))


def empty_digest(binary: Path) -> None:
    binary.with_suffix(".json").write_text(json.dumps({"sha256": ""}))


def no_json(binary: Path) -> None:
    binary.with_suffix(".json").write_text("{")


def no_object(binary: Path) -> None:
    binary.with_suffix(".json").write_text("[1]")


def deep(binary: Path) -> None:
    binary.with_suffix(".json").write_text("[" * 100_000)


def directory(binary: Path) -> None:
    binary.unlink()
    binary.mkdir()


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (swap, "sha256 differs"),
        (no_description, "no description"),
        (no_digest, "does not state the sha256"),
        (empty_digest, "does not state the sha256"),
        (no_json, "not valid JSON"),
        (no_object, "does not state the sha256"),
        (deep, "not valid JSON"),
        (directory, "is no file"),
    ],
)
def test_kernels_that_nothing_vouches_for(tree: Path, damage: Callable[[Path], None], words: str) -> None:
    """Also of an operator that is in the package besides ours."""
    binary = kernel(tree)
    damage(binary)
    (problem,) = kernel_problems(tree)
    assert words in problem
    assert binary.stem in problem


def test_functions_the_toolkit_lacks(tmp_path: Path) -> None:
    base = library(tmp_path / "libnnopbase.so", "int NnopbaseCreate() { return 0; }")
    fitting = library(
        tmp_path / "fits.so",
        "int NnopbaseCreate(); int other(); __attribute__((weak)) int NnopbaseNew();"
        "int aclnnOp() { return NnopbaseCreate() + other() + (NnopbaseNew ? NnopbaseNew() : 0); }",
    )
    assert {"NnopbaseCreate", "other"} <= read_elf(fitting).undefined
    assert "NnopbaseNew" not in read_elf(fitting).undefined, "a weak reference may stay open"
    assert unresolved_functions(fitting, base) == ()
    newer = library(
        tmp_path / "newer.so",
        "int NnopbaseCreate(); int NnopbaseZ(); int NnopbaseA();"
        "int aclnnOp() { return NnopbaseCreate() + NnopbaseZ() + NnopbaseA(); }",
    )
    assert unresolved_functions(newer, base) == ("NnopbaseA", "NnopbaseZ")
    (tmp_path / "libnnopbase.so").write_text("no library")
    with pytest.raises(PackageError) as caught:
        unresolved_functions(newer, base)
    assert caught.value.code == "BAD_ELF"
