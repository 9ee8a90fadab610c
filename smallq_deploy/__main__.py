"""``python -m smallq_deploy`` equals ``smallq-deploy``. Signals are answered from the first moment to the last."""

import contextlib
import os
import signal
import sys
from types import FrameType
from typing import NoReturn


def _terminate(number: int, frame: FrameType | None) -> NoReturn:
    """SIGTERM and SIGHUP end a command as Ctrl-C does: what is open is closed, children are ended."""
    raise KeyboardInterrupt


def main() -> NoReturn:
    """The console script."""
    try:
        for number in (signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, _terminate)
        from smallq_deploy.cli.main import run  # takes a moment, and may be interrupted too

        status = run(sys.argv[1:])
    except KeyboardInterrupt:  # no command had begun
        status = 130
        sys.stderr.write("interrupted\n")
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # too late: what was done is done, and the status says so
    if status == 130:
        # An interruption inside an eval (a dataclass being made) lets CPython end by SIGINT, whatever caught it.
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        os._exit(status)
    sys.exit(status)


if __name__ == "__main__":
    main()
