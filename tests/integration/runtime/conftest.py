"""Compiled libraries and the tiny_add vendor once a run; a fresh toolkit and fresh processes for each test."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from smallq_deploy.base.lock import exclusive_lock
from smallq_deploy.sandbox.native_cache import native_libraries
from tests.support import acl_child, acl_toolkit
from tests.support.acl_toolkit import Child


@pytest.fixture(scope="session")
def libraries() -> Path:
    return native_libraries()


@pytest.fixture(scope="session")
def vendor(shared_directory: Path, libraries: Path) -> Path:
    work = shared_directory / "tiny_add"
    work.mkdir(exist_ok=True)
    done = work / "done"
    with exclusive_lock(work, wait_seconds=200):
        if not done.exists():
            acl_toolkit.build_vendor(work, libraries)
            done.touch()
    return work / "vendor"


@pytest.fixture(scope="session")
def probe_vendor(shared_directory: Path, libraries: Path) -> Path:
    """The operator with several interface versions."""
    work = shared_directory / "tiny_probe"
    work.mkdir(exist_ok=True)
    done = work / "done"
    with exclusive_lock(work, wait_seconds=200):
        if not done.exists():
            acl_toolkit.build_vendor(work, libraries, acl_toolkit.TINY_PROBE)
            done.touch()
    return work / "vendor"


@pytest.fixture
def toolkit(tmp_path: Path, libraries: Path) -> acl_toolkit.Toolkit:
    return acl_toolkit.create_toolkit(tmp_path / "cann", libraries)


@pytest.fixture
def child(toolkit: acl_toolkit.Toolkit) -> Child:
    """Runs a scenario in a new process and returns its ``result``; keyword arguments are environment variables."""

    def run(scenario: str, *arguments: str | Path, **env: str) -> dict[str, Any]:
        command = [sys.executable, acl_child.__file__, textwrap.dedent(scenario), *map(str, arguments)]
        done = subprocess.run(command, env=toolkit.env(**env), capture_output=True, text=True, timeout=60, check=False)
        lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
        if not lines:
            return {"returncode": done.returncode, "stdout": done.stdout, "stderr": done.stderr}
        return {**json.loads(lines[-1][7:]), "stdout": done.stdout, "stderr": done.stderr}

    return run


@pytest.fixture
def generate(tmp_path: Path, libraries: Path):  # type: ignore[no-untyped-def]
    """Compiles a definition and runs op_build: (exit status, stderr, output directory)."""

    def run(source: str) -> tuple[int, str, Path]:
        (tmp_path / "x_def.cpp").write_text('#include "register/op_def_registry.h"\nnamespace ops {\n' + source + "}\n")
        acl_toolkit.compile_library(tmp_path / "libdef.so", [tmp_path / "x_def.cpp"], "gnu++17")
        done = acl_toolkit.run_tool(
            libraries / "op_build", tmp_path / "libdef.so", tmp_path / "gen", env=acl_toolkit.ACLNN_ENV
        )
        return done.returncode, done.stderr, tmp_path / "gen"

    return run
