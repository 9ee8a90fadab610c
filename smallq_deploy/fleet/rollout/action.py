"""What a rollout can do to hosts, as the controller sees it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from smallq_deploy.fleet.hosts import Host
from smallq_deploy.fleet.transport import Outcome, Task


@dataclass(frozen=True)
class Verdict:
    """What an outcome means. ``changed``: False where the host is as it was before, None where that is not known.

    ``data`` is kept in the ledger and handed to ``undo``: small, and no secret.
    """

    ok: bool
    changed: bool | None
    code: str = ""
    message: str = ""
    hint: str = ""
    data: Mapping[str, Any] = field(default_factory=dict)


class Action(Protocol):
    """A change of hosts, in single-host commands. Tasks are in the order of the hosts given, one a host."""

    @property
    def name(self) -> str:
        """The word of the command: install, uninstall ..."""

    def plan(self, hosts: Iterable[Host]) -> list[Task]:
        """What the change would do; changes nothing. No tasks at all: every host can be changed."""

    def tasks(self, hosts: Iterable[Host], told: Mapping[str, Mapping[str, Any]]) -> list[Task]:
        """The change; doing it again where it is done must change nothing. ``told``: data of the plans' verdicts."""

    def undo(self, hosts: Iterable[Host], told: Mapping[str, Mapping[str, Any]]) -> list[Task]:
        """The way back, for hosts that changed; ``told``: the data of their verdicts, {} where it was lost."""

    def confirm(self, hosts: Iterable[Host]) -> list[Task]:
        """Is the change there? Changes nothing."""

    def judge_plan(self, host: Host, outcome: Outcome) -> Verdict:
        """Of :meth:`plan`. ``changed``: would it change anything? False leaves the host out of the waves."""

    def judge(self, host: Host, outcome: Outcome) -> Verdict:
        """Of :meth:`tasks` and :meth:`undo`."""

    def judge_confirm(self, host: Host, outcome: Outcome) -> Verdict:
        """Of :meth:`confirm`: ok where the change is there; else ``changed`` is False where it surely is not."""
