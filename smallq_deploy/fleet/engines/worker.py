"""The worker process (``python -m smallq_deploy.fleet.engines.worker``): reads tasks and writes outcomes, JSON lines.

It ends when its input ends, that is, with its controller. One greenlet a host: a host's time ends its greenlet and
closes its connection, and no other host waits for it.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from typing import Any


def main() -> None:
    """Serve until the input ends."""
    from gevent import monkey

    monkey.patch_all()  # before anything opens a socket or a lock

    import logging

    import gevent

    logging.disable(logging.CRITICAL)  # pyinfra and paramiko tell it all again in their exceptions
    tasks, answers = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)  # nobody can be asked anything here
    os.dup2(2, 1)
    _raise_open_files()
    channel = _Channel(tasks, answers)
    from smallq_deploy.fleet.engines.connection import Connections

    connections = Connections()
    while True:
        message = channel.receive()
        if message is None:
            os._exit(0)  # our controller is gone; what runs on hosts ends by itself
        gevent.spawn(_serve, channel, connections, message)


def _serve(channel: _Channel, connections: Any, message: Mapping[str, Any]) -> None:
    from smallq_deploy.fleet.transport import Task

    channel.send({"id": message["id"], "outcome": _one(connections, Task.from_dict(message["task"]), message)})


def _one(connections: Any, task: Any, message: Mapping[str, Any]) -> Mapping[str, Any]:
    """The outcome of one task, whatever happens."""
    import gevent

    from smallq_deploy.fleet.engines.remote import Course, Trouble, failed, perform, timed
    from smallq_deploy.fleet.transport import State

    start, course = time.monotonic(), Course()
    connection = connections.fake(task, message["fake"]) if "fake" in message else connections.real(task)
    ours = gevent.Timeout(task.timeout)
    ours.start()
    try:
        connection.open()
        outcome = perform(task, connection.execute, course)
    except gevent.Timeout as timeout:
        outcome = failed(task, course.out_of_time(task.timeout))
        if timeout is not ours:
            outcome = failed(task, Trouble(State.LOST, "an inner time limit ran out"))
    except Trouble as trouble:
        outcome = failed(task, trouble)
    except Exception as error:  # of a library, about one host: it is that host's outcome
        state = State.UNREACHABLE if course.phase == "connect" else State.LOST
        outcome = failed(task, Trouble(state, f"{type(error).__name__}: {error}"))
    finally:
        ours.close()
        gevent.spawn(connection.close)  # a broken connection takes its time to close: nobody waits for it
    result: Mapping[str, Any] = timed(outcome, start).to_dict()
    return result


class _Channel:
    """JSON lines on two descriptors; one greenlet reads, any may write."""

    def __init__(self, reader: int, writer: int) -> None:
        from gevent.lock import Semaphore
        from gevent.os import make_nonblocking

        self._reader, self._writer = reader, writer
        make_nonblocking(reader)
        make_nonblocking(writer)
        self._lock = Semaphore()
        self._lines: list[bytes] = []
        self._rest = bytearray()

    def receive(self) -> Mapping[str, Any] | None:
        """The next message; None at the end."""
        from gevent.os import nb_read

        while not self._lines:
            data = nb_read(self._reader, 1 << 20)
            if not data:
                return None
            self._rest += data
            if b"\n" in data:
                *lines, rest = bytes(self._rest).split(b"\n")
                self._lines, self._rest = lines[::-1], bytearray(rest)
        message: Mapping[str, Any] = json.loads(self._lines.pop())
        return message

    def send(self, message: Mapping[str, Any]) -> None:
        """One whole line; a controller that is gone gets nothing more."""
        from gevent.os import nb_write

        data = memoryview(json.dumps(message).encode() + b"\n")
        with self._lock:
            try:
                while data:
                    data = data[nb_write(self._writer, data[: 1 << 20]) :]
            except OSError:
                os._exit(0)


def _raise_open_files() -> None:
    """Three descriptors a host; the usual soft limit of 1024 is raised as far as it goes."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard if hard != resource.RLIM_INFINITY else max(soft, 65536), hard))
    except (OSError, ValueError):
        pass  # then some hosts fail to connect, and say why


if __name__ == "__main__":
    main()
