"""Inventories of Ansible, INI and YAML: its groups, order of precedence and connection variables, as our settings.

What is not used is said once for each kind. Values of variables that may be secrets are never read.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from smallq_deploy.fleet.hosts import Inventory
from smallq_deploy.fleet.inventory.assemble import Draft, Settings, assemble, groups_of, labelled, lineage, members
from smallq_deploy.fleet.inventory.ranges import MAX_HOSTS, quoted
from smallq_deploy.fleet.inventory.settings import SECRET, host_name_problem, read_setting
from smallq_deploy.package.yamlfile import Reader, Value

_VARIABLES = {
    "ansible_host": "address",
    "ansible_ssh_host": "address",
    "ansible_port": "port",
    "ansible_ssh_port": "port",
    "ansible_user": "user",
    "ansible_ssh_user": "user",
    "ansible_ssh_private_key_file": "key",
    "ansible_private_key_file": "key",
    "ansible_become": "sudo",
    "ansible_python_interpreter": "python",
    # What Ansible has no word for.
    **{
        f"smallq_{key}": key
        for key in ("jump", "known_hosts", "cann", "opp", "vendor", "relay", "shared_opp", "timeout")
    },
}
_SSH_ARGUMENTS = ("ansible_ssh_common_args", "ansible_ssh_extra_args")
_MAX_NAMED = 500_000
_ALL, _UNGROUPED = "all", "ungrouped"
_PRIORITY = "ansible_group_priority"
# host, host:port, [IPv6], [IPv6]:port; ranges have colons in brackets.
_PORT = re.compile(
    r"(?:\[(?P<six>[0-9A-Fa-f.]*:[0-9A-Fa-f.]*:[0-9A-Fa-f:.]*[0-9A-Fa-f])\](?!\w)|(?P<name>(?:[^:\[\]]|\[[^\]]*\])+))"
    r"(?::(?P<port>[0-9]+))?"
)
_RANGE = re.compile(r"\[([^\[\]:]+):([^\[\]:]+)(?::([0-9]{1,9}))?\]")


@dataclass
class Group:
    """``hosts`` and ``children`` it names itself; ``line`` is where it was first seen."""

    line: int
    hosts: dict[str, None] = field(default_factory=dict)
    children: dict[str, None] = field(default_factory=dict)
    vars: dict[str, Value] = field(default_factory=dict)


class AnsibleDraft:
    """Hosts and groups as they are read; :meth:`inventory` judges them."""

    def __init__(self, reader: Reader, name: str, kind: str) -> None:
        self.draft = Draft(reader, name, kind)
        self.reader = reader
        self.groups: dict[str, Group] = {_ALL: Group(0), _UNGROUPED: Group(0)}
        self._vars: dict[str, dict[str, Value]] = {}
        self._others: dict[str, None] = {}
        self._named = 0
        self.hopeless = False  # so much is wrong that reading on would only take time

    def group(self, name: str, line: int) -> Group:
        return self.groups.setdefault(name, Group(line))

    def warn(self, text: str) -> None:
        if text not in self.draft.warnings:
            self.draft.warnings.append(text)

    def add(self, word: str, group: str, variables: Mapping[str, Value], line: int) -> None:
        """Hosts of ``word`` (``npu[01:20]:2222``) in ``group``, with variables that go over earlier ones."""
        match = _PORT.fullmatch(word)
        try:
            names = expand_ansible(match["name"]) if match and match["name"] else [match["six"] if match else word]
        except ValueError as error:
            self.reader.add(line, "", str(error))
            return
        self._named += len(names)
        if self._named > _MAX_NAMED:
            self.reader.add(line, "", f"hosts are named more than {_MAX_NAMED} times")
            self.hopeless = True
            return
        added = dict(variables)
        if match and match["port"]:
            added.setdefault("ansible_port", Value(self.reader, int(match["port"][:9]), line, "ansible_port"))
        for name in names:
            if why := host_name_problem(name):
                self.reader.add(line, "", why)
                break
            self.draft.add_host(name, line)
            self.groups[group].hosts[name] = None
            self._vars.setdefault(name, {}).update(added)
        self.hopeless = self.draft.hopeless

    def inventory(self) -> Inventory:
        """Raises PackageError BAD_INVENTORY, every problem with its line."""
        for name, group in self.groups.items():
            for child in group.children:
                if child not in self.groups:
                    self.reader.add(group.line, name, f"its child {quoted(child)} is no group here")
        self.reader.finish()
        above = belongs = None
        try:
            above = lineage({name: group.children for name, group in self.groups.items()})
            belongs = members(self.draft.hosts, {name: group.hosts for name, group in self.groups.items()}, above)
        except ValueError as error:
            self.reader.add(0, "", str(error))
            self.reader.finish()
        assert above is not None and belongs is not None
        settings = self._settings(belongs, above)
        shown = [name for name in self.groups if name not in (_ALL, _UNGROUPED)]
        belongs = {host: [name for name in groups if name in shown] for host, groups in belongs.items()}
        self.draft.groups = groups_of(shown, belongs)
        if self._others:
            some = ", ".join(list(self._others)[:5])
            more = f" and {len(self._others) - 5} more" if len(self._others) > 5 else ""
            self.warn(f"variables that are not ours are not used: {some}{more}")
        return assemble(self.draft, settings, belongs)

    def _settings(self, belongs: Mapping[str, list[str]], above: Mapping[str, set[str]]) -> dict[str, Settings]:
        """By Ansible's precedence: all, then outer groups before inner ones, by priority and name; then the host."""
        depth: dict[str, int] = {}
        for name in sorted(above, key=lambda name: len(above[name])):
            depth[name] = 0 if name == _ALL else 1 + max((depth[item] for item in above[name]), default=0)
        said = {name: labelled(self._translated(group.vars), name) for name, group in self.groups.items()}
        order = sorted(self.groups, key=lambda name: (depth[name], self._priority(self.groups[name]), name))
        place = {name: at for at, name in enumerate(order)}
        found: dict[str, Settings] = {}
        translated: dict[tuple[tuple[str, int], ...], Settings] = {}
        for host, groups in belongs.items():
            own: Settings = dict(said[_ALL])
            for name in sorted(groups, key=place.__getitem__):
                own.update(said[name])
            variables = self._vars[host]
            # Hosts of one range share their values; a problem of these is one problem.
            key = tuple((name, id(value)) for name, value in variables.items())
            if key not in translated:
                translated[key] = labelled(self._translated(variables), "")
            own.update(translated[key])
            found[host] = own
        return found

    def _priority(self, group: Group) -> int:
        value = group.vars.get(_PRIORITY)
        raw = None if value is None else value.raw
        return int(raw) if isinstance(raw, (int, str)) and re.fullmatch(r"-?[0-9]{1,9}", str(raw)) else 1

    def _translated(self, variables: Mapping[str, Value]) -> Settings:
        found: Settings = {}
        for name, value in variables.items():
            key = _VARIABLES.get(name)
            if key is not None:
                read = _read(key, value)
                if read is not None:
                    found[key] = Value(value.reader, read, value.line, value.where)
            elif name in _SSH_ARGUMENTS:
                found.update(self._ssh_arguments(name, value))
            elif name != _PRIORITY:
                self._not_used(name, value)
        return found

    def _not_used(self, name: str, value: Value) -> None:
        if SECRET.search(name):
            self.warn(f"{name} is not read: an inventory needs no secrets, use keys or the ssh agent")
        elif name in ("ansible_become_user", "ansible_become_method"):
            if value.raw not in ("root", "sudo"):
                self.warn(f"{name} is not used: commands run as the login user, or as root with sudo")
        elif name == "ansible_connection" and value.raw in ("ssh", "smart", "paramiko", "paramiko_ssh"):
            return
        elif name.startswith("ansible_"):
            self.warn(f"{name:.80} is not used")
        else:
            self._others[name[:80]] = None

    def _ssh_arguments(self, name: str, value: Value) -> Settings:
        found: Settings = {}
        try:
            words = shlex.split(value.as_type(str) or "")
        except ValueError:
            value.problem("has an open quote")
            return found
        for option, text in _ssh_options(words):
            key = {"j": "jump", "proxyjump": "jump", "userknownhostsfile": "known_hosts"}.get(option)
            if option == "proxycommand":
                key, text = "jump", _jump_of(text)
            if key == "jump" and text and text != "none":
                jump = read_setting("jump", Value(value.reader, text, value.line, value.where))
                found.update({"jump": Value(value.reader, jump, value.line, value.where)} if jump else {})
            elif key == "known_hosts" and text != "/dev/null":
                path = _read("known_hosts", Value(value.reader, text, value.line, value.where))
                found.update({"known_hosts": Value(value.reader, path, value.line, value.where)} if path else {})
            elif option in ("stricthostkeychecking", "userknownhostsfile"):
                self.warn(f"{name}: {option} is not used: host keys are verified")
            else:
                self.warn(f"{name}: {option:.40} is not used")
        return found


