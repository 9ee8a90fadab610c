"""Cases, references and the scheduling of run_model_tests.py, with a program that needs no toolkit."""

from __future__ import annotations

import importlib
import json
import math
import sys
import threading
import time
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from smallq_deploy.package.releases import load_matrix, matrix_path
from smallq_deploy.smoke.sweep import _record
from tests.conftest import CHECKOUT

PROGRAMS = CHECKOUT / "src_op" / "tests"


def module(name: str) -> ModuleType:
    """A module of src_op/tests, which is no package: its directory is on the path while it is imported."""
    sys.path.insert(0, str(PROGRAMS))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(PROGRAMS))


cases, engine, report = (module(name) for name in ("sweep_cases", "sweep_engine", "sweep_report"))


def case(**more):  # type: ignore[no-untyped-def]
    sizes = {"heads": 4, "kv_heads": 4, "q_len": 2, "kv_len": 7, "head_dim": 8, "head_dim_v": 5}
    return cases.Case(**{"name": "c", "model": "m", **sizes, **more})


@pytest.mark.parametrize("name", ["models", "acceptance"])
def test_the_tool_and_the_program_read_a_matrix_alike(name: str) -> None:
    mine = cases.read_matrix(name)
    assert [_record(each) for each in load_matrix(matrix_path(name)).cases] == [vars(each) for each in mine.cases]
    assert vars(mine.tolerance) == load_matrix(matrix_path(name)).tolerance.to_dict()


def test_the_models_matrix_has_what_was_asked_for() -> None:
    found = cases.read_matrix("models").cases
    assert len(found) >= 256 and len({each.name for each in found}) == len(found)
    assert {each.q_len for each in found} == {1, 2, 4, 8}
    assert {1, 1023, 1025, 1500, 3000, 16384} <= {each.kv_len for each in found}
    layouts = {(each.heads, each.head_dim, each.head_dim_v) for each in found}
    assert {(32, 128, 128), (64, 128, 128), (128, 128, 128), (128, 192, 128), (14, 64, 64), (16, 256, 256)} <= layouts


def brute_force(each, q, k, v):  # type: ignore[no-untyped-def]
    """Row by row with exact sums, straight from the definition."""
    out = np.zeros((each.heads, each.q_len, each.head_dim_v))
    for head in range(each.heads):
        shared = head // (each.heads // each.kv_heads)
        for row in range(each.q_len):
            seen = each.kv_len - each.q_len + row + 1 if each.causal else each.kv_len
            dots = [math.fsum(q[head, row] * k[shared, key]) / math.sqrt(each.head_dim) for key in range(seen)]
            weights = [math.exp(dot - max(dots)) for dot in dots]
            for column in range(each.head_dim_v):
                weighted = math.fsum(w * v[shared, key, column] for key, w in enumerate(weights))
                out[head, row, column] = weighted / math.fsum(weights)
    return out


@pytest.mark.parametrize("kv_heads", [4, 2, 1])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_reference(tmp_path: Path, kv_heads: int, causal: bool, dtype: str) -> None:
    """Also of the shorter queries that share keys and values with it."""
    group = [case(q_len=q_len, kv_heads=kv_heads, causal=causal, dtype=dtype) for q_len in (1, 3, 7)]
    inputs = cases.make_inputs(group, tmp_path)
    raw = np.float16 if dtype == "float16" else np.uint16
    k = cases.to_double(np.fromfile(tmp_path / "k.bin", raw), dtype).reshape(kv_heads, 7, 8)
    v = cases.to_double(np.fromfile(tmp_path / "v.bin", raw), dtype).reshape(kv_heads, 7, 5)
    for each in group:
        inputs.write_q(each.q_len, tmp_path / "q.bin")
        q = cases.to_double(np.fromfile(tmp_path / "q.bin", raw), dtype).reshape(4, each.q_len, 8)
        expected, slack = inputs.reference(each.q_len)
        assert np.allclose(expected, brute_force(each, q, k, v), rtol=0, atol=1e-12)
        assert not slack.any()


def test_bfloat16_rounds_to_nearest_even() -> None:
    values = np.array([1.0, 1 + 2**-8, 1 + 3 * 2**-8, 1 + 2**-8 + 2**-20, -2.5, 0.0, 3e38], np.float32)
    back = cases.to_double(cases.to_raw(values, "bfloat16"), "bfloat16")
    assert back[:6].tolist() == [1.0, 1.0, 1 + 2**-6, 1 + 2**-7, -2.5, 0.0]
    assert abs(back[6] / 3e38 - 1) <= 2**-8


