#!/usr/bin/env python3
"""Runs the installed SmallqFlashAttention on the attention shapes of real models, on several devices at once.

Needs Python 3.10 and numpy, and the environment of the toolkit:

    source <toolkit>/set_env.sh
    python3 run_model_tests.py --quick

Every case is one aclnn call whose result is compared with attention in float64. Keys and values are made once for a
(model, kvLen) pair and shared by all query lengths. A summary table ends the run.

Exit status: 0 all cases passed, 1 a case failed or a device did not work, 2 wrong usage or environment.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from aclnn_call import CallError, DeviceArray, Runtime, find_operator_library, run_operator
from numpy.typing import NDArray

ABSOLUTE_TOLERANCE = 1e-3
RELATIVE_TOLERANCE = 1e-3
RELATIVE_L2_TOLERANCE = 5e-4


@dataclass(frozen=True)
class Model:
    """Attention of one model as the operator sees it: grouped K/V heads are expanded by the caller."""

    name: str
    heads: int
    head_dim: int
    head_dim_v: int


MODELS = (
    Model("qwen2.5-0.5b", 14, 64, 64),
    Model("phi-3-mini", 32, 96, 96),
    Model("qwen2.5-7b", 28, 128, 128),
    Model("llama-3-8b", 32, 128, 128),
    Model("llama-3-70b", 64, 128, 128),
    Model("llama-3-405b", 128, 128, 128),
    Model("deepseek-v3", 128, 192, 128),
    Model("gemma-2-9b", 16, 256, 256),
)
Q_LENGTHS = (1, 2, 4, 8)
KV_LENGTHS = (1, 63, 128, 500, 1024, 2047, 4096, 8192, 16384)
QUICK_Q_LENGTHS = (1, 4)
QUICK_KV_LENGTHS = (1, 63, 500)


@dataclass(frozen=True)
class Group:
    """The cases that share keys and values: one model, one kvLen, several query lengths."""

    model: Model
    kv_len: int
    q_lengths: tuple[int, ...]
    seed: int

    def cost(self) -> int:
        """Multiply-adds of all cases."""
        return self.model.heads * self.kv_len * (self.model.head_dim + self.model.head_dim_v) * sum(self.q_lengths)


@dataclass(frozen=True)
class Result:
    """Outcome of one case; error is empty unless the call itself failed."""

    model: str
    q_len: int
    kv_len: int
    device: int
    passed: bool
    worst_error: float
    worst_bound: float
    relative_l2: float
    seconds: float
    error: str


# ---- reference ------------------------------------------------------------------------------------------------------


def make_inputs(group: Group) -> tuple[NDArray[np.float16], NDArray[np.float16], NDArray[np.float16]]:
    """q [heads, longest qLen, headDim], k and v [heads, kvLen, head size]; standard normal, fp16."""
    rng = np.random.default_rng(group.seed)

    def normal(*shape: int) -> NDArray[np.float16]:
        values = np.empty(shape, np.float16)
        for head in range(shape[0]):  # head by head, so that the float32 copy stays small
            values[head] = rng.standard_normal(shape[1:], dtype=np.float32)
        return values

    model = group.model
    q = normal(model.heads, max(group.q_lengths), model.head_dim)
    k = normal(model.heads, group.kv_len, model.head_dim)
    v = normal(model.heads, group.kv_len, model.head_dim_v)
    return q, k, v


def attention(q: NDArray[np.float16], k: NDArray[np.float16], v: NDArray[np.float16]) -> NDArray[np.float64]:
    """softmax(q k^T / sqrt(headDim)) v in float64, one head at a time."""
    out = np.empty((q.shape[0], q.shape[1], v.shape[2]), np.float64)
    for head in range(q.shape[0]):
        score = q[head].astype(np.float64) @ k[head].astype(np.float64).T / np.sqrt(float(q.shape[2]))
        score -= score.max(axis=1, keepdims=True)
        weight = np.exp(score)
        out[head] = weight @ v[head].astype(np.float64) / weight.sum(axis=1, keepdims=True)
    return out


def compare(got: NDArray[np.float16], expected: NDArray[np.float64]) -> tuple[bool, float, float, float]:
    """(passed, worst |error|, worst error as a part of the tolerance, relative L2 error)."""
    values = got.astype(np.float64)
    if not np.isfinite(values).all():
        return False, float("inf"), float("inf"), float("inf")
    error = np.abs(values - expected)
    bound = float((error / (ABSOLUTE_TOLERANCE + RELATIVE_TOLERANCE * np.abs(expected))).max())
    l2 = float(np.sqrt((error**2).sum() / max(float((expected**2).sum()), 1e-300)))
    return bound <= 1 and l2 <= RELATIVE_L2_TOLERANCE, float(error.max()), bound, l2


# ---- worker process --------------------------------------------------------------------------------------------------


def run_group(runtime: Runtime, stream: ctypes.c_void_p, device: int, group: Group) -> Iterator[Result]:
    """All cases of a group, one after the other; a failed call ends the group with an exception."""
    q, k, v = make_inputs(group)
    # Output rows do not depend on each other: the reference of the longest query serves all.
    expected = attention(q, k, v)
    keys, values = DeviceArray(runtime, k.shape, k), DeviceArray(runtime, v.shape, v)
    del k, v  # gigabytes for the longest caches
    for q_len in group.q_lengths:
        query = DeviceArray(runtime, (q.shape[0], q_len, q.shape[2]), q[:, :q_len])
        out = DeviceArray(runtime, (q.shape[0], q_len, expected.shape[2]), None)
        started = time.monotonic()
        run_operator(runtime, stream, (query, keys, values, out))
        seconds = time.monotonic() - started
        passed, worst, bound, l2 = compare(out.read(), expected[:, :q_len])
        yield Result(group.model.name, q_len, group.kv_len, device, passed, worst, bound, l2, seconds, "")
        query.free()
        out.free()
    keys.free()
    values.free()


def work(device: int, operator_library: Path) -> int:
    """Worker process: groups as JSON lines on stdin, results as JSON lines on stdout."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what the toolkit prints must not mix with the answers
    try:
        runtime = Runtime(operator_library)
        runtime.start()
        runtime.call(runtime.acl, "aclrtSetDevice", device)
        stream = ctypes.c_void_p()
        runtime.call(runtime.acl, "aclrtCreateStream", ctypes.byref(stream))
        print(json.dumps({"ready": True}), file=answers, flush=True)
        for line in sys.stdin:
            request = json.loads(line)
            group = Group(Model(**request["model"]), request["kv_len"], tuple(request["q_lengths"]), request["seed"])
            for result in run_group(runtime, stream, device, group):
                print(json.dumps(asdict(result)), file=answers, flush=True)
    except CallError as error:
        print(json.dumps({"problem": str(error)}), file=answers, flush=True)
        return 1
    return 0


