"""The operator itself: two builds are the same bytes; the second comes from the cache; what lies beside a package."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from smallq_deploy.base.fsops import sha256_file, tree_digest
from smallq_deploy.machine.environment import detect_environment
from smallq_deploy.operate.builder import build
from smallq_deploy.package.releases import default_release
from smallq_deploy.package.runfile import extract_vendor, read_run
from tests.support.cyclonedx import check_cyclonedx

UNIT = "ascend910b"


def opened(package: Path, target: Path) -> Path:
    extract_vendor(read_run(package), target)
    return target


def test_two_builds_are_the_same_bytes(
    operator_package: Path, fresh_toolkit: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another toolkit directory, another private directory, another time; then once more, from the cache."""
    root = fresh_toolkit()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "elsewhere" / "cache"))
    environment, recipes = detect_environment(cann=root), root / "cann-recipes-infer"
    release = default_release()
    second = build(environment.discovery, release, recipes=recipes, unit=UNIT)
    assert not second.cached
    trees = [opened(operator_package, tmp_path / "one"), opened(second.package, tmp_path / "two")]
    assert tree_digest(trees[0]) == tree_digest(trees[1])
    assert sha256_file(operator_package) == sha256_file(second.package)

    third = build(environment.discovery, release, recipes=recipes, unit=UNIT)
    assert third.cached
    assert third.run.file_sha256 == second.run.file_sha256

    # Nothing of this machine's directories is in the package.
    for path in trees[0].rglob("*"):
        if path.is_file() and not path.is_symlink():
            content = path.read_bytes()
            for place in (root, tmp_path, recipes):
                assert str(place).encode() not in content, path


def test_what_lies_beside_a_package(operator_package: Path, tmp_path: Path) -> None:
    provenance = json.loads(Path(f"{operator_package}.provenance.json").read_text())
    assert provenance["package"]["sha256"] == sha256_file(operator_package)
    assert provenance["toolkit"]["version"] == "8.5.0"
    assert provenance["toolkit"]["remark"] == "simulated toolkit"
    assert "build " in provenance["compiler"] and provenance["host_compiler"]
    for state in (provenance["source_git"], provenance["recipes_git"]):
        assert state is None or (len(state["commit"]) == 40 and isinstance(state["dirty"], bool))
    document = json.loads(Path(f"{operator_package}.cdx.json").read_text())
    check_cyclonedx(document)
    assert document["metadata"]["component"]["hashes"][0]["content"] == sha256_file(operator_package)
    tree = opened(operator_package, tmp_path / "tree")
    listed = {item["name"]: item["hashes"][0]["content"] for item in document["components"] if item["type"] == "file"}
    kernels = [name for name in listed if name.endswith(".o")]
    assert kernels
    for name in listed:
        assert sha256_file(tree / name) == listed[name]


@pytest.mark.parametrize("tar_format", ["posix", "gnu"])
def test_the_packer_leaves_the_time_out_only_where_it_is_told(
    simulated_toolkit: Path, tmp_path: Path, tar_format: str
) -> None:
    """The same files, written at another time in another order and directory."""
    tools = "tools/op_project_templates/ascendc/customize/cmake/util/makeself/makeself.sh"
    packer = simulated_toolkit / "cann-8.5.0" / tools

    def pack(name: str, files: tuple[str, ...], time: int, env: dict[str, str]) -> bytes:
        tree = tmp_path / name / "tree"
        tree.mkdir(parents=True)
        for file in files:
            (tree / file).write_text(f"echo {file}\n")
            (tree / file).chmod(0o755)
            os.utime(tree / file, (time, time))
        os.utime(tree, (time, time))
        command = ["bash", packer, "--tar-format", tar_format, "--nomd5", "--sha256", ".", "a.run", "x", "./install.sh"]
        done = subprocess.run(command, cwd=tree, env={**os.environ, "TZ": "UTC", **env}, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return (tree / "a.run").read_bytes()

    names = ("install.sh", "b", "a")
    fixed = {"SOURCE_DATE_EPOCH": "315532800"}
    assert pack("1", names, 1_000_000_000, fixed) == pack("2", names[::-1], 1_500_000_000, fixed)
    assert pack("3", names, 1_000_000_000, {}) != pack("4", names, 1_500_000_000, {})
