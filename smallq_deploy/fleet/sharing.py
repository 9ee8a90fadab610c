"""Which hosts share one opp directory on a network file system, as they themselves tell it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

from smallq_deploy.fleet.hosts import Host
from smallq_deploy.fleet.node import Answer


def shared_label(answer: Answer) -> str:
    """What only one directory can be called, from a host's ``facts``; '' for a host with an opp of its own."""
    place = answer.data.get("opp")
    if not answer.ok or not isinstance(place, Mapping) or not place.get("shared"):
        return ""
    source, inside, inode = (str(place.get(name) or "") for name in ("mount_source", "mount_path", "inode"))
    return f"{place['shared']} {source} {inside} {inode}" if source and inode not in ("", "0") else ""


def with_shared(hosts: Sequence[Host], answers: Iterable[Answer]) -> tuple[Host, ...]:
    """The hosts, those that were found to share an opp with the label of the others; what the inventory says stays.

    The first host of a label changes it, the others are only looked at afterwards.
    """
    labels = {answer.host: shared_label(answer) for answer in answers}
    counts: dict[str, int] = {}
    for label in labels.values():
        counts[label] = counts.get(label, 0) + 1
    found = []
    for host in hosts:
        label = labels.get(host.name, "")
        if not host.shared_opp and label and counts[label] > 1:
            host = dataclasses.replace(host, shared_opp=label)
        found.append(host)
    return tuple(found)