def count_devices() -> int:
    """Worker process: prints the number of visible devices."""
    try:
        runtime = Runtime(None)
        runtime.start()
        count = ctypes.c_uint32()
        runtime.call(runtime.acl, "aclrtGetDeviceCount", ctypes.byref(count))
    except CallError as error:
        print(str(error), file=sys.stderr)
        return 1
    print(count.value)
    return 0


# ---- the sweep (in the parent process) ------------------------------------------------------------------------------


class Device(threading.Thread):
    """Feeds one device's worker process with groups until the queue is empty.

    A device whose worker does not start, or fails in two groups in a row, is given up: the rest of the queue is left
    to the other devices.
    """

    def __init__(self, index: int, library: Path, groups: queue.SimpleQueue[Group], sweep: Sweep) -> None:
        super().__init__(daemon=True)
        self.index, self.library, self.groups, self.sweep = index, library, groups, sweep
        self.worker: subprocess.Popen[str] | None = None
        self.lines: queue.SimpleQueue[str] = queue.SimpleQueue()

    def run(self) -> None:
        failures = 0
        while failures < 2:
            if self.worker is None and (problem := self._start_worker()):
                self.sweep.give_up(self.index, problem)
                return
            try:
                group = self.groups.get_nowait()
            except queue.Empty:
                break
            problem = self._run_group(group)
            failures = failures + 1 if problem else 0
        if failures:
            self.sweep.give_up(self.index, f"{failures} group(s) in a row failed")
        self._stop_worker()

    def _run_group(self, group: Group) -> str:
        """Empty when every case gave a result, right or wrong."""
        self._send(asdict(group))
        problem = ""
        for q_len in group.q_lengths:
            if not problem:
                answer = self._next_answer()
                problem = str(answer.get("problem", ""))
            if problem:
                worst = float("inf")
                self.sweep.add(
                    Result(group.model.name, q_len, group.kv_len, self.index, False, worst, worst, worst, 0.0, problem)
                )
            else:
                self.sweep.add(Result(**answer))
        if problem:
            self._kill_worker()
        return problem

    def _send(self, request: dict[str, Any]) -> None:
        assert self.worker is not None and self.worker.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # the worker's last line says why it ended
            print(json.dumps(request), file=self.worker.stdin, flush=True)

    def _next_answer(self) -> dict[str, Any]:
        try:
            line = self.lines.get(timeout=self.sweep.timeout)
        except queue.Empty:
            return {"problem": f"no answer within {self.sweep.timeout:.0f} s"}
        if line:
            answer: dict[str, Any] = json.loads(line)
            return answer
        assert self.worker is not None
        return {"problem": f"the test process ended with status {self.worker.wait()}"}

    def _start_worker(self) -> str:
        """Empty when the worker holds its device."""
        command = [sys.executable, __file__, "--worker", str(self.index), "--opapi", str(self.library)]
        self.worker = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.lines = queue.SimpleQueue()
        assert self.worker.stdout is not None
        threading.Thread(target=_forward, args=(self.worker.stdout, self.lines), daemon=True).start()
        problem = str(self._next_answer().get("problem", ""))
        if problem:
            self._kill_worker()
        return problem

    def _stop_worker(self) -> None:
        if self.worker is None:
            return
        assert self.worker.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self.worker.stdin.close()
        try:
            self.worker.wait(timeout=60)
        except subprocess.TimeoutExpired:
            self._kill_worker()

    def _kill_worker(self) -> None:
        assert self.worker is not None
        self.worker.kill()
        self.worker.wait()
        self.worker = None


