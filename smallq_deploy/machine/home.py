"""One CANN toolkit: what its directory says, and the environment it gives to programs.

Layouts: cann.md 1.1 (8.0 to 8.3, "old") and 1.2 (8.5 and later, "new").
"""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from smallq_deploy.base.errors import NoToolkitError
from smallq_deploy.base.proc import sourced_environment
from smallq_deploy.base.versions import CannVersion
from smallq_deploy.machine.facts import Component, Fact, Facts, OpsPackage, read_facts, read_text
from smallq_deploy.machine.places import below, real, shared_file_system, why_no_directory

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
# Folders of an installation root that hold one directory for each version, and ``latest``.
BASES = ("ascend-toolkit", "nnae", "nnrt")
_DRIVER_LIBRARIES = ("driver/lib64", "driver/lib64/common", "driver/lib64/driver")


@dataclass(frozen=True)
class Toolkit:
    """One usable CANN toolkit.

    ``home`` is what ASCEND_HOME_PATH will be; ``real_home`` the version's own directory; ``opp`` is resolved (on the
    old layout ``latest/opp`` is a link). ``kind`` is toolkit, or nnae/nnrt for packages that only run models (no
    compiler). ``installed_as`` is the path its installer wrote down; ``shared`` the network file system it lies on,
    if any. ``sources`` tells for each fact where it was read.
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
    kind: str = "toolkit"
    installed_as: str = ""
    shared: str = ""
    components: tuple[Component, ...] = ()
    ops_packages: tuple[OpsPackage, ...] = ()

    @property
    def vendors(self) -> Path:
        """Where custom operators are installed."""
        return self.opp / "vendors"

    @property
    def private(self) -> bool:
        """Is ``opp`` a directory of the user's own (--opp), with nothing of CANN in it?

        Programs find its vendors through ASCEND_CUSTOM_OPP_PATH; ASCEND_OPP_PATH stays the toolkit's, which has the
        built-in operators.
        """
        own = (os.path.lexists(self.opp / name) for name in ("built-in", "scene.info", "version.info"))
        return self.sources.get("opp") == "--opp" and not any(own)

    @property
    def custom_paths(self) -> tuple[str, ...]:
        """What a private ``opp`` adds to ASCEND_CUSTOM_OPP_PATH: its vendor directories, in its config.ini's order."""
        if not self.private:
            return ()
        try:
            text = (self.vendors / "config.ini").read_text(encoding="utf-8", errors="surrogateescape")
        except OSError:
            return ()
        names = text.partition("\n")[0].partition("=")[2].split(",")
        return tuple(str(self.vendors / name) for name in names if name and os.path.isdir(self.vendors / name))

    @property
    def install_root(self) -> Path:
        """The directory that holds toolkits and driver, such as /usr/local/Ascend."""
        parent = self.real_home.parent
        return parent.parent if parent.name in BASES else parent

    @property
    def label(self) -> str:
        """Short name for people: version, and the remark where there is one."""
        return f"CANN {self.version}" + (f" ({self.remark})" if self.remark else "")

    def component(self, name: str) -> Component | None:
        """A part of the toolkit such as ``compiler``; None when its version is not known."""
        return next((item for item in self.components if item.name == name), None)

    @property
    def facts(self) -> tuple[Fact, ...]:
        """Everything known of the toolkit, each with the file it was read from."""
        values = {
            "home": str(self.home),
            "real home": str(self.real_home),
            "kind": self.kind,
            "layout": self.layout,
            "version": str(self.version),
            "inner version": self.inner_version,
            "remark": self.remark,
            "architecture": self.arch,
            "installed as": self.installed_as,
            "opp": str(self.opp),
            "set_env.sh": str(self.set_env),
            "shared file system": self.shared,
        }
        keys = {"architecture": "arch", "set_env.sh": "set_env", "shared file system": "shared"}
        found = [
            Fact(name, value, self.sources.get(keys.get(name, name.replace(" ", "_")), ""))
            for name, value in values.items()
            if value
        ]
        found += [Fact(f"component {item.name}", item.version, str(item.source)) for item in self.components]
        for package in self.ops_packages:
            inner = f" ({package.inner_version})" if package.inner_version else ""
            found.append(Fact(f"package {package.name}", package.version + inner, str(package.source)))
        return tuple(found)

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
            "kind": self.kind,
            "installed_as": self.installed_as,
            "shared": self.shared,
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
        if not os.access(self.set_env, os.R_OK):
            raise NoToolkitError(
                "UNREADABLE",
                f"no permission to read {self.set_env}",
                hint="CANN's installer gives it to the owner's group only: join that group, or have CANN installed "
                "with --install-for-all",
            )
        result = sourced_environment(self.set_env, base=clean)
        active = result.get("ASCEND_OPP_PATH", "")
        chosen_opp = "opp" in self.sources and self.sources["opp"] == "--opp"
        own_opp = real(self.home / "opp") if chosen_opp else self.opp
        if not active or real(Path(active)) != own_opp:
            raise NoToolkitError(
                "SET_ENV_OTHER_TOOLKIT",
                f"{self.set_env} activates {active or 'no opp directory'}, not {own_opp}",
                hint="repair the links of the installation, or name the toolkit that the script activates with --cann",
            )
        if chosen_opp and not self.private:
            result["ASCEND_OPP_PATH"] = str(self.opp)
        result.pop("ASCEND_CUSTOM_OPP_PATH", None)
        if self.custom_paths:
            result["ASCEND_CUSTOM_OPP_PATH"] = ":".join(self.custom_paths)
        drivers = [str(path) for part in _DRIVER_LIBRARIES if (path := self.install_root / part).is_dir()]
        libraries = [*result.get("LD_LIBRARY_PATH", "").split(":"), *drivers]
        # An empty element would mean the current directory.
        result["LD_LIBRARY_PATH"] = ":".join(dict.fromkeys(part for part in libraries if part))
        for name in ("PATH", "PYTHONPATH"):
            result[name] = ":".join(part for part in result.get(name, "").split(":") if part)
        return result


