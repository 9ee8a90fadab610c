"""A bundle without packages: the tool for machines that are only looked at."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.conftest import run_command
from tests.integration.bundle.conftest import document, start


def test_it_runs_and_does_not_pretend_to_have_a_package(tmp_path: Path) -> None:
    made = tmp_path / "tool.pyz"
    run_command("bundle", "create", "--tool-only", "-o", str(made))
    assert document(start(made, "bundle", "verify", "--json", home=tmp_path))["data"]["packages"] == []
    assert document(start(made, "detect", "--json", home=tmp_path))["exit_status"] == 0
    done = start(made, "bundle", "dockerfile", "--from", "ubuntu:22.04", "--json", home=tmp_path)
    assert document(done)["errors"][0]["code"] == "NO_PACKAGE"


def test_packages_cannot_be_named_with_it(tmp_path: Path) -> None:
    argv = [sys.executable, "-m", "smallq_deploy", "bundle", "create", "--tool-only", str(tmp_path / "x.run")]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and "exclude each other" in done.stderr
