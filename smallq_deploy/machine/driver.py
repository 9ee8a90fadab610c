"""Driver and firmware of this host, read from their files (cann.md 2.1 g, h). Nothing here raises."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from smallq_deploy.machine.facts import read_key_values
from smallq_deploy.machine.places import below

RECORD = "etc/ascend_install.info"


@dataclass(frozen=True)
class Driver:
    """Versions ('' unknown), what they say they go with, the installer's record, and where each was read."""

    version: str = ""
    inner_version: str = ""
    firmware: str = ""
    firmware_range: str = ""
    record: Mapping[str, str] = field(default_factory=dict)
    sources: Mapping[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


def driver_roots(root: Path, install_root: Path | None, record: Mapping[str, str]) -> list[Path]:
    """Directories that can hold driver/: beside the toolkit, where the record says, the usual place."""
    places = [install_root] if install_root is not None else []
    if record.get("Driver_Install_Path_Param"):
        places.append(below(root, record["Driver_Install_Path_Param"]))
    places.append(root / "usr/local/Ascend")
    return list(dict.fromkeys(places))


def read_driver(root: Path, install_root: Path | None) -> Driver:
    """``install_root`` is the directory that holds the toolkit; what lies beside it belongs to it."""
    denied: list[Path] = []
    record_path = root / RECORD
    record = read_key_values(record_path, denied)
    warnings = [
        f"{record_path} is a directory: a container mount of a file that the host does not have"
    ] * os.path.isdir(record_path)
    roots = driver_roots(root, install_root, record or {})
    sources: dict[str, str] = {}
    values: dict[str, str] = {}
    for part in ("driver", "firmware"):
        for place in roots:
            path = place / part / "version.info"
            found = read_key_values(path, denied) or {}
            if found.get("Version"):
                sources[part] = str(path)
                values[part] = found["Version"]
                if part == "driver":
                    values["inner"] = found.get("Innerversion", "")
                    values["range"] = found.get("compatible_version_fw", "")
                break
    if record is not None:
        sources["driver_record"] = str(record_path)
        warnings += _odd_record(record, record_path, root)
    warnings += [f"no permission to read {path}: what is in there is not known" for path in dict.fromkeys(denied)]
    return Driver(
        values.get("driver", ""),
        values.get("inner", ""),
        values.get("firmware", ""),
        values.get("range", ""),
        record or {},
        sources,
        tuple(warnings),
    )


def _odd_record(record: Mapping[str, str], path: Path, root: Path) -> list[str]:
    installed = record.get("Driver_Install_Path_Param", "")
    if not installed:
        return [
            f"{path} has no Driver_Install_Path_Param: set_env.sh of CANN 8.5 and later stops there in a shell with "
            "`set -e`"
        ]
    odd = []
    if not os.path.isdir(below(root, installed) / "driver"):
        odd.append(
            f"{path} says the driver is in {installed}, but {installed}/driver is not there: probably a container that "
            "was started without the host's driver"
        )
    status = record.get("Driver_Install_Status", "complete")
    if status != "complete":
        odd.append(f"{path}: the installation of the driver is {status!r}, not complete")
    return odd