def _set_env_places(home: Path, real_home: Path, layout: str) -> list[Path]:
    if layout == "new":
        return [real_home / "set_env.sh"]
    return list(dict.fromkeys([home.parent / "set_env.sh", real_home.parent / "set_env.sh"]))


_LITERAL_HOME = re.compile(r"^\s*export\s+(?:ASCEND_TOOLKIT_HOME|ASCEND_HOME_PATH)=[\"']?(/[^\"'\s$;]+)", re.MULTILINE)


def _odd_set_env(set_env: Path, opp: Path, root: Path) -> str:
    """What is wrong with set_env.sh as it is written ('' nothing): unreadable, or made for another directory."""
    denied: list[Path] = []
    found = _LITERAL_HOME.search(read_text(set_env, denied) or "")
    if denied:
        return f"no permission to read {set_env}: this user can run nothing with this toolkit"
    if found is None or opp in (real(Path(found[1]) / "opp"), real(below(root, found[1]) / "opp")):
        return ""
    return f"{set_env} activates {found[1]}, which is not this toolkit: was it moved or copied?"


def _mixed_links(latest: Path) -> str:
    """The old layout re-points the links of ``latest`` one by one; '' when all lead to the same version."""
    versions: dict[str, list[str]] = {}
    base = os.path.realpath(latest.parent) + "/"
    try:
        links = sorted(entry.name for entry in os.scandir(latest) if entry.is_symlink())
    except OSError:
        return ""
    for name in links:
        target = os.path.realpath(latest / name)
        version = target.removeprefix(base).split("/")[0] if target.startswith(base) else ""
        if version not in ("", latest.name):
            versions.setdefault(version, []).append(name)
    if len(versions) < 2:
        return ""
    parts = [
        f"{', '.join(names[:3])}{f' and {len(names) - 3} more' if len(names) > 3 else ''} from {version}"
        for version, names in sorted(versions.items())
    ]
    return f"{latest} mixes versions ({'; '.join(parts)}): this looks like a half-done upgrade"


def _check_readable(home: Path) -> None:
    reason = why_no_directory(home)
    if "permission" in reason:
        raise NoToolkitError("UNREADABLE", f"{home} {reason}", hint="ask the owner of the installation")
    if reason:
        raise NoToolkitError("NOT_A_TOOLKIT", f"{home} {reason}", hint="give a directory such as .../cann-8.5.0")


