"""Put exported files into a directory, and never over anything that is not ours."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path

from smallq_deploy.base.errors import ConflictError, access_error
from smallq_deploy.base.fsops import read_plain, write_atomic

MARK = ".smallq-export.json"


def write_export(files: Mapping[str, str], directory: Path) -> list[Path]:
    """Write ``files`` (relative name -> text) below ``directory``; returns their paths.

    Files of an earlier export that are not made any more go away. What was written is recorded in the file MARK there.

    Raises ConflictError EXPORT_EXISTS, naming every file that was there before or was edited since; nothing is
    written then. Access errors.
    """
    try:
        before = _record(directory)
        foreign = sorted(name for name in files if not _may_replace(directory / name, before.get(name), files[name]))
        if foreign:
            raise ConflictError(
                "EXPORT_EXISTS",
                f"{directory} has files that no export wrote, or that were edited since: {', '.join(foreign)}",
                hint="export to a new directory, and compare",
                details={"directory": str(directory), "files": foreign},
            )
        directory.mkdir(parents=True, exist_ok=True)
        record = {name: _digest(text.encode()) for name, text in sorted(files.items())}
        # First: files written after a crash here are known to be ours, those before it have one of both digests.
        _write_record(directory, {**before, **record})
        for name, text in files.items():
            path = directory / name
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(path, text, mode=0o755 if text.startswith("#!") else 0o644)
        for name in before.keys() - files.keys():
            path = directory / name
            if path.is_file() and not path.is_symlink() and _digest(read_plain(path)) == before[name]:
                path.unlink()
        _write_record(directory, record)
    except OSError as error:
        raise access_error(error, f"write the export to {directory}") from error
    return [directory / name for name in files]


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _may_replace(path: Path, digest: str | None, text: str) -> bool:
    if not os.path.lexists(path):
        return all(not os.path.lexists(parent) or parent.is_dir() for parent in path.parents)
    if path.is_symlink() or not path.is_file():
        return False
    return _digest(read_plain(path)) in (digest, _digest(text.encode()))


def _record(directory: Path) -> dict[str, str]:
    """name -> sha256 of what the last export wrote; {} without a readable record: then everything is foreign."""
    try:
        found = json.loads(read_plain(directory / MARK))["files"]
    except FileNotFoundError:
        return {}
    except (ValueError, KeyError, TypeError):
        return {}
    if not isinstance(found, dict):
        return {}
    plain = {str(name): str(digest) for name, digest in found.items()}
    return {name: digest for name, digest in plain.items() if name and ".." not in Path(name).parts and name[0] != "/"}


def _write_record(directory: Path, files: Mapping[str, str]) -> None:
    text = json.dumps({"schema": 1, "files": dict(files)}, indent=2, sort_keys=True) + "\n"
    write_atomic(directory / MARK, text)
