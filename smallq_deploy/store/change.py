"""What a transaction is asked to do, and what it answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from smallq_deploy.store.generations import Generation
from smallq_deploy.store.paths import ABSENT, Staging


@dataclass(frozen=True)
class Draft:
    """What is known of a tree besides its files; the transaction adds number, time, manifest and proof."""

    origin: str = "installed"
    release: str = ""
    package_name: str = ""
    package_sha256: str = ""
    toolkit_version: str = ""
    toolkit_remark: str = ""
    ops: tuple[str, ...] = ()
    units: tuple[str, ...] = ()
    arch: str = ""
    flags: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Proof:
    """What the smoke test said. ``keep`` False undoes the switch. ``verdict``: pass, fail, inconclusive or skipped."""

    keep: bool
    verdict: str
    record: Mapping[str, Any] = field(default_factory=dict)
    reason: str = ""


@dataclass(frozen=True)
class Change:
    """What shall become live: a tree that ``stage`` makes, generation ``target``, or (neither) nothing.

    ``stage(area)`` fills ``area.tree`` (and may put the package at ``area.package``) and describes it. ``rebuild(area,
    generation)`` makes the tree of a generation whose files are gone. ``describe(path)`` describes a directory found.
    ``prove()`` runs after the switch.
    """

    action: str
    stage: Callable[[Staging], Draft] | None = None
    target: int = ABSENT
    describe: Callable[[Path], Draft] = lambda path: Draft(origin="adopted")
    rebuild: Callable[[Staging, Generation], None] | None = None
    prove: Callable[[], Proof] | None = None
    listed: bool = True
    first: bool = False
    deep_check: bool = False
    deep_live: bool = False  # compare contents to see whether somebody edited the live tree
    keep_failed: bool = True


@dataclass(frozen=True)
class ChangeReport:
    """How it ended. ``kept`` False: the old state is live again and ``reason`` says why."""

    txid: str
    action: str
    kept: bool
    live: int
    previous: int
    generation: Generation | None
    adopted: int | None
    method: str
    proof: Proof | None
    reason: str = ""

    def to_dict(self) -> dict[str, Any]:
        return {
            "transaction": self.txid,
            "kept": self.kept,
            "live": self.live,
            "previous": self.previous,
            "generation": self.generation.to_dict() if self.generation else None,
            "adopted": self.adopted,
            "method": self.method,
            "smoke": dict(self.proof.record) | {"verdict": self.proof.verdict} if self.proof else None,
            "reason": self.reason,
        }
