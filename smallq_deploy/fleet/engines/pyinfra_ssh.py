"""The engine for real fleets: one worker process with pyinfra and gevent; here is its controller's half.

The worker is a process of its own because gevent changes threads, sockets and subprocesses of the whole interpreter,
and our locks and files must not stand on that. Both speak JSON lines over pipes: tasks in, outcomes out as hosts end.
"""

from __future__ import annotations

import importlib.util
import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from smallq_deploy.base.errors import UsageError
from smallq_deploy.fleet.engines.remote import Trouble, failed, skipped
from smallq_deploy.fleet.transport import Outcome, State, Task

PARALLEL = 300  # hosts at once: three descriptors each stay below any usual limit
_GRACE = 30.0  # seconds after a task's own time when the worker itself counts as hanging

Fake = Callable[[Task], Mapping[str, Any]]
"""What a host without a machine answers: ``delay`` in seconds, ``exit_status``, ``stdout``, ``stderr``."""


@dataclass(frozen=True)
class _Flight:
    task: Task
    start: float


class PyinfraTransport:
    """SSH to at most ``parallel`` hosts at once. Connections end with their task: an idle one is soon a dead one.

    Hosts whose address begins with ``@fake`` are pyinfra's fake connector; with ``fake`` all are, and it scripts them.
    """

    def __init__(self, parallel: int = PARALLEL, *, fake: Fake | None = None) -> None:
        self._parallel = parallel
        self._fake = fake
        self._worker: _Worker | None = None
        self._number = 0

    def run(
        self, tasks: Sequence[Task], on_outcome: Callable[[Outcome], None], stop: threading.Event | None = None
    ) -> None:
        """See Transport. When the worker dies, every task without an outcome is LOST; the next run has a new one.

        Raises UsageError FLEET_EXTRA_MISSING where pyinfra is not installed.
        """
        waiting = iter(tasks)
        flights: dict[int, _Flight] = {}
        while True:
            alive = True
            while len(flights) < self._parallel and (task := next(waiting, None)) is not None:
                if stop is not None and stop.is_set():
                    on_outcome(skipped(task))
                    continue
                self._number += 1
                flights[self._number] = _Flight(task, time.monotonic())
                alive = self._ready().send(self._message(self._number, task))
                if not alive:
                    break
            if not flights:
                return
            answer = self._ready().receive(1.0) if alive else _DEAD
            if isinstance(answer, Mapping):
                flight = flights.pop(answer["id"], None)  # None: of a run that was interrupted
                if flight is not None:
                    on_outcome(Outcome.from_dict(answer["outcome"]))
            elif answer is _DEAD or _overdue(flights):
                self.close()
                for flight in flights.values():
                    on_outcome(failed(flight.task, Trouble(State.LOST, "the engine's worker process ended")))
                for task in waiting:
                    on_outcome(failed(task, Trouble(State.LOST, "the engine's worker process ended before its turn")))
                return

    def close(self) -> None:
        """End the worker; hosts it is still speaking to end by their own time."""
        worker, self._worker = self._worker, None
        if worker is not None:
            worker.close()

    @property
    def worker_pid(self) -> int:
        """The worker's process id; 0 without one."""
        return self._worker.pid if self._worker is not None else 0

    def _ready(self) -> _Worker:
        if self._worker is None:
            self._worker = _Worker()
        return self._worker

    def _message(self, number: int, task: Task) -> bytes:
        message: dict[str, Any] = {"id": number, "task": task.to_dict()}
        if self._fake is not None:
            message["fake"] = dict(self._fake(task))
        elif task.host.address.startswith("@fake"):
            message["fake"] = {}
        return json.dumps(message).encode() + b"\n"


def _overdue(flights: Mapping[int, _Flight]) -> bool:
    """The worker ends every task by its own time; where it does not, it hangs itself."""
    now = time.monotonic()
    return any(now > flight.start + flight.task.timeout + _GRACE for flight in flights.values())


class _Dead:
    """What is received from a worker that ended."""


_DEAD = _Dead()


class _Worker:
    """The process ``python -m smallq_deploy.fleet.engines.worker``. It ends when we do: its input ends then."""

    def __init__(self) -> None:
        for name in ("gevent", "pyinfra"):
            if importlib.util.find_spec(name) is None:
                raise UsageError(
                    "FLEET_EXTRA_MISSING",
                    f"reaching hosts over SSH with pyinfra needs the Python package {name}, which is not installed",
                    hint="pip install 'smallq-deploy[fleet]', or use OpenSSH's own client: --transport ssh",
                )
        above = str(Path(__file__).resolve().parents[3])
        env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, (above, os.environ.get("PYTHONPATH"))))}
        self._process = subprocess.Popen(  # it lives as long as we do: not for base/proc.py
            [sys.executable, "-m", "smallq_deploy.fleet.engines.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=env,
            cwd="/",
            start_new_session=True,  # Ctrl-C is for us: hosts that are being changed go on to their end
        )
        self.pid = self._process.pid
        self._answers: queue.SimpleQueue[Mapping[str, Any] | _Dead] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read, name="fleet-worker", daemon=True)
        self._reader.start()

    def send(self, line: bytes) -> bool:
        """False when the worker is gone."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(line)
            self._process.stdin.flush()
        except OSError:
            return False
        return True

    def receive(self, seconds: float) -> Mapping[str, Any] | _Dead | None:
        """The next answer; _DEAD when none will come, None when none came in time."""
        try:
            return self._answers.get(timeout=seconds)
        except queue.Empty:
            return None

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        self._reader.join(5)
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            try:
                stream.close()
            except OSError:
                pass  # what it had still to be told

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            try:
                self._answers.put(json.loads(line))
            except ValueError:
                break  # half a line: it was killed
        self._answers.put(_DEAD)
