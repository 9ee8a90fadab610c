"""A small opp directory with everything the switch meets: our vendor, somebody else's, a config.ini, packages.

No toolkit is simulated here: the environment is stated, not detected, and the smoke test is a function.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

from smallq_deploy.base.events import Events
from smallq_deploy.base.versions import CannSpecifier, CannVersion
from smallq_deploy.machine.devices import Devices, Npu
from smallq_deploy.machine.environment import Environment
from smallq_deploy.machine.toolkit import Discovery, Toolkit
from smallq_deploy.operate import gc, inuse, mover, preflight
from smallq_deploy.operate.installer import InstallReport, install
from smallq_deploy.operate.planner import InstallOptions, Plan, make_plan
from smallq_deploy.package.releases import Release, Tolerance
from smallq_deploy.package.runfile import read_run
from smallq_deploy.store.paths import Store
from tests.support import packages

REMARK = "simulated toolkit"


@dataclass(frozen=True)
class FakeSmoke:
    """The answer of a smoke test that was not run."""

    verdict: str = "pass"
    reason: str = ""
    message: str = ""
    hint: str = ""

    def to_dict(self) -> dict[str, Any]:
        return {"verdict": self.verdict, "reason": self.reason, "message": self.message, "hint": self.hint}


PASS = FakeSmoke()
FAIL = FakeSmoke("fail", "SMOKE_WRONG_NUMBERS", "wrong numbers", "look at the kernel")
INCONCLUSIVE = FakeSmoke("inconclusive", "SMOKE_INCONCLUSIVE", "no device")


def release(**changes: Any) -> Release:
    """A release of the operator that the synthetic packages hold."""
    values: dict[str, Any] = {
        "name": "smallq-flash-attention",
        "version": "0.1.0",
        "operator": packages.OPERATOR,
        "vendor": "customize",
        "cann": CannSpecifier.parse(">=8.5.0"),
        "units": (packages.UNIT,),
        "required_symbols": (f"aclnn{packages.OPERATOR}", f"aclnn{packages.OPERATOR}GetWorkspaceSize"),
        "required_files": ("op_api/lib/libcust_opapi.so",),
        "smoke_cases": (),
        "tolerance": Tolerance(1e-3, 1e-3, 5e-4),
        "artifacts": (),
        "source": Path("release.yaml"),
    }
    return Release(**{**values, **changes})


def environment(
    opp: Path,
    *,
    version: str = "8.5.0",
    arch: str = packages.ARCH,
    host_arch: str = "",
    soc: str = "Ascend910B3",
    unit: str = packages.UNIT,
) -> Environment:
    """The environment of a machine with one toolkit whose opp is ``opp``."""
    toolkit = Toolkit(
        home=opp.parent,
        real_home=opp.parent,
        version=CannVersion.parse(version),
        inner_version="",
        arch=arch,
        opp=opp,
        set_env=opp.parent / "set_env.sh",
        layout="new",
        remark=REMARK,
        sources={},
        warnings=(),
    )
    npus = (Npu(0, soc, "OK", "0000:01:00.0", unit=unit),) if soc else ()
    discovery = Discovery((), (toolkit,), toolkit, "stated", False)
    return Environment(toolkit, discovery, Devices(npus), host_arch or platform.machine(), "3")


@contextmanager
def nobody_else() -> Iterator[None]:
    """No other process has libraries mapped: looking for them reads all of /proc, and is other tests' business."""
    with (
        mock.patch.object(preflight, "processes_using", lambda directory: ()),
        mock.patch.object(mover, "processes_using", lambda directory: ()),
        mock.patch.object(gc, "users_of", lambda store: inuse.Users()),
    ):
        yield


class World:
    """An opp directory below ``root`` and the packages beside it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.opp = root / "cann" / "opp"
        self.store = Store(self.opp)

    @property
    def live(self) -> Path:
        return self.store.live

    def make(self, *, found: str = "flat", other: bool = True) -> World:
        """``found``: layout of the vendor directory there before us ('' none), built with content "0"."""
        vendors = self.store.vendors
        vendors.mkdir(parents=True)
        (self.opp / "scene.info").write_text(f"os=linux\nos_version=\narch={packages.ARCH}")
        if found:
            packages.make_vendor_tree(self.live, layout=found, content="0", set_env=str(self.live))
            next(self.live.iterdir(), self.live).chmod(0o750)  # not what an install of ours would leave
        if other:
            packages.make_vendor_tree(vendors / "other", vendor="other", ops=("VecAddSample",))
            self.store.config_ini.write_text("load_priority=other\n")
        return self

    def package(self, content: str = "1", **options: Any) -> Path:
        """A package of this build of the operator, made once."""
        path = self.root / f"op-{content}.run"
        if not path.exists():
            packages.make_run(path, content=content, **options)
        return path

    def plan(self, package: Path, **options: Any) -> Plan:
        return make_plan(environment(self.opp), release(), self.store, read_run(package), InstallOptions(**options))

    def install(
        self,
        package: Path,
        *,
        smoke: FakeSmoke | Callable[[], FakeSmoke] = PASS,
        method: str = "",
        events: Events | None = None,
        **options: Any,
    ) -> InstallReport:
        """The whole use case, with a smoke test that answers ``smoke``."""
        call = (lambda: smoke) if isinstance(smoke, FakeSmoke) else smoke
        return install(self.plan(package, **options), smoke=call, events=events, method=method)
