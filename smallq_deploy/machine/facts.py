"""The version files of one CANN installation, read as data (cann.md 2.1). Nothing here decides or raises."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from smallq_deploy.base.errors import UsageError
from smallq_deploy.base.versions import CannVersion

_MAX_INFO_FILE = 64 * 1024
_CFG_VALUE = re.compile(r"\[[^:\]]*:(?P<cann>[^\]]+)\]")


def read_text(path: Path) -> str | None:
    """The start of a small text file (64 KiB); None when it is missing, no file, or not readable."""
    try:
        with open(path, "rb") as stream:
            return stream.read(_MAX_INFO_FILE).decode("utf-8", "replace")
    except OSError:
        return None


def read_key_values(path: Path) -> dict[str, str] | None:
    """The ``key=value`` lines of a file (values unquoted, first one of a key wins); None when it cannot be read."""
    text = read_text(path)
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
class Facts:
    """What the files of a toolkit home say; '' and () where they say nothing.

    ``statements`` come in order of authority: ascend_toolkit_install.info, share/info, version.cfg, opp.
    """

    arch: str
    arch_source: str
    inner_version: str
    remark: str
    install_info: Path | None
    statements: tuple[Statement, ...]
    warnings: tuple[str, ...]


def install_infos(home: Path, host_arch: str) -> list[Path]:
    """``<home>/<arch>-linux/ascend_toolkit_install.info`` of every architecture, this host's first."""
    try:
        found = sorted(home.glob("*-linux/ascend_toolkit_install.info"))
    except OSError:
        return []
    return sorted(found, key=lambda path: path.parent.name != f"{host_arch}-linux")


def _share_info(home: Path) -> Iterator[Statement]:
    """Packages of share/info carry the CANN version in ``Version=`` since 8.5; ``runtime`` is asked first."""
    try:
        folders = sorted((home / "share" / "info").iterdir(), key=lambda path: (path.name != "runtime", path.name))
    except OSError:
        return
    for folder in folders:
        source = folder / "version.info"
        version = parse_version((read_key_values(source) or {}).get("Version", ""))
        if version is not None:
            yield Statement(version, source)


def _version_cfg(home: Path) -> Iterator[Statement]:
    source = home / "version.cfg"
    for key, value in (read_key_values(source) or {}).items():
        found = _CFG_VALUE.search(value)
        version = parse_version(found["cann"]) if found and key.endswith("_running_version") else None
        if version is not None:
            yield Statement(version, source)


def _opp_version(home: Path) -> Iterator[Statement]:
    """Up to 8.3 ``version_dir`` of opp/version.info is the CANN version; later it is the word ``cann``."""
    source = home / "opp" / "version.info"
    version = parse_version((read_key_values(source) or {}).get("version_dir", ""))
    if version is not None:
        yield Statement(version, source)


def read_facts(home: Path, host_arch: str) -> Facts:
    """Everything the version files of ``home`` say, disagreements as warnings."""
    infos = install_infos(home, host_arch)
    info_path = infos[0] if infos else None
    info: Mapping[str, str] = (read_key_values(info_path) if info_path else None) or {}
    warnings: list[str] = []
    statements: list[Statement] = []
    if info_path is not None:
        version = parse_version(info.get("version", ""))
        if version is not None:
            statements.append(Statement(version, info_path))
        else:
            warnings.append(f"{info_path} has no readable version= line (it says {info.get('version', 'nothing')!r})")
    statements += [*_share_info(home), *_version_cfg(home), *_opp_version(home)]
    if statements:
        first = statements[0]
        others = {str(item.version): item for item in statements if item.version != first.version}
        for item in others.values():
            warnings.append(
                f"version files disagree: {first.source} says {first.version}, {item.source} says {item.version}; "
                f"this looks like a half-done upgrade"
            )
    arch, arch_source = info.get("arch", ""), str(info_path or "")
    scene_path = home / "opp" / "scene.info"
    scene_arch = (read_key_values(scene_path) or {}).get("arch", "")
    if not arch:
        folders = [path.name.removesuffix("-linux") for path in sorted(home.glob("*-linux")) if path.is_dir()]
        if scene_arch:
            arch, arch_source = scene_arch, str(scene_path)
        elif folders:
            arch, arch_source = (host_arch if host_arch in folders else folders[0]), "name of the <arch>-linux folder"
    elif scene_arch and scene_arch != arch:
        warnings.append(f"architecture: {info_path} says {arch}, {scene_path} says {scene_arch}")
    return Facts(
        arch,
        arch_source,
        info.get("innerversion", ""),
        info.get("remark", ""),
        info_path,
        tuple(statements),
        tuple(warnings),
    )
