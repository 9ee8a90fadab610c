"""Power cuts on real file systems: the backing file of a loop mount is copied while a command runs.

What the file system has not written to its device is not in the copy, as after a cut of the power; mounting the copy
replays the file system's own journal. One undisturbed run gives a copy for each moment that is asked for. Works in a
private mount namespace (tests/support/mounts.py).
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

from smallq_deploy.store import switch
from tests.support.mounts import mount

# name: (size of the image in MiB, mkfs, options of mount)
FILE_SYSTEMS: dict[str, tuple[int, tuple[str, ...], str]] = {
    "ext4": (32, ("mkfs.ext4", "-q", "-F"), "loop"),
    "xfs": (300, ("mkfs.xfs", "-q", "-f"), "loop,nouuid"),
    "btrfs": (114, ("mkfs.btrfs", "-q", "-f"), "loop"),
}
# Before each of these the power may go.
CALLS = ("fsync", "fdatasync", "rename", "replace", "unlink", "remove", "rmdir", "mkdir", "symlink")
_CHUNK = 1 << 20


class Disk:
    """A file system in an image below ``place``, mounted at ``place/at``."""

    def __init__(self, kind: str, place: Path) -> None:
        size, mkfs, self.options = FILE_SYSTEMS[kind]
        self.kind, self.place = kind, place
        self.image, self.at = place / "image", place / "at"
        self.at.mkdir(exist_ok=True)
        with open(self.image, "wb") as stream:
            stream.truncate(size << 20)
        subprocess.run([*mkfs, str(self.image)], check=True, capture_output=True)

    @contextmanager
    def mounted(self, image: Path | None = None) -> Iterator[Path]:
        """The image, or a copy of it, at ``place/at``."""
        mount("-t", self.kind, "-o", self.options, image or self.image, self.at)
        try:
            yield self.at
        finally:
            subprocess.run(["umount", str(self.at)], check=True)

    def snapshot(self, target: Path) -> None:
        """Copy what is on the device right now; blocks of zeros are left out."""
        with open(self.image, "rb") as source, open(target, "wb") as copy:
            size = os.fstat(source.fileno()).st_size
            copy.truncate(size)
            start = 0
            while start < size:
                try:
                    start = os.lseek(source.fileno(), start, os.SEEK_DATA)
                except OSError:
                    break  # only holes are left
                end = os.lseek(source.fileno(), start, os.SEEK_HOLE)
                while start < end:
                    data = os.pread(source.fileno(), min(_CHUNK, end - start), start)
                    if data.strip(b"\0"):
                        os.pwrite(copy.fileno(), data, start)
                    start += len(data)


@contextmanager
def around_each_call(
    before: Callable[[str], None], after: Callable[[str, tuple[Any, ...]], None] = lambda name, arguments: None
) -> Iterator[None]:
    """Call ``before`` with the name of each call of :data:`CALLS`, and of the exchange, before it happens, and
    ``after`` with its name and arguments when it succeeded. What these two call themselves is not watched."""
    busy = False

    def wrap(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            nonlocal busy
            if busy:
                return function(*arguments, **options)
            busy = True
            try:
                before(name)
            finally:
                busy = False
            answer = function(*arguments, **options)
            after(name, arguments)
            return answer

        return call

    with ExitStack() as stack:
        for name in CALLS:
            stack.enter_context(mock.patch.object(os, name, wrap(name, getattr(os, name))))
        exchange = wrap("exchange", switch.rename_exchange)
        stack.enter_context(mock.patch.object(switch, "rename_exchange", exchange))
        yield
