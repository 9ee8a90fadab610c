"""The bill of materials: what CycloneDX 1.5 requires, and what is really in the package."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from smallq_deploy.base.fsops import sha256_file
from smallq_deploy.package.sbom import make_sbom, write_sbom
from tests.support.cyclonedx import check_cyclonedx
from tests.support.packages import ARCH, make_vendor_tree

PROVENANCE: dict[str, Any] = {
    "created": "2026-01-02T03:04:05Z",
    "tool_version": "0.1.0",
    "operator": "SmallqFlashAttention",
    "vendor": "customize",
    "unit": "ascend910b",
    "arch": ARCH,
    "source_digest": "a" * 64,
    "recipes_digest": "b" * 64,
    "toolkit": {"version": "8.5.0", "inner_version": "V100R001C25SPC001B212", "arch": ARCH, "remark": ""},
    "compiler": "bisheng 15",
    "host_compiler": "12.2.0 x86_64-linux-gnu",
    "flags": ["-n", "smallq_flash_attention"],
    "source_git": {"commit": "c" * 40, "dirty": True},
    "recipes_git": None,
    "package": {"name": "CANN-custom_ops--linux.run", "sha256": "d" * 64, "size": 1},
}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return make_vendor_tree(tmp_path / "customize", set_env="/somewhere")


def test_what_it_says(tree: Path, tmp_path: Path) -> None:
    document = make_sbom(tree, PROVENANCE, version="0.1.0")
    check_cyclonedx(document)
    assert json.loads(write_sbom(tmp_path / "sbom.json", document).read_text()) == document
    main = document["metadata"]["component"]
    assert (main["name"], main["version"]) == ("SmallqFlashAttention", "0.1.0")
    assert main["hashes"][0]["content"] == "d" * 64
    told = {item["name"]: item["value"] for item in main["properties"]}
    assert told["smallq-deploy:source-commit"] == "c" * 40
    assert told["smallq-deploy:source-dirty"] == "true"
    assert "smallq-deploy:project-commit" not in told
    files = {item["name"]: item["hashes"][0]["content"] for item in document["components"] if item["type"] == "file"}
    on_disk = {
        str(path.relative_to(tree)): path for path in tree.rglob("*") if path.is_file() and not path.is_symlink()
    }
    on_disk.pop("bin/set_env.bash")
    assert files == {name: sha256_file(path) for name, path in on_disk.items()}
    assert "libnnopbase.so" in {item["name"] for item in document["components"] if item["type"] == "library"}
    versions = {item["name"]: item.get("version") for item in document["components"]}
    assert (versions["CANN"], versions["bisheng"]) == ("8.5.0", "bisheng 15")


def test_a_simulated_toolkit_is_named_as_one(tree: Path) -> None:
    toolkit = {**PROVENANCE["toolkit"], "remark": "simulated toolkit"}
    document = make_sbom(tree, {**PROVENANCE, "toolkit": toolkit}, version="0.1.0")
    (cann,) = [item for item in document["components"] if item["name"] == "CANN"]
    assert {"name": "smallq-deploy:remark", "value": "simulated toolkit"} in cann["properties"]


def test_it_is_the_same_for_the_same_package(tree: Path) -> None:
    one, two = (make_sbom(tree, PROVENANCE, version="0.1.0") for _ in range(2))
    assert one == two
    other = {**PROVENANCE, "package": {**PROVENANCE["package"], "sha256": "e" * 64}}
    assert make_sbom(tree, other, version="0.1.0")["serialNumber"] != one["serialNumber"]
    (tree / "version.info").write_text("changed")
    assert make_sbom(tree, PROVENANCE, version="0.1.0") != one


def test_a_library_that_cannot_be_read_is_listed_all_the_same(tree: Path) -> None:
    (tree / "op_api/lib/libcust_opapi.so").write_text("no library")
    document = make_sbom(tree, PROVENANCE, version="0.1.0")
    check_cyclonedx(document)
    assert "op_api/lib/libcust_opapi.so" in {item["name"] for item in document["components"]}


@pytest.mark.parametrize("broken", ["bomFormat", "specVersion", "serialNumber", "version", "component", "dependency"])
def test_the_check_notices(tree: Path, broken: str) -> None:
    document = make_sbom(tree, PROVENANCE, version="0.1.0")
    if broken == "component":
        document["components"][0].pop("name")
    elif broken == "dependency":
        document["dependencies"][0]["dependsOn"].append("file:nowhere")
    else:
        document[broken] = "other"
    with pytest.raises((AssertionError, KeyError)):
        check_cyclonedx(document)
