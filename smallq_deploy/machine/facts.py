"""The version files of one CANN installation, read as data (cann.md 2.1). Nothing here decides or raises."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from smallq_deploy.base.errors import UsageError
from smallq_deploy.base.versions import CannVersion

_MAX_INFO_FILE = 64 * 1024
_CFG_VALUE = re.compile(r"\[(?P<component>[^:\]]*):(?P<cann>[^\]]+)\]")
# Up to 8.3 each of these has its own version.info; `opp` is asked first.
_OLD_COMPONENTS = ("opp", "runtime", "compiler", "toolkit", "opp_kernel", "hccl")
# What <kind> of installation writes ascend_<kind>_install.info: the full toolkit, or one that only runs models.
KINDS = ("toolkit", "nnae", "nnrt")


@dataclass(frozen=True)
class Fact:
    """One thing that is known of this machine, and where it was read."""

    name: str
    value: str
    source: str

    def to_dict(self) -> dict[str, Any]:
        return {"name": self.name, "value": self.value, "source": self.source}


def read_text(path: Path, denied: list[Path] | None = None) -> str | None:
    """The start of a small text file (64 KiB); None when it is missing, no file, or not readable.

    A file that is there but may not be read is added to ``denied``.
    """
    try:
        with open(path, "rb") as stream:
            return stream.read(_MAX_INFO_FILE).decode("utf-8", "replace")
    except PermissionError:
        if denied is not None:
            denied.append(path)
        return None
    except OSError:
        return None


def read_key_values(path: Path, denied: list[Path] | None = None) -> dict[str, str] | None:
    """The ``key=value`` lines of a file (values unquoted, first one of a key wins); None when it cannot be read."""
    text = read_text(path, denied)
    if text is None:
        return None
    found: dict[str, str] = {}
    for line in text.splitlines():
        key, equals, value = line.strip().partition("=")
        if equals and not key.startswith("#"):
            found.setdefault(key.strip(), value.strip().strip('"'))
    return found


def parse_version(text: str) -> CannVersion | None:
    """None instead of the error, for files that somebody else writes."""
    try:
        return CannVersion.parse(text)
    except UsageError:
        return None


@dataclass(frozen=True)
class Statement:
    """One file's word on the CANN version."""

    version: CannVersion
    source: Path


@dataclass(frozen=True)
class Component:
    """A part of the toolkit with a version.info of its own.

    ``version`` is the part's own (7.7.0.1.238 for CANN 8.1.RC1, the CANN version since 8.5); ``opp_abi`` what it
    demands of operator packages ('' nothing).
    """

    name: str
    version: str
    source: Path
    opp_abi: str = ""


@dataclass(frozen=True)
class OpsPackage:
    """CANN's own operator kernels, a package of its own since 8.5 (``Ascend-cann-910b-ops``)."""

    name: str
    version: str
    inner_version: str
    source: Path


@dataclass(frozen=True)
class Facts:
    """What the files of a toolkit home say; '' and () where they say nothing.

    ``statements`` come in order of authority: ascend_toolkit_install.info, share/info, version.cfg, components.
    ``denied`` are files that exist and may not be read.
    """

    arch: str
    arch_source: str
    inner_version: str
    remark: str
    install_info: Path | None
    statements: tuple[Statement, ...]
    warnings: tuple[str, ...]
    kind: str = "toolkit"
    installed_as: str = ""
    components: tuple[Component, ...] = ()
    ops_packages: tuple[OpsPackage, ...] = ()
    denied: tuple[Path, ...] = ()


def _names(folder: Path, denied: list[Path]) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except PermissionError:
        denied.append(folder)
    except OSError:
        pass
    return []


def _arch_folders(home: Path, host_arch: str, denied: list[Path]) -> list[Path]:
    """The real ``<arch>-linux`` folders, this host's first (``arm64-linux`` is a second name of aarch64-linux)."""
    folders: dict[str, Path] = {}
    for name in _names(home, denied):
        if name.endswith("-linux"):
            folders.setdefault(os.path.realpath(home / name), home / name)
    return sorted(folders.values(), key=lambda path: path.name != f"{host_arch}-linux")


def install_infos(home: Path, host_arch: str, denied: list[Path] | None = None) -> list[tuple[str, Path]]:
    """(kind, path) of every install record of ``home``: the full toolkit's first, of this host's architecture first."""
    folders = [*_arch_folders(home, host_arch, [] if denied is None else denied), home]
    places = [(kind, folder / f"ascend_{kind}_install.info") for kind in KINDS for folder in folders]
    return [(kind, place) for kind, place in places if os.path.lexists(place)]


def _share_info(home: Path, denied: list[Path]) -> Iterator[Component]:
    """Packages of share/info carry the CANN version in ``Version=`` since 8.5; ``runtime`` is asked first.

    MindStudio's packages count their versions on their own.
    """
    folder = home / "share" / "info"
    for name in sorted(_names(folder, denied), key=lambda name: (name != "runtime", name)):
        source = folder / name / "version.info"
        version = (read_key_values(source, denied) or {}).get("Version", "")
        if version and not name.startswith("mindstudio"):
            yield Component(name, version, source)