def _ssh_options(words: list[str]) -> list[tuple[str, str]]:
    """(option in lower case, its value) of ssh's arguments: ``-J x``, ``-Jx``, ``-o Name=value``."""
    found = []
    rest = iter(words)
    for word in rest:
        if word.startswith("-o"):
            text = word[2:] or next(rest, "")
            option, _, argument = text.replace(" ", "=", 1).partition("=") if "=" not in text else text.partition("=")
            found.append((option.strip().lower(), argument.strip()))
        elif word.startswith("-J"):
            found.append(("j", word[2:] or next(rest, "")))
        else:
            found.append((word[:2], ""))
    return found


def _jump_of(command: str) -> str:
    """``ssh -W %h:%p -q user@bastion`` is a jump; any other command is not."""
    try:
        words = shlex.split(command)
    except ValueError:
        return ""
    if not words or os.path.basename(words[0]) != "ssh" or "-W" not in words or "%h:%p" not in words:
        return ""
    port, target, rest = "", "", iter(words[1:])
    for word in rest:
        if word in ("-W", "-o", "-i", "-F"):
            next(rest, "")
        elif word == "-p":
            port = ":" + next(rest, "")
        elif not word.startswith("-"):
            target = word
    return target + port if target else ""


def _read(key: str, value: Value) -> Any:
    """The setting of a variable, whose value may be text where we want a number."""
    raw = value.raw
    if isinstance(raw, str) and "{{" in raw:
        value.problem("is a template, which is not read here: write the value")
        return None
    if isinstance(raw, str):
        text = raw.strip().lower()
        if key in ("port", "timeout") and re.fullmatch(r"[0-9]{1,9}", text):
            raw = int(text)
        elif key == "sudo" and text in ("true", "yes", "on", "1", "false", "no", "off", "0"):
            raw = text in ("true", "yes", "on", "1")
        elif key == "shared_opp" and text in ("true", "yes", "false", "no"):
            raw = text in ("true", "yes")
        elif key == "python" and text.startswith("auto"):
            return None
        elif key in ("key", "known_hosts"):  # Ansible's are relative to where it was started
            raw = os.path.abspath(os.path.expanduser(raw)) if raw else raw
    elif isinstance(raw, int) and not isinstance(raw, bool) and key not in ("port", "timeout"):
        raw = bool(raw) if key == "sudo" and raw in (0, 1) else str(raw)
    return read_setting(key, Value(value.reader, raw, value.line, value.where))


