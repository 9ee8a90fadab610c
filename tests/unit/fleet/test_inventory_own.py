"""Inventories of our own, lists of names and Slurm's text: what hosts come out, and which problems are told."""

from __future__ import annotations

import io
import itertools
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from smallq_deploy.base.errors import SmallqError
from smallq_deploy.fleet.hosts import Host, Inventory
from smallq_deploy.fleet.inventory.load import inventory_digest, load_inventory
from smallq_deploy.fleet.inventory.ranges import expand_list
from tests.conftest import CHECKOUT

CLUSTERS = CHECKOUT / "manifests" / "clusters"
SCHEMA = json.loads((CHECKOUT / "manifests" / "schema" / "inventory.schema.json").read_text())


def load(tmp_path: Path, text: str, name: str = "lab.yaml") -> Inventory:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return load_inventory(path)


def problems(tmp_path: Path, text: str, name: str = "lab.yaml") -> list[str]:
    """``line: text`` of every problem; none of them anything but BAD_INVENTORY with a hint."""
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    with pytest.raises(SmallqError) as caught:
        load_inventory(path)
    for problem in caught.value.problems:
        assert (problem.code, int(problem.exit_status), bool(problem.hint)) == ("BAD_INVENTORY", 5, True)
        assert problem.message.startswith(f"{path}:{problem.details['line']}: ")
    return [problem.message[len(str(path)) + 1 :] for problem in caught.value.problems]


def host(inventory: Inventory, name: str) -> Host:
    (found,) = [item for item in inventory if item.name == name]
    return found


FULL = """\
schema: 1
name: lab-a
description: everything there is
defaults: {user: ascend, timeout: 900, jump: "ops@bastion:2222", python: python3.11}
hosts:
  npu[001-004]: {address: "10.0.0.[1-4]"}
  npu005:
  dev1:
    address: 10.0.9.9
    port: 2222
    user: me
    key: keys/id_dev
    known_hosts: /etc/ssh/known
    sudo: true
    python: /opt/py/bin/python3
    cann: /opt/Ascend/cann-8.5.0
    opp: /data/opp
    vendor: customize
    shared_opp: nfs-7
    timeout: 60
groups:
  rack1:
    members:
      - npu[001-002]
    vars: {relay: npu001, user: rackuser}
  room:
    members: [rack1, npu003]
    vars: {shared_opp: true, user: roomuser, sudo: true}
"""


def test_what_stands_nearer_to_the_host_holds(tmp_path: Path) -> None:
    inventory = load(tmp_path, FULL)
    assert (inventory.name, inventory.kind, inventory.warnings) == ("lab-a", "yaml", ())
    assert [item.name for item in inventory] == ["npu001", "npu002", "npu003", "npu004", "npu005", "dev1"]
    assert inventory.groups == {"rack1": ("npu001", "npu002"), "room": ("npu001", "npu002", "npu003")}
    first, second, third, fifth = (host(inventory, f"npu00{n}") for n in (1, 2, 3, 5))
    assert (first.user, third.user, fifth.user, host(inventory, "dev1").user) == (
        "rackuser",
        "roomuser",
        "ascend",
        "me",
    )
    assert (first.relay, second.relay, third.relay) == ("", "npu001", "")  # a relay is not its own
    assert (second.shared_opp, third.shared_opp, fifth.shared_opp) == ("room", "room", "")
    assert (second.sudo, fifth.sudo, second.groups) == (True, False, ("rack1", "room"))
    assert (second.target, fifth.target, fifth.source) == ("10.0.0.2", "npu005", f"{tmp_path}/lab.yaml:7")
    assert host(inventory, "dev1") == Host(
        "dev1",
        address="10.0.9.9",
        port=2222,
        user="me",
        key=str(tmp_path / "keys/id_dev"),  # beside the inventory
        jump="ops@bastion:2222",
        known_hosts="/etc/ssh/known",
        sudo=True,
        python="/opt/py/bin/python3",
        cann="/opt/Ascend/cann-8.5.0",
        opp="/data/opp",
        vendor="customize",
        shared_opp="nfs-7",
        timeout=60.0,
        source=f"{tmp_path}/lab.yaml:8",
    )


