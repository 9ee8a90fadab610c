"""Build the operator's package with the build project of a cann-recipes-infer checkout (cann.md 9).

The checkout is copied and stays untouched. The package that comes out is opened: build.sh ends with 0 for an unknown
operator, a wrong unit or a failed kernel too, and leaves an empty package.
"""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from smallq_deploy import __version__
from smallq_deploy.base.errors import BuildError, IncompatibleError, PackageError, UsageError, access_error
from smallq_deploy.base.events import Events
from smallq_deploy.base.proc import Completed, run
from smallq_deploy.machine.environment import Environment
from smallq_deploy.machine.toolkit import Toolkit, require_toolkit
from smallq_deploy.operate.buildcache import BuildCache
from smallq_deploy.operate.buildspace import (
    build_command,
    build_environment,
    compiler_version,
    find_project,
    find_sources,
    prepare,
    workspace,
)
from smallq_deploy.operate.built import (
    LOG,
    PROVENANCE,
    REPRODUCIBLE,
    SBOM,
    SCHEMA_VERSION,
    content_digest,
    find_built,
    git_state,
    host_compiler,
    keep,
    keep_copy,
    new_log,
    outside_link,
    package_key,
    project_digest,
    toolkit_identity,
)
from smallq_deploy.package.buildcheck import kernel_problems, unresolved_functions
from smallq_deploy.package.releases import Release
from smallq_deploy.package.runfile import RunFile, extract_vendor, read_run
from smallq_deploy.package.sbom import SUFFIX, make_sbom
from smallq_deploy.package.validate import validate_vendor
from smallq_deploy.package.vendortree import API_LIBRARY, TBE, normalise, snake_case

__all__ = ["BuildResult", "build", "find_built"]

BUILD_TIMEOUT = 3600.0  # seconds
_TAIL = 25  # lines of the log in an error
# What the log says -> what to do about it.
_SYMPTOMS: tuple[tuple[str, str], ...] = (
    (r"bisheng compilation tool not found", "the toolkit has no kernel compiler: install the full CANN toolkit"),
    (r"Check version compatibility failed", "the checkout is for another CANN version: use a matching branch of it"),
    (r"No module named '(\w+)'", r"a Python module of the toolkit's tools is missing: pip install \1"),
    (r"(fatal error: Killed|Killed signal|cc1plus.*[Kk]illed|out of memory)", "memory ran out: set OPS_CPU_NUMBER=1"),
    (r"No space left on device", "free space below ~/.cache, or set XDG_CACHE_HOME to another file system"),
)


@dataclass(frozen=True)
class BuildResult:
    """A proven package: its kept path, what is in it, where it comes from, its log; seconds of wall clock.

    ``cached``: it was built before and comes from the build cache; provenance and log are those of that build.
    """

    package: Path
    run: RunFile
    provenance: Mapping[str, Any]
    log: Path
    seconds: float
    copied_to: Path | None = None
    workspace: Path | None = None
    cached: bool = False

    @property
    def sbom(self) -> Path:
        """The bill of materials beside the kept package."""
        return self.package.parent / SBOM

    def to_dict(self) -> dict[str, Any]:
        return {
            "package": str(self.copied_to or self.package),
            "kept": str(self.package),
            "cached": self.cached,
            "sbom": str(self.sbom),
            "provenance": dict(self.provenance),
            "log": str(self.log),
            "seconds": round(self.seconds, 3),
            "workspace": str(self.workspace) if self.workspace else None,
        }


