"""Detection on machines written as data (builder.py): toolkit, facts with sources, reasons, devices, warnings."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from smallq_deploy.machine.environment import Environment, detect_environment
from tests.machines.builder import Tree, machines

MACHINES = machines()
# Each key of `expect` is checked here; a misspelt one would check nothing.
EXPECTATIONS = {
    "all_facts",
    "ambiguous",
    "boards",
    "candidates",
    "chosen",
    "devices",
    "facts",
    "hidden",
    "no_facts",
    "problem",
    "unit",
    "warnings",
    "why",
}
NOBODY = 65534


@contextlib.contextmanager
def another_user() -> Iterator[None]:
    """For the length of a block this process is not root: permissions count."""
    if os.geteuid() != 0:
        yield
        return
    group = os.getegid()
    os.setegid(NOBODY)
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(group)


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    """A directory that another user may enter, as pytest's own may not be."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        yield Path(os.path.realpath(folder)) / "root"
        for path, names, _ in os.walk(folder):
            for name in names:
                if not os.path.islink(os.path.join(path, name)):
                    os.chmod(os.path.join(path, name), 0o755)


def look(machine: Mapping[str, Any], root: Path) -> Environment:
    tree = Tree(root)
    tree.build(machine)
    with another_user() if machine.get("deny") else contextlib.nullcontext():
        return detect_environment(
            cann=tree.at(machine["cann"]) if "cann" in machine else None,
            environ=tree.environ(machine),
            root=root,
            host_arch=machine.get("host", "aarch64"),
            thorough=machine.get("boards", False),
            timeout=machine.get("timeout", 60),
        )


def as_on_the_machine(value: Any, root: Path) -> Any:
    """The answer without the temporary root."""
    if isinstance(value, str):
        return value.replace(str(root), "")
    if isinstance(value, Mapping):
        return {name: as_on_the_machine(item, root) for name, item in value.items()}
    return [as_on_the_machine(item, root) for item in value] if isinstance(value, list | tuple) else value


def test_there_are_at_least_forty_machines_with_names_of_their_own() -> None:
    names = [machine["machine"] for machine in MACHINES]
    assert len(names) >= 40
    assert len(set(names)) == len(names)
    for machine in MACHINES:
        assert set(machine["expect"]) <= EXPECTATIONS, machine["machine"]
        assert machine["about"]


@pytest.mark.parametrize("machine", [pytest.param(item, id=f"{item['file']}-{item['machine']}") for item in MACHINES])
def test_machine(machine: dict[str, Any], root: Path) -> None:
    found = look(machine, root)
    expect = machine["expect"]
    data = as_on_the_machine(found.to_dict(), root)
    warnings = as_on_the_machine(found.warnings, root)

    assert data["discovery"]["chosen"] == expect.get("chosen"), data["discovery"]
    for key in ("ambiguous", "why"):
        if key in expect:
            assert data["discovery"][key] == expect[key]
    problem = data["discovery"]["problem"]
    assert (problem["code"] if problem else None) == expect.get("problem"), problem
    if "candidates" in expect:
        check_candidates(data["discovery"]["candidates"], expect["candidates"])

    facts = {item["name"]: [item["value"], item["source"]] for item in data["facts"]}
    for name, value in expect.get("facts", {}).items():
        assert facts.get(name) == value, name
    assert not set(expect.get("no_facts", ())) & set(facts)
    if "all_facts" in expect:
        assert {name: fact for name, fact in facts.items() if name != "python"} == expect["all_facts"]
    assert all(item["source"] for item in data["facts"]), "a fact without its source"

    # Every warning is one that is expected, and every expected one is there.
    unexpected = [text for text in warnings if not any(part in text for part in expect.get("warnings", ()))]
    missing = [part for part in expect.get("warnings", ()) if not any(part in text for text in warnings)]
    assert (unexpected, missing) == ([], []), warnings

    keys = ("index", "npu_id", "soc", "unit", "health")
    devices = [[item[key] for key in keys] for item in data["devices"]["npus"]]
    assert devices == expect.get("devices", [])
    assert [item["logic_id"] for item in data["devices"]["hidden"]] == expect.get("hidden", [])
    if "unit" in expect:
        assert data["unit"] == expect["unit"]
    if "boards" in expect:
        boards = [[item["npu_id"], item["product"], item["firmware"]] for item in data["devices"]["boards"]]
        assert boards == expect["boards"]


def check_candidates(found: list[dict[str, Any]], expected: list[list[str]]) -> None:
    """Each as [path, taken or passed, part of the reason, real path (default: the same)]."""
    assert [item["path"] for item in found] == [item[0] for item in expected]
    for item, (path, taken, reason, *where) in zip(found, expected, strict=True):
        assert item["taken"] == (taken == "taken"), path
        assert reason in item["reason"], path
        if where:
            assert item["real_path"] == (where[0] or ""), path