def test_a_list_of_hosts_means_what_a_mapping_does(tmp_path: Path) -> None:
    listed = load(tmp_path, "schema: 1\nhosts:\n  - npu[1-2]\n  - {name: dev1, port: 2222}\n", "a.yaml")
    mapped = load(tmp_path, "schema: 1\nhosts:\n  npu[1-2]:\n  dev1: {port: 2222}\n", "b.yaml")
    assert [(item.name, item.port) for item in listed] == [(item.name, item.port) for item in mapped]
    assert inventory_digest(listed) == inventory_digest(mapped)


def test_one_opp_for_the_whole_inventory(tmp_path: Path) -> None:
    text = "schema: 1\ndefaults: {shared_opp: true}\nhosts:\n  a:\n  b: {shared_opp: false}\n  c: {shared_opp: other}\n"
    assert [item.shared_opp for item in load(tmp_path, text)] == ["all", "", "other"]


def test_every_problem_is_told_at_once_with_its_line(tmp_path: Path) -> None:
    text = """\
schema: 1
defaults:
  usr: ascend
hosts:
  npu[001-003]: {port: 70000, sudo: maybe}
  npu002:
  npu9: {relay: npu07, timeout: 0, cann: opt/cann, opp: /data/../etc, vendor: ../x}
  npu[9-1]:
  npu[1-9/2]:
  npu[001-09]:
  "npu[1-2":
  npu[1-30000]:
  all:
groups:
  rack1: {members: [npu001, npu01, rack2], vars: {address: x}}
  rack2: {members: [rack1]}
  npu9: {members: []}
  rack3: {}
group: {}
"""
    found = problems(tmp_path, text)
    expected = [
        "3: defaults.usr: unknown key; did you mean 'user'?",
        "5: hosts.npu[001-003].port: must be between 1 and 65535, is 70000",
        "5: hosts.npu[001-003].sudo: must be true or false, not text",
        "6: hosts.npu002: npu002 is there already (line 5)",
        "7: hosts.npu9.timeout: must be between 1 and 86400 seconds, is 0",
        "7: hosts.npu9.cann: 'opt/cann' is not an absolute path on the host",
        "7: hosts.npu9.opp: '/data/../etc' is not an absolute path on the host",
        "7: hosts.npu9.vendor: '../x' is not a vendor's name",
        "8: hosts.npu[9-1]: [9-1] runs backwards",
        "9: hosts.npu[1-9/2]: [1-9/2] has steps, which are not read: write the numbers out",
        "10: hosts.npu[001-09]: [001-09] has two widths: write [001-016] or [1-16]",
        "11: hosts.npu[1-2: 'npu[1-2' has a bracket without its partner",
        "12: hosts.npu[1-30000]: 'npu[1-30000]' stands for 30000 names; at most 20000 are read",
        "13: hosts.all: 'all' has a meaning of its own and cannot name a host",
        "15: groups.rack1.vars.address: unknown key; known here: port, user",
        "15: groups.rack1.members[1]: 'npu01' is no host or group here; did you mean 'npu001'?",
        "15: groups: groups in a circle: rack",
        "17: groups.npu9: a host has the name 'npu9' too (line 7)",
        "18: groups.rack3: the key 'members' is missing",
        "19: group: unknown key; did you mean 'groups'?",
    ]
    assert len(found) == len(expected), found
    for line in expected:
        assert any(item.startswith(line) for item in found), (line, found)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "hosts:\n  a: {relay: b}\n  b: {relay: c}\n  c:\n",
            "3: hosts.a.relay: the relay 'b' has a relay itself ('c')",
        ),
        ("hosts:\n  npu1: {relay: npu2x}\n  npu2:\n", "the relay 'npu2x' is no host here; did you mean 'npu2'?"),
        ("hosts:\n  a: {shared_opp: true}\n", "true stands in a group or in the defaults"),
        ("hosts:\n  a: {address: 10.0.0.1}\n  b: {address: 10.0.0.1}\n", "4: b has the same address and port as a"),
        ("hosts: [NPU1, npu1]\n", "2: npu1 has the same address and port as NPU1"),
        ("hosts:\n  npu[1-3]: {address: '10.0.0.[1-2]'}\n", "stands for 2 addresses, but there are 3 hosts"),
        ("hosts: {}\n", "names no host"),
        ("hosts: [[a]]\n", "must be a mapping, not a list"),
        ("hosts: [7]\n", "must be a mapping, not a whole number"),
        ("hosts: text\n", "must be a list, not text"),
        (
            "hosts: [a]\ngroups:\n  x: {members: [a], vars: {port: 1}}\n  y: {members: [a], vars: {port: 2}}\n",
            "2: a: the groups x and y give it another port; say at the host which holds",
        ),
    ],
)
def test_what_does_not_fit_together(tmp_path: Path, text: str, expected: str) -> None:
    assert any(expected in item for item in problems(tmp_path, "schema: 1\n" + text))


