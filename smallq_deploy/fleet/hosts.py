"""What a host is to the fleet, and what an inventory is once it was read and found right."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Host:
    """One machine. ``name`` is unique in an inventory and is what reports show; '' and 0 mean: not said.

    ``address`` and ``port`` are what ssh connects to, ``user``, ``key`` (a file's path, never a key) and ``jump``
    (``[user@]host[:port]``) how. ``python`` is the interpreter there; ``cann``, ``opp`` and ``vendor`` go to every
    command there. ``relay`` is the name of the host that repeats uploads and commands for this one. Hosts with the same
    ``shared_opp`` label use one opp directory on a shared file system. ``timeout``: seconds a command may take there.
    ``source`` is ``file:line``.
    """

    name: str
    address: str = ""
    port: int = 0
    user: str = ""
    key: str = ""
    jump: str = ""
    known_hosts: str = ""
    sudo: bool = False
    python: str = ""
    cann: str = ""
    opp: str = ""
    vendor: str = ""
    relay: str = ""
    shared_opp: str = ""
    timeout: float = 0.0
    groups: tuple[str, ...] = ()
    source: str = ""

    @property
    def target(self) -> str:
        """What ssh connects to."""
        return self.address or self.name

    def to_dict(self) -> dict[str, Any]:
        """For ledgers and worker processes; holds no secret (a key is named by its path)."""
        return {
            "name": self.name,
            "address": self.address,
            "port": self.port,
            "user": self.user,
            "key": self.key,
            "jump": self.jump,
            "known_hosts": self.known_hosts,
            "sudo": self.sudo,
            "python": self.python,
            "cann": self.cann,
            "opp": self.opp,
            "vendor": self.vendor,
            "relay": self.relay,
            "shared_opp": self.shared_opp,
            "timeout": self.timeout,
            "groups": list(self.groups),
        }

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Host:
        """The host of :meth:`to_dict`."""
        return cls(**{**record, "groups": tuple(record.get("groups", ()))})


@dataclass(frozen=True)
class Inventory:
    """Hosts in the order they were written; ``groups`` maps a group to its hosts' names, groups in groups resolved.

    ``kind`` says how the source was read, ``warnings`` what of it was not used; ``digest`` is that of the whole
    inventory, also where a limit left some of it. ``relays``: the hosts that ``hosts`` name as their relay, also where
    a limit left these out.
    """

    name: str
    source: str
    hosts: tuple[Host, ...]
    groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    kind: str = ""
    warnings: tuple[str, ...] = ()
    digest: str = ""
    relays: tuple[Host, ...] = ()

    def __iter__(self) -> Iterator[Host]:
        return iter(self.hosts)

    def __len__(self) -> int:
        return len(self.hosts)
