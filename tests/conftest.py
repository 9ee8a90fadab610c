"""What every test stands on: a home of its own, and one simulated toolkit and one built package a run.

The expensive things (compiling the simulated toolkit, building the operator) are made once for all xdist workers,
under a lock, and are read-only for tests; a test that changes a toolkit takes ``fresh_toolkit``.
"""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.faultrows import FULL, FaultRow, Tally

CHECKOUT = Path(__file__).resolve().parent.parent
os.environ.setdefault("XDG_CACHE_HOME", str(CHECKOUT / ".venv" / "cache"))


@pytest.fixture(autouse=True)
def own_home(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """HOME and data directory of this test alone; no Ascend or smallq variable of the caller's."""
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("XDG_DATA_HOME", str(home / "data"))
    for name in list(os.environ):
        if name.startswith(("ASCEND_", "SMALLQ_")) or name == "TOOLCHAIN_HOME":
            monkeypatch.delenv(name)
    return home


@contextmanager
def _once(shared: Path, name: str) -> Iterator[bool]:
    """Hold the lock of ``name``; yields True for the first worker, which is to make it."""
    with open(shared / f"{name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = shared / f"{name}.done"
        yield not done.exists()
        done.touch()


@pytest.fixture(scope="session")
def shared_directory(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    """One directory for all workers of this run."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if hasattr(request.config, "workerinput") else base


def run_command(*arguments: str, env: dict[str, str] | None = None, cwd: Path | None = None) -> str:
    """``smallq-deploy`` with ``arguments``; asserts success, returns stdout."""
    done = subprocess.run(
        [sys.executable, "-m", "smallq_deploy", *arguments],
        env={**os.environ, **(env or {})},
        cwd=cwd or CHECKOUT,
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, f"{arguments}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="session")
def simulated_toolkit(shared_directory: Path) -> Path:
    """The root of a simulated CANN 8.5.0 installation that no test changes."""
    root = shared_directory / "toolkit"
    with _once(shared_directory, "toolkit") as first:
        if first:
            from smallq_deploy.sandbox.create import create

            create(root)
    return root


@pytest.fixture
def fresh_toolkit(simulated_toolkit: Path, tmp_path: Path) -> Callable[..., Path]:
    """Makes a simulated toolkit of the test's own: ``fresh_toolkit(cann_version="8.1.RC1")`` returns its root."""
    count = 0

    def make(**options: object) -> Path:
        nonlocal count
        from smallq_deploy.sandbox.create import create

        count += 1
        root = tmp_path / f"toolkit{count}"
        create(root, **options)  # type: ignore[arg-type]
        return root

    return make


@pytest.fixture(scope="session")
def operator_package(simulated_toolkit: Path, shared_directory: Path) -> Path:
    """The operator, built once from src_op/ against the shared simulated toolkit."""
    target = shared_directory / "packages"
    with _once(shared_directory, "package") as first:
        if first:
            target.mkdir()
            home = shared_directory / "home"
            home.mkdir()
            recipes = simulated_toolkit / "cann-recipes-infer"
            run_command(
                *("build", "--rebuild", "--cann", str(simulated_toolkit), "--recipes", str(recipes)),
                *("-o", str(target), "--json"),
                env={"HOME": str(home), "XDG_DATA_HOME": str(home / "data")},
            )
    (package,) = target.glob("*.run")
    return package


@pytest.fixture(scope="session")
def operator_environment(simulated_toolkit: Path, operator_package: Path, shared_directory: Path) -> dict[str, str]:
    """What a shell has after sourcing the toolkit's set_env.sh and that of the operator, installed on its own."""
    target, kept = shared_directory / "installed", shared_directory / "installed.json"
    with _once(shared_directory, "installed") as first:
        if first:
            target.mkdir(exist_ok=True)
            setup = f"source '{simulated_toolkit}/cann/set_env.sh'"
            install = f"{setup} && bash '{operator_package}' --quiet --install-path='{target}'"
            base = {"HOME": str(target), "PATH": os.environ["PATH"]}
            subprocess.run(["bash", "-c", install], env=base, check=True, capture_output=True, timeout=120)
            printed = subprocess.run(
                ["bash", "-c", f"{setup} && source '{target}/vendors/customize/bin/set_env.bash' && env -0"],
                env=base,
                check=True,
                capture_output=True,
                text=True,
                timeout=60,
            ).stdout
            kept.write_text(json.dumps(dict(line.split("=", 1) for line in printed.split("\0") if "=" in line)))
    found: dict[str, str] = json.loads(kept.read_text())
    return found


@pytest.fixture
def fault_row(record_property: Callable[[str, object], None]) -> FaultRow:
    """Reports what a fault test did; see tests/support/faultrows.py."""
    return FaultRow(record_property)


def _tally(reporter: pytest.TerminalReporter) -> Tally:
    tally = Tally()
    for kind in ("passed", "failed", "skipped"):
        for report in reporter.getreports(kind):
            if getattr(report, "when", "") in ("call", "setup"):
                tally.add(report.user_properties)
    return tally


def pytest_sessionfinish(session: pytest.Session) -> None:
    """A full run of the fault tests fails when a row stays below its bar."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if FULL and reporter is not None and not hasattr(session.config, "workerinput") and _tally(reporter).shortfalls():
        session.exitstatus = session.exitstatus or pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what passing tests measured (record_property "measured"), also when they ran in other processes."""
    lines = [
        str(value)
        for report in terminalreporter.getreports("passed")
        for name, value in report.user_properties
        if name == "measured"
    ]
    if lines:
        terminalreporter.section("measured")
        for line in lines:
            terminalreporter.write_line(line)
    tally = _tally(terminalreporter)
    if table := tally.table():
        terminalreporter.section("fault matrix" + ("" if FULL else ", a subset"))
        for line in [*table, *(tally.shortfalls() if FULL else ())]:
            terminalreporter.write_line(line)
