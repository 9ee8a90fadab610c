"""Our own inventories, ``manifests/clusters/*.yaml``; their format is in docs/reference/inventory.md."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from smallq_deploy.base.errors import PackageError, SmallqError
from smallq_deploy.fleet.hosts import Inventory
from smallq_deploy.fleet.inventory.assemble import (
    Draft,
    Settings,
    assemble,
    groups_of,
    labelled,
    lineage,
    members,
    suggestion,
)
from smallq_deploy.fleet.inventory.ranges import MAX_HOSTS, expand, quoted
from smallq_deploy.fleet.inventory.settings import (
    KEYS,
    SECRET,
    group_name_problem,
    host_name_problem,
    read_settings,
    unknown_key,
)
from smallq_deploy.package.yamlfile import Reader, Value

_SHARED = tuple(key for key in KEYS if key != "address")  # what more than one host may have
SIZE_LIMIT = 10 * 1024 * 1024


def bad_inventory(message: str, details: Mapping[str, Any]) -> SmallqError:
    """A mistake in an inventory, ours or Ansible's."""
    hint = "docs/reference/inventory.md lists the keys and their values"
    return PackageError("BAD_INVENTORY", message, hint=hint, details=details)


def reader_for(path: Path, *, lenient: bool = False) -> Reader:
    """A reader whose problems are those of an inventory."""
    return Reader(
        path,
        error=bad_inventory,
        limit=SIZE_LIMIT,
        # Below hosts and groups the keys are names.
        secret=lambda where, key: where not in ("hosts", "groups") and bool(SECRET.search(key)),
        lenient=lenient,
    )


def read_own(path: Path, raw: bytes) -> Inventory:
    """The inventory of a YAML file of ours. Raises PackageError BAD_INVENTORY, every problem with its line."""
    reader = reader_for(path)
    root = reader.parse(raw)
    top = members_of(root, ("schema", "hosts"), ("name", "description", "defaults", "groups"))
    if "schema" in top and top["schema"].as_type(int) not in (None, 1):
        top["schema"].problem("must be 1: a newer smallq-deploy is needed for others")
    if "description" in top:
        top["description"].text(r"[^\x00-\x08\x0b-\x1f\x7f]{1,2000}", "a description")
    name = top["name"].text(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}", "a name") if "name" in top else path.stem
    draft = Draft(reader, name, "yaml")
    settings = _hosts(draft, top["hosts"]) if "hosts" in top else {}
    defaults = labelled(read_settings(_mapping(top["defaults"]), _SHARED), "all") if "defaults" in top else {}
    groups = _mapping(top["groups"]) if "groups" in top else {}
    draft.groups = dict.fromkeys(groups, ())
    own: dict[str, list[str]] = {}
    inner: dict[str, list[str]] = {}
    vars_: dict[str, Settings] = {}
    for group, value in groups.items():
        if why := group_name_problem(group):
            reader.add(value.key_line, value.where, why)
        if group in draft.hosts:
            reader.add(value.key_line, value.where, f"a host has the name {group!r} too (line {draft.hosts[group]})")
        parts = members_of(value, ("members",), ("vars",))
        vars_[group] = labelled(read_settings(_mapping(parts["vars"]), _SHARED), group) if "vars" in parts else {}
        own[group], inner[group] = _members(draft, parts["members"], groups) if "members" in parts else ([], [])
    try:
        above = lineage(inner)
        belongs = members(draft.hosts, own, above)
    except ValueError as error:
        top["groups"].problem(str(error))
        reader.finish()
        raise AssertionError("finish raises") from error
    draft.groups = groups_of(groups, belongs)
    for host, said in settings.items():
        for key in KEYS:
            if key in said:
                continue
            inside = [group for group in belongs[host] if key in vars_[group]]
            found = _from_groups(draft, host, key, inside, vars_, above) if inside else defaults.get(key)
            if found is not None:
                said[key] = found
    return assemble(draft, settings, belongs)


