"""What an export is made of: the hosts, the bundle, how many hosts at once and how many may fail."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from smallq_deploy.base.errors import UsageError
from smallq_deploy.fleet.hosts import Host, Inventory
from smallq_deploy.fleet.rollout.policy import Member, Policy, cut_waves


@dataclass(frozen=True)
class ExportRequest:
    """``bundle`` is the file here, ``bundle_sha256`` its digest in hex. ``units`` and ``arches`` are those of its
    packages; ``cann``, ``opp`` and ``vendor`` count for hosts that name none of their own. Of ``policy`` the waves and
    the budget of a wave are exported (``max_fail`` where it has none). ``timeout``: seconds for one host.

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
    policy: Policy = field(default_factory=Policy)
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


@dataclass(frozen=True)
class HostWave:
    """``change``: hosts to be changed; ``verify``: hosts that see in their opp what another one changed. More than
    ``may_fail`` failed ones stop the waves behind it."""

    number: int
    change: tuple[Host, ...]
    verify: tuple[Host, ...]
    may_fail: int

    @property
    def hosts(self) -> tuple[Host, ...]:
        return (*self.change, *self.verify)


def cut(request: ExportRequest) -> list[HostWave]:
    """The hosts of the request in waves. Raises UsageError NO_HOSTS."""
    hosts = {host.name: host for host in request.inventory}
    if not hosts:
        raise UsageError("NO_HOSTS", "there is no host to export for", hint="does --limit leave any?")
    limit = request.policy.max_fail_wave or request.policy.max_fail
    return [
        HostWave(
            wave.number,
            tuple(hosts[name] for name in wave.change),
            tuple(hosts[name] for name in wave.verify),
            limit.of(len(wave)),
        )
        for wave in cut_waves([Member(host.name, host.shared_opp) for host in hosts.values()], request.policy)
    ]


def names(hosts: Sequence[Host]) -> list[str]:
    return [host.name for host in hosts]
