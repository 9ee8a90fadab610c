"""Where runs are kept, which there are, and the one controller an inventory may have.

Place: ``state_home()/fleet/<inventory>-<digest>/<run>/``; the lock is in the directory above the runs.
"""

from __future__ import annotations

import os
import re
import secrets
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from smallq_deploy.base.errors import ConflictError, SmallqError, UsageError, access_error
from smallq_deploy.base.lock import exclusive_lock, read_owner
from smallq_deploy.fleet.rollout.ledger import peek_ledger
from smallq_deploy.fleet.rollout.waves import Closed

_RUN = re.compile(r"\d{8}T\d{6}Z-[0-9a-f]{6}")


def state_home(environ: Mapping[str, str] | None = None) -> Path:
    """``$XDG_STATE_HOME/smallq-deploy`` (default below ~/.local/state)."""
    environ = os.environ if environ is None else environ
    base = environ.get("XDG_STATE_HOME") or os.path.join(os.path.expanduser("~"), ".local", "state")
    return Path(base, "smallq-deploy")


def new_run_id() -> str:
    """Sorts by time: 20261201T023020Z-4f1c2a."""
    return time.strftime("%Y%m%dT%H%M%SZ", time.gmtime()) + "-" + secrets.token_hex(3)


def fleet_folder(inventory: str, digest: str) -> Path:
    """Where the runs of an inventory are kept, and its lock."""
    plain = re.sub(r"[^A-Za-z0-9_-]+", "-", inventory).strip("-")[:60] or "inventory"
    return state_home() / "fleet" / f"{plain}-{digest[:8]}"


@dataclass(frozen=True)
class RunInfo:
    """A run on disk. ``result`` is '' while it goes on, or when it was cut off; ``busy``: its controller lives."""

    path: Path
    run: str
    action: str
    inventory: str
    started: str
    hosts: int
    result: str
    busy: bool
    problem: str = ""

    def to_dict(self) -> dict[str, Any]:
        return {**vars(self), "path": str(self.path)}


def runs() -> list[RunInfo]:
    """Every run that is kept, the latest first; one that cannot be read has a ``problem``."""
    found = []
    for path in (state_home() / "fleet").glob("*/*/ledger"):
        if _RUN.fullmatch(path.parent.name):
            found.append(_info(path))
    return sorted(found, key=lambda info: info.run, reverse=True)


def _info(path: Path) -> RunInfo:
    run, folder = path.parent.name, path.parent.parent
    busy = _alive(read_owner(folder) or {}, run)
    try:
        header, last = peek_ledger(path)
    except SmallqError as error:
        return RunInfo(path, run, "", folder.name, "", 0, "", busy, error.message)
    result = last.result if isinstance(last, Closed) else ""
    return RunInfo(path, run, header.action, header.inventory, header.started, len(header.hosts), result, busy)


def _alive(owner: Mapping[str, Any], run: str) -> bool:
    """Whether the controller of that record works on ``run``; of another machine it is believed."""
    if owner.get("run") != run:
        return False
    if owner.get("host") != os.uname().nodename:
        return True
    try:
        os.kill(int(owner["pid"]), 0)
    except (ProcessLookupError, ValueError, KeyError, TypeError):
        return False
    except PermissionError:
        pass
    return True


def find_run(run: str = "") -> RunInfo:
    """The run whose id begins with ``run``; '' for the latest. Raises UsageError NO_SUCH_RUN, AMBIGUOUS_RUN."""
    found = [info for info in runs() if info.run.startswith(run)]
    if not found:
        what = f"there is no run {run!a:.60}" if run else "there is no run yet"
        raise UsageError("NO_SUCH_RUN", what, hint="`smallq-deploy fleet runs` lists them")
    if run and len(found) > 1:
        hint = "say more of it: " + ", ".join(info.run for info in found[:5])
        raise UsageError("AMBIGUOUS_RUN", f"{len(found)} runs begin with {run}", hint=hint)
    return found[0]


@contextmanager
def controller_lock(folder: Path, run: str) -> Iterator[None]:
    """One controller an inventory. Raises ConflictError FLEET_BUSY with who it is; lock and access errors."""
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise access_error(error, f"make {folder}") from error
    try:
        with exclusive_lock(folder, across_hosts=True, about={"run": run}):
            yield
    except ConflictError as error:
        if error.code not in ("LOCK_BUSY", "LOCK_OTHER_HOST"):
            raise
        owner = error.details.get("owner") or {}
        who = (
            f"pid {owner['pid']} of {owner.get('user')} on {owner.get('host')}" if "pid" in owner else "another process"
        )
        raise ConflictError(
            "FLEET_BUSY",
            f"a rollout over this inventory is running: {who}, run {owner.get('run', '?')}",
            hint="`smallq-deploy fleet pause` and `fleet abort` reach it; or wait for it to end",
            details={"owner": owner},
        ) from None
