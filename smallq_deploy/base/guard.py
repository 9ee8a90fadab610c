"""Ends a child when this process is killed and can no longer do it itself.

SIGKILL leaves no time for anything, so somebody else must see it: a shell that waits for the end of a pipe. When this
process is gone, however it went, the pipe ends and the shell kills the child's process group, and what carries the mark
of a contained run (base/proc.py). A death signal (prctl PR_SET_PDEATHSIG) would reach only the child itself.
"""

from __future__ import annotations

import os
import subprocess

_SCRIPT = """
read -r group
read -r nothing
[ -n "$group" ] && kill -s KILL -- "-$group"
[ -n "$1" ] || exit 0
for try in 1 2 3 4 5 6 7 8 9 10; do
    found=
    for name in $(grep -lzxF -- "$1" /proc/[0-9]*/environ); do
        name=${name#/proc/}
        kill -s KILL "${name%/environ}" && found=1
    done
    [ -n "$found" ] || exit 0
done
"""


class Guard:
    """Waits from now on until :meth:`close`.

    :meth:`watch` names the child's process group (its pid: it leads a session).

    ``mark`` is a ``NAME=value`` in the environment of everything that belongs to the child; '' for none. Where there is
    no shell to start, the child is simply not guarded.
    """

    def __init__(self, mark: str = "") -> None:
        self._shell: subprocess.Popen[bytes] | None = None
        reader, self._writer = os.pipe()  # neither is inherited by other children
        try:
            self._shell = subprocess.Popen(
                ["/bin/sh", "-c", _SCRIPT, "smallq-deploy-guard", mark],
                stdin=reader,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                cwd="/",
                start_new_session=True,  # what ends our process group must not end it
            )
        except OSError:
            pass
        finally:
            os.close(reader)

    def watch(self, group: int) -> None:
        """From now on the process group ``group`` ends with this process."""
        if self._shell is not None:
            os.write(self._writer, b"%d\n" % group)

    def close(self) -> None:
        """The child has ended. Killed before the pipe is closed: the group's number may be somebody else's by now."""
        if self._shell is not None:
            self._shell.kill()
            self._shell.wait()
        os.close(self._writer)
