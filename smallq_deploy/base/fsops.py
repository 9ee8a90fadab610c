"""File operations the switch stands on: durable writes, the exchange, safe walks, tree manifests and digests.

No function here calls a global ``sync``: that would hide a missing fsync.
"""

from __future__ import annotations

import ctypes
import errno
import hashlib
import json
import os
import shutil
import stat
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from smallq_deploy.base.errors import ConflictError, InstallError

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2  # linux/fs.h
_HASH_THREADS = 4  # a disk gains nothing from more
_WORTH_THREADS = 16 << 20  # bytes
_MAX_DEPTH = 200  # directories; a vendor tree has about ten


def fsync_dir(path: Path) -> None:
    """Make the entries of a directory durable."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def fsync_file(path: Path) -> None:
    """Make a file's content durable."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def fsync_tree(root: Path) -> None:
    """Make every file and directory below ``root``, and ``root`` itself, durable. Symlinks live in their directory."""
    for directory, _, files in os.walk(root, topdown=False):
        for name in files:
            path = Path(directory, name)
            if not path.is_symlink():
                fsync_file(path)
        fsync_dir(Path(directory))


def not_plain(path: Path, mode: int, *, wanted: str = "file") -> ConflictError:
    """The error for a place of ours where somebody put something else; ``mode`` is what lstat says of it."""
    kinds = {
        stat.S_IFLNK: "a link",
        stat.S_IFDIR: "a directory",
        stat.S_IFREG: "a file",
        stat.S_IFIFO: "a named pipe",
        stat.S_IFSOCK: "a socket",
        stat.S_IFCHR: "a device",
        stat.S_IFBLK: "a device",
    }
    return ConflictError(
        "NOT_PLAIN",
        f"{path} is {kinds.get(stat.S_IFMT(mode), 'something else')}, not a {wanted}: smallq-deploy does not go there",
        hint=f"look who put it there (`ls -ld {path}`), move it away and run the command again",
        details={"path": str(path)},
    )


def open_plain(path: Path, flags: int, mode: int = 0o644) -> int:
    """A descriptor of a regular file: links are not followed, pipes and devices neither waited for nor read.

    Raises ConflictError NOT_PLAIN, OSError.
    """
    try:
        fd = os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, mode)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EISDIR, errno.ENXIO):
            raise not_plain(path, path.lstat().st_mode) from error
        raise
    found = os.fstat(fd).st_mode
    if not stat.S_ISREG(found):
        os.close(fd)
        raise not_plain(path, found)
    return fd


def read_plain(path: Path) -> bytes:
    """The content of a regular file. Raises as :func:`open_plain`."""
    with os.fdopen(open_plain(path, os.O_RDONLY), "rb") as stream:
        return stream.read()


def create_new(path: Path, mode: int = 0o644) -> int:
    """A descriptor of a file that was not there before: whatever has that name (a link, a hard link to somebody's file)
    is unlinked, never written to. Raises OSError (a directory cannot be unlinked)."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        return os.open(path, flags, mode)
    except FileExistsError:
        os.unlink(path)
        return os.open(path, flags, mode)


def write_atomic(path: Path, data: bytes | str, *, mode: int = 0o644) -> None:
    """Replace ``path`` by ``data``: after a crash the old or the new content is there, never a mix."""
    raw = data.encode() if isinstance(data, str) else data
    temporary = path.with_name(f".{path.name}.new")
    fd = create_new(temporary, mode)
    try:
        with os.fdopen(fd, "wb") as stream:
            stream.write(raw)
            stream.flush()
            os.fchmod(stream.fileno(), mode)
            os.fsync(stream.fileno())
        os.rename(temporary, path)
    except BaseException:
        try:
            os.unlink(temporary)
        except OSError:
            pass
        raise
    fsync_dir(path.parent)


def append_line(path: Path, line: str, *, mode: int = 0o644) -> None:
    """Append one line durably. A torn last line of an earlier crash is closed first, so that lines never join.

    A file that has another name too (a backup by hard links) is replaced, so that the other name keeps what it has.
    """
    fd = open_plain(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, mode)
    try:
        info = os.fstat(fd)
        size = info.st_size
        if info.st_nlink > 1:
            before = read_plain(path)
            end = b"" if before.endswith(b"\n") or not before else b"\n"
            write_atomic(path, before + end + line.encode() + b"\n", mode=stat.S_IMODE(info.st_mode))
            return
        torn = size > 0 and os.pread(fd, 1, size - 1) != b"\n"
        os.write(fd, (("\n" if torn else "") + line + "\n").encode())
        os.fsync(fd)
    finally:
        os.close(fd)
    fsync_dir(path.parent)


def rename_exchange(first: Path, second: Path) -> None:
    """Exchange two directory entries in one step (renameat2 RENAME_EXCHANGE, Linux 3.15).

    Raises OSError with the kernel's errno; EINVAL, ENOSYS and EXDEV mean the file system cannot.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    function = getattr(libc, "renameat2", None)
    if function is None:
        raise OSError(errno.ENOSYS, "renameat2 is not in this libc", str(first))
    result = function(
        ctypes.c_int(_AT_FDCWD),
        ctypes.c_char_p(os.fsencode(first)),
        ctypes.c_int(_AT_FDCWD),
        ctypes.c_char_p(os.fsencode(second)),
        ctypes.c_uint(_RENAME_EXCHANGE),
    )
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), str(first))


