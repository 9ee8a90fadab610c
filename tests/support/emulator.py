"""Compile small kernels against the Ascend C emulator and launch them through its C interface (sim_launch.h).

A kernel is a piece of C++ as it would stand in an ``op_kernel`` file; tensors are numpy arrays that play device memory.
"""

from __future__ import annotations

import ctypes
import fcntl
import hashlib
import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

NATIVE = Path(__file__).resolve().parents[2] / "smallq_deploy" / "sandbox" / "native"
INCLUDE = NATIVE / "emulator" / "include"
LAUNCH_SYMBOL = "smallq_sim_kernel_launch"

SIM_OK, SIM_FINDING, SIM_HANG, SIM_BAD_LAUNCH = 0, 1, 2, 3
UB_BYTES = 196352  # what an Ascend 910B3 leaves to a kernel
VECTOR_CORES = 40

# As the sandbox's kernel compiler calls g++ (contract of the simulated toolkit); warnings are errors here only.
COMPILE_FLAGS = (
    "-std=c++17", "-O2", "-fPIC", "-shared", "-fno-fast-math", "-ffp-contract=off", "-fvisibility=hidden", "-pthread",
    "-Wall", "-Wextra", "-Werror",
)  # fmt: skip


class GmRegion(ctypes.Structure):
    """SimGmRegion."""

    _fields_ = [("base", ctypes.c_uint64), ("size", ctypes.c_uint64), ("shadow", ctypes.c_void_p)]


class SimLaunch(ctypes.Structure):
    """SimLaunch, field by field."""

    _fields_ = [
        ("abi", ctypes.c_uint32),
        ("blockDim", ctypes.c_uint32),
        ("tilingKey", ctypes.c_uint64),
        ("tilingData", ctypes.c_void_p),
        ("tilingSize", ctypes.c_uint64),
        ("gmArgs", ctypes.POINTER(ctypes.c_uint64)),
        ("gmArgCount", ctypes.c_uint32),
        ("workspace", ctypes.c_uint64),
        ("regions", ctypes.POINTER(GmRegion)),
        ("regionCount", ctypes.c_uint32),
        ("coreNumAiv", ctypes.c_uint32),
        ("ubSize", ctypes.c_uint64),
        ("threads", ctypes.c_uint32),
        ("strict", ctypes.c_uint32),
        ("message", ctypes.c_char_p),
        ("messageCapacity", ctypes.c_uint32),
        ("reserved", ctypes.c_uint32),
        ("report", ctypes.c_void_p),
    ]


@dataclass
class Gm:
    """One device allocation: its bytes and, for each, whether it was ever written."""

    array: npt.NDArray[Any]
    written: bool = True
    shadow: npt.NDArray[np.uint8] = field(init=False)

    def __post_init__(self) -> None:
        assert self.array.flags["C_CONTIGUOUS"]
        self.shadow = np.full(max(self.array.nbytes, 1), 1 if self.written else 0, dtype=np.uint8)


def unwritten(shape: int | tuple[int, ...], dtype: npt.DTypeLike) -> Gm:
    """An output: memory nobody has written yet, filled with a pattern that is easy to recognise.

    It starts on 512 bytes, as device allocations do.
    """
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    storage = np.full(size + 512, 0xA5, dtype=np.uint8)
    start = -storage.ctypes.data % 512
    return Gm(storage[start : start + size].view(dtype).reshape(shape), written=False)


@dataclass(frozen=True)
class Result:
    """What a launch returned."""

    status: int
    message: str

    @property
    def codes(self) -> list[str]:
        """Codes of the findings, in the order reported."""
        return [line.split(":", 1)[0] for line in self.message.splitlines()]


