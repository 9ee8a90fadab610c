"""What must not touch the test's own process: a forked child that says what it found."""

from __future__ import annotations

import json
import os
import select
import signal
import sys
import traceback
from collections.abc import Callable


def in_child(work: Callable[[], list[str]], *, patience: float | None = None) -> list[str]:
    """The violations that ``work`` finds in a forked child; what it raises, its death and silence of more than
    ``patience`` seconds are violations too."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        answer = ["the child died"]
        try:
            answer = work()
        except BaseException:
            answer = [traceback.format_exc(limit=-8)]
        finally:
            sys.stderr.flush()
            with os.fdopen(writer, "w") as stream:
                json.dump(answer, stream)
            os._exit(0)
    os.close(writer)
    data = b""
    with os.fdopen(reader, "rb", buffering=0) as stream:
        while select.select([stream], [], [], patience)[0]:
            part = stream.read(1 << 16)
            if not part:
                break
            data += part
        else:
            os.kill(pid, signal.SIGKILL)
            data = b'["it hangs"]'
    os.waitpid(pid, 0)
    found: list[str] = json.loads(data or b'["the child died"]')
    return found
