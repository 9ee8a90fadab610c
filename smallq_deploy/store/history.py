"""The history: one JSON object a line, appended durably, never rewritten."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from smallq_deploy.base.errors import access_error
from smallq_deploy.base.fsops import append_line, read_plain
from smallq_deploy.store.paths import SCHEMA, Store


def read_history(store: Store, *, vendor: str | None = None) -> tuple[dict[str, Any], ...]:
    """Every line that can be read, oldest first; a torn line of a crash is skipped. ``vendor`` None: of all vendors."""
    try:
        raw = read_plain(store.history)
    except FileNotFoundError:
        return ()
    except OSError as error:
        raise access_error(error, f"read {store.history}") from error
    found = []
    for line in raw.splitlines():
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(record, dict) and (vendor is None or record.get("vendor") == vendor):
            found.append(record)
    return tuple(found)


def who(owner: Mapping[str, Any]) -> dict[str, str]:
    """What a line says of who did it: real user, sudo user, host and version of this tool."""
    return {key: str(owner.get(key, "")) for key in ("user", "sudo_user", "host", "version")}


def append_history(store: Store, record: Mapping[str, Any]) -> None:
    """Append one line, once for each transaction (``record["txid"]``), however often recovery runs."""
    if any(line.get("txid") == record["txid"] for line in read_history(store)):
        return
    append_line(store.history, json.dumps({"schema": SCHEMA, **record}, ensure_ascii=True, sort_keys=True))
