"""Compatibility data: what comes with the tool, every mistake in a file, and what the data say of a machine."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from smallq_deploy.base.errors import SmallqError
from smallq_deploy.base.versions import CannVersion, DriverVersion
from smallq_deploy.package.compat import Compat, Policy, Target, compat_of, judge, load_compat
from smallq_deploy.package.data import data_root
from smallq_deploy.package.releases import default_release
from tests.support.opp import release

MANIFESTS = data_root() / "manifests"
FULL = """\
schema: 1
description: every key
release: smallq-flash-attention
versions: ">=0.1.0,<0.2"
tested:
  - {cann: ">=8.5.0,<9.0.0", units: [ascend910b], arches: [x86_64], evidence: simulated, source: here}
  - {cann: ">=8.5.0,<8.6.0", units: [ascend910b], arches: [aarch64], evidence: hardware, source: there}
known_bad:
  - cann: "==8.5.1"
    reason: the tiling is read from the wrong directory
    advice: use 8.5.2
    source: issue 12
  - {driver: "<24.1.0", arches: [aarch64], reason: r, advice: a, source: s}
drivers:
  - {cann: 8.1.RC1, driver: 25.0.RC1, source: table}
  - {cann: 8.5.0, driver: 25.5.0, source: table}
"""


def full(tmp_path: Path) -> Compat:
    path = tmp_path / "full.yaml"
    path.write_text(FULL)
    return load_compat(path).compat


def target(cann: str = "8.5.0", unit: str = "ascend910b", arch: str = "x86_64", driver: str = "") -> Target:
    version = CannVersion.parse(cann) if cann else None
    return Target(version, unit, arch, DriverVersion.parse(driver) if driver else None)


def codes(compat: Compat, machine: Target, **policy: bool) -> list[str]:
    return [item.code for item in judge(release(), machine, compat, Policy(**policy)).problems]


# --- what the data say ---


def test_the_data_that_come_with_the_tool() -> None:
    compat = compat_of(default_release())
    assert codes(compat, target()) == []
    evidence = compat.evidence(target())
    assert evidence is not None
    assert evidence.evidence == "simulated"
    pairs = {"8.1.RC1": "25.0.RC1", "8.2.RC1": "25.2.0", "8.3.RC1": "25.3.RC1", "8.5.0": "25.5.0", "9.0.0": "26.0.RC1"}
    for cann, driver in pairs.items():
        pair = compat.driver_for(CannVersion.parse(cann))
        assert pair is not None
        assert str(pair.driver) == driver
    assert all(item.source and item.reason and item.advice for item in compat.known_bad)
    # The chip has another name up to 8.5.
    assert "KNOWN_BAD" in codes(compat, target(unit="ascend950"))
    assert "KNOWN_BAD" not in codes(compat, target("9.0.0", unit="ascend950"))


def test_what_was_tested_is_not_refused_and_nothing_known_refuses_nothing(tmp_path: Path) -> None:
    compat = full(tmp_path)
    for machine in (target(), target("8.9.0"), target("", "", ""), target("", unit=""), target(unit="")):
        assert codes(compat, machine) == []
    # Without any data only the release's own range counts.
    assert codes(Compat(), target("9.9.9")) == []
    assert codes(Compat(), target("8.3.RC1")) == ["CANN_VERSION"]


@pytest.mark.parametrize(
    ("machine", "expected", "words"),
    [
        (target("8.3.RC2"), "CANN_VERSION", "8.3.RC2 does not satisfy >=8.5.0"),
        (target("9.0.0"), "UNTESTED_CANN", "never tested with CANN 9.0.0, ascend910b, x86_64 (tested: CANN >=8.5.0"),
        (target(unit="ascend910_93"), "UNTESTED_UNIT", "not released for ascend910_93 (only ascend910b)"),
        (target(driver="25.3.rc1"), "DRIVER_TOO_OLD", "needs driver 25.5.0 or newer, this machine has 25.3.rc1"),
        (target("8.6.0", driver="25.0.rc1"), "DRIVER_TOO_OLD", "CANN 8.6.0 needs driver 25.5.0"),
    ],
)
def test_untested_is_refused_until_allowed(tmp_path: Path, machine: Target, expected: str, words: str) -> None:
    compat = full(tmp_path)
    (problem,) = judge(release(), machine, compat, Policy()).problems
    assert (problem.code, problem.exit_status) == (expected, 4)
    assert words in problem.message
    assert "--allow-untested" in problem.hint
    lifted = judge(release(), machine, compat, Policy(allow_untested=True))
    assert lifted.problems == ()
    assert lifted.warnings == (f"--allow-untested: {problem.message}",)
    assert codes(compat, machine, allow_prerelease=True) == [expected]


def test_a_newer_driver_and_an_older_cann_are_fine(tmp_path: Path) -> None:
    compat = full(tmp_path)
    assert codes(compat, target(driver="26.0.RC1")) == []
    assert codes(compat, target("8.1.RC1", driver="25.0.rc1.1")) == ["CANN_VERSION"]
    assert codes(compat, target("8.0.0", driver="23.0.7")) == ["CANN_VERSION"]  # no pair is known for so old a CANN


@pytest.mark.parametrize("cann", ["8.5.0-beta.1", "8.6.0.alpha002", "8.5.T4.0"])
def test_a_pre_release_is_the_user_s_decision(tmp_path: Path, cann: str) -> None:
    compat = full(tmp_path)
    (problem,) = judge(release(), target(cann), compat, Policy(allow_untested=True)).problems
    assert problem.code == "CANN_PRERELEASE"
    assert f"CANN {cann} is a pre-release of {CannVersion.parse(cann).final}" in problem.message
    assert "--allow-prerelease" in problem.hint
    taken = judge(release(), target(cann), compat, Policy(allow_prerelease=True))
    assert taken.problems == ()
    final = CannVersion.parse(cann).final
    assert taken.warnings == (f"--allow-prerelease: CANN {cann} is taken as the {final} it leads to",)


def test_a_pre_release_of_what_was_never_tested_has_both_reasons(tmp_path: Path) -> None:
    compat, machine = full(tmp_path), target("9.1.0-beta.2")
    assert codes(compat, machine) == ["CANN_PRERELEASE", "UNTESTED_CANN"]
    assert codes(compat, machine, allow_prerelease=True) == ["UNTESTED_CANN"]
    assert codes(compat, machine, allow_prerelease=True, allow_untested=True) == []


def test_known_bad_is_refused_with_its_reason_whatever_is_allowed(tmp_path: Path) -> None:
    compat = full(tmp_path)
    (problem,) = judge(release(), target("8.5.1"), compat, Policy(True, True)).problems
    assert (problem.code, problem.exit_status, problem.hint) == ("KNOWN_BAD", 4, "use 8.5.2")
    assert "the tiling is read from the wrong directory (issue 12)" in problem.message
    # A pre-release is judged as the release it leads to, here too.
    assert codes(compat, target("8.5.1-beta.1"), allow_prerelease=True) == ["KNOWN_BAD"]
    old = target(driver="24.1.rc3", arch="aarch64")
    assert codes(compat, old) == ["KNOWN_BAD", "DRIVER_TOO_OLD"]
    assert codes(compat, target(driver="24.1.rc3")) == ["DRIVER_TOO_OLD"]  # every key must match
    assert codes(compat, target(arch="aarch64")) == []  # an unknown driver is not known to be bad


def test_the_surest_test_of_the_same_architecture_is_told(tmp_path: Path) -> None:
    compat = full(tmp_path)
    for machine, expected in (
        (target(), "here"),
        (target(arch="aarch64"), "there"),
        (target("8.9.0", arch="aarch64"), "here"),
        (target("9.0.0"), None),
        (target(unit="ascend910_93"), None),
    ):
        evidence = compat.evidence(machine)
        assert (evidence.source if evidence else None) == expected, machine


def test_a_file_speaks_of_its_release_and_versions_only(tmp_path: Path) -> None:
    folder = tmp_path / "compat"
    folder.mkdir()
    (folder / "a.yaml").write_text(FULL)
    (folder / "b.yaml").write_text("schema: 1\ndrivers:\n  - {cann: 9.0.0, driver: 26.0.RC1, source: s}\n")
    mine, other, later = release(), release(name="other"), release(version="0.2.0")
    assert len(compat_of(mine, [tmp_path]).tested) == 2
    assert len(compat_of(mine, [tmp_path]).drivers) == 3
    for unknown in (other, later):
        compat = compat_of(unknown, [tmp_path])
        assert (compat.tested, compat.known_bad, len(compat.drivers)) == ((), (), 1)
    assert len(compat_of(release(version="0.1.1rc1"), [tmp_path]).tested) == 2
    assert compat_of(mine, [tmp_path / "none"]) == Compat()


# --- the files ---


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (("schema: 1", "schema: 7"), "1: schema: schema 7 is not known"),
        (("release: smallq-flash-attention\n", ""), "needs the key 'release'"),
        (('">=0.1.0,<0.2"', "about 1"), "4: versions: 'about 1' is not a specifier of release versions"),
        (("evidence: simulated", "evidence: hearsay"), "'hearsay' is not one of hardware, simulated, compiled"),
        (('cann: "==8.5.1"', 'cann: "8.5.1"'), "9: known_bad[0].cann: '8.5.1' is not a version specifier"),
        (('cann: "==8.5.1"', "reason2: x"), "says of no combination"),
        (('driver: "<24.1.0"', 'driver: "<old"'), "'old' is not a driver version"),
        (("cann: 8.1.RC1", "cann: 8.1"), "must be text, not a number"),
        (("driver: 25.0.RC1", "driver: V100R001"), "'V100R001' is not a driver version"),
        (("units: [ascend910b]", "units: []"), "must have 1 to 1000 elements"),
        (("arches: [x86_64]", "arches: [arm]"), "'arm' is not x86_64 or aarch64"),
        (("    source: issue 12\n", ""), "the key 'source' is missing"),
        (("description: every key", "descriptions: x"), "unknown key"),
        ((FULL[FULL.index("versions:") :], ""), "says nothing: give at least one of tested, known_bad, drivers"),
    ],
)
def test_mistakes(tmp_path: Path, change: tuple[str, str], expected: str) -> None:
    assert change[0] in FULL
    path = tmp_path / "bad.yaml"
    path.write_text(FULL.replace(*change, 1))
    with pytest.raises(SmallqError) as caught:
        load_compat(path)
    assert {item.code for item in caught.value.problems} == {"BAD_MANIFEST"}
    assert any(expected in item.message for item in caught.value.problems), caught.value.problems


def _schema() -> Any:
    schema = json.loads((MANIFESTS / "schema" / "compat.schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def test_the_schema_accepts_the_files_that_come_with_the_tool() -> None:
    files = list((MANIFESTS / "compat").glob("*.yaml"))
    assert files
    for path in files:
        _schema().validate(yaml.safe_load(path.read_text()))
        assert load_compat(path).compat != Compat()
    _schema().validate(yaml.safe_load(FULL))


def test_schema_and_loader_agree_on_wrong_values(tmp_path: Path) -> None:
    """Each key set to a value of every wrong kind, or taken away, is refused by both, or by neither."""
    good, validator = yaml.safe_load(FULL), _schema()
    places: list[tuple[Any, ...]] = [(key,) for key in good]
    places += [(key, 0, inner) for key in ("tested", "known_bad", "drivers") for inner in good[key][0]]
    places += [("known_bad", 0, key) for key in ("units", "arches", "driver", "more")]
    gone = object()
    for place, value in itertools.product(places, (7, True, None, "odd/../value", [], ["x"], {}, {"a": 1}, gone)):
        changed = json.loads(json.dumps(good))
        holder = changed
        for key in place[:-1]:
            holder = holder[key]
        if value is gone:
            holder.pop(place[-1], None)
        else:
            holder[place[-1]] = value
        path = tmp_path / "changed.yaml"
        path.write_text(json.dumps(changed))
        try:
            load_compat(path)
            loads = True
        except SmallqError:
            loads = False
        assert loads == validator.is_valid(changed), (place, value)
