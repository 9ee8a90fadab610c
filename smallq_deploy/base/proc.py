"""The only place that starts processes: environment, timeout, group kill, output tail, a replayable command line."""

from __future__ import annotations

import os
import selectors
import shlex
import signal
import subprocess
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from smallq_deploy.base.guard import Guard

_KEEP_OUTPUT = 4 * 1024 * 1024
_LONG_LINE = 1024 * 1024  # a line is cut there, or output without line ends would fill the memory
_MARK = "SMALLQ_DEPLOY_RUN"  # in the environment of a contained process and of all that comes from it
_DRAIN = 1.0  # seconds of output taken from those that outlive the child
_GRACE = 5.0  # seconds between SIGTERM and SIGKILL when we are interrupted


@dataclass(frozen=True)
class Completed:
    """A child that ended. ``returncode`` is negative for a signal (as subprocess has it); 127 = not found."""

    argv: tuple[str, ...]
    cwd: str
    returncode: int
    stdout: str
    stderr: str
    seconds: float
    timed_out: bool = False

    @property
    def ok(self) -> bool:
        return self.returncode == 0 and not self.timed_out

    @property
    def command_line(self) -> str:
        """A line a user can paste to run it again."""
        return f"cd {shlex.quote(self.cwd)} && {shlex.join(self.argv)}"

    def describe(self) -> str:
        """How it ended, in words."""
        if self.timed_out:
            return f"did not end within {self.seconds:.0f} s and was stopped"
        if self.returncode < 0:
            try:
                name = signal.Signals(-self.returncode).name
            except ValueError:
                name = str(-self.returncode)
            return f"was ended by signal {name}"
        if self.returncode == 127:
            return "could not be started: command not found"
        return f"ended with exit status {self.returncode}"

    def tail(self, lines: int = 15) -> str:
        """The last lines of what it printed, stderr last."""
        text = (self.stdout.rstrip("\n") + "\n" + self.stderr.rstrip("\n")).strip("\n")
        return "\n".join(text.splitlines()[-lines:])


def run(
    argv: Sequence[str | os.PathLike[str]],
    *,
    env: Mapping[str, str] | None = None,
    cwd: str | os.PathLike[str] | None = None,
    timeout: float | None = None,
    on_line: Callable[[str], None] | None = None,
    log: IO[str] | None = None,
    merge_stderr: bool = False,
    kill_leftovers: bool = True,
    stdin: int | None = None,
    contain: bool = False,
) -> Completed:
    """Run ``argv`` (never through a shell) in a session of its own; its stdin is the descriptor given, else empty.

    At the timeout (seconds) the whole process group gets SIGKILL. ``on_line`` sees each line of output as it comes,
    ``log`` gets all of it. With ``kill_leftovers`` children that the process left in its group are ended too; with
    ``contain`` also those in sessions of their own. When this process is killed meanwhile, all of them are too
    (base/guard.py). Never raises for a child's failure; a program that does not exist is returncode 127.
    """
    mark = f"{_MARK}={uuid.uuid4().hex}" if contain else ""
    if contain:
        env = {**(os.environ if env is None else env), _MARK: mark.partition("=")[2]}
    args = [os.fspath(part) for part in argv]
    where = os.fspath(cwd) if cwd is not None else os.getcwd()
    start = time.monotonic()
    guard = Guard(mark)
    try:
        child = subprocess.Popen(
            args,
            env=dict(env) if env is not None else None,
            cwd=where,
            stdin=subprocess.DEVNULL if stdin is None else stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT if merge_stderr else subprocess.PIPE,
            start_new_session=True,
        )
    except (FileNotFoundError, PermissionError, NotADirectoryError) as error:
        guard.close()
        return Completed(tuple(args), where, 127, "", f"{error.strerror}: {error.filename}", 0.0)
    except BaseException:
        guard.close()
        raise
    guard.watch(child.pid)
    chunks: dict[str, list[str]] = {"out": [], "err": []}
    sizes = {"out": 0, "err": 0}
    partial = {"out": b"", "err": b""}

    def take(name: str, data: bytes, end: bool = False) -> None:
        lines = (partial[name] + data).split(b"\n")
        partial[name] = b"" if end else lines.pop()
        if len(partial[name]) > _LONG_LINE:
            lines.append(partial[name])
            partial[name] = b""
        for raw in lines:
            if end and not raw:
                continue
            line = raw.decode("utf-8", "replace").rstrip("\r")
            if sizes[name] < _KEEP_OUTPUT:
                chunks[name].append(line)
                sizes[name] += len(line) + 1
            if log is not None:
                log.write(line + "\n")
            if on_line is not None:
                on_line(line)

    timed_out = False
    try:
        with selectors.DefaultSelector() as selector:
            assert child.stdout is not None
            selector.register(child.stdout, selectors.EVENT_READ, "out")
            if child.stderr is not None:
                selector.register(child.stderr, selectors.EVENT_READ, "err")
            ended: float | None = None
            while selector.get_map():
                left = None if timeout is None else timeout - (time.monotonic() - start)
                if left is not None and left <= 0:
                    timed_out = True
                    break
                # A leftover grandchild can keep the pipe open after the child has ended: look at the child too.
                ready = selector.select(0.2 if left is None else min(left, 0.2))
                for key, _ in ready:
                    data = os.read(key.fd, 65536)
                    if data:
                        take(key.data, data)
                    else:
                        selector.unregister(key.fileobj)
                if child.poll() is not None:
                    ended = ended or time.monotonic()
                    if not ready or time.monotonic() - ended > _DRAIN:
                        break
        if not timed_out:
            try:
                child.wait(None if timeout is None else max(0.0, timeout - (time.monotonic() - start)))
            except subprocess.TimeoutExpired:
                timed_out = True
    except BaseException:
        # We are interrupted: the child may have children in sessions of their own, and only it can end those.
        _end_group(child)
        raise
    finally:
        if timed_out or child.poll() is None or kill_leftovers:
            _kill_group(child.pid)
        if mark:
            _kill_marked(mark)
        guard.close()
        _reap(child, _GRACE if timed_out else None)
        for stream in (child.stdout, child.stderr):
            if stream is not None:
                stream.close()
    for name in ("out", "err"):
        take(name, b"", end=True)
    return Completed(
        tuple(args),
        where,
        child.returncode if child.returncode is not None else -signal.SIGKILL,
        "\n".join(chunks["out"]) + ("\n" if chunks["out"] else ""),
        "\n".join(chunks["err"]) + ("\n" if chunks["err"] else ""),
        time.monotonic() - start,
        timed_out,
    )