def remove_tree(path: Path) -> None:
    """Remove a file, link or directory tree; read-only directories are opened first; a missing path is fine.

    Never follows a link: only what is really below ``path`` goes.
    """
    try:
        info = path.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISDIR(info.st_mode):
        path.unlink()
        return
    for directory, names, _ in os.walk(path):
        for entry in (Path(directory), *(Path(directory, name) for name in names)):
            if not entry.is_symlink() and not os.access(entry, os.W_OK | os.X_OK | os.R_OK):
                entry.chmod(0o700)
    if sys.version_info >= (3, 12):
        shutil.rmtree(path, onexc=lambda function, place, error: _stop(place, error))
    else:
        shutil.rmtree(path, onerror=lambda function, place, info: _stop(place, info[1]))


def _stop(place: str, error: BaseException) -> NoReturn:
    """The error with the whole path: rmtree works below open directories, and its errors name only the last part."""
    if isinstance(error, OSError) and error.errno is not None:
        raise OSError(error.errno, error.strerror, place) from error
    raise error


@dataclass(frozen=True)
class FileEntry:
    """One entry of a tree. ``kind`` is ``file``, ``dir`` or ``link``; size in bytes; sha256 only for files."""

    path: str
    kind: str
    mode: int
    size: int = 0
    sha256: str = ""
    target: str = ""
    mtime_ns: int = 0

    def to_dict(self) -> dict[str, Any]:
        record: dict[str, Any] = {"path": self.path, "kind": self.kind, "mode": f"{self.mode:04o}"}
        if self.kind == "file":
            record.update(size=self.size, sha256=self.sha256, mtime_ns=self.mtime_ns)
        elif self.kind == "link":
            record.update(target=self.target)
        return record

    @staticmethod
    def from_dict(record: dict[str, Any]) -> FileEntry:
        return FileEntry(
            str(record["path"]),
            str(record["kind"]),
            int(str(record["mode"]), 8),
            int(record.get("size", 0)),
            str(record.get("sha256", "")),
            str(record.get("target", "")),
            int(record.get("mtime_ns", 0)),
        )


def sha256_file(path: Path) -> str:
    """sha256 of a file's content, hex."""
    digest = hashlib.sha256()
    buffer = bytearray(1 << 20)  # in few steps: a thread waits for Python's lock after each
    view = memoryview(buffer)
    with open(path, "rb", buffering=0) as stream:
        while size := stream.readinto(buffer):
            digest.update(view[:size])
    return digest.hexdigest()


def walk_tree(root: Path) -> Iterator[tuple[str, os.stat_result]]:
    """(path relative to root with '/', lstat) of everything below ``root``, sorted, not following links.

    Raises OSError, also ENAMETOOLONG where directories are nested more than 200 deep.
    """

    def visit(directory: Path, prefix: str) -> Iterator[tuple[str, os.stat_result]]:
        if prefix.count("/") > _MAX_DEPTH:
            raise OSError(errno.ENAMETOOLONG, f"directories are nested more than {_MAX_DEPTH} deep", str(directory))
        with os.scandir(directory) as entries:
            for entry in sorted(entries, key=lambda item: item.name):
                info = entry.stat(follow_symlinks=False)
                yield prefix + entry.name, info
                if stat.S_ISDIR(info.st_mode):
                    yield from visit(Path(entry.path), prefix + entry.name + "/")

    yield from visit(root, "")


def tree_entries(root: Path, *, digests: bool = True) -> tuple[FileEntry, ...]:
    """Everything below ``root`` as entries; without ``digests`` files carry no sha256 (names, modes, sizes, times).

    Anything that is no file, directory or link (a socket, a device) has kind ``other``. Raises OSError.
    """
    return read_entries(root, list(walk_tree(root)), digests=digests)


