"""On a terminal: the plan is shown, the question is asked, no means no; steps and colours appear."""

from __future__ import annotations

import os
import pty
import select
import sys
import time
from pathlib import Path

import pytest

from smallq_deploy.base.fsops import tree_digest
from tests.conftest import CHECKOUT
from tests.support.packages import make_run, make_vendor_tree
from tests.support.toolkits import make_new


def typed(arguments: list[str | Path], answer: str, *, question: str = "[y/N]") -> tuple[int, str]:
    """Run a command on a terminal of its own and type ``answer`` at the question: (exit status, what was shown)."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(CHECKOUT)
        os.environ["TERM"] = "xterm"
        os.execv(sys.executable, [sys.executable, "-m", "smallq_deploy", *map(str, arguments)])
    shown = b""
    answered = False
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        ready, _, _ = select.select([terminal], [], [], 1)
        if not ready:
            continue
        try:
            data = os.read(terminal, 65536)
        except OSError:  # the other side has closed
            break
        if not data:
            break
        shown += data
        if not answered and question.encode() in shown:
            os.write(terminal, answer.encode())
            answered = True
    _, status = os.waitpid(pid, 0)
    os.close(terminal)
    return os.waitstatus_to_exitcode(status), shown.decode("utf-8", "replace")


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """An installation root with a toolkit that cannot run anything."""
    make_new(tmp_path / "Ascend", remark="simulated toolkit")
    return tmp_path / "Ascend"


@pytest.mark.parametrize("answer", ["n\n", "\n"])
def test_no_changes_nothing(machine: Path, tmp_path: Path, answer: str) -> None:
    package = make_run(tmp_path / "op.run")
    before = tree_digest(machine)
    status, shown = typed(["install", package, "--no-smoke", "--cann", machine], answer)
    assert status == 130
    assert "plan: install" in shown and "install it?" in shown
    assert "[DECLINED]" in shown
    assert tree_digest(machine) == before


def test_yes_installs(machine: Path, tmp_path: Path) -> None:
    package = make_run(tmp_path / "op.run")
    status, shown = typed(["install", package, "--no-smoke", "--cann", machine], "y\n")
    assert status == 0, shown
    assert "[simulated toolkit]" in shown
    assert "installed smallq-flash-attention" in shown
    assert (machine / "cann-8.5.0" / "opp" / "vendors" / "customize" / "op_api").is_dir()
    status, shown = typed(["uninstall", "--cann", machine], "y\n")
    assert status == 0, shown


def test_yes_option_asks_nothing(machine: Path, tmp_path: Path) -> None:
    package = make_run(tmp_path / "op.run")
    status, shown = typed(["install", package, "--no-smoke", "--yes", "--cann", machine], "n\n")
    assert status == 0, shown
    assert "[y/N]" not in shown


def test_repair_shows_what_it_found(machine: Path) -> None:
    live = machine / "cann-8.5.0" / "opp" / "vendors" / "customize"
    make_vendor_tree(live, layout="nested")
    before = tree_digest(live)
    status, shown = typed(["repair", "--no-smoke", "--cann", machine], "n\n")
    assert status == 130
    assert "[NESTED_LAYOUT]" in shown
    assert tree_digest(live) == before


def test_no_color(machine: Path) -> None:
    _, coloured = typed(["rollback", "--cann", machine], "")
    _, plain = typed(["rollback", "--no-color", "--cann", machine], "")
    assert "\x1b[" in coloured and "NOTHING_TO_ROLL_BACK" in coloured
    assert "\x1b[" not in plain and "NOTHING_TO_ROLL_BACK" in plain
