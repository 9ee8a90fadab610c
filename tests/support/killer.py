"""SIGKILL at a chosen system call, by strace's fault injection (strace >= 4.22 and the right to trace)."""

from __future__ import annotations

import collections
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

CHECKOUT = Path(__file__).resolve().parent.parent.parent
# Everything that changes what is on disk. openat counts where it creates or truncates.
MUTATING = (
    *("openat", "open", "creat", "write", "writev", "pwrite64", "pwritev", "pwritev2", "rename", "renameat"),
    *(
        "renameat2",
        "unlink",
        "unlinkat",
        "rmdir",
        "mkdir",
        "mkdirat",
        "symlink",
        "symlinkat",
        "link",
        "linkat",
        "chmod",
    ),
    *("fchmod", "fchmodat", "chown", "fchown", "lchown", "fchownat", "utimensat", "utime", "utimes", "futimesat"),
    *("truncate", "ftruncate", "fallocate", "copy_file_range", "sendfile", "splice", "setxattr", "lsetxattr"),
    *("fsetxattr", "mknod", "mknodat"),
)
READING = ("fsync", "fdatasync", "read", "pread64", "getdents64", "flock", "readlink", "statfs", "fstatfs")
_CALL = re.compile(r"^\d+\s+(\w+)\((.*)")


@dataclass(frozen=True)
class Point:
    """The ``count``-th call of ``name`` in a run."""

    name: str
    count: int
    text: str = ""


class Victim:
    """A process that forks a child for each command; see tests/support/install_driver.py."""

    def __enter__(self) -> Victim:
        python = os.path.realpath(getattr(sys, "_base_executable", sys.executable))
        paths = f"{CHECKOUT}:{sysconfig.get_path('purelib')}"
        self.process = subprocess.Popen(
            [python, "-I", "-S", "-B", str(CHECKOUT / "tests" / "support" / "install_driver.py"), paths],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self._line() == "ready"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(10)

    def _line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def run(self, command: tuple[str, ...], *strace: str, log: str = "/dev/null") -> int:
        """Run a command under strace with the given options; its exit status, or minus the signal that ended it."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps([*command, *[""] * 5][:5]) + "\n")
        self.process.stdin.flush()
        pid = int(self._line())
        tracer = subprocess.Popen(
            ["strace", "-f", "-o", log, *strace, "-p", str(pid)], stderr=subprocess.PIPE, text=True
        )
        assert tracer.stderr is not None
        said = tracer.stderr.readline()
        os.kill(pid, signal.SIGCONT)
        status = int(self._line())
        tracer.wait(20)
        tracer.stderr.close()
        assert "attached" in said, said
        return status

    def kill_at(self, command: tuple[str, ...], point: Point) -> int:
        """Run a command and kill it as it enters ``point``."""
        what = f"inject={point.name}:signal=SIGKILL:when={point.count}"
        return self.run(command, "-e", f"trace={point.name}", "-e", what)

    def fail_at(self, command: tuple[str, ...], point: Point, error: str, log: Path) -> tuple[int, bool]:
        """Run a command in which one call fails with ``error``: (exit status, whether the call was reached)."""
        what = f"inject={point.name}:error={error}:when={point.count}"
        status = self.run(command, "-e", f"trace={point.name}", "-e", what, log=str(log))
        return status, "(INJECTED)" in log.read_text(errors="replace")

    def points(
        self, command: tuple[str, ...], root: Path, log: Path, *, reading: bool = False
    ) -> tuple[int, list[Point]]:
        """(exit status, every mutating call below ``root`` in order) of an undisturbed run; with ``reading`` also those
        that read and sync."""
        names = (*MUTATING, *READING) if reading else MUTATING
        status = self.run(command, "-y", "-s", "0", "-e", "trace=" + ",".join(names), log=str(log))
        counts: collections.Counter[str] = collections.Counter()
        found = []
        for line in log.read_text(errors="replace").splitlines():
            match = _CALL.match(line)
            if match is None:
                continue
            name, rest = match[1], match[2]
            counts[name] += 1
            creates = reading or name not in ("open", "openat") or re.search(r"O_CREAT|O_TRUNC", rest)
            if creates and str(root) in rest:
                found.append(Point(name, counts[name], rest.replace(str(root), "")))
        return status, found


def why_not() -> str:
    """'' when this machine can inject signals, else the reason."""
    if shutil.which("strace") is None:
        return "strace is not installed"
    probe = subprocess.run(
        ["strace", "-f", "-o", "/dev/null", "-e", "inject=rmdir:signal=SIGKILL:when=1", "rmdir", "/nonexistent"],
        capture_output=True,
        text=True,
    )
    killed = probe.returncode in (137, -9)
    return "" if killed else f"strace cannot inject here: {probe.stderr.strip()[-200:] or probe.returncode}"