def _check_version(home: Path, facts: Facts) -> None:
    if facts.statements:
        return
    if facts.denied:
        raise NoToolkitError(
            "UNREADABLE",
            f"no permission to read {facts.denied[0]}, so the CANN version of {home} is not known",
            hint="ask the owner of the installation, or run it as a user who may read it",
        )
    hint = "expected <home>/<arch>-linux/ascend_toolkit_install.info, as CANN's installer writes it"
    if os.path.isdir(home / "opp") or facts.install_info:
        raise NoToolkitError("NO_VERSION", f"no file in {home} tells its CANN version", hint=hint)
    raise NoToolkitError("NOT_A_TOOLKIT", f"{home} is no CANN toolkit", hint=hint)


def read_toolkit(home: Path, *, host_arch: str | None = None, root: Path = Path("/")) -> Toolkit:
    """The toolkit whose home is ``home`` (links allowed). ``root`` stands for / in what its files say.

    Raises NoToolkitError: NOT_A_TOOLKIT, NO_VERSION, MISSING_OPP, MISSING_SET_ENV, SET_ENV_OTHER_TOOLKIT, UNREADABLE;
    ``details`` has the version where it is known.
    """
    host_arch = host_arch or platform.machine()
    home = Path(os.path.abspath(home))
    _check_readable(home)
    facts = read_facts(home, host_arch)
    _check_version(home, facts)
    first = facts.statements[0]
    known = {"version": str(first.version)}
    opp_link = home / "opp"
    if not os.path.isdir(opp_link):
        state = "is missing" if not os.path.lexists(opp_link) else why_no_directory(opp_link)
        raise NoToolkitError(
            "MISSING_OPP",
            f"{opp_link} {state}",
            hint="the toolkit is incomplete: install CANN again",
            details=known,
        )
    opp = real(opp_link)
    real_home = opp.parent
    # An 8.5 alpha still had the old layout: the files decide, not the version.
    layout = "new" if os.path.isdir(real_home / "share" / "info") else "old"
    places = _set_env_places(home, real_home, layout)
    set_env = next((place for place in places if os.path.isfile(place)), None)
    if set_env is None:
        raise NoToolkitError(
            "MISSING_SET_ENV",
            f"{home} has no set_env.sh (looked for {' and '.join(map(str, places))})",
            hint="the toolkit is incomplete: install CANN again, or choose another one with --cann",
            details=known,
        )
    warnings = list(facts.warnings)
    latest = real_home.parent / "latest"
    if layout == "old" and os.path.isdir(latest):
        if os.path.isdir(latest / "opp") and real(latest / "opp") != opp:
            raise NoToolkitError(
                "SET_ENV_OTHER_TOOLKIT",
                f"{home} is not active: {set_env} activates {latest}, which belongs to {real(latest / 'opp').parent}",
                hint=f"use --cann {latest}, or switch `latest` with CANN's own installer",
                details=known,
            )
        if not os.path.isdir(latest / "opp"):
            warnings.append(f"{latest} has no usable link opp, so {set_env} cannot activate this toolkit")
        warnings += [odd for odd in (_mixed_links(latest),) if odd]
    warnings += [odd for odd in (_odd_set_env(set_env, opp, root),) if odd]
    return _toolkit(home, real_home, opp, set_env, layout, facts, root, tuple(warnings), host_arch)


def _toolkit(
    home: Path,
    real_home: Path,
    opp: Path,
    set_env: Path,
    layout: str,
    facts: Facts,
    root: Path,
    warnings: tuple[str, ...],
    host_arch: str,
) -> Toolkit:
    first = facts.statements[0]
    shared = shared_file_system(real_home, root)
    sources = {
        "home": "where the search found it" if layout == "old" else "the directory that holds opp",
        "real_home": f"realpath of {home / 'opp'}",
        "layout": f"{real_home / 'share/info'} {'exists' if layout == 'new' else 'does not exist'}",
        "version": str(first.source),
        "arch": facts.arch_source or "this host: no file says",
        "opp": str(home / "opp"),
        "set_env": str(set_env),
    }
    if facts.install_info is not None:
        sources["kind"] = str(facts.install_info)
        sources["inner_version"] = str(facts.install_info)
        if facts.remark:
            sources["remark"] = str(facts.install_info)
        if facts.installed_as:
            sources["installed_as"] = str(facts.install_info)
    else:
        sources["kind"] = "no install record: a toolkit is assumed"
    if shared:
        sources["shared"] = "/proc/self/mountinfo"
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
        warnings,
        facts.kind,
        facts.installed_as,
        shared,
        facts.components,
        facts.ops_packages,
    )
