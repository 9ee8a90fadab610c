"""The history says who did it: the real user, who called sudo, the host and the version of the tool."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

import pytest

from smallq_deploy import __version__
from smallq_deploy.cli.status import _history_row
from smallq_deploy.operate.mover import rollback, uninstall
from smallq_deploy.store.history import read_history
from tests.support import packages
from tests.support.opp import FAIL, PASS, World


def test_every_entry_names_user_sudo_user_host_and_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("USER", "somebody else")  # an environment can say anything
    world = World(tmp_path).make()
    world.install(world.package("1"))
    monkeypatch.setenv("SUDO_USER", "alice")
    with pytest.raises(Exception, match="wrong numbers"):
        world.install(world.package("2"), smoke=FAIL)
    rollback(world.store, operator=packages.OPERATOR, smoke=lambda: PASS)
    uninstall(world.store)
    lines = read_history(world.store)
    assert [line["sudo_user"] for line in lines] == ["", "alice", "alice", "alice"]
    for line in lines:
        assert line["user"] == pwd.getpwuid(os.getuid()).pw_name
        assert (line["host"], line["version"]) == (os.uname().nodename, __version__)


def test_a_line_of_an_older_version_is_shown_too() -> None:
    old = {"time": "2026-01-01T00:00:00Z", "action": "install", "result": "ok", "live": 1, "user": "root", "host": "n1"}
    assert _history_row(old) == ("2026-01-01T00:00:00Z", "install", "ok", "generation 1", "root@n1", "")
    assert _history_row({**old, "sudo_user": "alice"})[4] == "alice as root@n1"
