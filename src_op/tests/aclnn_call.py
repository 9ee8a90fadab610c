"""The installed operator through ctypes: libraries, device memory, the two-phase aclnn call.

Sources: acl/acl_rt.h and aclnn/acl_meta.h of CANN for signatures and enum values. Needs numpy and an environment
prepared by the toolkit's set_env.sh.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

ACL_FLOAT16 = 1
ACL_FORMAT_ND = 2
MALLOC_HUGE_FIRST = 0
HOST_TO_DEVICE = 1
DEVICE_TO_HOST = 2
REPEAT_INITIALIZE = 100002


class CallError(Exception):
    """An acl or aclnn function returned a code other than 0, or a library is missing."""


def find_operator_library(environment: dict[str, str]) -> Path:
    """libcust_opapi.so of the vendor directory the runtime would use; raises CallError."""
    vendors: list[Path] = [Path(p) for p in environment.get("ASCEND_CUSTOM_OPP_PATH", "").split(":") if p]
    opp = environment.get("ASCEND_OPP_PATH", "")
    if not opp and not vendors:
        raise CallError("ASCEND_OPP_PATH is not set: source the toolkit's set_env.sh first")
    config = Path(opp, "vendors", "config.ini")
    if opp and config.is_file():
        lines = config.read_text().splitlines()
        if lines and lines[0].startswith("load_priority="):
            names = lines[0].removeprefix("load_priority=").split(",")
            vendors += [Path(opp, "vendors", name) for name in names if name]
    header = Path("op_api", "include", "aclnn_smallq_flash_attention.h")
    for vendor in vendors:
        library = vendor / "op_api" / "lib" / "libcust_opapi.so"
        if library.is_file() and (vendor / header).is_file():
            return library
    looked = ", ".join(str(v) for v in vendors) or f"{config} names no vendor"
    raise CallError(f"SmallqFlashAttention is not installed; looked in: {looked}")


class Runtime:
    """The libraries with typed functions; every call that can fail goes through call()."""

    def __init__(self, operator_library: Path | None) -> None:
        try:
            self.acl = ctypes.CDLL("libacl_rt.so")
        except OSError:
            self.acl = self._load("libascendcl.so")
        pointer, u64, i32 = ctypes.c_void_p, ctypes.c_uint64, ctypes.c_int32
        out = ctypes.POINTER(ctypes.c_void_p)
        self._declare(self.acl, "aclInit", [ctypes.c_char_p])
        self._declare(self.acl, "aclrtGetDeviceCount", [ctypes.POINTER(ctypes.c_uint32)])
        self._declare(self.acl, "aclrtSetDevice", [i32])
        self._declare(self.acl, "aclrtCreateStream", [out])
        self._declare(self.acl, "aclrtSynchronizeStream", [pointer])
        self._declare(self.acl, "aclrtMalloc", [out, u64, i32])
        self._declare(self.acl, "aclrtFree", [pointer])
        self._declare(self.acl, "aclrtMemcpy", [pointer, u64, pointer, u64, i32])
        self.acl.aclGetRecentErrMsg.argtypes = []
        self.acl.aclGetRecentErrMsg.restype = ctypes.c_char_p
        if operator_library is None:
            return
        self.base = self._load("libnnopbase.so", ctypes.RTLD_GLOBAL)
        dims = ctypes.POINTER(ctypes.c_int64)
        self.base.aclCreateTensor.argtypes = [dims, u64, i32, dims, ctypes.c_int64, i32, dims, u64, pointer]
        self.base.aclCreateTensor.restype = pointer
        self._declare(self.base, "aclDestroyTensor", [pointer])
        self.op = self._load(str(operator_library))
        name = "aclnnSmallqFlashAttention"
        self._declare(self.op, name + "GetWorkspaceSize", [pointer] * 4 + [ctypes.POINTER(u64), out])
        self._declare(self.op, name, [pointer, u64, pointer, pointer])

    @staticmethod
    def _load(name: str, mode: int = ctypes.DEFAULT_MODE) -> ctypes.CDLL:
        try:
            return ctypes.CDLL(name, mode=mode)
        except OSError as error:
            raise CallError(f"cannot load {name}: {error}; source the toolkit's set_env.sh first") from error

    @staticmethod
    def _declare(library: ctypes.CDLL, name: str, arguments: list[Any]) -> None:
        try:
            function = getattr(library, name)
        except AttributeError:
            raise CallError(f"{library._name} does not export {name}") from None
        function.argtypes = arguments
        function.restype = ctypes.c_int32

    def call(self, library: ctypes.CDLL, name: str, *arguments: Any) -> None:
        """Raises CallError with the code and the toolkit's own message."""
        code = getattr(library, name)(*arguments)
        if code != 0:
            text = (self.acl.aclGetRecentErrMsg() or b"").decode(errors="replace").strip()
            raise CallError(f"{name} returned {code}" + (f": {text}" if text else ""))

    def start(self) -> None:
        """aclInit; an already initialised process is fine."""
        code = self.acl.aclInit(None)
        if code not in (0, REPEAT_INITIALIZE):
            raise CallError(f"aclInit returned {code}")


