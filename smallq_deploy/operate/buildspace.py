"""Where a build happens: the operator's sources, a private directory, tools, environment, parallel processes."""

from __future__ import annotations

import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from smallq_deploy.base.errors import BuildError, UsageError, access_error
from smallq_deploy.base.fsops import remove_tree
from smallq_deploy.base.proc import run
from smallq_deploy.machine.toolkit import Toolkit
from smallq_deploy.operate.built import default_sources
from smallq_deploy.package.releases import Release
from smallq_deploy.package.vendortree import snake_case

_MEMORY_PER_JOB = 2 << 30  # bytes; kernel compiler processes are hungry
_HARMFUL = re.compile(r"[^\w./~-]|common|ophost", re.ASCII)
_TOOLS = ("bash", "cmake", "make", "g++", "python3")  # on Debian each is a package of the same name


def find_sources(sources: Path | None, release: Release) -> Path:
    """The operator's directory: with op_host/ and op_kernel/. Raises UsageError NOT_SOURCES, PackageError NO_DATA."""
    name = snake_case(release.operator)
    places = [default_sources(release)] if sources is None else [sources, sources / name]
    for place in places:
        if os.path.isdir(place / "op_host") and os.path.isdir(place / "op_kernel"):
            return place
    raise UsageError(
        "NOT_SOURCES", f"{places[0]} holds no op_host and op_kernel", hint=f"give the directory of {name}'s sources"
    )


@dataclass(frozen=True)
class Jobs:
    """How many compiler processes may run at a time, and what decided it."""

    count: int
    reason: str


def job_count(root: Path = Path("/"), asked: str | None = None) -> Jobs:
    """Parallel compiler processes that processors and memory allow; ``asked`` (OPS_CPU_NUMBER) wins.

    Memory is that of the machine and of the control groups (v1 and v2) this process is in; ``root`` holds proc and sys.
    Raises UsageError BAD_VALUE when ``asked`` is no number: build.sh would pass over it in silence.
    """
    if asked:
        if not re.fullmatch(r"[1-9][0-9]{0,3}", asked):
            raise UsageError("BAD_VALUE", f"OPS_CPU_NUMBER is {asked!r}", hint="a number of processes, for example 4")
        return Jobs(int(asked), "OPS_CPU_NUMBER")
    processors = len(os.sched_getaffinity(0))
    memory = [_number(root / "proc/meminfo", r"^MemAvailable:\s+(\d+) kB", 1024)]
    for group in _control_groups(root):
        memory += [_number(group / name, r"^(\d+)$", 1) for name in ("memory.max", "memory.limit_in_bytes")]
        quota = _number(group / "cpu.max", r"^(\d+) \d+", 1)
        period = _number(group / "cpu.max", r"^\d+ (\d+)", 1)
        if quota and period:
            processors = min(processors, max(1, quota // period))
    least = min((value for value in memory if value is not None), default=None)
    if least is not None and least // _MEMORY_PER_JOB < processors:
        return Jobs(max(1, least // _MEMORY_PER_JOB), f"{least / (1 << 30):.1f} GiB of memory")
    return Jobs(processors, f"{processors} processors")


def _number(path: Path, pattern: str, unit: int) -> int | None:
    try:
        found = re.search(pattern, path.read_text(encoding="ascii"), re.MULTILINE)
    except (OSError, ValueError):
        return None
    return int(found[1]) * unit if found else None  # "max" is no number: no limit


def _control_groups(root: Path) -> Iterator[Path]:
    """The directories of this process's control groups and of all above them."""
    top = root / "sys/fs/cgroup"
    yield top
    yield top / "memory"
    try:
        lines = (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers not in ("", "memory"):
            continue
        group = top / controllers
        for part in path.strip("/").split("/"):
            group = group / part
            yield group


def build_environment(toolkit: Toolkit, jobs: Jobs) -> dict[str, str]:
    """The toolkit's environment; raises BuildError MISSING_TOOL for programs that build.sh needs.

    Nothing else of the caller's shell gets in: no exported ``set -u``, no BASH_ENV, no MAKEFLAGS, no CMake generator.
    """
    env = toolkit.environment()
    beside_python = os.path.dirname(sys.executable)
    # cmake may have come with pip, into a virtual environment that is not activated.
    if not shutil.which("cmake", path=env["PATH"]) and os.access(os.path.join(beside_python, "cmake"), os.X_OK):
        env["PATH"] += ":" + beside_python
    missing = [program for program in _TOOLS if not shutil.which(program, path=env["PATH"])]
    if missing:
        fedora = " ".join("gcc-c++" if name == "g++" else name for name in missing)
        raise BuildError(
            "MISSING_TOOL",
            f"programs that the build needs are missing: {', '.join(missing)}",
            hint=f"apt-get install {' '.join(missing)}   or: dnf install {fedora}",
        )
    env["OPS_CPU_NUMBER"] = str(jobs.count)  # the checkout's build.sh
    env["OMP_NUM_THREADS"] = str(jobs.count)  # what nproc prints: the template's build.sh asks it
    env["CCACHE_DISABLE"] = "1"  # also where ccache stands in the compiler's place on PATH
    return env


def compiler_version(env: Mapping[str, str]) -> str:
    """First line of ``bisheng --version``; '' when there is none (build.sh says so itself)."""
    program = shutil.which("bisheng", path=env["PATH"])
    done = run([program, "--version"], env=env, cwd="/", timeout=60) if program else None
    return done.stdout.partition("\n")[0].strip() if done is not None and done.ok else ""


@contextmanager
def workspace(keep_it: bool) -> Iterator[Path]:
    """A private directory whose path build projects survive.

    That of cann-recipes-infer splits paths at blanks, takes them for regular expressions, and skips files that have
    "common" or "ophost" anywhere in their path.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "smallq-deploy", "build")
    places = (cache, Path(tempfile.gettempdir()))
    base = next((place for place in places if not _HARMFUL.search(str(place))), Path("/tmp"))
    try:
        base.mkdir(parents=True, exist_ok=True)
        place = Path(tempfile.mkdtemp(prefix="w", dir=base))
    except OSError as error:
        raise access_error(error, f"make a build directory in {base}") from error
    try:
        yield place
    finally:
        if not keep_it:
            remove_tree(place)
