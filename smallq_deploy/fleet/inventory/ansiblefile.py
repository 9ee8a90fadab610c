"""The two texts of Ansible inventories, INI and YAML, as an AnsibleDraft."""

from __future__ import annotations

import re
import shlex
from typing import Any

from smallq_deploy.fleet.hosts import Inventory
from smallq_deploy.fleet.inventory.ansible import AnsibleDraft
from smallq_deploy.fleet.inventory.ranges import quoted
from smallq_deploy.fleet.inventory.settings import SECRET, group_name_problem, near
from smallq_deploy.package.yamlfile import Opaque, Reader, Value

_SECTION = re.compile(r"\[([^:\]\s]+)(?::(\w+))?\]\s*(?:[#;].*)?")
_ALL, _UNGROUPED = "all", "ungrouped"
_KINDS = ("hosts", "children", "vars")


def read_ini(reader: Reader, name: str, text: str) -> Inventory:
    """Raises PackageError BAD_INVENTORY."""
    draft = AnsibleDraft(reader, name, "ansible-ini")
    section, kind = _UNGROUPED, "hosts"
    wanted: dict[str, int] = {}  # groups that must stand somewhere, and the line that says so
    variables: dict[str, dict[str, Value]] = {}
    for line, raw in enumerate(text.splitlines(), start=1):
        row = raw.strip()
        if not row or row[0] in "#;":
            continue
        if draft.hopeless:
            break
        if row[0] == "[" and (match := _SECTION.fullmatch(row)):
            section, kind = match[1], match[2] or "hosts"
            _check_group(reader, section, line)
            if kind not in _KINDS:
                reader.add(line, "", f"[{section:.80}:{kind:.40}] is none of [group], [group:vars], [group:children]")
            if kind == "vars":
                wanted.setdefault(section, line)
            else:
                draft.group(section, line)
        elif kind == "hosts":
            _host_line(draft, section, row, line)
        elif kind == "children":
            child = row.partition("#")[0].strip()
            wanted.setdefault(child, line)
            draft.groups[section].children[child] = None
        elif kind == "vars":
            key, sign, value = (part.strip() for part in row.partition("="))
            if sign:
                variables.setdefault(section, {})[key] = _value(reader, key, value, line)
            else:
                reader.add(line, "", f"in [{section:.80}:vars] a line is name=value")
    for group, line in wanted.items():
        if group not in draft.groups:
            reader.add(line, "", f"{quoted(group)} is no group here{near(group, draft.groups)}")
    for group, said in variables.items():
        draft.group(group, 0).vars.update(said)
    return draft.inventory()


def _check_group(reader: Reader, name: str, line: int) -> None:
    if name not in (_ALL, _UNGROUPED) and (why := group_name_problem(name)):
        reader.add(line, "", why)


def _host_line(draft: AnsibleDraft, group: str, row: str, line: int) -> None:
    """``npu[01:20] ansible_user=x``; what is wrong is not repeated, it may be a secret."""
    try:
        # shlex takes a tenth of a millisecond for a line; most have nothing for it.
        words = shlex.split(row, comments=True) if any(sign in row for sign in "'\"\\#") else row.split()
    except ValueError:
        draft.reader.add(line, "", "has an open quote")
        return
    said: dict[str, Value] = {}
    for at, word in enumerate(words[1:], start=2):
        key, sign, value = word.partition("=")
        if not sign:
            draft.reader.add(line, "", f"word {at} of the line is not name=value")
        else:
            said[key] = _value(draft.reader, key, value, line)
    if words:
        draft.add(words[0], group, said, line)


def _value(reader: Reader, key: str, text: str, line: int) -> Value:
    """A value as Ansible's INI has them: Python's literals, else text."""
    raw: Any = text
    if SECRET.search(key):
        raw = Opaque()
    elif re.fullmatch(r"-?(0|[1-9][0-9]{0,17})", text):
        raw = int(text)
    elif text in ("True", "False"):
        raw = text == "True"
    elif len(text) > 1 and text[0] == text[-1] and text[0] in "'\"" and text[0] not in text[1:-1]:
        raw = text[1:-1]
    return Value(reader, raw, line, key[:80], line)


def read_yaml(reader: Reader, name: str, raw: bytes) -> Inventory:
    """Also what ``--list`` of programs and of ansible-inventory prints. ``reader`` is lenient.

    Raises PackageError BAD_INVENTORY.
    """
    draft = AnsibleDraft(reader, name, "ansible-yaml")
    root: dict[str, Value] = reader.parse(raw).as_type(dict) or {}
    meta = _members(root["_meta"]) if "_meta" in root else {}
    # Groups in groups, without recursion; the reader has bounded how deep they are.
    todo = [(group, value) for group, value in root.items() if group != "_meta"]
    for group, value in todo:
        _check_group(reader, group, value.key_line)
        known = draft.group(group, value.key_line)
        parts = {"hosts": value} if isinstance(value.raw, list) else _members(value)
        for key, part in parts.items():
            if key not in _KINDS:
                draft.warn(f"{group:.80}: {key:.80} is not used; a group has hosts, children and vars")
                continue
            inside = _members(part)
            if key == "vars":
                known.vars.update(inside)
            elif key == "children":
                known.children.update(dict.fromkeys(inside))
                todo += inside.items() if isinstance(part.raw, dict) else ()
            else:
                for word, said in inside.items():
                    draft.add(word, group, _members(said), said.key_line)
                    if draft.hopeless:
                        break
    for host, said in _members(meta["hostvars"]).items() if "hostvars" in meta else ():
        if host in draft.draft.hosts:
            draft.add(host, _ALL, _members(said), said.key_line)
    return draft.inventory()


def _members(value: Value) -> dict[str, Value]:
    """A mapping's; those of a list of names have no value. Nothing at all is empty."""
    if value.raw is None:
        return {}
    if not isinstance(value.raw, list):
        return value.as_type(dict) or {}
    names = [(item, item.as_type(str)) for item in value.raw]
    return {name: Value(item.reader, None, item.line, item.where, item.line) for item, name in names if name}
