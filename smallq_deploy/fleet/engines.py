"""Which engine carries a fleet command, by name."""

from __future__ import annotations

from importlib.util import find_spec

from smallq_deploy.base.errors import UsageError
from smallq_deploy.fleet.transport import Transport

NAMES = ("auto", "pyinfra", "ssh", "local")


def make_engine(name: str, parallel: int = 0) -> Transport:
    """The engine ``name``; ``auto`` takes pyinfra where it is installed, else the ssh program. ``parallel``: hosts at
    once, 0 for the engine's own number. Hosts with a relay are reached through it in every case.

    Raises UsageError FLEET_EXTRA_MISSING where pyinfra was asked for and is not installed.
    """
    from smallq_deploy.fleet.relay import RelayTransport

    if name == "local":
        from smallq_deploy.fleet.local import LocalTransport

        return LocalTransport(parallel) if parallel else LocalTransport()
    if name == "ssh" or (name == "auto" and find_spec("pyinfra") is None):
        from smallq_deploy.fleet.openssh import OpenSshTransport

        return RelayTransport(OpenSshTransport(parallel) if parallel else OpenSshTransport())
    if find_spec("pyinfra") is None:
        raise UsageError(
            "FLEET_EXTRA_MISSING",
            "the engine pyinfra is not installed",
            hint="pip install 'smallq-deploy[fleet]', or take the ssh program: --transport ssh",
        )
    from smallq_deploy.fleet.pyinfra_ssh import PyinfraTransport

    return RelayTransport(PyinfraTransport(parallel) if parallel else PyinfraTransport())
