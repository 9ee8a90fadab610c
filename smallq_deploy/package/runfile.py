"""A ``.run`` package read as data: header, digest, archive members, vendor, operators, units, architecture.

Nothing of a package is executed to learn about it (a lone ``--check`` would install it, cann.md 4.3). It is read as a
stream; what is held in memory is the table of members and a few small files.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import stat
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from smallq_deploy.base.errors import PackageError, UsageError, access_error
from smallq_deploy.base.fsops import remove_tree, sha256_file
from smallq_deploy.package.elf import HEADER_BYTES, machine_name
from smallq_deploy.package.runheader import RunHeader, read_header
from smallq_deploy.package.tarstream import Member, bad_archive, read_members, too_big, unsafe
from smallq_deploy.package.vendortree import DIR_MODE, FILE_MODE, TBE, VENDOR_PATTERN

__all__ = ["Member", "RunFile", "extract_vendor", "read_run", "run_installer"]

MAX_UNPACKED = 2 << 30  # bytes
MAX_RATIO = 200  # unpacked : packed, looked at from 64 MiB on
_RATIO_FROM = 64 << 20
_SMALL_FILE = 4 << 20
_MAX_OPS = 10_000
_VENDORS = "packages/vendors"
_OPS_INFO = re.compile(rf"^{TBE}/config/([^/]+)/aic-([^/]+)-ops-info\.json$")
_ARCH_DIR = re.compile(r"^(?:op_proto|op_impl/ai_core/tbe/op_tiling)/lib/linux/([^/]+)/[^/]+\.so$")
_COMPILER = re.compile(r"^custom_opp_compiler_version=(.*)$", re.MULTILINE)


@dataclass(frozen=True)
class RunFile:
    """A package that was read completely and found whole.

    ``payload_*``: the gzip'd archive after the header (bytes). ``members`` are all its entries. ``vendor``, ``arch``,
    ``units``, ``ops`` and ``op_units`` (operator -> its units) describe ``packages/vendors/<vendor>``. ``variant`` is
    the kind of install script inside: T1 (merges), T2 (wipes), D (asc-devkit, also changes other vendors' modes);
    cann.md 4.5.
    """

    path: Path
    label: str
    script: str
    payload_offset: int
    payload_size: int
    payload_sha256: str
    file_sha256: str
    members: tuple[Member, ...]
    vendor: str
    arch: str
    units: tuple[str, ...]
    ops: tuple[str, ...]
    variant: str
    compiler_version: str
    op_units: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def vendor_root(self) -> str:
        """Where the vendor tree lies in the archive."""
        return f"{_VENDORS}/{self.vendor}"

    @property
    def vendor_members(self) -> tuple[Member, ...]:
        """The entries of the vendor tree, with paths relative to it."""
        prefix = self.vendor_root + "/"
        return tuple(
            Member(member.path[len(prefix) :], member.kind, member.mode, member.size, member.target)
            for member in self.members
            if member.path.startswith(prefix)
        )

    @property
    def unpacked_size(self) -> int:
        """Bytes on disk of the vendor tree (each entry rounded up to 4096)."""
        return sum(-(-max(member.size, 1) // 4096) * 4096 for member in self.vendor_members)

    def to_dict(self) -> dict[str, Any]:
        return {
            "path": str(self.path),
            "sha256": self.file_sha256,
            "label": self.label,
            "payload": {"offset": self.payload_offset, "size": self.payload_size, "sha256": self.payload_sha256},
            "members": len(self.members),
            "vendor": self.vendor,
            "arch": self.arch,
            "units": list(self.units),
            "ops": list(self.ops),
            "variant": self.variant,
            "compiler_version": self.compiler_version,
        }


class _Payload:
    """The archive after the header: counts and digests the packed bytes, unpacks them on demand."""

    def __init__(self, stream: IO[bytes], size: int) -> None:
        self._stream = stream
        self._left = size
        self._size = size
        self._inflate = zlib.decompressobj(31)
        self._buffer = b""
        self._unpacked = 0
        self.digest = hashlib.sha256()

    def _packed(self) -> bytes:
        chunk = self._stream.read(min(1 << 16, self._left))
        self._left -= len(chunk)
        self.digest.update(chunk)
        return chunk

    def read(self, size: int) -> bytes:
        """``size`` unpacked bytes, fewer only at the end. Raises PackageError BAD_ARCHIVE, TOO_BIG."""
        parts = [self._buffer]
        have = len(self._buffer)
        while have < size and not self._inflate.eof:
            packed = self._inflate.unconsumed_tail or self._packed()
            if not packed:
                raise bad_archive("the compressed data ends early")
            try:
                part = self._inflate.decompress(packed, 1 << 18)
            except zlib.error as error:
                raise bad_archive(f"it is no gzip data ({error})") from error
            self._unpacked += len(part)
            if self._unpacked > MAX_UNPACKED:
                raise too_big(f"unpacks to more than {MAX_UNPACKED >> 30} GiB")
            if self._unpacked > _RATIO_FROM and self._unpacked > MAX_RATIO * self._size:
                raise too_big(f"unpacks to more than {MAX_RATIO} times its size")
            parts.append(part)
            have += len(part)
        data = b"".join(parts)
        self._buffer = data[size:]
        return data[:size]

    def finish(self) -> str:
        """Read on to the end: the padding after the archive must be zeros. Returns the digest of the packed bytes."""
        while chunk := self.read(1 << 16):
            if chunk.strip(b"\0"):
                raise bad_archive("there is more data after its end")
        if self._inflate.unused_data or self._left:
            raise bad_archive("there is more data after the compressed part")
        return self.digest.hexdigest()


def _link_root(path: str) -> str:
    """A link in a vendor tree must stay in that tree; any other link in the package."""
    parts = path.split("/")
    return "/".join(parts[:3]) if len(parts) > 3 and path.startswith(_VENDORS + "/") else ""


@dataclass
class _Facts:
    """What is collected while the members stream by."""

    members: list[Member] = field(default_factory=list)
    vendors: set[str] = field(default_factory=set)
    units: set[str] = field(default_factory=set)
    ops: dict[str, set[str]] = field(default_factory=dict)  # operator -> compute units
    arches: dict[str, str] = field(default_factory=dict)  # architecture -> first file that says so
    install: str = ""
    compiler: str = ""

    def take(self, member: Member, content: Iterator[bytes]) -> None:
        self.members.append(member)
        if member.path == "install.sh" and member.kind == "file":
            self.install = _text(member, content)
            return
        if not member.path.startswith(_VENDORS + "/"):
            return
        vendor, _, inner = member.path[len(_VENDORS) + 1 :].partition("/")
        if not inner and member.kind != "dir":
            return
        if not re.fullmatch(VENDOR_PATTERN, vendor):
            raise unsafe(member.path, "is no usable vendor directory")
        self.vendors.add(vendor)
        if member.kind == "file":
            self._vendor_file(member, inner, content)

    def _vendor_file(self, member: Member, inner: str, content: Iterator[bytes]) -> None:
        found = _OPS_INFO.match(inner)
        if found:
            self.units.add(found[1])
            for operator in _operators(member, _text(member, content)):
                self.ops.setdefault(operator, set()).add(found[1])
            if len(self.ops) > _MAX_OPS:
                raise too_big(f"registers more than {_MAX_OPS:,} operators")
        elif inner == "version.info":
            stated = _COMPILER.search(_text(member, content))
            self.compiler = stated[1].strip()[:100] if stated else ""
        elif inner.endswith(".so"):
            machine = machine_name(b"".join(content)[:HEADER_BYTES] if member.size < 65536 else next(content, b""))
            directory = _ARCH_DIR.match(inner)
            for arch in (machine, directory[1] if directory else ""):
                if arch:
                    self.arches.setdefault(arch, member.path)


def _text(member: Member, content: Iterator[bytes]) -> str:
    if member.size > _SMALL_FILE:
        raise too_big(f"has a {member.path} of {member.size:,} bytes")
    return b"".join(content).decode("utf-8", "replace")


def _operators(member: Member, text: str) -> list[str]:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _bad_content(f"{member.path} is not valid JSON: {error}") from error
    if not isinstance(content, dict):
        raise _bad_content(f"{member.path} is no JSON object of operators")
    for name in content:
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,127}", name):
            raise _bad_content(f"{member.path} registers {name!r:.100}, which is no operator name")
    return list(content)


def _bad_content(text: str) -> PackageError:
    return PackageError("BAD_CONTENT", text, hint="build the package again")


def _open_run(path: Path) -> tuple[IO[bytes], RunHeader]:
    try:
        # A named pipe or a device would keep us waiting for ever.
        kind = stat.S_IFMT(path.stat().st_mode)
        if kind not in (stat.S_IFREG, stat.S_IFDIR):
            raise UsageError(
                "PACKAGE_NOT_FOUND", f"{path} is no file", hint="name a .run file; one from a pipe is to be saved first"
            )
        stream = open(path, "rb")  # noqa: SIM115 - the caller closes it
    except FileNotFoundError:
        raise UsageError(
            "PACKAGE_NOT_FOUND", f"{path} does not exist", hint="check the path; `smallq-deploy build` makes a package"
        ) from None
    except IsADirectoryError:
        raise UsageError("PACKAGE_NOT_FOUND", f"{path} is a directory", hint="name the .run file in it") from None
    except OSError as error:
        raise access_error(error, f"read the package {path}") from error
    try:
        header = read_header(path, stream)
        have = os.fstat(stream.fileno()).st_size - header.offset
        details = {"path": str(path), "stated": header.size, "found": have}
        if have < header.size:
            raise PackageError(
                "TRUNCATED",
                f"{path} is incomplete: its archive has {have:,} of {header.size:,} bytes",
                hint="copy or download it again",
                details=details,
            )
        if have > header.size:
            raise PackageError(
                "TRAILING_DATA",
                f"{path} has {have - header.size:,} bytes after its archive, which its header does not account for",
                hint="copy or download it again; do not install a package that somebody appended to",
                details=details,
            )
        stream.seek(header.offset)
        return stream, header
    except OSError as error:
        stream.close()
        raise access_error(error, f"read the package {path}") from error
    except BaseException:
        stream.close()
        raise


def _check_digest(path: Path, stated: str, actual: str) -> None:
    if stated != actual:
        raise PackageError(
            "CHECKSUM",
            f"{path} is damaged: the sha256 of its content is {actual[:16]}..., its header says {stated[:16]}...",
            hint="copy or download it again",
            details={"path": str(path), "stated": stated, "found": actual},
        )


def _stream_members(path: Path, take: Callable[[Member, Iterator[bytes]], None]) -> RunHeader:
    """Hand every member to ``take``; the digest is compared before the first one is looked at."""
    stream, header = _open_run(path)
    with stream:
        try:
            # Verify before parse: one pass for the digest alone, then the archive.
            digest = hashlib.sha256()
            while chunk := stream.read(1 << 20):
                digest.update(chunk)
            _check_digest(path, header.sha256, digest.hexdigest())
            stream.seek(header.offset)
            payload = _Payload(stream, header.size)
            for member, content in read_members(payload.read, link_root=_link_root):
                take(member, content)
            _check_digest(path, header.sha256, payload.finish())
        except PackageError as error:
            error.details.setdefault("path", str(path))
            raise
        except OSError as error:
            raise access_error(error, f"read the package {path}") from error
    return header


def read_run(path: Path) -> RunFile:
    """Read and verify a package; its script is never executed.

    Raises PackageError NOT_A_RUN, TRUNCATED, TRAILING_DATA, CHECKSUM, BAD_ARCHIVE, UNSAFE_MEMBER, TOO_BIG, NO_VENDOR,
    SEVERAL_VENDORS, EMPTY_PACKAGE, BAD_CONTENT, MIXED_ARCH; UsageError PACKAGE_NOT_FOUND; AccessError.
    """
    facts = _Facts()
    header = _stream_members(path, facts.take)
    if not facts.vendors:
        raise PackageError(
            "NO_VENDOR",
            f"{path} holds no custom operators ({_VENDORS}/<vendor> is missing)",
            hint="this may be another kind of CANN package; choose one made by the operator build (CANN-custom_ops*)",
        )
    if len(facts.vendors) > 1:
        raise PackageError(
            "SEVERAL_VENDORS",
            f"{path} holds several vendor directories: {_first(sorted(facts.vendors))}",
            hint="build one package for each vendor",
        )
    if not facts.ops:
        raise PackageError(
            "EMPTY_PACKAGE",
            f"{path} holds no operator: its build found none under the name it was asked for",
            hint="build again and look for the operator's name in the build log",
        )
    if len(facts.arches) > 1:
        text = _first([f"{name}: {arch}" for arch, name in sorted(facts.arches.items())])
        raise PackageError("MIXED_ARCH", f"{path} mixes architectures ({text})", hint="build the package again")
    return RunFile(
        path,
        header.label,
        header.script,
        header.offset,
        header.size,
        header.sha256,
        _file_digest(path),
        tuple(facts.members),
        next(iter(facts.vendors)),
        next(iter(facts.arches), ""),
        tuple(sorted(facts.units)),
        tuple(sorted(facts.ops)),
        _variant(facts),
        facts.compiler,
        {operator: tuple(sorted(units)) for operator, units in sorted(facts.ops.items())},
    )


def _first(words: list[str]) -> str:
    more = f" and {len(words) - 5} more" if len(words) > 5 else ""
    return ", ".join(words[:5]) + more


def _file_digest(path: Path) -> str:
    try:
        return sha256_file(path)
    except OSError as error:
        raise access_error(error, f"read the package {path}") from error


def _variant(facts: _Facts) -> str:
    """Which install script is inside, by the markers of cann.md 4.5."""
    if not facts.install:
        return "unknown"
    if "apply_chmod" in facts.install or any(member.path == "uninstall.sh" for member in facts.members):
        return "D"
    return "T2" if "install-for-all" in facts.install else "T1"


def extract_vendor(run: RunFile, dest: Path) -> None:
    """Unpack ``packages/vendors/<vendor>/**`` of the package to ``dest/**`` (directories 755, files 644).

    ``dest`` must not exist or be empty. The package is verified again; when it is no longer the one that was read, or
    anything else fails, ``dest`` is removed. Raises what :func:`read_run` raises, and PackageError CHANGED.
    """
    prefix = run.vendor_root + "/"
    created = False

    def take(member: Member, content: Iterator[bytes]) -> None:
        if member.path.startswith(prefix):
            try:
                write(member, content)
            except OSError as error:
                raise access_error(error, f"unpack {run.path} into {dest}") from error

    def write(member: Member, content: Iterator[bytes]) -> None:
        path = dest / member.path[len(prefix) :]
        if member.kind == "dir":
            _make_directories(path, dest)
            return
        _make_directories(path.parent, dest)
        if member.kind == "link":
            os.symlink(member.target, path)
            return
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, FILE_MODE)
        with os.fdopen(fd, "wb") as stream:
            for chunk in content:
                stream.write(chunk)
            os.fchmod(stream.fileno(), FILE_MODE)

    try:
        dest.mkdir(parents=True, exist_ok=True)
        if any(dest.iterdir()):
            raise UsageError("NOT_EMPTY", f"{dest} is not empty", hint="name a new directory")
        created = True
        dest.chmod(DIR_MODE)
        header = _stream_members(run.path, take)
        if header.sha256 != run.payload_sha256:
            raise PackageError(
                "CHANGED", f"{run.path} was replaced while it was being installed", hint="run the command again"
            )
    except BaseException as error:
        if created:
            with contextlib.suppress(OSError):
                remove_tree(dest)
        if isinstance(error, OSError):
            raise access_error(error, f"unpack {run.path} into {dest}") from error
        raise


def _make_directories(path: Path, dest: Path) -> None:
    """Like mkdir -p below ``dest``, with our mode whatever the umask is."""
    missing = []
    while path != dest and not path.is_dir():
        missing.append(path)
        path = path.parent
    for directory in reversed(missing):
        directory.mkdir()
        directory.chmod(DIR_MODE)


def run_installer(run: RunFile, staging: Path, *, timeout: float = 600.0) -> Path:
    """Let the package's own script install into ``staging``; see :mod:`smallq_deploy.package.installscript`."""
    from smallq_deploy.package.installscript import install_by_script

    return install_by_script(run, staging, timeout=timeout)
