"""Read an offline bundle: a zip file with the tool, packages and manifests, trusted no further than its digests.

A zip file can be read in two ways (by its directory, or from its front); a bundle must read the same in both: plain
members without gaps between them, each named once, with safe names, and each with a sha256 in SHA256SUMS.
Layout of the file: docs/how-to/offline-bundle.md.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from smallq_deploy.base.errors import PackageError, SmallqError, UsageError, access_error
from smallq_deploy.base.fsops import sha256_file
from smallq_deploy.package.tarstream import clean_name

SCHEMA = 1
INDEX = "bundle.json"
SUMS = "SHA256SUMS"
HEAD = b"#!/usr/bin/env python3\n"
MAX_MEMBERS = 20_000
MAX_SIZE = 4 << 30  # bytes, packed or unpacked: beyond it a zip file needs another format
_SMALL = 4 << 20
_LOCAL = struct.Struct("<4s5H3L2H")
_END_SIZE = 22
_UTF8_NAME = 0x800
_DIGEST = re.compile(r"[0-9a-f]{64}")


def bad_bundle(path: Path, why: str) -> PackageError:
    """The file is no whole bundle."""
    return PackageError(
        "BAD_BUNDLE",
        f"{path} is no usable bundle: {why}",
        hint="copy it again and compare its sha256 with what `bundle create` printed",
        details={"path": str(path)},
    )


@dataclass(frozen=True)
class PackageEntry:
    """A package of the bundle. ``cann``: the version it was built with, '' when it does not tell. ``beside``: members
    that belong to it (provenance, SBOM, signature)."""

    path: str
    sha256: str
    size: int
    vendor: str
    arch: str
    units: tuple[str, ...]
    ops: tuple[str, ...]
    cann: str
    beside: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return self.path.rpartition("/")[2]

    def to_dict(self) -> dict[str, Any]:
        return {
            "path": self.path,
            "sha256": self.sha256,
            "size": self.size,
            "vendor": self.vendor,
            "arch": self.arch,
            "units": list(self.units),
            "ops": list(self.ops),
            "cann": self.cann,
            "beside": list(self.beside),
        }


@dataclass(frozen=True)
class Index:
    """``bundle.json``. ``distributions``: what the tool in the bundle consists of; ``runtimes``: interpreters."""

    tool_version: str
    python: str
    release: str
    manifest: str
    packages: tuple[PackageEntry, ...]
    distributions: tuple[tuple[str, str], ...]
    runtimes: tuple[Mapping[str, str], ...]

    def to_dict(self) -> dict[str, Any]:
        return {
            "schema": SCHEMA,
            "tool_version": self.tool_version,
            "python": self.python,
            "release": self.release,
            "manifest": self.manifest,
            "packages": [entry.to_dict() for entry in self.packages],
            "distributions": [{"name": name, "version": version} for name, version in self.distributions],
            "runtimes": [dict(entry) for entry in self.runtimes],
        }


def _texts(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(item, str) and item.isprintable() for item in value):
        raise ValueError("a list of texts is something else")
    return tuple(value)


def _record(value: Any, texts: tuple[str, ...]) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError("an object is something else")
    for name in texts:
        if not isinstance(value.get(name), str) or not value[name].isprintable():
            raise ValueError(f"{name} is missing or no text")
    return value


def _list(record: Mapping[str, Any], name: str) -> list[Any]:
    value = record.get(name, [])
    if not isinstance(value, list):
        raise ValueError(f"{name} is no list")
    return value


def parse_index(raw: bytes) -> Index:
    """``bundle.json`` as an object. Raises ValueError for anything malformed, UsageError BUNDLE_NEWER."""
    try:
        record = json.loads(raw)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    schema = record.get("schema") if isinstance(record, dict) else None
    if type(schema) is not int:
        raise ValueError("it has no schema number")
    if schema > SCHEMA:
        raise UsageError(
            "BUNDLE_NEWER",
            f"the bundle was made by a newer smallq-deploy (schema {schema}, this one knows {SCHEMA})",
            hint="run the bundle itself: python3 FILE install",
        )
    _record(record, ("tool_version", "python", "release", "manifest"))
    packages = []
    for item in _list(record, "packages"):
        entry = _record(item, ("path", "sha256", "vendor", "arch", "cann"))
        if type(entry.get("size")) is not int:
            raise ValueError("a size is missing")
        packages.append(
            PackageEntry(
                entry["path"],
                entry["sha256"],
                entry["size"],
                entry["vendor"],
                entry["arch"],
                _texts(entry.get("units")),
                _texts(entry.get("ops")),
                entry["cann"],
                _texts(entry.get("beside")),
            )
        )
    distributions = [_record(item, ("name", "version")) for item in _list(record, "distributions")]
    runtimes = [_record(item, ("path", "arch", "interpreter")) for item in _list(record, "runtimes")]
    return Index(
        record["tool_version"],
        record["python"],
        record["release"],
        record["manifest"],
        tuple(packages),
        tuple((item["name"], item["version"]) for item in distributions),
        tuple({name: item[name] for name in ("path", "arch", "interpreter")} for item in runtimes),
    )


class Bundle:
    """An open bundle whose layout, index and list of digests were checked; contents are checked as they are read."""

    def __init__(self, path: Path, stream: IO[bytes]) -> None:
        self.path = path
        self.archive = zipfile.ZipFile(stream)
        self.members = _check_layout(path, stream, self.archive)
        self.sums = _parse_sums(path, self._small(SUMS))
        unlisted = sorted(set(self.members) ^ {SUMS, *self.sums})
        if unlisted:
            raise bad_bundle(path, f"its members and {SUMS} differ: {', '.join(unlisted[:3])}")
        try:
            self.index = parse_index(self.read(INDEX))
        except ValueError as error:
            raise bad_bundle(path, f"{INDEX}: {error}") from error
        for entry in self.index.packages:
            if self.sums.get(entry.path) != entry.sha256 or self.members[entry.path].file_size != entry.size:
                raise bad_bundle(path, f"{INDEX} and the package {entry.path} differ")
            if self.members[entry.path].compress_type != zipfile.ZIP_STORED:
                # So that a package is never larger than the file it comes in.
                raise bad_bundle(path, f"the package {entry.path} is packed again")
        named = [self.index.manifest, *(item["path"] for item in self.index.runtimes)]
        named += [name for entry in self.index.packages for name in entry.beside]
        for name in named:
            if name not in self.members:
                raise bad_bundle(path, f"{INDEX} names {name}, which is not there")

    def _small(self, name: str) -> bytes:
        if name not in self.members:
            raise bad_bundle(self.path, f"{name} is missing")
        if self.members[name].file_size > _SMALL:
            raise bad_bundle(self.path, f"{name} is too large")
        return b"".join(self._chunks(name))

    def _chunks(self, name: str) -> Iterator[bytes]:
        try:
            with self.archive.open(self.members[name]) as source:
                while chunk := source.read(1 << 20):
                    yield chunk
        except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
            raise bad_bundle(self.path, f"{name}: {error}") from error

    def check(self, name: str) -> None:
        """Read one member; raises PackageError BAD_BUNDLE when its content is not what SHA256SUMS says."""
        digest = hashlib.sha256()
        for chunk in self._chunks(name):
            digest.update(chunk)
        self._compare(name, digest.hexdigest())

    def _compare(self, name: str, found: str) -> None:
        if found != self.sums[name]:
            raise bad_bundle(self.path, f"{name} has another sha256 than {SUMS} says")

    def read(self, name: str) -> bytes:
        """A small member, checked."""
        if name not in self.sums:
            raise bad_bundle(self.path, f"{name} is missing")
        raw = self._small(name)
        self._compare(name, hashlib.sha256(raw).hexdigest())
        return raw

    def extract(self, name: str, folder: Path) -> Path:
        """Write one member, checked, into ``folder`` under its own last name. Raises BAD_BUNDLE, access errors."""
        target = folder / name.rpartition("/")[2]
        digest = hashlib.sha256()
        try:
            with open(target, "xb") as out:
                for chunk in self._chunks(name):
                    digest.update(chunk)
                    out.write(chunk)
        except OSError as error:
            raise access_error(error, f"unpack {name} into {folder}") from error
        self._compare(name, digest.hexdigest())
        return target


@contextmanager
def open_bundle(path: Path) -> Iterator[Bundle]:
    """Open and check a bundle (not yet all contents: see :func:`verify_bundle`).

    Raises UsageError BUNDLE_NOT_FOUND, BUNDLE_NEWER; PackageError BAD_BUNDLE; AccessError.
    """
    try:
        stream = open(path, "rb")  # noqa: SIM115 - closed below
    except (FileNotFoundError, IsADirectoryError):
        raise UsageError(
            "BUNDLE_NOT_FOUND", f"{path} is no file", hint="`smallq-deploy bundle create` makes a bundle"
        ) from None
    except OSError as error:
        raise access_error(error, f"read the bundle {path}") from error
    with stream:
        try:
            bundle = Bundle(path, stream)
        except (zipfile.BadZipFile, struct.error, ValueError, NotImplementedError) as error:
            raise bad_bundle(path, str(error)) from error
        except OSError as error:
            raise access_error(error, f"read the bundle {path}") from error
        except SmallqError as error:
            error.details.setdefault("path", str(path))
            raise
        yield bundle


def _check_layout(path: Path, stream: IO[bytes], archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """Every member by name; the file is head, members, directory, end, with nothing between or behind."""
    size = os.fstat(stream.fileno()).st_size
    infos = archive.infolist()
    if size >= MAX_SIZE or sum(info.file_size for info in infos) >= MAX_SIZE:
        raise bad_bundle(path, "it is larger than 4 GiB")
    if len(infos) > MAX_MEMBERS:
        raise bad_bundle(path, f"it has more than {MAX_MEMBERS:,} members")
    stream.seek(0)
    if stream.read(len(HEAD)) != HEAD:
        raise bad_bundle(path, f"it does not begin with {HEAD.decode().strip()}")
    position = len(HEAD)
    seen: dict[str, zipfile.ZipInfo] = {}
    for info in infos:
        name = info.filename
        if clean_name(name.encode("utf-8", "surrogateescape")) != name:
            raise bad_bundle(path, f"the name {name!r:.100} is not plain")
        if seen.setdefault(name.casefold(), info) is not info:
            raise bad_bundle(path, f"{name} is there twice, or differs from another name only in case")
        if info.header_offset != position:
            raise bad_bundle(path, f"something lies before {name}, or members overlap")
        position = _check_member(path, stream, info)
    if archive.start_dir != position or archive.comment:
        raise bad_bundle(path, "something lies behind its members")
    stream.seek(size - _END_SIZE)
    if stream.read(4) != b"PK\x05\x06":
        raise bad_bundle(path, "something lies behind its end")
    return {info.filename: info for info in infos}


def _check_member(path: Path, stream: IO[bytes], info: zipfile.ZipInfo) -> int:
    """Compare a member's own header with the directory's; returns where the next one must begin."""
    stream.seek(info.header_offset)
    raw = stream.read(_LOCAL.size)
    magic, _, flags, method, _, _, crc, packed, plain, name_size, extra_size = _LOCAL.unpack(raw)
    name = stream.read(name_size)
    same = (magic, flags, method, crc, packed, plain, extra_size) == (
        b"PK\x03\x04",
        info.flag_bits,
        info.compress_type,
        info.CRC,
        info.compress_size,
        info.file_size,
        0,
    )
    if not same or name != info.filename.encode() or info.extra or info.comment:
        raise bad_bundle(path, f"{info.filename} has two different headers")
    if flags & ~_UTF8_NAME or method not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise bad_bundle(path, f"{info.filename} is packed in a way that bundles do not use")
    if (info.external_attr >> 16) & 0o170000 != 0o100000:
        raise bad_bundle(path, f"{info.filename} is no plain file")
    return int(info.header_offset + _LOCAL.size + name_size + packed)


def _parse_sums(path: Path, raw: bytes) -> dict[str, str]:
    found: dict[str, str] = {}
    try:
        lines = raw.decode("utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise bad_bundle(path, f"{SUMS} is no text") from error
    for line in lines:
        digest, name = line[:64], line[66:]
        if not _DIGEST.fullmatch(digest) or line[64:66] != "  " or name in found:
            raise bad_bundle(path, f"{SUMS} has the line {line!r:.100}")
        found[name] = digest
    return found


@dataclass(frozen=True)
class Verified:
    """A bundle that was read to its last byte."""

    path: Path
    sha256: str
    size: int
    members: int
    index: Index

    def to_dict(self) -> dict[str, Any]:
        return {
            "bundle": str(self.path),
            "sha256": self.sha256,
            "size": self.size,
            "members": self.members,
            **self.index.to_dict(),
        }


def verify_bundle(path: Path, scratch: Path) -> Verified:
    """Read everything: each member against SHA256SUMS, each package as `install` reads it, the manifest.

    ``scratch`` is an empty directory for one package at a time. Raises what :func:`open_bundle` raises, and what
    reading a package or manifest raises.
    """
    from smallq_deploy.package.releases import load_release
    from smallq_deploy.package.runfile import read_run

    with open_bundle(path) as bundle:
        for name in bundle.sums:
            bundle.check(name)
        manifest = bundle.extract(bundle.index.manifest, scratch)
        if load_release(manifest).id != bundle.index.release:
            raise bad_bundle(path, f"{INDEX} and the manifest {bundle.index.manifest} differ")
        for entry in bundle.index.packages:
            package = bundle.extract(entry.path, scratch)
            run = read_run(package)
            package.unlink()
            told = (entry.vendor, entry.arch, entry.units, entry.ops)
            if (run.vendor, run.arch, run.units, run.ops) != told:
                raise bad_bundle(path, f"{INDEX} does not say what is in the package {entry.path}")
        return Verified(path, sha256_file(path), path.stat().st_size, len(bundle.members), bundle.index)
