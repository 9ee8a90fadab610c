"""Where a build happens: the checkout, the operator's sources, a private copy of both, tools and environment."""

from __future__ import annotations

import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from smallq_deploy.base.errors import BuildError, UsageError, access_error
from smallq_deploy.base.fsops import remove_tree
from smallq_deploy.base.proc import run
from smallq_deploy.machine.toolkit import Toolkit
from smallq_deploy.operate.built import content_digest, default_sources
from smallq_deploy.package.releases import Release
from smallq_deploy.package.vendortree import snake_case

_MEMORY_PER_JOB = 2 << 30  # bytes; kernel compiler processes are hungry
_TOOLS = ("bash", "cmake", "make", "g++", "python3")  # on Debian each is a package of the same name


def find_project(recipes: Path) -> Path:
    """``ops/ascendc`` of a checkout (or that directory itself). Raises UsageError NOT_A_CHECKOUT."""
    for place in (recipes / "ops" / "ascendc", recipes):
        if os.path.isfile(place / "build.sh") and os.path.isdir(place / "src"):
            return place
    what = "does not exist" if not recipes.exists() else "has no ops/ascendc/build.sh"
    raise UsageError(
        "NOT_A_CHECKOUT",
        f"--recipes {recipes} {what}",
        hint="give the directory of a cann-recipes-infer checkout",
    )


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


def job_count() -> int:
    """Parallel compiler processes that this machine's processors and memory allow."""
    limits = [len(os.sched_getaffinity(0))]
    try:
        meminfo = Path("/proc/meminfo").read_text(encoding="ascii")
        available = re.search(r"^MemAvailable:\s+(\d+) kB", meminfo, re.MULTILINE)
        limits += [int(available[1]) * 1024 // _MEMORY_PER_JOB] if available else []
        limits.append(int(Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii")) // _MEMORY_PER_JOB)
    except (OSError, ValueError):
        pass  # no limit known ("max" is no number)
    return max(1, min(limits))


def build_environment(toolkit: Toolkit) -> dict[str, str]:
    """The toolkit's environment; raises BuildError MISSING_TOOL for programs that build.sh needs."""
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
    env.setdefault("OPS_CPU_NUMBER", os.environ.get("OPS_CPU_NUMBER") or str(job_count()))
    return env


def compiler_version(env: Mapping[str, str]) -> str:
    """First line of ``bisheng --version``; '' when there is none (build.sh says so itself)."""
    program = shutil.which("bisheng", path=env["PATH"])
    done = run([program, "--version"], env=env, cwd="/", timeout=60) if program else None
    return done.stdout.partition("\n")[0].strip() if done is not None and done.ok else ""


@contextmanager
def workspace(keep_it: bool) -> Iterator[Path]:
    """A private directory without white space in its path, which build scripts do not survive."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "smallq-deploy", "build")
    if re.search(r"\s", str(base)):
        base = Path(tempfile.gettempdir())
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


def _close_to_others(root: Path) -> None:
    """Take write permission from group and others: CANN's tools refuse sources that others can write."""
    for directory, _, files in os.walk(root):
        for path in (Path(directory), *(Path(directory, name) for name in files)):
            if not path.is_symlink():
                path.chmod((path.stat().st_mode & 0o7755) | 0o600 | (0o100 if path.is_dir() else 0))


def prepare(project: Path, sources: Path, place: Path, *, operator: str, vendor: str) -> tuple[Path, str]:
    """Copy project and sources into the workspace; returns the copy and the digest of the project alone."""
    copy = place / "ascendc"
    target = copy / "src" / snake_case(operator)
    try:
        shutil.copytree(project, copy, symlinks=True, ignore=shutil.ignore_patterns(".git"))
        for left in (copy / "build", copy / "output", target):
            remove_tree(left)
        digest = content_digest(copy)
        shutil.copytree(sources, target)
        _close_to_others(copy)
    except (OSError, shutil.Error) as error:
        if isinstance(error, shutil.Error):
            raise BuildError(
                "COPY_FAILED", f"cannot copy the sources: {error}", hint="check their permissions"
            ) from None
        raise access_error(error, f"copy the sources to {place}") from error
    if vendor != "customize":
        _name_vendor(copy / "CMakeLists.txt", vendor)
    return copy, digest


def _name_vendor(cmake: Path, vendor: str) -> None:
    """build.sh has no option for the vendor name; it is a cache variable of the project's CMakeLists.txt."""
    text = cmake.read_text(encoding="utf-8") if cmake.is_file() else ""
    changed, count = re.subn(r'(set\(\s*VENDOR_NAME\s+)"?customize"?', rf'\1"{vendor}"', text)
    if not count:
        raise BuildError(
            "NO_VENDOR_NAME",
            "this checkout's CMakeLists.txt has no VENDOR_NAME that could be set",
            hint="build with the default vendor name, customize",
        )
    cmake.write_text(changed, encoding="utf-8")


def build_command(project: Path, operator: str, unit: str) -> list[str]:
    """The build.sh line; options that only some checkouts know are given where build.sh names them."""
    text = (project / "build.sh").read_text(encoding="utf-8", errors="replace")
    command = ["bash", "build.sh", "-n", snake_case(operator), "-c", unit]
    # The check compares a file that CANN 8.5 no longer has; whether package and toolkit fit is checked by us.
    if "--disable-check-compatible" in text:
        command.append("--disable-check-compatible")
    # A compiler cache does not see a changed toolkit.
    if "--ccache" in text:
        command += ["--ccache", "off"]
    return command
