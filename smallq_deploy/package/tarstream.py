"""A small streaming tar reader for packages we do not trust: bounded memory, only plain members, safe names.

It reads what GNU tar and makeself write (ustar, GNU long names, pax headers) and refuses everything that a vendor tree
has no use for: absolute names, ``..``, links that lead out, hard links, devices, control characters, names that differ
in case only. tarfile is not used because it holds extension headers of any size in memory.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from smallq_deploy.base.errors import PackageError

BLOCK = 512
MAX_ENTRIES = 100_000  # directories that are only implied by names count too
MAX_DEPTH = 64  # names in a path
_MAX_NAMES = 32 << 20  # bytes of all names and link targets together
_MAX_EXTENSION = 64 * 1024  # bytes of one pax or long-name header
_MAX_PATH = 1024


@dataclass(frozen=True)
class Member:
    """One entry of an archive. ``path`` is relative, without './'; ``kind`` is file, dir or link; size in bytes."""

    path: str
    kind: str
    mode: int
    size: int
    target: str = ""


def bad_archive(why: str) -> PackageError:
    """The archive inside the package cannot be read."""
    return PackageError(
        "BAD_ARCHIVE", f"the archive in the package is damaged: {why}", hint="build or download the package again"
    )


def unsafe(name: str, why: str) -> PackageError:
    """A member that no honest package has."""
    shown = name.encode("unicode_escape", "backslashreplace").decode()[:200]
    return PackageError(
        "UNSAFE_MEMBER",
        f"the package holds {shown!r}, which {why}; nothing was unpacked",
        hint="do not install this package; ask whoever built it",
        details={"member": shown},
    )


def too_big(what: str) -> PackageError:
    """A package beyond any sensible size."""
    return PackageError(
        "TOO_BIG", f"the package {what}", hint="an operator package is a few megabytes; do not install this one"
    )


class _Names:
    """What was seen so far: refuses duplicates, names that differ in case, and files used as directories."""

    def __init__(self) -> None:
        self._kinds: dict[str, str] = {}
        self._folded: dict[str, str] = {}
        self._bytes = 0

    def _count(self, name: str) -> None:
        self._bytes += len(name)
        if len(self._kinds) > MAX_ENTRIES:
            raise too_big(f"holds more than {MAX_ENTRIES:,} files and directories")
        if self._bytes > _MAX_NAMES:
            raise too_big(f"holds more than {_MAX_NAMES >> 20} MiB of names")

    def take(self, name: str, kind: str) -> bool:
        """Enter a name; False for a directory that is already there."""
        folded = self._folded.setdefault(name.casefold(), name)
        if folded != name:
            raise unsafe(name, f"differs from {folded!r} only in case")
        before = self._kinds.get(name)
        if before is not None:
            if before == kind == "dir":
                return False
            raise unsafe(name, "is there twice")
        self._kinds[name] = kind
        self._count(name)
        parent = posixpath.dirname(name)
        while parent:
            known = self._kinds.get(parent)
            if known == "dir":
                break
            if known is not None:
                raise unsafe(name, f"lies below {parent!r}, which is a {known}")
            self._kinds[parent] = "dir"
            self._count(parent)
            if self._folded.setdefault(parent.casefold(), parent) != parent:
                raise unsafe(name, f"differs from {self._folded[parent.casefold()]!r} only in case")
            parent = posixpath.dirname(parent)
        return True


def clean_name(raw: bytes) -> str:
    """A member's name as a safe relative path ('' for the root). Raises PackageError UNSAFE_MEMBER."""
    try:
        name = raw.decode("utf-8")
    except UnicodeDecodeError:
        raise unsafe(raw.decode("latin-1"), "has a name that is not UTF-8") from None
    if not name.isprintable():
        raise unsafe(name, "has control characters in its name")
    if name.startswith("/"):
        raise unsafe(name, "has an absolute name")
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise unsafe(name, "leads out of the package by '..'")
    if any(len(part.encode()) > 255 for part in parts) or len(raw) > _MAX_PATH:
        raise unsafe(name, "has a name that is too long")
    if len(parts) > MAX_DEPTH:
        raise unsafe(name, f"lies more than {MAX_DEPTH} directories deep")
    return "/".join(parts)


def check_link(name: str, raw_target: bytes, root: str) -> str:
    """The target of link ``name`` when it stays below ``root`` (a directory of the archive, '' = all of it).

    ``..`` may only stand at the beginning: after a name it could go through another link and out.
    """
    try:
        target = raw_target.decode("utf-8")
    except UnicodeDecodeError:
        raise unsafe(name, "links to a name that is not UTF-8") from None
    if not target or not target.isprintable() or target.startswith("/") or len(raw_target) > _MAX_PATH:
        raise unsafe(name, f"links to {target[:80]!r}; only relative targets inside the package are allowed")
    parts = [part for part in target.split("/") if part not in ("", ".")]
    ups = 0
    while ups < len(parts) and parts[ups] == "..":
        ups += 1
    depth = len(name.split("/")) - 1 - (len(root.split("/")) if root else 0)
    if ups > depth or ".." in parts[ups:]:
        raise unsafe(name, f"links out of the package, to {target[:80]!r}")
    return target


