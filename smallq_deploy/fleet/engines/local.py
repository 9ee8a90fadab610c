"""Engines of threads and child processes; the one whose hosts are this machine, for one host and for tests."""

from __future__ import annotations

import os
import queue
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from smallq_deploy.base.proc import run
from smallq_deploy.fleet.engines.remote import Course, Ended, Feed, Trouble, failed, perform, skipped, timed
from smallq_deploy.fleet.transport import Outcome, State, Task

LOCAL = "local:"
KEEP_OUTPUT = 32 * 1024 * 1024  # bytes of a command's output; what is more is dropped, and the answer unreadable


class OutOfTime(Exception):
    """A child did not end in time and was killed; ``stderr`` is what it had said."""

    def __init__(self, stderr: str) -> None:
        super().__init__("out of time")
        self.stderr = stderr


# Output goes to a file: proc.run is for people's lines, an answer is bytes.
_TO_FILE = 'exec "$@" >"$0"'


def run_threads(
    tasks: Sequence[Task],
    one: Callable[[Task], Outcome],
    parallel: int,
    on_outcome: Callable[[Outcome], None],
    stop: threading.Event | None = None,
) -> None:
    """Every task through ``one`` in threads, ``parallel`` at once; see Transport.run."""
    done: queue.SimpleQueue[Outcome] = queue.SimpleQueue()
    ended = threading.Event()  # also when the caller was interrupted

    def work(task: Task) -> None:
        if ended.is_set() or (stop is not None and stop.is_set()):
            done.put(skipped(task))
            return
        start = time.monotonic()
        try:
            outcome = one(task)
        except Exception as error:
            outcome = failed(task, Trouble(State.LOST, f"internal error: {type(error).__name__}: {error}"))
        done.put(timed(outcome, start))

    with ThreadPoolExecutor(max(1, min(parallel, len(tasks))), thread_name_prefix="fleet") as pool:
        try:
            for task in tasks:
                pool.submit(work, task)
            for _ in tasks:
                on_outcome(done.get())
        finally:
            ended.set()


def run_child(argv: Sequence[str], feed: Feed, seconds: float, env: Mapping[str, str] | None = None) -> Ended:
    """Run ``argv`` with ``feed`` as its input; raises OutOfTime after ``seconds``.

    Its output is exact but for bytes that are no UTF-8; at most KEEP_OUTPUT bytes of it are kept.
    """
    with tempfile.TemporaryDirectory(prefix="smallq-fleet-") as work:
        source, target = Path(work, "in"), Path(work, "out")
        if isinstance(feed, bytes):
            source.write_bytes(feed)
        else:
            source = feed
        stdin = os.open(source, os.O_RDONLY | os.O_CLOEXEC)
        try:
            argv = ["/bin/sh", "-c", _TO_FILE, str(target), *argv]
            done = run(argv, env=env, cwd="/", timeout=max(0.1, seconds), stdin=stdin)
        finally:
            os.close(stdin)
        if done.timed_out:
            raise OutOfTime(done.stderr)
        stdout = b""
        if target.exists():
            with open(target, "rb") as stream:
                stdout = stream.read(KEEP_OUTPUT)
    status = done.returncode if done.returncode >= 0 else 128 - done.returncode
    return Ended(status, stdout.decode("utf-8", "replace"), done.stderr)


class LocalTransport:
    """This machine as the host. A host whose address is ``local:DIR`` has DIR as its home, others this user's."""

    def __init__(self, parallel: int = 8) -> None:
        self._parallel = parallel

    def run(
        self, tasks: Sequence[Task], on_outcome: Callable[[Outcome], None], stop: threading.Event | None = None
    ) -> None:
        """See Transport."""
        run_threads(tasks, self._one, self._parallel, on_outcome, stop)

    def close(self) -> None:
        """Nothing stays open."""

    def _one(self, task: Task) -> Outcome:
        env = dict(os.environ)
        if task.host.address.startswith(LOCAL):
            env["HOME"] = task.host.address[len(LOCAL) :]
            if not os.path.isdir(env["HOME"]):
                return failed(task, Trouble(State.UNREACHABLE, f"{env['HOME']} is no directory"))
        end, course = time.monotonic() + task.timeout, Course()

        def execute(command: str, feed: Feed) -> Ended:
            try:
                return run_child(["/bin/sh", "-c", command], feed, end - time.monotonic(), env)
            except OutOfTime:
                raise course.out_of_time(task.timeout) from None

        return perform(task, execute, course)
