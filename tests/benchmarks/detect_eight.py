"""`detect` on a machine with eight toolkits side by side, eight NPUs and a driver: the whole command, as a user waits.

For ``make bench-tool``: :func:`detect_eight` measures; the bar is 0.3 s. The toolkits are trees of version files
(tests/machines/builder.py), the NPUs a program that prints npu-smi's table.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from tests.machines.builder import Tree

BAR = 0.3  # seconds
_NEW = ("8.5.0", "8.5.1", "8.5.2", "9.0.0", "9.0.1", "9.1.0", "9.2.0-beta.1")
_TABLE = "| npu-smi 25.5.0   Version: 25.5.0 |\n" + "".join(
    f"| {npu} 910B3 | OK | 90 36 0 / 0 |\n| 0 | 0000:{npu:02X}:00.0 | 0 0 / 0 3374 / 65536 |\n" for npu in range(8)
)


@dataclass(frozen=True)
class Measured:
    """Medians in seconds; ``python`` is the bare interpreter, for scale."""

    detect: float
    python: float
    toolkits: int
    devices: int


def _machine(root: Path) -> None:
    tree = Tree(root)
    for version in _NEW:
        tree.new(version, at="/home/Ascend", arch=os.uname().machine, links=False, ops="Ascend-cann-910b-ops")
    tree.old("8.1.RC1", at="/home/Ascend", arch=os.uname().machine)
    tree.write(
        "/home/Ascend/ascend-toolkit/set_env.sh",
        f"export ASCEND_TOOLKIT_HOME={root}/home/Ascend/ascend-toolkit/latest\n",
    )
    tree.link("/home/Ascend/cann", "/home/Ascend/cann-8.5.0")
    tree.write("/home/Ascend/driver/version.info", "Version=25.5.0\n")
    tree.npu_smi({"at": "/home/Ascend/driver/tools/npu-smi", "": _TABLE})


def _median(argv: list[str], environ: dict[str, str], repeats: int) -> tuple[float, str]:
    times = []
    output = ""
    for _ in range(repeats + 1):  # the first one warms the caches
        start = time.perf_counter()
        output = subprocess.run(argv, env=environ, check=True, capture_output=True, text=True).stdout
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:]), output


def detect_eight(repeats: int = 7) -> Measured:
    """Run `detect --json` ``repeats`` times on that machine and take the median."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder).resolve()
        _machine(root)
        environ = {"HOME": str(root / "home"), "PATH": os.environ.get("PATH", os.defpath)}
        command = [sys.executable, "-m", "smallq_deploy", "detect", "--json", "--cann", str(root / "home/Ascend")]
        seconds, output = _median(command, environ, repeats)
        python, _ = _median([sys.executable, "-c", "pass"], environ, repeats)
    data = json.loads(output)["data"]
    return Measured(seconds, python, len(data["discovery"]["toolkits"]), len(data["devices"]["npus"]))


if __name__ == "__main__":
    measured = detect_eight()
    print(
        f"detect with {measured.toolkits} toolkits and {measured.devices} NPUs: {measured.detect * 1000:.0f} ms "
        f"(bar {BAR * 1000:.0f} ms; the bare interpreter {measured.python * 1000:.0f} ms)"
    )
    raise SystemExit(measured.detect > BAR)
