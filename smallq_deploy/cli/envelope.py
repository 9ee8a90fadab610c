"""The one JSON document of ``--json``: the envelope, and where its schemas are (docs/reference/json-output.md)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from smallq_deploy.base.errors import ExitStatus, SmallqError

SCHEMA_VERSION = 1


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
    """JSON text with a newline at the end; paths become strings, names keep their spelling."""
    return json.dumps(document, indent=2, ensure_ascii=False, default=str) + "\n"


def schema_path(command: str = "") -> Path:
    """The JSON Schema file of the envelope ('') or of one command's ``data``."""
    name = command.replace(" ", "-") or "envelope"
    return Path(__file__).with_name("schema") / f"{name}.json"