class DeviceArray:
    """An fp16 array in device memory with its aclTensor."""

    def __init__(self, runtime: Runtime, shape: Sequence[int], values: NDArray[np.float16] | None) -> None:
        self.runtime, self.shape = runtime, tuple(shape)
        self.bytes = 2 * int(np.prod(self.shape, dtype=np.int64))
        self.memory = ctypes.c_void_p()
        runtime.call(runtime.acl, "aclrtMalloc", ctypes.byref(self.memory), self.bytes, MALLOC_HUGE_FIRST)
        if values is not None:
            host = np.ascontiguousarray(values)
            runtime.call(
                runtime.acl, "aclrtMemcpy", self.memory, self.bytes, host.ctypes.data, self.bytes, HOST_TO_DEVICE
            )
        rank = len(self.shape)
        dims = (ctypes.c_int64 * rank)(*self.shape)
        strides = (ctypes.c_int64 * rank)(*[int(np.prod(self.shape[i + 1 :], dtype=np.int64)) for i in range(rank)])
        self.tensor = ctypes.c_void_p(
            runtime.base.aclCreateTensor(dims, rank, ACL_FLOAT16, strides, 0, ACL_FORMAT_ND, dims, rank, self.memory)
        )
        if not self.tensor:
            raise CallError("aclCreateTensor returned NULL")

    def read(self) -> NDArray[np.float16]:
        host = np.empty(self.shape, np.float16)
        self.runtime.call(
            self.runtime.acl, "aclrtMemcpy", host.ctypes.data, self.bytes, self.memory, self.bytes, DEVICE_TO_HOST
        )
        return host

    def free(self) -> None:
        self.runtime.call(self.runtime.base, "aclDestroyTensor", self.tensor)
        self.runtime.call(self.runtime.acl, "aclrtFree", self.memory)


def run_operator(runtime: Runtime, stream: ctypes.c_void_p, arrays: Sequence[DeviceArray]) -> None:
    """One two-phase call on q, k, v, out; returns when the stream is idle."""
    size, executor, workspace = ctypes.c_uint64(), ctypes.c_void_p(), ctypes.c_void_p()
    name = "aclnnSmallqFlashAttention"
    tensors = [array.tensor for array in arrays]
    runtime.call(runtime.op, name + "GetWorkspaceSize", *tensors, ctypes.byref(size), ctypes.byref(executor))
    if size.value > 0:
        runtime.call(runtime.acl, "aclrtMalloc", ctypes.byref(workspace), size.value, MALLOC_HUGE_FIRST)
    runtime.call(runtime.op, name, workspace, size.value, executor, stream)
    runtime.call(runtime.acl, "aclrtSynchronizeStream", stream)
    if size.value > 0:
        runtime.call(runtime.acl, "aclrtFree", workspace)
