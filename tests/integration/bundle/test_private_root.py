"""A user without any rights installs into a directory of their own, and programs find it there."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from smallq_deploy.base.fsops import remove_tree, tree_digest
from tests.cli.support import checked, smallq

NOBODY = 65534
AS_NOBODY = [
    "setpriv",
    f"--reuid={NOBODY}",
    f"--regid={NOBODY}",
    "--clear-groups",
    "env",
]  # env: started with no rights left


@pytest.fixture(scope="module")
def interpreter() -> str:
    """A Python that this user, or as root user 65534, may start."""
    prefix = AS_NOBODY if os.geteuid() == 0 else []
    for path in (os.path.realpath(sys.executable), "/usr/bin/python3"):
        script = "import sys; sys.exit(sys.version_info < (3, 10))"
        try:
            if subprocess.run([*prefix, path, "-I", "-c", script], capture_output=True).returncode == 0:
                return path
        except OSError:
            continue
    pytest.skip("NO TEST AS ANOTHER USER: no Python that user 65534 may start")


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory everybody can reach; pytest's own is for its user only."""
    path = Path(tempfile.mkdtemp(prefix="smallq-private-", dir="/tmp"))
    path.chmod(0o755)
    yield path
    remove_tree(path)


def test_a_user_without_rights(bundle_file: Path, interpreter: str, place: Path) -> None:
    from smallq_deploy.sandbox.create import create

    root = place / "ascend"
    create(root)
    subprocess.run(["chmod", "-R", "a+rX", root], check=True)  # as installed with --install-for-all
    bundle = Path(shutil.copy(bundle_file, place))
    home = place / "home"
    home.mkdir()
    prefix: list[str] = []
    if os.geteuid() == 0:
        os.chown(home, NOBODY, NOBODY)
        prefix = AS_NOBODY
    else:
        subprocess.run(["chmod", "-R", "a-w", root], check=True)
    untouched = tree_digest(root)

    def run(*arguments: str | Path, env: dict[str, str] | None = None) -> dict[str, object]:
        done = subprocess.run(
            [*prefix, interpreter, "-I", str(bundle), *map(str, arguments)],
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": str(home), **(env or {})},
            cwd=home,
            capture_output=True,
            text=True,
            timeout=200,
            stdin=subprocess.DEVNULL,
        )
        assert "Traceback" not in done.stderr, done.stderr
        found = json.loads(done.stdout)
        assert isinstance(found, dict)
        return found

    cann = ("--cann", root, "--json")
    refused = run("install", *cann)
    assert refused["exit_status"] == 14
    assert "NO_PERMISSION" in json.dumps(refused["errors"])

    opp = home / "smallq"
    subprocess.run([*prefix, "mkdir", opp], check=True)
    own = ("--opp", opp, *cann)
    installed = run("install", *own)
    assert installed["exit_status"] == 0, installed
    change = installed["data"]["change"]  # type: ignore[index]
    assert change["smoke"]["verdict"] == "pass"
    live = opp / "vendors" / "customize"
    assert live.stat().st_uid == (NOBODY if os.geteuid() == 0 else os.geteuid())
    status = run("status", *own)["data"]
    assert status["live"]["state"] == "current"  # type: ignore[index]
    assert status["current"]["proven"] is True  # type: ignore[index]

    # A new shell of this user, with what `env` prints: the runtime gets the operator from the private root alone.
    lines = run("env", *own)["data"]["lines"]  # type: ignore[index]
    assert f"export ASCEND_CUSTOM_OPP_PATH={live}" in lines
    assert not any(line.startswith("export ASCEND_OPP_PATH") for line in lines)
    script = "set -eu\n" + "\n".join(lines) + '\nprintf "%s\\n" "$ASCEND_CUSTOM_OPP_PATH" "$ASCEND_OPP_PATH"\n'
    shell = subprocess.run([*prefix, "bash", "-c", script], capture_output=True, text=True, env={"HOME": str(home)})
    assert shell.stdout.splitlines() == [str(live), str(root / "cann-8.5.0" / "opp")], shell.stderr
    again = run("env", *own, env={"ASCEND_CUSTOM_OPP_PATH": str(live)})["data"]
    assert again["lines"] == lines  # type: ignore[index]
    assert again["left_out"] == []  # type: ignore[index]

    assert run("smoke", *own)["exit_status"] == 0
    assert run("verify", *own)["exit_status"] == 0
    assert run("uninstall", *own)["exit_status"] == 0
    assert run("rollback", *own)["data"]["change"]["smoke"]["verdict"] == "pass"  # type: ignore[index]
    assert tree_digest(root) == untouched


def test_without_its_variable_the_private_root_is_not_found(
    operator_package: Path, simulated_toolkit: Path, tmp_path: Path
) -> None:
    """What the smoke test would say if the directory were not on ASCEND_CUSTOM_OPP_PATH: it must be a failure."""
    opp = tmp_path / "opp"
    opp.mkdir()
    own = ("--opp", opp, "--cann", simulated_toolkit, "--json")
    checked(smallq("install", operator_package, *own), "install")
    (opp / "vendors" / "config.ini").write_text("load_priority=other\n")
    ran = smallq("smoke", *own)
    assert ran.status == 9
    assert "does not name customize" in ran.document["errors"][0]["message"]
