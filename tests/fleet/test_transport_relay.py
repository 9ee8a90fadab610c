"""Relays on real hosts, with the real bundle: a file is sent to the relay once, and its hosts answer through it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace

import pytest

from smallq_deploy.fleet.bundles import NodeBundle, tool_bundle
from smallq_deploy.fleet.engines.pyinfra_ssh import PyinfraTransport
from smallq_deploy.fleet.engines.relay import RelayTransport, run_relay
from smallq_deploy.fleet.node import PLACE, command_for, read_answer
from smallq_deploy.fleet.transport import Outcome, State, Task
from smallq_deploy.package.releases import load_release
from tests.conftest import CHECKOUT
from tests.support import sshd


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeBundle]:
    """The tool alone."""
    (manifest,) = (CHECKOUT / "manifests" / "releases").glob("*.yaml")
    before = os.environ.get("XDG_DATA_HOME")
    os.environ["XDG_DATA_HOME"] = str(tmp_path_factory.mktemp("data"))
    try:
        yield tool_bundle(load_release(manifest))
    finally:
        os.environ.pop("XDG_DATA_HOME") if before is None else os.environ.__setitem__("XDG_DATA_HOME", before)


class _Counting:
    """The engine below, and what went through it."""

    def __init__(self) -> None:
        self.inner = PyinfraTransport()
        self.outcomes: list[Outcome] = []

    def run(self, tasks, on_outcome, stop=None):  # type: ignore[no-untyped-def]
        self.inner.run(tasks, lambda outcome: (self.outcomes.append(outcome), on_outcome(outcome)), stop)

    def close(self) -> None:
        self.inner.close()


def _run(tasks: list[Task], hosts: sshd.Farm) -> tuple[dict[str, Outcome], list[Outcome]]:
    counting, found = _Counting(), dict[str, Outcome]()
    engine = RelayTransport(counting, hosts.hosts)
    try:
        engine.run(tasks, lambda outcome: found.__setitem__(outcome.host, outcome))
    finally:
        engine.close()
    assert sorted(found) == sorted(task.host.name for task in tasks)
    return found, counting.outcomes


def test_hosts_behind_a_relay_get_the_bundle_from_it_and_answer(farm: sshd.Farm, bundle: NodeBundle) -> None:
    members = [replace(host, relay="n01") for host in farm.hosts[1:5]]
    gone = replace(farm.hosts[5], relay="n01", port=sshd.free_ports(1)[0])
    say = [Task(farm.hosts[0], "echo direct"), Task(gone, "true")]
    command = 'echo "$HOME"; echo told >&2; exit 3'
    tasks = [*say, *(Task(host, command, (bundle.upload,), 60) for host in members)]
    found, below = _run(tasks, farm)
    assert found["n01"].stdout == "direct\n"
    assert found["n06"].state is State.UNREACHABLE and "refused" in found["n06"].error.lower()
    for server in farm.servers[1:5]:
        outcome = found[server.name]
        assert (outcome.state, outcome.exit_status, outcome.uploaded) == (State.DONE, 3, 1), outcome
        assert (outcome.stdout, outcome.stderr) == (f"{server.home}\n", "told\n")
        assert (server.home / PLACE / bundle.name).stat().st_size == bundle.path.stat().st_size
    assert [item.uploaded for item in below if "relay" in item.host] == [2]  # the bundle and the tasks
    again, below = _run(tasks, farm)
    assert {again[host.name].uploaded for host in members} == {0}
    assert [item.uploaded for item in below if "relay" in item.host] == [0]


def test_the_tool_itself_answers_through_a_relay(farm: sshd.Farm, bundle: NodeBundle) -> None:
    host = replace(farm.hosts[7], relay="n01")
    found, _ = _run([Task(host, command_for(host, bundle.name, ["facts"]), (bundle.upload,), 60)], farm)
    answer = read_answer(host, found["n08"])
    assert answer.asked, answer
    assert answer.data


def test_a_relay_that_is_away_is_named_by_all_its_hosts(farm: sshd.Farm, bundle: NodeBundle) -> None:
    away = replace(farm.hosts[0], name="rack7", port=sshd.free_ports(1)[0])
    counting, found = _Counting(), dict[str, Outcome]()
    engine = RelayTransport(counting, [away])
    members = [replace(host, relay="rack7") for host in farm.hosts[1:4]]
    tasks = [Task(host, "true", (bundle.upload,)) for host in members]
    engine.run(tasks, lambda outcome: found.__setitem__(outcome.host, outcome))
    engine.close()
    assert {item.state for item in found.values()} == {State.UNREACHABLE}
    assert all(item.error.startswith("relay rack7: ") and "refused" in item.error for item in found.values())


def test_a_relay_that_is_cut_off_leaves_its_hosts_unknown_not_untouched(
    one_host: sshd.Farm, bundle: NodeBundle
) -> None:
    relay = one_host[0]
    host = replace(relay.host, name="n02", relay="n01")
    kill = f"touch {relay.root}/begun; kill -9 $(cat /proc/{relay.pid}/task/{relay.pid}/children); sleep 20"
    found, _ = _run([Task(host, kill, (bundle.upload,), 30)], one_host)
    assert (relay.root / "begun").exists()
    assert found["n02"].state is State.LOST
    assert found["n02"].error.startswith("relay n01: ")


def test_a_document_that_is_none_is_refused() -> None:
    for document in ({}, {"schema_version": 2, "tasks": []}, {"schema_version": 1, "tasks": [{}]}):
        with pytest.raises((ValueError, KeyError, TypeError)):
            run_relay(document)
