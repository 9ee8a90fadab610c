"""A machine on which every check of doctor passes: a toolkit with driver and device files, the operator installed.

The toolkit is a directory tree without programs; the package is installed by the real installer, and only the smoke
test is an answer instead of a call.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from smallq_deploy.machine.environment import Environment, detect_environment
from smallq_deploy.operate.doctor import Check, Context, Finding, checks, diagnose
from smallq_deploy.operate.installer import install
from smallq_deploy.operate.planner import InstallOptions, make_plan
from smallq_deploy.package.releases import Release
from smallq_deploy.package.runfile import read_run
from smallq_deploy.store.paths import Store
from tests.support import opp
from tests.support.elf import tiny_elf
from tests.support.packages import ARCH, OPERATOR, make_run
from tests.support.toolkits import make_new, write

# Real libraries hold the names of the operators they register; the synthetic ones get this one as their last bytes.
CONTENT = OPERATOR + "\0"


@dataclass
class Machine:
    """``root`` stands for /. What a test changes is read when :meth:`look` is called."""

    root: Path
    home: Path
    release: Release
    changes: dict[str, Any] = field(default_factory=dict)  # of the Environment
    environ: dict[str, str] | None = None  # None: a shell that sourced set_env.sh
    named: dict[str, str] = field(default_factory=dict)  # variables by which toolkits are looked for
    opp: Path | None = None  # --opp

    @property
    def ascend(self) -> Path:
        return self.home.parent

    @property
    def store(self) -> Store:
        return Store(self.home / "opp")

    @property
    def live(self) -> Path:
        return self.store.live

    def environment(self) -> Environment:
        found = detect_environment(environ=self.named, root=self.root, opp=self.opp)
        return replace(found, **self.changes)

    def shell(self, **more: str) -> dict[str, str]:
        """The variables of a shell that sourced set_env.sh, and ``more``."""
        toolkit = self.environment().toolkit
        assert toolkit is not None
        return {**toolkit.environment({}), **more}

    def context(self, environ: Mapping[str, str] | None = None) -> Context:
        found = self.environment()
        store = Store(found.toolkit.opp) if found.toolkit is not None else None
        given = environ if environ is not None else self.environ
        return Context(found, self.release, store, self.shell() if given is None else given, root=self.root)

    def look(self, name: str) -> Finding:
        """The finding of one check."""
        (result,) = diagnose(self.context(), [self.check(name)]).results
        return result.finding

    @staticmethod
    def check(name: str) -> Check:
        return next(item for item in checks() if item.name == name)

    def package(self, content: str = "") -> Path:
        path = self.root / f"op{content}.run"
        return path if path.exists() else make_run(path, content=content + CONTENT)

    def install(self, content: str = "", **options: Any) -> None:
        plan = make_plan(
            self.environment(), self.release, self.store, read_run(self.package(content)), InstallOptions(**options)
        )
        install(plan, smoke=lambda: opp.PASS)


def make_machine(root: Path) -> Machine:
    ascend = root / "usr/local/Ascend"
    home = make_new(ascend)
    (home / "lib64").mkdir()
    (home / "lib64/libnnopbase.so").write_bytes(tiny_elf(["NnopbaseRun"], arch=ARCH))
    write(home / f"{ARCH}-linux/ascend_ops_install.info", "package_name=Ascend-cann-910b-ops\nversion=8.5.0\n")
    write(home / "bin/bisheng", "#!/bin/sh\n").chmod(0o755)
    write(ascend / "driver/version.info", "Version=25.5.0\n")
    write(ascend / "driver/lib64/driver/libascend_hal.so", "")
    for name in ("davinci0", "davinci1", "davinci_manager", "devmm_svm", "hisi_hdc"):
        write(root / "dev" / name, "")
    return Machine(root, home, opp.release())


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    made = make_machine(tmp_path / "machine")
    made.install()
    return made
