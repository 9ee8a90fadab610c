"""Where everything lies: the live tree, config.ini and our store beside them (docs/explanation/switch.md)."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from smallq_deploy.base.errors import UsageError, access_error
from smallq_deploy.base.fsops import fsync_dir, not_plain

SCHEMA = 1
ABSENT = 0  # the "generation number" of a machine without our vendor directory
STORE_NAME = ".smallq-deploy"

# What config.ini and a shell accept (cann.md 6.2), without the ".o" and ".json" that CANN's loader cuts paths at (6.1).
_VENDOR = re.compile(r"^(?!.*\.(o|json))[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}$")


def make_dir(path: Path) -> None:
    """mkdir with mode 755 whatever the umask: every user must be able to read the store and the live tree."""
    os.mkdir(path, 0o755)
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.fchmod(fd, 0o755)
    finally:
        os.close(fd)


def require_directory(path: Path) -> None:
    """Nothing, or a real directory: through a link we would write elsewhere. Raises ConflictError NOT_PLAIN."""
    _require(path, stat.S_IFDIR, "directory")


def _require(path: Path, kind: int, wanted: str) -> None:
    try:
        mode = path.lstat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise access_error(error, f"look at {path}") from error
    if stat.S_IFMT(mode) != kind:
        raise not_plain(path, mode, wanted=wanted)


@dataclass(frozen=True)
class Store:
    """The store of one opp directory, seen for one vendor name.

    ``opp`` is the resolved opp directory of a toolkit. Raises UsageError BAD_VENDOR_NAME for a name that CANN's own
    readers of config.ini would not take.
    """

    opp: Path
    vendor: str = "customize"

    def __post_init__(self) -> None:
        if not _VENDOR.match(self.vendor):
            raise UsageError(
                "BAD_VENDOR_NAME",
                f"{self.vendor!r} cannot be a vendor name",
                hint="letters, digits, '_', '-' and '.' (but no '.o' or '.json'); the usual name is customize",
            )

    @property
    def vendors(self) -> Path:
        return self.opp / "vendors"

    @property
    def root(self) -> Path:
        return self.vendors / STORE_NAME

    @property
    def live(self) -> Path:
        """The directory CANN loads; a real directory or absent."""
        return self.vendors / self.vendor

    @property
    def config_ini(self) -> Path:
        return self.vendors / "config.ini"

    @property
    def journal(self) -> Path:
        return self.root / "journal"

    @property
    def state(self) -> Path:
        return self.root / "state"

    @property
    def history(self) -> Path:
        return self.root / "history"

    @property
    def pins(self) -> Path:
        return self.root / "pins"

    @property
    def generations(self) -> Path:
        return self.root / "generations"

    def generation_dir(self, number: int) -> Path:
        return self.generations / f"{number:04d}"

    def tree_dir(self, number: int) -> Path:
        """Where the tree of a generation rests while it is not live."""
        return self.generation_dir(number) / "tree"

    def package_file(self, number: int) -> Path:
        """The package a generation was installed from; adopted generations have none."""
        return self.generation_dir(number) / "package.run"

    def staging(self, txid: str) -> Staging:
        return Staging(self.root / "staging" / txid)

    @property
    def exists(self) -> bool:
        return self.root.is_dir()

    def check(self) -> None:
        """Is every place of the store what we made it, or not there yet? Raises ConflictError NOT_PLAIN."""
        for path in (self.vendors, self.root, self.generations, self.root / "staging"):
            require_directory(path)
        for path in (self.root / "lock", self.root / "owner", self.journal, self.state, self.history, self.pins):
            _require(path, stat.S_IFREG, "file")

    def create(self) -> None:
        """Make the store's directories. Raises AccessError or InstallError when the file system refuses."""
        for path in (self.vendors, self.root, self.generations, self.root / "staging"):
            try:
                make_dir(path)
            except FileExistsError:
                continue
            except OSError as error:
                raise access_error(error, f"create {path}") from error
            fsync_dir(path.parent)

    @contextmanager
    def locked(self, *, wait_seconds: float = 0.0) -> Iterator[None]:
        """Hold the opp's one lock; makes the store when it is not there yet.

        Raises ConflictError LOCK_BUSY, LOCK_OTHER_HOST, NO_FILE_LOCKS, NOT_PLAIN.
        """
        from smallq_deploy.base.lock import exclusive_lock

        self.check()
        self.create()
        with exclusive_lock(self.root, wait_seconds=wait_seconds, across_hosts=True):
            yield


@dataclass(frozen=True)
class Staging:
    """The private directory of one transaction, on the live tree's file system."""

    root: Path

    @property
    def tree(self) -> Path:
        """The tree that is to become live; after an exchange the old one lies here."""
        return self.root / "tree"

    @property
    def old(self) -> Path:
        """The old tree, with the methods that cannot exchange."""
        return self.root / "old"

    @property
    def record(self) -> Path:
        """The new generation's directory, moved into the store as a whole when the transaction ends well."""
        return self.root / "record"

    @property
    def package(self) -> Path:
        """The copy of the package file that is checked and extracted."""
        return self.record / "package.run"

    @property
    def adopted(self) -> Path:
        """The record of the directory found live that no generation describes."""
        return self.root / "adopted"
