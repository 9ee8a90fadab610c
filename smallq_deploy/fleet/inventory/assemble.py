"""From hosts with settings to an inventory: what a host ends up with, and whether hosts fit each other."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from smallq_deploy.fleet.hosts import Host, Inventory
from smallq_deploy.fleet.inventory.ranges import MAX_HOSTS
from smallq_deploy.fleet.inventory.settings import near
from smallq_deploy.package.yamlfile import Reader, Value

MAX_GROUPS = 2_000
MAX_MEMBERSHIPS = 1_000_000
_HOPELESS = 200  # problems
Settings = dict[str, Value]
# How a host is reached may change without it being another fleet.
_NOT_IN_DIGEST = ("key", "known_hosts", "jump", "timeout", "groups")


@dataclass
class Draft:
    """What a file says, before it was judged as a whole. ``hosts`` maps names to their line."""

    reader: Reader
    name: str
    kind: str
    hosts: dict[str, int] = field(default_factory=dict)
    groups: dict[str, tuple[str, ...]] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    @property
    def hopeless(self) -> bool:
        """Whether so much is wrong that reading on would only take time."""
        return len(self.hosts) > MAX_HOSTS or len(self.reader.problems) >= _HOPELESS

    def add_host(self, name: str, line: int) -> bool:
        """Whether it is a new one; more than MAX_HOSTS are a problem, once."""
        if name in self.hosts:
            return False
        if len(self.hosts) == MAX_HOSTS:
            self.reader.add(line, "", f"more than {MAX_HOSTS} hosts")
        self.hosts[name] = line
        return True


def suggestion(draft: Draft, word: str) -> str:
    """What ``word`` may have meant; '' where so much is wrong that nobody reads it."""
    return near(word, (*draft.hosts, *draft.groups)) if len(draft.reader.problems) < 20 else ""


def lineage(children: Mapping[str, Iterable[str]]) -> dict[str, set[str]]:
    """For each group every group above it. Raises ValueError: a cycle (``a > b > a``), or too many groups."""
    if len(children) > MAX_GROUPS:
        raise ValueError(f"{len(children)} groups; at most {MAX_GROUPS} are read")
    parents: dict[str, list[str]] = {name: [] for name in children}
    for name, inner in children.items():
        for child in inner:
            parents[child].append(name)
    above: dict[str, set[str]] = {}
    for start in parents:
        # Depth first without recursion: a chain of groups may be long.
        path: dict[str, Iterator[str]] = {start: iter(parents[start])}
        while path:
            name = next(reversed(path))
            parent = next(path[name], None)
            if parent is None:
                above[name] = set(parents[name]).union(*(above[item] for item in parents[name]))
                del path[name]
            elif parent in path:
                cycle = [*list(path)[list(path).index(parent) :], parent]
                raise ValueError("groups in a circle: " + " > ".join(reversed(cycle[-10:])))
            elif parent not in above:
                path[parent] = iter(parents[parent])
    return above


def members(
    hosts: Iterable[str], own: Mapping[str, Iterable[str]], above: Mapping[str, set[str]]
) -> dict[str, list[str]]:
    """For each host the groups it is in, also through groups in groups; ``own``: the hosts a group names itself.

    Raises ValueError where these are too many to keep.
    """
    found: dict[str, dict[str, None]] = {name: {} for name in hosts}
    count = 0
    for group, names in own.items():
        groups = dict.fromkeys((group, *sorted(above[group])))
        hosts_here = list(names)
        count += len(groups) * len(hosts_here)
        if count > MAX_MEMBERSHIPS:
            raise ValueError(f"the hosts stand in groups more than {MAX_MEMBERSHIPS} times")
        for name in hosts_here:
            found[name].update(groups)
    return {name: list(groups) for name, groups in found.items()}


def groups_of(order: Iterable[str], belongs: Mapping[str, Sequence[str]]) -> dict[str, tuple[str, ...]]:
    """``members`` the other way round, groups in ``order``."""
    found: dict[str, list[str]] = {name: [] for name in order}
    for host, groups in belongs.items():
        for group in groups:
            found[group].append(host)
    return {name: tuple(hosts) for name, hosts in found.items()}


def labelled(settings: Settings, place: str) -> Settings:
    """``shared_opp: true`` as the label of the place where it stands; false as none."""
    value = settings.get("shared_opp")
    if value is None or not isinstance(value.raw, bool):
        return settings
    if value.raw and not place:
        value.problem("true stands in a group or in the defaults; at a host give a label, the same for all that share")
        return {key: item for key, item in settings.items() if key != "shared_opp"}
    label = place if value.raw else ""
    return {**settings, "shared_opp": Value(value.reader, label, value.line, value.where)}


def assemble(draft: Draft, settings: Mapping[str, Settings], belongs: Mapping[str, Sequence[str]]) -> Inventory:
    """The inventory, or every problem of the file. ``settings`` and ``belongs`` (its groups) are by host."""
    reader = draft.reader
    if not draft.hosts and not reader.problems:
        reader.add(0, "", "names no host")
    for name, own in settings.items():
        relay = own.get("relay")
        if relay is None or relay.raw == name:  # a relay is in the group it serves
            continue
        if relay.raw not in draft.hosts:
            reader.add(
                relay.line, relay.where, f"the relay {relay.raw!r} is no host here{suggestion(draft, relay.raw)}"
            )
            continue
        next_one = settings[relay.raw].get("relay")
        if next_one is not None and next_one.raw != relay.raw:
            text = f"the relay {relay.raw!r} has a relay itself ({next_one.raw!r}); relays stand in one row"
            reader.add(relay.line, relay.where, text)
    reader.finish()
    hosts = []
    for name, line in draft.hosts.items():
        values = {key: value.raw for key, value in settings.get(name, {}).items()}
        if values.get("relay") == name:
            del values["relay"]
        hosts.append(
            Host(
                name,
                groups=tuple(belongs.get(name, ())),
                source=f"{reader.path}:{line}" if line else str(reader.path),
                **values,
            )
        )
    _same_machine(draft, hosts)
    reader.finish()
    inventory = Inventory(draft.name, str(reader.path), tuple(hosts), draft.groups, draft.kind, tuple(draft.warnings))
    return dataclasses.replace(inventory, digest=inventory_digest(inventory), relays=relays_of(hosts, hosts))


def relays_of(hosts: Iterable[Host], among: Iterable[Host]) -> tuple[Host, ...]:
    """Those of ``among`` that ``hosts`` name as their relay."""
    wanted = {host.relay for host in hosts}
    return tuple(host for host in among if host.name in wanted)


def _same_machine(draft: Draft, hosts: Iterable[Host]) -> None:
    """Two names of one machine would change it twice at once: a problem, or a warning where others wrote the file."""
    seen: dict[tuple[str, int, str], Host] = {}
    for host in hosts:
        first = seen.setdefault((host.target.lower(), host.port or 22, host.jump), host)
        if first is host:
            continue
        text = f"{host.name} has the same address and port as {first.name}"
        if draft.kind.startswith("ansible"):
            draft.warnings.append(text)
        else:
            draft.reader.add(draft.hosts[host.name], "", f"{text} ({first.source})")


def inventory_digest(inventory: Inventory) -> str:
    """32 hex digits for what the fleet is: its hosts and what is set for them, but for how they are reached.

    The same for another order, comments or form of the file, and for an inventory that a limit was applied to.
    """
    if inventory.digest:
        return inventory.digest
    records = []
    for host in sorted(inventory.hosts, key=lambda host: host.name):
        record = {key: value for key, value in host.to_dict().items() if value and key not in _NOT_IN_DIGEST}
        records.append(record)
    text = json.dumps(records, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:32]