def build(
    environment: Environment,
    release: Release,
    *,
    recipes: Path,
    unit: str,
    output: Path | None = None,
    events: Events | None = None,
    vendor: str = "customize",
    sources: Path | None = None,
    keep_workspace: bool = False,
    timeout: float = BUILD_TIMEOUT,
    rebuild: bool = False,
) -> BuildResult:
    """Build, open and keep the package of ``release`` for compute unit ``unit``; one that was built before from the
    same things comes from the build cache, unless ``rebuild`` or ``keep_workspace`` asks for a new build.

    ``sources`` replaces the operator sources that come with the tool; ``output`` is a directory for one more copy;
    ``timeout`` in seconds bounds build.sh. Raises UsageError NOT_A_CHECKOUT, NOT_SOURCES, BAD_VENDOR; IncompatibleError
    UNIT_NOT_SUPPORTED; BuildError MISSING_TOOL, BUILD_FAILED, NO_PACKAGE, EMPTY_PACKAGE, WRONG_UNIT, WRONG_ARCH,
    WRONG_VENDOR, BAD_KERNEL and more, each with the log's path.
    """
    events = events or Events()
    toolkit = require_toolkit(environment.discovery, mutating=True)
    project = find_project(recipes)
    operator_sources = find_sources(sources, release)
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", vendor):
        raise UsageError("BAD_VENDOR", f"{vendor!r} cannot be built", hint="letters, digits and _ only")
    if unit not in release.units:
        raise IncompatibleError(
            "UNIT_NOT_SUPPORTED",
            f"{release.operator} {release.version} is not made for {unit!r}",
            hint=f"compute units of this release: {', '.join(release.units)}",
        )
    start = time.monotonic()
    env = {**build_environment(toolkit), **REPRODUCIBLE}
    provenance: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "tool_version": __version__,
        "release": release.id,
        "operator": release.operator,
        "vendor": vendor,
        "unit": unit,
        "arch": toolkit.arch,
        "source_digest": content_digest(operator_sources),
        "recipes": str(recipes),
        "recipes_digest": project_digest(project, release.operator),
        "toolkit": toolkit_identity(toolkit),
        "toolkit_home": str(toolkit.home),
        "compiler": compiler_version(env),
        "host_compiler": host_compiler(env),
        "flags": build_command(project, release.operator, unit)[2:],
    }
    key, identity = package_key(provenance)
    again = rebuild or keep_workspace
    cache = BuildCache()
    with cache.slot(key, identity, rebuild=again, events=events) as slot, workspace(keep_workspace) as place:
        if slot.folder is not None:
            return _from_cache(slot.folder, key, output=output, start=start)
        log = new_log()
        provenance |= {"source_git": git_state(operator_sources), "recipes_git": git_state(project)}
        with events.step("copy the build project and the sources"):
            copy, _ = prepare(project, operator_sources, place, operator=release.operator, vendor=vendor)
        command = build_command(copy, release.operator, unit)
        with events.step(" ".join(command[1:])):
            _run_build(command, copy, env, log, events, timeout)
        with events.step("open the package"):
            package = _new_package(copy / "output", log)
            found = _prove(package, release, unit=unit, vendor=vendor, toolkit=toolkit, place=place, log=log)
        seconds = time.monotonic() - start
        provenance |= {
            "command": command,
            "seconds": round(seconds, 1),
            "package": {"name": package.name, "sha256": found.file_sha256, "size": package.stat().st_size},
        }
        sbom = make_sbom(place / "opened" / vendor, provenance, version=str(release.version))
        folder = keep(package, provenance, sbom=sbom, log=log)
        unseen = outside_link(operator_sources) or outside_link(project)
        changed = (content_digest(operator_sources), project_digest(project, release.operator)) != (
            provenance["source_digest"],
            provenance["recipes_digest"],
        )
        if unseen:
            events.note(f"not put into the build cache: the sources have a link that leads out of them, {unseen}")
        elif changed:
            events.warning(
                "the sources were changed while they were built: the package is not put into the build cache"
            )
        else:
            slot.fill(folder)
    kept = folder / package.name
    copied = _copy_out(kept, output) if output is not None else None
    kept_workspace = place if keep_workspace else None
    return BuildResult(kept, read_run(kept), provenance, folder / LOG, seconds, copied, kept_workspace)


def _from_cache(stored: Path, key: str, *, output: Path | None, start: float) -> BuildResult:
    """The result of an earlier build: kept like a new one, so that ``install`` finds it."""
    folder, provenance = keep_copy(stored, key)
    kept = folder / str(provenance["package"]["name"])
    copied = _copy_out(kept, output) if output is not None else None
    seconds = time.monotonic() - start
    return BuildResult(kept, read_run(kept), provenance, folder / LOG, seconds, copied, cached=True)


def _log_tail(log: Path) -> str:
    return "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-_TAIL:])


def _failure(code: str, message: str, log: Path, *, hint: str = "", command: str = "") -> BuildError:
    """A build error that shows the end of the log; a known symptom in the log gives the hint."""
    text = log.read_text(encoding="utf-8", errors="replace")
    for pattern, advice in _SYMPTOMS:
        found = re.search(pattern, text)
        if found:
            hint = found.expand(advice)
    details = {"log": str(log), "log_tail": _log_tail(log), "command": command}
    return BuildError(code, f"{message} (log: {log})", hint=hint or f"the log says why: {log}", details=details)


