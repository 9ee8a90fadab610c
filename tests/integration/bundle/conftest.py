"""One bundle a run, made through the command line, and ways to start it as another machine would."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import _once, run_command

# The interpreter without this environment's distributions: what a bare machine has.
BARE = [os.path.realpath(sys.executable), "-I", "-S"]


@pytest.fixture(scope="session")
def bundle_file(operator_package: Path, shared_directory: Path) -> Path:
    """The bundle of the operator package; read-only for tests."""
    target = shared_directory / "bundle" / "smallq.pyz"
    with _once(shared_directory, "bundle") as first:
        if first:
            target.parent.mkdir()
            run_command("bundle", "create", str(operator_package), "-o", str(target))
    return target


def start(
    bundle: Path,
    *arguments: str | Path,
    home: Path,
    prefix: list[str] | None = None,
    python: list[str] | None = None,
    env: dict[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Start a bundle itself on a bare interpreter, in an environment that knows nothing of this checkout."""
    done = subprocess.run(
        [*(prefix or []), *(python or BARE), str(bundle), *map(str, arguments)],
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": str(home), **(env or {})},
        cwd=home,
        capture_output=True,
        text=True,
        timeout=200,
        stdin=subprocess.DEVNULL,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done


def document(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    """The JSON document of a command."""
    found = json.loads(done.stdout)
    assert isinstance(found, dict)
    assert found["exit_status"] == done.returncode
    return found