def _from_groups(
    draft: Draft,
    host: str,
    key: str,
    groups: Sequence[str],
    said: Mapping[str, Settings],
    above: Mapping[str, set[str]],
) -> Value:
    """What the innermost of ``groups`` say; two that say different things are a problem."""
    outer = set().union(*(above[group] for group in groups))
    inner = [group for group in groups if group not in outer]
    first = said[inner[0]][key]
    for other in inner[1:]:
        if said[other][key].raw != first.raw:
            text = f"{host}: the groups {inner[0]} and {other} give it another {key}; say at the host which holds"
            draft.reader.add(draft.hosts[host], "", text)
            break
    return first


def members_of(value: Value, required: Iterable[str], optional: Iterable[str]) -> dict[str, Value]:
    """As Value.mapping, with a word on what an unknown key may have meant, and on secrets."""
    found, required = _mapping(value), list(required)
    known = [*required, *optional]
    for key, item in found.items():
        if key not in known:
            value.reader.add(item.key_line, item.where, unknown_key(key, known))
    for key in required:
        if isinstance(value.raw, dict) and key not in found:
            value.problem(f"the key {key!r} is missing")
    return {key: item for key, item in found.items() if key in known}


def _mapping(value: Value) -> dict[str, Value]:
    return value.as_type(dict) or {}


def _hosts(draft: Draft, value: Value) -> dict[str, Settings]:
    """The settings that stand at the hosts themselves, each host's in a dict of its own."""
    written: list[tuple[str, Value, dict[str, Value]]] = []
    if value.raw in ({}, []):
        value.problem("names no host")
    elif isinstance(value.raw, dict):
        for word, item in value.raw.items():
            at = Value(item.reader, word, item.key_line, item.where)
            written.append((word, at, _mapping(item) if item.raw is not None else {}))
    else:
        for item in value.items(at_most=MAX_HOSTS)[:MAX_HOSTS]:
            if isinstance(item.raw, str):
                written.append((item.raw, item, {}))
                continue
            parts = members_of(item, ("name",), KEYS)
            word = parts.pop("name").text() if "name" in parts else ""
            if word:
                written.append((word, item, parts))
    found: dict[str, Settings] = {}
    for word, at, parts in written:
        if draft.hopeless:
            break
        names = _expanded(at, word)
        said = labelled(read_settings(parts), "")
        addresses = _expanded(said["address"], said["address"].raw) if "address" in said else []
        if addresses and len(addresses) != len(names):
            said["address"].problem(f"stands for {len(addresses)} addresses, but there are {len(names)} hosts")
            addresses = []
        for index, name in enumerate(names):
            if why := host_name_problem(name):
                at.problem(why)
                break
            if not draft.add_host(name, at.line):
                at.problem(f"{name} is there already (line {draft.hosts[name]})")
                if draft.hopeless:
                    break
                continue
            found[name] = dict(said)
            if addresses:
                one = said["address"]
                found[name]["address"] = Value(one.reader, addresses[index], one.line, one.where)
    return found


def _expanded(value: Value, word: str) -> list[str]:
    try:
        return expand(word)
    except ValueError as error:
        value.problem(str(error))
        return []


def _members(draft: Draft, value: Value, groups: Mapping[str, Value]) -> tuple[list[str], list[str]]:
    """(hosts, groups) that a group names; one that is neither is a problem."""
    hosts: list[str] = []
    inner: list[str] = []
    for item in value.items(at_most=MAX_HOSTS)[:MAX_HOSTS]:
        word = item.as_type(str)
        if word is None or draft.hopeless:
            continue
        if word in groups:
            inner.append(word)
            continue
        names = _expanded(item, word)
        missing = [name for name in names if name not in draft.hosts]
        hosts += [name for name in names if name in draft.hosts]
        if missing:
            more = f" (and {len(missing) - 1} more of {quoted(word)})" if len(missing) > 1 else ""
            known = suggestion(draft, missing[0]) if not more else ""
            item.problem(f"{quoted(missing[0])}{more} is no host or group here{known}")
    return hosts, inner
