"""An older release does not replace a newer one by accident."""

from __future__ import annotations

from pathlib import Path

import pytest

from smallq_deploy.operate.downgrade import is_older
from smallq_deploy.operate.installer import install
from smallq_deploy.operate.planner import InstallOptions, Plan, make_plan
from smallq_deploy.package.runfile import read_run
from tests.support.opp import PASS, World, environment, release


def planned(world: World, version: str, content: str, *, name: str = "", **options: bool) -> Plan:
    named = release(version=version, **({"name": name} if name else {}))
    run = read_run(world.package(content))
    return make_plan(environment(world.opp), named, world.store, run, InstallOptions(**options))


def test_an_older_release_is_refused_and_can_be_allowed(tmp_path: Path) -> None:
    world = World(tmp_path).make()
    install(planned(world, "0.2.0", "1"), smoke=lambda: PASS)
    for version in ("0.1.0", "0.2.0rc1"):
        plan = planned(world, version, "2")
        assert plan.decision == "refused"
        assert [problem.code for problem in plan.problems] == ["DOWNGRADE"]
        assert "0.2.0" in plan.problems[0].message
        assert "rollback" in plan.problems[0].hint
    for version in ("0.2.0", "0.10.0"):
        assert planned(world, version, "2").decision == "install"
    assert planned(world, "0.1.0", "2", name="another-release").decision == "install"

    allowed = planned(world, "0.1.0", "2", allow_downgrade=True)
    assert allowed.decision == "install"
    assert any("--allow-downgrade" in warning for warning in allowed.warnings)
    report = install(allowed, smoke=lambda: PASS)
    assert report.change is not None and report.change.generation is not None
    assert report.change.generation.flags == {"allow_downgrade": True}
    # The older one is live now: the newer is no downgrade.
    assert planned(world, "0.2.0", "1").decision == "install"


def test_the_first_install_is_never_a_downgrade(tmp_path: Path) -> None:
    assert planned(World(tmp_path).make(), "0.0.1", "1").decision == "install"


@pytest.mark.parametrize(
    ("new", "live", "expected"),
    [
        ("op-0.9.0", "op-0.10.0", True),
        ("op-0.10.0", "op-0.9.0", False),
        ("op-1.0.0rc1", "op-1.0.0", True),
        ("op-1.0.0", "op-1.0.0", False),
        ("op-a-1.0.0", "op-b-2.0.0", False),
        ("op-1.0.0", "", False),
        ("op-1.0.0", "what somebody wrote", False),
    ],
)
def test_order(new: str, live: str, expected: bool) -> None:
    assert is_older(new, live) is expected
