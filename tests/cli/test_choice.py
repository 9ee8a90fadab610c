"""Which release, and on which CANN: what `plan` prints about it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from smallq_deploy.package.compat import user_manifests
from smallq_deploy.package.data import data_root
from tests.cli.support import checked, smallq
from tests.support import packages

MANIFEST = next((data_root() / "manifests" / "releases").glob("*.yaml")).read_text()


@pytest.fixture
def package(tmp_path: Path) -> Path:
    path = tmp_path / "op.run"
    packages.make_run(path)
    return path


def test_a_beta_needs_its_option(fresh_toolkit: Callable[..., Path], package: Path) -> None:
    cann = ("--cann", fresh_toolkit(cann_version="9.0.0-beta.1"))
    refused = smallq("plan", package, *cann, "--json")
    checked(refused, "plan")
    assert (refused.status, refused.codes) == (4, ["CANN_PRERELEASE"])
    taken = checked(smallq("plan", package, *cann, "--json", "--allow-prerelease"), "plan")
    assert taken["decision"] == "install"
    assert taken["plan"]["options"]["allow_prerelease"] is True
    text = smallq("plan", package, *cann, "--allow-prerelease")
    assert "CANN 9.0.0-beta.1 is taken as the 9.0.0 it leads to" in text.stderr
    assert "recorded   allow-prerelease" in text.stdout


def test_the_newest_release_that_fits_and_why_not_the_others(simulated_toolkit: Path, package: Path) -> None:
    folder = user_manifests() / "releases"
    folder.mkdir(parents=True)
    for version, cann in (("0.2.0", ">=8.5.0"), ("0.3.0", ">=9.1.0"), ("0.4.0rc1", ">=8.5.0")):
        text = MANIFEST.replace("version: 0.1.0", f"version: {version}").replace('cann: ">=8.5.0"', f'cann: "{cann}"')
        (folder / f"{version}.yaml").write_text(text)
    plan = checked(smallq("plan", package, "--cann", simulated_toolkit, "--json"), "plan")["plan"]
    assert plan["release"]["version"] == "0.2.0"
    reasons = {item["release"].rpartition("-")[2]: item["reasons"] for item in plan["passed_over"]}
    assert reasons["0.1.0"] == ["0.2.0 is newer and fits too"]
    assert reasons["0.4.0rc1"] == ["0.4.0rc1 is a pre-release; --allow-prerelease takes it"]
    assert "CANN 8.5.0 does not satisfy >=9.1.0" in reasons["0.3.0"][0]
    text = smallq("plan", package, "--cann", simulated_toolkit)
    assert "other releases:\n" in text.stdout
    assert "  - smallq-flash-attention-0.1.0: 0.2.0 is newer and fits too" in text.stdout
    newest = smallq("plan", package, "--cann", simulated_toolkit, "--json", "--allow-prerelease")
    assert checked(newest, "plan")["plan"]["release"]["version"] == "0.4.0rc1"


def test_the_users_broken_manifest_is_told_and_hides_no_other(simulated_toolkit: Path, package: Path) -> None:
    folder = user_manifests() / "releases"
    folder.mkdir(parents=True)
    (folder / "broken.yaml").write_text("schema: 1\n")
    ran = smallq("plan", package, "--cann", simulated_toolkit, "--json")
    assert checked(ran, "plan")["decision"] == "install"
    assert any("broken.yaml:1: the key 'name' is missing (and" in text for text in ran.document["warnings"])
