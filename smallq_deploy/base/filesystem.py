"""Does a directory lie on a file system that other machines may write too?"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

# f_type of statfs(2): linux/magic.h, and the headers of the file systems that are not in it.
_SHARED = {
    0x6969: "NFS",
    0x517B: "SMB",
    0xFE534D42: "SMB",
    0xFF534D42: "SMB",
    0x0BD00BD0: "Lustre",
    0x47504653: "GPFS",
    0x00C36400: "Ceph",
    0x19830326: "BeeGFS",
    0x5346414F: "AFS",
    0x01161970: "GFS2",
    0x7461636F: "OCFS2",
    0xAAD7AAEA: "PanFS",
    0x65735546: "FUSE",  # JuiceFS, GlusterFS, CephFS and sshfs look like this, and so do harmless ones
}
_STATFS_BYTES = 256  # struct statfs has 120; its first field is a long on 64 bits


def shared_kind(path: Path) -> str:
    """Name of the file system of ``path`` when other machines may have it mounted too ("NFS"), '' when it is this
    machine's own or cannot be told."""
    buffer = ctypes.create_string_buffer(_STATFS_BYTES)
    try:
        if ctypes.CDLL(None).statfs(os.fsencode(path), buffer) != 0:
            return ""
    except (AttributeError, OSError):
        return ""
    return _SHARED.get(ctypes.c_ulong.from_buffer(buffer).value & 0xFFFFFFFF, "")
