"""Relays: a host that repeats uploads and commands for the hosts behind it, so that a file is sent once a rack.

The relay runs the bundle it was sent, with the hidden command ``fleet relay`` and a file of tasks, and reaches hosts
with its own `ssh`, keys and known hosts.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import tempfile
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from smallq_deploy.fleet.engines.openssh import PARALLEL, OpenSshTransport
from smallq_deploy.fleet.engines.remote import Trouble, failed, skipped
from smallq_deploy.fleet.hosts import Host
from smallq_deploy.fleet.node import PLACE, command_for, read_answer
from smallq_deploy.fleet.transport import Outcome, State, Task, Transport, Upload

_SLACK = 120.0  # seconds a relay may take besides its hosts' own times: uploads, starting
_NOT_BEGUN = frozenset({State.UNREACHABLE, State.REFUSED, State.UPLOAD_FAILED})
_NO_TOOL = frozenset({"NO_PYTHON", "PYTHON_TOO_OLD"})
_SCHEMA = 1


class RelayTransport:
    """``inner``, with hosts that have a relay reached through it.

    ``hosts`` says how relays are reached; one that is neither there nor among the tasks is reached as its hosts are, by
    its name. A relay is a host of its own besides: its own tasks go there directly.
    """

    def __init__(self, inner: Transport, hosts: Iterable[Host] = ()) -> None:
        self._inner = inner
        self._hosts = {host.name: host for host in hosts}
        self._bundle: Upload | None = None

    def close(self) -> None:
        """See Transport."""
        self._inner.close()

    def run(
        self, tasks: Sequence[Task], on_outcome: Callable[[Outcome], None], stop: threading.Event | None = None
    ) -> None:
        """See Transport. The outcomes of a relay's hosts come together, when the last of them has ended."""
        for task in tasks:
            self._hosts.setdefault(task.host.name, task.host)
            self._bundle = next((item for item in task.uploads if item.name.endswith(".pyz")), self._bundle)
        direct: list[Task] = []
        groups: dict[str, list[Task]] = {}
        for task in tasks:
            if task.host.relay in ("", task.host.name):
                direct.append(task)
            else:
                groups.setdefault(task.host.relay, []).append(task)
        if groups and self._bundle is None:
            for task in (task for group in groups.values() for task in group):
                on_outcome(failed(task, Trouble(State.UNREACHABLE, f"relay {task.host.relay}: no bundle to run there")))
            groups = {}
        with tempfile.TemporaryDirectory(prefix="smallq-fleet-") as work:
            carried = {}
            for relay, members in groups.items():
                carrier = self._carrier(relay, members, Path(work))
                carried[carrier.host.name] = members
                direct.append(carrier)

            def sort(outcome: Outcome) -> None:
                members = carried.get(outcome.host)
                if members is None:
                    on_outcome(outcome)
                    return
                for each in _unpacked(members, outcome):
                    on_outcome(each)

            self._inner.run(direct, sort, stop)

    def _carrier(self, relay: str, members: Sequence[Task], work: Path) -> Task:
        """The one task of a relay: its hosts' uploads, their tasks as a file, the command that runs these."""
        assert self._bundle is not None
        uploads = {item.name: item for item in (self._bundle, *(item for task in members for item in task.uploads))}
        document = {"schema_version": _SCHEMA, "tasks": [_carried(task) for task in members]}
        content = json.dumps(document, sort_keys=True).encode()
        digest = hashlib.sha256(content).hexdigest()
        path = work / f"relay-{digest[:24]}.json"
        path.write_bytes(content)
        uploads[path.name] = Upload(path, digest, path.name)
        host = self._hosts.get(relay) or replace(members[0].host, address=relay, port=0, python="")
        # As the login user, whose keys they are; what belongs to a host's own commands stays with these.
        host = replace(host, name=f"{relay} (relay)", sudo=False, cann="", opp="", vendor="", relay="")
        words = ("fleet", "relay", f"{PLACE}/{path.name}")
        command = f'cd "$HOME" || exit 1\n{command_for(host, self._bundle.name, words)}'
        turns = math.ceil(len(members) / PARALLEL)
        return Task(host, command, tuple(uploads.values()), max(task.timeout for task in members) * turns + _SLACK)


def run_relay(document: Mapping[str, Any]) -> dict[str, Any]:
    """What the relay does: the tasks of a file that the controller sent; ``{"outcomes": [...]}``.

    Raises ValueError, KeyError, TypeError where the document is not one.
    """
    if document["schema_version"] != _SCHEMA:
        raise ValueError(f"schema_version is {document['schema_version']!r}, this version knows {_SCHEMA}")
    place = Path(os.environ.get("SMALLQ_FLEET_HOME") or Path.home(), PLACE)
    tasks = []
    for record in document["tasks"]:
        task = Task.from_dict(record)
        uploads = tuple(replace(item, path=place / Path(item.name).name) for item in task.uploads)
        tasks.append(replace(task, uploads=uploads, host=_seen_from_here(task.host)))
    outcomes: list[Outcome] = []
    OpenSshTransport().run(tasks, outcomes.append)
    return {"outcomes": [outcome.to_dict() for outcome in outcomes]}


def _carried(task: Task) -> dict[str, Any]:
    return replace(task, host=replace(task.host, relay="")).to_dict()


def _seen_from_here(host: Host) -> Host:
    """Keys and known hosts are named as the inventory has them; where there is no such file here, our own count."""
    return replace(
        host,
        key=host.key if os.path.isfile(host.key) else "",
        known_hosts=host.known_hosts if os.path.isfile(host.known_hosts) else "",
    )


def _unpacked(members: Sequence[Task], outcome: Outcome) -> list[Outcome]:
    """The outcomes of a relay's hosts from that of the relay's task; where it failed, theirs names it."""
    relay = members[0].host.relay
    if outcome.state is State.SKIPPED:
        return [skipped(task) for task in members]
    host = replace(members[0].host, name=relay)
    answer = read_answer(host, outcome)
    found: dict[str, Outcome] = {}
    state, text = State.LOST, f"relay {relay}: it said nothing about this host"
    if answer.ok:
        try:
            found = {each.host: each for each in map(Outcome.from_dict, answer.data["outcomes"])}
        except (KeyError, TypeError, ValueError) as error:
            text = f"relay {relay}: its answer cannot be read: {error}"
    else:
        # Without an answer from a relay that was asked, its hosts may have done all or nothing.
        begun = outcome.state not in _NOT_BEGUN and answer.code not in _NO_TOOL and not answer.asked
        state, text = (State.LOST if begun else State.UNREACHABLE), f"relay {relay}: {answer.message}"
    return [found.get(task.host.name) or failed(task, Trouble(state, text)) for task in members]