def expand_ansible(word: str) -> list[str]:
    """The names of ``npu[01:20]``, ``npu[a:f]`` or ``npu[0:10:2]``. Raises ValueError."""
    names = [""]
    end = 0
    for match in _RANGE.finditer(word):
        texts = _column(match[1], match[2], int(match[3] or 1), word)
        if len(names) * len(texts) > MAX_HOSTS:
            raise ValueError(f"{quoted(word)} stands for more than {MAX_HOSTS} names")
        names = [name + word[end : match.start()] + text for name in names for text in texts]
        end = match.end()
    if re.search(r"[\[\]]", _RANGE.sub("", word)):
        raise ValueError(f"{quoted(word)} has a range that is not of Ansible's form [01:20]")
    return [name + word[end:] for name in names]


def _column(low: str, high: str, step: int, word: str) -> list[str]:
    low, high = low.strip(), high.strip()
    digits = re.fullmatch(r"[0-9]{1,18}", low) and re.fullmatch(r"[0-9]{1,18}", high)
    letters = re.fullmatch(r"[a-z]|[A-Z]", low) and re.fullmatch(r"[a-z]|[A-Z]", high)
    if not digits and not letters:
        raise ValueError(f"{quoted(word)} has a range that is not of Ansible's form [01:20]")
    if step < 1:
        raise ValueError(f"{quoted(word)} has a step of 0")
    first, last = (int(low), int(high)) if digits else (ord(low), ord(high))
    padded = bool(digits) and low.startswith("0") and len(low) > 1
    if padded and len(low) != len(high):
        raise ValueError(f"{quoted(word)} has two widths: Ansible wants [01:20], both of one length")
    if last < first:
        raise ValueError(f"{quoted(word)} runs backwards")
    if (last - first) // step >= MAX_HOSTS:
        raise ValueError(f"{quoted(word)} stands for more than {MAX_HOSTS} names")
    numbers = range(first, last + 1, step)
    return [str(n).zfill(len(low) if padded else 0) for n in numbers] if digits else [chr(n) for n in numbers]
