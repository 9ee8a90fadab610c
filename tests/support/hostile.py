"""Packages made to do harm, and what a directory looks like so exactly that any harm shows.

``PACKAGES`` maps a name to (code that refuses it, how to write it); an empty code means that the package is harmless
and installs. Every one carries a trap: a shell line that leaves a marker if anybody runs its script.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import random
import stat
import tarfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from tests.support import packages
from tests.support.packages import DAMAGES, Member, member, package_members, vendor_files, write_run

ROOT = "./packages/vendors/customize"
_VALIDATED = ("missing_kernel", "kernel_digest", "no_symbols")  # found only in the unpacked tree


def fingerprint(*places: Path) -> dict[str, tuple[object, ...]]:
    """Kind, mode, owner, time, content or link target of everything at and below ``places``, links not followed."""
    found: dict[str, tuple[object, ...]] = {}

    def look(path: Path) -> None:
        info = path.lstat()
        content = ""
        if stat.S_ISREG(info.st_mode):
            content = hashlib.sha256(path.read_bytes()).hexdigest()
        elif stat.S_ISLNK(info.st_mode):
            content = os.readlink(path)
        found[str(path)] = (info.st_mode, info.st_uid, info.st_gid, info.st_mtime_ns, info.st_size, content)
        if stat.S_ISDIR(info.st_mode):
            for name in sorted(os.listdir(path)):
                look(path / name)

    for place in places:
        look(place)
    return found


def differences(before: Mapping[str, object], after: Mapping[str, object]) -> list[str]:
    """Paths that are new, gone or not as they were."""
    return sorted(path for path in before.keys() | after.keys() if before.get(path) != after.get(path))


# --- archives written by hand: what no tar library would write ---


def raw_header(name: bytes, *, kind: bytes = b"0", size: bytes = b"00000000000", mode: bytes = b"0000644") -> bytearray:
    """One tar header block with any bytes in its fields and a right checksum."""
    block = bytearray(512)
    block[: len(name)] = name[:100]
    block[100 : 100 + len(mode)] = mode
    block[108:123] = b"0000000\x000000000"
    block[124 : 124 + len(size)] = size
    block[136:147] = b"00000000000"
    block[156:157] = kind
    block[257:265] = b"ustar\x0000"
    return sealed(block)


def sealed(block: bytearray) -> bytearray:
    """The block with its checksum put right."""
    block[148:156] = b"        "
    block[148:155] = b"%06o\0" % sum(block)
    return block


def pax_record(key: str, value: bytes) -> bytes:
    """``<length> key=value\\n``, the length counting itself."""
    body = b" " + key.encode() + b"=" + value + b"\n"
    length = len(body) + 1
    while len(str(length)) + len(body) != length:
        length = len(str(length)) + len(body)
    return str(length).encode() + body


def pax(records: Mapping[str, bytes], *, kind: bytes = b"x") -> bytes:
    """A pax extended header block and its records."""
    data = b"".join(pax_record(key, value) for key, value in records.items())
    header = raw_header(b"./PaxHeaders/x", kind=kind, size=b"%011o" % len(data))
    return bytes(header) + data + bytes(-len(data) % 512)


def good_tar(extra: list[Member] | None = None, *, trap: str = "", format: int = tarfile.GNU_FORMAT) -> bytes:
    """The unpacked archive of a whole package, without the two zero blocks at its end."""
    install = packages._INSTALL.replace("\n", f"\n{trap}\n", 1)
    members = package_members({"customize": vendor_files()}, install=install) + (extra or [])
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=format, encoding="utf-8", errors="surrogateescape") as archive:
        for entry, data in members:
            archive.addfile(entry, io.BytesIO(data))
        return buffer.getvalue()[: archive.offset]


def _packed(tar: bytes) -> bytes:
    return gzip.compress(tar + bytes(1024), 1, mtime=0)


Maker = Callable[[Path, str], object]


def _with(*extra: Member, format: int = tarfile.GNU_FORMAT) -> Maker:
    return lambda path, trap: write_run(path, _packed(good_tar(list(extra), trap=trap, format=format)), trap=trap)


def _raw(tail: bytes) -> Maker:
    return lambda path, trap: write_run(path, _packed(good_tar(trap=trap) + tail), trap=trap)


def _payload(change: Callable[[bytes], bytes]) -> Maker:
    return lambda path, trap: write_run(path, change(_packed(good_tar(trap=trap))), trap=trap)


def _file(change: Callable[[bytes], bytes]) -> Maker:
    def make(path: Path, trap: str) -> None:
        write_run(path, _packed(good_tar(trap=trap)), trap=trap)
        path.write_bytes(change(path.read_bytes()))

    return make


def _header(old: str, new: str) -> Maker:
    assert old in packages._HEADER, old
    header = packages._HEADER.replace(old, new)
    return lambda path, trap: write_run(path, _packed(good_tar(trap=trap)), header=header, trap=trap)


def _nested(levels: int) -> Maker:
    def make(path: Path, trap: str) -> None:
        data = bytes(20 << 20)
        for _ in range(levels):
            data = gzip.compress(data, 6, mtime=0)
        write_run(path, _packed(good_tar([member(f"{ROOT}/bomb.gz", data)], trap=trap)), trap=trap)

    return make


def _zeros_bomb(path: Path, trap: str) -> None:
    """Many zeros behind a size field that a 12 byte number can say."""
    packer = zlib.compressobj(6, zlib.DEFLATED, 31)
    parts = [packer.compress(good_tar(trap=trap) + raw_header(f"{ROOT}/z".encode(), size=b"37777777777"))]
    block = bytes(1 << 20)
    parts += [packer.compress(block) for _ in range(90)]
    parts.append(packer.flush())
    write_run(path, b"".join(parts), trap=trap)


def _many(name: Callable[[int], bytes], count: int, *, kind: bytes = b"5") -> Maker:
    def make(path: Path, trap: str) -> None:
        packer = zlib.compressobj(1, zlib.DEFLATED, 31)
        parts = [packer.compress(good_tar(trap=trap))]
        parts += [packer.compress(bytes(raw_header(name(number), kind=kind))) for number in range(count)]
        write_run(path, b"".join([*parts, packer.compress(bytes(1024)), packer.flush()]), trap=trap)

    return make


def _deep_names(count: int, depth: int) -> Maker:
    """``count`` names of ``depth`` directories each, all different: few bytes in the archive, gigabytes of names if all
    of the directories between were remembered."""

    def make(path: Path, trap: str) -> None:
        packer = zlib.compressobj(1, zlib.DEFLATED, 31)
        parts = [packer.compress(good_tar(trap=trap))]
        for number in range(count):
            name = f"{ROOT}/{number}/".encode() + b"d/" * depth
            parts.append(packer.compress(pax({"path": name}) + bytes(raw_header(b"x", kind=b"5"))))
        write_run(path, b"".join([*parts, packer.compress(bytes(1024)), packer.flush()]), trap=trap)

    return make


def _many_long(count: int) -> Maker:
    def make(path: Path, trap: str) -> None:
        packer = zlib.compressobj(1, zlib.DEFLATED, 31)
        parts = [packer.compress(good_tar(trap=trap))]
        for number in range(count):
            name = f"{ROOT}/{number}/".encode() + (b"n" * 240 + b"/") * 4
            parts.append(packer.compress(pax({"path": name[:1010]}) + bytes(raw_header(b"x", kind=b"0"))))
        write_run(path, b"".join([*parts, packer.compress(bytes(1024)), packer.flush()]), trap=trap)

    return make


def _named_twice(path: Path, trap: str) -> None:
    header = packages._HEADER.replace('skip="@SKIP@"\n', 'skip="@SKIP@"\nskip="3"\n')
    write_run(path, _packed(good_tar(trap=trap)), header=header, trap=trap)


def _operators(count: int) -> Maker:
    def make(path: Path, trap: str) -> None:
        text = "{" + ",".join(f'"Op{number}":{{}}' for number in range(count)) + "}"
        name = f"{ROOT}/op_impl/ai_core/tbe/config/ascend310p/aic-ascend310p-ops-info.json"
        write_run(path, _packed(good_tar([member(name, text.encode())], trap=trap)), trap=trap)

    return make


def _json(text: bytes) -> Maker:
    return _with(member(f"{ROOT}/op_impl/ai_core/tbe/config/ascend310p/aic-ascend310p-ops-info.json", text))


def _flip_tar(place: int, value: bytes) -> Maker:
    """Bytes of the first vendor file's header changed, without and with the checksum put right being the caller's."""

    def make(path: Path, trap: str) -> None:
        tar = bytearray(good_tar(trap=trap))
        tar[place : place + len(value)] = value
        write_run(path, _packed(bytes(tar)), trap=trap)

    return make


def _link(name: str, target: str) -> Member:
    return member(f"{ROOT}/{name}", kind=tarfile.SYMTYPE, target=target, mode=0o777)


def _typed(kind: bytes, name: str = "odd") -> Maker:
    return _raw(bytes(raw_header(f"{ROOT}/{name}".encode(), kind=kind)))


def _sized(size: bytes) -> Maker:
    return _raw(bytes(raw_header(f"{ROOT}/sized".encode(), size=size)))


def _by_damage(name: str) -> Maker:
    return lambda path, trap: packages.make_run(path, damage=name, trap=trap)


PACKAGES: dict[str, tuple[str, Maker]] = {
    **{name: (code or "BAD_TREE", _by_damage(name)) for name, code in DAMAGES.items()},
    # kinds and modes
    "setgid": ("UNSAFE_MEMBER", _with(member(f"{ROOT}/sg", b"x", mode=0o2755))),
    "setuid and setgid": ("UNSAFE_MEMBER", _with(member(f"{ROOT}/sugid", b"x", mode=0o6755))),
    "world-writable file": ("", _with(member(f"{ROOT}/loose", b"x", mode=0o777))),
    "unreadable file": ("", _with(member(f"{ROOT}/closed", b"x", mode=0))),
    "unreadable directory": ("", _with(member(f"{ROOT}/shut", kind=tarfile.DIRTYPE, mode=0))),
    "block device": ("UNSAFE_MEMBER", _with(member(f"{ROOT}/disk", kind=tarfile.BLKTYPE))),
    "contiguous file": ("", _with(member(f"{ROOT}/contiguous", b"x", kind=tarfile.CONTTYPE))),
    "GNU sparse of 10 GB": ("UNSAFE_MEMBER", _typed(b"S", "sparse")),
    "pax sparse of 10 GB": (
        "UNSAFE_MEMBER",
        _raw(pax({"GNU.sparse.major": b"1", "GNU.sparse.realsize": b"10000000000"}) + raw_header(b"s")),
    ),
    "directory dump": ("UNSAFE_MEMBER", _typed(b"D")),
    "multi-volume rest": ("UNSAFE_MEMBER", _typed(b"M")),
    "volume label": ("UNSAFE_MEMBER", _typed(b"V")),
    "unknown type": ("UNSAFE_MEMBER", _typed(b"Z")),
    "type of a NUL byte": ("", _typed(b"\0", "plain")),
    # names
    "32 MiB of names": ("TOO_BIG", _many_long(34_000)),
    "name of dots": ("UNSAFE_MEMBER", _with(member("..", b"x"))),
    "name of a slash": ("UNSAFE_MEMBER", _with(member("/", b"x"))),
    "root as a file": ("BAD_ARCHIVE", _with(member("./", b"x"))),
    "name ending in ..": ("UNSAFE_MEMBER", _with(member(f"{ROOT}/op_api/..", kind=tarfile.DIRTYPE))),
    "name with . and //": ("", _with(member(f"{ROOT}//op_api/./include//./extra.h", b"x"))),
    "file named like a directory": ("BAD_ARCHIVE", _with(member(f"{ROOT}/slash/", b"x"))),
    "GNU long name out": ("UNSAFE_MEMBER", _with(member(f"{ROOT}/" + "d/" * 60 + "../" * 70 + "escaped", b"x"))),
    "GNU long name of 100 KB": (
        "TOO_BIG",
        _raw(bytes(raw_header(b"././@LongLink", kind=b"L", size=b"%011o" % 102400)) + b"a" * 102400),
    ),
    "pax path out": ("UNSAFE_MEMBER", _raw(pax({"path": b"../../escaped"}) + bytes(raw_header(b"innocent")))),
    "pax path absolute": ("UNSAFE_MEMBER", _raw(pax({"path": b"/tmp/escaped"}) + bytes(raw_header(b"innocent")))),
    "pax path with NUL": ("UNSAFE_MEMBER", _raw(pax({"path": b"a\0b"}) + bytes(raw_header(b"innocent")))),
    "pax linkpath out": (
        "UNSAFE_MEMBER",
        _raw(pax({"linkpath": b"../../../../etc"}) + bytes(raw_header(f"{ROOT}/l".encode(), kind=b"2"))),
    ),
    "pax header of 1 MB": ("TOO_BIG", _raw(pax({"comment": b"c" * (1 << 20)}) + bytes(raw_header(b"innocent")))),
    "pax size that lies": (
        "BAD_ARCHIVE",
        _raw(pax({"size": b"999999999999"}) + bytes(raw_header(f"{ROOT}/s".encode()))),
    ),
    "pax size negative": ("BAD_ARCHIVE", _raw(pax({"size": b"-1"}) + bytes(raw_header(f"{ROOT}/s".encode())))),
    "pax record that is too long": (
        "BAD_ARCHIVE",
        _raw(bytes(raw_header(b"p", kind=b"x", size=b"00000000020")) + b"99 path=escaped\n".ljust(512, b"\0")),
    ),
    "pax global path": ("BAD_ARCHIVE", _raw(pax({"path": b"everything"}, kind=b"g"))),
    "pax global comment": ("", _raw(pax({"comment": b"a commit"}, kind=b"g"))),
    "pax format throughout": ("", _with(member(f"{ROOT}/{'long/' * 30}x", b"x"), format=tarfile.PAX_FORMAT)),
    "names that differ by Unicode case": (
        "UNSAFE_MEMBER",
        _with(member(f"{ROOT}/stra\u00dfe", b"x"), member(f"{ROOT}/STRASSE", b"x")),
    ),
    "right-to-left name": ("UNSAFE_MEMBER", _with(member(f"{ROOT}/a\u202etxt.so", b"x"))),
    "name with a backspace": ("UNSAFE_MEMBER", _with(member(f"{ROOT}/a\bb", b"x"))),
    "directory over a file": ("UNSAFE_MEMBER", _with(member(f"{ROOT}/version.info", kind=tarfile.DIRTYPE))),
    "file over a directory": ("UNSAFE_MEMBER", _with(member(f"{ROOT}/op_api", b"x"))),
    "vendor directory as a file": ("UNSAFE_MEMBER", _with(member("./packages/vendors", b"x"))),
    "vendor directory as a link": ("UNSAFE_MEMBER", _with(member(ROOT, kind=tarfile.SYMTYPE, target="../../.."))),
    "10,000 nested directories": ("UNSAFE_MEMBER", _with(member(f"{ROOT}/" + "d/" * 10_000 + "x", b"x"))),
    "100 nested directories": ("UNSAFE_MEMBER", _with(member(f"{ROOT}/" + "d/" * 100 + "x", b"x"))),
    "100,001 different names": ("TOO_BIG", _many(lambda number: f"{ROOT}/n{number}".encode(), 100_001)),
    "gigabytes of directory names": ("UNSAFE_MEMBER", _deep_names(6000, 400)),
    "100,000 directories that names imply": ("TOO_BIG", _deep_names(2000, 58)),
    # links
    "link chain out": (
        "UNSAFE_MEMBER",
        _with(_link("one", "two"), _link("two", "op_api"), _link("op_api/out", "../../../../../etc")),
    ),
    "link chain inside": ("", _with(_link("one", "two"), _link("two", "version.info"))),
    "link to itself": ("", _with(_link("itself", "itself"))),
    "file through a link chain": ("UNSAFE_MEMBER", _with(_link("one", "op_api"), member(f"{ROOT}/one/x", b"x"))),
    "hard link inside": (
        "UNSAFE_MEMBER",
        _with(member(f"{ROOT}/hard", kind=tarfile.LNKTYPE, target=f"{ROOT}/version.info")),
    ),
    "hard link chain": (
        "UNSAFE_MEMBER",
        _with(
            member(f"{ROOT}/h1", kind=tarfile.LNKTYPE, target=f"{ROOT}/version.info"),
            member(f"{ROOT}/h2", kind=tarfile.LNKTYPE, target=f"{ROOT}/h1"),
        ),
    ),
    "link named config.ini": ("", _with(_link("config.ini", "version.info"))),
    "scripts as a link": ("", _with(_link("scripts", "op_api"))),
    "bin as a link": ("", _with(_link("bin", "op_api"))),
    "set_env.bash as a directory": ("", _with(member(f"{ROOT}/bin/set_env.bash", kind=tarfile.DIRTYPE))),
    # numbers
    "size that lies": ("BAD_ARCHIVE", _sized(b"00077777777")),
    "size negative": ("BAD_ARCHIVE", _sized(b"-0000000001")),
    "size negative in base 256": ("BAD_ARCHIVE", _sized(b"\xff" * 12)),
    "size of 2^70": ("BAD_ARCHIVE", _sized(b"\x80" + b"\0" * 2 + b"\x40" + b"\0" * 8)),
    "size with a prefix": ("BAD_ARCHIVE", _sized(b"0o17\0")),
    "size with an underscore": ("BAD_ARCHIVE", _sized(b"1_000\0")),
    "mode that is no number": ("BAD_ARCHIVE", _raw(bytes(raw_header(f"{ROOT}/m".encode(), mode=b"rwxr-xr")))),
    "header checksum wrong": ("BAD_ARCHIVE", _flip_tar(0, b"X")),
    "header checksum no number": ("BAD_ARCHIVE", _flip_tar(148, b"zzzzzz\0 ")),
    "ends within a member": ("BAD_ARCHIVE", _raw(bytes(raw_header(f"{ROOT}/cut".encode(), size=b"00000004000")))),
    "data after the end": ("BAD_ARCHIVE", _raw(bytes(1024) + b"hidden".ljust(512, b"\0"))),
    # compression
    "bomb of nested gzips": ("", _nested(2)),
    "bomb of zeros": ("TOO_BIG", _zeros_bomb),
    "two gzip members": ("BAD_ARCHIVE", _payload(lambda payload: payload + gzip.compress(b"more", mtime=0))),
    "garbage after the gzip data": ("BAD_ARCHIVE", _payload(lambda payload: payload + b"garbage")),
    "gzip checksum wrong": ("BAD_ARCHIVE", _payload(lambda payload: payload[:-8] + bytes(8))),
    "gzip without its end": ("BAD_ARCHIVE", _payload(lambda payload: payload[:-8])),
    # the header of the script
    "trailing garbage": ("TRAILING_DATA", _file(lambda raw: raw + b"rm -rf /\n")),
    "skip too small": ("TRAILING_DATA", _header('skip="@SKIP@"', 'skip="5"\nSKIPPED="@SKIP@"')),
    "skip too large": ("TRUNCATED", _header('skip="@SKIP@"', 'skip="999999"')),
    "skip negative": ("NOT_A_RUN", _header('skip="@SKIP@"', 'skip="-1"')),
    "skip of 300 digits": ("NOT_A_RUN", _header('skip="@SKIP@"', f'skip="{"9" * 300}"')),
    "skip stated twice": ("NOT_A_RUN", _named_twice),
    "filesizes of two archives": ("NOT_A_RUN", _header('filesizes="@SIZE@"', 'filesizes="@SIZE@ 10"')),
    "filesizes too large": ("TRUNCATED", _header('filesizes="@SIZE@"', 'filesizes="99999999"')),
    "filesizes by command": ("NOT_A_RUN", _header('filesizes="@SIZE@"', 'filesizes="$(id)"')),
    "sha of another file": ("CHECKSUM", _header('SHA="@SHA@"', f'SHA="{"0123456789abcdef" * 4}"')),
    "sha all zeros": ("CHECKSUM", _header('SHA="@SHA@"', f'SHA="{"0" * 64}"')),
    "md5 that disagrees": ("", _header('MD5="' + "0" * 32, 'MD5="' + "1" * 32)),
    "totalsize that disagrees": ("", _header('totalsize="@SIZE@"', 'totalsize="1"')),
    "CRLF header": ("", _file(lambda raw: raw.replace(b"\n", b"\r\n", 12))),
    "NUL bytes in the header": ("", _header("# A synthetic", "# \0\0\0 A synthetic")),
    "label with an escape": ("", _header('label="version:1.0"', 'label="\x1b[2J\x1b]0;title\x07"')),
    "another interpreter": ("", _header("#!/bin/bash", "#!/usr/bin/env -S rm -rf")),
    # contents
    "config.ini beside the vendor": ("", _with(member("./packages/vendors/config.ini", b"load_priority=x"))),
    "hidden vendor": ("UNSAFE_MEMBER", _with(member("./packages/vendors/.smallq-deploy/state", b"{}"))),
    "json of 5 MiB": ("TOO_BIG", _json(b'{"A":"' + b"a" * (5 << 20) + b'"}')),
    "json nested 100,000 deep": ("BAD_CONTENT", _json(b"[" * 100_000)),
    "json list": ("BAD_CONTENT", _json(b"[1, 2]")),
    "operator name with a command": ("BAD_CONTENT", _json(b'{"a;rm -rf /": {}}')),
    "20,000 operators": ("TOO_BIG", _operators(20_000)),
    "library that is text": ("UNSAFE_MEMBER", _with(member(f"{ROOT}/op_api/lib/libcust_opapi.so", b"text"))),
}


# --- random packages ---


def random_package(path: Path, seed: int, trap: str, tar: bytes) -> None:
    """One package out of a whole one (``tar``: its archive), changed at random; the same seed gives the same bytes.

    One in five is changed as a file, one in five in its header, the rest in the archive with a right digest.
    """
    chance = random.Random(seed)
    kind = chance.randrange(5)
    if kind == 0:
        write_run(path, _packed(tar), trap=trap)
        path.write_bytes(_changed_bytes(chance, path.read_bytes()))
        return
    if kind == 1:
        lines = packages._HEADER.split("\n")
        for _ in range(chance.randint(1, 3)):
            place = chance.randrange(len(lines))
            lines[place] = chance.choice(
                [
                    *lines,
                    "",
                    'skip="4"',
                    'skip="0"',
                    'SHA=""',
                    'filesizes="1"',
                    "\0",
                    "\r",
                    'label="\x1b[1m"',
                    "#" * 5000,
                ]
            )
        write_run(path, _packed(tar), header="\n".join(lines), trap=trap)
        return
    archive = bytearray(tar)
    for _ in range(chance.randint(1, 4)):
        archive = _changed_archive(chance, archive)
    payload = _packed(bytes(archive))
    if chance.random() < 0.1:
        payload = _changed_bytes(chance, payload)
    write_run(path, payload, trap=trap)


def _changed_bytes(chance: random.Random, raw: bytes) -> bytes:
    data = bytearray(raw)
    for _ in range(chance.randint(1, 4)):
        place, length = chance.randrange(len(data)), chance.randint(1, 300)
        what = chance.randrange(4)
        if what == 0:
            data[place] ^= chance.randint(1, 255)
        elif what == 1 and len(data) > length + 10:
            del data[place : place + length]
        elif what == 2:
            data[place:place] = chance.randbytes(length)
        else:
            data[place : place + length] = data[: min(length, len(data) - place)]
    return bytes(data)


_NAMES = (
    *(b"../x", b"/etc/x", b"./packages/vendors/customize/../../../x", b"./packages/vendors/customize/op_api", b"."),
    *(
        b"./packages/vendors/customize/new",
        b"./packages/vendors/second/version.info",
        b"",
        b"\xff\xfe",
        b"a\nb",
        b"install.sh",
    ),
)
_FIELDS = ((0, 100), (100, 8), (124, 12), (156, 1), (157, 100), (257, 8), (345, 155))


def _blocks(archive: bytes) -> Iterator[int]:
    """Offsets of the headers, as an honest reader finds them."""
    place = 0
    while place + 512 <= len(archive) and archive[place : place + 512] != bytes(512):
        yield place
        try:
            size = int(archive[place + 124 : place + 135].split(b"\0")[0] or b"0", 8)
        except ValueError:
            return
        place += 512 + -(-max(size, 0) // 512) * 512


def _changed_archive(chance: random.Random, archive: bytearray) -> bytearray:
    places = list(_blocks(archive)) or [0]
    place = chance.choice(places)
    block = bytearray(archive[place : place + 512].ljust(512, b"\0"))
    what = chance.randrange(7)
    if what == 0:  # a field of the header
        start, length = chance.choice(_FIELDS)
        value = chance.choice(
            [chance.randbytes(length), bytes(length), b"7" * length, b"-1", b"\x80", b"\xff" * length]
        )
        block[start : start + len(value)] = value
    elif what == 1:
        name = chance.choice(_NAMES)
        block[:100] = name.ljust(100, b"\0")
    elif what == 2:
        block[156:157] = bytes([chance.choice(b"0123456789xgLKSVMDNZ\0")])
        block[157:257] = chance.choice([*_NAMES, b"version.info", b"../../x"]).ljust(100, b"\0")
    elif what == 3:  # a member there twice, or elsewhere
        other = chance.choice(places)
        archive[other:other] = archive[place : place + chance.choice((512, 1024, 5000))]
        return archive
    elif what == 4:
        records = {chance.choice(["path", "linkpath", "size", "mode", "GNU.sparse.name", "x"]): chance.choice(_NAMES)}
        archive[place:place] = pax(records, kind=chance.choice([b"x", b"g"]))
        return archive
    elif what == 5:
        del archive[place : place + chance.choice((1, 512, 700, 4096))]
        return archive
    else:
        at = chance.randrange(len(archive))
        archive[at] ^= chance.randint(1, 255)
        return archive
    archive[place : place + 512] = sealed(block)[:512]
    return archive
