"""Tests with mounts of their own: a forked child in a mount namespace that nobody else sees."""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

_CLONE_NEWNS = 0x00020000


def mount(*arguments: object) -> None:
    """mount(8); raises RuntimeError with its words."""
    done = subprocess.run(["mount", *map(str, arguments)], capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"mount {' '.join(map(str, arguments))}: {done.stderr.strip()}")


def with_own_mounts(body: Callable[[], list[str]]) -> list[str]:
    """The violations that ``body`` returns in a child with private mounts; what it raises is one too."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        answer = ["the child died"]
        try:
            if ctypes.CDLL(None).unshare(_CLONE_NEWNS) != 0:
                raise RuntimeError("no mount namespace")
            mount("--make-rprivate", "/")
            answer = body()
        except BaseException:
            answer = [traceback.format_exc(limit=-8)]
        finally:
            sys.stderr.flush()
            with os.fdopen(writer, "w") as stream:
                json.dump(answer, stream)
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as stream:
        data = stream.read()
    os.waitpid(pid, 0)
    found: list[str] = json.loads(data or b'["the child died"]')
    return found


def in_child_as(uid: int, place: Path, body: Callable[[], list[str]]) -> list[str]:
    """``body`` in a child that is this user (really: uid, gid, no groups), standing in ``place`` with no home."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        answer = ["the child died"]
        try:
            os.chdir(place)
            os.environ.update(HOME="/nonexistent", XDG_DATA_HOME="/nonexistent/data")
            os.setgroups([])
            os.setgid(uid)
            os.setuid(uid)
            answer = body()
        except BaseException:
            answer = [traceback.format_exc(limit=-8)]
        finally:
            with os.fdopen(writer, "w") as stream:
                json.dump(answer, stream)
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as stream:
        data = stream.read()
    os.waitpid(pid, 0)
    found: list[str] = json.loads(data or b'["the child died"]')
    return found
