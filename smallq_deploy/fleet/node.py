"""What is said to a host and what its answer means: a shell command around the bundle there, one JSON document back."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from smallq_deploy.fleet.hosts import Host
from smallq_deploy.fleet.transport import Outcome, State

# Below the login user's home there; made with mode 700. With sudo root runs files of this user, who may do so anyway.
PLACE = ".cache/smallq-deploy/fleet"
PYTHONS = ("python3.14", "python3.13", "python3.12", "python3.11", "python3.10", "python3")
_NO_PYTHON, _OLD_PYTHON, _NO_SUDO = "@@smallq no python", "@@smallq python ", "@@smallq no sudo"
_OLD_STATUS = 97  # ours alone: the tool's own exit statuses end at 14, and 130

# The newest Python from 3.10 on; without one, the bundle's own interpreter is started by whatever python3 there is.
_FIND = """p=
for n in {names}; do
  p=$(command -v "$n" 2>/dev/null) || continue
  "$p" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null && break
  p=
done
"""
_TOO_OLD = f"""if [ -z "$p" ]; then
  if command -v python3 >/dev/null 2>&1; then
    echo "{_OLD_PYTHON}$(python3 -c 'import sys; print("%d.%d.%d" % sys.version_info[:3])' 2>&1 | tail -n 1)"
  else
    echo "{_NO_PYTHON}"
  fi
  exit {_OLD_STATUS}
fi
"""
_CARRIED = '[ -n "$p" ] || p=python3\n'

_HINTS = {
    State.UNREACHABLE: ("HOST_UNREACHABLE", "is it up, and does `ssh {target}` work from here?"),
    State.REFUSED: (
        "HOST_REFUSED",
        "`ssh {target}` says why; an unknown host key is added by `ssh-keyscan` once you have compared it",
    ),
    State.UPLOAD_FAILED: ("UPLOAD_FAILED", "is there space and permission below ~/" + PLACE + " there?"),
    State.TIMED_OUT: (
        "HOST_TIMEOUT",
        "what it does there is not known: `smallq-deploy status` on the host tells; a longer time is --host-timeout",
    ),
    State.LOST: ("HOST_LOST", "the connection ended while the command ran: run the same fleet command again"),
    State.SKIPPED: ("HOST_SKIPPED", "the run was stopped before this host's turn"),
}


def command_for(host: Host, bundle: str, words: Sequence[str], *, carries_python: bool = False) -> str:
    """Text for /bin/sh on ``host``: the bundle file ``bundle`` (a name below PLACE) with ``words`` and --json.

    ``carries_python``: the bundle has an interpreter for hosts whose own is too old. The home is the login user's also
    under sudo: the engine sets SMALLQ_FLEET_HOME.
    """
    options = [
        *(("--cann", host.cann) if host.cann else ()),
        *(("--opp", host.opp) if host.opp else ()),
        *(("--vendor", host.vendor) if host.vendor else ()),
    ]
    call = shlex.join([*words, *options, "--json"])
    names = shlex.quote(host.python) if host.python else " ".join(PYTHONS)
    find = _FIND.format(names=names) + (_CARRIED if carries_python else _TOO_OLD)
    return f'{find}exec "$p" "${{SMALLQ_FLEET_HOME:-$HOME}}/{PLACE}/{bundle}" {call}\n'


@dataclass(frozen=True)
class Answer:
    """What a host said, judged: ``ok`` for exit status 0; else ``code``, ``message`` and ``hint`` of its first error.

    ``data`` is the envelope's, also of a failed command; {} where there is none. ``asked`` is False where the host
    could not be asked at all or its answer cannot be read: nothing is known about it then.
    """

    host: str
    ok: bool
    code: str = ""
    message: str = ""
    hint: str = ""
    exit_status: int | None = None
    data: Mapping[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    seconds: float = 0.0
    asked: bool = True

    def to_dict(self) -> dict[str, Any]:
        return {**vars(self), "data": dict(self.data), "warnings": list(self.warnings)}


def read_answer(host: Host, outcome: Outcome) -> Answer:
    """The answer in an outcome of :func:`command_for`; anything that is not one whole envelope is BAD_ANSWER."""
    if outcome.state is not State.DONE:
        code, hint = _HINTS[outcome.state]
        return _failed(host, outcome, code, outcome.error or outcome.state.value, hint.format(target=host.target))
    text = outcome.stdout
    if outcome.exit_status == _OLD_STATUS and _NO_PYTHON in text:
        hint = "install Python 3.10 or newer there, or let the bundle carry one: --python-runtime"
        return _failed(host, outcome, "NO_PYTHON", "there is no python3", hint)
    if outcome.exit_status == _OLD_STATUS and _OLD_PYTHON in text:
        found = text.partition(_OLD_PYTHON)[2].split("\n")[0].strip()
        hint = "name a newer one as `python:` in the inventory, or let the bundle carry one: --python-runtime"
        return _failed(host, outcome, "PYTHON_TOO_OLD", f"its Python is {found or 'unusable'}, 3.10 is needed", hint)
    if _NO_SUDO in text + outcome.stderr or "sudo: a password is required" in outcome.stderr:
        hint = "allow it in sudoers (NOPASSWD), or take `sudo: true` out of the inventory"
        return _failed(host, outcome, "NO_SUDO", "`sudo -n` is not allowed there without a password", hint)
    try:
        document = json.loads(text)
        if document["schema_version"] != 1:
            raise ValueError(f"schema_version is {document['schema_version']!r:.20}")
        status, data = int(document["exit_status"]), document["data"]
        errors, warnings = document["errors"], tuple(str(item) for item in document["warnings"])
        first = errors[0] if errors else {}
        code, message, hint = (str(first.get(name, "")) for name in ("code", "message", "hint"))
        if not isinstance(data, dict) or status != outcome.exit_status:
            raise ValueError(f"exit status {outcome.exit_status}, but the document says {status}")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        shown = (text.strip() or outcome.stderr.strip())[-200:]
        why = f"exit status {outcome.exit_status} and no readable answer ({error}): {shown!r}"
        return _failed(host, outcome, "BAD_ANSWER", why, "log in and run `smallq-deploy status` there")
    return Answer(host.name, status == 0, code, message, hint, status, data, warnings, outcome.seconds)


def _failed(host: Host, outcome: Outcome, code: str, message: str, hint: str) -> Answer:
    return Answer(host.name, False, code, message, hint, outcome.exit_status, seconds=outcome.seconds, asked=False)
