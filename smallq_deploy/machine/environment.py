"""What this machine is, in one object: toolkit, devices, driver, host, Python."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from smallq_deploy.machine.devices import Devices, detect_devices
from smallq_deploy.machine.toolkit import Discovery, Toolkit, discover


@dataclass(frozen=True)
class Environment:
    """The chosen toolkit (None on a machine without), how it was chosen, the devices and the host."""

    toolkit: Toolkit | None
    discovery: Discovery
    devices: Devices
    host_arch: str
    python: str

    @property
    def units(self) -> tuple[str, ...]:
        """Compute units of the devices, each once; () when unknown."""
        return tuple(dict.fromkeys(npu.unit for npu in self.devices.npus if npu.unit))

    @property
    def unit(self) -> str:
        """The compute unit of all devices; '' when there is none, or none that all share."""
        return self.units[0] if len(self.units) == 1 else ""

    @property
    def warnings(self) -> tuple[str, ...]:
        """Everything odd that was seen on the way."""
        found = [*self.discovery.warnings, *(self.toolkit.warnings if self.toolkit else ()), *self.devices.warnings]
        if len(self.units) > 1:
            found.append(f"devices of several compute units are here: {', '.join(self.units)}; choose with --soc")
        if self.toolkit is not None and self.toolkit.arch != self.host_arch:
            found.append(
                f"the toolkit is for {self.toolkit.arch}, this host is {self.host_arch}: nothing can be run in it here"
            )
        return tuple(dict.fromkeys(found))

    def to_dict(self) -> dict[str, Any]:
        return {
            "toolkit": self.toolkit.to_dict() if self.toolkit else None,
            "discovery": self.discovery.to_dict(),
            "devices": self.devices.to_dict(),
            "unit": self.unit,
            "host_arch": self.host_arch,
            "python": self.python,
        }


def detect_environment(
    *,
    cann: Path | None = None,
    opp: Path | None = None,
    environ: Mapping[str, str] | None = None,
    root: Path = Path("/"),
) -> Environment:
    """Look at this machine. Works where there is nothing; raises UsageError NO_SUCH_OPP only."""
    environ = os.environ if environ is None else environ
    discovery = discover(cann=cann, opp=opp, environ=environ, root=root)
    devices = detect_devices(environ, discovery.chosen, root)
    return Environment(discovery.chosen, discovery, devices, platform.machine(), platform.python_version())
