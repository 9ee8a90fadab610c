"""Inventories of Ansible: the same hosts, groups and connection variables as Ansible's own reader finds in them."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from smallq_deploy.base.errors import SmallqError
from smallq_deploy.fleet.hosts import Host, Inventory
from smallq_deploy.fleet.inventory.load import inventory_digest, load_inventory

ANSIBLE = shutil.which("ansible-inventory", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")

INI = {
    "plain": """\
# before any section
login1 ansible_host=10.1.1.1 ansible_user="me" ; not a remark=1

[npus]
npu[01:04]:2222 ansible_user=root
npu[a:c]-x  ansible_port=2200   # a remark
npu[0:6:3]

[npus:vars]
ansible_user = all-npus
ansible_become = yes
ansible_python_interpreter=/usr/bin/python3.11

[all:vars]
ansible_user=everyone
ansible_ssh_private_key_file=/home/x/.ssh/id
""".replace(" ; not a remark=1", ""),
    "groups": """\
[east]
npu1
npu2 ansible_become=false
[west]
npu3
npu2
[room:children]
east
west
[site:children]
room
[site:vars]
ansible_user=site
ansible_port=1
[room:vars]
ansible_user=room
ansible_become=True
[west:vars]
ansible_user=west
[east:vars]
ansible_user=east
ansible_become='yes'
[other]
npu1
npu4
[other:vars]
ansible_port=7
""",
    "priority": """\
[a]
h
[b]
h
[z]
h
[a:vars]
ansible_user=a
ansible_group_priority=10
[b:vars]
ansible_user=b
[z:vars]
ansible_user=z
ansible_port=9
""",
    "twice": """\
[a]
h ansible_user=first ansible_port=1
[b]
h ansible_user=second
[c]
h
[ungrouped]
u ansible_host=::1
[empty]
""",
}
YAML = {
    "plain": """\
all:
  vars: {ansible_user: everyone}
  hosts:
    login1: {ansible_host: 10.1.1.1, ansible_port: 22}
    bare:
  children:
    npus:
      hosts:
        npu[01:03]:
          ansible_user: root
      vars:
        ansible_become: true
        own: {deep: [1, {x: 2020-01-01}]}
    racks:
      children:
        rack1: {hosts: {npu01: }}
        rack2:
          hosts:
            npu02: {ansible_port: 2222}
          vars: {ansible_port: 1, ansible_user: rack}
""",
    "flat": """\
---
web:
  hosts:
    a: {ansible_user: 1001}
    b:
db:
  hosts: {b: {ansible_become: 'no'}}
  children: {web: }
  vars: {ansible_become: 'yes', ansible_ssh_private_key_file: /k}
