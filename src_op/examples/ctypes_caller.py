#!/usr/bin/env python3
"""Calls the installed SmallqFlashAttention from Python with NumPy arrays, without torch and without compiling anything.

    source <toolkit>/set_env.sh
    python3 ctypes_caller.py

As a module: ``attention(q, k, v)`` takes fp16 arrays [heads, length, head size] and returns one. The library comes from
the vendor directory that the toolkit's own lookup would choose; here the first entry of ``vendors/config.ini`` that has
it, or ASCEND_CUSTOM_OPP_PATH.

An aclnn call has two phases: GetWorkspaceSize checks the arguments and plans, the second one starts the kernel on a
stream. Errors of the kernel itself only show when the stream is synchronised.
"""

from __future__ import annotations

import ctypes
import os
import sys
from contextlib import ExitStack
from ctypes import POINTER, byref, c_char_p, c_int32, c_int64, c_uint64, c_void_p
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Half = NDArray[np.float16]

ACL_FLOAT16, ACL_FORMAT_ND = 1, 2
HUGE_FIRST, HOST_TO_DEVICE, DEVICE_TO_HOST = 0, 1, 2
ALREADY_INITIALISED = 100002
# name -> argument types; all return an int32 status. Without them ctypes cuts pointers to 32 bits.
ACL = {
    "aclInit": [c_char_p],
    "aclFinalize": [],
    "aclrtSetDevice": [c_int32],
    "aclrtResetDevice": [c_int32],
    "aclrtCreateStream": [POINTER(c_void_p)],
    "aclrtDestroyStream": [c_void_p],
    "aclrtSynchronizeStream": [c_void_p],
    "aclrtMalloc": [POINTER(c_void_p), c_uint64, c_int32],
    "aclrtFree": [c_void_p],
    "aclrtMemcpy": [c_void_p, c_uint64, c_void_p, c_uint64, c_int32],
}


class AclError(RuntimeError):
    """A call returned a status other than 0; the text has the toolkit's own message."""


def operator_library() -> Path:
    """libcust_opapi.so of the installed operator; raises AclError."""
    vendors = [Path(part) for part in os.environ.get("ASCEND_CUSTOM_OPP_PATH", "").split(":") if part]
    root = Path(os.environ.get("ASCEND_OPP_PATH", ""), "vendors")
    config = root / "config.ini"
    if config.is_file():
        first = (config.read_text().splitlines() or [""])[0]
        vendors += [root / name for name in first.removeprefix("load_priority=").split(",") if name]
    for vendor in vendors:
        if (vendor / "op_api" / "include" / "aclnn_smallq_flash_attention.h").is_file():
            return vendor / "op_api" / "lib" / "libcust_opapi.so"
    raise AclError("SmallqFlashAttention is not installed, or the toolkit's set_env.sh was not sourced")


