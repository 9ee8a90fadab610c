"""``doctor`` and ``migrate`` as a user types them, on toolkits without programs; see tests/integration/doctor for real
builds."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest

from smallq_deploy.base.fsops import tree_digest
from tests.cli.support import checked, may_mount, mounting, smallq
from tests.support.packages import OPERATOR, make_run, make_vendor_tree
from tests.support.toolkits import make_new, make_old

CONTENT = OPERATOR + "\0"


class Machine:
    """An installation root with one toolkit, and the operator installed in it."""

    def __init__(self, root: Path) -> None:
        self.root = root / "Ascend"
        self.home = make_new(self.root)
        self.vendors = self.home / "opp/vendors"
        self.live = self.vendors / "customize"
        self.cann: tuple[str | Path, ...] = ("--cann", self.home)

    def install(self, root: Path) -> None:
        package = make_run(root / "op.run", content=CONTENT)
        ran = smallq("install", package, "--no-smoke", *self.cann)
        assert ran.status == 0, ran.stderr


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    made = Machine(tmp_path)
    made.install(tmp_path)
    return made


def by_name(data: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {item["name"]: item for item in data["checks"]}


def test_doctor_without_failures(machine: Machine) -> None:
    before = tree_digest(machine.root)
    ran = smallq("doctor", *machine.cann, "--json")
    data = checked(ran, "doctor")
    assert ran.status == 0
    assert data["counts"]["fail"] == 0
    assert by_name(data)["proven"]["status"] == "warn"
    assert data["resolution"]["tiling"] == data["resolution"]["symbols"] == str(machine.live)
    text = smallq("doctor", *machine.cann)
    assert text.status == 0
    assert f"a process with this environment loads tiling from {machine.live}" in text.stdout
    assert f"mend: smallq-deploy smoke --cann {machine.home}" in text.stdout
    assert tree_digest(machine.root) == before


def test_several_problems_are_all_shown(machine: Machine, tmp_path: Path) -> None:
    stale = make_vendor_tree(tmp_path / "stale", content="old" + CONTENT)
    with open(machine.live / "version.info", "a") as stream:
        stream.write("edited\n")
    (machine.vendors / "config.ini").write_text("# by hand\nload_priority=customize,gone\n")
    environ = {"ASCEND_CUSTOM_OPP_PATH": f"{stale}:{tmp_path / 'gone'}"}
    ran = smallq("doctor", *machine.cann, "--json", env=environ)
    assert (ran.status, ran.codes) == (10, ["DOCTOR_FINDINGS"])
    found = by_name(checked(ran, "doctor"))
    failed = {name for name, item in found.items() if item["status"] == "fail"}
    assert failed == {"custom-opp-path", "resolution", "unchanged"}
    assert ran.document["errors"][0]["details"]["failed"] == ["custom-opp-path", "resolution", "unchanged"]
    assert found["config-ini"]["status"] == found["duplicates"]["status"] == "warn"
    text = smallq("doctor", *machine.cann, env=environ)
    assert text.status == 10
    for part in (
        "fail: custom-opp-path",
        "fail: resolution",
        "fail: unchanged",
        "warn: config-ini",
        "warn: duplicates",
    ):
        assert part in text.stdout
    assert text.stdout.count("why it matters:") >= 5
    assert str(tmp_path / "gone") in text.stdout


def test_doctor_where_nothing_is(tmp_path: Path) -> None:
    ran = smallq("doctor", "--cann", tmp_path / "nothing", "--json")
    assert (ran.status, ran.codes) == (10, ["DOCTOR_FINDINGS"])
    data = checked(ran, "doctor")
    assert data["toolkit"] is None and data["resolution"] is None
    assert by_name(data)["toolkit"]["status"] == "fail"


def test_environment_of_a_process_and_of_a_file(machine: Machine, tmp_path: Path) -> None:
    stale = make_vendor_tree(tmp_path / "stale", content="old" + CONTENT)
    environ = {"PATH": os.environ["PATH"], "ASCEND_CUSTOM_OPP_PATH": str(stale)}
    code = "print('ready', flush=True); import sys; sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", code], env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        child.stdout.readline()
        ran = smallq("doctor", *machine.cann, "--environment", str(child.pid), "--json")
        data = checked(ran, "doctor")
        child.communicate("")
    assert f"process {child.pid}" in data["environment_source"]
    assert data["resolution"]["tiling"] == str(stale)
    assert by_name(data)["custom-opp-path"]["status"] == "fail"

    path = tmp_path / "environment"
    path.write_text(f"ASCEND_HOME_PATH={machine.home}\nASCEND_OPP_PATH={machine.home}/opp\n")
    ran = smallq("doctor", *machine.cann, "--environment", path, "--json", env={"ASCEND_CUSTOM_OPP_PATH": str(stale)})
    data = checked(ran, "doctor")
    assert ran.status == 0
    assert data["resolution"]["tiling"] == str(machine.live)
    assert by_name(data)["environment"]["status"] == "pass"
    ran = smallq("doctor", *machine.cann, "--environment", tmp_path / "gone", "--json")
    assert (ran.status, ran.codes) == (2, ["NO_SUCH_ENVIRONMENT"])


def test_bundle(machine: Machine, tmp_path: Path) -> None:
    path = tmp_path / "support.tar.gz"
    ran = smallq("doctor", *machine.cann, "--bundle", path, "--json", env={"REGISTRY_TOKEN": "planted-secret-1"})
    data = checked(ran, "doctor")
    assert data["bundle"]["path"] == str(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with tarfile.open(path) as archive:
        report = archive.extractfile("smallq-support/doctor.json")
        assert report is not None
        assert by_name(json.load(report)) == by_name(data)
        names = {name.removeprefix("smallq-support/") for name in archive.getnames()}
    assert names == set(data["bundle"]["members"])
    assert b"planted-secret-1" not in path.read_bytes()
    size = path.stat().st_size
    ran = smallq("doctor", *machine.cann, "--bundle", path, "--json")
    assert (ran.status, ran.codes) == (2, ["SUPPORT_FILE_EXISTS"])
    assert path.stat().st_size == size
    ran = smallq("doctor", *machine.cann, "--anonymous", "--json")
    assert (ran.status, ran.codes) == (2, ["USAGE"])


@pytest.mark.skipif(not may_mount(), reason="no mount namespace here")
def test_a_full_disk_and_a_user_without_permission(machine: Machine) -> None:
    small = mounting(f'mount -t tmpfs -o size=512k none "{machine.vendors}"')
    found = by_name(checked(smallq("doctor", *machine.cann, "--json", prefix=small), "doctor"))
    assert found["space"]["status"] == "fail"
    machine.vendors.chmod(0o555)
    machine.live.chmod(0o555)
    ordinary = mounting('exec setpriv --bounding-set=-all --inh-caps=-all --ambient-caps=-all --no-new-privs "$@"')
    found = by_name(checked(smallq("doctor", *machine.cann, "--json", prefix=ordinary), "doctor"))
    assert found["writable"]["status"] == "warn"
    assert str(machine.vendors) in found["writable"]["message"]
    assert found["space"]["status"] == "pass"


# --- migrate ---


def test_nothing_to_migrate(machine: Machine) -> None:
    ran = smallq("migrate", *machine.cann, "--json")
    assert checked(ran, "migrate")["decision"] == "nothing"
    assert ran.status == 0


def test_operators_of_unknown_source_are_named(tmp_path: Path) -> None:
    """Also those of an inactive toolkit of the old layout, which is no usable toolkit any more."""
    root = tmp_path / "Ascend"
    old = make_old(root, "8.1.RC1", active=False)
    make_vendor_tree(old / "opp/vendors/theirs", vendor="theirs", ops=("VecAddSample",))
    home = make_new(root)
    before = tree_digest(root)
    dry = smallq("migrate", "--cann", home, "--dry-run", "--json")
    assert (dry.status, checked(dry, "migrate")["decision"]) == (0, "planned")
    ran = smallq("migrate", "--cann", home, "--yes", "--json")
    assert (ran.status, ran.codes) == (10, ["OPERATORS_LEFT"])
    (item,) = checked(ran, "migrate")["items"]
    assert (item["action"], item["missing"], item["found_version"]) == ("by-hand", ["VecAddSample"], "8.1.RC1")
    assert "build VecAddSample" in item["hint"]
    assert tree_digest(root) == before


def test_an_operator_that_shares_its_directory_is_not_torn_out(machine: Machine, tmp_path: Path) -> None:
    home = make_new(machine.root, "9.0.0")
    make_vendor_tree(machine.vendors / "mixed", vendor="mixed", ops=(OPERATOR, "VecAddSample"))
    ran = smallq("migrate", "--cann", home, "--soc", "ascend910b", "--json")
    items = {item["vendor"]: item for item in checked(ran, "migrate")["items"]}
    assert items["mixed"]["action"] == "by-hand" and "VecAddSample" in items["mixed"]["reason"]
    # The package was not built here, so no record tells the checkout.
    assert items["customize"]["action"] == "by-hand" and "--recipes" in items["customize"]["hint"]
    ran = smallq("migrate", "--cann", home, "--soc", "ascend910b", "--recipes", tmp_path, "--json")
    data = checked(ran, "migrate")
    assert {item["vendor"]: item["action"] for item in data["items"]} == {"mixed": "by-hand", "customize": "rebuild"}
    # Without a terminal and without --yes the plan is the answer.
    assert (ran.status, data["decision"]) == (0, "planned")
    assert not (home / "opp/vendors/customize").exists()
    ran = smallq("migrate", "--cann", home, "--soc", "ascend910b", "--recipes", tmp_path, "--yes", "--json")
    assert (ran.status, ran.codes) == (2, ["NOT_A_CHECKOUT"])
    outcomes = {item["vendor"]: item["outcome"] for item in checked(ran, "migrate")["items"]}
    assert outcomes == {"mixed": "", "customize": "failed"}


def test_a_cann_that_nobody_tested_is_refused_before_anything_is_built(machine: Machine, tmp_path: Path) -> None:
    home = make_new(machine.root, "9.9.0")
    arguments = ("migrate", "--cann", home, "--soc", "ascend910b", "--recipes", tmp_path, "--json")
    ran = smallq(*arguments, "--yes")
    assert (ran.status, ran.codes) == (10, ["OPERATORS_LEFT"])
    (item,) = checked(ran, "migrate")["items"]
    assert item["action"] == "by-hand" and "--allow-untested" in item["hint"]
    (item,) = checked(smallq(*arguments, "--allow-untested", "--dry-run"), "migrate")["items"]
    assert item["action"] == "rebuild"