""",
}


def write(tmp_path: Path, text: str, name: str) -> Path:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return path


def ansible(tmp_path: Path, path: Path, *options: str) -> str:
    env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "LC_ALL": "C.UTF-8", "ANSIBLE_LOCAL_TEMP": str(tmp_path)}
    command = [str(ANSIBLE), "-i", str(path), "--list", *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=env, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    return done.stdout


def groups_in(listing: dict[str, Any]) -> dict[str, set[str]]:
    """Every group of ``ansible-inventory --list`` that has hosts, with those of its children."""

    def below(name: str) -> set[str]:
        group = listing.get(name, {})
        return set(group.get("hosts", ())).union(*(below(child) for child in group.get("children", ())))

    return {name: found for name in listing if name not in ("_meta", "all", "ungrouped") and (found := below(name))}


def truth(value: Any) -> bool:
    return str(value).lower() in ("yes", "true", "1", "on")


def same_as_ansible(inventory: Inventory, listing: dict[str, Any]) -> None:
    hostvars = listing["_meta"]["hostvars"]
    hosts = set(hostvars).union(*(group.get("hosts", ()) for group in listing.values()))
    assert {host.name for host in inventory} == hosts
    assert {name: set(names) for name, names in inventory.groups.items() if names} == groups_in(listing)
    for host in inventory:
        said = hostvars.get(host.name, {})
        expected = (
            said.get("ansible_host", ""),
            said.get("ansible_port", 0),
            str(said.get("ansible_user", "")),
            said.get("ansible_ssh_private_key_file", ""),
            truth(said.get("ansible_become", False)),
            said.get("ansible_python_interpreter", ""),
        )
        assert (host.address, host.port, host.user, host.key, host.sudo, host.python) == expected, host.name


@pytest.mark.skipif(ANSIBLE is None, reason="no ansible-core here")
@pytest.mark.parametrize("kind", ["ini", "yaml"])
def test_as_ansible_itself_reads_it(tmp_path: Path, kind: str) -> None:
    for name, text in (INI if kind == "ini" else YAML).items():
        path = write(tmp_path, text, f"{name}.{kind}")
        inventory = load_inventory(path)
        assert inventory.kind == f"ansible-{kind}"
        same_as_ansible(inventory, json.loads(ansible(tmp_path, path)))


@pytest.mark.skipif(ANSIBLE is None, reason="no ansible-core here")
@pytest.mark.parametrize("options", [(), ("--yaml",), ("--yaml", "--export")])
def test_what_ansible_inventory_prints_is_read_on_stdin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...]
) -> None:
    path = write(tmp_path, INI["groups"], "hosts.ini")
    (tmp_path / "group_vars").mkdir()
    (tmp_path / "group_vars" / "east.yml").write_text("ansible_user: from-group-vars\n")
    plain = load_inventory(path)
    assert any("group_vars beside it are not read" in warning for warning in plain.warnings)
    printed = ansible(tmp_path, path, *options)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(printed.encode())))
    piped = load_inventory("-")
    assert piped.kind == "ansible-yaml"
    assert {host.name: host.user for host in piped}["npu1"] == "from-group-vars"
    assert {host.name: host.port for host in piped} == {host.name: host.port for host in plain}
    assert {name: set(hosts) for name, hosts in piped.groups.items()} == {
        name: set(hosts) for name, hosts in plain.groups.items()
    }


def one(tmp_path: Path, variables: str) -> tuple[Host, tuple[str, ...]]:
    inventory = load_inventory(write(tmp_path, f"[g]\nh {variables}\n", "hosts"))
    return inventory.hosts[0], inventory.warnings


@pytest.mark.parametrize(
    ("arguments", "jump"),
    [
        ("-J me@bastion:2222", "me@bastion:2222"),
        ("-Jbastion", "bastion"),
        ("-o ProxyJump=bastion", "bastion"),
        ("-oProxyJump=me@bastion", "me@bastion"),
        ("-o 'ProxyJump me@bastion'", "me@bastion"),
        ("-o ProxyCommand='ssh -W %h:%p -q me@bastion'", "me@bastion"),
        ("-o ProxyCommand='/usr/bin/ssh -p 2222 -i key -W %h:%p bastion'", "bastion:2222"),
        ("-o ProxyCommand='nc -x proxy %h %p'", ""),
        ("-o ProxyJump=none", ""),
    ],
)
def test_jump_hosts(tmp_path: Path, arguments: str, jump: str) -> None:
    quoted = arguments.replace("'", '\\"')
    host, _ = one(tmp_path, f'ansible_ssh_common_args="{quoted}"')
    assert host.jump == jump


def test_what_is_not_used_is_said_once_for_each_kind(tmp_path: Path) -> None:
    text = """\
[g]
h1 ansible_password=hunter2 ansible_shell_type=sh mine=1 ansible_ssh_common_args='-o StrictHostKeyChecking=no -C'
h2 ansible_password=hunter3 ansible_become_pass=hunter4 ansible_shell_type=csh other=2 ansible_become_user=oracle
h3 ansible_connection=ssh ansible_become_user=root ansible_become_method=sudo ansible_python_interpreter=auto_silent
"""
    inventory = load_inventory(write(tmp_path, text, "hosts"))
    assert sorted(inventory.warnings) == sorted(
        [
            "ansible_password is not read: an inventory needs no secrets, use keys or the ssh agent",
            "ansible_become_pass is not read: an inventory needs no secrets, use keys or the ssh agent",
            "ansible_shell_type is not used",
            "ansible_ssh_common_args: stricthostkeychecking is not used: host keys are verified",
            "ansible_ssh_common_args: -C is not used",
            "ansible_become_user is not used: commands run as the login user, or as root with sudo",
            "variables that are not ours are not used: mine, other",
        ]
    )
    assert [host.python for host in inventory] == ["", "", ""]
    assert "hunter" not in json.dumps([host.to_dict() for host in inventory]) + repr(inventory)


def test_secrets_and_vaults_in_yaml_are_never_read(tmp_path: Path) -> None:
    text = """\
all:
  hosts:
    a:
      ansible_password: !vault |
        $ANSIBLE_VAULT;1.1;AES256
        hunter2
      ansible_become_password: 2020-01-01
      token: [hunter2]
      ansible_user: bob
