"""Generations: what has been live here. Each is written once and never changed.

On disk ``generations/000N/`` holds ``generation`` (one JSON object), ``manifest`` (one JSON object a line, one line an
entry of the tree), ``package.run`` (installed generations) and, while it is not live, ``tree/``.
"""

from __future__ import annotations

import dataclasses
import json
import os
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from smallq_deploy.base.errors import InstallError, UsageError, access_error
from smallq_deploy.base.fsops import FileEntry, entries_digest, read_plain, write_atomic
from smallq_deploy.store.paths import ABSENT, SCHEMA, Store, require_directory
from smallq_deploy.store.records import check_types


@dataclass(frozen=True)
class Generation:
    """One state of the live tree. Sizes in bytes, times in UTC (ISO 8601)."""

    number: int
    vendor: str
    created: str
    origin: str  # installed | adopted (found, not made by us) | repaired
    release: str = ""
    package_name: str = ""
    package_sha256: str = ""
    toolkit_version: str = ""
    toolkit_remark: str = ""
    ops: tuple[str, ...] = ()
    units: tuple[str, ...] = ()
    arch: str = ""
    manifest_digest: str = ""
    files: int = 0
    size: int = 0
    listed: bool = True  # named in config.ini while live
    smoke: Mapping[str, Any] | None = None
    flags: Mapping[str, Any] = field(default_factory=dict)  # allow_untested, no_smoke, ...
    failed: str = ""  # why it was undone; such a generation is kept to look at, never to roll back to

    @property
    def proven(self) -> bool:
        """True when the smoke test passed before this generation was kept."""
        return bool(self.smoke) and self.smoke is not None and self.smoke.get("verdict") == "pass"

    def to_dict(self) -> dict[str, Any]:
        record = dataclasses.asdict(self)
        record.update(ops=list(self.ops), units=list(self.units), flags=dict(self.flags), proven=self.proven)
        return record

    @staticmethod
    def from_dict(record: Mapping[str, Any]) -> Generation:
        """Unknown keys are ignored: a newer version may have added them within the same schema."""
        known = {item.name for item in dataclasses.fields(Generation)}
        values = {key: value for key, value in record.items() if key in known}
        for key in ("ops", "units"):
            values[key] = tuple(str(item) for item in values.get(key, ()))
        made = Generation(**values)
        check_types(made)
        return made


@dataclass(frozen=True)
class VendorState:
    """``current`` and ``previous`` generation numbers; ABSENT (0) is "no vendor directory", None "never anything"."""

    current: int | None = None
    previous: int | None = None


@dataclass(frozen=True)
class State:
    """The store's ``state`` file: the last number ever given, and the vendors."""

    last_number: int = 0
    vendors: Mapping[str, VendorState] = field(default_factory=dict)

    def of(self, vendor: str) -> VendorState:
        return self.vendors.get(vendor, VendorState())

    def changed(self, vendor: str, value: VendorState, last_number: int) -> State:
        return State(max(self.last_number, last_number), {**self.vendors, vendor: value})


