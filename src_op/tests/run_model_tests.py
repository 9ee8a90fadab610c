#!/usr/bin/env python3
"""Runs the installed SmallqFlashAttention on the attention shapes of real models, on several devices at once.

Needs Python 3.10 and numpy (and PyYAML for matrices in YAML), this directory, and the environment of the toolkit; the
deployer need not be installed:

    source <toolkit>/set_env.sh
    python3 run_model_tests.py --quick

Every case is one aclnn call in a process of its own, compared with attention in float64. Results are kept as they come:
--resume runs only what has not passed yet.

Exit status: 0 every case passed on devices that all work, 1 a case or a device failed, 2 wrong usage or environment,
130 interrupted.
"""

from __future__ import annotations

import argparse
import ctypes
import hashlib
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

try:
    import numpy  # noqa: F401 - said here in one line instead of a traceback from below
except ImportError:
    sys.exit(f"run_model_tests: {sys.executable} has no numpy; install it with: pip install numpy")

from aclnn_call import CallError, Runtime, find_operator_library, simulated  # noqa: E402
from sweep_cases import Case, Matrix, MatrixError, read_matrix  # noqa: E402
from sweep_engine import Settings, Sweep  # noqa: E402
from sweep_report import Progress, State, document, summary, write_junit  # noqa: E402

# Device 0 is left to other work where there are several.
DEFAULT_DEVICES = range(1, 8)
QUICK_Q_LENGTHS = (1, 4)
QUICK_KV_LIMIT = 1100


def numbers(text: str) -> tuple[int, ...]:
    """``1,2,5-7``; raises ArgumentTypeError."""
    found: list[int] = []
    for part in text.split(","):
        first, dash, last = part.partition("-")
        if not first.isdigit() or (dash and not last.isdigit()):
            raise argparse.ArgumentTypeError(f"'{text}' is not a list of numbers such as 1,2,5-7")
        found += range(int(first), int(last or first) + 1)
    return tuple(dict.fromkeys(found))


