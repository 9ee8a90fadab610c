"""Inputs, reference and comparison against numpy; what the child is made of."""

from __future__ import annotations

import ctypes.util
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from smallq_deploy.package.releases import SMOKE_DISTRIBUTIONS, SMOKE_MULTIPLY_ADDS, Release
from smallq_deploy.smoke.cases import DISTRIBUTIONS, MAX_MULTIPLY_ADDS, Case, from_half, to_half
from smallq_deploy.smoke.child import mapped_libraries
from smallq_deploy.smoke.codes import CODES, explain
from smallq_deploy.smoke.reference import attention, compare

CHECKOUT = Path(__file__).resolve().parents[3]


def make_case(**changes: object) -> Case:
    values: dict[str, object] = {
        "name": "c",
        "num_heads": 2,
        "q_len": 3,
        "kv_len": 65,
        "head_dim": 17,
        "v_head_dim": 9,
        "seed": 5,
        "distribution": "normal",
        **changes,
    }
    return Case.from_dict(values)


@pytest.mark.parametrize("distribution", sorted(DISTRIBUTIONS))
def test_reference_against_numpy(distribution: str) -> None:
    case = make_case(distribution=distribution)
    raw = case.inputs()
    q, k, v = (np.frombuffer(raw[name], np.float16).astype(np.float64).reshape(case.shapes[name]) for name in "qkv")
    logits = np.einsum("hqd,hkd->hqk", q, k) / math.sqrt(case.head_dim)
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    expected = np.einsum("hqk,hkd->hqd", weights / weights.sum(-1, keepdims=True), v)
    got = np.array(attention(case, raw["q"], raw["k"], raw["v"])).reshape(case.shapes["o"])
    np.testing.assert_allclose(got, expected, rtol=1e-12, atol=1e-14)


def test_inputs_are_the_same_every_time_and_differ_by_seed() -> None:
    assert make_case().inputs() == make_case().inputs()
    assert make_case().inputs() != make_case(seed=6).inputs()
    assert {name: len(raw) for name, raw in make_case().inputs().items()} == {"q": 204, "k": 4420, "v": 2340}


def test_half_conversion_is_numpys() -> None:
    values = [0.0, -0.0, 1 / 3, 65504.0, 6e-8, 2049.0, -1.5]
    assert to_half(values) == np.array(values, np.float16).tobytes()
    assert from_half(to_half(values)) == np.array(values, np.float16).astype(float).tolist()


def test_unknown_distribution() -> None:
    with pytest.raises(ValueError, match="unknown distribution"):
        make_case(distribution="weird")


def test_manifest_and_smoke_agree(release: Release) -> None:
    assert set(SMOKE_DISTRIBUTIONS) == set(DISTRIBUTIONS)
    assert SMOKE_MULTIPLY_ADDS == MAX_MULTIPLY_ADDS
    for case in release.smoke_cases:
        assert case.multiply_adds == Case.from_dict(case.to_dict()).multiply_adds <= MAX_MULTIPLY_ADDS


LIMITS = {"abs_": 1e-3, "rel": 1e-3, "rel_l2": 5e-4}


def test_comparison_at_its_limits() -> None:
    want = [1.0] * 1000
    good = compare([1.0, *want[1:]], want, **LIMITS)
    assert good.passed
    assert good.bound == 0.0
    assert compare([1.0019, *want[1:]], want, **LIMITS).passed
    bad = compare([1.0021, *want[1:]], want, **LIMITS)
    assert not bad.passed
    assert "1 of 1000 values too far off" in bad.detail
    spread = compare([1.0006] * 1000, want, **LIMITS)
    assert not spread.passed
    assert "2-norm" in spread.detail


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_values_that_are_not_finite_never_pass(value: float) -> None:
    result = compare([value, 1.0], [1.0, 1.0], **LIMITS)
    assert not result.passed
    assert "not finite" in result.detail


def test_zero_reference() -> None:
    assert compare([0.0, 0.0], [0.0, 0.0], **LIMITS).passed
    assert not compare([1e-4, 0.0], [0.0, 0.0], **LIMITS).passed


def test_codes_have_texts() -> None:
    for number, code in CODES.items():
        assert code.number == number
        assert code.verdict in ("fail", "inconclusive")
        assert code.meaning
        assert code.hint
    assert explain(561003).name == "FIND_KERNEL_ERROR"
    assert explain(-1).verdict == "fail"


def test_mapped_libraries_of_this_process() -> None:
    (entry,) = [item for item in mapped_libraries("libc.so") if item["path"].endswith("libc.so.6")]
    assert entry["inode"] == os.stat(entry["path"]).st_ino


def test_child_needs_the_standard_library_only() -> None:
    script = "import json, sys, smallq_deploy.smoke.child; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-S", "-c", script], capture_output=True, cwd=CHECKOUT, check=True)
    roots = {name.partition(".")[0] for name in json.loads(done.stdout)}
    assert roots - set(sys.stdlib_module_names) - {"__main__"} == {"smallq_deploy"}


def test_child_without_a_runtime_says_so(tmp_path: Path) -> None:
    """The real child where the dynamic linker finds no libacl_rt.so: an answer, not a traceback."""
    assert ctypes.util.find_library("acl_rt") is None
    tolerance = {"abs": 1e-3, "rel": 1e-3, "rel_l2": 5e-4}
    request = {"operator": "X", "library": "/nowhere/libcust_opapi.so", "device": 0, "cases": [], "open_timeout": 5}
    (tmp_path / "request").write_text(json.dumps({**request, "tolerance": tolerance, "kernel_ms": 1000}))
    names = [str(tmp_path / name) for name in ("request", "progress", "result")]
    subprocess.run([sys.executable, "-m", "smallq_deploy.smoke.child", *names], cwd=CHECKOUT, check=True)
    answer = json.loads((tmp_path / "result").read_text())
    assert answer["status"] == "library_error"
    assert answer["operator"] is False
    assert json.loads((tmp_path / "progress").read_text().splitlines()[0])["phase"] == "load"