class Kernel:
    """A compiled kernel object."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._launch = getattr(ctypes.CDLL(str(path)), LAUNCH_SYMBOL)
        self._launch.restype = ctypes.c_int
        self._launch.argtypes = [ctypes.POINTER(SimLaunch)]

    def run(
        self,
        tensors: Sequence[Gm | None],
        *,
        block_dim: int = 1,
        tiling: bytes = b"",
        tiling_key: int = 0,
        workspace: Gm | None = None,
        strict: bool = True,
        threads: int = 1,
        cores: int = VECTOR_CORES,
        ub_bytes: int = UB_BYTES,
        abi: int = 1,
    ) -> Result:
        """Launch on ``tensors`` (inputs, then outputs; None: absent). Arrays are changed in place."""
        live = [gm for gm in (*tensors, workspace) if gm is not None]
        ordered = sorted(live, key=lambda gm: gm.array.ctypes.data)
        regions = (GmRegion * max(len(live), 1))(
            *(GmRegion(gm.array.ctypes.data, gm.array.nbytes, gm.shadow.ctypes.data) for gm in ordered)
        )
        arguments = (ctypes.c_uint64 * max(len(tensors), 1))(
            *(gm.array.ctypes.data if gm is not None else 0 for gm in tensors)
        )
        tiling_bytes = ctypes.create_string_buffer(tiling, max(len(tiling), 1))
        message = ctypes.create_string_buffer(4096)
        launch = SimLaunch(
            abi=abi,
            blockDim=block_dim,
            tilingKey=tiling_key,
            tilingData=ctypes.addressof(tiling_bytes),
            tilingSize=len(tiling),
            gmArgs=arguments,
            gmArgCount=len(tensors),
            workspace=workspace.array.ctypes.data if workspace is not None else 0,
            regions=regions,
            regionCount=len(live),
            coreNumAiv=cores,
            ubSize=ub_bytes,
            threads=threads,
            strict=1 if strict else 0,
            message=ctypes.cast(message, ctypes.c_char_p),
            messageCapacity=len(message),
        )
        status = self._launch(ctypes.byref(launch))
        return Result(status, message.value.decode())


def compile_kernel(
    source: str, entry: str, directory: Path, include: Sequence[Path] = (), extra: Sequence[str] = ()
) -> Kernel:
    """Compile ``source`` (kernel code that defines ``entry``) into ``directory``; reuses an equal compilation there.
    ``extra`` are further compiler options.

    Raises AssertionError with the compiler's text when it does not compile.
    """
    unit = f'{source}\n#include "sim_kernel_entry.h"\nSIM_EXPORT_KERNEL({entry})\n'
    digest = hashlib.sha256("\n".join([unit, *extra, _headers_digest(*include)]).encode())
    path = directory / f"{entry}_{digest.hexdigest()[:16]}.o"
    if not path.exists():
        directory.mkdir(parents=True, exist_ok=True)
        unit_file = path.with_suffix(".cpp")
        unit_file.write_text(unit)
        partial = path.with_suffix(f".{os.getpid()}.tmp")
        options = [*COMPILE_FLAGS, *extra]
        if "-O0" in extra:
            options += ["-include", str(_parsed_headers(options))]
        includes = [f"-I{folder}" for folder in (*include, INCLUDE)]
        command = [*options, *includes, str(unit_file), "-o", str(partial)]
        done = subprocess.run([_compiler(), *command], capture_output=True, text=True, check=False, timeout=120)
        assert done.returncode == 0, f"{entry} does not compile:\n{done.stderr[:4000]}"
        partial.replace(path)
    return Kernel(path)


def _compiler() -> str:
    return shutil.which("g++") or "g++"


def _headers_digest(*folders: Path) -> str:
    """A digest of what a kernel may include."""
    digest = hashlib.sha256()
    for folder in (*folders, INCLUDE, NATIVE / "common"):
        for header in sorted(folder.rglob("*")):
            if header.suffix in (".h", ".cpp"):
                digest.update(header.read_bytes())
    return digest.hexdigest()


def _parsed_headers(options: Sequence[str]) -> Path:
    """A header of the emulator's headers that g++ finds parsed: a third of the time of a compilation without -O.

    Kept in the cache directory, the last one of each set of options; g++ itself sees whether it fits, and parses the
    headers again where it does not.
    """
    version = subprocess.run([_compiler(), "-dumpfullversion"], capture_output=True, text=True, check=True).stdout
    kept = Path(os.environ.get("XDG_CACHE_HOME", str(Path.home() / ".cache"))) / "smallq-deploy-tests"
    folder = kept / hashlib.sha256("\n".join(options).encode()).hexdigest()[:16]
    folder.mkdir(parents=True, exist_ok=True)
    header = folder / f"{hashlib.sha256((version + _headers_digest()).encode()).hexdigest()[:16]}.h"
    with open(folder / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        parsed = Path(f"{header}.gch")
        if not parsed.exists():
            for old in folder.glob("*.h*"):
                old.unlink()
            header.write_text('#include "kernel_operator.h"\n#include "sim_kernel_entry.h"\n')
            command = [_compiler(), *(option for option in options if option != "-shared"), f"-I{INCLUDE}"]
            partial = folder / "partial"
            subprocess.run([*command, "-x", "c++-header", str(header), "-o", str(partial)], check=True, timeout=120)
            partial.replace(parsed)
    return header
