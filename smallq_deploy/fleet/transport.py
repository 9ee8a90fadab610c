"""How commands reach hosts: what is asked of one host, what came of it, and the protocol behind which engines stand.

An engine carries connections, files and commands, and decides nothing: waves, budgets and the ledger are above it.
"""

from __future__ import annotations

import enum
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from smallq_deploy.fleet.hosts import Host


class State(enum.Enum):
    """How a task on one host ended, as the engine saw it."""

    DONE = "done"  # the command ran to its end; its exit status and output are known
    UNREACHABLE = "unreachable"  # no connection: name, route, port, refused, no answer in time
    REFUSED = "refused"  # the host's key is unknown or changed, or it would not let us log in
    UPLOAD_FAILED = "upload-failed"  # a file did not arrive whole (disk full, no permission)
    TIMED_OUT = "timed-out"  # our own time for this host ran out; what it does there is not known
    LOST = "lost"  # the connection or the engine ended while the command ran
    SKIPPED = "skipped"  # not begun: the run was asked to stop first


@dataclass(frozen=True)
class Upload:
    """A file that must lie on the host before the command runs.

    ``name`` is a plain file name below the fleet's directory there (node.PLACE); ``sha256`` in hex says whether it is
    there already, and what must have arrived.
    """

    path: Path
    sha256: str
    name: str

    def to_dict(self) -> dict[str, str]:
        return {"path": str(self.path), "sha256": self.sha256, "name": self.name}

    @classmethod
    def from_dict(cls, record: Mapping[str, str]) -> Upload:
        return cls(Path(record["path"]), record["sha256"], record["name"])


@dataclass(frozen=True)
class Task:
    """What one host is asked to do: ``uploads``, then ``command`` (text for /bin/sh), all within ``timeout`` seconds.

    With ``host.sudo`` the engine runs the command as root (`sudo -n`); uploads are made as the login user.
    """

    host: Host
    command: str
    uploads: tuple[Upload, ...] = ()
    timeout: float = 600.0

    def to_dict(self) -> dict[str, Any]:
        return {
            "host": self.host.to_dict(),
            "command": self.command,
            "uploads": [item.to_dict() for item in self.uploads],
            "timeout": self.timeout,
        }

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Task:
        return cls(
            Host.from_dict(record["host"]),
            record["command"],
            tuple(Upload.from_dict(item) for item in record["uploads"]),
            record["timeout"],
        )


@dataclass(frozen=True)
class Outcome:
    """What came of a task. ``exit_status``, ``stdout`` and ``stderr`` count for DONE; ``error`` says why for the rest.

    ``seconds`` is the controller's wall clock for this host; ``uploaded`` how many files had to travel.
    """

    host: str
    state: State
    exit_status: int | None = None
    stdout: str = ""
    stderr: str = ""
    error: str = ""
    seconds: float = 0.0
    uploaded: int = 0

    def to_dict(self) -> dict[str, Any]:
        return {**vars(self), "state": self.state.value}

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Outcome:
        return cls(**{**record, "state": State(record["state"])})


class Transport(Protocol):
    """An engine. Hosts' names are unique within one ``run``."""

    def run(
        self, tasks: Sequence[Task], on_outcome: Callable[[Outcome], None], stop: threading.Event | None = None
    ) -> None:
        """Run all tasks, as many at once as the engine can; ``on_outcome`` is called once a task, in this thread.

        When ``stop`` gets set, tasks that run go on to their end and those not begun are SKIPPED. Returns when every
        task has its outcome. A host's failure is an outcome, never an exception; raises SmallqError only where
        the engine itself cannot work (a missing extra).
        """

    def close(self) -> None:
        """End worker processes and connections; may be called twice."""
