"""An older release over a newer one: refused unless it is meant. (``rollback`` is how to go back.)"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from smallq_deploy.base.errors import ConflictError, SmallqError

if TYPE_CHECKING:
    from smallq_deploy.package.releases import Release
    from smallq_deploy.store.generations import Generation


def is_older(release: str, live: str) -> bool:
    """Is ``release`` an older version of the same release as ``live``? Both are ``name-version``."""
    from packaging.version import InvalidVersion, Version

    (name, _, version), (live_name, _, live_version) = release.rpartition("-"), live.rpartition("-")
    try:
        return name == live_name and Version(version) < Version(live_version)
    except InvalidVersion:
        return False


def downgrade(live: Generation | None, release: Release, allowed: bool, warnings: list[str]) -> Iterator[SmallqError]:
    """ConflictError DOWNGRADE when the live generation is of a newer release; a warning when it is allowed."""
    if live is None or not is_older(release.id, live.release):
        return
    if allowed:
        warnings.append(f"{live.release} is live and newer than {release.id} (--allow-downgrade)")
        return
    yield ConflictError(
        "DOWNGRADE",
        f"{live.release} is live (generation {live.number}) and newer than {release.id}",
        hint="`smallq-deploy rollback` goes back to what was live before; --allow-downgrade installs the older release",
        details={"live": live.release, "release": release.id},
    )
