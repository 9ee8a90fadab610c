"""What an ELF file says about itself: architecture, exported symbols, needed libraries.

The architecture is read from the first 20 bytes (ELF header, e_machine); only the symbol table needs pyelftools, which
is imported when it is used.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from smallq_deploy.base.errors import PackageError

# e_machine (elf.h) -> the name `uname -m` prints, which is also CANN's directory name.
_MACHINES = {62: "x86_64", 183: "aarch64"}
HEADER_BYTES = 20


@dataclass(frozen=True)
class ElfInfo:
    """``arch`` as uname -m spells it (``em<N>`` for others), defined dynamic symbols, DT_NEEDED names.

    ``undefined`` are the symbols it needs from elsewhere, weak ones aside: without them the library cannot be loaded.
    """

    arch: str
    exported: frozenset[str]
    needed: tuple[str, ...]
    undefined: frozenset[str] = frozenset()


def machine_name(header: bytes) -> str:
    """Architecture named by the first bytes of a file, '' when they are no ELF header."""
    if len(header) < HEADER_BYTES or header[:4] != b"\x7fELF" or header[5] not in (1, 2):
        return ""
    (machine,) = struct.unpack(("<" if header[5] == 1 else ">") + "H", header[18:20])
    return _MACHINES.get(machine, f"em{machine}")


def read_elf(path: Path) -> ElfInfo:
    """Read a shared object. Raises PackageError BAD_ELF when it is none, or is damaged."""
    from elftools.elf.elffile import ELFFile

    try:
        with open(path, "rb") as stream:
            arch = machine_name(stream.read(HEADER_BYTES))
            if not arch:
                raise _bad(path, "it does not begin with an ELF header")
            stream.seek(0)
            return _dynamic_part(ELFFile(stream), arch)
    except OSError as error:
        raise _bad(path, str(error.strerror or error)) from error
    except PackageError:
        raise
    except Exception as error:  # pyelftools lets struct, key and unicode errors of damaged files through
        raise _bad(path, f"{type(error).__name__}: {error}") from error


def _dynamic_part(elf: Any, arch: str) -> ElfInfo:
    for segment in elf.iter_segments("PT_DYNAMIC"):
        needed = tuple(tag.needed for tag in segment.iter_tags("DT_NEEDED"))
        table = elf.get_section_by_name(".dynsym") or segment
        symbols = tuple(symbol for symbol in table.iter_symbols() if symbol.name)
        exported = frozenset(
            symbol.name
            for symbol in symbols
            if symbol["st_shndx"] != "SHN_UNDEF"
            and symbol["st_info"]["bind"] in ("STB_GLOBAL", "STB_WEAK")
            and symbol["st_other"]["visibility"] in ("STV_DEFAULT", "STV_PROTECTED")
        )
        undefined = frozenset(
            symbol.name
            for symbol in symbols
            if symbol["st_shndx"] == "SHN_UNDEF" and symbol["st_info"]["bind"] == "STB_GLOBAL"
        )
        return ElfInfo(arch, exported, needed, undefined)
    return ElfInfo(arch, frozenset(), ())


def _bad(path: Path, why: str) -> PackageError:
    return PackageError(
        "BAD_ELF",
        f"{path} is not a readable shared object: {why}",
        hint="build or download the package again",
        details={"path": str(path)},
    )