def test_comparison(tmp_path: Path) -> None:
    each = case()
    inputs = cases.make_inputs([each], tmp_path)
    expected, _ = inputs.reference(2)
    tolerance = cases.Tolerance(1e-3, 1e-3, 5e-4)

    def verdict(values):  # type: ignore[no-untyped-def]
        values.astype(np.float16).tofile(tmp_path / "o.bin")
        return cases.compare(tmp_path / "o.bin", each, inputs, tolerance)

    assert verdict(expected).passed
    off = expected.copy()
    off[1, 0, 3] += 0.01
    assert not verdict(off).passed and verdict(off).bound > 5
    assert not verdict(expected * 1.0009).passed  # within each element's tolerance, not in the norm
    off[1, 0, 3] = np.nan
    assert not verdict(off).passed and verdict(off).bound == math.inf
    assert not verdict(expected[:, :1]).passed


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("{", "line 1"),
        ('{"name": "x"}', "is no matrix"),
        ('{"name": "x", "tolerance": {"abs": 1, "rel": 1, "rel_l2": 1}, "cases": [[1, 2]]}', "is no matrix"),
        ('{"name": "x", "tolerance": {"abs": 1, "rel": 1, "rel_l2": 1}, "cases": [[1, 1, 0, 8, 8]]}', "at least 1"),
        (
            '{"name": "x", "tolerance": {"abs": 1, "rel": 1, "rel_l2": 1}, "grids": [{"name": "g", "num_heads": 4,'
            '"kv_heads": 3, "head_dim": 8, "v_head_dim": 8, "q_len": [1], "kv_len": [1]}]}',
            "kv_heads divides",
        ),
    ],
)
def test_bad_matrices(tmp_path: Path, content: str, text: str) -> None:
    file = tmp_path / "m.json"
    file.write_text(content)
    with pytest.raises(cases.MatrixError, match=text):
        cases.read_matrix(str(file))


# Attention in numpy under the programs' contract; BEHAVIOUR says what device N does instead, and LOG notes each start.
PROGRAM = """
import json, math, os, sys, time
import numpy as np
n = {name: int(os.environ[name]) for name in ("NUM_HEADS", "Q_LEN", "KV_LEN", "HEAD_DIM", "HEAD_DIM_V", "DEVICE_ID")}
with open(os.environ["LOG"], "a") as log:
    log.write("%d %d %d\\n" % (n["DEVICE_ID"], n["KV_LEN"], n["Q_LEN"]))
what = json.loads(os.environ["BEHAVIOUR"]).get(str(n["DEVICE_ID"]), "")
if what == "refuses to open":
    sys.exit("aclrtSetDevice returned 507033: broken")
if what == "hangs opening":
    time.sleep(60)
print("device %d is open" % n["DEVICE_ID"], flush=True)
if what == "hangs":
    time.sleep(60)
if what == "aborts":
    os.abort()
if what == "refuses":
    print("GetWorkspaceSize returned 561002: no")
    sys.exit(3)
if what == "slow":
    time.sleep(0.3)
read = lambda name, *s: np.fromfile(os.environ["IO_DIR"] + "/" + name, np.float16).reshape(s).astype(np.float64)
q = read("q.bin", n["NUM_HEADS"], n["Q_LEN"], n["HEAD_DIM"])
k = read("k.bin", n["NUM_HEADS"], n["KV_LEN"], n["HEAD_DIM"])
v = read("v.bin", n["NUM_HEADS"], n["KV_LEN"], n["HEAD_DIM_V"])
s = np.einsum("hqd,hkd->hqk", q, k) / math.sqrt(n["HEAD_DIM"])
w = np.exp(s - s.max(axis=2, keepdims=True))
o = np.einsum("hqk,hkd->hqd", w / w.sum(axis=2, keepdims=True), v)
if what == "wrong":
    o[0, 0, 0] += 1
if what != "writes nothing":
    o.astype(np.float16).tofile(os.environ["IO_DIR"] + "/o.bin")
print("time_us 12.5 measured (first call)")
"""


class Run:
    """One sweep over ``count`` groups of two cases with the program above."""

    def __init__(self, folder: Path, behaviour: dict[int, str], devices: list[int], count: int = 6, **more: float):
        self.log = folder / "log"
        program = folder / "program.py"
        program.write_text(PROGRAM)
        all_cases = [case(kv_len=7 + n, q_len=q, name=f"{n}-{q}", seed=n) for n in range(count) for q in (1, 2)]
        matrix = cases.Matrix("m", cases.Tolerance(1e-3, 1e-3, 5e-4), tuple(all_cases))
        env = {"PATH": "/usr/bin:/bin", "BEHAVIOUR": json.dumps(behaviour), "LOG": str(self.log)}
        limits = {"timeout": 20.0, "open_timeout": 10.0, "memory": 1e9, **more}
        (folder / "work").mkdir()
        settings = engine.Settings([sys.executable, str(program)], env, repeat=0, work=folder / "work", **limits)
        self.reported: list[object] = []
        self.sweep = engine.Sweep(matrix, all_cases, devices, settings, self.reported.append, lambda device, why: None)
        self.sweep.run()
        assert self.reported == self.sweep.results
        assert list((folder / "work").iterdir()) == []

    def count(self, status: str) -> int:
        return sum(each.status == status for each in self.sweep.results)

    @property
    def starts(self) -> list[str]:
        return self.log.read_text().splitlines()


