"""A login user and a real sudo: the users and their rights exist in one mount namespace, only for that host's sshd."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from smallq_deploy.fleet.engines.openssh import OpenSshTransport
from smallq_deploy.fleet.engines.pyinfra_ssh import PyinfraTransport
from smallq_deploy.fleet.node import PLACE, read_answer
from smallq_deploy.fleet.transport import Outcome, State, Task, Transport, Upload
from tests.support import sshd

_UID = 61234
_USERS = {"mayroot": _UID, "maynot": _UID + 1}
_INSIDE = 'for name in passwd shadow group sudoers; do mount --bind "$0/$name" "/etc/$name" || exit 1; done; exec "$@"'


@pytest.fixture(scope="module")
def server() -> Iterator[sshd.Server]:
    """A host on which two users may log in, and one of them may become root."""
    if os.geteuid() != 0 or not sshd.sshd_path() or shutil.which("sudo") is None or shutil.which("unshare") is None:
        pytest.skip("needs root, sshd, sudo and unshare: `.ci/setup dev` installs them")
    with tempfile.TemporaryDirectory(prefix="sudo-host-") as made:
        directory = Path(made)
        directory.chmod(0o755)  # its users are neither root nor we
        etc = directory / "etc"
        etc.mkdir()
        for name, line in (("passwd", "{user}:x:{uid}:{uid}::{home}:/bin/sh\n"), ("shadow", "{user}:*:19000::::::\n"),
                           ("group", "{user}:x:{uid}:\n")):  # fmt: skip
            shutil.copy(f"/etc/{name}", etc / name)
            with open(etc / name, "a") as stream:
                for user, uid in _USERS.items():
                    stream.write(line.format(user=user, uid=uid, home=directory / user))
        (etc / "sudoers").write_text("root ALL=(ALL:ALL) ALL\nmayroot ALL=(ALL) NOPASSWD: ALL\nmaynot ALL=(ALL) ALL\n")
        (etc / "sudoers").chmod(0o440)
        for user, uid in _USERS.items():
            (directory / user).mkdir()
            os.chown(directory / user, uid, uid)
        farm = sshd.new_farm(directory / "farm")
        try:
            prefix = ["unshare", "-m", "sh", "-c", _INSIDE, str(etc)]
            server = sshd.add_server(
                farm, "s1", "127.0.0.1", sshd.free_ports(1)[0], prefix=prefix, user="mayroot", set_home=False
            )
            sshd.wait_for([server])
            yield server
        finally:
            sshd.stop(farm)


@pytest.fixture(scope="module", params=[PyinfraTransport, OpenSshTransport], ids=["pyinfra", "openssh"])
def engine(request: pytest.FixtureRequest) -> Iterator[Transport]:
    made: Transport = request.param()
    yield made
    made.close()


def _run(engine: Transport, task: Task) -> Outcome:
    found: list[Outcome] = []
    engine.run([task], found.append)
    (outcome,) = found
    return outcome


def test_the_command_is_roots_and_the_files_are_the_login_users(
    server: sshd.Server, engine: Transport, tmp_path: Path
) -> None:
    path = tmp_path / "tool"
    path.write_text('echo "$(id -un) $SMALLQ_FLEET_HOME"\n')
    upload = Upload(path, hashlib.sha256(path.read_bytes()).hexdigest(), "tool.pyz")
    command = f'sh "$SMALLQ_FLEET_HOME/{PLACE}/tool.pyz"; exit 4'
    outcome = _run(engine, Task(replace(server.host, sudo=True), command, (upload,)))
    home = server.directory.parent.parent / "mayroot"
    assert (outcome.state, outcome.exit_status, outcome.stdout) == (State.DONE, 4, f"root {home}\n"), outcome
    assert (home / PLACE / "tool.pyz").stat().st_uid == _UID
    assert _run(engine, Task(server.host, "id -un")).stdout == "mayroot\n"


def test_a_hang_of_root_is_ended_there_too(server: sshd.Server, engine: Transport) -> None:
    outcome = _run(engine, Task(replace(server.host, sudo=True), "exec sleep 61.234", timeout=8.0))
    assert outcome.state is State.TIMED_OUT
    assert (
        _run(
            engine,
            Task(
                server.host,
                "for i in 1 2 3 4 5 6 7 8 9; do pgrep -f 'sleep 61.23[4]' >/dev/null || exec echo gone; sleep 1; done",
            ),
        ).stdout
        == "gone\n"
    )


def test_a_user_whom_sudo_asks_for_a_password_is_an_answer(server: sshd.Server, engine: Transport) -> None:
    host = replace(server.host, user="maynot", sudo=True)
    outcome = _run(engine, Task(host, "id -un"))
    answer = read_answer(host, outcome)
    assert (answer.code, answer.asked, outcome.stdout) == ("NO_SUDO", False, ""), outcome
