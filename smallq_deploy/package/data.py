"""Where the files that travel with the tool are: the operator sources and the manifests."""

from __future__ import annotations

from pathlib import Path

from smallq_deploy.base.errors import PackageError


def data_root() -> Path:
    """The directory that holds ``src_op/`` and ``manifests/``: package data of a wheel, else the checkout.

    Raises PackageError NO_DATA when the installation is incomplete.
    """
    package = Path(__file__).resolve().parent.parent
    for candidate in (package / "_data", package.parent):
        if (candidate / "src_op").is_dir() and (candidate / "manifests").is_dir():
            return candidate
    raise PackageError(
        "NO_DATA",
        f"the operator sources and manifests are missing beside {package}",
        hint="install the tool again, or run it from a complete checkout",
    )
