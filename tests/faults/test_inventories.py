"""Row 11, inventories: hostile files of every kind get a typed error with its line, or hosts that harm nothing."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from smallq_deploy.base.errors import SmallqError
from smallq_deploy.fleet.hosts import Inventory
from smallq_deploy.fleet.inventory.load import load_inventory
from tests.faults.test_manifests import INJECTED, SEED, TEXTS, attempt, guarded, hostile
from tests.support.faultrows import FULL, FaultRow

OWN = """\
schema: 1
name: lab
description: rooms
defaults: {user: ascend, key: /k/id, jump: 'ops@bastion:22', timeout: 900}
hosts:
  npu[001-012]: {address: '10.0.0.[1-12]', python: python3.11}
  dev1:
    port: 2222
    cann: /opt/cann
    opp: /data/opp
    vendor: customize
    relay: npu001
    known_hosts: /k/known
groups:
  rack1:
    members: ['npu[001-006]']
    vars: {shared_opp: label, user: root}
  room:
    members: [rack1, npu007]
    vars:
      timeout: 60
"""
ANSIBLE = """\
all:
  vars: {ansible_user: everyone, ansible_ssh_common_args: '-J me@bastion'}
  children:
    npus:
      hosts:
        'npu[01:03]': {ansible_port: 22, ansible_host: host, smallq_cann: /opt/cann}
      vars:
        ansible_python_interpreter: /usr/bin/python3
