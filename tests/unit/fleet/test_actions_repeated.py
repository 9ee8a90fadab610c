"""A change that is run once more, because nobody knows how the first attempt ended, must not go further than one."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from smallq_deploy.fleet.bundles import NodeBundle
from smallq_deploy.fleet.hosts import Host
from smallq_deploy.fleet.rollout import actions
from smallq_deploy.fleet.transport import Outcome, State

HOST = Host("n1")
BUNDLE = NodeBundle(Path("bundle.pyz"), "0" * 64, cast(Any, SimpleNamespace(packages=(), runtimes=())))


def _planned(**data: object) -> Outcome:
    document = {
        "schema_version": 1,
        "command": "rollback",
        "exit_status": 0,
        "data": data,
        "warnings": [],
        "errors": [],
    }
    return Outcome("n1", State.DONE, 0, json.dumps(document))


def test_a_rollback_goes_where_its_plan_said() -> None:
    action = actions.rollback(BUNDLE, (), 60)
    verdict = action.judge_plan(HOST, _planned(decision="planned", **{"from": 3, "to": 2}))
    assert verdict.ok and verdict.changed
    (task,) = action.tasks([HOST], {"n1": verdict.data})
    assert "rollback --yes --to 2 --json" in task.command


def test_a_rollback_to_a_number_keeps_it() -> None:
    action = actions.rollback(BUNDLE, ("--to", "1"), 60)
    (task,) = action.tasks([HOST], {"n1": {"to": 2}})
    assert "rollback --yes --to 1 --json" in task.command


def test_an_install_needs_no_number() -> None:
    (task,) = actions.install(BUNDLE, (), 60).tasks([HOST], {"n1": {"to": 2}})
    assert "install --yes --json" in task.command
