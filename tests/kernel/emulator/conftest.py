"""Kernels of this folder, each compiled once a run and shared by all workers."""

from __future__ import annotations

import fcntl
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.emulator import Kernel, compile_kernel

KERNELS = Path(__file__).parent / "kernels"


@pytest.fixture(scope="session")
def kernel(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Callable[[str], Kernel]:
    """``kernel(name)``: the kernel of kernels/<name>.cpp, whose entry has the file's name."""
    base = tmp_path_factory.getbasetemp()
    directory = (base.parent if hasattr(request.config, "workerinput") else base) / "emulator-kernels"
    directory.mkdir(exist_ok=True)

    def load(name: str) -> Kernel:
        with open(directory / f"{name}.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            return compile_kernel((KERNELS / f"{name}.cpp").read_text(), name, directory)

    return load
