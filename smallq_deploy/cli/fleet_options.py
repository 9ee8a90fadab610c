"""What every ``fleet`` command takes: the inventory, which of its hosts, and how they are reached."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Container, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from smallq_deploy.base.errors import SmallqError, UsageError
from smallq_deploy.cli.options import PATH, Call, option

if TYPE_CHECKING:
    from smallq_deploy.fleet.hosts import Inventory
    from smallq_deploy.fleet.transport import Transport

_ENGINES = ("auto", "pyinfra", "ssh", "local")
_INVENTORY = (
    option(
        "--inventory",
        "-i",
        metavar="FILE",
        help="The hosts: a YAML inventory, Ansible's INI or YAML, names (a,b), `slurm:npu[001-512]`, or - for stdin.",
    ),
    option("--limit", "-l", "limits", multiple=True, metavar="PATTERN", help="Only these hosts: names, npu0*, groups, "
           "npu[001-016], !npu003, @FILE. Repeatable."),
)  # fmt: skip
_REACH = (
    option("--transport", type=click.Choice(_ENGINES), default="auto", help="What carries commands. Default: pyinfra "
           "where it is installed, else the ssh program."),
    option("--parallel", type=click.IntRange(1, 300), metavar="N", help="Hosts at once. Default: up to 300."),
    option("--python-runtime", "runtimes", type=PATH, multiple=True, metavar="TARBALL",
           help="A relocatable Python for hosts whose own is older than 3.10. Repeatable, one for each ARCH."),
)  # fmt: skip


def inventory_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """``--inventory`` and ``--limit``."""
    for add in reversed(_INVENTORY):
        function = add(function)
    return function


def reach_options(*, timeout: float) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """How hosts are reached; ``timeout``: the default of --host-timeout in seconds."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        function = option(
            "--host-timeout",
            type=click.FloatRange(min=1),
            default=timeout,
            metavar="SECONDS",
            help=f"How long one host may take in all. Default: {timeout:.0f}; `timeout:` of a host comes first.",
        )(function)
        for add in reversed(_REACH):
            function = add(function)
        return function

    return decorate


@dataclass
class Fleet:
    """The hosts of one command, and the engine that reaches them."""

    call: Call
    inventory: Inventory
    transport_name: str
    parallel: int
    runtimes: tuple[Path, ...]
    timeout: float

    @staticmethod
    def take(call: Call, values: dict[str, Any]) -> Fleet:
        """The options of this module out of ``values``; the inventory is read."""
        inventory = take_inventory(call, values)
        return Fleet(
            call,
            inventory,
            values.pop("transport"),
            values.pop("parallel") or 0,
            values.pop("runtimes"),
            values.pop("host_timeout"),
        )

    def only(self, names: Container[str], otherwise: str) -> Fleet:
        """The same with these hosts alone. Raises UsageError NO_HOSTS with the text ``otherwise``."""
        hosts = tuple(host for host in self.inventory.hosts if host.name in names)
        if not hosts:
            raise UsageError("NO_HOSTS", otherwise, hint="`smallq-deploy fleet runs` lists runs and what they did")
        return replace(self, inventory=replace(self.inventory, hosts=hosts))

    def unresolved(self) -> list[SmallqError]:
        """UNKNOWN_ADDRESS for every name that does not resolve here."""
        from smallq_deploy.fleet.inventory.names import check_names

        return check_names((*self.inventory.hosts, *self.inventory.relays))

    @contextmanager
    def engine(self) -> Iterator[Transport]:
        """The engine, closed in the end."""
        from smallq_deploy.fleet.engines.choose import make_engine

        engine = make_engine(self.transport_name, self.parallel, self.inventory.relays)
        try:
            yield engine
        finally:
            engine.close()


def take_inventory(call: Call, values: dict[str, Any]) -> Inventory:
    """The inventory that the options name, its warnings told. Raises UsageError NO_INVENTORY, and as reading does."""
    from smallq_deploy.fleet.inventory.load import load_inventory

    source, limits = values.pop("inventory"), values.pop("limits")
    if source is None:
        raise UsageError(
            "NO_INVENTORY",
            "no inventory was named",
            hint="-i FILE, or SMALLQ_DEPLOY_INVENTORY; docs/reference/inventory.md shows one",
        )
    inventory = load_inventory(source, limit=limits)
    for warning in inventory.warnings:
        call.events.warning(warning)
    return inventory


@contextmanager
def stop_on_interrupt(call: Call, words: str) -> Iterator[threading.Event]:
    """The first Ctrl-C (or SIGTERM) sets the event and says ``words``; the second interrupts as usual."""
    stop = threading.Event()

    def first(number: int, frame: Any) -> None:
        stop.set()
        for each, handler in before.items():
            signal.signal(each, handler)
        call.events.warning(words)

    before = {each: signal.signal(each, first) for each in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
