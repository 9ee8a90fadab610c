"""Where tiling, kernels and symbols of an operator come from: the lookup rules, and environments of others."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from smallq_deploy.base.errors import SmallqError, UsageError
from smallq_deploy.operate.resolution import graph_vendors, read_environment, resolve_operator
from smallq_deploy.package.vendortree import API_LIBRARY, TBE
from tests.support.packages import ARCH, OPERATOR, UNIT, make_vendor_tree
from tests.support.toolkits import make_new, write
from tests.unit.doctor.conftest import CONTENT


class Tree:
    """Vendors ``a`` and ``b`` of one toolkit, listed in this order, and one outside of it."""

    def __init__(self, root: Path) -> None:
        self.home = make_new(root / "Ascend")
        self.opp = self.home / "opp"
        self.a, self.b = (self.vendor(self.opp / "vendors" / name) for name in "ab")
        self.outside = self.vendor(root / "outside")
        self.config("load_priority=a,b\n")

    @staticmethod
    def vendor(path: Path) -> Path:
        return make_vendor_tree(path, content=path.name + CONTENT)

    def config(self, text: str) -> None:
        (self.opp / "vendors" / "config.ini").write_text(text)

    def resolve(self, **environ: str) -> tuple[Path | None, tuple[Path, ...], Path | None]:
        base = {"ASCEND_HOME_PATH": str(self.home), "ASCEND_OPP_PATH": str(self.opp)}
        found = resolve_operator(OPERATOR, {**base, **environ}, unit=UNIT)
        return found.tiling, found.kernels, found.symbols


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


def drop_tiling(vendor: Path) -> None:
    shutil.rmtree(vendor / TBE / "op_tiling")


def test_leftmost_vendor_wins_and_kernels_of_all_are_added(tree: Tree) -> None:
    assert tree.resolve() == (tree.a, (tree.a, tree.b), tree.a)
    tree.config("load_priority=b,a\n")
    assert tree.resolve() == (tree.b, (tree.b, tree.a), tree.b)


def test_custom_directories_come_first_and_missing_ones_are_passed_over(tree: Tree, tmp_path: Path) -> None:
    value = f"{tmp_path / 'gone'}::{tree.outside}:"
    assert tree.resolve(ASCEND_CUSTOM_OPP_PATH=value) == (tree.outside, (tree.outside, tree.a, tree.b), tree.outside)
    found = resolve_operator(OPERATOR, {"ASCEND_OPP_PATH": str(tree.opp), "ASCEND_CUSTOM_OPP_PATH": value}, unit=UNIT)
    assert found.passed_over == (str(tmp_path / "gone"),)
    assert found.mixed


def test_parts_are_looked_for_one_by_one(tree: Tree) -> None:
    drop_tiling(tree.a)
    assert tree.resolve() == (tree.b, (tree.a, tree.b), tree.a)
    (tree.a / API_LIBRARY).unlink()
    assert tree.resolve() == (tree.b, (tree.a, tree.b), tree.b)
    (tree.a / TBE / f"kernel/config/{UNIT}/binary_info_config.json").write_text("{")
    assert tree.resolve() == (tree.b, (tree.b,), tree.b)


def test_a_library_of_another_operator_does_not_count(tree: Tree) -> None:
    """Another package installed over it (cann.md 5): kernels are left, symbols and tiling are those of the other."""
    library = next((tree.a / TBE / "op_tiling/lib").rglob("*.so"))
    library.write_bytes(library.read_bytes().replace(CONTENT.encode(), b"VecAddSample\0"))
    other = make_vendor_tree(tree.home / "x", ops=("VecAddSample",))
    shutil.copy(other / API_LIBRARY, tree.a / API_LIBRARY)
    assert tree.resolve() == (tree.b, (tree.a, tree.b), tree.b)


def test_the_architecture_is_the_one_scene_info_says(tree: Tree) -> None:
    other = "aarch64" if ARCH != "aarch64" else "x86_64"
    for name in ("opbase", "ops_base"):
        write(tree.home / "share/info" / name / "scene.info", f"os=linux\narch={other}")
    assert tree.resolve()[0] is None


def test_names_in_config_ini_are_not_trimmed(tree: Tree) -> None:
    tree.config("load_priority=b, a\n")
    assert tree.resolve() == (tree.b, (tree.b,), tree.b)
    assert graph_vendors(tree.opp / "vendors/config.ini") == ("b", "a")
    tree.config("# first\nload_priority=a\n")
    assert tree.resolve()[2] == tree.a
    assert graph_vendors(tree.opp / "vendors/config.ini") == ()


def test_built_in_comes_last(tree: Tree) -> None:
    built_in = make_vendor_tree(tree.opp / "built-in", content="built-in" + CONTENT)
    assert tree.resolve() == (tree.a, (tree.a, tree.b, built_in), tree.a)
    tree.config("load_priority=\n")
    assert tree.resolve() == (built_in, (built_in,), built_in)


def test_linked_programs_take_the_first_library_on_the_path(tree: Tree) -> None:
    environ = {"ASCEND_OPP_PATH": str(tree.opp), "LD_LIBRARY_PATH": f"/gone:{tree.b}/op_api/lib:{tree.a}/op_api/lib"}
    found = resolve_operator(OPERATOR, environ, unit=UNIT)
    assert (found.linked, found.linked_has_symbols) == (tree.b / API_LIBRARY, True)
    assert found.symbols == tree.a


def test_without_an_environment_nothing_is_found() -> None:
    found = resolve_operator(OPERATOR, {}, unit=UNIT)
    assert (found.tiling, found.kernels, found.symbols) == (None, (), None)
    assert "tiling from nowhere, kernels from nowhere, symbols from nowhere" in found.sentence()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A=1\nB=two words\n", {"A": "1", "B": "two words"}),
        ("A=1\0B=x=y\0", {"A": "1", "B": "x=y"}),
        ("declare -x A=\"1 2\"\nexport B='3'\n", {"A": "1 2", "B": "3"}),
        ("BASH_FUNC_x%%=() {  :\n}\nA=1\n", {"A": "1"}),
    ],
)
def test_environment_of_a_file(tmp_path: Path, text: str, expected: dict[str, str]) -> None:
    path = write(tmp_path / "environment", text)
    assert read_environment(str(path)) == (expected, str(path))


def test_environment_of_a_process() -> None:
    code = "print('ready', flush=True); import sys; sys.stdin.read()"
    environ = {"ASCEND_CUSTOM_OPP_PATH": "/planted", "PATH": os.environ["PATH"]}
    with subprocess.Popen(
        [sys.executable, "-c", code], env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        child.stdout.readline()
        found, source = read_environment(str(child.pid))
        child.communicate("")
    assert found["ASCEND_CUSTOM_OPP_PATH"] == "/planted"
    assert str(child.pid) in source


@pytest.mark.parametrize(("source", "code"), [("99999999", "NO_SUCH_ENVIRONMENT"), ("/", "NO_SUCH_ENVIRONMENT")])
def test_no_such_environment(source: str, code: str) -> None:
    with pytest.raises(UsageError) as caught:
        read_environment(source)
    assert caught.value.code == code


def test_a_file_without_variables(tmp_path: Path) -> None:
    with pytest.raises(SmallqError) as caught:
        read_environment(str(write(tmp_path / "empty", "nothing here\n")))
    assert caught.value.code == "BAD_ENVIRONMENT"