def test_two_groups_may_say_the_same(tmp_path: Path) -> None:
    text = (
        "schema: 1\nhosts: [a]\ngroups:\n  x: {members: [a], vars: {port: 7}}\n  y: {members: [a], vars: {port: 7}}\n"
    )
    assert host(load(tmp_path, text), "a").port == 7


NAMES = (
    "a;id",
    "$(id)",
    "`id`",
    "a|b",
    "a b",
    "-oProxyCommand=x",
    "../x",
    "..",
    "a/b",
    "a\nb",
    "'a'",
    "a*",
    "~a",
    "a@b",
)
CONFUSED = ("аpu1", "npu１", "npu\u200b1", "\u202e1upn", "x\u0301", "npu²", "😀", "a" * 300, "", "\x1b[2J", "nul\x00")


@pytest.mark.parametrize("name", [*NAMES, *CONFUSED], ids=ascii)
@pytest.mark.parametrize("place", ["host", "address", "user", "jump", "relay", "key", "python", "opp", "group"])
def test_no_value_reaches_a_command_line_that_could_harm_it(tmp_path: Path, name: str, place: str) -> None:
    if place == "key" and name in ("..", "../x", "a/b", "~a", "a@b", "a" * 300):
        pytest.skip("a path here may be that")
    if (place, name) in (("python", "a/b"), ("python", "a" * 300), ("user", "a@b"), ("jump", "a@b")):
        pytest.skip("is such a value")
    document: dict[str, Any] = {"schema": 1, "hosts": {"good": {place: name}}}
    if place == "host":
        document["hosts"] = {name: None}
    if place == "group":
        document = {"schema": 1, "hosts": ["good"], "groups": {name: {"members": ["good"]}}}
    # A zero byte and the like cannot stand in YAML as they are: in quotes and escaped they can.
    found = problems(tmp_path, json.dumps(document))
    assert all(len(line) < 1000 for line in found)
    if place in ("user", "jump", "key"):  # where a secret may stand by mistake
        assert not any(name in line for line in found if len(name) > 3)


@pytest.mark.parametrize("key", ["password", "ansible_password", "become_pass", "passphrase", "ssh_pass", "api_token"])
@pytest.mark.parametrize("value", ["hunter2", "2020-01-01", "!vault hunter2", "[hunter2]", "0o777", "0123hunter2"])
def test_a_secret_is_refused_and_never_shown(tmp_path: Path, key: str, value: str) -> None:
    for text in (
        f"defaults: {{{key}: {value}}}\nhosts: [a]\n",
        f"hosts:\n  a:\n    {key}: {value}\n",
        f"{key}: {value}\n",
    ):
        found = problems(tmp_path, "schema: 1\n" + text)
        assert any("holds no secrets: use a key file (key: PATH) or the ssh agent" in line for line in found)
        assert not any("hunter2" in line or "2020" in line or "777" in line for line in found)


