"""``fleet`` as a user types it, on hosts that are directories of this machine (tests/fleet has real ones)."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import yaml

from tests.cli.support import checked, smallq


@pytest.fixture
def inventory(tmp_path: Path, simulated_toolkit: Path) -> Path:
    """Two hosts that see the same simulated toolkit."""
    hosts = {}
    for name in ("a1", "a2"):
        (tmp_path / name).mkdir()
        hosts[name] = {"address": f"local:{tmp_path / name}", "cann": str(simulated_toolkit)}
    path = tmp_path / "hosts.yaml"
    path.write_text(yaml.safe_dump({"schema": 1, "hosts": hosts}))
    return path


def test_check_writes_every_form(inventory: Path, tmp_path: Path) -> None:
    forms = {name: tmp_path / f"out.{name}" for name in ("html", "csv", "prometheus", "save")}
    options = [word for name, path in forms.items() for word in (f"--{name}", str(path))]
    ran = smallq("fleet", "check", "-i", inventory, "--transport", "local", *options, "--json")
    found = checked(ran, "fleet check")
    assert (ran.status, found["norm"]["names"]) == (0, "a[1-2]")
    assert "<html" in forms["html"].read_text() and "a2" in forms["html"].read_text()
    with open(forms["csv"], newline="") as stream:
        assert [row[0] for row in csv.reader(stream)][1:] == ["a1", "a2"]
    assert 'host="a1"' in forms["prometheus"].read_text()
    same = smallq("fleet", "report", forms["save"], forms["save"], "--json")
    assert (same.status, checked(same, "fleet report")["same"]) == (0, True)


def test_check_for_people_names_what_differs(inventory: Path) -> None:
    ran = smallq("fleet", "check", "-i", inventory, "--transport", "local", "--expect-cann", ">=9.0.0")
    assert ran.status == 10
    assert "a[1-2]: CANN 8.5.0 does not satisfy >=9.0.0" in ran.stdout
    assert "[FLEET_DIFFERS]" in ran.stderr


def test_a_plan_changes_nothing(inventory: Path, operator_package: Path, simulated_toolkit: Path) -> None:
    before = sorted(simulated_toolkit.rglob("*"))
    run = ("-i", inventory, "--transport", "local", "--dry-run", "--json")
    data = checked(smallq("fleet", "install", operator_package, *run), "fleet install")
    assert [item["decision"] for item in data["planned"]] == ["install", "install"]
    assert sorted(simulated_toolkit.rglob("*")) == before
    assert checked(smallq("fleet", "runs", "--json"), "fleet runs")["runs"] == []


@pytest.mark.parametrize("kind", ["ansible", "kubernetes", "slurm", "clustershell", "ssh"])
def test_export(kind: str, tmp_path: Path, operator_package: Path) -> None:
    bundle = tmp_path / "b.pyz"
    assert smallq("bundle", "create", operator_package, "-o", bundle).status == 0
    words = ("fleet", "export", kind, "-i", "n1,n2", "--bundle", bundle, "-o", tmp_path / "out", "--json")
    more = ("--bundle-dir", "/srv") if kind == "kubernetes" else ()
    data = checked(smallq(*words, *more), "fleet export")
    assert data["hosts"] == 2 and data["files"]
    assert all(Path(name).is_file() for name in data["files"])
    edited = Path(data["files"][0])
    edited.write_text(edited.read_text() + "\n# mine\n")
    assert smallq(*words, *more).codes == ["EXPORT_EXISTS"]


@pytest.mark.parametrize(
    ("words", "status", "code"),
    [
        (("check",), 2, "NO_INVENTORY"),
        (("check", "-i", "/no/such.yaml"), 5, "NO_INVENTORY"),
        (("check", "-i", "n[1-,"), 2, "BAD_HOSTS"),
        (("check", "-i", "n[1-3],", "-l", "n9"), 2, "NO_SUCH_HOST"),
        (("check", "-i", "n1,", "--expect-cann", "8"), 2, "BAD_SPECIFIER"),
        (("check", "-i", "n1,", "--watch", "9"), 2, "USAGE"),
        (("install", "-i", "n1,", "--waves", "0"), 2, "BAD_WAVES"),
        (("install", "-i", "n1,", "--max-fail", "x"), 2, "BAD_MAX_FAIL"),
        (("install", "-i", "n1,", "--before", "'"), 2, "BAD_HOOK"),
        (("install", "-i", "n1,", "/no/such.run"), 2, "PACKAGE_NOT_FOUND"),
        (("rollback", "-i", "n1,", "--to", "1", "--run", "2"), 2, "USAGE"),
        (("rollback", "-i", "n1,", "--run", "2026"), 2, "NO_SUCH_RUN"),
        (("resume",), 2, "NO_SUCH_RUN"),
        (("pause",), 2, "NO_SUCH_RUN"),
        (("abort", "x"), 2, "NO_SUCH_RUN"),
        (("report", "/no/a.json", "/no/b.json"), 2, "CHECK_NOT_FOUND"),
        (("relay", "/no/tasks"), 8, "IO_ERROR"),
        (("export", "ssh", "-i", "n1,"), 2, "MISSING_PARAMETER"),
        (("smoke", "-i", "n1,", "--python-runtime", "/no/such.tar"), 2, "PACKAGE_NOT_FOUND"),
    ],
)
def test_wrong_input_is_an_answer(words: tuple[str, ...], status: int, code: str) -> None:
    ran = smallq("fleet", *words, "--json")
    assert (ran.status, ran.codes) == (status, [code])
    assert json.loads(ran.stdout)["errors"][0]["hint"]
