"""The sandbox's runtime libraries and op_build: compiled once for each state of their sources, then copied.

Cache: ``$XDG_CACHE_HOME`` (or ``~/.cache``) ``/smallq-deploy/sandbox/<digest>/``.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import tempfile
from pathlib import Path

from smallq_deploy.base.errors import BuildError, access_error
from smallq_deploy.base.events import Events
from smallq_deploy.base.fsops import remove_tree, sha256_file, walk_tree
from smallq_deploy.base.lock import exclusive_lock
from smallq_deploy.base.proc import run

NATIVE = Path(__file__).resolve().parent / "native"
_SOURCES = ("build_native.sh", "common", "include", "opbuild", "runtime")
_BUILD_TIMEOUT = 900.0


def cache_root() -> Path:
    """Where compiled libraries are kept."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return Path(base) / "smallq-deploy" / "sandbox"


def require_build_tools() -> None:
    """Raises BuildError NO_COMPILER with the missing ones of g++, cmake and make and the command that installs them."""
    missing = [tool for tool in ("g++", "cmake", "make") if shutil.which(tool) is None]
    if missing:
        rpm = ["gcc-c++" if tool == "g++" else tool for tool in missing]
        raise BuildError(
            "NO_COMPILER",
            f"the sandbox needs {', '.join(missing)}, which this machine does not have",
            hint=f"apt install {' '.join(missing)}   or   dnf install {' '.join(rpm)}",
            details={"missing": missing},
        )


def source_digest() -> str:
    """sha256 over the native sources and the compiler's version."""
    digest = hashlib.sha256()
    for name in _SOURCES:
        path = NATIVE / name
        files = [path] if path.is_file() else [path / entry for entry, _ in walk_tree(path)]
        for file in files:
            if file.is_file():
                digest.update(f"{file.relative_to(NATIVE)}\0{sha256_file(file)}\n".encode())
    compiler = run(["g++", "-dumpfullversion", "-dumpmachine"], timeout=30.0)
    digest.update(compiler.stdout.encode())
    return digest.hexdigest()[:24]


def sources_digest() -> str:
    """sha256 over everything that a simulated toolkit is made of: which compiler, emulator and scripts it has."""
    digest = hashlib.sha256()
    for name, info in walk_tree(NATIVE):
        if stat.S_ISREG(info.st_mode) and "__pycache__" not in name:
            digest.update(f"{name}\0{sha256_file(NATIVE / name)}\n".encode())
    return digest.hexdigest()


def native_libraries(events: Events | None = None) -> Path:
    """Directory with the compiled libraries and op_build, compiling them first where the cache has none.

    Raises BuildError NO_COMPILER or NATIVE_BUILD_FAILED, AccessError for a cache that cannot be written.
    """
    require_build_tools()
    root = cache_root()
    done = root / source_digest()
    if done.is_dir():
        return done
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise access_error(error, f"create the cache {root}") from error
    reporter = events or Events()
    with exclusive_lock(root, wait_seconds=_BUILD_TIMEOUT):
        if done.is_dir():
            return done
        with reporter.step("compile the simulated runtime (once)"):
            work = Path(tempfile.mkdtemp(prefix=".build-", dir=root))
            try:
                result = run(
                    ["bash", NATIVE / "build_native.sh", work],
                    timeout=_BUILD_TIMEOUT,
                    merge_stderr=True,
                    on_line=reporter.output,
                )
                if not result.ok:
                    raise BuildError(
                        "NATIVE_BUILD_FAILED",
                        f"compiling the simulated runtime {result.describe()}",
                        hint=f"run it by hand to see all of its output: {result.command_line}",
                        details={"output": result.tail(40)},
                    )
                work.rename(done)
            finally:
                remove_tree(work)
    return done
