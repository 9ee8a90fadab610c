"""How much faster a package comes from the build cache than from a build: both in one run, as a user calls it.

``python -m tests.benchmarks.build_cache`` prints one row; ``measure`` is for other benchmarks.
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

from smallq_deploy.base.errors import SmallqError
from smallq_deploy.sandbox.create import create

BAR = 50.0  # times faster
_HITS = 5


@dataclass(frozen=True)
class CacheTimes:
    """Wall clock seconds of the whole command: one build of the operator, and the median of several hits."""

    build: float
    hit: float

    @property
    def ratio(self) -> float:
        return self.build / self.hit

    @property
    def met(self) -> bool:
        return self.ratio >= BAR


def measure(work: Path, hits: int = _HITS) -> CacheTimes:
    """Build the operator in a fresh simulated toolkit below ``work`` (empty), then take it from the cache.

    Raises RuntimeError when a command fails or does not do what is measured.
    """
    root = work / "ascend"
    create(root)  # before the cache is ours: the compiled runtime is reused
    env = {**os.environ, "XDG_CACHE_HOME": str(work / "cache"), "XDG_DATA_HOME": str(work / "data")}

    def timed(cached: bool) -> float:
        command = [sys.executable, "-m", "smallq_deploy", "build", "--cann", str(root), "--json"]
        command += ["--recipes", str(root / "cann-recipes-infer"), "--soc", "ascend910b"]
        begin = time.perf_counter()
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=1800)
        seconds = time.perf_counter() - begin
        if done.returncode != 0:
            raise RuntimeError(f"build ended with {done.returncode}: {done.stdout}{done.stderr}")
        if json.loads(done.stdout)["data"]["cached"] is not cached:
            raise RuntimeError("taken from the cache" if not cached else "built again")
        return seconds

    build = timed(cached=False)
    return CacheTimes(build, statistics.median(timed(cached=True) for _ in range(hits)))


def main() -> int:
    try:
        with tempfile.TemporaryDirectory(prefix="build-cache-") as work:
            times = measure(Path(work))
    except (RuntimeError, SmallqError) as error:
        print(f"could not be measured: {error}", file=sys.stderr)
        return 2
    verdict = "met" if times.met else "MISSED"
    print(f"build {times.build:.1f} s, cache hit {times.hit * 1000:.0f} ms: {times.ratio:.0f} times faster")
    print(f"bar {BAR:.0f} times: {verdict}")
    return 0 if times.met else 1


if __name__ == "__main__":
    sys.exit(main())