def _end_group(child: subprocess.Popen[bytes]) -> None:
    """Ask the group to end, and wait a little."""
    try:
        os.killpg(child.pid, signal.SIGTERM)
        child.wait(_GRACE)
    except (ProcessLookupError, PermissionError, subprocess.TimeoutExpired):
        pass


def _reap(child: subprocess.Popen[bytes], seconds: float | None) -> None:
    """Wait for a child that was killed. One that sleeps in a driver cannot even be killed before the driver answers."""
    try:
        child.wait(seconds)
    except subprocess.TimeoutExpired:
        pass


def _kill_group(pgid: int) -> None:
    try:
        os.killpg(pgid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass


def _kill_marked(mark: str) -> None:
    """End every process with ``mark`` in its environment, and what those start meanwhile; bounded by _GRACE."""
    needle, until = mark.encode(), time.monotonic() + _GRACE
    while time.monotonic() < until:
        found = 0
        for name in os.listdir("/proc"):
            try:
                if name.isdigit() and needle in Path("/proc", name, "environ").read_bytes().split(b"\0"):
                    os.kill(int(name), signal.SIGKILL)
                    found += 1
            except OSError:
                continue  # ended meanwhile, or somebody else's
        if not found:
            return
        time.sleep(0.01)


def sourced_environment(script: Path, *, base: Mapping[str, str], timeout: float = 60.0) -> dict[str, str]:
    """The environment after ``source script`` in bash, starting from ``base``.

    LD_LIBRARY_PATH and friends are pre-set to empty because CANN's scripts read them unguarded (cann.md 1.4), and the
    script is sourced without ``set -u``. Raises NoToolkitError when the script cannot be sourced.
    """
    from smallq_deploy.base.errors import NoToolkitError

    env = {"LD_LIBRARY_PATH": "", "PYTHONPATH": "", "CMAKE_PREFIX_PATH": "", "ZSH_VERSION": "", **base}
    done = run(
        [
            "bash",
            "--noprofile",
            "--norc",
            "-c",
            'source "$1" >/dev/null; printf "\\n%s\\n" @@environment@@; env -0',
            "-",
            str(script),
        ],
        env=env,
        cwd="/",
        timeout=timeout,
    )
    _, mark, tail = done.stdout.partition("@@environment@@\n")
    if not done.ok or not mark:
        raise NoToolkitError(
            "SET_ENV_FAILED",
            f"sourcing {script} {done.describe()}",
            hint="run it by hand: " + f"bash -c 'source {shlex.quote(str(script))}'",
            details={"output": done.tail()},
        )
    result: dict[str, str] = {}
    for item in tail.split("\0"):
        name, equals, value = item.partition("=")
        if equals and name not in ("_", "SHLVL", "PWD", "OLDPWD"):
            result[name] = value
    return {name: value for name, value in result.items() if value or name not in ("ZSH_VERSION",)}
