"""``fleet rollback --run``: where each host goes back to, also where the first answer of a host was lost."""

from __future__ import annotations

import pytest

from smallq_deploy.cli.fleet_change import _before
from smallq_deploy.fleet.hosts import Host
from smallq_deploy.fleet.rollout.ledger import Header, Ledger
from smallq_deploy.fleet.rollout.policy import Policy
from smallq_deploy.fleet.rollout.runs import fleet_folder, new_run_id
from smallq_deploy.fleet.rollout.waves import Begun, Closed, Ended, Kind

NAMES = ("told", "asked-twice", "no-number", "unchanged", "undone", "unknown")


@pytest.fixture
def run() -> str:
    """A run that ended, with a host of each sort."""
    name = new_run_id()
    hosts = tuple(Host(name=host) for host in NAMES)
    header = Header(name, "install", "hosts", "d" * 32, hosts, Policy(), {"live": {"told": 7, "asked-twice": 4}})
    with Ledger.create(fleet_folder("hosts", "d" * 32), header) as ledger:
        for host in NAMES:
            ledger.append(Ended(Kind.PLAN, host, True, changed=host != "unchanged"))
        changing = tuple(host for host in NAMES if host != "unchanged")
        ledger.append(Begun(Kind.CHANGE, changing, 1))
        ledger.append(Begun(Kind.CHANGE, ("asked-twice", "no-number"), 1))  # a killed controller's successor
        ledger.append(Ended(Kind.CHANGE, "told", True, changed=True, data={"before": 3, "live": 8}))
        for host in ("asked-twice", "no-number"):
            ledger.append(Ended(Kind.CHANGE, host, True, changed=False, data={"decision": "nothing"}))
        ledger.append(Ended(Kind.CHANGE, "undone", True, changed=True, data={"before": 1}))
        ledger.append(Ended(Kind.UNDO, "undone", True, changed=True))
        ledger.append(Ended(Kind.CHANGE, "unknown", False, changed=None, code="HOST_LOST"))
        ledger.append(Closed("stopped"))
    return name


def test_each_host_goes_back_to_what_it_had(run: str) -> None:
    assert _before(run) == {"told": ("--to", "3"), "asked-twice": ("--to", "4"), "no-number": ()}
