"""The command line itself: version, help, usage errors, what is imported."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from smallq_deploy import __version__
from smallq_deploy.cli.main import _COMMANDS
from tests.cli.support import checked, smallq, validate
from tests.conftest import CHECKOUT
from tests.docs.generate import commands

HEAVY = {"requests", "rich", "yaml", "elftools", "jinja2", "pyinfra", "gevent", "selenium"}
COMMANDS = [name for name, _ in commands()]


def imported(*arguments: str) -> set[str]:
    """Top-level modules that a command line imports."""
    code = (
        "import sys, json, io, contextlib\n"
        "from smallq_deploy.cli.main import run\n"
        "with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):\n"
        f"    run({list(arguments)!r})\n"
        "print(json.dumps(sorted(name for name in sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=CHECKOUT, check=True)
    return {name.partition(".")[0] for name in json.loads(done.stdout)}


@pytest.mark.parametrize("arguments", [["--version"], ["--help"], ["detect"], ["status"]])
def test_quick_commands_import_nothing_heavy(arguments: list[str]) -> None:
    assert not imported(*arguments) & HEAVY


def test_version_imports_no_command() -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "smallq_deploy", "--version"],
        capture_output=True,
        text=True,
        cwd=CHECKOUT,
        check=True,
    )
    assert done.stdout == f"smallq-deploy {__version__}\n"
    assert "smallq_deploy.machine" not in done.stderr
    assert "smallq_deploy.store" not in done.stderr
    assert not any(f"| {name}\n" in done.stderr.replace("  ", "") for name in HEAVY)


def test_help_lists_every_command() -> None:
    ran = smallq("--help")
    assert ran.status == 0
    for name in _COMMANDS:
        assert f"\n  {name} " in ran.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_each_command_has_an_example(command: str) -> None:
    ran = smallq(*command.split(), "--help")
    assert ran.status == 0
    assert "Example:\n" in ran.stdout
    assert f"smallq-deploy {command}" in ran.stdout.split("Example:")[1]
    assert "--json" in ran.stdout


def test_no_command_shows_the_help() -> None:
    ran = smallq()
    assert ran.status == 2
    assert ran.stdout == ""
    assert "Commands:" in ran.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "hint"),
    [
        (["instal"], "NO_SUCH_COMMAND", "smallq-deploy install"),
        (["nonsense"], "NO_SUCH_COMMAND", "--help"),
        (["status", "--nonsense"], "NO_SUCH_OPTION", "smallq-deploy status --help"),
        (["rollback", "--to", "x"], "BAD_VALUE", "smallq-deploy rollback --help"),
        (["sandbox", "create"], "MISSING_PARAMETER", "smallq-deploy sandbox create --help"),
        (["plan", "a.run", "b.run"], "USAGE", "smallq-deploy plan --help"),
        (["sandbox", "nonsense"], "USAGE", "smallq-deploy sandbox --help"),
        ([], "MISSING_COMMAND", "--help"),
        (["--nonsense"], "NO_SUCH_OPTION", "--help"),
    ],
)
def test_usage_errors_are_json_documents_too(arguments: list[str], code: str, hint: str) -> None:
    ran = smallq(*arguments, "--json")
    document = ran.document
    validate(document, "")
    if arguments:  # a bare `--json` is itself an option that the program does not know
        assert ran.codes == [code]
        assert hint in document["errors"][0]["hint"]
    assert ran.status == 2
    text = smallq(*arguments)
    assert text.status == 2
    assert text.stdout == ""
    if arguments:
        assert f"[{code}]" in text.stderr


def test_options_come_from_the_environment(tmp_path: Path) -> None:
    ran = smallq("status", env={"SMALLQ_DEPLOY_JSON": "1", "SMALLQ_DEPLOY_CANN": str(tmp_path / "nowhere")})
    assert ran.status == 3
    assert str(tmp_path / "nowhere") in ran.document["errors"][0]["message"]
    shadowed = smallq("status", "--json", "--cann", tmp_path / "other", env={"SMALLQ_DEPLOY_CANN": str(tmp_path)})
    assert str(tmp_path / "other") in shadowed.document["errors"][0]["message"]


def test_a_bug_is_reported_as_one(tmp_path: Path) -> None:
    code = (
        "import smallq_deploy.machine.environment as e\n"
        "def broken(**values): raise RuntimeError('the sky fell')\n"
        "e.detect_environment = broken\n"
        "import sys\nfrom smallq_deploy.cli.main import run\n"
        "sys.exit(run(sys.argv[1:]))\n"
    )
    argv = [sys.executable, "-c", code, "detect"]
    done = subprocess.run(argv, capture_output=True, text=True, cwd=CHECKOUT)
    assert done.returncode == 1
    assert "the sky fell" in done.stderr and "please report" in done.stderr
    assert "Traceback" not in done.stderr
    assert "Traceback" in subprocess.run([*argv, "-v"], capture_output=True, text=True, cwd=CHECKOUT).stderr


def test_log_file_holds_the_error(tmp_path: Path) -> None:
    log = tmp_path / "logs" / "log"
    ran = smallq("status", "--cann", tmp_path / "nowhere", "--log-file", log)
    assert ran.status == 3
    assert "NOT_A_TOOLKIT" in log.read_text()


def test_log_file_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    ran = smallq("detect", "--json", "--log-file", tmp_path / "file" / "log")
    assert ran.status in (8, 14)
    assert checked(ran, "detect") == {} if ran.document["command"] else True


def test_a_closed_pipe_is_no_error() -> None:
    line = f"{sys.executable} -m smallq_deploy detect | true; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, cwd=CHECKOUT)
    assert done.stdout.strip() == "0"
    assert done.stderr == ""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_with_130(tmp_path: Path, number: signal.Signals) -> None:
    # set_env.sh is where `smoke` waits: a toolkit whose script never ends.
    from tests.support.toolkits import make_new

    home = make_new(tmp_path)
    (home / "set_env.sh").write_text("sleep 60\n")
    (home / "opp" / "vendors").mkdir(exist_ok=True)
    child = subprocess.Popen(
        [sys.executable, "-m", "smallq_deploy", "smoke", "--cann", str(home)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=CHECKOUT,
    )
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        children = Path(f"/proc/{child.pid}/task/{child.pid}/children").read_text().split()
        if children:
            break
        time.sleep(0.05)
    child.send_signal(number)
    _, stderr = child.communicate(timeout=20)
    assert child.returncode == 130
    assert "[INTERRUPTED]" in stderr
    assert "Traceback" not in stderr
