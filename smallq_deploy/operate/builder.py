"""Build the operator's package, with a checkout of cann-recipes-infer or with CANN's own project template (cann.md 9).

Both are copied and stay untouched (buildroutes). The package that comes out is opened: build.sh ends with 0 for an
unknown operator, a wrong unit or a failed kernel too, and leaves an empty package.
"""

from __future__ import annotations

import json
import os
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
from smallq_deploy.machine.toolkit import Discovery, Toolkit, require_toolkit
from smallq_deploy.operate.buildcache import BuildCache
from smallq_deploy.operate.buildroutes import Job, Prepared, Route, find_project, find_template
from smallq_deploy.operate.buildspace import (
    Jobs,
    build_environment,
    compiler_version,
    find_sources,
    job_count,
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
_CAUSE = r"\b(error|Error|ERROR)\b|cannot find -l|can't open file"
# What the log says -> what to do about it.
_SYMPTOMS: tuple[tuple[str, str], ...] = (
    (r"bisheng compilation tool not found", "the toolkit has no kernel compiler: install the full CANN toolkit"),
    (r"Check version compatibility failed", "the checkout is for another CANN version: use a matching branch of it"),
    (r"No module named '(\w+)'", r"a Python module of the toolkit's tools is missing: pip install \1"),
    (r"(fatal error: Killed|Killed signal|cc1plus.*[Kk]illed|out of memory)", "memory ran out: set OPS_CPU_NUMBER=1"),
    (r"No space left on device", "free space below ~/.cache, or set XDG_CACHE_HOME to another file system"),
    (
        r"cannot find -lopapi",
        "this checkout links the built-in operators: install CANN's ops package, or use a checkout of 2026",
    ),
    (r"(\w+): unbound variable", r"a script that was sourced does not survive `set -u`: \1 is not set; set it to ''"),
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


@dataclass(frozen=True)
class BuildRequest:
    """Everything that decides what comes out, checked."""

    toolkit: Toolkit
    release: Release
    job: Job
    route: Route
    jobs: Jobs
    env: Mapping[str, str]
    timeout: float

    def identity(self) -> dict[str, Any]:
        """What goes into the package; "recipes" is the build project, whichever it is."""
        return {
            "release": self.release.id,
            "operator": self.job.operator,
            "vendor": self.job.vendor,
            "unit": ";".join(self.job.units),
            "arch": self.toolkit.arch,
            "source_digest": content_digest(self.job.sources),
            "route": self.route.name,
            "recipes": str(self.route.origin),
            "recipes_digest": project_digest(self.route.origin, self.job.operator),
            "toolkit": toolkit_identity(self.toolkit),
            "toolkit_home": str(self.toolkit.home),
            "compiler": compiler_version(self.env),
            "host_compiler": host_compiler(self.env),
            "flags": self.route.flags(self.job),
        }

    def sources_changed(self, provenance: Mapping[str, Any]) -> bool:
        """True when the project or the operator is no longer what ``provenance`` says."""
        now = (content_digest(self.job.sources), project_digest(self.route.origin, self.job.operator))
        return now != (provenance["source_digest"], provenance["recipes_digest"])


def build(
    discovery: Discovery,
    release: Release,
    *,
    unit: str | Sequence[str],
    recipes: Path | None = None,
    output: Path | None = None,
    events: Events | None = None,
    vendor: str = "customize",
    sources: Path | None = None,
    keep_workspace: bool = False,
    timeout: float = BUILD_TIMEOUT,
    rebuild: bool = False,
) -> BuildResult:
    """Build, open and keep the package of ``release`` for one compute unit or several; one that was built before from
    the same things comes from the build cache, unless ``rebuild`` or ``keep_workspace`` asks for a new build.

    With ``recipes``, a checkout, its build project is used; without, the template of the toolkit. ``sources`` replaces
    the operator sources that come with the tool; ``output`` is a directory for one more copy; ``timeout`` in seconds
    bounds build.sh. Raises UsageError NOT_A_CHECKOUT, NOT_SOURCES, BAD_VENDOR, BAD_VALUE; IncompatibleError
    UNIT_NOT_SUPPORTED; BuildError NO_TEMPLATE, MISSING_TOOL, BUILD_FAILED, NO_PACKAGE, EMPTY_PACKAGE, WRONG_UNIT,
    WRONG_ARCH, WRONG_VENDOR, BAD_KERNEL and more, each with the log's path.
    """
    events = events or Events()
    units = (unit,) if isinstance(unit, str) else tuple(dict.fromkeys(unit))
    request = _request(discovery, release, units, recipes, vendor, sources, timeout)
    start = time.monotonic()
    provenance: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "tool_version": __version__,
        **request.identity(),
    }
    key, identity = package_key(provenance)
    again = rebuild or keep_workspace
    cache = BuildCache()
    with cache.slot(key, identity, rebuild=again, events=events) as slot, workspace(keep_workspace) as place:
        if slot.folder is not None:
            return _from_cache(slot.folder, key, output=output, start=start)
        log = new_log()
        job, route = request.job, request.route
        provenance |= {"source_git": git_state(job.sources), "recipes_git": git_state(route.origin)}
        with events.step("copy the build project and the sources"):
            prepared = route.prepare(job, place)
        for change in prepared.changes:
            events.note(f"in the private copy: {change}")
        events.note(f"{request.jobs.count} compiler processes at a time ({request.jobs.reason})")
        with events.step(" ".join(prepared.command[1:])):
            _run_build(prepared, request, log, events)
        with events.step("open the package"):
            package = _new_package(prepared, log)
            found = _prove(package, request, place=place, log=log)
        seconds = time.monotonic() - start
        provenance |= {
            "command": list(prepared.command),
            "changes": list(prepared.changes),
            "seconds": round(seconds, 1),
            "package": {"name": package.name, "sha256": found.file_sha256, "size": package.stat().st_size},
        }
        sbom = make_sbom(place / "opened" / vendor, provenance, version=str(release.version))
        folder = keep(package, provenance, sbom=sbom, log=log)
        unseen = outside_link(job.sources) or outside_link(route.origin)
        if unseen:
            events.note(f"not put into the build cache: the sources have a link that leads out of them, {unseen}")
        elif request.sources_changed(provenance):
            events.warning(
                "the sources were changed while they were built: the package is not put into the build cache"
            )
        else:
            slot.fill(folder)
    kept = folder / package.name
    copied = _copy_out(kept, output) if output is not None else None
    kept_workspace = place if keep_workspace else None
    return BuildResult(kept, read_run(kept), provenance, folder / LOG, seconds, copied, kept_workspace)


def _request(
    discovery: Discovery,
    release: Release,
    units: tuple[str, ...],
    recipes: Path | None,
    vendor: str,
    sources: Path | None,
    timeout: float,
) -> BuildRequest:
    toolkit = require_toolkit(discovery, mutating=True)
    route: Route = find_project(recipes) if recipes is not None else find_template(toolkit)
    operator_sources = find_sources(sources, release)
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", vendor):
        raise UsageError("BAD_VENDOR", f"{vendor!r} cannot be built", hint="letters, digits and _ only")
    unknown = [name for name in units if name not in release.units]
    if unknown or not units:
        raise IncompatibleError(
            "UNIT_NOT_SUPPORTED",
            f"{release.operator} {release.version} is not made for {', '.join(map(repr, unknown)) or 'no unit at all'}",
            hint=f"compute units of this release: {', '.join(release.units)}",
        )
    jobs = job_count(asked=os.environ.get("OPS_CPU_NUMBER"))
    env = {**build_environment(toolkit, jobs), **REPRODUCIBLE}
    job = Job(release.operator, operator_sources, units, vendor)
    return BuildRequest(toolkit, release, job, route, jobs, env, timeout)


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


def _run_build(prepared: Prepared, request: BuildRequest, log: Path, events: Events) -> Completed:
    # The modes of what is built follow the umask, and packages are read by every user.
    argv = ["bash", "-c", 'umask 022; exec "$@"', "-", *prepared.command]
    with open(log, "w", encoding="utf-8") as stream:
        done = run(
            argv,
            env=request.env,
            cwd=prepared.directory,
            timeout=request.timeout,
            on_line=events.output,
            log=stream,
            merge_stderr=True,
        )
    if not done.ok:
        lines = [
            line
            for line in done.stdout.splitlines()
            if re.search(r"\b(error|Error|ERROR)\b|cannot find -l|can't open file", line)
        ]
        first = f": {lines[0].strip()}" if lines else ""
        raise _failure("BUILD_FAILED", f"build.sh {done.describe()}{first}", log, command=done.command_line)
    return done


def _new_package(prepared: Prepared, log: Path) -> Path:
    """The package that this build made; its directory was emptied before, so nothing older can be there.

    Its name says nothing: cann-recipes-infer gives the version, "none" or nothing between two dashes.
    """
    packages = sorted(prepared.directory.glob(prepared.packages))
    if not packages:
        raise _failure("NO_PACKAGE", f"build.sh ended with 0 but left no {prepared.packages}", log)
    if len(packages) > 1:
        names = ", ".join(path.name for path in packages)
        raise _failure("SEVERAL_PACKAGES", f"build.sh left {len(packages)} packages: {names}", log)
    return packages[0]


def _prove(package: Path, request: BuildRequest, *, place: Path, log: Path) -> RunFile:
    """Open the package: it must hold this operator, for these units, this architecture and vendor, with all kernels."""
    toolkit, job = request.toolkit, request.job
    said_lines = log.read_text(encoding="utf-8", errors="replace").splitlines()

    def refuse(code: str, what: str, hint: str = "") -> BuildError:
        errors = [line.strip() for line in said_lines if "[ERROR]" in line]
        said = f"; the log says: {errors[0]}" if errors else ""
        return _failure(code, f"build.sh ended with 0, but {what}{said}", log, hint=hint)

    try:
        found = read_run(package)
    except PackageError as error:
        raise refuse(error.code, error.message, error.hint) from error
    if job.operator not in found.ops:
        have = ", ".join(found.ops) or "none at all"
        hint = "the build project did not find the operator's directory: see the log for the operators it lists"
        raise refuse("EMPTY_PACKAGE", f"{package.name} does not hold {job.operator} (operators: {have})", hint)
    absent = [unit for unit in job.units if unit not in found.units]
    if absent:
        have = ", ".join(found.units) or "none"
        raise refuse("WRONG_UNIT", f"{package.name} has nothing for {', '.join(absent)} (compute units: {have})")
    if found.arch != toolkit.arch:
        raise refuse("WRONG_ARCH", f"{package.name} is for {found.arch or 'no architecture'}, not {toolkit.arch}")
    if found.vendor != job.vendor:
        raise refuse("WRONG_VENDOR", f"{package.name} is for the vendor name {found.vendor}, not {job.vendor}")
    tree = place / "opened" / job.vendor
    final = toolkit.vendors / job.vendor
    try:
        tree.parent.mkdir()
        extract_vendor(found, tree)
        normalise(tree, final=final)
    except PackageError as error:
        raise refuse(error.code, error.message, error.hint) from error
    except OSError as error:
        raise access_error(error, f"open the package in {place}") from error
    for unit in job.units:
        lacking = _lacking_kernels(tree, job.operator, unit)
        if lacking:
            raise refuse("BAD_KERNEL", f"{package.name} has {lacking} of {job.operator} for {unit}")
        findings = validate_vendor(
            tree, operator=job.operator, unit=unit, arch=toolkit.arch, vendor=job.vendor, final=final
        )
        broken = [finding for finding in findings if finding.severity == "fail"]
        if broken:
            raise refuse("BAD_TREE", "; ".join(f"{item.message}" for item in broken[:3]), broken[0].hint)
    unproven = kernel_problems(tree)
    if unproven:
        raise refuse("BAD_KERNEL", "; ".join(unproven[:3]))
    nnopbase = toolkit.home / "lib64" / "libnnopbase.so"
    try:
        unresolved = unresolved_functions(tree / API_LIBRARY, nnopbase) if nnopbase.is_file() else ()
    except PackageError as error:
        raise refuse(error.code, error.message, "install the toolkit again: its own library is damaged") from error
    if unresolved:
        what = f"{API_LIBRARY} calls functions that {nnopbase} does not have: {', '.join(unresolved[:3])}"
        raise refuse("UNRESOLVED_SYMBOL", what, "build with the toolkit that will run it: parts of several are mixed")
    name = snake_case(job.operator)
    failed = rf"\b({job.operator}|{name})\b.*(not any obj compile success|not generated!)"
    if any(re.search(failed, line) for line in said_lines):
        raise refuse("BAD_KERNEL", f"a kernel of {job.operator} was not compiled")
    return found


def _lacking_kernels(tree: Path, operator: str, unit: str) -> str:
    """What of the kernels is missing, in words; '' when there is one for each data type combination."""
    objects = list((tree / TBE / "kernel" / unit / snake_case(operator)).glob("*.o"))
    if not objects:
        return "no compiled kernel"
    try:
        info = json.loads((tree / TBE / "config" / unit / f"aic-{unit}-ops-info.json").read_text(encoding="utf-8"))
        wanted = len(str(info[operator]["input0"]["dtype"]).split(","))
    except (OSError, ValueError, KeyError, TypeError):
        return ""  # what else is wrong with the file is found by validate_vendor
    if len(objects) < wanted:
        return f"kernels for {len(objects)} of {wanted} data type combinations only"
    return ""


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
