"""ctypes calls into the simulated runtime, for the child processes of tests/integration/runtime.

A test passes Python text that uses ``Acl`` and fills ``result``; the child prints it as JSON.
"""

from __future__ import annotations

import ctypes
import json
import sys
from ctypes import POINTER, c_char_p, c_double, c_int, c_int32, c_int64, c_size_t, c_uint32, c_uint64, c_void_p
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

H2D, D2H, D2D = 1, 2, 3
ND = 2
TYPES = {"float32": 0, "float16": 1, "int32": 3, "int64": 9, "bfloat16": 27}
Array = npt.NDArray[Any]


class Acl:
    """The functions the tests use, with their real signatures."""

    def __init__(self, library: str = "libacl_rt.so") -> None:
        self.rt = ctypes.CDLL(library)
        self.nnop = ctypes.CDLL("libnnopbase.so", ctypes.RTLD_GLOBAL)
        pointer = POINTER(c_void_p)
        for name, arguments in {
            "aclInit": [c_char_p],
            "aclFinalize": [],
            "aclrtGetDeviceCount": [POINTER(c_uint32)],
            "aclrtSetDevice": [c_int32],
            "aclrtResetDevice": [c_int32],
            "aclrtCreateStream": [pointer],
            "aclrtDestroyStream": [c_void_p],
            "aclrtSynchronizeStream": [c_void_p],
            "aclrtSynchronizeStreamWithTimeout": [c_void_p, c_int32],
            "aclrtMalloc": [pointer, c_size_t, c_int],
            "aclrtFree": [c_void_p],
            "aclrtMemcpy": [c_void_p, c_size_t, c_void_p, c_size_t, c_int],
            "aclrtMemcpyAsync": [c_void_p, c_size_t, c_void_p, c_size_t, c_int, c_void_p],
            "aclrtMemset": [c_void_p, c_size_t, c_int32, c_size_t],
            "aclsysGetVersionNum": [c_char_p, POINTER(c_int32)],
        }.items():
            function = getattr(self.rt, name)
            function.argtypes, function.restype = arguments, c_int32
            setattr(self, name, function)
        self.rt.aclGetRecentErrMsg.restype = c_char_p
        self.rt.aclrtGetSocName.restype = c_char_p
        int64s = POINTER(c_int64)
        self.nnop.aclCreateTensor.restype = c_void_p
        self.nnop.aclCreateTensor.argtypes = [
            *(int64s, c_uint64, c_int, int64s, c_int64, c_int, int64s, c_uint64, c_void_p)
        ]
        self.nnop.aclDestroyTensor.argtypes = [c_void_p]

    def message(self) -> str:
        text = self.rt.aclGetRecentErrMsg()
        return text.decode() if text else ""

    def start(self, device: int = 0) -> None:
        self.check(self.aclInit(None))  # type: ignore[attr-defined]
        self.check(self.aclrtSetDevice(device))  # type: ignore[attr-defined]

    def check(self, code: int) -> None:
        if code != 0:
            raise RuntimeError(f"{code}: {self.message()}")

    def malloc(self, size: int) -> int:
        device = c_void_p()
        self.check(self.aclrtMalloc(ctypes.byref(device), size, 0))  # type: ignore[attr-defined]
        return int(device.value or 0)

    def upload(self, values: Array) -> int:
        device = self.malloc(values.nbytes)
        source = values.ctypes.data_as(c_void_p)
        self.check(self.aclrtMemcpy(device, values.nbytes, source, values.nbytes, H2D))  # type: ignore[attr-defined]
        return device

    def download(self, device: int, like: Array) -> Array:
        values = np.zeros_like(like)
        target = values.ctypes.data_as(c_void_p)
        self.check(self.aclrtMemcpy(target, like.nbytes, device, like.nbytes, D2H))  # type: ignore[attr-defined]
        return values

    def stream(self) -> int:
        stream = c_void_p()
        self.check(self.aclrtCreateStream(ctypes.byref(stream)))  # type: ignore[attr-defined]
        return int(stream.value or 0)

    def tensor(
        self, device: int | None, shape: tuple[int, ...], dtype: str, strides: tuple[int, ...] | None = None
    ) -> int:
        dims = (c_int64 * len(shape))(*shape)
        steps = (c_int64 * len(shape))(*strides) if strides else None
        created = self.nnop.aclCreateTensor(dims, len(shape), TYPES[dtype], steps, 0, ND, dims, len(shape), device)
        return int(created or 0)


class TinyAdd:
    """The generated two-phase API of the test operator in one vendor directory."""

    def __init__(self, acl: Acl, vendor: str) -> None:
        self.acl = acl
        library = ctypes.CDLL(str(Path(vendor) / "op_api" / "lib" / "libcust_opapi.so"))
        self.workspace_size = library.aclnnTinyAddGetWorkspaceSize
        self.workspace_size.argtypes = [*(c_void_p, c_void_p, c_double, c_void_p, POINTER(c_uint64), POINTER(c_void_p))]
        self.launch = library.aclnnTinyAdd
        self.launch.argtypes = [c_void_p, c_uint64, c_void_p, c_void_p]
        self.size = c_uint64()
        self.executor = c_void_p()

    def first(self, x: int | None, y: int | None, out: int | None, bias: float = 0.0) -> int:
        size, executor = ctypes.byref(self.size), ctypes.byref(self.executor)
        return int(self.workspace_size(x, y, bias, out, size, executor))

    def second(self, stream: int | None) -> int:
        needed = self.size.value
        workspace = self.acl.malloc(needed) if needed else None
        return int(self.launch(workspace, needed, self.executor, stream))

    def add(self, x: Array, y: Array, bias: float = 0.0) -> tuple[int, Array]:
        """Both phases and the synchronisation; the code of the first that fails."""
        acl, dtype = self.acl, str(x.dtype)
        z = acl.malloc(x.nbytes)
        left, right, out = (acl.tensor(at, x.shape, dtype) for at in (acl.upload(x), acl.upload(y), z))
        stream = acl.stream()
        code = self.first(left, right, out, bias) or self.second(stream)
        code = code or int(acl.aclrtSynchronizeStream(stream))  # type: ignore[attr-defined]
        return code, acl.download(z, x)


def main() -> None:
    result: dict[str, Any] = {}
    scope: dict[str, Any] = {**globals(), "result": result, "arguments": sys.argv[2:]}
    exec(compile(sys.argv[1], "<scenario>", "exec"), scope)
    print("RESULT " + json.dumps(result))


if __name__ == "__main__":
    main()
