"""After a switch of CANN, in simulated toolkits: doctor names what stayed behind, migrate builds and installs it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from smallq_deploy.base.fsops import tree_digest
from tests.cli.support import checked, smallq
from tests.support.elf import tiny_elf
from tests.support.packages import ARCH, OPERATOR


@pytest.mark.xdist_group("doctor-migrate")
def test_switch_of_cann(fresh_toolkit: Callable[..., Path], operator_package: Path) -> None:
    old, new = fresh_toolkit(), fresh_toolkit(cann_version="9.0.0")
    assert smallq("install", operator_package, "--cann", old).status == 0
    # Both versions below one installation root, as on a real machine.
    (new / "cann-8.5.0").symlink_to(old / "cann-8.5.0")
    home = new / "cann-9.0.0"
    cann = ("--cann", home)
    checks = {item["name"]: item for item in checked(smallq("doctor", *cann, "--json"), "doctor")["checks"]}
    assert checks["left-behind"]["status"] == "warn"
    assert OPERATOR in checks["left-behind"]["message"]
    assert checks["left-behind"]["mend"] == [f"smallq-deploy migrate --cann {home}"]

    before = tree_digest(old)
    recipes = ("--recipes", new / "cann-recipes-infer")
    planned = checked(smallq("migrate", *cann, *recipes, "--dry-run", "--json"), "migrate")
    assert [item["action"] for item in planned["items"]] == ["rebuild"]
    ran = smallq("migrate", *cann, *recipes, "--yes", "--json")
    (item,) = checked(ran, "migrate")["items"]
    assert ran.status == 0, ran.document["errors"]
    assert (item["outcome"], item["generation"], item["found_version"]) == ("migrated", 1, "8.5.0")
    assert tree_digest(old) == before

    status = checked(smallq("status", *cann, "--json"), "status")
    assert status["current"]["proven"] is True
    assert status["current"]["toolkit_version"] == "9.0.0"
    assert checked(smallq("migrate", *cann, "--json"), "migrate")["decision"] == "nothing"
    ran = smallq("doctor", *cann, "--json")
    data = checked(ran, "doctor")
    assert ran.status == 0, ran.document["errors"]
    live = str(home / "opp/vendors/customize")
    assert (data["resolution"]["tiling"], data["resolution"]["kernels"], data["resolution"]["symbols"]) == (
        live,
        [live],
        live,
    )

    # What was built for this toolkit needs no second build, and no checkout.
    assert smallq("uninstall", *cann).status == 0
    (item,) = checked(smallq("migrate", *cann, "--yes", "--json"), "migrate")["items"]
    assert (item["action"], item["outcome"], item["recipes"]) == ("reinstall", "migrated", None)

    # A custom path of the old toolkit still wins over what was migrated.
    stale = {"ASCEND_CUSTOM_OPP_PATH": str(old / "cann-8.5.0/opp/vendors/customize")}
    ran = smallq("doctor", *cann, "--json", env=stale)
    assert ran.status == 10
    found = {item["name"]: item for item in checked(ran, "doctor")["checks"]}
    assert found["custom-opp-path"]["status"] == found["resolution"]["status"] == "fail"
    assert "of the toolkit" in " ".join([found["custom-opp-path"]["message"], *found["custom-opp-path"]["evidence"]])

    # A libnnopbase that lacks what the operator's library calls.
    library = Path(os.path.realpath(home / "lib64/libnnopbase.so"))
    library.unlink()
    library.write_bytes(tiny_elf(["NnopbaseOther"], arch=ARCH))
    found = {item["name"]: item for item in checked(smallq("doctor", *cann, "--json"), "doctor")["checks"]}
    assert found["libraries"]["status"] == "fail"
    assert "Nnopbase" in found["libraries"]["message"]
