"""Modelled time of the kernel against a scalar and a row-by-row kernel and the HBM roofline: ``make bench-kernel``.

Prints tables, writes build/bench, ends with status 1 if a bar is missed. Every time of a kernel is modelled by the
emulator's cost model of an Ascend 910B3; only "wall clock" lines are measured, and those measure this host.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.benchmarks import plot
from tests.benchmarks.modelled import Bench, Modelled, Shape
from tests.support.attention_cases import AttentionCase, compare, make_inputs, reference
from tests.support.operator_kernel import CHECKOUT

LABEL = "modelled time on an Ascend 910B3, simulated; nothing here was measured on an NPU"
MOST_OF_ROOFLINE, LEAST_SCALAR, LEAST_ROW, MOST_GQA_BYTES = 1.15, 200.0, 10.0, 1.05
BAR_HEADS, BAR_KEYS = (32, 40, 48, 64, 80, 96, 128), (4096, 16384)
EXTRA_HEADS = (*range(41, 48), *range(81, 84))  # shown, no bar
MODELS = {"8B": 32, "70B": 64, "405B": 128}
GQA = (Shape(32, 1, 4096, kv_heads=4), Shape(64, 1, 4096, kv_heads=8), Shape(64, 1, 16384, kv_heads=8),
       Shape(128, 1, 4096, kv_heads=16))  # fmt: skip
PLOT_HEADS, PLOT_ROWS, PLOT_KEYS = 32, range(1, 9), tuple(128 * 2**i for i in range(8))
WALL = (AttentionCase(32, 1, 1024, 128, 128), AttentionCase(8, 4, 4096, 128, 128), AttentionCase(8, 8, 4096, 128, 128))


@dataclasses.dataclass(frozen=True)
class Row:
    """One shape: the kernel, its rivals, and what the bars say about it."""

    shape: Shape
    this: Modelled
    scalar: Modelled
    row: Modelled
    tuned: Modelled
    barred: bool

    def roofline_allows(self, rival: Modelled) -> float:
        """How many times faster than a rival a kernel exactly at the roofline would be, launch included in both."""
        return rival.us / (self.this.roofline_us + self.this.launch_us)

    def faster(self, rival: Modelled) -> float:
        """How many times faster than a rival the kernel is, launch included in both."""
        return rival.us / self.this.us

    def verdicts(self) -> list[tuple[str, bool]]:
        """(what is missed, whether a kernel at the roofline would miss it too)."""
        if not self.barred:
            return []
        found = []
        if self.this.of_roofline > MOST_OF_ROOFLINE:
            found.append((f"{self.this.of_roofline:.3f} times the roofline, bar {MOST_OF_ROOFLINE}", False))
        for name, rival, least in (("scalar-dot", self.scalar, LEAST_SCALAR), ("row-dot", self.row, LEAST_ROW)):
            if self.faster(rival) < least:
                allowed = self.roofline_allows(rival)
                text = f"{self.faster(rival):.1f} times faster than {name}, bar {least:g}"
                found.append((f"{text}; the roofline allows {allowed:.1f}", allowed < least))
        return found


HEADER = (
    f"{'heads':>5} {'q':>2} {'keys':>6} | {'this µs':>8} {'parts':>5} {'bound':<8} | {'roof µs':>8} {'x roof':>6} |"
    f" {'scalar µs':>10} {'faster':>7} | {'row-dot µs':>10} {'faster':>6} | {'tuned µs':>9} {'faster':>6} | bars"
)


def line(row: Row) -> str:
    """One line of the table."""
    this, shape = row.this, row.shape

    def shown(rival: Modelled) -> str:
        return f"{rival.us:.0f}{'e' if rival.extrapolated else ' '}"

    verdicts = row.verdicts()
    state = "" if not row.barred else "met" if not verdicts else "MISSED"
    if verdicts and all(beyond for _, beyond in verdicts):
        state = "beyond the roofline"
    return (
        f"{shape.heads:>5} {shape.q_len:>2} {shape.kv_len:>6} | {this.us:>8.1f} {this.parts:>5} {this.bound[:8]:<8} |"
        f" {this.roofline_us:>8.1f} {this.of_roofline:>6.3f} | {shown(row.scalar):>10} {row.faster(row.scalar):>7.0f} |"
        f" {shown(row.row):>10} {row.faster(row.row):>6.1f} | {shown(row.tuned):>9} {row.faster(row.tuned):>6.1f} |"
        f" {state}"
    )


def measure(bench: Bench, shape: Shape, barred: bool) -> Row:
    """All kernels on one shape."""
    rivals = {name: bench.rival(name, shape) for name in ("scalar_dot", "row_dot", "row_dot_tuned")}
    return Row(shape, bench.this(shape), rivals["scalar_dot"], rivals["row_dot"], rivals["row_dot_tuned"], barred)


def table(bench: Bench, title: str, shapes: Sequence[Shape], barred: bool) -> list[Row]:
    """Prints a table line by line."""
    print(f"\n{title}\n{HEADER}", flush=True)
    rows = []
    for shape in shapes:
        rows.append(measure(bench, shape, barred))
        print(line(rows[-1]), flush=True)
    return rows


def grouped_heads(bench: Bench) -> list[str]:
    """Traffic with 8 q heads a K/V head; returns what is missed."""
    print(f"\nGrouped heads, ratio 8, q 1: bytes moved as a multiple of one read of K and V (bar {MOST_GQA_BYTES})")
    print("  HBM: all bytes HBM moves. copies: all copies, from L2 too, without the partial results of split keys.")
    missed = []
    for shape in GQA:
        result = bench.this(shape)
        hbm, copies = result.hbm_bytes / shape.kv_bytes, result.tensor_bytes / shape.kv_bytes
        name = f"{shape.heads}/{shape.kv_heads} heads, {shape.kv_len} keys"
        print(f"  {name:<24} HBM {hbm:.4f}, copies {copies:.4f}   {result.us:8.1f} µs, {result.bound}")
        if not (1 <= hbm <= MOST_GQA_BYTES and 1 <= copies <= MOST_GQA_BYTES):
            missed.append(f"grouped heads {name}: {max(hbm, copies):.4f} reads of K and V, bar {MOST_GQA_BYTES}")
    return missed


def other_splits(bench: Bench, rows: Sequence[Row]) -> None:
    """For shapes too far from the roofline: what another number of parts than the planner's would give."""
    for row in rows:
        if row.barred and row.this.of_roofline > MOST_OF_ROOFLINE:
            least = [parts for parts in range(1, 9) if row.shape.kv_len // parts >= 256]
            best = min((bench.this(row.shape, parts) for parts in least), key=lambda result: result.us)
            name = f"{row.shape.heads} heads, {row.shape.kv_len} keys"
            print(f"  {name}: planned {row.this.parts} parts, {row.this.of_roofline:.3f} times the roofline;"
                  f" {best.parts} parts would be {best.of_roofline:.3f}")  # fmt: skip


def draw(bench: Bench, output: Path) -> None:
    """The plot over the number of keys."""
    lines, roof = [], {}
    for rows in PLOT_ROWS:
        times = {}
        for keys in PLOT_KEYS:
            result = bench.this(Shape(PLOT_HEADS, rows, keys))
            times[keys] = result.us
            if rows == 1:
                roof[keys] = result.roofline_us + result.launch_us
        lines.append(plot.Line(f"q {rows}", times))
    title = f"Modelled time, {PLOT_HEADS} heads, head size 128 (simulated Ascend 910B3)"
    roofline = plot.Line("HBM roof + launch", roof)
    note = (
        f"{LABEL}. The dashed line is one read of every tensor for q 1 at the effective HBM bandwidth, plus a launch."
    )
    (output / "kernel_time.svg").write_text(plot.svg(title, lines, roofline))
    (output / "kernel_time.html").write_text(plot.page(title, note, lines, roofline))


def _numpy(q: NDArray[np.float16], k: NDArray[np.float16], v: NDArray[np.float16]) -> NDArray[np.float32]:
    score = q.astype(np.float32) @ k.astype(np.float32).swapaxes(1, 2) / np.float32(math.sqrt(q.shape[2]))
    weight = np.exp(score - score.max(-1, keepdims=True))
    result: NDArray[np.float32] = (weight / weight.sum(-1, keepdims=True)) @ v.astype(np.float32)
    return result


def _seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def wall_clock(bench: Bench) -> list[dict[str, Any]]:
    """The emulator's own speed on this host, against numpy; results are compared with float64 on the way."""
    print("\nWall clock of this host, measured: the emulator (strict: all checks) and numpy in fp32")
    found = []
    for case in WALL:
        q, k, v = make_inputs(case)
        comparison = compare(bench.operator.run(q, k, v, strict=False).output, reference(q, k, v))
        assert comparison.passed, f"{case.name}: {comparison}"
        runs = {
            "emulator": lambda q=q, k=k, v=v: bench.operator.run(q, k, v, strict=False),
            "strict": lambda q=q, k=k, v=v: bench.operator.run(q, k, v),
            "numpy": lambda q=q, k=k, v=v: _numpy(q, k, v),
        }
        seconds = {name: min(_seconds(run) for _ in range(3)) for name, run in runs.items()}
        millions = case.multiply_adds / 1e6
        print(f"  {case.name:<20} {millions:6.0f} M multiply-adds: " + ", ".join(
            f"{name} {1e3 * taken:.0f} ms ({millions / taken:.0f} M/s)" for name, taken in seconds.items()
        ))  # fmt: skip
        found.append({"case": case.name, "multiply_adds": case.multiply_adds, "seconds": seconds})
    return found


def summary(rows: Sequence[Row], missed: Sequence[str]) -> int:
    """Prints the bars; returns the exit status."""
    barred = [row for row in rows if row.barred]
    print(f"\nBars: q 1, head size 128, {len(barred)} shapes of at least {min(BAR_KEYS)} keys; {LABEL}")
    print(
        f"  x roofline, launch excluded, at most {MOST_OF_ROOFLINE}: {_range(row.this.of_roofline for row in barred)}"
    )
    print(f"  faster than scalar-dot, at least {LEAST_SCALAR:g}: {_range(row.faster(row.scalar) for row in barred)}")
    print(f"  faster than row-dot, at least {LEAST_ROW:g}: {_range(row.faster(row.row) for row in barred)}")
    failures = list(missed)
    for row in barred:
        for text, beyond in row.verdicts():
            name = f"{row.shape.heads} heads, {row.shape.kv_len} keys: {text}"
            if beyond:
                print(f"  beyond the roofline: {name} (no kernel can, in this model)")
            else:
                failures.append(name)
    for text in failures:
        print(f"  MISSED: {text}")
    print("  all bars within reach are met" if not failures else f"  {len(failures)} missed")
    return 1 if failures else 0


def _range(values: Any) -> str:
    ordered = sorted(values)
    return f"{ordered[0]:.3f} to {ordered[-1]:.3f}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs everything; returns 0, or 1 if a bar is missed."""
    parser = argparse.ArgumentParser(description=f"Benchmark of the kernel: {LABEL}.")
    parser.add_argument("--bars-only", action="store_true", help="only the shapes with a bar")
    parser.add_argument("--output", type=Path, default=CHECKOUT / "build" / "bench", help="default: build/bench")
    options = parser.parse_args(arguments)
    output: Path = options.output
    output.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(output / "kernels", ignore_errors=True)
    start = time.perf_counter()
    bench = Bench(output / "kernels")
    print(
        f"{LABEL}\n'e' after a time: extrapolated from one head on one core. 'faster': launch included in both times."
    )
    print("scalar: scalar-dot. row-dot: ReduceSum for each key. tuned: the same design with WholeReduceSum, no bar.")
    rows = table(bench, "q 1, with bars", [Shape(heads, 1, keys) for keys in BAR_KEYS for heads in BAR_HEADS], True)
    other_splits(bench, rows)
    missed = grouped_heads(bench)
    walls: list[dict[str, Any]] = []
    if not options.bars_only:
        extra = [Shape(heads, 1, 4096) for heads in EXTRA_HEADS]
        rows += table(bench, "q 1, numbers of heads that do not fit 40 cores, no bar", extra, False)
        for model, heads in MODELS.items():
            shapes = [Shape(heads, q, keys) for q in (1, 4, 8) for keys in (1024, 4096, 16384)]
            rows += table(bench, f"{model}: {heads} heads, head size 128, no bar", shapes, False)
        draw(bench, output)
        walls = wall_clock(bench)
    status = summary(rows, missed)
    results = {"label": LABEL, "rows": [dataclasses.asdict(row) for row in rows], "wall_clock": walls}
    (output / "kernel.json").write_text(json.dumps(results, indent=1))
    print(f"{time.perf_counter() - start:.0f} s; figures in {output}")
    return status


if __name__ == "__main__":
    sys.exit(main())