def read_entries(
    root: Path, walked: Sequence[tuple[str, os.stat_result]], *, digests: bool = True
) -> tuple[FileEntry, ...]:
    """:func:`tree_entries` of what :func:`walk_tree` has found."""
    hashed = _digests(root, [(name, info.st_size) for name, info in walked if stat.S_ISREG(info.st_mode)], digests)
    found: list[FileEntry] = []
    for name, info in walked:
        mode = stat.S_IMODE(info.st_mode)
        if stat.S_ISDIR(info.st_mode):
            found.append(FileEntry(name, "dir", mode))
        elif stat.S_ISLNK(info.st_mode):
            found.append(FileEntry(name, "link", 0o777, target=os.readlink(root / name)))
        elif stat.S_ISREG(info.st_mode):
            found.append(FileEntry(name, "file", mode, info.st_size, hashed.get(name, ""), mtime_ns=info.st_mtime_ns))
        else:
            found.append(FileEntry(name, "other", mode))
    return tuple(found)


def _digests(root: Path, files: list[tuple[str, int]], wanted: bool) -> dict[str, str]:
    """sha256 of each file; a large tree in several threads (hashing and reading leave Python's lock)."""
    if not wanted:
        return {}
    threads = min(_HASH_THREADS, os.cpu_count() or 1)
    if threads < 2 or sum(size for _, size in files) < _WORTH_THREADS:
        return {name: sha256_file(root / name) for name, _ in files}
    # Threads by hand: concurrent.futures takes longer to import than 20 MB to read.
    import threading
    from collections import deque

    waiting = deque(sorted(files, key=lambda item: -item[1]))  # the largest first: no thread ends late
    hashed: dict[str, str] = {}
    errors: list[BaseException] = []

    def take() -> str:
        try:
            return waiting.popleft()[0]
        except IndexError:  # nothing left
            return ""

    def work() -> None:
        try:
            while not errors and (name := take()):
                hashed[name] = sha256_file(root / name)
        except BaseException as error:  # for the thread that asked
            errors.append(error)

    helpers = [threading.Thread(target=work, daemon=True) for _ in range(threads - 1)]
    for helper in helpers:
        helper.start()
    work()
    for helper in helpers:
        helper.join()
    if errors:
        raise errors[0]
    return hashed


def entries_digest(entries: Iterable[FileEntry]) -> str:
    """One sha256 over names, kinds, modes, contents and link targets (not times) of a tree."""
    digest = hashlib.sha256()
    for entry in sorted(entries, key=lambda item: item.path):
        line = [entry.path, entry.kind, f"{entry.mode:04o}", entry.sha256, entry.target]
        digest.update(json.dumps(line, ensure_ascii=True).encode() + b"\n")
    return digest.hexdigest()


def tree_digest(root: Path) -> str:
    """:func:`entries_digest` of a directory on disk."""
    return entries_digest(tree_entries(root))


def tree_size(root: Path) -> int:
    """Bytes on disk of everything below ``root`` (each entry rounded up to 4096)."""
    return sum(-(-max(info.st_size, 1) // 4096) * 4096 for _, info in walk_tree(root))


def copy_tree(source: Path, target: Path) -> None:
    """Copy a tree with links, modes and times; no hard links are made between the two.

    Raises InstallError UNSAFE_TREE for what is neither file, directory nor link (reading a device may never end).
    """
    for name, info in walk_tree(source):
        if stat.S_IFMT(info.st_mode) not in (stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK):
            raise InstallError(
                "UNSAFE_TREE",
                f"{source / name} is neither file, directory nor link: it cannot be copied",
                hint="move it out of the vendor directory and run the command again",
                details={"path": str(source / name)},
            )
    shutil.copytree(source, target, symlinks=True, copy_function=_copy_plain)


def _copy_plain(source: str, target: str) -> None:
    """One file with mode and times; a link that took its place since the walk is not followed."""
    try:
        fd = open_plain(Path(source), os.O_RDONLY)
    except ConflictError as error:
        raise OSError(errno.ELOOP, error.message, source) from error
    with os.fdopen(fd, "rb") as reader, open(target, "xb") as writer:
        shutil.copyfileobj(reader, writer, 1 << 20)
        info = os.fstat(reader.fileno())
        os.fchmod(writer.fileno(), stat.S_IMODE(info.st_mode))
    os.utime(target, ns=(info.st_atime_ns, info.st_mtime_ns))
