"""Manifests: what comes with the tool is right, and every mistake in one is reported with its line."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from smallq_deploy.base.errors import SmallqError
from smallq_deploy.base.versions import CannVersion
from smallq_deploy.package.data import data_root
from smallq_deploy.package.releases import (
    SMOKE_DISTRIBUTIONS,
    SMOKE_MULTIPLY_ADDS,
    default_release,
    load_matrix,
    load_release,
    matrix_path,
)
from smallq_deploy.smoke.cases import DISTRIBUTIONS as SMOKE_CAN_DRAW

MANIFESTS = data_root() / "manifests"
RELEASE = next((MANIFESTS / "releases").glob("*.yaml"))


def problems(path: Path, text: str, load: Any = load_release) -> list[str]:
    """Messages of everything the loader finds, without the path."""
    path.write_text(text)
    with pytest.raises(SmallqError) as caught:
        load(path)
    assert {item.code for item in caught.value.problems} == {"BAD_MANIFEST"}
    assert caught.value.exit_status == 5
    return [item.message.removeprefix(f"{path}:") for item in caught.value.problems]


def test_the_release_that_comes_with_the_tool() -> None:
    release = default_release()
    assert release.operator == "SmallqFlashAttention"
    assert release.id == "smallq-flash-attention-0.1.0"
    assert not release.cann.rejects(CannVersion.parse("8.5.0"))
    assert release.cann.rejects(CannVersion.parse("8.1.RC1"))
    assert any(case.head_dim == 100 for case in release.smoke_cases)
    assert any(case.kv_len == 1023 for case in release.smoke_cases)
    assert any(case.head_dim != case.v_head_dim for case in release.smoke_cases)
    assert all(case.multiply_adds <= SMOKE_MULTIPLY_ADDS for case in release.smoke_cases)
    assert (release.tolerance.abs, release.tolerance.rel, release.tolerance.rel_l2) == (1e-3, 1e-3, 5e-4)
    files = release.files_for(unit="ascend910b", arch="aarch64")
    assert "op_impl/ai_core/tbe/op_tiling/lib/linux/aarch64/libcust_opmaster_rt2.0.so" in files


def test_the_smoke_test_can_draw_every_distribution_a_release_may_name() -> None:
    assert set(SMOKE_DISTRIBUTIONS) == set(SMOKE_CAN_DRAW)


def test_acceptance_matrix_covers_every_pair_of_values() -> None:
    matrix = load_matrix(matrix_path("acceptance"))
    axes = {
        "num_heads": {1, 3, 8, 32, 41},
        "q_len": {1, 2, 4, 8, 13},
        "kv_len": {1, 2, 63, 64, 65, 1023, 1025, 1500},
        "head_dim": {1, 3, 16, 17, 64, 100, 128, 192, 256},
    }
    normal = [case for case in matrix.cases if case.distribution == "normal"]
    assert len(normal) >= 120
    for first, second in itertools.combinations(axes, 2):
        seen = {(getattr(case, first), getattr(case, second)) for case in normal}
        assert seen == set(itertools.product(axes[first], axes[second])), (first, second)
    assert sum(case.head_dim != case.v_head_dim for case in normal) >= 30
    assert max(case.multiply_adds for case in matrix.cases) <= 12_000_000
    assert {"offset", "large_q", "large_v", "large_all", "constant_rows"} <= {
        case.distribution for case in matrix.cases
    }
    assert all(case.q_len > 1 for case in matrix.cases if case.distribution == "offset")
    assert len({case.name for case in matrix.cases}) == len(matrix.cases)


def test_models_matrix_is_the_product_of_its_grids() -> None:
    matrix = load_matrix(matrix_path("models"))
    assert len(matrix.cases) == 9 * 4 * 8
    assert matrix.multiply_adds == pytest.approx(55.66e9, rel=1e-3)
    assert len({case.name for case in matrix.cases}) == len(matrix.cases)
    deepseek = next(case for case in matrix.cases if case.name == "deepseek-v3-q4-kv1025")
    assert (deepseek.num_heads, deepseek.head_dim, deepseek.v_head_dim) == (128, 192, 128)


def test_every_problem_is_reported_with_its_line(tmp_path: Path) -> None:
    text = RELEASE.read_text()
    lines = text.splitlines()
    lines[lines.index("operator: SmallqFlashAttention")] = "operator: 12"
    lines[lines.index('cann: ">=8.5.0"')] = "cann: about 8"
    lines[lines.index("units: [ascend910b]")] = "unit: [ascend910b]"
    expected = {
        name: index + 1
        for index, line in enumerate(lines)
        for name in ("operator", "cann", "unit")
        if line.startswith(name + ":")
    }
    found = problems(tmp_path / "bad.yaml", "\n".join(lines))
    assert f"{expected['operator']}: operator: must be text, not a whole number" in found
    assert f"{expected['cann']}: cann: 'about 8' is not a version specifier" in found
    assert any(line.startswith(f"{expected['unit']}: unit: unknown key; known here: schema, name") for line in found)
    assert any("the key 'units' is missing" in line for line in found)
    assert len(found) == 4


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (("schema: 1", "schema: 2"), "schema 2 is not known"),
        (("vendor: customize", "vendor: customize\nvendor: other"), "the key is given twice (first in line"),
        (("vendor: customize", "vendor: ../etc"), "'../etc' is not a vendor directory name"),
        (("vendor: customize", "vendor: &x customize\ndescription2: *x"), "aliases (*name) are not allowed"),
        (("version: 0.1.0", "version: 0.1"), "version: must be text, not a number"),
        (("version: 0.1.0", "version: 2024-01-01"), "write it in quotes if text is meant"),
        (
            ("version: 0.1.0", "version: !!python/object/apply:os.system ['id']"),
            "object/apply:os.system, which is not allowed",
        ),
        (("units: [ascend910b]", "units: !!set {ascend910b}"), "has the type tag:yaml.org,2002:set"),
        (("abs: 0.001", "abs: 1e-3"), "must be a number, not text; write 0.001 instead of 1e-3"),
        (("abs: 0.001", "abs: -0.5"), "must be between 0 and 1, is -0.5"),
        (("abs: 0.001", "abs: .nan"), ".nan is no plain decimal number"),
        (("seed: 2,", "seed: 0x10,"), "0x10 is no plain decimal number"),
        (("seed: 2,", "seed: 1:30,"), "1:30 is no plain decimal number"),
        (("seed: 2,", "seed: yes,"), "must be a whole number, not true or false"),
        (("kv_len: 512", "kv_len: 0"), "must be between 1 and 1048576, is 0"),
        (("kv_len: 512", "kv_len: 50000"), "multiply-adds; a smoke case may have 2,000,000"),
        (("distribution: peaky", "distribution: cauchy"), "'cauchy' is not one of normal, uniform"),
        (("name: peaky", "name: decode"), "the case 'decode' is given twice"),
        (("op_api/lib/libcust_opapi.so", "../libcust_opapi.so"), "is not a path relative to the vendor directory"),
        (("name: smallq-flash-attention", "name: [a, b]"), "name: must be text, not a list"),
        (("units: [ascend910b]", "units: []"), "must have 1 to 1000 elements, has 0"),
        (("units: [ascend910b]", "units: [ascend910b"), "not readable as YAML"),
    ],
)
def test_mistakes(tmp_path: Path, change: tuple[str, str], expected: str) -> None:
    text = RELEASE.read_text()
    assert change[0] in text
    found = problems(tmp_path / "bad.yaml", text.replace(*change, 1))
    assert any(expected in line for line in found), found
    line = next(line for line in found if expected in line)
    assert int(line.split(":")[0]) > 0


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b"", "the file is empty"),
        (b"just text", "must be a mapping, not text"),
        (b"\xff\xfe\x00", "not readable as YAML"),
        (b"a: " + b"[" * 150 + b"]" * 150, "nested more than 20 levels deep"),
        (b"a: " + b"[" * 300 + b"]" * 300, "nested too deeply"),
        (b"a: " + b"[" * 5000, "nested too deeply"),
        (b"x: 'y'\n" + b"# comment\n" * 30000, "larger than 256 KiB"),
        (b"a: &a [x]\nb: [*a, *a]", "aliases (*name) are not allowed"),
        (b"? [1, 2]\n: x\n", "a key must be plain text"),
        (b"a: b\n---\nc: d\n", "not readable as YAML"),
    ],
)
def test_files_that_are_no_manifest(tmp_path: Path, raw: bytes, expected: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_bytes(raw)
    with pytest.raises(SmallqError) as caught:
        load_release(path)
    assert any(expected in item.message for item in caught.value.problems), caught.value.problems


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SmallqError) as caught:
        load_release(tmp_path / "none.yaml")
    assert caught.value.code == "NO_MANIFEST"
    assert str(tmp_path / "none.yaml") in caught.value.message


def test_matrix_mistakes(tmp_path: Path) -> None:
    head = "schema: 1\nname: m\ndescription: d\ntolerance: {abs: 0.001, rel: 0.001, rel_l2: 0.001}\n"
    path = tmp_path / "m.yaml"
    assert any("5 to 6 elements" in line for line in problems(path, head + "cases:\n  - [1, 2, 3]\n", load_matrix))
    assert any("no cases" in line for line in problems(path, head, load_matrix))
    rows = head + "cases:\n  - [1, 2, 3, 4, 5, odd]\n  - [1, 0, 3, 4, 5]\n  - [1, 2, x, 4, 5]\n"
    found = problems(path, rows, load_matrix)
    assert [line.split(":")[0] for line in found] == ["6", "7", "8"]
    grid = head + "grids:\n  - {name: g, num_heads: 1, head_dim: 4, v_head_dim: 4, q_len: [], kv_len: [1]}\n"
    assert any("q_len: must have 1 to 100 elements" in line for line in problems(path, grid, load_matrix))


@pytest.mark.parametrize("kind", ["release", "matrix"])
def test_schemas_accept_the_files_that_come_with_the_tool(kind: str) -> None:
    schema = json.loads((MANIFESTS / "schema" / f"{kind}.schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    files = list((MANIFESTS / ("releases" if kind == "release" else "matrices")).glob("*.yaml"))
    assert files
    for path in files:
        jsonschema.validate(yaml.safe_load(path.read_text()), schema, cls=jsonschema.Draft202012Validator)


def test_schema_and_loader_agree_on_wrong_values(tmp_path: Path) -> None:
    """Each key set to a value of every wrong kind is refused by both, or by neither."""
    schema = json.loads((MANIFESTS / "schema" / "release.schema.json").read_text())
    validator = jsonschema.Draft202012Validator(schema)
    good = yaml.safe_load(RELEASE.read_text())
    places: list[tuple[str, ...]] = [(key,) for key in good]
    places += [("required", "files"), ("smoke", "cases"), ("smoke", "tolerance"), ("smoke", "extra"), ("other",)]
    tried = 0
    for place, value in itertools.product(places, (7, -1.5, True, None, "odd/../value", [], ["x"], {}, {"a": 1})):
        changed = json.loads(json.dumps(good))
        holder = changed
        for key in place[:-1]:
            holder = holder[key]
        holder[place[-1]] = value
        path = tmp_path / "changed.yaml"
        path.write_text(json.dumps(changed))
        try:
            load_release(path)
            loads = True
        except SmallqError:
            loads = False
        assert loads == validator.is_valid(changed), (place, value)
        tried += 1
    assert tried > 100
