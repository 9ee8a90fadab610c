"""Packages that were built here, kept with their provenance and log, so that ``install`` finds them again.

Place: ``$XDG_DATA_HOME/smallq-deploy/packages/<key>/`` with the ``.run``, ``provenance.json``, the bill of materials
(``sbom.cdx.json``) and ``build.log``.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from smallq_deploy.base.errors import access_error
from smallq_deploy.base.fsops import (
    FileEntry,
    entries_digest,
    remove_tree,
    rename_exchange,
    sha256_file,
    tree_entries,
    walk_tree,
)
from smallq_deploy.base.proc import run
from smallq_deploy.machine.environment import Environment
from smallq_deploy.machine.toolkit import Toolkit
from smallq_deploy.package.data import data_root
from smallq_deploy.package.releases import Release
from smallq_deploy.package.vendortree import snake_case

PROVENANCE = "provenance.json"
SBOM = "sbom.cdx.json"
LOG = "build.log"
SCHEMA_VERSION = 1
# What decides how a package comes out. Every one is in the provenance before the build begins.
_KEY_FIELDS = (
    "operator",
    "vendor",
    "unit",
    "arch",
    "source_digest",
    "recipes_digest",
    "toolkit",
    "compiler",
    "host_compiler",
    "flags",
    "tool_version",
)
_KEPT_LOGS = 20
# Compilers and archivers that know these leave the time of the build out of what they write.
REPRODUCIBLE = {"SOURCE_DATE_EPOCH": "315532800", "TZ": "UTC", "LC_ALL": "C", "PYTHONHASHSEED": "0"}


def data_home(environ: Mapping[str, str] | None = None) -> Path:
    """``$XDG_DATA_HOME/smallq-deploy`` (default below ~/.local/share)."""
    environ = os.environ if environ is None else environ
    base = environ.get("XDG_DATA_HOME") or os.path.join(os.path.expanduser("~"), ".local", "share")
    return Path(base, "smallq-deploy")


def default_sources(release: Release) -> Path:
    """The operator's sources that come with the tool; raises PackageError NO_DATA."""
    return data_root() / "src_op" / snake_case(release.operator)


def content_digest(root: Path) -> str:
    """sha256 over names, link targets and contents of a tree; modes and times do not count."""
    return entries_digest(replace(entry, mode=0) for entry in tree_entries(root))


def project_digest(project: Path, operator: str) -> str:
    """:func:`content_digest` of a build project as a build uses it: without its build/ and output/, version control
    and the directory that the operator's own sources will take. Raises AccessError."""
    own = f"src/{snake_case(operator)}"
    left_out = ("build", "output", own)
    try:
        return entries_digest(
            replace(entry, mode=0) for entry in _entries(project, "", left_out) if ".git" not in entry.path.split("/")
        )
    except OSError as error:
        raise access_error(error, f"read the build project {project}") from error


def _entries(root: Path, prefix: str, left_out: tuple[str, ...]) -> Iterator[FileEntry]:
    """Entries of ``root`` with paths behind ``prefix``, not looking into what is left out."""
    for child in sorted(root.iterdir()):
        path = prefix + child.name
        if path in left_out or child.name == ".git":
            continue
        info = child.lstat()
        if stat.S_ISDIR(info.st_mode):
            yield FileEntry(path, "dir", 0)
            yield from _entries(child, path + "/", left_out)
        elif stat.S_ISLNK(info.st_mode):
            yield FileEntry(path, "link", 0, target=os.readlink(child))
        elif stat.S_ISREG(info.st_mode):
            yield FileEntry(path, "file", 0, info.st_size, sha256_file(child))


def outside_link(root: Path) -> str:
    """The first link in a tree that leads out of it, '' when there is none: its content is not in the tree's digest."""
    home = os.path.realpath(root)
    for name, info in walk_tree(root):
        if stat.S_ISLNK(info.st_mode):
            target = os.path.realpath(root / name)
            if target != home and not target.startswith(home + os.sep):
                return name
    return ""


def git_state(place: Path) -> dict[str, Any] | None:
    """Commit of the checkout that holds ``place``, and whether files in ``place`` differ from it (``dirty``; unknown
    files count). None where there is no checkout, no git, or git refuses to look (another owner)."""
    # No index refresh: a checkout is not written to.
    env = {**os.environ, "GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C"}
    head = run(["git", "-C", place, "rev-parse", "--verify", "HEAD"], env=env, timeout=30)
    if not head.ok:
        return None
    changes = run(["git", "-C", place, "status", "--porcelain", "--", "."], env=env, timeout=120)
    tracked = run(["git", "-C", place, "ls-files", "--", "."], env=env, timeout=120)
    if not changes.ok or not tracked.ok or not tracked.stdout.strip():
        return None  # the files are in no commit, the checkout around them says nothing about them
    return {"commit": head.stdout.strip(), "dirty": bool(changes.stdout.strip())}


