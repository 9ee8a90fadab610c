"""Kernels compiled with AddressSanitizer and UndefinedBehaviorSanitizer, launched by a native program of their own.

Python is not in the sanitized process: a launch is written to a file, the program (tests/kernel/sanitizers/driver.cpp)
runs it and leaves status, message and output in another. It stands in for ``emulator.Kernel``, so everything that
drives a plain kernel drives a sanitized one. g++ is needed with libasan and libubsan, which come with it.
"""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tests.support import emulator
from tests.support.operator_kernel import OPERATOR, Operator, Planner, kernel_tiling_header

DRIVER = Path(__file__).resolve().parents[1] / "kernel" / "sanitizers" / "driver.cpp"
FLAGS = (
    "-std=c++17", "-O1", "-g1", "-fsanitize=address,undefined,float-cast-overflow", "-fno-sanitize-recover=all",
    "-fno-omit-frame-pointer", "-fno-fast-math", "-ffp-contract=off", "-fvisibility=hidden", "-pthread",
    "-Wall", "-Wextra", "-Werror",
)  # fmt: skip
MOST_MULTIPLY_ADDS = 1 << 22  # of one case


class SanitizerReport(AssertionError):
    """A sanitizer ended the process; the text is its report."""


class SanitizedKernel(emulator.Kernel):
    """A kernel and the driver in one program."""

    def __init__(self, program: Path) -> None:
        self.path = program

    def run(
        self,
        tensors: Sequence[emulator.Gm | None],
        *,
        block_dim: int = 1,
        tiling: bytes = b"",
        tiling_key: int = 0,
        workspace: emulator.Gm | None = None,
        strict: bool = True,
        threads: int = 1,
        cores: int = emulator.VECTOR_CORES,
        ub_bytes: int = emulator.UB_BYTES,
        abi: int = 1,
    ) -> emulator.Result:
        """Launch in a process of its own; the last of ``tensors`` is the output and is changed in place.

        Raises SanitizerReport when a sanitizer ended the process, AssertionError when the program failed otherwise.
        """
        del abi  # the driver's own
        output = tensors[-1]
        assert output is not None, "a launch has an output"
        sizes = [0 if gm is None else gm.array.nbytes for gm in tensors]
        numbers = [
            block_dim, tiling_key, cores, ub_bytes, threads, int(strict), len(tiling),
            0 if workspace is None else workspace.array.nbytes, len(sizes), *sizes,
        ]  # fmt: skip
        parts = [struct.pack(f"={len(numbers)}Q", *numbers), tiling]
        parts += [gm.array.tobytes() for gm in tensors[:-1] if gm is not None]
        with tempfile.TemporaryDirectory() as folder:
            launch, result = Path(folder, "launch"), Path(folder, "result")
            launch.write_bytes(b"".join(parts))
            done = subprocess.run(
                [self.path, launch, result], capture_output=True, text=True, check=False, timeout=120,
                env={**os.environ, "ASAN_OPTIONS": "detect_leaks=1", "UBSAN_OPTIONS": "print_stacktrace=1"},
            )  # fmt: skip
            if "Sanitizer" in done.stderr or "runtime error:" in done.stderr:
                raise SanitizerReport(done.stderr)
            assert done.returncode == 0, f"the driver ended with {done.returncode}: {done.stderr[-4000:]}"
            status, length, size, *_ = struct.unpack_from("=3Q", content := result.read_bytes())
        assert size == output.array.nbytes
        message, values = content[24 : 24 + length], content[24 + length :]
        output.array.view(np.uint8).reshape(-1)[:] = np.frombuffer(values, np.uint8)
        return emulator.Result(status, message.decode())


def compile_sanitized(source: str, entry: str, directory: Path, include: Sequence[Path] = ()) -> SanitizedKernel:
    """Compile ``source`` (kernel code that defines ``entry``) with the driver into a program in ``directory``.

    Raises AssertionError with the compiler's text when it does not compile.
    """
    directory.mkdir(parents=True, exist_ok=True)
    unit, program = directory / "unit.cpp", directory / "launch"
    unit.write_text(f'{source}\n#include "sim_kernel_entry.h"\nSIM_EXPORT_KERNEL({entry})\n')
    includes = [f"-I{folder}" for folder in (*include, emulator.INCLUDE, emulator.NATIVE / "common")]
    command = [shutil.which("g++") or "g++", *FLAGS, *includes, str(unit), str(DRIVER), "-o", str(program)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=240)
    assert done.returncode == 0, f"{entry} does not compile:\n{done.stderr[:4000]}"
    return SanitizedKernel(program)


def build_sanitized(planner: Planner, directory: Path, dtype: str = "half") -> Operator:
    """The operator with its kernel compiled for one type of q."""
    generated = directory / "generated"
    (generated / "kernel_tiling").mkdir(parents=True)
    (generated / "kernel_tiling" / "kernel_tiling.h").write_text(kernel_tiling_header())
    unit = f'#define DTYPE_Q {dtype}\n#include "smallq_flash_attention.cpp"'
    include = [OPERATOR / "op_kernel", generated]
    return Operator(planner, compile_sanitized(unit, "smallq_flash_attention", directory, include))
