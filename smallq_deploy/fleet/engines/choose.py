"""Which engine carries a fleet command, by name."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.util import find_spec

from smallq_deploy.fleet.hosts import Host
from smallq_deploy.fleet.transport import Transport

NAMES = ("auto", "pyinfra", "ssh", "local")


def make_engine(name: str, parallel: int = 0, relays: Iterable[Host] = ()) -> Transport:
    """The engine ``name``; ``auto`` takes pyinfra where it is installed, else the ssh program. ``parallel``: hosts at
    once, 0 for the engine's own number. Hosts with a relay are reached through it, ``relays`` says how those are.

    Raises UsageError FLEET_EXTRA_MISSING where pyinfra was asked for and is not installed.
    """
    from smallq_deploy.fleet.engines.relay import RelayTransport

    many = (parallel,) if parallel else ()
    if name == "local":
        from smallq_deploy.fleet.engines.local import LocalTransport

        return LocalTransport(*many)
    if name == "ssh" or (name == "auto" and find_spec("pyinfra") is None):
        from smallq_deploy.fleet.engines.openssh import OpenSshTransport

        return RelayTransport(OpenSshTransport(*many), relays)
    from smallq_deploy.fleet.engines.pyinfra_ssh import PyinfraTransport

    return RelayTransport(PyinfraTransport(*many), relays)
