"""The one JSON document of ``--json``: the envelope, and where its schemas are (docs/reference/json-output.md)."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from smallq_deploy.base.errors import ExitStatus, SmallqError

SCHEMA_VERSION = 1

_SURROGATE = re.compile("[\ud800-\udfff]")


def make_envelope(
    command: str,
    *,
    data: Mapping[str, Any],
    warnings: Sequence[str] = (),
    errors: Sequence[SmallqError] = (),
    exit_status: int = ExitStatus.OK,
) -> dict[str, Any]:
    """The envelope as a dict. ``status`` is ``ok`` for exit status 0, ``error`` otherwise."""
    return {
        "schema_version": SCHEMA_VERSION,
        "command": command,
        "status": "ok" if exit_status == ExitStatus.OK else "error",
        "exit_status": int(exit_status),
        "data": dict(data),
        "warnings": list(warnings),
        "errors": [problem.to_dict() for error in errors for problem in error.problems],
    }


def dump(document: Mapping[str, Any]) -> str:
    """JSON text with a newline at the end; paths become strings, names keep their spelling.

    The bytes of a name that is not UTF-8 are written as lone surrogates (``\\udcff`` for 0xff), so that it stays JSON.
    """
    text = json.dumps(document, indent=2, ensure_ascii=False, default=str)
    return _SURROGATE.sub(lambda found: f"\\u{ord(found.group()):04x}", text) + "\n"


def schema_path(command: str = "") -> Path:
    """The JSON Schema file of the envelope ('') or of one command's ``data``."""
    name = command.replace(" ", "-") or "envelope"
    return Path(__file__).with_name("schema") / f"{name}.json"