"""
INI = """\
login1 ansible_host=10.1.1.1
[npus]
npu[01:04]:2222 ansible_user=root ansible_password=hunter2
[npus:vars]
ansible_ssh_common_args = -J me@bastion
[room:children]
npus
"""
LIST = "npu[001-012]\nlogin1, login2  # remark\n"
HUGE = {
    "hosts.yaml": b"schema: 1\nhosts:\n" + b"  - npu[1-2]xxxxxxxxxxxx\n" * 100_000,
    "chain.yaml": b"schema: 1\nhosts: ['n[1-20000]']\ngroups:\n"
    + b"".join(b"  g%d: {members: [g%d]}\n" % (n, n + 1) for n in range(1999))
    + b"  g1999: {members: ['n[1-20000]']}\n",
    "groups.yaml": b"schema: 1\nhosts: [a]\ngroups:\n" + b"".join(b"  g%d: {members: [a]}\n" % n for n in range(9999)),
    "typos.yaml": b"schema: 1\nhosts: ['npu[1-20000]']\ngroups:\n  g:\n    members:\n"
    + b"".join(b"    - npi%d\n" % n for n in range(19_000)),
    "ranges.ini": b"[a]\n" + b"npu[1:20000]\n" * 1000 + b"x;y\n",
    "sections.ini": b"".join(b"[g%d]\n" % n for n in range(300_000)),
    "repeated.txt": b"npu[1-20000]\n" * 700_000,
    "brackets.txt": b"[" * 5_000_000,
    "product.txt": b"n" + b"[1-9]" * 100_000,
}
_WORD = re.compile(r"(?!-)[A-Za-z0-9._:@/+~=,\[\]-]*")


def unsafe(found: Inventory) -> str:
    """What of an accepted inventory could do harm in a command line, a path or a report."""
    for host in found:
        for key, value in host.to_dict().items():
            for word in value if isinstance(value, list) else [value]:
                if isinstance(word, str) and not _WORD.fullmatch(word):
                    return f"accepted {key}: {word!a:.200}"
        if not host.name or host.name.startswith(".") or "/" in host.name:
            return f"accepted the name {host.name!a}"
        if any(".." in path.split("/") for path in (host.cann, host.opp, host.vendor, host.python)):
            return f"accepted a path with .. at {host.name}"
    return "" if len(found) else "accepted no host at all"


def poor(found: Any, must_fail: bool) -> str:
    """Why this is no good answer; '' when it is one."""
    if isinstance(found, str):
        return found
    if not isinstance(found, SmallqError):
        return "accepted" if must_fail else unsafe(found)
    for problem in found.problems:
        if problem.code != "BAD_INVENTORY" or not problem.hint:
            return f"{problem.code} {problem.message} ({problem.hint})"
        if f":{problem.details['line']}: " not in problem.message:
            return f"no line: {problem.message}"
        if len(problem.message) > 1500 or "hunter2" in problem.message:
            return f"a message of {len(problem.message)} characters: {problem.message:.200}"
    return ""


def read(place: Path, inputs: list[tuple[str, str, bytes, bool]]) -> Iterator[str]:
    for what, name, raw, must_fail in inputs:
        path = place / name
        path.write_bytes(raw)
        if why := poor(attempt(partial(load_inventory, path)), must_fail):
            yield f"{what}, {name}: {why}"


def test_hostile_texts(tmp_path: Path, fault_row: FaultRow) -> None:
    """Every text, as each kind of inventory (a fifth of the pairs in `make test`), and what is huge."""
    forms = ("m.yaml", "m.ini", "m")
    inputs = [(what, name, raw, name != "m.ini") for what, raw in TEXTS.items() for name in forms]
    inputs = inputs if FULL else inputs[::5]
    inputs += [("huge", name, raw, True) for name, raw in list(HUGE.items())[:: 1 if FULL else 3]]
    fault_row("11", len(inputs), guarded(lambda: read(tmp_path, inputs)), what="inventories, fixed texts")
    assert not Path("/tmp/owned").exists()


def test_a_value_of_every_injection(tmp_path: Path, fault_row: FaultRow) -> None:
    """Shell metacharacters, paths and look-alikes as names and values, in each kind of file."""
    inputs = []
    for text in INJECTED:
        word = f"npu{text}"
        inputs.append(("host", "m.yaml", yaml.safe_dump({"schema": 1, "hosts": {word: None}}).encode(), False))
        for key in ("address", "user", "jump", "key", "known_hosts", "python", "cann", "opp", "vendor", "relay"):
            document = {"schema": 1, "hosts": {"a": {key: text}}}
            inputs.append((f"{key} {text!a:.40}", "m.yaml", yaml.safe_dump(document).encode(), False))
        if text.isprintable():
            inputs.append(("line", "m.ini", f"[g]\n{word} ansible_host={text}\n".encode(), False))
            inputs.append(("variable", "m.ini", f"[g]\na\n[g:vars]\nansible_user={text}\n".encode(), False))
            inputs.append(("line", "m", f"{word}\n".encode(), False))
    inputs = inputs if FULL else inputs[::5]
    fault_row("11", len(inputs), guarded(lambda: read(tmp_path, inputs)), what="inventories, injected values")


def changed_lines(text: str, chance: random.Random) -> bytes:
    """A text of lines with a few bytes changed."""
    raw = bytearray(text.encode())
    for _ in range(chance.randint(1, 6)):
        at = chance.randrange(len(raw))
        raw[at : at + chance.randint(0, 4)] = chance.choice(
            [
                b"[",
                b"]",
                b":",
                b"=",
                b"'",
                b'"',
                b"\\",
                b"\x00",
                b"\xff",
                b"\n",
                b"#",
                b";",
                b"[1:2]",
                b"$(id)",
                b"",
                b" ",
            ]
        )
    return bytes(raw)


def test_changed_inventories(tmp_path: Path, fault_row: FaultRow) -> None:
    chance = random.Random(SEED)
    inputs: list[tuple[str, str, bytes, bool]] = []
    while len(inputs) < (3000 if FULL else 120):
        name, base = chance.choice([("m.yaml", OWN), ("m.yaml", OWN), ("a.yml", ANSIBLE), ("m.ini", INI), ("m", LIST)])
        if name == "m.yaml":
            what, raw, must_fail = hostile(base.encode(), chance)
            if what.startswith("unknown"):  # one more host without settings is no mistake
                must_fail = "('hosts',)" not in what
        elif name == "a.yml":
            what, raw, _ = hostile(base.encode(), chance)
            must_fail = False
        else:
            what, raw, must_fail = "lines", changed_lines(base, chance), False
        inputs.append((what, name, raw, must_fail))
    found = guarded(lambda: read(tmp_path, inputs))
    fault_row("11", len(inputs), found, what=f"inventories, changed (seed {SEED})")


def test_the_checker_sees_what_is_poor(tmp_path: Path) -> None:
    good = tmp_path / "m"
    good.write_text("a\n")
    assert poor(load_inventory(good), must_fail=True) == "accepted"
    assert poor("RecursionError: x", must_fail=False)
    assert poor(SmallqError("X", "x", hint="x"), must_fail=False)
    for bad in ("a;b", "-x", ".x", "a/b"):
        inventory = load_inventory(good)
        object.__setattr__(inventory.hosts[0], "name", bad)
        assert poor(inventory, must_fail=False).startswith("accepted")
