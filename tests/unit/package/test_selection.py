"""Selection of a release: the newest that fits, and of every other one all the reasons."""

from __future__ import annotations

from pathlib import Path

import pytest

from smallq_deploy.base.errors import SmallqError
from smallq_deploy.base.versions import CannSpecifier, CannVersion, DriverVersion
from smallq_deploy.package.compat import Compat, DriverPair, Policy, Target, user_manifests
from smallq_deploy.package.data import data_root
from smallq_deploy.package.releases import Release
from smallq_deploy.package.selection import find_releases, select_release
from tests.support.opp import release

MANIFEST = next((data_root() / "manifests" / "releases").glob("*.yaml")).read_text()
MACHINE = Target(CannVersion.parse("8.5.0"), "ascend910b", "aarch64")


def made(
    version: str, cann: str = ">=8.5.0", unit: str = "ascend910b", name: str = "smallq-flash-attention"
) -> Release:
    return release(
        name=name,
        version=version,
        cann=CannSpecifier.parse(cann),
        units=(unit,),
        source=Path(f"{name}-{version}.yaml"),
    )


def test_the_newest_that_fits_and_every_reason_of_the_others() -> None:
    candidates = [
        made("0.1.0"),
        made("0.10.0", ">=9.0.0", "ascend910_93"),
        made("0.9.0"),
        made("0.11.0rc1"),
        made("0.2.0"),
        made("7.0.0", name="other-operator"),
    ]
    selection = select_release(MACHINE, candidates, compat=Compat())
    assert selection.chosen is candidates[2]
    assert {item.name: list(item.reasons) for item in selection.rejected} == {
        "other-operator-7.0.0": ["smallq-flash-attention was asked for"],
        "smallq-flash-attention-0.11.0rc1": ["0.11.0rc1 is a pre-release; --allow-prerelease takes it"],
        "smallq-flash-attention-0.10.0": [
            "smallq-flash-attention 0.10.0 needs CANN >=9.0.0: CANN 8.5.0 does not satisfy >=9.0.0",
            "smallq-flash-attention 0.10.0 was not released for ascend910b (only ascend910_93)",
        ],
        "smallq-flash-attention-0.2.0": ["0.9.0 is newer and fits too"],
        "smallq-flash-attention-0.1.0": ["0.9.0 is newer and fits too"],
    }
    assert select_release(MACHINE, candidates, compat=Compat(), name="other-operator").chosen is candidates[5]


def test_the_policy_changes_the_choice() -> None:
    candidates = [made("0.1.0"), made("0.2.0", ">=9.0.0"), made("0.3.0rc1")]
    assert select_release(MACHINE, candidates, Policy(), compat=Compat()).chosen is candidates[0]
    untested = select_release(MACHINE, candidates, Policy(allow_untested=True), compat=Compat())
    assert untested.chosen is candidates[1]
    assert any("does not satisfy >=9.0.0" in text for text in untested.warnings)
    assert select_release(MACHINE, candidates, Policy(allow_prerelease=True), compat=Compat()).chosen is candidates[2]


def test_nothing_fits() -> None:
    old = Target(CannVersion.parse("8.1.RC1"), "ascend310p", "x86_64", DriverVersion.parse("24.1.rc1"))
    pair = DriverPair(CannVersion.parse("8.1.RC1"), DriverVersion.parse("25.0.RC1"), "table")
    selection = select_release(old, [made("0.1.0")], compat=Compat(drivers=(pair,)))
    assert selection.chosen is None
    (rejection,) = selection.rejected
    assert [text.split(":")[0] for text in rejection.reasons] == [
        "smallq-flash-attention 0.1.0 needs CANN >=8.5.0",
        "smallq-flash-attention 0.1.0 was not released for ascend310p (only ascend910b)",
        "CANN 8.1.RC1 needs driver 25.0.RC1 or newer, this machine has 24.1.rc1 (table)",
    ]
    assert select_release(old, []).to_dict() == {
        "chosen": None,
        "rejected": [],
        "target": {"cann": "8.1.RC1", "unit": "ascend310p", "arch": "x86_64", "driver": "24.1.rc1"},
        "warnings": [],
    }


def test_candidates_of_several_directories(tmp_path: Path) -> None:
    ours, theirs = tmp_path / "ours" / "releases", tmp_path / "theirs" / "releases"
    for folder in (ours, theirs):
        folder.mkdir(parents=True)
    (ours / "a.yaml").write_text(MANIFEST)
    (theirs / "a.yaml").write_text(MANIFEST.replace("vendor: customize", "vendor: other"))
    (theirs / "b.yaml").write_text(MANIFEST.replace("version: 0.1.0", "version: 0.2.0"))
    (theirs / "broken.yaml").write_text("schema: 1\nname: x\n")
    (theirs / "notes.txt").write_text("not a manifest")
    found = find_releases([tmp_path / "ours", tmp_path / "theirs", tmp_path / "none"])
    assert [item.version for item in found.releases] == ["0.2.0", "0.1.0"]
    assert found.releases[1].source == ours / "a.yaml"  # the tool's own is not replaced
    selection = select_release(MACHINE, found, compat=Compat())
    assert selection.chosen is not None
    assert selection.chosen.version == "0.2.0"
    reasons = {item.source: item.reasons for item in selection.rejected}
    assert reasons[ours / "a.yaml"] == ("0.2.0 is newer and fits too",)
    assert "same name and version" in reasons[theirs / "a.yaml"][0]
    (why,) = reasons[theirs / "broken.yaml"]
    assert "broken.yaml:1: the key 'version' is missing (and 6 more)" in why


def test_the_user_s_own_manifests_are_found(own_home: Path) -> None:
    mine = user_manifests()
    assert mine == own_home / "data" / "smallq-deploy" / "manifests"
    (mine / "releases").mkdir(parents=True)
    (mine / "compat").mkdir()
    (mine / "releases" / "next.yaml").write_text(MANIFEST.replace("version: 0.1.0", "version: 0.5.0"))
    assert [item.version for item in find_releases().releases] == ["0.5.0", "0.1.0"]
    bad = "known_bad:\n  - {arches: [aarch64], reason: it hangs, advice: use 0.1.0, source: our lab}\n"
    (mine / "compat" / "mine.yaml").write_text(
        f'schema: 1\nrelease: smallq-flash-attention\nversions: "==0.5.0"\n{bad}'
    )
    selection = select_release(MACHINE, find_releases())
    assert selection.chosen is not None
    assert selection.chosen.version == "0.1.0"
    assert any("it hangs (our lab)" in text for text in selection.rejected[0].reasons)
    (mine / "compat" / "mine.yaml").write_text("schema: 1\nknown_bad: 3\n")
    with pytest.raises(SmallqError) as caught:
        select_release(MACHINE, find_releases())
    assert caught.value.code == "BAD_MANIFEST"
