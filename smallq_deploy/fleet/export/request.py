"""What an export is made of: the hosts, the bundle, how many hosts at once and how many may fail."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from smallq_deploy.base.errors import UsageError
from smallq_deploy.fleet.hosts import Host, Inventory

_PART = re.compile(r"(\d{1,6})(%?)")


@dataclass(frozen=True)
class ExportRequest:
    """``bundle`` is the file here, ``bundle_sha256`` its digest in hex. ``units`` and ``arches`` are those of its
    packages; ``cann``, ``opp`` and ``vendor`` count for hosts that name none of their own. ``waves`` are cumulative
    (``1``, ``5%``, ``100%``); ``max_fail`` is ``N`` or ``P%`` of a wave. ``timeout``: seconds for one host.

    ``namespace``, ``image``, ``base_image``, ``bundle_dir`` (where the bundle lies on every node) and ``selector``
    (``label=value``) are for Kubernetes; ``gres`` and ``partition`` for Slurm, which goes without where they are ''.
    """

    inventory: Inventory
    bundle: Path
    bundle_sha256: str
    units: tuple[str, ...] = ()
    arches: tuple[str, ...] = ()
    cann: str = ""
    opp: str = ""
    vendor: str = ""
    waves: tuple[str, ...] = ("1", "5%", "25%", "100%")
    max_fail: str = "0"
    timeout: float = 900.0
    namespace: str = "smallq-deploy"
    image: str = ""
    base_image: str = "python:3.12-slim"
    bundle_dir: str = ""
    selector: tuple[str, ...] = ()
    gres: str = "npu:1"
    partition: str = ""

    @property
    def node_name(self) -> str:
        """What the bundle is called on hosts; the same as `fleet install` calls it, so that it travels once."""
        return f"{self.bundle_sha256[:24]}.pyz"

    def options(self, host: Host) -> list[str]:
        """The options that every command on ``host`` gets."""
        cann, opp, vendor = host.cann or self.cann, host.opp or self.opp, host.vendor or self.vendor
        return [
            *(("--cann", cann) if cann else ()),
            *(("--opp", opp) if opp else ()),
            *(("--vendor", vendor) if vendor else ()),
        ]


def check_request(request: ExportRequest) -> None:
    """Raises UsageError NO_HOSTS, BAD_VALUE."""
    if not request.inventory.hosts:
        raise UsageError("NO_HOSTS", "there is no host to export for", hint="does --limit leave any?")
    wave_sizes(request.waves, len(request.inventory))
    may_fail(request.max_fail, 1)


def _part(text: str, what: str) -> tuple[int, bool]:
    """(number, is it a percentage)."""
    match = _PART.fullmatch(text.strip())
    if match is None or (match[2] and int(match[1]) > 100):
        raise UsageError("BAD_VALUE", f"{text!r} is no {what}", hint="a number of hosts such as 5, or a share: 5%")
    return int(match[1]), bool(match[2])


def wave_sizes(waves: Sequence[str], count: int) -> list[int]:
    """How many of ``count`` hosts come in each wave: shares round up, a wave has at least one host, the last has the
    rest. Raises UsageError BAD_VALUE."""
    sizes: list[int] = []
    done = 0
    for text in (*waves, "100%"):
        number, share = _part(text, "wave")
        until = min(count, math.ceil(number * count / 100) if share else number)
        until = max(until, done + 1)
        if until <= count:
            sizes.append(until - done)
            done = until
    return sizes


def may_fail(text: str, size: int) -> int:
    """How many of a wave of ``size`` hosts may fail before the next one must not begin. Raises UsageError BAD_VALUE."""
    number, share = _part(text, "failure budget")
    return number * size // 100 if share else number


def cut(hosts: Sequence[Host], waves: Sequence[str]) -> list[list[Host]]:
    """The hosts of each wave, in their order."""
    found, rest = [], list(hosts)
    for size in wave_sizes(waves, len(rest)) if rest else ():
        found.append(rest[:size])
        rest = rest[size:]
    return found


def followers(inventory: Inventory) -> set[str]:
    """Hosts on whose opp an earlier host of the inventory works already: nothing is changed there, only verified."""
    seen: set[str] = set()
    found = set()
    for host in inventory:
        if host.shared_opp in seen and host.shared_opp:
            found.add(host.name)
        seen.add(host.shared_opp)
    return found
