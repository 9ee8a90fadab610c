"""The deployer's own speed, each figure against something measured in the same run: ``make bench-tool``.

Prints a table and ends with status 1 if a bar is missed. All figures are wall clock of this host.
"""

from __future__ import annotations

import io
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from smallq_deploy.base.errors import SmallqError
from smallq_deploy.package.compat import load_compat
from smallq_deploy.package.releases import load_matrix, load_release
from smallq_deploy.package.runheader import read_header
from tests.benchmarks import build_cache, detect_eight
from tests.property.test_packages import fragments, yaml_texts
from tests.support import packages

PACKAGE_BAR = 1.5  # times sha256sum of the same file
FUZZ_SECONDS, FUZZ_MEGABYTES, FUZZ_EXAMPLES = 1.0, 200.0, 5000
PACKAGE_BYTES = 200_000_000
_READ = "import sys; from pathlib import Path; from smallq_deploy.package.runfile import read_run; "


@dataclass(frozen=True)
class Figure:
    """One line of the table; ``met`` is None where there is no bar."""

    name: str
    value: str
    bar: str
    met: bool | None

    def line(self) -> str:
        verdict = {True: "met", False: "MISSED", None: "no bar"}[self.met]
        return f"{self.name:<58} {self.value:<44} {self.bar:<22} {verdict}"


def cache() -> list[Figure]:
    """A package out of the build cache against a build in the simulated toolkit."""
    with tempfile.TemporaryDirectory() as work:
        times = build_cache.measure(Path(work))
    value = f"{times.build:.1f} s / {times.hit * 1000:.0f} ms = {times.ratio:.0f} times"
    return [Figure("build against build cache hit", value, f"at least {build_cache.BAR:.0f} times", times.met)]


def detection() -> list[Figure]:
    """`detect` where eight toolkits lie side by side."""
    found = detect_eight.detect_eight()
    name = f"detect, {found.toolkits} toolkits, {found.devices} NPUs"
    value = f"{found.detect * 1000:.0f} ms (bare python {found.python * 1000:.0f} ms)"
    return [Figure(name, value, f"below {detect_eight.BAR * 1000:.0f} ms", found.detect < detect_eight.BAR)]


def _big_package(path: Path, compressible: bool) -> Path:
    """About 200 MB packed; gzip makes about two thirds of the compressible one, nothing of the other."""
    files = packages.vendor_files()
    each = PACKAGE_BYTES // 20
    for number in range(20):
        if compressible:
            content = b"".join(os.urandom(700) + bytes(300) for _ in range(each // 700))
        else:
            content = os.urandom(each)
        files[f"op_impl/ai_core/tbe/kernel/{packages.UNIT}/smallq_flash_attention/Big_{number}.o"] = content
    return packages.write_run(path, packages.pack(packages.package_members({"customize": files})))


def _median(run: Callable[[], object], repeats: int = 5) -> float:
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def package() -> list[Figure]:
    """Reading a package: its own digest before anything is parsed, every member, the digest again, the file's digest.

    A process of its own, interpreter included, as sha256sum is one.
    """
    figures = []
    with tempfile.TemporaryDirectory() as work:
        for compressible in (False, True):
            path = _big_package(Path(work, "op.run"), compressible)
            read = [sys.executable, "-c", _READ + "print(read_run(Path(sys.argv[1])).file_sha256)", str(path)]
            plain = ["sha256sum", str(path)]
            digests = [
                subprocess.run(argv, capture_output=True, check=True, text=True).stdout for argv in (read, plain)
            ]
            if digests[0].strip() != digests[1].split()[0]:
                raise RuntimeError("the package's digest is not sha256sum's")
            ours = _median(lambda argv=read: subprocess.run(argv, capture_output=True, check=True))
            theirs = _median(lambda argv=plain: subprocess.run(argv, capture_output=True, check=True))
            kind = "compressible, unpacked too" if compressible else "as packed"
            size = path.stat().st_size / 1e6
            value = f"{ours:.2f} s / {theirs:.2f} s = {ours / theirs:.2f} times"
            met = None if compressible else ours / theirs <= PACKAGE_BAR
            bar = "" if compressible else f"at most {PACKAGE_BAR} times"
            figures.append(Figure(f"read and verify {size:.0f} MB ({kind}) / sha256sum", value, bar, met))
    return figures


@dataclass
class _Slowest:
    seconds: float = 0.0
    count: int = 0
    text: bytes = field(default=b"")

    def take(self, seconds: float, text: bytes) -> None:
        self.count += 1
        if seconds > self.seconds:
            self.seconds, self.text = seconds, text


def _fuzz_here() -> dict[str, Any]:
    """5,000 manifests and 5,000 `.run` headers; anything but a typed error ends the run."""
    manifest, header = _Slowest(), _Slowest()
    rules = settings(
        max_examples=FUZZ_EXAMPLES,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    with tempfile.TemporaryDirectory() as work:
        path = Path(work, "m.yaml")

        @rules
        @given(yaml_texts)
        def manifests(text: str) -> None:
            raw = text.encode("utf-8", "surrogatepass")
            path.write_bytes(raw)
            for load in (load_release, load_matrix, load_compat):
                start = time.perf_counter()
                try:
                    load(path)
                except SmallqError as error:
                    if not error.problems or not all(problem.message for problem in error.problems):
                        raise
                manifest.take(time.perf_counter() - start, raw)

        @rules
        @given(st.lists(st.one_of(fragments, st.binary(max_size=40)), max_size=12))
        def headers(parts: list[bytes]) -> None:
            raw = b"#!/bin/sh\n" + b"".join(parts)
            start = time.perf_counter()
            try:
                read_header(Path("x.run"), io.BytesIO(raw))
            except SmallqError as error:
                if not error.message:
                    raise
            header.take(time.perf_counter() - start, raw)

        manifests()
        headers()
    slowest = max((manifest, header), key=lambda kind: kind.seconds)
    return {
        "reads": manifest.count + header.count,
        "seconds": slowest.seconds,
        "text": repr(slowest.text)[:60],
        # Not ru_maxrss: that keeps the size the parent process had when it started this one.
        "megabytes": int(re.findall(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[0]) / 1024,
    }


def fuzz() -> list[Figure]:
    """In a process of its own, so that the peak of memory is that of the readers and hypothesis alone."""
    program = "import json; from tests.benchmarks.bench_tool import _fuzz_here; print(json.dumps(_fuzz_here()))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=900)
    if done.returncode != 0:
        print(done.stderr[-3000:], file=sys.stderr)
        return [Figure("odd manifests and .run headers", "a reader did not answer with a typed error", "", False)]
    found = json.loads(done.stdout.splitlines()[-1])
    print(f"  slowest of {found['reads']} reads of odd text: {found['text']}")
    return [
        Figure("odd manifests and .run headers, slowest", f"{found['seconds'] * 1000:.1f} ms of {found['reads']} reads",
               f"at most {FUZZ_SECONDS:.0f} s", found["seconds"] <= FUZZ_SECONDS),
        Figure("odd manifests and .run headers, peak of memory", f"{found['megabytes']:.0f} MB",
               f"at most {FUZZ_MEGABYTES:.0f} MB", found["megabytes"] <= FUZZ_MEGABYTES),
    ]  # fmt: skip


def main() -> int:
    print("Wall clock of this host; the build is one in the simulated toolkit.", flush=True)
    missed = 0
    for measure in (detection, package, fuzz, cache):
        for figure in measure():
            print(figure.line(), flush=True)
            missed += figure.met is False
    print("all bars met" if not missed else f"{missed} missed")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
