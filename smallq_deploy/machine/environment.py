"""What this machine is, in one object: toolkit, devices, driver, host, Python."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from smallq_deploy.machine.devices import NPU_SMI_TIMEOUT, VISIBLE, Devices, detect_devices
from smallq_deploy.machine.facts import Fact
from smallq_deploy.machine.toolkit import Discovery, Toolkit, discover

# What decides where programs of this shell look; ASCEND_RT_VISIBLE_DEVICES is part of the devices.
_VARIABLES = (
    "ASCEND_HOME_PATH",
    "ASCEND_TOOLKIT_HOME",
    "ASCEND_OPP_PATH",
    "ASCEND_CUSTOM_OPP_PATH",
    "ASCEND_VISIBLE_DEVICES",
)


@dataclass(frozen=True)
class Environment:
    """The chosen toolkit (None on a machine without), how it was chosen, the devices and the host.

    ``container`` is what this process runs in (docker, podman, kubernetes), '' for none that is known; ``variables``
    are CANN's own of this process, as they are set.
    """

    toolkit: Toolkit | None
    discovery: Discovery
    devices: Devices
    host_arch: str
    python: str
    container: str = ""
    container_source: str = ""
    variables: tuple[tuple[str, str], ...] = ()

    @property
    def units(self) -> tuple[str, ...]:
        """Compute units of the devices, each once; () when unknown. Hidden devices count where no other is left."""
        npus = self.devices.npus or self.devices.hidden
        return tuple(dict.fromkeys(npu.unit for npu in npus if npu.unit))

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

    @property
    def facts(self) -> tuple[Fact, ...]:
        """Everything known, each with its source: the toolkit, then driver and devices, then the host."""
        devices, driver = self.devices, self.devices.host_driver
        seen = [
            Fact("driver", devices.driver, devices.sources.get("driver", "")),
            Fact("driver inner version", driver.inner_version, driver.sources.get("driver", "")),
            Fact("driver takes firmware", driver.firmware_range, driver.sources.get("driver", "")),
            Fact(
                "driver installed below",
                driver.record.get("Driver_Install_Path_Param", ""),
                driver.sources.get("driver_record", ""),
            ),
            Fact("firmware", driver.firmware, driver.sources.get("firmware", "")),
            Fact("devices", self._device_names(), devices.sources.get("npus", "")),
            Fact("compute unit", self.unit, self._unit_source()),
        ]
        if devices.visible is not None:
            seen.append(Fact(VISIBLE, devices.visible or "(empty)", devices.sources.get("visible", "")))
        seen += [Fact(name, value, "environment variable") for name, value in self.variables]
        seen += [
            Fact("host architecture", self.host_arch, "uname -m"),
            Fact("container", self.container, self.container_source),
            Fact("python", self.python, "the interpreter that runs this"),
        ]
        return (*(self.toolkit.facts if self.toolkit else ()), *(fact for fact in seen if fact.value))

    def _device_names(self) -> str:
        names = [npu.soc or npu.unit or "unknown chip" for npu in self.devices.npus]
        return ", ".join(f"{names.count(name)} x {name}" for name in dict.fromkeys(names))

    def _unit_source(self) -> str:
        npus = self.devices.npus or self.devices.hidden
        return next((npu.unit_source for npu in npus if npu.unit), "")

    def to_dict(self) -> dict[str, Any]:
        return {
            "toolkit": self.toolkit.to_dict() if self.toolkit else None,
            "discovery": self.discovery.to_dict(),
            "devices": self.devices.to_dict(),
            "facts": [fact.to_dict() for fact in self.facts],
            "unit": self.unit,
            "host_arch": self.host_arch,
            "container": self.container,
            "python": self.python,
        }


def _container(environ: Mapping[str, str], root: Path) -> tuple[str, str]:
    """(kind, source). Only signs that a runtime leaves on purpose count."""
    if environ.get("KUBERNETES_SERVICE_HOST"):
        return "kubernetes", "environment variable KUBERNETES_SERVICE_HOST"
    for name, kind in ((".dockerenv", "docker"), ("run/.containerenv", "podman")):
        if os.path.lexists(root / name):
            return kind, f"/{name}"
    if environ.get("container"):
        return environ["container"], "environment variable container"
    return "", ""


def detect_environment(
    *,
    cann: Path | None = None,
    opp: Path | None = None,
    environ: Mapping[str, str] | None = None,
    root: Path = Path("/"),
    host_arch: str | None = None,
    thorough: bool = False,
    timeout: float = NPU_SMI_TIMEOUT,
    discovery: Discovery | None = None,
) -> Environment:
    """Look at this machine. Works where there is nothing; raises UsageError NO_SUCH_OPP only.

    ``root`` stands for / and ``host_arch`` for this machine's architecture; ``thorough`` asks each card for its board;
    ``timeout`` (seconds) bounds npu-smi; ``discovery`` is what :func:`discover` has found already.
    """
    environ = os.environ if environ is None else environ
    host_arch = host_arch or platform.machine()
    discovery = discovery or discover(cann=cann, opp=opp, environ=environ, root=root, host_arch=host_arch)
    devices = detect_devices(environ, discovery.chosen, root, timeout=timeout, thorough=thorough)
    container, source = _container(environ, root)
    variables = tuple((name, environ[name]) for name in _VARIABLES if environ.get(name))
    python = platform.python_version()
    return Environment(discovery.chosen, discovery, devices, host_arch, python, container, source, variables)