def now() -> str:
    """The time as every record has it: UTC, seconds."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def read_json(path: Path) -> dict[str, Any] | None:
    """A record of ours, or None when the file is not there.

    Raises InstallError STORE_DAMAGED when it is no JSON object, UsageError STORE_NEWER when a newer smallq-deploy
    wrote it, and the typed form of an OSError.
    """
    try:
        raw = read_plain(path)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise access_error(error, f"read {path}") from error
    try:
        record = json.loads(raw)
    except (ValueError, RecursionError):
        record = None
    if not isinstance(record, dict) or type(record.get("schema")) is not int:
        raise InstallError(
            "STORE_DAMAGED",
            f"{path} is damaged",
            hint="restore it from a backup, or move the store directory away: the live tree is then adopted anew",
            details={"path": str(path)},
        )
    if record["schema"] > SCHEMA:
        raise UsageError(
            "STORE_NEWER",
            f"{path} was written by a newer smallq-deploy (schema {record['schema']}, this one knows {SCHEMA})",
            hint="upgrade smallq-deploy; nothing was changed",
            details={"path": str(path), "schema": record["schema"]},
        )
    return record


def read_state(store: Store) -> State:
    """The state, or an empty one where nothing was ever installed."""
    record = read_json(store.state)
    if record is None:
        return State()
    try:
        vendors = {
            str(name): VendorState(value.get("current"), value.get("previous"))
            for name, value in record["vendors"].items()
        }
        state = State(record["last_number"], vendors)
        for made in (state, *vendors.values()):
            check_types(made)
        return state
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _damaged(store.state) from error


def write_state(store: Store, state: State) -> None:
    """Replace the state file durably."""
    vendors = {name: {"current": value.current, "previous": value.previous} for name, value in state.vendors.items()}
    record = {"schema": SCHEMA, "last_number": state.last_number, "vendors": vendors}
    write_atomic(store.state, json.dumps(record, sort_keys=True) + "\n")


def write_generation(directory: Path, generation: Generation, entries: Iterable[FileEntry] | None) -> None:
    """Write the record of a generation into ``directory``; ``entries`` None leaves the manifest as it is."""
    if entries is not None:
        lines = "".join(json.dumps(entry.to_dict(), ensure_ascii=True) + "\n" for entry in entries)
        write_atomic(directory / "manifest", lines)
    record = {"schema": SCHEMA, **generation.to_dict()}
    write_atomic(directory / "generation", json.dumps(record, ensure_ascii=True, sort_keys=True) + "\n")


def load_generation(store: Store, number: int) -> Generation:
    """Raises UsageError NO_SUCH_GENERATION, InstallError STORE_DAMAGED, ConflictError NOT_PLAIN."""
    require_directory(store.generation_dir(number))
    require_directory(store.tree_dir(number))
    path = store.generation_dir(number) / "generation"
    record = read_json(path)
    if record is None and path.parent.is_dir():
        raise _damaged(path)
    if record is None:
        known = ", ".join(str(item.number) for item in list_generations(store) if not item.failed) or "none"
        was = 0 < number <= read_state(store).last_number
        raise UsageError(
            "NO_SUCH_GENERATION",
            f"generation {number} was deleted (`smallq-deploy history` tells when)"
            if was
            else f"there is no generation {number} of vendor {store.vendor}",
            hint=f"known generations: {known} (see `smallq-deploy status`)",
        )
    try:
        generation = Generation.from_dict(record)
        if generation.number != number:
            raise ValueError(generation.number)
    except (KeyError, TypeError, ValueError) as error:
        raise _damaged(path) from error
    return generation


def find_generation(store: Store, number: int | None) -> Generation | None:
    """:func:`load_generation`; None where there is none of this number, or it was deleted."""
    try:
        return load_generation(store, number) if number else None
    except UsageError as error:
        if error.code != "NO_SUCH_GENERATION":
            raise
        return None


def list_generations(store: Store) -> tuple[Generation, ...]:
    """Every generation of this vendor, oldest first, failed ones included."""
    found = []
    for number in generation_numbers(store):
        generation = load_generation(store, number)
        if generation.vendor == store.vendor:
            found.append(generation)
    return tuple(found)


def generation_numbers(store: Store) -> tuple[int, ...]:
    """Numbers of every generation on disk, of every vendor."""
    try:
        names = os.listdir(store.generations)
    except (FileNotFoundError, NotADirectoryError):
        return ()
    except OSError as error:
        raise access_error(error, f"read {store.generations}") from error
    return tuple(sorted(int(name) for name in names if name.isdigit() and int(name) != ABSENT))


def next_number(store: Store) -> int:
    """The number after the highest ever given; numbers are never used twice."""
    return max(read_state(store).last_number, *generation_numbers(store), 0) + 1


def entries(store: Store, number: int) -> tuple[FileEntry, ...]:
    """The manifest of a generation. Raises InstallError STORE_DAMAGED."""
    return read_manifest(store.generation_dir(number) / "manifest")


def read_manifest(path: Path) -> tuple[FileEntry, ...]:
    """The entries of a ``manifest`` file. Raises InstallError STORE_DAMAGED."""
    try:
        text = read_plain(path).decode("ascii")
        return tuple(FileEntry.from_dict(json.loads(line)) for line in text.splitlines() if line)
    except FileNotFoundError as error:
        raise _damaged(path) from error
    except OSError as error:
        raise access_error(error, f"read {path}") from error
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError) as error:
        raise _damaged(path) from error


def check_manifest(store: Store, generation: Generation) -> tuple[FileEntry, ...]:
    """The manifest, proven to be the one the generation was written with. Raises InstallError STORE_DAMAGED."""
    found = entries(store, generation.number)
    if entries_digest(found) != generation.manifest_digest:
        raise _damaged(store.generation_dir(generation.number) / "manifest")
    return found


def _damaged(path: Path) -> InstallError:
    return InstallError(
        "STORE_DAMAGED",
        f"{path} is damaged",
        hint="see docs/explanation/switch.md, section 'When the store itself is damaged'",
        details={"path": str(path)},
    )
