"""A check as one JSON file: written whole, read strictly."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from smallq_deploy import __version__
from smallq_deploy.base.errors import PackageError, UsageError, access_error
from smallq_deploy.base.fsops import write_atomic
from smallq_deploy.fleet.check.matrix import Intended, Matrix
from smallq_deploy.fleet.check.rows import Row

SCHEMA = 1
KIND = "fleet-check"
_LARGEST = 256 * 2**20  # bytes; ten thousand hosts take about 15 MB
_KEYS = {"schema_version", "kind", "tool", "time", "inventory", "intended", "hosts"}


def save(matrix: Matrix, path: Path) -> None:
    """Write the check. Raises the typed form of an OSError."""
    record = {
        "schema_version": SCHEMA,
        "kind": KIND,
        "tool": __version__,
        "time": round(matrix.time, 3),
        "inventory": matrix.inventory,
        "intended": matrix.intended.to_dict(),
        "hosts": [row.to_dict() for row in matrix.rows],
    }
    write_report(path, json.dumps(record, ensure_ascii=True, indent=1) + "\n")


def write_report(path: Path, text: str) -> None:
    """Replace ``path`` as a whole. Raises the typed form of an OSError."""
    try:
        write_atomic(path, text.encode("utf-8", "replace"))
    except OSError as error:
        raise access_error(error, f"write {path}") from error


def load(path: Path) -> Matrix:
    """A saved check, or what `fleet check --json` printed.

    Raises UsageError CHECK_NOT_FOUND, CHECK_NEWER, PackageError BAD_CHECK, and the typed form of an OSError.
    """
    try:
        if path.stat().st_size > _LARGEST:
            raise _bad(path, f"larger than {_LARGEST // 2**20} MiB")
        raw = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError) as error:
        hint = "`fleet check --save FILE` writes one"
        raise UsageError("CHECK_NOT_FOUND", f"{path} does not exist", hint=hint) from error
    except OSError as error:
        raise access_error(error, f"read {path}") from error
    try:
        record = json.loads(raw.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise _bad(path, f"no JSON ({error})") from error
    if not isinstance(record, dict):
        raise _bad(path, "no JSON object")
    version = record.get("schema_version")
    if type(version) is int and version > SCHEMA:
        raise UsageError(
            "CHECK_NEWER",
            f"{path} was written by a newer smallq-deploy (schema {version}, this one knows {SCHEMA})",
            hint="upgrade smallq-deploy",
        )
    if version != SCHEMA or type(version) is not int:
        raise _bad(path, f"schema_version is {version!r:.30}")
    try:
        return _matrix(record)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise _bad(path, str(error)) from error


def _matrix(record: Mapping[str, Any]) -> Matrix:
    if record.get("command") == "fleet check":
        record = record["data"]
    elif record.get("kind") != KIND or record.keys() != _KEYS:
        raise ValueError(f"its keys are not those of a check: {', '.join(sorted(set(record) ^ _KEYS))[:200]}")
    when, inventory, intended, hosts = (record[name] for name in ("time", "inventory", "intended", "hosts"))
    if type(when) not in (int, float) or not 0 <= when < 1e12 or not isinstance(inventory, str):
        raise ValueError("time is no number or inventory no text")
    if not isinstance(hosts, list):
        raise ValueError("hosts is no list")
    rows = tuple(Row.from_dict(item) for item in hosts)
    if len({row.host for row in rows}) != len(rows):
        raise ValueError("a host is in it twice")
    return Matrix(rows, float(when), inventory, _intended(intended))


def _intended(record: Any) -> Intended:
    if not isinstance(record, dict) or record.keys() != {"release", "packages", "cann"}:
        raise ValueError("intended has other keys")
    release, packages, cann = record["release"], record["packages"], record["cann"]
    texts = [release, cann, *packages] if isinstance(packages, list) else [None]
    if not all(isinstance(item, str) for item in texts):
        raise ValueError("intended has values that are no texts")
    return Intended(release, tuple(packages), cann)


def _bad(path: Path, why: str) -> PackageError:
    return PackageError("BAD_CHECK", f"{path} is no saved check: {why:.300}", hint="`fleet check --save` writes one")
