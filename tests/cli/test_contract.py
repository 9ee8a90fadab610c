"""The JSON contract: what every command prints on success validates against its schema, and says what happened.

Failures of every command are in test_wrong_inputs.py and test_main.py; both validate too.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from click.core import Group

from smallq_deploy.base.fsops import tree_digest
from smallq_deploy.cli.envelope import schema_path
from smallq_deploy.cli.main import _COMMANDS, cli
from tests.cli.support import checked, smallq
from tests.cli.test_main import COMMANDS, HEAVY, imported

# The other worker need not wait for the package to be built.
_one_worker = pytest.mark.xdist_group("contract")


def test_every_command_has_a_schema_and_every_schema_a_command() -> None:
    names = {path.stem for path in schema_path().parent.glob("*.json")} - {"common", "envelope"}
    assert names == {command.replace(" ", "-") for command in COMMANDS}


def test_schemas_are_strict_about_what_they_describe() -> None:
    for path in schema_path().parent.glob("*.json"):
        schema = json.loads(path.read_text())
        assert schema["$id"].startswith("urn:smallq-deploy:schema:1:")
        if path.stem not in ("common", "envelope"):
            assert schema["additionalProperties"] is False
            assert sorted(schema["required"]) == sorted(schema["properties"])


def test_every_option_has_its_environment_variable() -> None:
    import importlib

    for module, attribute, _ in _COMMANDS.values():
        found = getattr(importlib.import_module(f"smallq_deploy.cli.{module}"), attribute)
        for command in found.commands.values() if isinstance(found, Group) else [found]:
            for parameter in command.params:
                long_names = [name for name in parameter.opts if name.startswith("--")]
                if long_names:
                    expected = "SMALLQ_DEPLOY_" + long_names[0][2:].upper().replace("-", "_")
                    assert parameter.envvar == expected
    assert isinstance(cli, Group)


@_one_worker
def test_the_whole_way_in_json(
    fresh_toolkit: Callable[..., Path], operator_package: Path, own_home: Path, tmp_path: Path
) -> None:
    root = fresh_toolkit()
    vendors = root / "cann-8.5.0" / "opp" / "vendors"
    live = vendors / "customize"
    cann = ("--cann", root)

    found = checked(smallq("detect", *cann, "--json"), "detect")
    assert found["toolkit"]["remark"] == "simulated toolkit"
    assert [npu["soc"] for npu in found["devices"]["npus"]] == ["Ascend910B3"] * 8
    assert checked(smallq("status", *cann, "--json"), "status")["live"]["state"] == "absent"
    assert not imported("status", "--cann", str(root)) & HEAVY

    before = tree_digest(vendors)
    planned = checked(smallq("plan", operator_package, *cann, "--json"), "plan")
    assert planned["decision"] == "install"
    dry = checked(smallq("install", operator_package, *cann, "--dry-run", "--json"), "install")
    assert dry["plan"]["steps"] == planned["plan"]["steps"]
    assert tree_digest(vendors) == before

    ran = smallq("install", operator_package, *cann, "--json")
    assert ran.stderr == ""
    done = checked(ran, "install")
    assert done["change"]["kept"] is True
    assert done["change"]["smoke"]["verdict"] == "pass"
    assert done["change"]["generation"]["toolkit_remark"] == "simulated toolkit"
    again = checked(smallq("install", operator_package, *cann, "--json"), "install")
    assert again["decision"] == "nothing"
    by_installer = checked(
        smallq("install", operator_package, *cann, "--reinstall", "--use-installer", "--json"), "install"
    )
    assert by_installer["change"]["generation"]["manifest_digest"] == done["change"]["generation"]["manifest_digest"]

    report = checked(smallq("smoke", *cann, "--device", "1", "--json"), "smoke")["smoke"]
    assert (report["verdict"], report["device"]) == ("pass", 1)
    assert report["library"] == str(live / "op_api" / "lib" / "libcust_opapi.so")
    assert checked(smallq("verify", *cann, "--json"), "verify")["clean"] is True
    assert checked(smallq("env", *cann, "--json"), "env")["installed"] is True
    assert checked(smallq("recover", *cann, "--json"), "recover")["recovered"] is None

    with open(live / "version.info", "a") as stream:
        stream.write("edited\n")
    ran = smallq("verify", *cann, "--json")
    assert (ran.status, ran.codes) == (10, ["DIFFERENCES"])
    assert checked(ran, "verify")["differences"] == [{"path": "version.info", "letters": "S.5.T"}]
    changed = checked(smallq("status", *cann, "--json"), "status")
    assert changed["live"]["differences"] == ["version.info"]

    mended = checked(smallq("verify", "--repair", *cann, "--json"), "verify")
    assert mended["clean"] is True
    assert mended["restored"]["change"]["smoke"]["verdict"] == "pass"
    with open(live / "version.info", "a") as stream:
        stream.write("edited again\n")

    # Twice returns, also from an edited tree: it is kept as a generation of its own.
    assert checked(smallq("rollback", *cann, "--json"), "rollback")["decision"] == "done"
    assert checked(smallq("rollback", *cann, "--dry-run", "--json"), "rollback")["decision"] == "planned"
    gone = checked(smallq("uninstall", *cann, "--json"), "uninstall")
    assert gone["to"] == 0 and not live.exists()
    assert not (vendors / "config.ini").exists() or "customize" not in (vendors / "config.ini").read_text()
    assert checked(smallq("rollback", *cann, "--json"), "rollback")["change"]["smoke"]["verdict"] == "pass"

    (vendors / "config.ini").unlink()
    ran = smallq("smoke", *cann, "--json")
    assert (ran.status, ran.codes) == (9, ["SMOKE_NO_LIBRARY"])
    assert "config.ini" in ran.document["errors"][0]["message"]
    checked(ran, "smoke")
    assert checked(smallq("repair", *cann, "--json"), "repair")["decision"] == "config"
    assert smallq("smoke", *cann).status == 0

    assert checked(smallq("pin", "1", "--reason", "why", *cann, "--json"), "pin")["changed"] is True
    assert checked(smallq("status", *cann, "--json"), "status")["pins"][0]["reason"] == "why"
    assert checked(smallq("gc", "--keep", "0", "--dry-run", *cann, "--json"), "gc")["decision"] == "planned"
    refused = smallq("gc", "--keep", "0", "--adopted", *cann, "--json")
    assert (refused.status, refused.codes) == (2, ["CONFIRMATION_NEEDED"])
    swept = checked(smallq("gc", "--keep", "0", "--max-size", "1K", "--yes", *cann, "--json"), "gc")
    assert {item["number"]: item["deleted"] for item in swept["generations"]}[1] is False
    assert checked(smallq("unpin", "1", *cann, "--json"), "unpin")["pinned"] is False

    records = checked(smallq("history", *cann, "--json"), "history")["history"]
    assert [record["action"] for record in records[:2]] == ["install", "install"]
    assert checked(smallq("uninstall", "--purge", "--yes", *cann, "--json"), "uninstall")["purged"] is True
    assert not (vendors / ".smallq-deploy").exists()


@_one_worker
def test_a_failed_install_reports_what_it_did(fresh_toolkit: Callable[..., Path], operator_package: Path) -> None:
    root = fresh_toolkit()
    faulty = {"SMALLQ_SIM_FAULT": "wrong_numbers"}
    ran = smallq("install", operator_package, "--cann", root, "--json", env=faulty)
    assert (ran.status, ran.codes) == (9, ["SMOKE_WRONG_NUMBERS"])
    data = checked(ran, "install")
    assert data["change"]["kept"] is False
    assert data["change"]["smoke"]["verdict"] == "fail"
    assert not (root / "cann-8.5.0" / "opp" / "vendors" / "customize").exists()
    text = smallq("install", operator_package, "--cann", root, env=faulty)
    assert text.status == 9
    assert "[simulated toolkit]" in text.stdout
    assert "[SMOKE_WRONG_NUMBERS]" in text.stderr


def test_sandbox_in_json(tmp_path: Path, simulated_toolkit: Path) -> None:
    root = tmp_path / "ascend"
    made = checked(smallq("sandbox", "create", root, "--cann-version", "8.1.RC1", "--json"), "sandbox create")
    assert made["layout"] == "old"
    assert (Path(made["recipes"]) / "ops" / "ascendc" / "build.sh").is_file()
    checked(smallq("sandbox", "destroy", root, "--json"), "sandbox destroy")
    assert not root.exists()


@_one_worker
@pytest.mark.parametrize("options", ["-e", "-u", "-eu", ""])
def test_env_works_in_strict_shells(
    fresh_toolkit: Callable[..., Path], operator_package: Path, options: str, tmp_path: Path
) -> None:
    root = fresh_toolkit()
    live = root / "cann-8.5.0" / "opp" / "vendors" / "customize"
    assert smallq("install", operator_package, "--no-smoke", "--cann", root).status == 0
    stale = live / "vendors" / "customize"
    kept = tmp_path / "kept one"
    kept.mkdir()
    lines = smallq("env", "--cann", root, env={"ASCEND_CUSTOM_OPP_PATH": f"{stale}:{kept}:{tmp_path / 'gone'}"}).stdout
    assert lines.startswith("# [simulated toolkit]")
    script = f'set {options or "+e"}; eval "$1"; echo "$-"; echo "$ASCEND_OPP_PATH"; echo "$ASCEND_CUSTOM_OPP_PATH"; '
    script += 'echo "$LD_LIBRARY_PATH"; command -v bisheng'
    done = subprocess.run(
        ["bash", "-c", script, "-", lines],
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    flags, opp, custom, libraries, _ = done.stdout.splitlines()
    assert all(letter in flags for letter in options.strip("-"))
    assert opp == str(root / "cann-8.5.0" / "opp")
    assert custom == str(kept)
    assert libraries.startswith(str(live / "op_api" / "lib") + ":")
