"""A package with its signature: fetched, held against both, and kept side by side in the cache."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from packaging.version import Version

from smallq_deploy.base.errors import DownloadError, IncompatibleError, PackageError, UsageError, access_error
from smallq_deploy.base.events import Events
from smallq_deploy.base.fsops import write_atomic
from smallq_deploy.package.fetch import Fetched, fetch, file_name
from smallq_deploy.package.releases import Artifact, Release, load_release
from smallq_deploy.package.signature import (
    MAX_SIGNATURE,
    SUFFIX,
    Checked,
    check_form,
    check_signature,
    default_signers,
    signature_of,
)
from smallq_deploy.package.transfer import Transport, is_url

if TYPE_CHECKING:
    from smallq_deploy.package.compat import Target


@dataclass(frozen=True)
class Trust:
    """Whose signatures count (None: the default file), and whether one is needed."""

    signers: Path | None = None
    required: bool = False


def beside(source: str) -> str:
    """Where the signature of ``source`` is looked for: the same place, with ``.sig`` behind the path."""
    if not is_url(source):
        return source + SUFFIX
    end = re.search(r"[?#]|$", source)
    at = end.start() if end else len(source)
    return source[:at] + SUFFIX + source[at:]


def resolve(location: str, manifest: Path) -> str:
    """A location of a manifest: as it is when it is a URL, else relative to the manifest."""
    return location if is_url(location) else str(manifest.parent / location)


def acquire(
    source: str,
    *,
    sha256: str = "",
    size: int = 0,
    signature: str = "",
    trust: Trust | None = None,
    transport: Transport | None = None,
    events: Events | None = None,
) -> tuple[Fetched, Checked]:
    """Fetch ``source`` and check its signature (``signature``, else the one beside it) before it counts as fetched.

    Raises what :func:`smallq_deploy.package.fetch.fetch` and
    :func:`smallq_deploy.package.signature.check_signature` raise.
    """
    trust, transport = trust or Trust(), transport or Transport()
    seal: Path | None = None
    if signature or trust.required:
        seal = _signature(signature or beside(source), source, transport, trust, named=bool(signature), events=events)
    elif not is_url(source) and os.path.isfile(beside(source)) and (trust.signers or default_signers()):
        seal = Path(beside(source))
    checked: list[Checked] = []

    def accept(path: Path) -> None:
        name = file_name(source)
        checked.append(check_signature(path, signature=seal, signers=trust.signers, required=trust.required, name=name))

    fetched = fetch(
        source,
        sha256=sha256,
        size=size,
        transport=transport,
        accept=accept,
        sealed=seal is not None,
        events=events,
    )
    if seal is not None:
        try:
            write_atomic(signature_of(fetched.path), seal.read_bytes())
        except OSError as error:
            raise access_error(error, f"write {signature_of(fetched.path)}") from error
    return fetched, checked[-1]


def _signature(
    source: str, of: str, transport: Transport, trust: Trust, *, named: bool, events: Events | None
) -> Path | None:
    """The signature file; None for a local one that is not there (whoever checks says so)."""
    if not is_url(source) and not named and not os.path.lexists(source):
        return None
    if trust.signers is None and default_signers() is None:
        # Said before anything is downloaded.
        raise UsageError(
            "NO_SIGNERS",
            f"the signature of {file_name(of)} cannot be checked: no allowed-signers file is there",
            hint="name it with --allowed-signers, or put it at ~/.config/smallq-deploy/allowed_signers",
        )
    try:
        small = replace(transport, max_size=MAX_SIGNATURE)
        name = file_name(of)
        seal = fetch(source, transport=small, accept=lambda path: check_form(path, name), sealed=True, events=events)
        return seal.path
    except DownloadError as error:
        if error.details.get("status") == 404 and not named:
            raise PackageError(
                "NO_SIGNATURE",
                f"{file_name(of)} is not signed: its server has no {file_name(source)}, and a signature is required",
                hint="ask its owner, or name the signature with --signature",
            ) from error
        raise


def choose_artifact(release: Release, target: Target) -> Artifact:
    """The one published package of ``release`` for ``target``.

    Raises IncompatibleError NO_ARTIFACT with the reason of each, UsageError SEVERAL_ARTIFACTS when what is known of the
    machine leaves more than one.
    """
    fitting = [item for item in release.artifacts if not misfit(item, target)]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        each = "; ".join(describe(item) for item in fitting)
        raise UsageError(
            "SEVERAL_ARTIFACTS",
            f"{release.id} has several packages that may be meant: {each}",
            hint="say which machine it is for: --arch, --soc, --cann-version",
        )
    if not release.artifacts:
        raise IncompatibleError(
            "NO_ARTIFACT",
            f"{release.id} has no published packages ({release.source.name} lists none)",
            hint="build it: smallq-deploy build --recipes DIR",
        )
    each = "; ".join(f"{describe(item)}: {misfit(item, target)}" for item in release.artifacts)
    raise IncompatibleError(
        "NO_ARTIFACT",
        f"{release.id} has no package for {target}: {each}",
        hint="build it on this machine, or name another with --arch, --soc, --cann-version",
    )


def describe(item: Artifact) -> str:
    """A published package in a few words."""
    return f"{item.unit} {item.arch} CANN {item.cann}"


def misfit(item: Artifact, target: Target) -> str:
    """Why a published package is not for ``target``; '' when nothing speaks against it."""
    if target.arch and item.arch != target.arch:
        return f"it is for {item.arch}"
    if target.unit and item.unit != target.unit:
        return f"it is for {item.unit}"
    if target.cann is not None:
        return item.cann.rejects(target.cann)
    return ""


def find_release(name: str, releases: Sequence[Release]) -> Release:
    """The release called ``name``: a manifest's path, ``name-version``, or a name alone for its newest version.

    Raises UsageError NO_SUCH_RELEASE.
    """
    if name.endswith((".yaml", ".yml")) or "/" in name:
        return load_release(Path(name))
    for release in releases:
        if name == release.id:
            return release
    same = [release for release in releases if release.name == name]
    if same:
        return max(same, key=lambda release: Version(release.version))
    known = ", ".join(release.id for release in releases) or "none"
    raise UsageError(
        "NO_SUCH_RELEASE", f"there is no release {name!r:.80} (known: {known})", hint="`smallq-deploy release list`"
    )
