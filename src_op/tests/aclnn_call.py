#!/usr/bin/env python3
"""One call of the installed operator through ctypes. Python's standard library only; no compiler, no numpy.

As a program it runs one case given by environment variables, as test_aclnn (the C++ one) does: NUM_HEADS, Q_LEN,
KV_LEN, HEAD_DIM, IO_DIR, and where they are not the usual ones HEAD_DIM_V, KV_HEADS, CAUSAL (0 or 1), DTYPE (float16
or bfloat16), DEVICE_ID, REPEAT (timed calls after the first). It reads IO_DIR/{q,k,v}.bin and writes IO_DIR/o.bin, raw
and dense. Exit status: 0 done, 2 wrong usage, 3 an acl or aclnn call failed.

Sources: acl/acl_rt.h and aclnn/acl_meta.h of CANN for signatures and enum values. The environment must be that of the
toolkit's set_env.sh.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import platform
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

OPERATOR = "aclnnSmallqFlashAttention"
ACL_FLOAT16 = 1
ACL_BFLOAT16 = 27
ACL_FORMAT_ND = 2
MALLOC_HUGE_FIRST = 0
HOST_TO_DEVICE = 1
DEVICE_TO_HOST = 2
REPEAT_INITIALIZE = 100002
DTYPES = {"float16": ACL_FLOAT16, "bfloat16": ACL_BFLOAT16}


class CallError(Exception):
    """An acl or aclnn function returned a code other than 0, or a library is missing."""


class UsageError(Exception):
    """An environment variable or an input file is not what it should be."""


def find_operator_library(environment: Mapping[str, str]) -> Path:
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


def simulated(environment: Mapping[str, str]) -> bool:
    """Whether the toolkit says of itself that it is a simulated one."""
    home = environment.get("ASCEND_HOME_PATH", "")
    record = Path(home, f"{platform.machine()}-linux", "ascend_toolkit_install.info")
    try:
        return "simulated" in record.read_text(errors="replace")
    except OSError:
        return False


class Runtime:
    """The libraries with typed functions; every call that can fail goes through call()."""

    def __init__(self, operator_library: Path | None) -> None:
        try:
            self.acl = ctypes.CDLL("libacl_rt.so")
        except OSError:
            self.acl = self._load("libascendcl.so")
        pointer, u64, i32 = ctypes.c_void_p, ctypes.c_uint64, ctypes.c_int32
        out = ctypes.POINTER(ctypes.c_void_p)
        for name, arguments in {
            "aclInit": [ctypes.c_char_p],
            "aclFinalize": [],
            "aclrtGetDeviceCount": [ctypes.POINTER(ctypes.c_uint32)],
            "aclrtSetDevice": [i32],
            "aclrtResetDevice": [i32],
            "aclrtCreateStream": [out],
            "aclrtDestroyStream": [pointer],
            "aclrtSynchronizeStream": [pointer],
            "aclrtMalloc": [out, u64, i32],
            "aclrtFree": [pointer],
            "aclrtMemcpy": [pointer, u64, pointer, u64, i32],
            "aclrtCreateEvent": [out],
            "aclrtDestroyEvent": [pointer],
            "aclrtRecordEvent": [pointer, pointer],
            "aclrtEventElapsedTime": [ctypes.POINTER(ctypes.c_float), pointer, pointer],
        }.items():
            self._declare(self.acl, name, arguments)
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
        tail = [pointer, ctypes.POINTER(u64), out]
        self._declare(self.op, OPERATOR + "GetWorkspaceSize", [pointer] * 3 + tail)
        self._declare(self.op, OPERATOR, [pointer, u64, pointer, pointer])
        # Version 2 of the interface adds the scale and the causal mask.
        self.has_causal = hasattr(self.op, OPERATOR + "V2GetWorkspaceSize")
        if self.has_causal:
            more = [pointer] * 3 + [ctypes.c_double, ctypes.c_bool]
            self._declare(self.op, OPERATOR + "V2GetWorkspaceSize", more + tail)
            self._declare(self.op, OPERATOR + "V2", [pointer, u64, pointer, pointer])

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


class DeviceTensor:
    """A dense tensor in device memory with its aclTensor; a context manager, so that it is freed on every path."""

    def __init__(self, runtime: Runtime, shape: Sequence[int], dtype: int) -> None:
        self.runtime, self.shape, self.dtype = runtime, tuple(shape), dtype
        self.bytes = 2
        for size in self.shape:
            self.bytes *= size
        self.memory, self.tensor = ctypes.c_void_p(), ctypes.c_void_p()

    def __enter__(self) -> DeviceTensor:
        self.runtime.call(self.runtime.acl, "aclrtMalloc", ctypes.byref(self.memory), self.bytes, MALLOC_HUGE_FIRST)
        rank = len(self.shape)
        steps = [1] * rank
        for axis in range(rank - 1, 0, -1):
            steps[axis - 1] = steps[axis] * self.shape[axis]
        dims, strides = (ctypes.c_int64 * rank)(*self.shape), (ctypes.c_int64 * rank)(*steps)
        self.tensor.value = self.runtime.base.aclCreateTensor(
            dims, rank, self.dtype, strides, 0, ACL_FORMAT_ND, dims, rank, self.memory
        )
        if not self.tensor:
            self.__exit__()
            raise CallError("aclCreateTensor returned NULL")
        return self

    def __exit__(self, *_: object) -> None:
        if self.tensor:
            self.runtime.base.aclDestroyTensor(self.tensor)
        self.runtime.acl.aclrtFree(self.memory)

    def upload(self, file: Path) -> None:
        """The whole tensor from a file of exactly its size; raises UsageError."""
        try:
            with open(file, "rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_COPY) as data:
                if len(data) != self.bytes:
                    raise UsageError(f"{file} has {len(data)} bytes, the shape {self.shape} needs {self.bytes}")
                source = (ctypes.c_char * self.bytes).from_buffer(data)
                try:
                    self._copy(self.memory, ctypes.addressof(source), HOST_TO_DEVICE)
                finally:
                    del source  # the map can only be closed without views of it
        except (OSError, ValueError) as error:
            raise UsageError(f"cannot read {file}: {error}") from error

    def download(self, file: Path) -> None:
        """The whole tensor into a file."""
        host = ctypes.create_string_buffer(self.bytes)
        self._copy(ctypes.addressof(host), self.memory, DEVICE_TO_HOST)
        file.write_bytes(host.raw)

    def _copy(self, target: Any, source: Any, kind: int) -> None:
        self.runtime.call(self.runtime.acl, "aclrtMemcpy", target, self.bytes, source, self.bytes, kind)


def run_operator(
    runtime: Runtime, stream: ctypes.c_void_p, tensors: Sequence[DeviceTensor], *, causal: bool = False
) -> float | None:
    """One two-phase call on q, k, v, out; returns microseconds between two events around it."""
    acl, size, executor, workspace = runtime.acl, ctypes.c_uint64(), ctypes.c_void_p(), ctypes.c_void_p()
    if causal and not runtime.has_causal:
        raise CallError("the installed operator has no causal mask: its interface has no version 2")
    name = OPERATOR + ("V2" if causal else "")
    extra: list[Any] = [0.0, True] if causal else []
    q, k, v, out = (tensor.tensor for tensor in tensors)
    result = (ctypes.byref(size), ctypes.byref(executor))
    runtime.call(runtime.op, name + "GetWorkspaceSize", q, k, v, *extra, out, *result)
    if size.value > 0:
        runtime.call(acl, "aclrtMalloc", ctypes.byref(workspace), size.value, MALLOC_HUGE_FIRST)
    events = [ctypes.c_void_p(), ctypes.c_void_p()]
    milliseconds = ctypes.c_float()
    try:
        for event in events:
            runtime.call(acl, "aclrtCreateEvent", ctypes.byref(event))
        runtime.call(acl, "aclrtRecordEvent", events[0], stream)
        runtime.call(runtime.op, name, workspace, size.value, executor, stream)
        runtime.call(acl, "aclrtRecordEvent", events[1], stream)
        runtime.call(acl, "aclrtSynchronizeStream", stream)
        runtime.call(acl, "aclrtEventElapsedTime", ctypes.byref(milliseconds), *events)
    finally:
        for event in events:
            if event:
                acl.aclrtDestroyEvent(event)
        if size.value > 0:
            acl.aclrtFree(workspace)
    return milliseconds.value * 1e3


# ---- one case, as a program -----------------------------------------------------------------------------------------


def _number(name: str, default: int | None, least: int) -> int:
    text = os.environ.get(name, "")
    if not text:
        if default is None:
            raise UsageError(f"set {name}: the case is given by environment variables")
        return default
    if not (text.isascii() and text.isdigit()) or int(text) < least:
        raise UsageError(f"{name} must be a number of at least {least}, got '{text}'")
    return int(text)


def run_case(environment: Mapping[str, str]) -> None:
    """The whole program: raises CallError and UsageError."""
    heads, q_len, kv_len = (_number(name, None, 1) for name in ("NUM_HEADS", "Q_LEN", "KV_LEN"))
    head_dim = _number("HEAD_DIM", None, 1)
    head_dim_v, kv_heads = _number("HEAD_DIM_V", head_dim, 1), _number("KV_HEADS", heads, 1)
    device, repeat, causal = _number("DEVICE_ID", 0, 0), _number("REPEAT", 0, 0), _number("CAUSAL", 0, 0)
    dtype = DTYPES.get(environment.get("DTYPE", "float16"))
    if dtype is None:
        raise UsageError(f"DTYPE must be one of {', '.join(DTYPES)}")
    if causal > 1:
        raise UsageError("CAUSAL must be 0 or 1")
    folder = Path(environment.get("IO_DIR", ""))
    if not environment.get("IO_DIR") or not folder.is_dir():
        raise UsageError("IO_DIR must name a directory with q.bin, k.bin and v.bin")
    given = environment.get("SMALLQ_OPAPI", "")
    runtime = Runtime(Path(given) if given else find_operator_library(environment))
    runtime.start()
    runtime.call(runtime.acl, "aclrtSetDevice", device)
    stream = ctypes.c_void_p()
    runtime.call(runtime.acl, "aclrtCreateStream", ctypes.byref(stream))
    print(f"device {device} is open", flush=True)
    try:
        with (
            DeviceTensor(runtime, (heads, q_len, head_dim), dtype) as q,
            DeviceTensor(runtime, (kv_heads, kv_len, head_dim), dtype) as k,
            DeviceTensor(runtime, (kv_heads, kv_len, head_dim_v), dtype) as v,
            DeviceTensor(runtime, (heads, q_len, head_dim_v), dtype) as out,
        ):
            for tensor, name in ((q, "q"), (k, "k"), (v, "v")):
                tensor.upload(folder / f"{name}.bin")
            times = [run_operator(runtime, stream, (q, k, v, out), causal=causal == 1) for _ in range(1 + repeat)]
            out.download(folder / "o.bin")
    finally:
        runtime.acl.aclrtDestroyStream(stream)
        runtime.acl.aclrtResetDevice(device)
        runtime.acl.aclFinalize()
    timed = [time for time in times[1:] or times if time is not None]
    label = "simulated" if simulated(environment) else "measured"
    warm = f"median of {repeat} after warm-up" if repeat else "first call"
    print(f"time_us {statistics.median(timed):.1f} {label} ({warm})", flush=True)


def main() -> int:
    try:
        run_case(os.environ)
    except UsageError as error:
        print(f"aclnn_call: {error}", file=sys.stderr)
        return 2
    except CallError as error:
        print(f"aclnn_call: {error}", file=sys.stderr)
        return 3
    return 0


if __name__ == "__main__":
    sys.exit(main())