def test_hosts_may_be_called_as_secrets_are(tmp_path: Path) -> None:
    text = "schema: 1\nhosts:\n  vault-1: {port: 7}\ngroups:\n  token: {members: [vault-1], vars: {user: x}}\n"
    assert host(load(tmp_path, text), "vault-1").user == "x"


def test_the_digest_is_of_the_fleet_not_of_the_file(tmp_path: Path) -> None:
    base = load(tmp_path, "schema: 1\nhosts: [a, b, c]\n", "one.yaml")
    same = load(tmp_path, "# remark\nschema: 1\nname: other\nhosts:\n  c:\n  b:\n  a: {jump: x, key: k, timeout: 5}\n")
    assert inventory_digest(base) == inventory_digest(same) == inventory_digest(load_inventory("c,b,a"))
    limited = load_inventory(tmp_path / "one.yaml", limit=["a"])
    assert (len(limited), inventory_digest(limited)) == (1, inventory_digest(base))
    for changed in ("[a, b]", "{a: , b: , c: {port: 7}}", "{a: {opp: /x}, b: , c: }"):
        assert inventory_digest(load(tmp_path, f"schema: 1\nhosts: {changed}\n")) != inventory_digest(base)
    assert len(inventory_digest(base)) == 32


def test_what_a_source_is_taken_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for text, kind, count in (
        ("npu[001-003]\nlogin1  # a remark\n\n# another\n10.0.0.1, fe80::1\n", "list", 6),
        ("schema: 1\nhosts: [a]\n", "yaml", 1),
        ('{"schema": 1, "hosts": ["a", "b"]}', "yaml", 2),
        ("# x\n---\nall:\n  hosts:\n    a:\n", "ansible-yaml", 1),
        ("a ansible_host=10.0.0.1\nb\n", "ansible-ini", 2),
        ("npu[01:03]\n", "ansible-ini", 3),
        ("[npu]\na\n", "ansible-ini", 1),
        ('{"all": {"children": ["npu"]}, "npu": {"hosts": ["a", "b"]}}', "ansible-yaml", 2),
    ):
        path = tmp_path / "hosts"
        path.write_text(text)
        found = load_inventory(path)
        assert (found.kind, len(found)) == (kind, count), text
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
        piped = load_inventory("-")
        assert (piped.kind, [item.name for item in piped]) == (kind, [item.name for item in found])
        assert piped.hosts[0].source.startswith("stdin:")
    for source, kind, names in (
        ("a,", "hosts", ["a"]),
        ("npu[1-2],b", "hosts", ["npu1", "npu2", "b"]),
        ("npu[1-2]", "hosts", ["npu1", "npu2"]),
        ("slurm:npu[001-003,020],login1", "slurm", ["npu001", "npu002", "npu003", "npu020", "login1"]),
        ("slurm:npu1", "slurm", ["npu1"]),
    ):
        found = load_inventory(source)
        assert (found.kind, [item.name for item in found]) == (kind, names)


@pytest.mark.parametrize(
    ("source", "code", "status", "expected"),
    [
        ("none", "NO_INVENTORY", 5, "No such file"),
        (".", "NO_INVENTORY", 5, "Is a directory"),
        ("x\0y", "NO_INVENTORY", 5, "no path"),
        ("npu[1-,", "BAD_HOSTS", 2, "bracket without its partner"),
        ("slurm:", "BAD_HOSTS", 2, "no host is named"),
        ("slurm:npu[1-99999]", "BAD_HOSTS", 2, "at most 20000"),
        ("a;id,b", "BAD_HOSTS", 2, "is no host name"),
        ("a,A", "BAD_HOSTS", 2, "same address"),
    ],
)
def test_sources_that_are_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, code: str, status: int, expected: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SmallqError) as caught:
        load_inventory(source)
    assert (caught.value.code, caught.value.exit_status) == (code, status)
    assert expected in caught.value.message
    assert caught.value.hint


