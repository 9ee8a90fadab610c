"""The text before the archive of a ``.run`` package (makeself header, cann.md 4.2), read as data and never executed."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from smallq_deploy.base.errors import PackageError

_MAX_HEADER = 1 << 20  # bytes; the real ones have about 700 lines and 25 KB
_ASSIGNMENT = re.compile(rb"""^(SHA|label|script|filesizes|skip)=(?:"([^"\n]*)"|'([^'\n]*)'|([^\s"';]*))\s*$""")
_HINT = "download the package again, or build it with `smallq-deploy build`"


@dataclass(frozen=True)
class RunHeader:
    """What the header states: ``skip`` header lines, payload of ``size`` bytes at ``offset`` with digest ``sha256``."""

    label: str
    script: str
    sha256: str
    size: int
    offset: int


def not_a_run(path: Path, why: str) -> PackageError:
    """The file is something else."""
    return PackageError("NOT_A_RUN", f"{path} is not a .run package: {why}", hint=_HINT, details={"path": str(path)})


def read_header(path: Path, stream: IO[bytes]) -> RunHeader:
    """Read the header from the start of ``stream``.

    Raises PackageError NOT_A_RUN, TRUNCATED (the file ends within the header), CHECKSUM (no sha256 is stated).
    """
    text = stream.read(_MAX_HEADER)
    if not text:
        raise not_a_run(path, "the file is empty")
    if not text.startswith(b"#!"):
        what = "it is a web page" if text.lstrip()[:1] == b"<" else "it does not begin with '#!'"
        raise not_a_run(path, what)
    values: dict[str, str] = {}
    position, line_number, skip = 0, 0, 0
    while not skip or line_number < skip:
        end = text.find(b"\n", position)
        if end < 0:
            break
        line_number += 1
        found = _ASSIGNMENT.match(text[position:end])
        position = end + 1
        if found is None:
            continue
        name = found[1].decode()
        value = next(group for group in found.groups()[1:] if group is not None).decode("utf-8", "replace")
        if values.setdefault(name, value) != value:
            raise not_a_run(path, f"its header states {name} twice, differently")
        if name == "skip":
            skip = _whole_number(path, name, value)
    if not skip:
        raise not_a_run(path, "its header does not say where the archive begins (skip=)")
    if line_number < skip:
        if len(text) >= _MAX_HEADER:
            raise not_a_run(path, f"its header is longer than {_MAX_HEADER >> 20} MiB")
        raise PackageError(
            "TRUNCATED",
            f"{path} ends within its header (line {line_number} of {skip}): it was not copied completely",
            hint=_HINT,
            details={"path": str(path)},
        )
    digest = values.get("SHA", "").lower()
    if not re.fullmatch(r"[0-9a-f]{64}", digest) or digest == "0" * 64:
        raise PackageError(
            "CHECKSUM",
            f"{path} states no sha256 of its content, so damage could not be seen",
            hint="pack it with makeself --sha256, as CANN's build projects do",
            details={"path": str(path)},
        )
    size = _whole_number(path, "filesizes", values.get("filesizes", ""))
    return RunHeader(_shown(values.get("label", "")), _shown(values.get("script", "")), digest, size, position)


def _shown(text: str) -> str:
    return "".join(char if char.isprintable() else "?" for char in text)[:200]


def _whole_number(path: Path, name: str, text: str) -> int:
    if not re.fullmatch(r"[1-9][0-9]{0,14}", text.strip()):
        raise not_a_run(path, f"its header states {name}={_shown(text)!r}, which is no size of one archive")
    return int(text)