def _version_cfg(home: Path, denied: list[Path]) -> Iterator[Statement]:
    source = home / "version.cfg"
    for key, value in (read_key_values(source, denied) or {}).items():
        found = _CFG_VALUE.search(value)
        version = parse_version(found["cann"]) if found and key.endswith("_running_version") else None
        if version is not None:
            yield Statement(version, source)


def _old_components(home: Path, denied: list[Path]) -> Iterator[tuple[Component, CannVersion | None]]:
    """Up to 8.3 ``version_dir`` is the CANN version; later it is the word ``cann``."""
    for name in _OLD_COMPONENTS:
        source = home / name / "version.info"
        values = read_key_values(source, denied) or {}
        if values.get("Version"):
            component = Component(name, values["Version"], source, values.get("required_opp_abi_version", ""))
            yield component, parse_version(values.get("version_dir", ""))


def _ops_packages(home: Path, host_arch: str, denied: list[Path]) -> Iterator[OpsPackage]:
    for folder in _arch_folders(home, host_arch, denied):
        source = folder / "ascend_ops_install.info"
        values = read_key_values(source, denied) or {}
        if values.get("version"):
            name = values.get("package_name", "operator kernels")
            yield OpsPackage(name, values["version"], values.get("innerversion", ""), source)


def _disagreements(statements: list[Statement], packages: tuple[OpsPackage, ...]) -> Iterator[str]:
    if not statements:
        return
    first = statements[0]
    others: dict[CannVersion, list[Path]] = {}
    for item in statements:
        if item.version != first.version:
            others.setdefault(item.version, []).append(item.source)
    for version, sources in others.items():
        files = list(dict.fromkeys(sources))
        more = f" (and {len(files) - 1} more)" if len(files) > 1 else ""
        yield (
            f"version files disagree: {first.source} says {first.version}, {files[0]}{more} says {version}; "
            f"this looks like a half-done upgrade"
        )
    for package in packages:
        if parse_version(package.version) not in (None, first.version):
            yield (
                f"version files disagree: the toolkit is {first.version}, but {package.name} ({package.source}) is "
                f"{package.version}; this looks like a half-done upgrade"
            )


def _architecture(
    home: Path, info: Mapping[str, str], info_path: Path | None, host_arch: str, denied: list[Path]
) -> tuple[str, str, str]:
    """(architecture, its source, warning)."""
    arch = info.get("arch", "")
    scene_path = home / "opp" / "scene.info"
    scene_arch = (read_key_values(scene_path, denied) or {}).get("arch", "")
    if arch:
        odd = f"architecture: {info_path} says {arch}, {scene_path} says {scene_arch}"
        return arch, str(info_path), odd if scene_arch and scene_arch != arch else ""
    if scene_arch:
        return scene_arch, str(scene_path), ""
    folders = [path.name.removesuffix("-linux") for path in _arch_folders(home, host_arch, denied) if path.is_dir()]
    if folders:
        return ("aarch64" if folders[0] == "arm64" else folders[0]), "name of the <arch>-linux folder", ""
    return "", "", ""


def read_facts(home: Path, host_arch: str) -> Facts:
    """Everything the version files of ``home`` say, disagreements as warnings."""
    denied: list[Path] = []
    infos = install_infos(home, host_arch, denied)
    kind, info_path = infos[0] if infos else ("toolkit", None)
    info: Mapping[str, str] = (read_key_values(info_path, denied) if info_path else None) or {}
    warnings: list[str] = []
    statements: list[Statement] = []
    if info_path is not None and info_path not in denied:
        version = parse_version(info.get("version", ""))
        if version is not None:
            statements.append(Statement(version, info_path))
        else:
            warnings.append(f"{info_path} has no readable version= line (it says {info.get('version', 'nothing')!r})")
    shared = list(_share_info(home, denied))
    old = list(_old_components(home, denied))
    statements += [
        Statement(version, item.source) for item in shared if (version := parse_version(item.version)) is not None
    ]
    statements += _version_cfg(home, denied)
    statements += [Statement(version, item.source) for item, version in old if version is not None]
    packages = tuple(_ops_packages(home, host_arch, denied))
    warnings += _disagreements(statements, packages)
    arch, arch_source, odd = _architecture(home, info, info_path, host_arch, denied)
    if odd:
        warnings.append(odd)
    known = {item.name for item in shared}
    missing = tuple(dict.fromkeys(denied))
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        warnings.append(f"no permission to read {missing[0]}{more}: what is in there is not known")
    return Facts(
        arch,
        arch_source,
        info.get("innerversion", ""),
        info.get("remark", ""),
        info_path,
        tuple(statements),
        tuple(warnings),
        kind,
        info.get("path", ""),
        (*shared, *(item for item, _ in old if item.name not in known)),
        packages,
        missing,
    )
