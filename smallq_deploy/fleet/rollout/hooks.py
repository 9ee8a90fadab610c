"""Commands of the user's around each host: out of service before it is changed, back in service after."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from smallq_deploy.base.errors import UsageError
from smallq_deploy.base.proc import run
from smallq_deploy.fleet.hosts import Host

_PLACE = re.compile(r"\{([^{}]*)\}")
_PLACES = ("host", "address", "group")


@dataclass(frozen=True)
class Hooks:
    """``before`` and ``after`` run here, ``remote_before`` and ``remote_after`` on the host; '' for none.

    ``{host}``, ``{address}`` and ``{group}`` (its first) stand for the host's; other braces stay. A command here
    is split into words as a shell would, but no shell runs it. ``timeout`` in seconds.
    """

    before: str = ""
    after: str = ""
    remote_before: str = ""
    remote_after: str = ""
    timeout: float = 300.0

    def __post_init__(self) -> None:
        """Raises UsageError BAD_HOOK."""
        for text in (self.before, self.after):
            try:
                words = shlex.split(text)
            except ValueError as error:
                raise _bad_hook(f"{text!a:.80} cannot be split into words: {error}") from None
            if text.strip() and not (words and words[0]):
                raise _bad_hook(f"{text!a:.80} is no command")
        for text in (self.before, self.after, self.remote_before, self.remote_after):
            for name in _PLACE.findall(text):
                if re.fullmatch(r"[a-z_]+", name) and name not in _PLACES:
                    raise _bad_hook(f"{{{name}}} in {text!a:.80} is not known")

    def __bool__(self) -> bool:
        return bool(self.before or self.after or self.remote_before or self.remote_after)

    def to_dict(self) -> dict[str, Any]:
        return dict(vars(self))

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Hooks:
        return cls(**record)


def _bad_hook(why: str) -> UsageError:
    known = ", ".join(f"{{{name}}}" for name in _PLACES)
    return UsageError("BAD_HOOK", f"a hook is wrong: {why}", hint=f"known places: {known}; quote words as in a shell")


def _values(host: Host) -> dict[str, str]:
    return {"host": host.name, "address": host.target, "group": host.groups[0] if host.groups else ""}


def _filled(text: str, values: Mapping[str, str]) -> str:
    return _PLACE.sub(lambda found: values.get(found[1], found[0]), text)


def local_argv(text: str, host: Host) -> Sequence[str]:
    """The words of a local hook for ``host``; what is filled in never becomes two words."""
    return [_filled(word, _values(host)) for word in shlex.split(text)]


def remote_command(text: str, host: Host) -> str:
    """Text for /bin/sh on ``host``."""
    return _filled(text, {name: shlex.quote(value) for name, value in _values(host).items()})


def run_local(text: str, host: Host, action: str, timeout: float) -> str:
    """Run a local hook; '' when it went well, else how it ended. ``action`` goes into its environment."""
    environment = {f"SMALLQ_{name.upper()}": value for name, value in _values(host).items()}
    done = run(
        local_argv(text, host),
        env={**os.environ, **environment, "SMALLQ_ACTION": action},
        timeout=timeout,
        contain=False,
    )
    if done.ok:
        return ""
    tail = done.tail(3)
    return f"`{shlex.join(done.argv)}` {done.describe()}" + (f": {tail}" if tail else "")