def _forward(stream: TextIO, lines: queue.SimpleQueue[str]) -> None:
    for line in stream:
        lines.put(line)
    lines.put("")  # end of stream


class Sweep:
    """Collects results of all devices and prints progress on stderr."""

    def __init__(self, total: int, timeout: float, verbose: bool) -> None:
        self.total, self.timeout, self.verbose = total, timeout, verbose
        self.results: list[Result] = []
        self.given_up: dict[int, str] = {}
        self._lock = threading.Lock()

    def add(self, result: Result) -> None:
        with self._lock:
            self.results.append(result)
            if self.verbose or not result.passed:
                print(describe(result), file=sys.stderr)
            elif sys.stderr.isatty():
                print(f"\r{len(self.results)}/{self.total}", end="", file=sys.stderr, flush=True)

    def give_up(self, device: int, why: str) -> None:
        with self._lock:
            self.given_up[device] = why
            print(f"device {device} takes no more cases: {why}", file=sys.stderr)


def describe(result: Result) -> str:
    """One line about one case."""
    where = f"{result.model} qLen {result.q_len} kvLen {result.kv_len} device {result.device}"
    if result.error:
        return f"FAIL {where}: {result.error}"
    numbers = f"worst {result.worst_error:.2e} ({result.worst_bound:.3f} of tolerance), relL2 {result.relative_l2:.2e}"
    return f"{'pass' if result.passed else 'FAIL'} {where}: {numbers}, {result.seconds:.2f} s"


def summary(sweep: Sweep, seconds: float) -> str:
    """A table with one line a model, and the totals."""
    results = sweep.results
    rows = [f"{'model':<16}{'cases':>6}{'failed':>8}{'worst |error|':>15}{'of tolerance':>14}{'worst relL2':>13}"]
    for name in dict.fromkeys(result.model for result in results):
        mine = [result for result in results if result.model == name]
        failed = sum(not result.passed for result in mine)
        worst = max(result.worst_error for result in mine)
        bound = max(result.worst_bound for result in mine)
        l2 = max(result.relative_l2 for result in mine)
        rows.append(f"{name:<16}{len(mine):>6}{failed:>8}{worst:>15.2e}{bound:>14.3f}{l2:>13.2e}")
    failed = sum(not result.passed for result in results)
    devices = len({result.device for result in results})
    rows.append(f"{len(results)} cases, {failed} failed, {devices} device(s), {seconds:.0f} s")
    if len(results) < sweep.total:
        rows.append(f"{sweep.total - len(results)} of {sweep.total} cases were not run")
    rows += [f"device {device} was given up: {why}" for device, why in sorted(sweep.given_up.items())]
    return "\n".join(rows)


