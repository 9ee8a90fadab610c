"""Errors a user can act on, and the one table of exit statuses.

Every foreseeable failure is a :class:`SmallqError`: a stable ``code`` (UPPER_SNAKE), a ``message`` that says what
failed and where, a ``hint`` that says what to do next, ``details`` for machines, and the exit status of its class.
"""

from __future__ import annotations

import enum
import os
from collections.abc import Mapping, Sequence
from typing import Any


class ExitStatus(enum.IntEnum):
    """Exit statuses; one meaning each (documented in docs/reference/exit-statuses.md)."""

    OK = 0
    INTERNAL = 1
    USAGE = 2
    NO_TOOLKIT = 3
    INCOMPATIBLE = 4
    BAD_PACKAGE = 5
    BUILD_FAILED = 6
    CONFLICT = 7
    INSTALL_FAILED = 8
    SMOKE_FAILED = 9
    DIFFERENCES = 10
    HOSTS_FAILED = 11
    OPEN_TRANSACTION = 12
    DOWNLOAD_FAILED = 13
    NO_PERMISSION = 14
    INTERRUPTED = 130


EXIT_MEANINGS: Mapping[ExitStatus, str] = {
    ExitStatus.OK: "the command did what it was asked",
    ExitStatus.INTERNAL: "internal error: a bug in smallq-deploy, please report it",
    ExitStatus.USAGE: "wrong command line, or a choice that only you can make",
    ExitStatus.NO_TOOLKIT: "no usable CANN toolkit or device",
    ExitStatus.INCOMPATIBLE: "the package does not fit this machine",
    ExitStatus.BAD_PACKAGE: "damaged or malformed package or manifest",
    ExitStatus.BUILD_FAILED: "the build failed",
    ExitStatus.CONFLICT: "conflict or busy: lock held, foreign operators, files in use",
    ExitStatus.INSTALL_FAILED: "the install failed; the old state was kept",
    ExitStatus.SMOKE_FAILED: "the smoke test or sweep failed (an install is then rolled back)",
    ExitStatus.DIFFERENCES: "drift or findings: the answer is 'not as it should be'",
    ExitStatus.HOSTS_FAILED: "some hosts failed or could not be asked",
    ExitStatus.OPEN_TRANSACTION: "an interrupted transaction stands in the way",
    ExitStatus.DOWNLOAD_FAILED: "a download failed",
    ExitStatus.NO_PERMISSION: "no permission, or a read-only file system",
    ExitStatus.INTERRUPTED: "interrupted by the user",
}


class SmallqError(Exception):
    """A failure that is an answer. ``str(error)`` is the message alone."""

    exit_status: ExitStatus = ExitStatus.INTERNAL

    def __init__(self, code: str, message: str, *, hint: str = "", details: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.hint = hint
        self.details: dict[str, Any] = dict(details or {})

    @property
    def problems(self) -> tuple[SmallqError, ...]:
        """The single errors this one stands for (itself, unless it is a collection)."""
        return (self,)

    def to_dict(self) -> dict[str, Any]:
        """The form of the JSON envelope's ``errors`` entries."""
        return {"code": self.code, "message": self.message, "hint": self.hint, "details": self.details}


class UsageError(SmallqError):
    """The command line is wrong, or asks for a choice only the user can make."""

    exit_status = ExitStatus.USAGE


class NoToolkitError(SmallqError):
    """No usable CANN toolkit or device."""

    exit_status = ExitStatus.NO_TOOLKIT


class IncompatibleError(SmallqError):
    """The package does not fit this machine."""

    exit_status = ExitStatus.INCOMPATIBLE


class PackageError(SmallqError):
    """A package or manifest is damaged or malformed."""

    exit_status = ExitStatus.BAD_PACKAGE


class BuildError(SmallqError):
    """The build failed."""

    exit_status = ExitStatus.BUILD_FAILED


class ConflictError(SmallqError):
    """Somebody else's files or process stand in the way."""

    exit_status = ExitStatus.CONFLICT


class InstallError(SmallqError):
    """The install failed and the old state was kept."""

    exit_status = ExitStatus.INSTALL_FAILED


class SmokeError(SmallqError):
    """The operator did not compute what it should, or could not be asked."""

    exit_status = ExitStatus.SMOKE_FAILED


class DifferencesError(SmallqError):
    """The live tree is not what was installed."""

    exit_status = ExitStatus.DIFFERENCES


class HostsFailedError(SmallqError):
    """Some hosts of a fleet failed or could not be asked; details list them with their codes."""

    exit_status = ExitStatus.HOSTS_FAILED


class OpenTransactionError(SmallqError):
    """A transaction of a dead process is open; ``recover`` or any mutating command closes it."""

    exit_status = ExitStatus.OPEN_TRANSACTION


class DownloadError(SmallqError):
    """A file could not be had from where it is published, or is not the one that was published."""

    exit_status = ExitStatus.DOWNLOAD_FAILED


class AccessError(SmallqError):
    """No permission, or a read-only file system."""

    exit_status = ExitStatus.NO_PERMISSION


class Problems(SmallqError):
    """Several errors reported together; the exit status is that of the first."""

    def __init__(self, problems: Sequence[SmallqError]) -> None:
        if not problems:
            raise ValueError("Problems needs at least one error")
        first = problems[0]
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        super().__init__(first.code, first.message + more, hint=first.hint, details=first.details)
        self._problems = tuple(problems)
        self.exit_status = first.exit_status

    @property
    def problems(self) -> tuple[SmallqError, ...]:
        return self._problems


def raise_problems(problems: Sequence[SmallqError]) -> None:
    """Raise nothing, the one error, or all of them together."""
    if len(problems) == 1:
        raise problems[0]
    if problems:
        raise Problems(problems)


def _permission_hint(number: int) -> str:
    """Root is refused by other things than owners and modes."""
    import errno

    if os.geteuid() != 0:
        return "run as the owner of the opp directory, or as root"
    if number == errno.EPERM:
        return "is it immutable? `lsattr -d PATH` shows an 'i' or 'a', `chattr -i -a PATH` takes it away"
    return (
        "root is refused too: a network file system with root_squash (run as the directory's owner), or SELinux or "
        "AppArmor (`ausearch -m avc`, `dmesg`)"
    )


def access_error(error: OSError, doing: str) -> SmallqError:
    """The typed form of an OSError met while ``doing`` ("write /opp/vendors/config.ini")."""
    import errno

    name = errno.errorcode.get(error.errno or 0, "EUNKNOWN")
    where = os.fsdecode(error.filename) if isinstance(error.filename, (str, bytes, os.PathLike)) else ""
    details = {"errno": name, "path": where}
    text = f"cannot {doing}: {error.strerror or error}"
    if where and where not in text:
        text += f" ({where})"
    if error.errno in (errno.EACCES, errno.EPERM):
        return AccessError("NO_PERMISSION", text, hint=_permission_hint(error.errno), details=details)
    if error.errno == errno.EROFS:
        return AccessError(
            "READ_ONLY", text, hint="remount the file system read-write, or choose another --opp", details=details
        )
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return InstallError(
            "NO_SPACE", text, hint="free space on that file system and run the command again", details=details
        )
    if error.errno == errno.EBUSY:
        hint = "is it a mount point? `findmnt` lists them: mount the vendors directory as a whole instead"
        return InstallError("IO_ERROR", text, hint=hint, details=details)
    return InstallError("IO_ERROR", text, hint="see `dmesg` and the file system's health", details=details)