class Caller:
    """One device, opened on entry and given back on exit."""

    def __init__(self, device: int = 0) -> None:
        self.device = device
        self._stack = ExitStack()
        library = operator_library()
        try:
            self.acl = ctypes.CDLL("libacl_rt.so")  # CANN 8.5 and later
        except OSError:
            self.acl = ctypes.CDLL("libascendcl.so")
        self.base = ctypes.CDLL("libnnopbase.so", mode=ctypes.RTLD_GLOBAL)
        self.op = ctypes.CDLL(str(library))
        for name, arguments in ACL.items():
            getattr(self.acl, name).argtypes = arguments
        self.acl.aclGetRecentErrMsg.restype = c_char_p
        sizes = POINTER(c_int64)
        self.base.aclCreateTensor.restype = c_void_p
        self.base.aclCreateTensor.argtypes = [
            *(sizes, c_uint64, c_int32, sizes, c_int64, c_int32, sizes, c_uint64, c_void_p)
        ]
        self.base.aclDestroyTensor.argtypes = [c_void_p]
        self.plan = self.op.aclnnSmallqFlashAttentionGetWorkspaceSize
        self.plan.argtypes = [c_void_p, c_void_p, c_void_p, c_void_p, POINTER(c_uint64), POINTER(c_void_p)]
        self.launch = self.op.aclnnSmallqFlashAttention
        self.launch.argtypes = [c_void_p, c_uint64, c_void_p, c_void_p]

    def check(self, what: str, status: int) -> None:
        """Raises AclError for a status other than 0."""
        if status != 0:
            message = (self.acl.aclGetRecentErrMsg() or b"").decode(errors="replace").strip()
            raise AclError(f"{what} returned {status}: {message or 'no message'}")

    def __enter__(self) -> Caller:
        status = self.acl.aclInit(None)
        if status != ALREADY_INITIALISED:  # torch_npu in the same process has done it, and will undo it
            self.check("aclInit", status)
            self._stack.callback(self.acl.aclFinalize)
        try:
            self.check("aclrtSetDevice", self.acl.aclrtSetDevice(self.device))
            self._stack.callback(self.acl.aclrtResetDevice, self.device)
            self.stream = c_void_p()
            self.check("aclrtCreateStream", self.acl.aclrtCreateStream(byref(self.stream)))
            self._stack.callback(self.acl.aclrtDestroyStream, self.stream)
        except AclError:
            self._stack.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _memory(self, size: int, stack: ExitStack) -> c_void_p:
        memory = c_void_p()
        self.check("aclrtMalloc", self.acl.aclrtMalloc(byref(memory), size, HUGE_FIRST))
        stack.callback(self.acl.aclrtFree, memory)
        return memory

    def _tensor(self, shape: tuple[int, ...], memory: c_void_p, stack: ExitStack) -> int:
        rank = len(shape)
        dims = (c_int64 * rank)(*shape)
        strides = (c_int64 * rank)(*[int(np.prod(shape[axis + 1 :], dtype=np.int64)) for axis in range(rank)])
        made: Any = self.base.aclCreateTensor(dims, rank, ACL_FLOAT16, strides, 0, ACL_FORMAT_ND, dims, rank, memory)
        if not made:
            raise AclError("aclCreateTensor returned NULL")
        stack.callback(self.base.aclDestroyTensor, made)
        return int(made)

    def attention(self, q: Half, k: Half, v: Half) -> Half:
        """softmax(q k^T / sqrt(head size)) v for every head. Raises AclError with the operator's own reason."""
        out = np.empty((q.shape[0], q.shape[1], v.shape[2]), np.float16)
        with ExitStack() as stack:
            tensors = []
            for array in (q, k, v):
                host = np.ascontiguousarray(array, np.float16)
                memory = self._memory(host.nbytes, stack)
                copied = self.acl.aclrtMemcpy(memory, host.nbytes, host.ctypes.data, host.nbytes, HOST_TO_DEVICE)
                self.check("aclrtMemcpy", copied)
                tensors.append(self._tensor(host.shape, memory, stack))
            result = self._memory(out.nbytes, stack)
            tensors.append(self._tensor(out.shape, result, stack))
            size, executor = c_uint64(), c_void_p()
            self.check("GetWorkspaceSize", self.plan(*tensors, byref(size), byref(executor)))
            workspace = self._memory(size.value, stack) if size.value else None
            # The executor is used up by the launch: every call needs a GetWorkspaceSize of its own.
            self.check("aclnnSmallqFlashAttention", self.launch(workspace, size.value, executor, self.stream))
            self.check("aclrtSynchronizeStream", self.acl.aclrtSynchronizeStream(self.stream))
            copied = self.acl.aclrtMemcpy(out.ctypes.data, out.nbytes, result, out.nbytes, DEVICE_TO_HOST)
            self.check("aclrtMemcpy", copied)
        return out


def attention(q: Half, k: Half, v: Half, *, device: int = 0) -> Half:
    """One call with a device of its own; to call often, keep a :class:`Caller`."""
    with Caller(device) as caller:
        return caller.attention(q, k, v)


def main() -> int:
    """Eight heads, four query rows, 1500 keys: prints the largest difference from float64."""
    rng = np.random.default_rng(1)
    q, k, v = (rng.standard_normal((8, rows, 128)).astype(np.float16) for rows in (4, 1500, 1500))
    try:
        got = attention(q, k, v)
    except (AclError, OSError) as error:
        print(f"ctypes_caller: {error}", file=sys.stderr)
        return 1
    score = q.astype(np.float64) @ k.astype(np.float64).transpose(0, 2, 1) / np.sqrt(128.0)
    weight = np.exp(score - score.max(axis=2, keepdims=True))
    expected = weight @ v.astype(np.float64) / weight.sum(axis=2, keepdims=True)
    difference = np.abs(got - expected)
    print(f"output {got.shape}, largest difference from float64 {difference.max():.2e}")
    return 0 if (difference <= 1e-3 + 1e-3 * np.abs(expected)).all() else 1


if __name__ == "__main__":
    sys.exit(main())