def test_all_pass_and_each_case_is_started_once(tmp_path: Path) -> None:
    run = Run(tmp_path, {}, [0, 1, 2])
    assert run.count("passed") == 12 and len(run.starts) == 12
    assert {each.time_us for each in run.sweep.results} == {12.5}
    assert {each.time_kind for each in run.sweep.results} == {"measured"}


def test_a_slow_device_is_helped(tmp_path: Path) -> None:
    """With one group for each device, the fast ones take cases out of the slow one's group."""
    run = Run(tmp_path, {0: "slow"}, [0, 1, 2], count=3)
    assert run.count("passed") == 6
    assert sum(line.startswith("0 ") for line in run.starts) < 6


@pytest.mark.parametrize(
    ("behaviour", "limits", "why"),
    [
        ("refuses to open", {}, "cannot be opened: aclrtSetDevice returned 507033"),
        ("hangs opening", {"open_timeout": 2.0}, "the device was not open after 2 s"),
        ("hangs", {"timeout": 3.0, "open_timeout": 2.0}, "no result after 3 s"),
        ("aborts", {}, "the process was ended by SIGABRT"),
        ("writes nothing", {}, "the program ended well and wrote no o.bin"),
    ],
)
def test_a_sick_device_is_given_up_and_nothing_is_lost(
    tmp_path: Path, behaviour: str, limits: dict[str, float], why: str
) -> None:
    run = Run(tmp_path, {1: behaviour}, [0, 1], **limits)
    assert run.count("passed") == 12
    assert why in run.sweep.given_up[1]
    assert {each.device for each in run.sweep.results} == {0}


def test_wrong_numbers_are_final_and_give_the_device_up(tmp_path: Path) -> None:
    run = Run(tmp_path, {1: "wrong"}, [0, 1], count=12)
    assert {each.device for each in run.sweep.results if each.status == "wrong"} == {1}
    assert "while other devices compute right ones" in run.sweep.given_up[1]
    assert run.count("passed") + run.count("wrong") == 24 and run.count("wrong") >= 2


def test_a_wrong_operator_gives_no_device_up(tmp_path: Path) -> None:
    run = Run(tmp_path, {0: "wrong", 1: "wrong"}, [0, 1])
    assert run.count("wrong") == 12 and run.sweep.given_up == {}


def test_what_the_operator_refuses_is_final(tmp_path: Path) -> None:
    run = Run(tmp_path, {0: "refuses", 1: "refuses"}, [0, 1])
    assert run.count("refused") == 12 and run.sweep.given_up == {} and len(run.starts) == 12
    assert "561002" in run.sweep.results[0].message


def test_trouble_on_the_last_device_is_a_result(tmp_path: Path) -> None:
    run = Run(tmp_path, {0: "aborts"}, [0])
    assert run.count("crashed") == 2 and len(run.sweep.results) == 2  # then the device is given up
    one = tmp_path / "second"
    one.mkdir()
    both = Run(one, {0: "aborts", 1: "aborts"}, [0, 1])
    assert both.count("crashed") >= 1 and sorted(both.sweep.given_up) == [0, 1]


def test_little_memory_means_one_case_at_a_time(tmp_path: Path) -> None:
    run = Run(tmp_path, {0: "slow", 1: "slow"}, [0, 1], count=2, memory=1.0)
    assert run.count("passed") == 4


def test_stop_ends_running_cases(tmp_path: Path) -> None:
    started = time.monotonic()
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    (tmp_path / "work").mkdir()
    env = {"PATH": "/usr/bin:/bin", "BEHAVIOUR": '{"0": "hangs"}', "LOG": str(tmp_path / "log")}
    command = [sys.executable, str(program)]
    settings = engine.Settings(command, env, 60.0, 60.0, 1e9, 0, tmp_path / "work")
    matrix = cases.Matrix("m", cases.Tolerance(1, 1, 1), (case(),))
    sweep = engine.Sweep(matrix, matrix.cases, [0], settings, lambda result: None, lambda device, why: None)
    threading.Timer(2.0, sweep.stop).start()
    sweep.run()
    assert sweep.results == [] and time.monotonic() - started < 30


def test_results_survive_json() -> None:
    result = engine.Result(case(), "wrong", 3, 1.5, "text", 0.1, 2.0, 0.3, 4.0, "measured")
    assert engine.Result.from_dict(json.loads(json.dumps(result.to_dict()))) == result
    assert report.describe(result).startswith("FAIL c device 3: worst 1.00e-01 (2.000 of tolerance)")
    assert report.duration(75) == "75 s" and report.duration(720) == "12 min"
