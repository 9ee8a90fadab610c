"""Packages that were built here, kept with their provenance and log, so that ``install`` finds them again.

Place: ``$XDG_DATA_HOME/smallq-deploy/packages/<key>/`` with the ``.run``, ``provenance.json`` and ``build.log``.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from smallq_deploy.base.errors import access_error
from smallq_deploy.base.fsops import entries_digest, remove_tree, rename_exchange, sha256_file, tree_entries
from smallq_deploy.machine.environment import Environment
from smallq_deploy.machine.toolkit import Toolkit
from smallq_deploy.package.data import data_root
from smallq_deploy.package.releases import Release
from smallq_deploy.package.vendortree import snake_case

PROVENANCE = "provenance.json"
LOG = "build.log"
SCHEMA_VERSION = 1
_KEY_FIELDS = ("operator", "vendor", "unit", "arch", "source_digest", "recipes_digest", "toolkit", "compiler")
_KEPT_LOGS = 20


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


def keep(package: Path, provenance: Mapping[str, Any], log: Path) -> Path:
    """Store a package; returns its directory. A package of the same key is replaced in one step."""
    identity = json.dumps([provenance[name] for name in _KEY_FIELDS], sort_keys=True)
    key = hashlib.sha256(identity.encode()).hexdigest()[:16]
    folder = data_home() / "packages"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=".new-", dir=folder))
        try:
            staging.chmod(0o755)
            shutil.copy2(package, staging / package.name)
            (staging / package.name).chmod(0o644)
            shutil.copyfile(log, staging / LOG)
            (staging / PROVENANCE).write_text(json.dumps(provenance, indent=2) + "\n", encoding="utf-8")
            if (folder / key).is_dir():
                rename_exchange(staging, folder / key)
            else:
                staging.rename(folder / key)
        finally:
            remove_tree(staging)
    except OSError as error:
        raise access_error(error, f"keep the package in {folder}") from error
    log.unlink(missing_ok=True)
    return folder / key


def _records() -> Iterator[tuple[Path, dict[str, Any]]]:
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
        "unit": unit,
        "arch": environment.toolkit.arch,
        "source_digest": content_digest(sources or default_sources(release)),
        "toolkit": toolkit_identity(environment.toolkit),
    }
    matching = [
        (folder, record)
        for folder, record in _records()
        if all(record.get(name) == value for name, value in wanted.items())
    ]
    for folder, record in sorted(matching, key=lambda item: str(item[1].get("created")), reverse=True):
        package = folder / str(record["package"]["name"])
        if package.is_file() and sha256_file(package) == record["package"]["sha256"]:
            return package
    return None
