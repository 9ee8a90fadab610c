"""Commands around each host: what they are given, and what becomes of a host whose hook fails."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from smallq_deploy.base.errors import UsageError
from smallq_deploy.fleet.hosts import Host
from smallq_deploy.fleet.rollout.controller import Rollout
from smallq_deploy.fleet.rollout.hooks import Hooks, local_argv, remote_command, run_local
from smallq_deploy.fleet.rollout.ledger import Ledger
from smallq_deploy.fleet.rollout.outcome import Report
from smallq_deploy.fleet.rollout.policy import Policy
from smallq_deploy.fleet.rollout.waves import Ended, Kind, RolloutState
from tests.support.fleetsim import NEW, SimInstall, SimTransport, World, header_of, hosts_of

HOST = Host("n1", "192.0.2.7", groups=("rack1", "all"))
HOSTILE = Host("n1", "; touch x; $(touch x)", groups=("a b",))

_LOGGER = """
import os, sys
log, what, host = sys.argv[1:4]
open(log, "a").write(f"{what} {host} {os.environ['SMALLQ_HOST']} {os.environ['SMALLQ_ACTION']}\\n")
sys.exit(host in sys.argv[4:])
"""


def _hook(tmp_path: Path, what: str, *failing: str) -> str:
    script = tmp_path / "hook.py"
    script.write_text(_LOGGER)
    return f"{sys.executable} {script} {tmp_path / 'log'} {what} {{host}} {' '.join(failing)}"


def _log(tmp_path: Path) -> list[str]:
    return (tmp_path / "log").read_text().splitlines()


def _run(folder: Path, world: World, hooks: Hooks, names: list[str], **policy: str) -> Report:
    hosts = hosts_of(names)
    path = folder / "20261201T000000Z-000000" / "ledger"
    ledger = Ledger.open(path) if path.exists() else Ledger.create(folder, header_of(hosts, Policy.parse(**policy)))  # type: ignore[arg-type]
    with ledger:
        return Rollout(hosts, SimInstall(), SimTransport(world), ledger, hooks=hooks).run()


def test_places_are_filled_in_and_never_become_words_or_commands() -> None:
    assert local_argv("kubectl cordon {host} --note '{group} of {address}' {x y}", HOST) == [
        *("kubectl", "cordon", "n1", "--note", "rack1 of 192.0.2.7", "{x", "y}")
    ]
    assert local_argv("echo {address}", HOSTILE) == ["echo", "; touch x; $(touch x)"]
    assert remote_command("systemctl stop job@{host}; echo {group}", HOST) == "systemctl stop job@n1; echo rack1"
    assert remote_command("echo {address} {group}", HOSTILE) == "echo '; touch x; $(touch x)' 'a b'"


@pytest.mark.parametrize("text", ["drain 'x", "drain {hots}", "'' {host}"])
def test_a_wrong_hook_is_refused_before_anything_runs(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        Hooks(before=text)
    assert caught.value.code == "BAD_HOOK"


def test_a_local_hook_has_its_host_in_the_environment() -> None:
    program = "import json, os; print(json.dumps({**os.environ}), end=''); exit(3)"
    why = run_local(f'{sys.executable} -c "{program}"', HOST, "install", 30)
    assert "ended with exit status 3" in why
    told = json.loads(why[why.rindex(": {") + 2 :])
    expected = {"SMALLQ_HOST": "n1", "SMALLQ_ADDRESS": "192.0.2.7", "SMALLQ_GROUP": "rack1", "SMALLQ_ACTION": "install"}
    assert expected.items() <= told.items()
    assert "command not found" in run_local("no-such-program-anywhere {host}", HOST, "install", 30)
    assert "did not end within" in run_local("sleep 60", HOST, "install", 0.2)
    assert os.environ.get("SMALLQ_HOST") is None


def test_each_host_is_drained_changed_and_put_back(tmp_path: Path) -> None:
    hooks = Hooks(before=_hook(tmp_path, "drain"), after=_hook(tmp_path, "undrain"))
    report = _run(tmp_path, World(), hooks, ["a", "b", "c"])
    assert report.counts == {"changed": 3}
    assert not report.drained
    assert _log(tmp_path)[:2] == ["drain a a install", "undrain a a install"]
    assert sorted(_log(tmp_path)[2:]) == sorted(
        f"{what} {host} {host} install" for what in ("drain", "undrain") for host in "bc"
    )


def test_no_more_hosts_than_a_batch_are_drained_at_once(tmp_path: Path) -> None:
    hosts = hosts_of([f"n{number}" for number in range(20)])
    hooks = Hooks(before=_hook(tmp_path, "drain"), after=_hook(tmp_path, "undrain"))
    with Ledger.create(tmp_path, header_of(hosts, Policy.parse(waves="100%"))) as ledger:
        Rollout(hosts, SimInstall(), SimTransport(World()), ledger, hooks=hooks, batch=4).run()
    out = most = 0
    for line in _log(tmp_path):
        out += 1 if line.startswith("drain") else -1
        most = max(most, out)
    assert (out, most) == (0, 4)


def test_a_host_that_cannot_be_drained_is_not_touched_and_put_back(tmp_path: Path) -> None:
    world = World()
    hooks = Hooks(before=_hook(tmp_path, "drain", "b"), after=_hook(tmp_path, "undrain"))
    report = _run(tmp_path, world, hooks, ["a", "b", "c"], max_fail="1")
    assert world.runs("install") == {"a": 1, "c": 1}
    assert report.counts == {"failed": 1, "changed": 2}
    assert report.failed[0].code == "DRAIN_FAILED"
    assert "undrain b b install" in _log(tmp_path)
    assert not report.drained


def test_a_host_whose_change_failed_stays_drained(tmp_path: Path) -> None:
    hooks = Hooks(before=_hook(tmp_path, "drain"), after=_hook(tmp_path, "undrain"))
    report = _run(tmp_path, World({"b": "fails"}), hooks, ["a", "b", "c"], max_fail="1")
    assert report.drained == ("b",)
    assert report.to_dict()["drained"] == ["b"]
    assert "undrain b b install" not in _log(tmp_path)


def test_a_host_that_cannot_be_put_back_counts_and_is_named(tmp_path: Path) -> None:
    hooks = Hooks(before=_hook(tmp_path, "drain"), after=_hook(tmp_path, "undrain", "a"))
    world = World()
    report = _run(tmp_path, world, hooks, ["a", "b"], on_fail="stop")
    assert report.result == "stopped"
    assert world.runs("install") == {"a": 1}
    assert report.drained == ("a",)
    assert (report.hosts[0].status, report.hosts[0].code, report.hosts[0].ok) == ("changed", "UNDRAIN_FAILED", False)


def test_the_way_back_is_drained_too(tmp_path: Path) -> None:
    hooks = Hooks(before=_hook(tmp_path, "drain"), after=_hook(tmp_path, "undrain"))
    report = _run(tmp_path, World({"c": "fails"}), hooks, ["a", "b", "c"], waves="1,100%", on_fail="rollback-all")
    assert report.counts == {"failed": 1, "undone": 2}
    for host in "ab":
        words = [line.split()[0] for line in _log(tmp_path) if line.split()[1] == host]
        assert words == ["drain", "undrain", "drain", "undrain"]
    assert report.drained == ("c",)


def test_remote_hooks_run_on_the_host(tmp_path: Path) -> None:
    world = World({"b": "sh:hook"})
    report = _run(tmp_path, world, Hooks(remote_before="sh /opt/drain {host}"), ["a", "b"], max_fail="1")
    assert report.counts == {"failed": 1, "changed": 1}
    assert "exit status 1: no" in report.failed[0].message
    assert world.runs("install") == {"a": 1}


def test_hosts_whose_turn_did_not_come_are_put_back(tmp_path: Path) -> None:
    names = list("abcdef")
    hooks = Hooks(before=_hook(tmp_path, "drain"), after=_hook(tmp_path, "undrain"))
    report = _run(tmp_path, World({"b": "fails"}), hooks, names, waves="100%", on_fail="stop")
    assert report.counts == {"failed": 1, "not-run": 4, "changed": 1}
    assert report.drained == ("b",)
    assert {line.split()[1] for line in _log(tmp_path) if line.startswith("undrain")} == set("acdef")


def test_no_further_batch_is_drained_after_too_many_failures(tmp_path: Path) -> None:
    hosts = hosts_of(list("abcdef"))
    hooks = Hooks(before=_hook(tmp_path, "drain"), after=_hook(tmp_path, "undrain"))
    with Ledger.create(tmp_path, header_of(hosts, Policy.parse(waves="100%", on_fail="stop"))) as ledger:
        Rollout(hosts, SimInstall(), SimTransport(World({"b": "fails"})), ledger, hooks=hooks, batch=2).run()
    assert {line.split()[1] for line in _log(tmp_path)} == {"a", "b"}


def test_a_controller_killed_before_a_host_was_put_back(tmp_path: Path) -> None:
    class Killed(BaseException):
        pass

    def watch(event: object, state: RolloutState) -> None:
        if isinstance(event, Ended) and event.kind is Kind.CHANGE and event.host == "b":
            raise Killed

    hosts, world = hosts_of(["a", "b", "c"]), World()
    hooks = Hooks(before=_hook(tmp_path, "drain"), after=_hook(tmp_path, "undrain"))
    with Ledger.create(tmp_path, header_of(hosts, Policy.parse(waves="100%"))) as ledger, pytest.raises(Killed):
        Rollout(hosts, SimInstall(), SimTransport(world), ledger, hooks=hooks, watch=watch).run()
    assert not [line for line in _log(tmp_path) if line.startswith("undrain")]
    report = _run(tmp_path, world, hooks, ["a", "b", "c"])
    assert report.counts == {"changed": 3}
    assert not report.drained
    assert {line.split()[1] for line in _log(tmp_path) if line.startswith("undrain")} == set("abc")
    assert world.runs("install") == {"a": 1, "b": 1, "c": 1}
    assert all(world.has(name) == NEW for name in "abc")