def default_state(matrix: str) -> Path:
    """Where results are kept between runs (XDG base directories)."""
    base = os.environ.get("XDG_STATE_HOME") or os.path.join(os.path.expanduser("~"), ".local", "state")
    return Path(base, "smallq-deploy", "sweep", f"{matrix}.jsonl")


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Compare the installed SmallqFlashAttention with float64 on the shapes of a matrix.",
        epilog="Exit status: 0 all passed, 1 a case or a device failed, 2 wrong usage or environment, 130 interrupted.",
    )
    add = parser.add_argument
    add("--matrix", default="models", help="a name in manifests/matrices, or a YAML or JSON file; default %(default)s")
    add("--models", help="comma list: only these groups of the matrix")
    add("--qlen", type=numbers, help="only these query lengths, for example 1,4")
    add("--kvlen", type=numbers, help="only these key lengths")
    add("--quick", action="store_true", help=f"only qLen 1 and 4 with kvLen up to {QUICK_KV_LIMIT}")
    add("--devices", help="for example 0,2-5, or all; default 1-7 where they exist, else 0")
    add("--timeout", type=float, default=600.0, help="seconds one case may take; default %(default)g")
    add("--open-timeout", type=float, default=60.0, help="seconds until its device must be open; default %(default)g")
    add("--repeat", type=int, default=0, help="timed calls of a case after the first one; default %(default)s")
    add("--memory", type=float, help="GB that inputs and processes may take; default: half of what is free")
    add("--program", help="the program that runs one case; default: aclnn_call.py, or a built test_aclnn")
    add("--opapi", type=Path, help="libcust_opapi.so; default: the one the runtime would use")
    add("--state", type=Path, help="where results are kept; default: ~/.local/state/smallq-deploy/sweep/<matrix>.jsonl")
    add("--resume", action="store_true", help="run only what has not passed in the earlier run")
    add("--json", type=Path, metavar="FILE", help="write the whole result as JSON")
    add("--junit", type=Path, metavar="FILE", help="write the result as JUnit XML")
    add("--work", type=Path, help="directory for inputs, several GB for long caches; default: a temporary one")
    add("--list", action="store_true", help="print the cases and end")
    add("-q", "--quiet", action="store_true", help="no progress lines")
    add("-v", "--verbose", action="store_true", help="a line for every case")
    add("--count-devices", action="store_true", help=argparse.SUPPRESS)
    add("--no-summary", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.devices not in (None, "all"):
        try:
            options.devices = numbers(options.devices)
        except argparse.ArgumentTypeError as error:
            parser.error(f"--devices: {error}")
    if min(options.timeout, options.open_timeout) <= 0 or options.repeat < 0:
        parser.error("time limits must be positive, and --repeat at least 0")
    return options


def select(matrix: Matrix, options: argparse.Namespace) -> list[Case]:
    """The asked cases; raises MatrixError when a model is unknown or nothing is left."""
    cases = list(matrix.cases)
    if options.models:
        known = dict.fromkeys(case.model for case in cases)
        wanted = options.models.split(",")
        unknown = [name for name in wanted if name not in known]
        if unknown:
            raise MatrixError(f"unknown model {', '.join(unknown)}; the matrix has: {', '.join(known)}")
        cases = [case for case in cases if case.model in wanted]
    q_lengths = options.qlen or (QUICK_Q_LENGTHS if options.quick else None)
    cases = [case for case in cases if q_lengths is None or case.q_len in q_lengths]
    if options.kvlen:
        cases = [case for case in cases if case.kv_len in options.kvlen]
    elif options.quick:
        cases = [case for case in cases if case.kv_len <= QUICK_KV_LIMIT]
    if not cases:
        raise MatrixError("no case of the matrix is left after --models, --qlen, --kvlen and --quick")
    return cases


def count_devices() -> int:
    """In a process of its own: prints the number of visible devices."""
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


def choose_devices(asked: tuple[int, ...] | str | None) -> list[int]:
    """Device ids to use; raises CallError when there is none."""
    if isinstance(asked, tuple):
        return list(asked)
    command = [sys.executable, str(HERE / "run_model_tests.py"), "--count-devices"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    except subprocess.TimeoutExpired:
        raise CallError("counting the devices took more than 120 s") from None
    if done.returncode != 0:
        raise CallError(done.stderr.strip() or f"counting the devices failed with status {done.returncode}")
    count = int(done.stdout.split()[-1])
    if count == 0:
        raise CallError("no device is visible")
    usual = [device for device in DEFAULT_DEVICES if device < count]
    return list(range(count)) if asked == "all" or not usual else usual


def fingerprint(library: Path) -> str:
    """Digest of the libraries and kernels of the vendor directory that the library is in."""
    digest = hashlib.sha256(library.read_bytes())
    implementation = library.parent.parent.parent / "op_impl"
    for file in sorted(implementation.rglob("*")):
        if file.suffix in (".o", ".so") and file.is_file():
            digest.update(file.relative_to(implementation).as_posix().encode() + b"\0")
            digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()


def free_memory() -> float:
    """Bytes, from /proc/meminfo; 8 GB where there is none."""
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return float(line.split()[1]) * 1024
    except OSError:
        pass
    return 8e9


def program_command(given: str | None) -> list[str]:
    """The one-case program; raises CallError when it is not there."""
    if given is None:
        return [sys.executable, str(HERE / "aclnn_call.py")]
    command = shlex.split(given)
    found = shutil.which(command[0]) if command else None
    if found is None:
        raise CallError(f"--program: there is no program {given!r}")
    return [os.path.abspath(found), *command[1:]]


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def run(options: argparse.Namespace, matrix: Matrix, cases: list[Case], work: Path) -> int:
    """The sweep itself, once everything that can be wrong with the command line is known to be right."""
    library = options.opapi or find_operator_library(os.environ)
    devices = choose_devices(options.devices)
    settings = Settings(
        program=program_command(options.program),
        environment={**os.environ, "SMALLQ_OPAPI": str(library)},
        timeout=options.timeout,
        open_timeout=options.open_timeout,
        memory=options.memory * 1e9 if options.memory else free_memory() / 2,
        repeat=options.repeat,
        work=work,
    )
    state = State(options.state or default_state(matrix.name), fingerprint(library), resume=options.resume)
    if state.note:
        print(state.note, file=sys.stderr)
    keys = {case.key for case in cases}
    kept = [result for result in state.kept if result.case.key in keys]
    done = {result.case.key for result in kept}
    left = [case for case in cases if case.key not in done]
    progress = Progress(left, options.verbose, options.quiet)
    text = f"{len(left)} cases on device(s) {', '.join(map(str, devices))}, {library}"
    print(text + (f"; {len(kept)} passed earlier" if kept else ""), file=sys.stderr, flush=True)

    def report(result) -> None:  # type: ignore[no-untyped-def]
        state.add(result)
        progress.result(result)

    sweep = Sweep(matrix, left, devices, settings, report, progress.device)
    started = time.monotonic()
    interrupted = False
    try:
        sweep.run()
    except KeyboardInterrupt:
        interrupted = True
    seconds = time.monotonic() - started
    progress.close()
    state.close()
    results = [*kept, *sweep.results]
    in_simulator = simulated(os.environ)
    if not options.no_summary:
        print(summary(sweep, results, len(cases), seconds, in_simulator), flush=True)
    found = document(
        sweep,
        results,
        total=len(cases),
        resumed=len(kept),
        seconds=seconds,
        simulated=in_simulator,
        state=state.path,
    )
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    if options.junit:
        have = {result.case.key for result in results}
        write_junit(options.junit, results, [case for case in cases if case.key not in have])
    if interrupted:
        print("interrupted; --resume runs what is left", file=sys.stderr)
        return 130
    return 0 if found["verdict"] == "pass" else 1


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    if options.count_devices:
        return count_devices()
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        matrix = read_matrix(options.matrix)
        cases = select(matrix, options)
        if options.list:
            print("\n".join(case.name for case in cases))
            return 0
        with tempfile.TemporaryDirectory(prefix="smallq-sweep-", dir=options.work) as work:
            return run(options, matrix, cases, Path(work))
    except (CallError, MatrixError) as error:
        print(f"run_model_tests: {error}", file=sys.stderr)
    except OSError as error:
        print(f"run_model_tests: {error.filename or ''}: {error.strerror or error}", file=sys.stderr)
    except KeyboardInterrupt:
        return 130
    return 2


if __name__ == "__main__":
    sys.exit(main())
