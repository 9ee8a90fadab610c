"""What a freshly built package must show beyond the static checks of an installed tree (validate.py).

Every kernel object carries a description with its sha256 (cann.md 5: CANN's compiler writes it), and the aclnn library
asks libnnopbase.so only for functions that the toolkit's own has: otherwise ``dlopen`` fails at the first call, where
the toolkit that built is newer than the one that runs (cann.md 7.1).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from smallq_deploy.base.errors import access_error
from smallq_deploy.base.fsops import sha256_file
from smallq_deploy.package.elf import read_elf
from smallq_deploy.package.vendortree import TBE

_JSON_LIMIT = 32 << 20
_GENERATED = "Nnopbase"  # what op_build's code calls in libnnopbase.so


def kernel_problems(tree: Path) -> tuple[str, ...]:
    """One sentence for each kernel object of any operator and unit that its description does not vouch for.

    Raises AccessError when the tree cannot be read.
    """
    try:
        return tuple(_kernel_problems(tree))
    except OSError as error:
        raise access_error(error, f"check the kernels in {tree}") from error


def _kernel_problems(tree: Path) -> Iterator[str]:
    for binary in sorted((tree / TBE / "kernel").rglob("*.o")):
        name = binary.relative_to(tree)
        description = binary.with_suffix(".json")
        if not binary.is_file():
            yield f"{name} is no file"
            continue
        if not description.is_file():
            yield f"{name} has no description {description.name} beside it"
            continue
        try:
            if description.stat().st_size > _JSON_LIMIT:
                raise ValueError("too large")
            content = json.loads(description.read_text(encoding="utf-8"))
        except (ValueError, RecursionError):
            yield f"{description.relative_to(tree)} is not valid JSON"
            continue
        stated = content.get("sha256") if isinstance(content, dict) else None
        if not isinstance(stated, str) or not stated:
            yield f"{description.relative_to(tree)} does not state the sha256 of its kernel"
        elif stated.lower() != sha256_file(binary):
            yield f"{name} is not the kernel its description was written for (sha256 differs)"


def unresolved_functions(library: Path, nnopbase: Path) -> tuple[str, ...]:
    """The Nnopbase functions that ``library`` needs and ``nnopbase`` does not export; weak references do not count.

    Raises PackageError BAD_ELF when one of the two cannot be read.
    """
    wanted = {name for name in read_elf(library).undefined if name.startswith(_GENERATED)}
    return tuple(sorted(wanted - read_elf(nnopbase).exported)) if wanted else ()
