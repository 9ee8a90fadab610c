"""Tests with mounts or a user of their own: a forked child in a mount namespace that nobody else sees."""

from __future__ import annotations

import ctypes
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

from tests.support.forked import in_child

_CLONE_NEWNS = 0x00020000


def mount(*arguments: object) -> None:
    """mount(8); raises RuntimeError with its words."""
    done = subprocess.run(["mount", *map(str, arguments)], capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"mount {' '.join(map(str, arguments))}: {done.stderr.strip()}")


def with_own_mounts(body: Callable[[], list[str]]) -> list[str]:
    """The violations that ``body`` returns in a child with private mounts; what it raises is one too."""

    def work() -> list[str]:
        if ctypes.CDLL(None).unshare(_CLONE_NEWNS) != 0:
            raise RuntimeError("mount namespaces are not allowed")
        mount("--make-rprivate", "/")
        return body()

    return in_child(work)


def in_child_as(uid: int, place: Path, body: Callable[[], list[str]]) -> list[str]:
    """``body`` in a child that is this user (really: uid, gid, no groups), standing in ``place`` with no home."""

    def work() -> list[str]:
        os.chdir(place)
        os.environ.update(HOME="/nonexistent", XDG_DATA_HOME="/nonexistent/data")
        os.setgroups([])
        os.setgid(uid)
        os.setuid(uid)
        return body()

    return in_child(work)