def host_compiler(env: Mapping[str, str]) -> str:
    """Version and target of the g++ that compiles the libraries; '' when it does not say."""
    done = run(["g++", "-dumpfullversion", "-dumpmachine"], env=env, cwd="/", timeout=60)
    return " ".join(done.stdout.split()) if done.ok else ""


def package_key(provenance: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Name of the directory for a package of this provenance, and the facts that it stands for."""
    identity = {name: provenance.get(name, "") for name in _KEY_FIELDS}
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16], identity


def toolkit_identity(toolkit: Toolkit) -> dict[str, str]:
    """What must be the same for a package to count as built for this toolkit."""
    return {
        "version": str(toolkit.version),
        "inner_version": toolkit.inner_version,
        "arch": toolkit.arch,
        "remark": toolkit.remark,
    }


def new_log() -> Path:
    """A fresh log file; the oldest of many are removed. Raises AccessError and the like."""
    folder = data_home() / "logs"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for old in sorted(folder.glob("build-*.log"), key=lambda path: path.stat().st_mtime)[:-_KEPT_LOGS]:
            old.unlink(missing_ok=True)
        descriptor, name = tempfile.mkstemp(prefix="build-", suffix=".log", dir=folder)
        os.close(descriptor)
    except OSError as error:
        raise access_error(error, f"write a build log in {folder}") from error
    return Path(name)


def keep(package: Path, provenance: Mapping[str, Any], *, sbom: Mapping[str, Any], log: Path) -> Path:
    """Store a package with what belongs to it; returns its directory. One of the same key is replaced in one step."""
    texts = {
        PROVENANCE: json.dumps(provenance, indent=2) + "\n",
        SBOM: json.dumps(sbom, indent=2) + "\n",
    }
    folder = _store(package_key(provenance)[0], {package.name: package, LOG: log}, texts)
    log.unlink(missing_ok=True)
    return folder


def keep_copy(stored: Path, key: str) -> tuple[Path, dict[str, Any]]:
    """Store a package from the build cache: its directory and its provenance. Raises AccessError and the like."""
    try:
        provenance = json.loads((stored / PROVENANCE).read_text(encoding="utf-8"))
    except OSError as error:
        raise access_error(error, f"read {stored / PROVENANCE}") from error
    names = (str(provenance["package"]["name"]), PROVENANCE, SBOM, LOG)
    return _store(key, {name: stored / name for name in names}, {}), provenance


def _store(key: str, files: Mapping[str, Path], texts: Mapping[str, str]) -> Path:
    folder = data_home() / "packages"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=".new-", dir=folder))
        try:
            staging.chmod(0o755)
            for name, path in files.items():
                shutil.copyfile(path, staging / name)
                (staging / name).chmod(0o644)
            for name, text in texts.items():
                (staging / name).write_text(text, encoding="utf-8")
            if (folder / key).is_dir():
                rename_exchange(staging, folder / key)
            else:
                staging.rename(folder / key)
        finally:
            remove_tree(staging)
    except OSError as error:
        raise access_error(error, f"keep the package in {folder}") from error
    return folder / key


def kept_records() -> Iterator[tuple[Path, dict[str, Any]]]:
    """(directory, provenance) of every package that is kept on this machine; what cannot be read is passed over."""
    for path in sorted((data_home() / "packages").glob(f"*/{PROVENANCE}")):
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if isinstance(record, dict) and record.get("schema_version") == SCHEMA_VERSION:
            yield path.parent, record


def find_built(
    environment: Environment, release: Release, unit: str, *, vendor: str = "customize", sources: Path | None = None
) -> Path | None:
    """The newest kept package of these sources for this toolkit, unit and vendor name; None when there is none.

    ``sources`` defaults to those that come with the tool. A package whose content changed since is passed over.
    """
    if environment.toolkit is None:
        return None
    wanted = {
        "operator": release.operator,
        "vendor": vendor,
        "arch": environment.toolkit.arch,
        "source_digest": content_digest(sources or default_sources(release)),
        "toolkit": toolkit_identity(environment.toolkit),
    }
    matching = [
        (folder, record)
        for folder, record in kept_records()
        if unit in str(record.get("unit")).split(";")  # a package can be for several
        and all(record.get(name) == value for name, value in wanted.items())
    ]
    for folder, record in sorted(matching, key=lambda item: str(item[1].get("created")), reverse=True):
        package = folder / str(record["package"]["name"])
        if package.is_file() and sha256_file(package) == record["package"]["sha256"]:
            return package
    return None
