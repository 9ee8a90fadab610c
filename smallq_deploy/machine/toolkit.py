"""CANN toolkits on this machine: find them, read them, choose one and say why.

Layouts: cann.md 1.1 (8.0 to 8.3, "old") and 1.2 (8.5 and later, "new"). Discovery order: cann.md 1.4.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from smallq_deploy.base.errors import NoToolkitError, UsageError
from smallq_deploy.base.proc import sourced_environment
from smallq_deploy.base.versions import CannVersion
from smallq_deploy.machine.facts import parse_version, read_facts

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# Besides HOME and PATH: who and where we are, which devices a scheduler gave us, how the runtime logs.
_KEPT_VARIABLES = frozenset(
    {
        "HOME",
        "PATH",
        "LANG",
        "LC_ALL",
        "LC_CTYPE",
        "TMPDIR",
        "TZ",
        "USER",
        "LOGNAME",
        "ASCEND_RT_VISIBLE_DEVICES",
        "ASCEND_GLOBAL_LOG_LEVEL",
        "ASCEND_SLOG_PRINT_TO_STDOUT",
        "ASCEND_LOG_PRINT_TO_STDOUT",
        "ASCEND_PROCESS_LOG_PATH",
        "ASCEND_WORK_PATH",
    }
)
_DRIVER_LIBRARIES = ("driver/lib64", "driver/lib64/common", "driver/lib64/driver")


@dataclass(frozen=True)
class Toolkit:
    """One usable CANN toolkit.

    ``home`` is what ASCEND_HOME_PATH will be; ``real_home`` the version's own directory; ``opp`` is resolved (on the
    old layout ``latest/opp`` is a link). ``sources`` tells for each fact where it was read.
    """

    home: Path
    real_home: Path
    version: CannVersion
    inner_version: str
    arch: str
    opp: Path
    set_env: Path
    layout: str
    remark: str
    sources: Mapping[str, str]
    warnings: tuple[str, ...]

    @property
    def vendors(self) -> Path:
        """Where custom operators are installed."""
        return self.opp / "vendors"

    @property
    def install_root(self) -> Path:
        """The directory that holds toolkits and driver, such as /usr/local/Ascend."""
        parent = self.real_home.parent
        return parent.parent if parent.name == "ascend-toolkit" else parent

    @property
    def label(self) -> str:
        """Short name for people: version, and the remark where there is one."""
        return f"CANN {self.version}" + (f" ({self.remark})" if self.remark else "")

    def to_dict(self) -> dict[str, Any]:
        return {
            "home": str(self.home),
            "real_home": str(self.real_home),
            "version": str(self.version),
            "inner_version": self.inner_version,
            "arch": self.arch,
            "opp": str(self.opp),
            "vendors": str(self.vendors),
            "set_env": str(self.set_env),
            "layout": self.layout,
            "remark": self.remark,
            "sources": dict(self.sources),
            "warnings": list(self.warnings),
        }

    def environment(self, base: Mapping[str, str] | None = None) -> dict[str, str]:
        """The environment a user gets from a clean shell and this toolkit's set_env.sh.

        From ``base`` (default: this process) only a short list of variables is kept; custom operator paths and older
        toolkits of the caller's shell do not leak in. The driver's library directories are appended where they exist:
        up to 8.3 set_env.sh leaves them to the system. Raises NoToolkitError SET_ENV_FAILED, or SET_ENV_OTHER_TOOLKIT
        when the script activates another toolkit than this one.
        """
        caller = os.environ if base is None else base
        clean = {name: value for name, value in caller.items() if name in _KEPT_VARIABLES or name.startswith("SMALLQ_")}
        clean.setdefault("PATH", DEFAULT_PATH)
        clean.setdefault("HOME", "/")
        result = sourced_environment(self.set_env, base=clean)
        active = result.get("ASCEND_OPP_PATH", "")
        chosen_opp = "opp" in self.sources and self.sources["opp"] == "--opp"
        own_opp = _real(self.home / "opp") if chosen_opp else self.opp
        if not active or _real(Path(active)) != own_opp:
            raise NoToolkitError(
                "SET_ENV_OTHER_TOOLKIT",
                f"{self.set_env} activates {active or 'no opp directory'}, not {own_opp}",
                hint="repair the links of the installation, or name the toolkit that the script activates with --cann",
            )
        if chosen_opp:
            result["ASCEND_OPP_PATH"] = str(self.opp)
        result.pop("ASCEND_CUSTOM_OPP_PATH", None)
        drivers = [str(path) for part in _DRIVER_LIBRARIES if (path := self.install_root / part).is_dir()]
        libraries = [*result.get("LD_LIBRARY_PATH", "").split(":"), *drivers]
        # An empty element would mean the current directory.
        result["LD_LIBRARY_PATH"] = ":".join(dict.fromkeys(part for part in libraries if part))
        for name in ("PATH", "PYTHONPATH"):
            result[name] = ":".join(part for part in result.get(name, "").split(":") if part)
        return result


@dataclass(frozen=True)
class Candidate:
    """A place that was looked at: taken, or not and why."""

    path: Path
    origin: str
    taken: bool
    reason: str

    def to_dict(self) -> dict[str, Any]:
        return {"path": str(self.path), "origin": self.origin, "taken": self.taken, "reason": self.reason}


@dataclass(frozen=True)
class Discovery:
    """All that was found. ``problem`` is set when the toolkit that was asked for cannot be used."""

    candidates: tuple[Candidate, ...]
    toolkits: tuple[Toolkit, ...]
    chosen: Toolkit | None
    why: str
    ambiguous: bool
    problem: NoToolkitError | None = None
    warnings: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        return {
            "candidates": [item.to_dict() for item in self.candidates],
            "toolkits": [item.to_dict() for item in self.toolkits],
            "chosen": str(self.chosen.home) if self.chosen else None,
            "why": self.why,
            "ambiguous": self.ambiguous,
            "problem": self.problem.to_dict() if self.problem else None,
        }


def _real(path: Path) -> Path:
    return Path(os.path.realpath(path))


def read_toolkit(home: Path, *, host_arch: str | None = None) -> Toolkit:
    """The toolkit whose home is ``home`` (links allowed).

    Raises NoToolkitError: NOT_A_TOOLKIT, NO_VERSION, MISSING_OPP, MISSING_SET_ENV, SET_ENV_OTHER_TOOLKIT, UNREADABLE.
    """
    host_arch = host_arch or platform.machine()
    home = Path(os.path.abspath(home))
    if not os.path.isdir(home):
        raise NoToolkitError("NOT_A_TOOLKIT", f"{home} is no directory", hint="give a directory such as .../cann-8.5.0")
    if not os.access(home, os.R_OK | os.X_OK):
        raise NoToolkitError("UNREADABLE", f"no permission to read {home}", hint="ask the owner of the installation")
    facts = read_facts(home, host_arch)
    opp_link = home / "opp"
    if not facts.statements:
        hint = "expected <home>/<arch>-linux/ascend_toolkit_install.info, as CANN's installer writes it"
        if os.path.isdir(opp_link) or facts.install_info:
            raise NoToolkitError("NO_VERSION", f"no file in {home} tells its CANN version", hint=hint)
        raise NoToolkitError("NOT_A_TOOLKIT", f"{home} is no CANN toolkit", hint=hint)
    if not os.path.isdir(opp_link):
        state = "points nowhere" if opp_link.is_symlink() else "is missing"
        raise NoToolkitError("MISSING_OPP", f"{opp_link} {state}", hint="the toolkit is incomplete: install CANN again")
    opp = _real(opp_link)
    real_home = opp.parent
    # An 8.5 alpha still had the old layout: the files decide, not the version.
    layout = "new" if os.path.isdir(real_home / "share" / "info") else "old"
    places = [real_home / "set_env.sh"] if layout == "new" else []
    if layout == "old":
        places = list(dict.fromkeys([home.parent / "set_env.sh", real_home.parent / "set_env.sh"]))
    set_env = next((place for place in places if os.path.isfile(place)), None)
    if set_env is None:
        raise NoToolkitError(
            "MISSING_SET_ENV",
            f"{home} has no set_env.sh (looked for {' and '.join(map(str, places))})",
            hint="the toolkit is incomplete: install CANN again, or choose another one with --cann",
        )
    latest = real_home.parent / "latest"
    if layout == "old" and os.path.isdir(latest) and _real(latest / "opp") != opp:
        raise NoToolkitError(
            "SET_ENV_OTHER_TOOLKIT",
            f"{home} is not active: {set_env} activates {latest}, which belongs to {_real(latest / 'opp').parent}",
            hint=f"use --cann {latest}, or switch `latest` with CANN's own installer",
        )
    first = facts.statements[0]
    sources = {
        "version": str(first.source),
        "arch": facts.arch_source,
        "opp": str(opp_link),
        "set_env": str(set_env),
    }
    if facts.install_info is not None:
        sources["inner_version"] = str(facts.install_info)
        if facts.remark:
            sources["remark"] = str(facts.install_info)
    return Toolkit(
        home if layout == "old" else real_home,
        real_home,
        first.version,
        facts.inner_version,
        facts.arch or host_arch,
        opp,
        set_env,
        layout,
        facts.remark,
        sources,
        facts.warnings,
    )


def _homes_below(install_root: Path) -> list[Path]:
    """Places in an installation root, the active one first, then versions from new to old."""

    def versions(folder: Path, prefix: str) -> list[Path]:
        try:
            names = [path for path in folder.iterdir() if path.name.startswith(prefix) and not path.is_symlink()]
        except OSError:
            return []
        found = [(version, path) for path in names if (version := parse_version(path.name[len(prefix) :]))]
        return [path for _, path in sorted(found, key=lambda item: item[0], reverse=True)]

    old = install_root / "ascend-toolkit"
    return [install_root / "cann", old / "latest", *versions(install_root, "cann-"), *versions(old, "")]


def _named(environ: Mapping[str, str]) -> Iterator[tuple[Path, str]]:
    for name in ("ASCEND_HOME_PATH", "ASCEND_TOOLKIT_HOME"):
        if environ.get(name):
            yield Path(environ[name]), name
    if environ.get("ASCEND_OPP_PATH"):
        yield Path(environ["ASCEND_OPP_PATH"]).parent, "ASCEND_OPP_PATH"


class _Search:
    """Collects candidates; one entry in ``toolkits`` for each real toolkit."""

    def __init__(self) -> None:
        self.candidates: list[Candidate] = []
        self.toolkits: list[Toolkit] = []

    def look(self, path: Path, origin: str, *, quiet: bool = False) -> Toolkit | NoToolkitError | None:
        """Read a place; with ``quiet`` a missing one is no candidate at all."""
        if quiet and not os.path.lexists(path):
            return None
        try:
            toolkit = read_toolkit(path)
        except NoToolkitError as error:
            self.candidates.append(Candidate(path, origin, False, error.message))
            return error
        known = next((item for item in self.toolkits if item.real_home == toolkit.real_home), None)
        if known is None:
            self.toolkits.append(toolkit)
            self.candidates.append(Candidate(path, origin, True, f"CANN {toolkit.version}"))
            return toolkit
        self.candidates.append(Candidate(path, origin, False, f"the same toolkit as {known.home}"))
        return known


def _conventional_roots(environ: Mapping[str, str], root: Path) -> list[tuple[Path, str]]:
    roots = [(root / "usr/local/Ascend", "usual place")]
    for name in ("CONDA_PREFIX", "HOME"):
        if environ.get(name):
            roots.append((Path(environ[name], "Ascend"), f"below ${name}"))
    return roots


def discover(
    *,
    cann: Path | None = None,
    opp: Path | None = None,
    environ: Mapping[str, str] | None = None,
    root: Path = Path("/"),
) -> Discovery:
    """Find every toolkit and choose one.

    ``cann`` is a toolkit home or an installation root that holds one; nothing else is looked at then. ``opp`` replaces
    the chosen toolkit's opp directory. ``root`` stands for / where usual places are searched. Raises UsageError
    NO_SUCH_OPP; everything else that is wrong is part of the answer.
    """
    environ = os.environ if environ is None else environ
    search = _Search()
    if cann is not None:
        result = _discover_named(search, Path(cann))
    else:
        result = (_discover_by_opp(search, Path(opp)) if opp is not None else None) or _discover_around(
            search, environ, root
        )
    return result if opp is None else _with_opp(result, Path(opp))


def _answer(
    search: _Search,
    chosen: Toolkit | None,
    why: str,
    *,
    ambiguous: bool = False,
    problem: NoToolkitError | None = None,
    warnings: tuple[str, ...] = (),
) -> Discovery:
    return Discovery(tuple(search.candidates), tuple(search.toolkits), chosen, why, ambiguous, problem, warnings)


def _discover_named(search: _Search, cann: Path) -> Discovery:
    """The toolkit that --cann names."""
    if not os.path.isdir(cann):
        problem = NoToolkitError(
            "NOT_A_TOOLKIT", f"--cann {cann}: no such directory", hint="give an existing directory"
        )
        search.candidates.append(Candidate(cann, "--cann", False, "no such directory"))
        return _answer(search, None, problem.message, problem=problem)
    install_root = cann.parent if cann.name == "ascend-toolkit" else cann
    below = [place for place in _homes_below(install_root) if os.path.lexists(place)]
    is_home = os.path.lexists(cann / "opp") or any(cann.glob("*-linux"))
    if is_home or not below:
        found = search.look(cann, "--cann")
        if isinstance(found, Toolkit):
            return _answer(search, found, f"--cann {cann}")
        return _answer(search, None, str(found), problem=found)
    errors = [error for place in below if isinstance(error := search.look(place, "--cann"), NoToolkitError)]
    if not search.toolkits:
        return _answer(search, None, errors[0].message, problem=errors[0])
    chosen = search.toolkits[0]
    several = len(search.toolkits) > 1
    why = f"the {'active' if several else 'only'} toolkit below --cann {cann}"
    return _answer(search, chosen, why, ambiguous=several)


def _discover_by_opp(search: _Search, opp: Path) -> Discovery | None:
    """An opp directory that lies in a toolkit names this toolkit; None for one that lies elsewhere."""
    found = search.look(_real(opp).parent, "--opp", quiet=True)
    if isinstance(found, Toolkit):
        return _answer(search, found, f"--opp {opp} lies in it")
    if found is not None and found.code not in ("NOT_A_TOOLKIT", "NO_VERSION"):
        return _answer(search, None, found.message, problem=found)
    return None


def _discover_around(search: _Search, environ: Mapping[str, str], root: Path) -> Discovery:
    """Environment variables first, then the usual places."""
    named: Toolkit | None = None
    named_by = ""
    problem: NoToolkitError | None = None
    warnings: list[str] = []
    for path, name in _named(environ):
        found = search.look(path, name)
        if isinstance(found, Toolkit):
            if named is None:
                named, named_by = found, name
            elif found.real_home != named.real_home:
                warnings.append(f"{named_by} names {named.home}, but {name} names {found.home}; {named_by} counts")
        elif found is not None and problem is None and named is None:
            problem = NoToolkitError(
                found.code,
                f"{name} names {path}, which cannot be used: {found.message}",
                hint="unset the variable, source the set_env.sh of the wanted toolkit, or use --cann",
            )
    if named is not None and problem is not None:
        warnings.append(problem.message)
        problem = None
    for place, origin in _conventional_roots(environ, root):
        before = len(search.candidates)
        for home in _homes_below(place):
            search.look(home, origin, quiet=True)
        if len(search.candidates) == before:
            search.candidates.append(Candidate(place, origin, False, "no CANN toolkit there"))
    if named is not None:
        return _answer(search, named, f"{named_by} names it", warnings=tuple(warnings))
    if problem is not None:
        warnings.append(problem.message)
    if not search.toolkits:
        return _answer(search, None, "no usable CANN toolkit was found", problem=problem, warnings=tuple(warnings))
    chosen = search.toolkits[0]
    several = len(search.toolkits) > 1
    why = f"first of {len(search.toolkits)} in the order of search" if several else "the only one found"
    return _answer(search, chosen, why, ambiguous=several, problem=problem, warnings=tuple(warnings))


def _with_opp(result: Discovery, opp: Path) -> Discovery:
    if not os.path.isdir(opp):
        raise UsageError("NO_SUCH_OPP", f"--opp {opp}: no such directory", hint="give the toolkit's opp directory")
    chosen = result.chosen
    if chosen is None or _real(opp) == chosen.opp:
        return result
    moved = replace(chosen, opp=_real(opp), sources={**chosen.sources, "opp": "--opp"})
    toolkits = tuple(moved if item is chosen else item for item in result.toolkits)
    warning = f"--opp {opp} is not the opp directory of {chosen.home}: programs find it only with ASCEND_OPP_PATH={opp}"
    return replace(result, chosen=moved, toolkits=toolkits, warnings=(*result.warnings, warning))


def require_toolkit(discovery: Discovery, *, mutating: bool) -> Toolkit:
    """The chosen toolkit.

    Raises NoToolkitError NO_TOOLKIT (or what is wrong with the one asked for); for a ``mutating`` command also
    UsageError SEVERAL_TOOLKITS where the choice is the user's.
    """
    if discovery.problem is not None and (mutating or discovery.chosen is None):
        raise discovery.problem
    if discovery.chosen is None:
        looked = [f"{item.path}: {item.reason}" for item in discovery.candidates]
        raise NoToolkitError(
            "NO_TOOLKIT",
            "no usable CANN toolkit on this machine" + (f" ({'; '.join(looked)})" if looked else ""),
            hint="install the CANN toolkit, or name its directory with --cann",
            details={"candidates": [item.to_dict() for item in discovery.candidates]},
        )
    if mutating and discovery.ambiguous:
        homes = [f"{item.home} (CANN {item.version})" for item in discovery.toolkits]
        raise UsageError(
            "SEVERAL_TOOLKITS",
            f"{len(homes)} CANN toolkits are here: {', '.join(homes)}",
            hint=f"choose one, for example --cann {discovery.toolkits[0].home}",
            details={"toolkits": [str(item.home) for item in discovery.toolkits]},
        )
    return discovery.chosen
