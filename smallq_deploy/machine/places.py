"""Paths of somebody else's machine: what is there, on which file system. Nothing here raises."""

from __future__ import annotations

import errno
import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path

from smallq_deploy.machine.facts import read_text

# File systems that several machines see at once.
_NETWORK = re.compile(
    r"^(nfs\d?|cifs|smb3?|lustre|gpfs|beegfs|ceph|glusterfs|afs|panfs|wekafs|dpc|dtfs|9p|"
    r"fuse\.(ceph|glusterfs|sshfs|juicefs|s3fs|alluxio|gpfs|beegfs)[\w.-]*)$"
)


def real(path: Path) -> Path:
    """The path without links."""
    return Path(os.path.realpath(path))


def below(root: Path, path: str) -> Path:
    """An absolute path that a file of the machine states, as seen from here (``root`` stands for /)."""
    return root / path.lstrip("/")


def why_no_directory(path: Path) -> str:
    """'' for a directory that can be listed, else what is in its place, in words."""
    try:
        found = os.stat(path)
        if not stat.S_ISDIR(found.st_mode):
            return "is no directory"
        with os.scandir(path):
            return ""
    except PermissionError:
        return "may not be read: no permission"
    except OSError as error:
        if error.errno == errno.ELOOP:
            return "is a link that leads back to itself"
        if os.path.islink(path):
            return f"points nowhere: it is a link to {os.readlink(path)}"
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            return "does not exist"
        return f"cannot be read: {error.strerror}"


@dataclass(frozen=True)
class Mount:
    """The mount that a path lies on: ``kind`` such as nfs4, ``source`` such as filer:/soft, ``point`` here, and
    ``inside``, the path below the source's own root. Two machines see one directory where source, inside and inode
    agree."""

    kind: str
    source: str
    point: str
    inside: str

    @property
    def shared(self) -> bool:
        """Is it a file system that several machines see at once?"""
        return bool(_NETWORK.match(self.kind))


def mount_of(path: Path, root: Path = Path("/")) -> Mount | None:
    """The mount of ``path`` by /proc/self/mountinfo below ``root``: the longest mount point that holds the path; of
    equal ones the last. None where it cannot be told."""
    text = read_text(root / "proc/self/mountinfo")
    if not text:
        return None
    inside, base = os.path.realpath(path), os.path.realpath(root)
    if base != "/":
        if not inside.startswith(base + "/"):
            return None
        inside = inside[len(base) :]
    best, answer = -1, None
    for line in text.splitlines():
        left, dash, right = line.partition(" - ")
        fields, kinds = left.split(), right.split()
        if not dash or len(fields) < 5 or len(kinds) < 2:
            continue
        top, point = (_plain(field) for field in fields[3:5])
        if (inside == point or inside.startswith(point.rstrip("/") + "/")) and len(point) >= best:
            best = len(point)
            rest = inside[len(point.rstrip("/")) :]
            answer = Mount(kinds[0], _plain(kinds[1]), point, (top.rstrip("/") + rest) or "/")
    return answer


def _plain(field: str) -> str:
    """Spaces and the like are written as octal numbers."""
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), field)


def shared_file_system(path: Path, root: Path) -> str:
    """How ``path`` is shared with other machines, such as ``nfs4 filer:/soft, mounted at /soft``; '' when it is not."""
    mount = mount_of(path, root)
    return f"{mount.kind} {mount.source}, mounted at {mount.point}" if mount is not None and mount.shared else ""
