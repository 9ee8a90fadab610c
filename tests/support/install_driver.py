"""Mutating commands on a small world, in processes that a fault test can kill.

    python -I -S -B install_driver.py PATHS

PATHS is the import path (':' between entries; -I -S keeps the start short). Each line of stdin is a JSON list
``[root, action, package, method, smoke]``, as :func:`act` has them; the smoke test answers ``smoke`` (pass or fail)
without running anything. For each line a child is forked that stops itself before it begins; its process id is printed,
and, once somebody continued it and it ended, its status (negative for a signal). What a failed command said lies in
``said`` beside root.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys

_PR_SET_PTRACER, _ANY = 0x59616D61, ctypes.c_ulong(-1)  # linux/prctl.h: let strace attach under Yama


def act(root: str, action: str, package: str, method: str, smoke: str) -> int:
    from pathlib import Path

    from smallq_deploy.base.errors import SmallqError
    from smallq_deploy.operate.gc import collect, pin
    from smallq_deploy.operate.mover import recover_store, restore, rollback, uninstall
    from smallq_deploy.operate.repair import repair
    from tests.support import opp, packages

    world = opp.World(Path(root))
    answer = opp.FAIL if smoke == "fail" else opp.PASS
    try:
        if action == "install":
            world.install(Path(package), smoke=answer, method=method)
        elif action == "rollback":
            rollback(world.store, operator=packages.OPERATOR, smoke=lambda: answer, method=method)
        elif action == "uninstall":
            uninstall(world.store, method=method)
        elif action == "uninstall --restore-adopted":
            uninstall(world.store, restore_adopted=True)
        elif action == "verify --repair":
            restore(world.store, operator=packages.OPERATOR, smoke=lambda: answer)
        elif action == "gc":
            collect(world.store, keep=0, adopted=True)
        elif action == "pin":
            pin(world.store, 2, reason="kept")
        elif action == "repair":
            repair(world.store, opp.release(), smoke=lambda: answer, unit=packages.UNIT, arch=packages.ARCH)
        else:
            recover_store(world.store)
    except SmallqError as error:
        said = {"code": error.code, "message": error.message, "hint": error.hint}
        status = int(error.exit_status)
    except Exception as error:  # what a user would see as a bug
        said = {"code": "", "message": f"{type(error).__name__}: {error}", "hint": ""}
        status = 1
    else:
        return 0
    (Path(root).parent / "said").write_text(json.dumps(said))
    return status


def warm_up() -> None:
    """Import everything once, so that a child's first system calls are those of its command."""
    import tempfile
    from pathlib import Path

    from tests.support import opp

    with tempfile.TemporaryDirectory() as directory:
        world = opp.World(Path(directory)).make()
        package = str(world.package("1"))
        for action in ("install", "rollback", "rollback", "uninstall", "rollback", "pin", "gc", "repair", "recover"):
            act(directory, action, package, "", "pass")


def serve() -> None:
    """Answer lines of stdin until they end."""
    warm_up()
    libc = ctypes.CDLL(None)
    print("ready", flush=True)
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            libc.prctl(_PR_SET_PTRACER, _ANY, 0, 0, 0)
            os.kill(os.getpid(), signal.SIGSTOP)
            status = act(*json.loads(line))
            sys.stderr.flush()
            os._exit(status)
        os.waitpid(pid, os.WUNTRACED)
        print(pid, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)


def main(arguments: list[str]) -> int:
    sys.path[:0] = arguments[0].split(":")
    from tests.support.opp import nobody_else

    with nobody_else():
        serve()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
