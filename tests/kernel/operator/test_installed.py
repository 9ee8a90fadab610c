"""The operator built, installed and called in a simulated toolkit: what it refuses.

Its test programs are tested in tests/integration/sweep.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.support.attention_cases import AttentionCase, compare, make_inputs, reference_of
from tests.support.operator_kernel import CHECKOUT

TESTS = CHECKOUT / "src_op" / "tests"
FLOAT, FLOAT16 = 0, 1
TILING_ERROR, NULL_POINTER, INVALID_PARAMETER = 561002, 161001, 161002

Environment = dict[str, str]
Tensor = tuple[list[int], int] | None

# Reads [[dims, dtype] or null, ...] for q, k, v, out a call and answers [code, message, workspace, executor].
REFUSAL_CHILD = """
import ctypes, json, os, sys
from aclnn_call import ACL_FORMAT_ND, Runtime, find_operator_library
answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)
runtime = Runtime(find_operator_library(dict(os.environ)))
runtime.start()
runtime.call(runtime.acl, "aclrtSetDevice", 0)
memory = ctypes.c_void_p()
runtime.call(runtime.acl, "aclrtMalloc", ctypes.byref(memory), 1 << 24, 0)

def tensor(spec):
    if spec is None:
        return None
    dims, dtype = spec
    sizes = (ctypes.c_int64 * len(dims))(*dims)
    strides = [1] * len(dims)
    for i in range(len(dims) - 1, 0, -1):
        strides[i - 1] = strides[i] * dims[i]
    strides = (ctypes.c_int64 * len(dims))(*strides)
    return runtime.base.aclCreateTensor(
        sizes, len(dims), dtype, strides, 0, ACL_FORMAT_ND, sizes, len(dims), memory)

results = []
for call in json.load(sys.stdin):
    size, executor = ctypes.c_uint64(), ctypes.c_void_p()
    code = runtime.op.aclnnSmallqFlashAttentionGetWorkspaceSize(
        *[tensor(spec) for spec in call], ctypes.byref(size), ctypes.byref(executor))
    text = runtime.acl.aclGetRecentErrMsg() or b""
    results.append([code, text.decode(), bool(executor.value)])
