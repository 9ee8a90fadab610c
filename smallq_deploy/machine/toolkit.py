"""CANN toolkits on this machine: find them, choose one and say why each place was taken or passed over.

Order of search: cann.md 1.4. How one toolkit is read: home.py.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from smallq_deploy.base.errors import NoToolkitError, UsageError
from smallq_deploy.machine.facts import parse_version
from smallq_deploy.machine.home import BASES, DEFAULT_PATH, Toolkit, read_toolkit
from smallq_deploy.machine.places import real, why_no_directory

__all__ = ["DEFAULT_PATH", "Candidate", "Discovery", "Toolkit", "discover", "read_toolkit", "require_toolkit"]


@dataclass(frozen=True)
class Candidate:
    """A place that was looked at: taken, or passed over and why.

    ``real_path`` is it without links ('' where nothing is); ``version`` what is known of it, also when it is not taken.
    """

    path: Path
    origin: str
    taken: bool
    reason: str
    real_path: str = ""
    version: str = ""

    def to_dict(self) -> dict[str, Any]:
        return {
            "path": str(self.path),
            "origin": self.origin,
            "taken": self.taken,
            "reason": self.reason,
            "real_path": self.real_path,
            "version": self.version,
        }


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


def _homes_below(install_root: Path) -> tuple[list[Path], list[Path]]:
    """(places to look at, copies) in an installation root.

    The active toolkit comes first, then versions from new to old, then packages that only run models. Copies are
    directories beside the versions that hold a toolkit under a name that is no version, such as ``cann-8.5.0.bak``.
    """
    copies: list[Path] = []

    def versions(folder: Path, prefix: str) -> list[Path]:
        try:
            with os.scandir(folder) as entries:
                names = [item.name for item in entries if item.name.startswith(prefix) and not item.is_symlink()]
        except OSError:
            return []
        found = []
        for name in sorted(names):
            version = parse_version(name[len(prefix) :])
            if version is not None:
                found.append((version, folder / name))
            elif name not in ("latest", *BASES) and os.path.isdir(folder / name / "opp"):
                copies.append(folder / name)
        return [path for _, path in sorted(found, key=lambda item: item[0], reverse=True)]

    old = install_root / BASES[0]
    places = [install_root / "cann", old / "latest", *versions(install_root, "cann-"), *versions(old, "")]
    for name in BASES[1:]:
        base = install_root / name
        places += [base / "latest", *versions(base, "")]
    return places, copies


def _named(environ: Mapping[str, str]) -> Iterator[tuple[Path, str]]:
    for name in ("ASCEND_HOME_PATH", "ASCEND_TOOLKIT_HOME"):
        if environ.get(name):
            yield Path(environ[name]), name
    if environ.get("ASCEND_OPP_PATH"):
        yield Path(environ["ASCEND_OPP_PATH"]).parent, "ASCEND_OPP_PATH"


class _Search:
    """Collects candidates; one entry in ``toolkits`` for each real toolkit."""

    def __init__(self, root: Path, host_arch: str | None) -> None:
        self.root = root
        self.host_arch = host_arch
        self.candidates: list[Candidate] = []
        self.toolkits: list[Toolkit] = []

    def note(self, path: Path, origin: str, reason: str, *, taken: bool = False, version: str = "") -> None:
        where = str(real(path)) if os.path.exists(path) else ""
        self.candidates.append(Candidate(path, origin, taken, reason, where, version))

    def look(self, path: Path, origin: str, *, quiet: bool = False) -> Toolkit | NoToolkitError | None:
        """Read a place; with ``quiet`` a missing one is no candidate at all."""
        if quiet and not os.path.lexists(path):
            return None
        try:
            toolkit = read_toolkit(path, host_arch=self.host_arch, root=self.root)
        except NoToolkitError as error:
            self.note(path, origin, error.message, version=str(error.details.get("version", "")))
            return error
        version = str(toolkit.version)
        known = next((item for item in self.toolkits if os.path.samefile(item.real_home, toolkit.real_home)), None)
        if known is None:
            self.toolkits.append(toolkit)
            only_runs = "" if toolkit.kind == "toolkit" else f", {toolkit.kind}: it runs models and has no compiler"
            self.note(path, origin, f"CANN {version}{only_runs}", taken=True, version=version)
            return toolkit
        self.note(path, origin, f"the same toolkit as {known.home}", version=version)
        return known

    def pass_over(self, copies: list[Path], origin: str) -> None:
        for copy in copies:
            self.note(copy, origin, f"{copy.name} is no version's name: a copy is used only when --cann names it")

    def look_below(self, place: Path, origin: str) -> None:
        """Every toolkit of an installation root."""
        before = len(self.candidates)
        homes, copies = _homes_below(place)
        for home in homes:
            self.look(home, origin, quiet=True)
        self.pass_over(copies, origin)
        if len(self.candidates) == before:
            state = why_no_directory(place)
            self.note(place, origin, f"{place} {state}" if "permission" in state else "no CANN toolkit there")


def _conventional_roots(environ: Mapping[str, str], root: Path) -> list[tuple[Path, str]]:
    """(installation root, why it is looked at); conda environments can lie in each other."""
    roots = [(root / "usr/local/Ascend", "usual place")]
    outer = sorted(name for name in environ if re.fullmatch(r"CONDA_PREFIX_\d+", name))
    for name in ("CONDA_PREFIX", *reversed(outer), "HOME"):
        if environ.get(name):
            roots.append((Path(environ[name], "Ascend"), f"below ${name}"))
    roots += [(root / "home/developer/Ascend", "place of the web IDE")]
    seen: dict[Path, tuple[Path, str]] = {}
    for place, origin in roots:
        if origin in ("usual place", "below $CONDA_PREFIX", "below $HOME") or os.path.isdir(place):
            seen.setdefault(place, (place, origin))
    return list(seen.values())


def discover(
    *,
    cann: Path | None = None,
    opp: Path | None = None,
    environ: Mapping[str, str] | None = None,
    root: Path = Path("/"),
    host_arch: str | None = None,
) -> Discovery:
    """Find every toolkit and choose one.

    ``cann`` is a toolkit home or an installation root that holds one; nothing else is looked at then. ``opp`` replaces
    the chosen toolkit's opp directory. ``root`` stands for / where usual places are searched and in what files
    say; ``host_arch`` for this machine's architecture. Raises UsageError NO_SUCH_OPP; everything else that is wrong is
    part of the answer.
    """
    environ = os.environ if environ is None else environ
    search = _Search(root, host_arch)
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
    state = why_no_directory(cann)
    if state:
        state = "no such directory" if state == "does not exist" else state
        code = "UNREADABLE" if "permission" in state else "NOT_A_TOOLKIT"
        problem = NoToolkitError(code, f"--cann {cann}: {state}", hint="give an existing directory")
        search.note(cann, "--cann", state)
        return _answer(search, None, problem.message, problem=problem)
    install_root = cann.parent if cann.name in BASES else cann
    homes, copies = _homes_below(install_root)
    below = [place for place in homes if os.path.lexists(place)]
    is_home = os.path.lexists(cann / "opp") or any(cann.glob("*-linux"))
    if is_home or not below:
        found = search.look(cann, "--cann")
        if isinstance(found, Toolkit):
            return _answer(search, found, f"--cann {cann}")
        return _answer(search, None, str(found), problem=found)
    errors = [error for place in below if isinstance(error := search.look(place, "--cann"), NoToolkitError)]
    search.pass_over(copies, "--cann")
    if not search.toolkits:
        return _answer(search, None, errors[0].message, problem=errors[0])
    chosen = search.toolkits[0]
    several = len(search.toolkits) > 1
    active = search.candidates[0].taken and below[0].name in ("cann", "latest")
    which = "only" if not several else "active" if active else "newest"
    why = f"the {which} toolkit below --cann {cann}"
    return _answer(search, chosen, why, ambiguous=several)


def _discover_by_opp(search: _Search, opp: Path) -> Discovery | None:
    """An opp directory that lies in a toolkit names this toolkit; None for one that lies elsewhere."""
    found = search.look(real(opp).parent, "--opp", quiet=True)
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
        search.look_below(place, origin)
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
    if chosen is None or real(opp) == chosen.opp:
        return result
    moved = replace(chosen, opp=real(opp), sources={**chosen.sources, "opp": "--opp"})
    toolkits = tuple(moved if item is chosen else item for item in result.toolkits)
    if moved.private:
        # The runtime splits the variable at ":", and cuts paths at the first ".o" or ".json" (cann.md 6.1).
        bad = next((part for part in (":", ".o", ".json") if part in str(moved.opp)), "")
        if bad:
            raise UsageError(
                "BAD_PATH",
                f"--opp {moved.opp} has {bad!r} in it: CANN's runtime would cut it",
                hint="choose another path",
            )
        call = f'eval "$(smallq-deploy env --opp {opp})"'
        warning = f"{opp} is a root of its own beside {chosen.home}: programs find it after {call}"
    else:
        variable = f"ASCEND_OPP_PATH={opp}"
        warning = f"--opp {opp} is not the opp directory of {chosen.home}: programs find it only with {variable}"
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
