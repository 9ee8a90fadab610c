"""Sandboxes and hand-made packages. Most tests need only the files, so they use an architecture that is not the host's:
nothing has to be compiled for those."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from smallq_deploy.sandbox.create import SandboxInfo, create

FOREIGN = "aarch64" if os.uname().machine == "x86_64" else "x86_64"
MACHINE = os.uname().machine


@dataclass(frozen=True)
class Ended:
    code: int
    out: str
    err: str

    @property
    def all(self) -> str:
        return self.out + self.err


def call(
    argv: Sequence[str | Path],
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    stdin: str = "",
    timeout: float = 60,
) -> Ended:
    """A real process with a small environment of its own."""
    base = {"PATH": os.environ["PATH"], "HOME": os.environ["HOME"], "LC_ALL": "C"}
    done = subprocess.run(
        [str(word) for word in argv],
        env={**base, **(env or {})},
        cwd=cwd,
        input=stdin,
        capture_output=True,
        text=True,
        timeout=timeout,
    )
    return Ended(done.returncode, done.stdout, done.stderr)


@pytest.fixture
def old(tmp_path: Path) -> SandboxInfo:
    return create(tmp_path / "old", cann_version="8.1.RC1", arch=FOREIGN)


@pytest.fixture
def new(tmp_path: Path) -> SandboxInfo:
    return create(tmp_path / "new", cann_version="8.5.0", arch=FOREIGN)


PackageMaker = Callable[..., Path]


@pytest.fixture
def make_package(tmp_path: Path) -> PackageMaker:
    """``make_package(sandbox, ops=("a",), vendor="customize")``: a .run packed by the sandbox's own tools.

    The libraries in it are text files that name the operators, which is enough for what the installer does.
    """
    count = 0

    def make(
        sandbox: SandboxInfo, *, ops: Sequence[str] = ("first_op",), vendor: str = "customize", arch: str = MACHINE
    ) -> Path:
        nonlocal count
        count += 1
        tools = sandbox.home / "tools/op_project_templates/ascendc/customize"
        stage = tmp_path / f"stage{count}"
        stage.mkdir()
        for script in (tools / "scripts").iterdir():
            text = script.read_text().replace("vendor_name=customize", f"vendor_name={vendor}")
            (stage / script.name).write_text(text)
            (stage / script.name).chmod(0o540)
        tree = stage / "packages/vendors" / vendor
        impl = tree / "op_impl/ai_core/tbe"
        files = {
            tree / "op_api/lib/libcust_opapi.so": " ".join(ops),
            tree / f"op_proto/lib/linux/{arch}/libcust_opsproto_rt2.0.so": " ".join(ops),
            impl / f"op_tiling/lib/linux/{arch}/libcust_opmaster_rt2.0.so": " ".join(ops),
            tree / "version.info": "custom_opp_compiler_version=8.5.0\n",
        }
        for op in ops:
            files[tree / f"op_api/include/aclnn_{op}.h"] = f"// {op}\n"
            files[impl / f"kernel/ascend910b/{op}/{op}_1.o"] = op
        for path, text in files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        (impl / "op_tiling/liboptiling.so").symlink_to(f"lib/linux/{arch}/libcust_opmaster_rt2.0.so")
        pack = tools / "cmake/util/makeself"
        package = tmp_path / f"package{count}.run"
        done = call(
            [
                *("bash", pack / "makeself.sh", "--header", pack / "makeself-header.sh"),
                *("--help-header", "./help.info", "--gzip", "--complevel", "4", "--nomd5", "--sha256"),
                *("./", package, "version:1.0", "./install.sh"),
            ],
            cwd=stage,
        )
        assert done.code == 0, done.all
        assert f'Self-extractable archive "{package}" successfully created.' in done.out
        return package

    return make
