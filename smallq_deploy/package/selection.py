"""Which release fits this machine: the newest that nothing speaks against, and of every other one the reason."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from packaging.version import Version

from smallq_deploy.base.errors import SmallqError
from smallq_deploy.package.compat import Compat, Policy, Target, compat_of, judge, manifest_files
from smallq_deploy.package.releases import Release, load_release

DEFAULT_NAME = "smallq-flash-attention"


@dataclass(frozen=True)
class Rejection:
    """A candidate that was not chosen. ``release`` is None for a manifest that could not be read."""

    release: Release | None
    source: Path
    reasons: tuple[str, ...]

    @property
    def name(self) -> str:
        """``name-version``, or the file where it could not be read."""
        return self.release.id if self.release is not None else self.source.name

    def to_dict(self) -> dict[str, Any]:
        return {"release": self.name, "source": str(self.source), "reasons": list(self.reasons)}


@dataclass(frozen=True)
class Selection:
    """``chosen`` None: nothing fits, ``rejected`` says why. Newest first."""

    chosen: Release | None
    rejected: tuple[Rejection, ...]
    target: Target
    warnings: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        return {
            "chosen": self.chosen.id if self.chosen else None,
            "rejected": [item.to_dict() for item in self.rejected],
            "target": self.target.to_dict(),
            "warnings": list(self.warnings),
        }


@dataclass(frozen=True)
class Candidates:
    """The releases of all manifests directories, newest first, and the files that are none."""

    releases: tuple[Release, ...]
    unreadable: tuple[Rejection, ...] = field(default=())


def find_releases(directories: Iterable[Path] | None = None) -> Candidates:
    """Every release of the manifests directories (default: the tool's, then the user's).

    One unreadable file hides no other. Of two manifests with the same name and version the first is taken.
    """
    found: dict[tuple[str, Version], Release] = {}
    rejected: list[Rejection] = []
    for path in manifest_files("releases", directories):
        try:
            release = load_release(path)
        except SmallqError as error:
            rejected.append(Rejection(None, path, (str(error),)))
            continue
        first = found.setdefault((release.name, Version(release.version)), release)
        if first is not release:
            rejected.append(
                Rejection(
                    release, path, (f"{first.source} is a manifest of the same name and version, and comes first",)
                )
            )
    ordered = sorted(found.values(), key=lambda item: (item.name, Version(item.version)), reverse=True)
    return Candidates(tuple(ordered), tuple(rejected))


def select_release(
    target: Target,
    candidates: Candidates | Sequence[Release],
    policy: Policy | None = None,
    *,
    name: str = DEFAULT_NAME,
    compat: Compat | None = None,
) -> Selection:
    """The newest release ``name`` that fits ``target``; every other candidate with all its reasons.

    ``compat`` replaces the compatibility files. Raises PackageError BAD_MANIFEST for one of those that is malformed.
    """
    policy = policy or Policy()
    if not isinstance(candidates, Candidates):
        candidates = Candidates(tuple(candidates))
    chosen: Release | None = None
    warnings: tuple[str, ...] = ()
    rejected: list[Rejection] = []
    for release in sorted(candidates.releases, key=lambda item: Version(item.version), reverse=True):
        reasons: list[str] = []
        if release.name != name:
            reasons.append(f"{name} was asked for")
        if Version(release.version).is_prerelease and not policy.allow_prerelease:
            reasons.append(f"{release.version} is a pre-release; --allow-prerelease takes it")
        verdict = judge(release, target, compat_of(release) if compat is None else compat, policy)
        reasons += [problem.message for problem in verdict.problems]
        if not reasons and chosen is not None:
            reasons.append(f"{chosen.version} is newer and fits too")
        if reasons:
            rejected.append(Rejection(release, release.source, tuple(reasons)))
        else:
            chosen, warnings = release, verdict.warnings
    return Selection(chosen, (*rejected, *candidates.unreadable), target, warnings)
