"""What others ask of a running rollout: a file in the run's directory, looked at a few times a second."""

from __future__ import annotations

from pathlib import Path

from smallq_deploy.base.errors import ConflictError, UsageError, access_error
from smallq_deploy.base.fsops import read_plain, write_atomic
from smallq_deploy.fleet.rollout.runs import RunInfo

POLL = 0.3  # seconds
_WORDS = ("pause", "resume", "abort")


def request_pause(run: RunInfo) -> None:
    """No further host is begun until :func:`request_resume`. Raises UsageError RUN_OVER, NOT_RUNNING."""
    _request(run, "pause")


def request_resume(run: RunInfo) -> None:
    """A paused rollout goes on. Raises UsageError RUN_OVER, NOT_RUNNING."""
    _request(run, "resume")


def request_abort(run: RunInfo) -> None:
    """No further host is begun, and the run ends; nothing is taken back. Raises UsageError RUN_OVER.

    A run whose controller is dead is aborted when it is resumed.
    """
    _request(run, "abort", alive=False)


def _request(run: RunInfo, word: str, *, alive: bool = True) -> None:
    if run.result:
        raise UsageError(
            "RUN_OVER", f"run {run.run} is over: {run.result}", hint="`smallq-deploy fleet runs` lists them"
        )
    if alive and not run.busy:
        raise UsageError(
            "NOT_RUNNING",
            f"no controller works on run {run.run}",
            hint=f"`smallq-deploy fleet resume {run.run}` goes on with it",
        )
    place = run.path.parent / "control"
    try:
        write_atomic(place, word + "\n", mode=0o600)
    except OSError as error:
        raise access_error(error, f"write {place}") from error


def requested(ledger: Path) -> str:
    """What is asked of the run of ``ledger``: pause, resume, abort or ''."""
    try:
        word = read_plain(ledger.with_name("control")).decode("ascii", "replace").strip()
    except (OSError, ConflictError):
        return ""
    return word if word in _WORDS else ""
