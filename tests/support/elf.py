"""Writes the smallest ELF64 shared objects that have a dynamic symbol table, for any architecture."""

from __future__ import annotations

import struct
from collections.abc import Sequence

_MACHINES = {"x86_64": 62, "aarch64": 183, "riscv64": 243}


def tiny_elf(
    exported: Sequence[str] = (), *, arch: str = "x86_64", needed: Sequence[str] = (), tail: bytes = b""
) -> bytes:
    """A shared object exporting ``exported`` (each symbol has the address of the ELF header; do not call them).

    ``tail`` is appended, so that two files with equal symbols can have different digests.
    """
    strings = b"\0"
    names: dict[str, int] = {}
    for name in (*exported, *needed):
        names[name] = len(strings)
        strings += name.encode() + b"\0"
    symbols = bytes(24) + b"".join(struct.pack("<IBBHQQ", names[name], 0x12, 0, 1, 0, 4) for name in exported)
    count = len(exported) + 1
    hash_table = struct.pack("<IIII", 1, count, 1 if count > 1 else 0, 0)
    hash_table += b"".join(struct.pack("<I", index + 1 if index + 1 < count else 0) for index in range(1, count))

    start = 64 + 2 * 56
    at_symbols = start
    at_strings = at_symbols + len(symbols)
    at_hash = -(-(at_strings + len(strings)) // 8) * 8
    at_dynamic = -(-(at_hash + len(hash_table)) // 8) * 8
    entries = [(1, names[name]) for name in needed]
    entries += [(4, at_hash), (5, at_strings), (6, at_symbols), (10, len(strings)), (11, 24), (0, 0)]
    dynamic = b"".join(struct.pack("<qQ", tag, value) for tag, value in entries)
    section_names = b"\0.dynsym\0.dynstr\0.dynamic\0.shstrtab\0"
    at_names = at_dynamic + len(dynamic)
    at_sections = -(-(at_names + len(section_names)) // 8) * 8

    header = b"\x7fELF\x02\x01\x01" + bytes(9)
    header += struct.pack("<HHIQQQIHHHHHH", 3, _MACHINES[arch], 1, 0, 64, at_sections, 0, 64, 56, 2, 64, 5, 4)
    load = struct.pack("<IIQQQQQQ", 1, 4, 0, 0, 0, at_names, at_names, 4096)
    dynamic_header = struct.pack("<IIQQQQQQ", 2, 4, at_dynamic, at_dynamic, at_dynamic, len(dynamic), len(dynamic), 8)

    def section(name: int, kind: int, offset: int, size: int, link: int = 0, info: int = 0, entry: int = 0) -> bytes:
        return struct.pack("<IIQQQQIIQQ", name, kind, 2, offset, offset, size, link, info, 8, entry)

    sections = bytes(64)
    sections += section(1, 11, at_symbols, len(symbols), link=2, info=1, entry=24)
    sections += section(9, 3, at_strings, len(strings))
    sections += section(17, 6, at_dynamic, len(dynamic), link=2, entry=16)
    sections += section(26, 3, at_names, len(section_names))

    image = bytearray(at_sections)
    for offset, part in (
        (0, header),
        (64, load),
        (120, dynamic_header),
        (at_symbols, symbols),
        (at_strings, strings),
        (at_hash, hash_table),
        (at_dynamic, dynamic),
        (at_names, section_names),
    ):
        image[offset : offset + len(part)] = part
    return bytes(image) + sections + tail
