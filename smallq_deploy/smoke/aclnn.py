"""The acl and aclnn C functions a two-phase call needs, through ctypes. Standard library only.

Signatures and order of calls: cann.md 7.2 and 7.3. Every function gets argtypes and restype, because ctypes would cut
pointers to int.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from smallq_deploy.smoke.codes import ALREADY_INITIALISED

FLOAT16 = 1  # aclDataType
FORMAT_ND = 2  # aclFormat
HOST_TO_DEVICE, DEVICE_TO_HOST = 1, 2  # aclrtMemcpyKind
_HUGE_FIRST = 0  # aclrtMemMallocPolicy
RUNTIME_LIBRARIES = ("libacl_rt.so", "libascendcl.so")  # 8.5 and later; all versions
_GUARD = 64  # bytes after the output that the kernel must leave alone
_FILL = 0xFF  # fp16 0xFFFF is a NaN: an element that was never written cannot pass

_P, _I, _U64 = ctypes.c_void_p, ctypes.c_int32, ctypes.c_uint64
_SIGNATURES: Mapping[str, tuple[Any, tuple[Any, ...]]] = {
    "aclInit": (_I, (ctypes.c_char_p,)),
    "aclFinalize": (_I, ()),
    "aclrtGetDeviceCount": (_I, (ctypes.POINTER(ctypes.c_uint32),)),
    "aclrtSetDevice": (_I, (_I,)),
    "aclrtResetDevice": (_I, (_I,)),
    "aclrtGetSocName": (ctypes.c_char_p, ()),
    "aclrtCreateStream": (_I, (ctypes.POINTER(_P),)),
    "aclrtDestroyStream": (_I, (_P,)),
    "aclrtSynchronizeStreamWithTimeout": (_I, (_P, _I)),
    "aclrtMalloc": (_I, (ctypes.POINTER(_P), _U64, _I)),
    "aclrtFree": (_I, (_P,)),
    "aclrtMemcpy": (_I, (_P, _U64, _P, _U64, _I)),
    "aclGetRecentErrMsg": (ctypes.c_char_p, ()),
    "aclCreateTensor": (_P, (_P, _U64, _I, _P, ctypes.c_int64, _I, _P, _U64, _P)),
    "aclDestroyTensor": (_I, (_P,)),
}
_BASE_FUNCTIONS = frozenset({"aclCreateTensor", "aclDestroyTensor"})  # in libnnopbase.so


class AclError(Exception):
    """A call returned a status that is not 0. ``text`` is what aclGetRecentErrMsg said."""

    def __init__(self, function: str, status: int, text: str) -> None:
        super().__init__(f"{function} returned {status}")
        self.function = function
        self.status = status
        self.text = text


class LibraryError(Exception):
    """A library cannot be loaded. ``operator`` tells whether it is the operator's own or one of the toolkit's."""

    def __init__(self, library: str, reason: str, *, operator: bool) -> None:
        super().__init__(f"{library}: {reason}")
        self.library = library
        self.reason = reason
        self.operator = operator


class MissingSymbolError(Exception):
    """The operator's library does not have a function."""

    def __init__(self, library: str, symbol: str) -> None:
        super().__init__(f"{library} has no function {symbol}")
        self.library = library
        self.symbol = symbol


@dataclass(frozen=True)
class Tensor:
    """fp16/ND data on the device."""

    handle: int
    address: int
    size: int


def _load(name: str, *, operator: bool) -> ctypes.CDLL:
    try:
        return ctypes.CDLL(name, mode=ctypes.RTLD_GLOBAL if not operator else ctypes.DEFAULT_MODE)
    except OSError as error:
        raise LibraryError(name, str(error), operator=operator) from None