json.dump(results, answers)
"""


def half(*dims: int) -> Tensor:
    return list(dims), FLOAT16


GOOD: list[Tensor] = [half(2, 3, 16), half(2, 5, 16), half(2, 5, 8), half(2, 3, 8)]


def bad(position: int, tensor: Tensor) -> list[Tensor]:
    return [tensor if i == position else good for i, good in enumerate(GOOD)]


REFUSED: dict[str, tuple[list[Tensor], int, str]] = {
    "rank": (bad(2, half(5, 8)), TILING_ERROR, "v must be 3-D [numHeads, len, headDim], got 2-D"),
    "rank of out": (bad(3, half(2, 3, 8, 1)), TILING_ERROR, "out must be 3-D [numHeads, len, headDim], got 4-D"),
    "no q row": (bad(0, half(2, 0, 16)), TILING_ERROR, "q dim 1 must be >= 1, got 0"),
    "no key": (
        [half(2, 3, 16), half(2, 0, 16), half(2, 0, 8), half(2, 3, 8)],
        TILING_ERROR,
        "k dim 1 must be >= 1, got 0",
    ),
    "row too long": (
        [half(1, 1, 1048576), half(1, 1, 1048576), half(1, 1, 8), half(1, 1, 8)],
        TILING_ERROR,
        "q dim 2 too large: 1048576",
    ),
    "heads differ": (bad(1, half(3, 5, 16)), TILING_ERROR, "numHeads mismatch: q 2, k 3, v 2"),
    "keys differ": (bad(2, half(2, 6, 8)), TILING_ERROR, "kvLen mismatch: k 5, v 6"),
    "head sizes differ": (bad(1, half(2, 5, 17)), TILING_ERROR, "head dim mismatch: q 16, k 17"),
    "out shape": (bad(3, half(2, 3, 16)), TILING_ERROR, "out shape must be [2,3,8], got [2,3,16]"),
    "q heads no multiple of k heads": (
        [half(3, 3, 16), half(2, 5, 16), half(2, 5, 8), half(3, 3, 8)],
        TILING_ERROR,
        "numHeads mismatch: q 3, k 2, v 2",
    ),
    "type": (bad(1, ([2, 5, 16], FLOAT)), INVALID_PARAMETER, "k"),
    "missing tensor": (bad(0, None), NULL_POINTER, "q"),
}


@pytest.fixture(scope="session")
def answers(operator_environment: Environment) -> dict[str, tuple[int, str, bool]]:
    """Code, message and "an executor was made" of every refused call and of a good one."""
    calls = {name: call for name, (call, _, _) in REFUSED.items()} | {"good": GOOD}
    done = subprocess.run(
        [sys.executable, "-c", REFUSAL_CHILD],
        input=json.dumps(list(calls.values())),
        env={**operator_environment, "PYTHONPATH": str(TESTS)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return dict(zip(calls, json.loads(done.stdout), strict=True))


@pytest.mark.parametrize("name", REFUSED)
def test_refused_calls(answers: dict[str, tuple[int, str, bool]], name: str) -> None:
    _, code, message = REFUSED[name]
    got_code, got_message, executor = answers[name]
    assert (got_code, executor) == (code, False), got_message
    assert message in got_message


def test_the_good_call_is_accepted(answers: dict[str, tuple[int, str, bool]]) -> None:
    assert tuple(answers["good"]) == (0, "", True)


# One call of the highest interface for each case on the command line: folder/{q,k,v,lengths}.bin in, o.bin out.
CALL_CHILD = """
import ctypes, json, os, sys
from pathlib import Path
from aclnn_call import DeviceTensor, Runtime, find_operator_library
runtime = Runtime(find_operator_library(dict(os.environ)))
runtime.start()
runtime.call(runtime.acl, "aclrtSetDevice", 0)
stream = ctypes.c_void_p()
runtime.call(runtime.acl, "aclrtCreateStream", ctypes.byref(stream))
P = ctypes.c_void_p
get = runtime.op.aclnnSmallqFlashAttentionV3GetWorkspaceSize
get.argtypes = [P, P, P, P, ctypes.c_double, ctypes.c_bool, P, P, P]
runtime.op.aclnnSmallqFlashAttentionV3.argtypes = [P, ctypes.c_uint64, P, P]
for case in json.load(sys.stdin):
    folder, dtype = Path(case["folder"]), case["dtype"]
    tensors = {name: DeviceTensor(runtime, case[name], dtype).__enter__() for name in "qkvo"}
    for name in "qkv":
        tensors[name].upload(folder / (name + ".bin"))
    lengths = None
    if case["lengths"]:
        # DeviceTensor counts 2 bytes an element: memory for 4 times as many, described as int64.
        room = DeviceTensor(runtime, [4 * case["lengths"]], dtype).__enter__()
        room.upload(folder / "lengths.bin")
        size, step = (ctypes.c_int64 * 1)(case["lengths"]), (ctypes.c_int64 * 1)(1)
        lengths = runtime.base.aclCreateTensor(size, 1, 9, step, 0, 2, size, 1, room.memory)
    size, executor, workspace = ctypes.c_uint64(), P(), P()
    runtime.call(runtime.op, "aclnnSmallqFlashAttentionV3GetWorkspaceSize", *(tensors[n].tensor for n in "qkv"),
                 lengths, case["scale"], case["causal"], tensors["o"].tensor, ctypes.byref(size),
                 ctypes.byref(executor))
    if size.value:
        runtime.call(runtime.acl, "aclrtMalloc", ctypes.byref(workspace), size.value, 0)
    runtime.call(runtime.op, "aclnnSmallqFlashAttentionV3", workspace, size.value, executor, stream)
    runtime.call(runtime.acl, "aclrtSynchronizeStream", stream)
    tensors["o"].download(folder / "o.bin")
"""

INSTALLED = (
    AttentionCase(3, 2, 130, 64, 40),
    AttentionCase(1, 1, 2048, 64, 64),  # the keys split
    AttentionCase(1, 2, 40, 1040, 1100),  # largeD
    AttentionCase(1, 2, 1030, 1040, 40),  # largeD, split
    AttentionCase(8, 3, 200, 64, 40, kv_heads=2, scale=0.2, causal=True, lengths=(150, 33)),
    AttentionCase(2, 3, 130, 64, 40, bf16=True),
    AttentionCase(4, 3, 2048, 64, 40, kv_heads=1, bf16=True, causal=True),
)


def test_highest_interface(operator_environment: Environment, tmp_path: Path) -> None:
    """All paths, types and extensions through op_build's interface, the tiling function and the runtime."""
    calls = []
    for index, case in enumerate(INSTALLED):
        folder = tmp_path / str(index)
        folder.mkdir()
        q, k, v = make_inputs(case)
        for name, array in (("q", q), ("k", k), ("v", v), ("lengths", np.array(case.lengths, np.int64))):
            (folder / f"{name}.bin").write_bytes(array.tobytes())
        calls.append(
            {
                "folder": str(folder), "dtype": 27 if case.bf16 else FLOAT16, "q": q.shape, "k": k.shape, "v": v.shape,
                "o": (*q.shape[:2], v.shape[2]), "lengths": len(case.lengths), "scale": case.scale,
                "causal": case.causal,
            }
        )  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", CALL_CHILD],
        input=json.dumps(calls),
        env={**operator_environment, "PYTHONPATH": str(TESTS)},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for index, case in enumerate(INSTALLED):
        q, k, v = make_inputs(case)
        raw = np.fromfile(tmp_path / str(index) / "o.bin", q.dtype).reshape(*q.shape[:2], v.shape[2])
        comparison = compare(raw, reference_of(case, (q, k, v)))
        assert comparison.passed, f"{case.name}: {comparison}"
