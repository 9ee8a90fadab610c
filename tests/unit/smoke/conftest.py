"""An installed operator whose library holds nothing but the names, and test processes that behave as told."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from smallq_deploy.machine.toolkit import Toolkit, discover, require_toolkit
from smallq_deploy.package.releases import Release, default_release
from smallq_deploy.smoke.resolve import OPAPI
from smallq_deploy.smoke.runner import run_smoke
from tests.support.toolkits import make_new, write

SYMBOLS = "\0aclnnSmallqFlashAttentionGetWorkspaceSize\0aclnnSmallqFlashAttention\0"
# What every fake test process begins with: the request, and helpers to answer it.
PRELUDE = """\
import json, os, signal, sys, time
request = json.load(open(sys.argv[1]))
names = [case["name"] for case in request["cases"]]
device = request["device"]
def progress(phase, **facts):
    with open(sys.argv[2], "a") as stream:
        stream.write(json.dumps({"phase": phase, **facts}) + "\\n")
def case(name, passed=True, detail=""):
    return dict(name=name, passed=passed, max_abs=0.1, bound=0.2, rel_l2=0.3, detail=detail, seconds=0.01)
def answer(status="done", cases=None, mapped_file=request["library"], **more):
    cases = [case(name) for name in names] if cases is None else cases
    inode = os.stat(mapped_file).st_ino if os.path.exists(mapped_file) else 7
    mapped = [dict(path=mapped_file, device="fe:01", inode=inode)]
    document = dict(status=status, cases=cases, mapped=mapped, device_count=4, soc="Ascend910B3", at={}) | more
    json.dump(document, open(sys.argv[3], "w"))
progress("load", library=request["library"])
"""


@pytest.fixture(scope="session")
def release() -> Release:
    return default_release()


@pytest.fixture
def toolkit(tmp_path: Path) -> Toolkit:
    home = make_new(tmp_path / "Ascend", remark="made-up toolkit")
    return require_toolkit(discover(cann=home, environ={}, root=tmp_path / "root"), mutating=True)


def install(vendors: Path, vendor: str, symbols: str = SYMBOLS) -> Path:
    """A vendor directory with a library that has ``symbols``; not named in config.ini."""
    write(vendors / vendor / OPAPI, symbols)
    return vendors / vendor


@pytest.fixture
def live(toolkit: Toolkit) -> Path:
    write(toolkit.vendors / "config.ini", "load_priority=customize\n")
    return install(toolkit.vendors, "customize")


@pytest.fixture
def smoke(toolkit: Toolkit, release: Release, live: Path, tmp_path: Path) -> Callable[..., object]:
    """``smoke(body)`` runs the smoke test with a test process that does what the lines of ``body`` say."""

    def go(body: str, **options: object) -> object:
        script = write(tmp_path / "fake_child.py", PRELUDE + body)
        settings: dict[str, object] = {"live": live, "timeout": 20.0, "environ": {}, **options}
        return run_smoke(toolkit, release, command=[sys.executable, str(script)], **settings)  # type: ignore[arg-type]

    return go