def _number(field: bytes) -> int:
    """A tar header number: octal text, or base-256 when the first bit is set (GNU, for large files)."""
    if field[0] & 0x80:
        return int.from_bytes(bytes([field[0] & 0x7F]) + field[1:], "big")
    text = field.split(b"\0", 1)[0].strip(b" ")
    if text.strip(b"01234567"):
        raise bad_archive("a header holds no number where one must be")
    return int(text, 8) if text else 0


def _pax(data: bytes) -> dict[str, bytes]:
    """Records of a pax extended header: ``<length> <key>=<value>\\n``."""
    records: dict[str, bytes] = {}
    position = 0
    while position < len(data) and data[position : position + 1] != b"\0":
        digits, space, _ = data[position : position + 12].partition(b" ")
        if not space or not digits.isdigit() or not len(digits) + 2 < int(digits) <= len(data) - position:
            raise bad_archive("an extended header is malformed")
        record = data[position + len(digits) + 1 : position + int(digits)]
        key, equals, value = record.partition(b"=")
        if not equals or not value.endswith(b"\n"):
            raise bad_archive("an extended header is malformed")
        records[key.decode("utf-8", "replace")] = value[:-1]
        position += int(digits)
    return records


Read = Callable[[int], bytes]


def read_members(read: Read, *, link_root: Callable[[str], str]) -> Iterator[tuple[Member, Iterator[bytes]]]:
    """Each member with the chunks of its content, in the order of the archive.

    ``read(n)`` gives exactly n bytes or fewer at the end. ``link_root(path)`` names the directory a link at ``path``
    must not leave. Content that the caller does not take is skipped. Raises PackageError BAD_ARCHIVE, UNSAFE_MEMBER,
    TOO_BIG.
    """
    names = _Names()
    extra: dict[str, bytes] = {}
    count = 0
    while True:
        header = _exactly(read, BLOCK)
        if header == bytes(BLOCK):
            return
        stated = _number(header[148:156])
        if stated != sum(header[:148]) + 8 * 32 + sum(header[156:]):
            raise bad_archive("a tar header has a wrong checksum")
        count += 1
        if count > MAX_ENTRIES:
            raise too_big(f"holds more than {MAX_ENTRIES:,} files")
        kind, size = header[156:157], _number(header[124:136])
        if kind in (b"x", b"L", b"K", b"g"):
            if size > _MAX_EXTENSION:
                raise too_big(f"has an extended header of {size:,} bytes")
            data = _exactly(read, -(-size // BLOCK) * BLOCK)[:size]
            if kind in (b"x", b"g"):
                records = _pax(data)
                if any(key.startswith("GNU.sparse") for key in records):
                    raise unsafe(repr(records.get("path", b""))[2:-1], "is a sparse file")
                if kind == b"x":
                    extra.update(records)
                elif not records.keys().isdisjoint(("path", "linkpath", "size")):
                    raise bad_archive("a global header gives every file the same name or size")
            elif kind in (b"L", b"K"):
                extra["path" if kind == b"L" else "linkpath"] = data.split(b"\0", 1)[0]
            continue
        if "size" in extra and kind in (b"0", b"\0"):
            if not extra["size"].isdigit() or len(extra["size"]) > 18:
                raise bad_archive("an extended header is malformed")
            size = int(extra["size"])
        raw = extra.get("path", _header_name(header))
        link = extra.get("linkpath", header[157:257].split(b"\0", 1)[0])
        extra = {}
        member = _member(raw, kind, _number(header[100:108]) & 0o7777, size, link, link_root)
        content = _content(read, member.size)
        if member.path and names.take(member.path, member.kind):
            yield member, content
        for _ in content:
            pass


def _header_name(header: bytes) -> bytes:
    name = header[:100].split(b"\0", 1)[0]
    prefix = header[345:500].split(b"\0", 1)[0] if header[257:263] == b"ustar\0" else b""
    return prefix + b"/" + name if prefix else name


def _member(raw: bytes, kind: bytes, mode: int, size: int, link: bytes, link_root: Callable[[str], str]) -> Member:
    name = clean_name(raw)
    if kind == b"5" or (kind in (b"0", b"\0") and raw.endswith(b"/")):
        if size and kind != b"5":
            raise bad_archive("a directory has content")
        return Member(name, "dir", mode, 0)
    if not name:
        raise unsafe(raw.decode("latin-1"), "has no name")
    if kind in (b"0", b"\0", b"7"):
        if mode & 0o6000:
            raise unsafe(name, "would run with another user's rights (setuid or setgid)")
        return Member(name, "file", mode, size)
    if kind == b"2":
        return Member(name, "link", mode, 0, check_link(name, link, link_root(name)))
    words = {b"1": "a hard link", b"3": "a device", b"4": "a device", b"6": "a named pipe", b"S": "a sparse file"}
    raise unsafe(name, f"is {words.get(kind, 'of an unknown type')}")


def _exactly(read: Read, size: int) -> bytes:
    data = read(size)
    if len(data) != size:
        raise bad_archive("it ends in the middle of a member")
    return data


def _content(read: Read, size: int) -> Iterator[bytes]:
    """The content in chunks, then its padding is consumed."""
    left = size
    while left:
        chunk = _exactly(read, min(left, 1 << 16))
        left -= len(chunk)
        yield chunk
    if size % BLOCK:
        _exactly(read, BLOCK - size % BLOCK)
