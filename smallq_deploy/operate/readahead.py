"""A tree that is read in a thread of its own while the command that will compare it is still being put together.

Imports next to nothing, so that reading begins before the modules of the comparison are loaded.
"""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path

from smallq_deploy.base.fsops import FileEntry, read_entries, walk_tree

_INTERVAL = 0.0005  # seconds; hashing needs Python's lock once a MiB, and waits this long for it


class TreeReader:
    """Reads the tree below ``root``, contents too, from now on; a link or nothing at ``root`` is not read."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._entries: tuple[FileEntry, ...] = ()
        self._error: BaseException | None = None
        # Walked here: a thread would wait for Python's lock at each of many short calls.
        walked: list[tuple[str, os.stat_result]] = []
        try:
            walked += () if root.is_symlink() else walk_tree(root)
        except OSError as error:
            self._error = error
        self._interval = sys.getswitchinterval()
        sys.setswitchinterval(_INTERVAL)
        self._thread = threading.Thread(target=self._read, args=(walked,), name="tree-reader", daemon=True)
        self._thread.start()

    def _read(self, walked: list[tuple[str, os.stat_result]]) -> None:
        try:
            self._entries = read_entries(self._root, walked)
        except BaseException as error:  # for the thread that asks
            self._error = error

    def entries(self) -> tuple[FileEntry, ...]:
        """All entries, once they are read. Raises OSError."""
        self._thread.join()
        sys.setswitchinterval(self._interval)
        if self._error is not None:
            raise self._error
        return self._entries
