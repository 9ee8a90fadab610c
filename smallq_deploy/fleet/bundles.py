"""The file that is sent to every host: the tool alone, or the tool with packages. Kept by content, made once."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from smallq_deploy.base.errors import ConflictError, UsageError, access_error
from smallq_deploy.base.fsops import sha256_file
from smallq_deploy.fleet.transport import Upload
from smallq_deploy.operate.built import data_home
from smallq_deploy.operate.bundle import Wanted, create
from smallq_deploy.operate.bundlefile import Index, open_bundle
from smallq_deploy.operate.bundletool import tool_items
from smallq_deploy.package.releases import Release


@dataclass(frozen=True)
class NodeBundle:
    """A bundle file here, and what it is called on hosts."""

    path: Path
    sha256: str
    index: Index

    @property
    def name(self) -> str:
        return f"{self.sha256[:24]}.pyz"

    @property
    def upload(self) -> Upload:
        return Upload(self.path, self.sha256, self.name)

    @property
    def carries_python(self) -> bool:
        return bool(self.index.runtimes)


def existing(path: Path) -> NodeBundle:
    """A bundle that somebody made. Raises PackageError BAD_BUNDLE, UsageError BUNDLE_NEWER, access errors."""
    with open_bundle(path) as opened:
        index = opened.index
    return NodeBundle(path.absolute(), sha256_file(path), index)


def tool_bundle(release: Release, runtimes: Sequence[Path] = ()) -> NodeBundle:
    """The tool alone, as this process runs it. Raises what ``bundle create`` raises."""
    return _kept(release, Wanted(runtimes=tuple(runtimes), tool_only=True))


def package_bundle(release: Release, packages: Sequence[Path], runtimes: Sequence[Path] = ()) -> NodeBundle:
    """The tool with ``packages``, of several architectures or CANN versions; empty: those that were built here.

    Raises UsageError NO_PACKAGE, PACKAGE_NOT_FOUND, and what ``bundle create`` raises.
    """
    wanted = Wanted(packages=tuple(packages), runtimes=tuple(runtimes))
    if not packages:  # which they are changes with every build: nothing to keep it by
        return _made(_folder() / f"{release.id}.pyz", release, wanted)
    return _kept(release, wanted)


def _kept(release: Release, wanted: Wanted) -> NodeBundle:
    """Made again only where the tool, the release or a package is another one."""
    for path in (*wanted.packages, *wanted.runtimes):
        if not path.is_file():
            raise UsageError("PACKAGE_NOT_FOUND", f"{path} does not exist", hint="check the path")
    digest = hashlib.sha256()
    for item in sorted(tool_items()[1], key=lambda item: item.name):
        with item.open() as stream:
            digest.update(item.name.encode() + b"\0" + hashlib.sha256(stream.read()).digest())
    for path in (release.source, *wanted.packages, *wanted.runtimes):
        digest.update(f"{path.name}\0{sha256_file(path)}\0".encode())
    path = _folder() / f"{'tool' if wanted.tool_only else release.id}-{digest.hexdigest()[:24]}.pyz"
    if path.is_file():
        return existing(path)
    return _made(path, release, wanted)


def _made(path: Path, release: Release, wanted: Wanted) -> NodeBundle:
    made = create(path, release, wanted)
    return NodeBundle(made.path, made.sha256, made.index)


def _folder() -> Path:
    folder = data_home() / "fleet" / "bundles"
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise access_error(error, f"make {folder}") from error
    if folder.stat().st_uid != os.geteuid():
        raise ConflictError("NOT_OURS", f"{folder} belongs to somebody else", hint="set XDG_DATA_HOME")
    return folder