class Runtime:
    """The runtime's libraries and one operator's library, loaded by absolute path."""

    def __init__(self, operator_library: str, operator: str) -> None:
        """Raises LibraryError, MissingSymbolError. ``operator`` is the OpType."""
        self._functions: dict[str, Any] = {}
        self._initialised = False
        self.library = operator_library
        try:
            runtime = _load(RUNTIME_LIBRARIES[0], operator=False)
        except LibraryError as first:
            try:
                runtime = _load(RUNTIME_LIBRARIES[1], operator=False)
            except LibraryError as second:
                # A library that is there but cannot be loaded tells more than one that is not there.
                raise (second if f"{first.library}: cannot open shared object" in first.reason else first) from None
        base = _load("libnnopbase.so", operator=False)
        own = _load(operator_library, operator=True)
        for name, (result, arguments) in _SIGNATURES.items():
            library = base if name in _BASE_FUNCTIONS else runtime
            self._functions[name] = self._bind(library, name, result, arguments)
        tensors = (_P,) * 4  # q, k, v, out
        first_phase = (*tensors, ctypes.POINTER(_U64), ctypes.POINTER(_P))
        self._first = self._bind(own, f"aclnn{operator}GetWorkspaceSize", _I, first_phase)
        self._second = self._bind(own, f"aclnn{operator}", _I, (_P, _U64, _P, _P))
        self._name = f"aclnn{operator}"

    @staticmethod
    def _bind(library: ctypes.CDLL, name: str, result: Any, arguments: Sequence[Any]) -> Any:
        try:
            function = getattr(library, name)
        except AttributeError:
            raise MissingSymbolError(library._name, name) from None
        function.restype, function.argtypes = result, list(arguments)
        return function

    def recent_error(self) -> str:
        """What the runtime says about its last failure; reading clears it."""
        raw: bytes | None = self._functions["aclGetRecentErrMsg"]()
        return raw.decode("utf-8", "replace").strip() if raw else ""

    def check(self, function: str, status: int) -> None:
        """Raise AclError unless ``status`` is 0."""
        if status != 0:
            raise AclError(function, status, self.recent_error())

    def call(self, name: str, *arguments: Any) -> None:
        """Call a status function of the runtime; raises AclError."""
        self.check(name, self._functions[name](*arguments))

    def initialise(self) -> None:
        status = self._functions["aclInit"](None)
        if status != ALREADY_INITIALISED:
            self.check("aclInit", status)
            self._initialised = True

    def device_count(self) -> int:
        count = ctypes.c_uint32(0)
        self.call("aclrtGetDeviceCount", ctypes.byref(count))
        return count.value

    def soc_name(self) -> str:
        raw: bytes | None = self._functions["aclrtGetSocName"]()
        return raw.decode("ascii", "replace") if raw else ""

    def open(self, device: int) -> int:
        """Set the device of this thread and make a stream; returns the stream."""
        self.call("aclrtSetDevice", device)
        stream = _P()
        self.call("aclrtCreateStream", ctypes.byref(stream))
        return stream.value or 0

    def close(self, device: int, stream: int) -> None:
        self.call("aclrtDestroyStream", stream)
        self.call("aclrtResetDevice", device)
        if self._initialised:
            self.call("aclFinalize")

    def allocate(self, size: int) -> int:
        """Device memory of ``size`` bytes."""
        address = _P()
        self.call("aclrtMalloc", ctypes.byref(address), size, _HUGE_FIRST)
        return address.value or 0

    def upload(self, address: int, data: bytes) -> None:
        self.call("aclrtMemcpy", address, len(data), data, len(data), HOST_TO_DEVICE)

    def download(self, address: int, size: int) -> bytes:
        buffer = ctypes.create_string_buffer(size)
        self.call("aclrtMemcpy", buffer, size, address, size, DEVICE_TO_HOST)
        return buffer.raw

    def tensor(self, shape: Sequence[int], data: bytes) -> Tensor:
        """A contiguous fp16 tensor on the device; ``data`` may be longer than the shape needs."""
        address = self.allocate(len(data))
        self.upload(address, data)
        rank = len(shape)
        dims = (ctypes.c_int64 * rank)(*shape)
        strides = (ctypes.c_int64 * rank)(*[_product(shape[axis + 1 :]) for axis in range(rank)])
        handle = self._functions["aclCreateTensor"](dims, rank, FLOAT16, strides, 0, FORMAT_ND, dims, rank, address)
        if not handle:
            raise AclError("aclCreateTensor", -1, self.recent_error())
        return Tensor(handle, address, len(data))

    def free(self, tensor: Tensor) -> None:
        self.call("aclDestroyTensor", tensor.handle)
        self.call("aclrtFree", tensor.address)

    def attend(self, shapes: Mapping[str, Sequence[int]], inputs: Mapping[str, bytes], stream: int, ms: int) -> bytes:
        """One two-phase call; returns the output's fp16 data.

        ``ms`` bounds the wait for the kernel. Raises AclError; OverrunError when bytes after the output changed.
        """
        size = 2 * _product(shapes["o"])
        tensors = [self.tensor(shapes[name], inputs[name]) for name in ("q", "k", "v")]
        tensors.append(self.tensor(shapes["o"], bytes([_FILL]) * (size + _GUARD)))
        workspace_size, executor = _U64(0), _P()
        status = self._first(
            *[tensor.handle for tensor in tensors], ctypes.byref(workspace_size), ctypes.byref(executor)
        )
        self.check(f"{self._name}GetWorkspaceSize", status)
        workspace = self.allocate(workspace_size.value) if workspace_size.value else 0
        self.check(self._name, self._second(workspace or None, workspace_size.value, executor, stream))
        self.call("aclrtSynchronizeStreamWithTimeout", stream, ms)
        raw = self.download(tensors[-1].address, size + _GUARD)
        if workspace:
            self.call("aclrtFree", workspace)
        for tensor in tensors:
            self.free(tensor)
        if raw[size:] != bytes([_FILL]) * _GUARD:
            raise OverrunError(f"the kernel wrote beyond the {size} bytes of its output")
        return raw[:size]


class OverrunError(Exception):
    """The kernel changed bytes that are not its own."""


def _product(numbers: Sequence[int]) -> int:
    result = 1
    for number in numbers:
        result *= number
    return result