"""
    inventory = load_inventory(write(tmp_path, text, "hosts.yml"))
    assert inventory.hosts[0].user == "bob"
    assert "hunter2" not in repr(inventory)
    with pytest.raises(SmallqError) as caught:
        load_inventory(write(tmp_path, text.replace("bob", "!vault hunter2"), "hosts.yml"))
    assert "must be text, not something else" in caught.value.message
    assert "hunter2" not in caught.value.message


def test_our_own_words_in_an_inventory_of_ansible(tmp_path: Path) -> None:
    text = """\
[rack]
npu[1:3]
[rack:vars]
smallq_relay=npu1
smallq_shared_opp=true
smallq_cann=/opt/cann
smallq_timeout=60
smallq_jump=me@bastion
"""
    hosts = load_inventory(write(tmp_path, text, "hosts.ini")).hosts
    assert [host.relay for host in hosts] == ["", "npu1", "npu1"]
    assert {(host.shared_opp, host.cann, host.timeout, host.jump) for host in hosts} == {
        ("rack", "/opt/cann", 60.0, "me@bastion")
    }


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        (
            "h.ini",
            "[g:children]\nnone\n[none2:vars]\na=b\n[g]\nx\n",
            ["2: 'none' is no group here", "3: 'none2' is no"],
        ),
        ("h.ini", "[g]\nx user\n", ["2: word 2 of the line is not name=value"]),
        ("h.ini", "[g]\nx p='hunter2\n", ["2: has an open quote"]),
        ("h.ini", "[g]\nx\n[g:vars]\nhunter2\n", ["4: in [g:vars] a line is name=value"]),
        ("h.ini", "[g:what]\nx\n", ["1: [g:what] is none of"]),
        ("h.ini", "[g h]\nx\n", ["1: "]),
        ("h.ini", "[a:children]\nb\n[b:children]\na\n[a]\nx\n", ["groups in a circle: a > b > a"]),
        (
            "h.ini",
            "[g]\nx ansible_port=99999 ansible_user='a;b'\n",
            ["2: ansible_port: must be", "2: ansible_user: is not"],
        ),
        ("h.ini", "[g]\nx ansible_host={{ip}}\n", ["2: ansible_host: is a template"]),
        ("h.ini", "[g]\nx[1:99999999]\n", ["stands for more than 20000 names"]),
        ("h.ini", "[g]\nx[01:100]\n", ["two widths"]),
        ("h.ini", "[g]\nx[3:1]\n", ["runs backwards"]),
        ("h.ini", "[g]\nx[1-3]\n", ["not of Ansible's form [01:20]"]),
        ("h.ini", "[g]\n$(id)\n", ["2: '$(id)' is no host name"]),
        ("h.ini", "[$(id)]\nx\n", ["1: '$(id)' is no group name"]),
        ("h.yml", "all:\n  hosts:\n    'a;b':\n", ["3: 'a;b' is no host name"]),
        (
            "h.yml",
            "all:\n  hosts:\n    x: {ansible_port: [22]}\n",
            ["3: all.hosts.x.ansible_port: must be a whole number"],
        ),
        ("h.yml", "all:\n  hosts: x\n", ["2: all.hosts: must be a mapping, not text"]),
        ("h.yml", "a: {hosts: {x: }, children: {b: {children: {a: }}}}\n", ["groups in a circle"]),
        ("h.yml", "all:\n  hosts: &x\n    a:\n  vars: *x\n", ["4: not readable as YAML: aliases"]),
        ("h.yml", "all:\n  hosts:\n    a:\n    a:\n", ["4: all.hosts.a: the key is given twice"]),
    ],
)
def test_mistakes_have_their_line(tmp_path: Path, name: str, text: str, expected: list[str]) -> None:
    path = write(tmp_path, text, name)
    with pytest.raises(SmallqError) as caught:
        load_inventory(path)
    messages = [problem.message for problem in caught.value.problems]
    for line in expected:
        assert any(line in message for message in messages), messages
    assert not any("hunter2" in message for message in messages)
    assert {problem.code for problem in caught.value.problems} == {"BAD_INVENTORY"}


def test_one_machine_under_two_names_is_said(tmp_path: Path) -> None:
    inventory = load_inventory(write(tmp_path, "[g]\na ansible_host=10.0.0.1\nb ansible_host=10.0.0.1\n", "h.ini"))
    assert inventory.warnings == ("b has the same address and port as a",)


def test_a_kind_can_be_forced(tmp_path: Path) -> None:
    path = write(tmp_path, "a\nb\n", "names")
    assert load_inventory(path).kind == "list"
    forced = load_inventory(f"ansible:{path}")
    assert (forced.kind, inventory_digest(forced)) == ("ansible-ini", inventory_digest(load_inventory(path)))
