"""What the compatibility data make of a plan: refused, accepted and recorded, or told."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from smallq_deploy.machine.environment import Environment
from smallq_deploy.operate.planner import InstallOptions, Plan, make_plan
from smallq_deploy.package.compat import user_manifests
from smallq_deploy.package.runfile import read_run
from smallq_deploy.package.selection import Rejection
from smallq_deploy.store.generations import load_generation
from tests.support import packages
from tests.support.opp import World, environment, release


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path).make()


def planned(world: World, machine: Environment, **options: Any) -> Plan:
    return make_plan(machine, release(), world.store, read_run(world.package("1")), InstallOptions(**options))


def codes(plan: Plan) -> list[str]:
    return [problem.code for problem in plan.problems]


def with_driver(machine: Environment, driver: str) -> Environment:
    return replace(machine, devices=replace(machine.devices, driver=driver))


def write_compat(text: str) -> None:
    folder = user_manifests() / "compat"
    folder.mkdir(parents=True)
    (folder / "mine.yaml").write_text("schema: 1\n" + text)


def test_a_beta_is_refused_with_the_reason_and_taken_when_allowed(world: World) -> None:
    beta = environment(world.opp, version="8.5.0-beta.1")
    refused = planned(world, beta)
    assert codes(refused) == ["CANN_PRERELEASE"]
    assert "8.5.0-beta.1 is a pre-release of 8.5.0" in refused.reasons[0]
    assert codes(planned(world, beta, allow_untested=True)) == ["CANN_PRERELEASE"]
    taken = planned(world, beta, allow_prerelease=True)
    assert taken.decision == "install"
    assert any("taken as the 8.5.0 it leads to" in text for text in taken.warnings)
    assert taken.options.recorded == {"allow_prerelease": True}


def test_the_generation_records_that_a_pre_release_was_allowed(world: World) -> None:
    world.install(world.package("1"), allow_prerelease=True)
    assert load_generation(world.store, 2).flags == {"allow_prerelease": True}


def test_a_cann_nobody_tested(world: World) -> None:
    later = environment(world.opp, version="8.9.0")
    assert codes(planned(world, later)) == ["UNTESTED_CANN"]
    lifted = planned(world, later, allow_untested=True)
    assert lifted.decision == "install"
    assert any(text.startswith("--allow-untested: ") and "8.9.0" in text for text in lifted.warnings)
    assert lifted.to_dict()["compatibility"]["tested"] is None
    assert codes(planned(world, environment(world.opp, version="8.9.0-beta.1"))) == ["CANN_PRERELEASE", "UNTESTED_CANN"]


def test_where_only_the_sources_compile_it_is_said(world: World) -> None:
    plan = planned(world, environment(world.opp, version="9.0.0"))
    assert plan.decision == "install"
    assert any("was never run with CANN 9.0.0" in text for text in plan.warnings)
    assert plan.to_dict()["compatibility"]["tested"]["evidence"] == "compiled"


def test_the_plan_tells_machine_and_test(world: World) -> None:
    plan = planned(world, with_driver(environment(world.opp), "25.5.0"))
    assert plan.decision == "install"
    told = plan.to_dict()["compatibility"]
    assert told["target"] == {"cann": "8.5.0", "unit": packages.UNIT, "arch": packages.ARCH, "driver": "25.5.0"}
    assert told["tested"]["evidence"] == "simulated"


@pytest.mark.parametrize(
    ("driver", "expected"),
    [("25.5.0", []), ("26.0.rc1", []), ("25.3.RC1", ["DRIVER_TOO_OLD"]), ("", []), ("V100R001", [])],
)
def test_the_driver_may_be_newer_and_unknown_but_not_older(world: World, driver: str, expected: list[str]) -> None:
    machine = with_driver(environment(world.opp), driver)
    assert codes(planned(world, machine)) == expected
    assert planned(world, machine, allow_untested=True).decision == "install"


def test_known_bad_of_the_site_is_refused_whatever_is_allowed(world: World) -> None:
    write_compat(
        "release: smallq-flash-attention\nknown_bad:\n"
        f'  - {{cann: "==8.5.0", units: [{packages.UNIT}], reason: it hangs, advice: take 8.5.2, source: our lab}}\n'
    )
    plan = planned(world, environment(world.opp), allow_untested=True, allow_prerelease=True)
    assert codes(plan) == ["KNOWN_BAD"]
    assert "it hangs (our lab)" in plan.reasons[0]
    assert plan.problems[0].hint == "take 8.5.2"
    assert planned(world, environment(world.opp, version="8.5.2")).decision == "install"


def test_what_was_not_tried_on_this_architecture_is_a_warning(world: World) -> None:
    arch = "aarch64" if packages.ARCH == "x86_64" else "x86_64"
    machine = environment(world.opp, arch=arch, host_arch=arch)
    run = read_run(world.package("other", arch=arch))
    plan = make_plan(machine, release(), world.store, run, InstallOptions())
    assert plan.decision == "install"
    # The shipped data know x86_64 only.
    assert any(f"was not tried on {arch}" in text for text in plan.warnings) == (arch == "aarch64")


def test_a_package_of_a_newer_cann_is_a_warning(world: World) -> None:
    run = read_run(world.package("1"))
    for built, told in (("8.5.2", True), ("8.5.0", False), ("7.7.0.1.238", False), ("8.3.0.1.200", False), ("", False)):
        made = replace(run, compiler_version=built)
        plan = make_plan(environment(world.opp), release(), world.store, made, InstallOptions())
        assert plan.decision == "install"
        assert any(f"built with CANN {built}" in text for text in plan.warnings) == told


def test_a_malformed_file_of_the_site_refuses_the_plan(world: World) -> None:
    write_compat("known_bad: 3\n")
    plan = planned(world, environment(world.opp))
    assert plan.decision == "refused"
    assert codes(plan) == ["BAD_MANIFEST"]
    assert "mine.yaml:2" in plan.reasons[0]


def test_other_releases_stay_in_the_plan_of_the_install(world: World) -> None:
    from smallq_deploy.operate.installer import install
    from tests.support.opp import PASS

    over = (Rejection(release(version="0.9.0"), Path("next.yaml"), ("it needs CANN >=9.0.0",)),)
    report = install(replace(world.plan(world.package("1")), passed_over=over), smoke=lambda: PASS)
    assert report.plan.to_dict()["passed_over"] == [
        {"release": "smallq-flash-attention-0.9.0", "source": "next.yaml", "reasons": ["it needs CANN >=9.0.0"]}
    ]