def test_files_that_are_none(tmp_path: Path) -> None:
    assert "is a program" in problems(tmp_path, "#!/usr/bin/env python3\nprint()\n", "inventory.py")[0]
    assert "larger than 10 MiB" in problems(tmp_path, "x" * (10 * 1024 * 1024 + 1), "x.txt")[0]
    assert "names no host" in problems(tmp_path, "# nothing\n[npu]\n", "x.ini")[0]
    assert "the file is empty" in problems(tmp_path, "", "empty")[0]
    assert "2: is not UTF-8 text" in problems_of_bytes(tmp_path, b"a\n\xff\n")
    assert "3: a is there already (line 1)" in problems(tmp_path, "a\nb\na\n", "x.txt")
    assert "more than 20000 hosts" in problems(tmp_path, "a[1-20000]\nb\n", "x.txt")[0]


def problems_of_bytes(tmp_path: Path, raw: bytes) -> str:
    path = tmp_path / "raw"
    path.write_bytes(raw)
    with pytest.raises(SmallqError) as caught:
        load_inventory(path)
    return caught.value.message


def test_the_examples_load_and_fit_the_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    files = sorted(CLUSTERS.glob("*.yaml"))
    assert files
    for path in files:
        assert load_inventory(path).kind == "yaml"
        jsonschema.validate(yaml.safe_load(path.read_text()), SCHEMA, cls=jsonschema.Draft202012Validator)


def test_schema_and_reader_agree_on_wrong_values(tmp_path: Path) -> None:
    """Each key set to values of every wrong kind is refused by both, or by neither."""
    validator = jsonschema.Draft202012Validator(SCHEMA)
    good = yaml.safe_load(FULL)
    places = [(key,) for key in good]
    places += [("hosts", "dev1", key) for key in (*good["hosts"]["dev1"], "jump", "other", "password")]
    places += [("defaults", key) for key in ("user", "address", "relay", "shared_opp", "other")]
    places += [
        ("groups", "room"),
        ("groups", "room", "members"),
        ("groups", "room", "vars"),
        ("groups", "room", "other"),
    ]
    values: tuple[Any, ...] = (
        7,
        -1.5,
        True,
        None,
        "odd/../value",
        "a;b",
        "npu001",
        "/x",
        "",
        [],
        ["npu001"],
        {},
        {"a": 1},
    )
    tried = 0
    # Only the reader knows which hosts there are, what a file must hold together, and what a group takes along.
    only_reader = (
        "is no host here",
        "give it another",
        "no host or group",
        "true stands",
        "has a relay itself",
        "same address",
    )
    for place, value in itertools.product(places, values):
        changed = json.loads(json.dumps(good))
        holder = changed
        for key in place[:-1]:
            holder = holder[key]
        holder[place[-1]] = value
        path = tmp_path / "changed.yaml"
        path.write_text(json.dumps(changed))
        try:
            load_inventory(path)
            found: list[str] = []
        except SmallqError as error:
            found = [item.message for item in error.problems]
        found = [item for item in found if not any(text in item for text in only_reader)]
        errors = [error.message for error in validator.iter_errors(changed)]
        assert bool(found) == bool(errors), (place, value, found, errors)
        tried += 1
    assert tried == len(places) * len(values)


@pytest.mark.skipif(not shutil.which("scontrol"), reason="no scontrol here")
@pytest.mark.parametrize("text", ["npu[001-016,020],login1", "a[1-2]b[01-10]", "x[9-11]", "n[007]"])
def test_as_slurm_expands(text: str) -> None:
    done = subprocess.run(["scontrol", "show", "hostnames", text], capture_output=True, text=True, timeout=20)
    assert expand_list(text) == done.stdout.split()