def make_groups(models: Sequence[Model], q_lengths: Sequence[int], kv_lengths: Sequence[int], seed: int) -> list[Group]:
    """All groups, the most expensive first so that devices end together."""
    pairs = [(model, kv_len) for model in models for kv_len in kv_lengths]
    groups = [Group(m, n, tuple(q_lengths), seed + i) for i, (m, n) in enumerate(pairs)]
    return sorted(groups, key=Group.cost, reverse=True)


# ---- command line ---------------------------------------------------------------------------------------------------


def positive_numbers(text: str) -> tuple[int, ...]:
    """A comma list of numbers of at least 1."""
    try:
        numbers = tuple(int(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is not a comma list of numbers") from None
    if min(numbers) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' holds a number below 1")
    return numbers


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Compare the installed SmallqFlashAttention with float64 on model shapes."
    )
    names = ", ".join(model.name for model in MODELS)
    parser.add_argument("--models", help=f"comma list, default all: {names}")
    parser.add_argument("--qlen", type=positive_numbers, help="comma list of query lengths")
    parser.add_argument("--kvlen", type=positive_numbers, help="comma list of key lengths")
    parser.add_argument("--quick", action="store_true", help="a small selection of lengths")
    parser.add_argument("--devices", help="comma list of device ids, default all visible ones")
    parser.add_argument("--timeout", type=float, default=900.0, help="seconds one case may take, default %(default)s")
    parser.add_argument("--seed", type=int, default=1, help="default %(default)s")
    parser.add_argument("--opapi", type=Path, help="libcust_opapi.so, default the one the runtime would use")
    parser.add_argument("-v", "--verbose", action="store_true", help="a line for every case")
    parser.add_argument("--worker", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--count-devices", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    options.chosen_models = MODELS
    if options.models:
        by_name = {model.name: model for model in MODELS}
        unknown = [name for name in options.models.split(",") if name not in by_name]
        if unknown:
            parser.error(f"unknown model {', '.join(unknown)}; known: {names}")
        options.chosen_models = tuple(by_name[name] for name in options.models.split(","))
    if options.devices is not None and not all(part.isdigit() for part in options.devices.split(",")):
        parser.error(f"--devices needs a comma list of device ids, got '{options.devices}'")
    return options


def choose_devices(options: argparse.Namespace) -> list[int]:
    """Device ids to use; raises CallError when there is none."""
    if options.devices is not None:
        return [int(part) for part in options.devices.split(",")]
    command = [sys.executable, __file__, "--count-devices"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    except subprocess.TimeoutExpired:
        raise CallError("counting the devices took more than 120 s") from None
    if done.returncode != 0:
        raise CallError(done.stderr.strip() or f"counting the devices failed with status {done.returncode}")
    count = int(done.stdout.split()[-1])
    if count == 0:
        raise CallError("no device is visible")
    return list(range(count))


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    if options.count_devices:
        return count_devices()
    if options.worker is not None:
        return work(options.worker, options.opapi)
    try:
        library = options.opapi or find_operator_library(dict(os.environ))
        devices = choose_devices(options)
    except CallError as error:
        print(f"run_model_tests: {error}", file=sys.stderr)
        return 2
    q_lengths = options.qlen or (QUICK_Q_LENGTHS if options.quick else Q_LENGTHS)
    kv_lengths = options.kvlen or (QUICK_KV_LENGTHS if options.quick else KV_LENGTHS)
    groups = make_groups(options.chosen_models, q_lengths, kv_lengths, options.seed)
    waiting: queue.SimpleQueue[Group] = queue.SimpleQueue()
    for group in groups:
        waiting.put(group)
    sweep = Sweep(len(groups) * len(q_lengths), options.timeout, options.verbose)
    print(f"{sweep.total} cases on device(s) {', '.join(map(str, devices))}, {library}", file=sys.stderr)
    started = time.monotonic()
    threads = [Device(index, library, waiting, sweep) for index in devices]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if sys.stderr.isatty():
        print(file=sys.stderr)
    print(summary(sweep, time.monotonic() - started))
    complete = len(sweep.results) == sweep.total and not sweep.given_up
    return 0 if complete and all(result.passed for result in sweep.results) else 1


if __name__ == "__main__":
    sys.exit(main())