def _run_build(
    command: Sequence[str], project: Path, env: Mapping[str, str], log: Path, events: Events, timeout: float
) -> Completed:
    # The modes of what is built follow the umask, and packages are read by every user.
    argv = ["bash", "-c", 'umask 022; exec "$@"', "-", *command]
    with open(log, "w", encoding="utf-8") as stream:
        done = run(argv, env=env, cwd=project, timeout=timeout, on_line=events.output, log=stream, merge_stderr=True)
    if not done.ok:
        lines = [line for line in done.stdout.splitlines() if re.search(r"\b(error|Error|ERROR)\b", line)]
        first = f": {lines[0].strip()}" if lines else ""
        raise _failure("BUILD_FAILED", f"build.sh {done.describe()}{first}", log, command=done.command_line)
    return done


def _new_package(output: Path, log: Path) -> Path:
    """The package that this build made; output/ was emptied before, so nothing older can be there."""
    packages = sorted(output.glob("CANN-custom_ops*.run"))
    if not packages:
        raise _failure("NO_PACKAGE", "build.sh ended with 0 but left no CANN-custom_ops*.run in output/", log)
    if len(packages) > 1:
        names = ", ".join(path.name for path in packages)
        raise _failure("SEVERAL_PACKAGES", f"build.sh left {len(packages)} packages: {names}", log)
    return packages[0]


def _prove(
    package: Path, release: Release, *, unit: str, vendor: str, toolkit: Toolkit, place: Path, log: Path
) -> RunFile:
    """Open the package: it must hold this operator, for this unit, architecture and vendor, with whole kernels."""

    def refuse(code: str, what: str, hint: str = "") -> BuildError:
        errors = [line.strip() for line in log.read_text(errors="replace").splitlines() if "[ERROR]" in line]
        said = f"; the log says: {errors[0]}" if errors else ""
        return _failure(code, f"build.sh ended with 0, but {what}{said}", log, hint=hint)

    try:
        found = read_run(package)
    except PackageError as error:
        raise refuse(error.code, error.message, error.hint) from error
    if release.operator not in found.ops:
        have = ", ".join(found.ops) or "none at all"
        hint = "older checkouts list their operators in cmake/func.cmake: use a current one"
        raise refuse("EMPTY_PACKAGE", f"{package.name} does not hold {release.operator} (operators: {have})", hint)
    if unit not in found.units:
        have = ", ".join(found.units) or "none"
        raise refuse("WRONG_UNIT", f"{package.name} has nothing for {unit} (compute units: {have})")
    if found.arch != toolkit.arch:
        raise refuse("WRONG_ARCH", f"{package.name} is for {found.arch or 'no architecture'}, not {toolkit.arch}")
    if found.vendor != vendor:
        raise refuse("WRONG_VENDOR", f"{package.name} is for the vendor name {found.vendor}, not {vendor}")
    tree = place / "opened" / vendor
    final = toolkit.vendors / vendor
    try:
        tree.parent.mkdir()
        extract_vendor(found, tree)
        normalise(tree, final=final)
    except PackageError as error:
        raise refuse(error.code, error.message, error.hint) from error
    except OSError as error:
        raise access_error(error, f"open the package in {place}") from error
    kernels = tree / TBE / "kernel" / unit / snake_case(release.operator)
    if not any(kernels.glob("*.o")):
        raise refuse("BAD_KERNEL", f"{package.name} has no compiled kernel of {release.operator} for {unit}")
    findings = validate_vendor(
        tree, operator=release.operator, unit=unit, arch=toolkit.arch, vendor=vendor, final=final
    )
    broken = [finding for finding in findings if finding.severity == "fail"]
    if broken:
        raise refuse("BAD_TREE", "; ".join(f"{item.message}" for item in broken[:3]), broken[0].hint)
    unproven = kernel_problems(tree)
    if unproven:
        raise refuse("BAD_KERNEL", "; ".join(unproven[:3]))
    nnopbase = toolkit.home / "lib64" / "libnnopbase.so"
    unresolved = unresolved_functions(tree / API_LIBRARY, nnopbase) if nnopbase.is_file() else ()
    if unresolved:
        what = f"{API_LIBRARY} calls functions that {nnopbase} does not have: {', '.join(unresolved[:3])}"
        raise refuse("UNRESOLVED_SYMBOL", what, "build with the toolkit that will run it: parts of several are mixed")
    return found


def _copy_out(package: Path, output: Path) -> Path:
    try:
        output.mkdir(parents=True, exist_ok=True)
        copied = Path(shutil.copy2(package, output / package.name))
        copied.chmod(0o755)  # as build.sh leaves it: a package is also a program
        for name, suffix in ((PROVENANCE, ".provenance.json"), (SBOM, SUFFIX)):
            shutil.copyfile(package.parent / name, output / (package.name + suffix))
        return copied
    except OSError as error:
        raise access_error(error, f"copy the package to {output}") from error
