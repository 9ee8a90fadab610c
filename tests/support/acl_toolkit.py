"""A minimal simulated toolkit and the tiny_add operator, built by the commands of native/opbuild/README."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
NATIVE = ROOT / "smallq_deploy" / "sandbox" / "native"
TINY_ADD = ROOT / "tests" / "data" / "ops" / "tiny_add"
TINY_PROBE = ROOT / "tests" / "data" / "ops" / "tiny_probe"
ARCH = platform.machine()
UNIT = "ascend910b"
OP_TYPE = "TinyAdd"
OP = "tiny_add"

# Runs a scenario of acl_child in a new process: child(text, *arguments, NAME=value of an environment variable)
Child = Callable[..., dict[str, Any]]

PLATFORM_INI = """[version]
SoC_version=Ascend910B3
Short_SoC_version=Ascend910B
[SoCInfo]
ai_core_cnt=20
cube_core_cnt=20
vector_core_cnt=40
memory_size=68719476736
[AICoreSpec]
ub_size=196608
"""


def compile_library(output: Path, sources: list[Path], standard: str, *options: str) -> None:
    """A host library of an operator with the flags a build project uses; warnings are errors."""
    command = ["g++", f"-std={standard}", "-O0", "-fPIC", "-shared", "-Wall", "-Wextra", "-Werror", "-Wshadow"]
    command += ["-D_GLIBCXX_USE_CXX11_ABI=0", "-I", str(NATIVE / "include"), "-I", str(NATIVE / "ascendc_include")]
    subprocess.run([*command, *map(str, sources), "-o", str(output), *options], check=True)


def write_compiler(path: Path) -> Path:
    """A stand-in for bisheng: g++ with the emulator's headers."""
    path.write_text(
        '#!/bin/bash\n[ "$1" = --sim-kernel ] && shift\n'
        "exec g++ -std=c++17 -O1 -fPIC -shared -fno-fast-math -ffp-contract=off -fvisibility=hidden "
        f"-I '{NATIVE}/emulator/include' -I '{NATIVE}' -pthread \"$@\"\n"
    )
    path.chmod(0o755)
    return path


def run_tool(*command: str | Path, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(part) for part in command],
        env={**os.environ, **(env or {})},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


ACLNN_ENV = {"OPS_ACLNN_GEN": "1", "OPS_PROTO_SEPARATE": "1", "OPS_PROJECT_NAME": "aclnn"}


def build_vendor(work: Path, libraries: Path, source: Path = TINY_ADD) -> Path:
    """Builds the operator in ``source`` below ``work`` and returns its vendor tree, laid out as an installed one."""
    op = source.name
    vendor = work / "vendor"
    tbe = vendor / "op_impl" / "ai_core" / "tbe"
    lib = f"lib/linux/{ARCH}"
    host = source / "op_host"
    for directory in ("op_api/lib", "op_api/include", f"op_proto/{lib}", f"op_impl/ai_core/tbe/op_tiling/{lib}"):
        (vendor / directory).mkdir(parents=True)
    gen, tiling = work / "gen", work / "tiling"
    compile_library(work / "libop_host_aclnn.so", [host / f"{op}_def.cpp"], "gnu++17")
    done = run_tool(libraries / "op_build", work / "libop_host_aclnn.so", gen, env=ACLNN_ENV)
    assert done.returncode == 0, done.stderr
    compile_library(
        vendor / "op_api/lib/libcust_opapi.so",
        sorted(gen.glob("aclnn_*.cpp")),
        "gnu++17",
        f"-L{libraries}",
        "-lnnopbase",
        f"-Wl,-rpath-link,{libraries}",
        "-Wl,--no-undefined",
    )
    for header in gen.glob("aclnn_*.h"):
        shutil.copy(header, vendor / "op_api/include")
    hidden = "-fvisibility=hidden"
    opmaster = tbe / f"op_tiling/{lib}/libcust_opmaster_rt2.0.so"
    compile_library(opmaster, [host / f"{op}_tiling.cpp"], "c++11", hidden)
    proto = host / f"{op}_proto.cpp"
    if proto.exists():
        compile_library(vendor / f"op_proto/{lib}/libcust_opsproto_rt2.0.so", [proto], "c++11", hidden)
    assert run_tool(libraries / "op_build", "--tiling-header", opmaster, tiling).returncode == 0
    build_kernels(work, tiling, tbe / "kernel", source)
    return vendor


def build_kernels(work: Path, tiling: Path, kernel: Path, source: Path) -> None:
    tool: list[str | Path] = [sys.executable, NATIVE / "opbuild" / "kernel_build.py"]
    common: list[str | Path] = [
        "--ops-info",
        work / "gen" / f"aic-{UNIT}-ops-info.json",
        "--unit",
        UNIT,
        "--bin",
        work / "bin",
    ]
    bisheng = write_compiler(work / "bisheng")
    op = source.name
    sources: list[str | Path] = ["--src", source / "op_kernel", "--tiling", tiling / op, "--bisheng", bisheng]
    done = run_tool(*tool, "compile", *common, "--op", op, *sources)
    assert done.returncode == 0, done.stderr
    done = run_tool(*tool, "index", *common, "--out", kernel)
    assert done.returncode == 0, done.stderr


@dataclass(frozen=True)
class Toolkit:
    """Paths of one simulated toolkit made for a test."""

    home: Path
    libraries: Path

    @property
    def opp(self) -> Path:
        return self.home / "opp"

    @property
    def vendors(self) -> Path:
        return self.opp / "vendors"

    def install(self, vendor: Path, name: str = "customize", *, configure: bool = True) -> Path:
        """Copies a vendor tree in; ``configure`` also writes config.ini."""
        target = self.vendors / name
        shutil.copytree(vendor, target)
        if configure:
            (self.vendors / "config.ini").write_text(f"load_priority={name}\n")
        return target

    def env(self, **extra: str) -> dict[str, str]:
        """The environment set_env.sh would give, plus ``extra``."""
        env = {key: value for key, value in os.environ.items() if not key.startswith(("ASCEND_", "SMALLQ_SIM"))}
        env.update(
            ASCEND_HOME_PATH=str(self.home),
            ASCEND_OPP_PATH=str(self.opp),
            LD_LIBRARY_PATH=str(self.libraries),
            PYTHONPATH=str(ROOT),
        )
        env.update(extra)
        return env


def create_toolkit(home: Path, libraries: Path, devices: int = 8) -> Toolkit:
    """Only the files the runtime reads."""
    data = home / f"{ARCH}-linux" / "data"
    for directory in (data / "platform_config", data / "sim", home / "opp" / "vendors", home / "opp" / "built-in"):
        directory.mkdir(parents=True)
    (data / "platform_config" / "Ascend910B3.ini").write_text(PLATFORM_INI)
    (data / "sim" / "devices.conf").write_text(f"soc=Ascend910B3\ndevices={devices}\n")
    (home / "opp" / "scene.info").write_text(f"os=linux\nos_version=\narch={ARCH}")
    return Toolkit(home, libraries)
