"""What a smoke test found: per case, per device, and as a whole."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from smallq_deploy.base.errors import NoToolkitError, SmallqError, SmokeError

# The stable reasons. Verdict "inconclusive" always has the last one.
CRASHED = "SMOKE_CRASHED"
HUNG = "SMOKE_HUNG"
GARBAGE = "SMOKE_GARBAGE"
NO_SYMBOL = "SMOKE_NO_SYMBOL"
NO_LIBRARY = "SMOKE_NO_LIBRARY"
WRONG_NUMBERS = "SMOKE_WRONG_NUMBERS"
ACLNN_ERROR = "SMOKE_ACLNN_ERROR"
OVERRUN = "SMOKE_OVERRUN"
OUTSIDE_LIVE_TREE = "SMOKE_OUTSIDE_LIVE_TREE"
INCONCLUSIVE = "SMOKE_INCONCLUSIVE"


@dataclass(frozen=True)
class CaseResult:
    """One shape. Errors against the float64 reference; None where the output had values that are not finite.

    ``bound`` is the worst |e| / (abs + rel |ref|), 1 is the limit; ``seconds`` the call with its copies.
    """

    name: str
    passed: bool
    max_abs: float | None
    bound: float | None
    rel_l2: float | None
    seconds: float
    detail: str

    @staticmethod
    def from_dict(record: Mapping[str, Any]) -> CaseResult:
        """From the child's answer; raises KeyError, TypeError or ValueError."""
        numbers = {key: None if record[key] is None else float(record[key]) for key in ("max_abs", "bound", "rel_l2")}
        passed = record["passed"]
        if not isinstance(passed, bool) or (passed and None in numbers.values()):
            raise ValueError("a case that passed has numbers")
        return CaseResult(
            name=str(record["name"]),
            passed=passed,
            seconds=float(record["seconds"]),
            detail=str(record["detail"]),
            **numbers,
        )

    def to_dict(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "passed": self.passed,
            "max_abs": self.max_abs,
            "bound": self.bound,
            "rel_l2": self.rel_l2,
            "seconds": round(self.seconds, 6),
            "detail": self.detail,
        }


@dataclass(frozen=True)
class Verdict:
    """``pass``, ``fail`` or ``inconclusive``, and why. ``code`` is the acl status where one decided."""

    verdict: str
    reason: str = ""
    message: str = ""
    hint: str = ""
    code: int | None = None
    code_name: str = ""

    def to_dict(self) -> dict[str, Any]:
        return {
            "verdict": self.verdict,
            "reason": self.reason,
            "message": self.message,
            "hint": self.hint,
            "code": self.code,
            "code_name": self.code_name,
        }


def fail(reason: str, message: str, hint: str = "") -> Verdict:
    return Verdict("fail", reason, message, hint)


def inconclusive(message: str, hint: str = "") -> Verdict:
    return Verdict("inconclusive", INCONCLUSIVE, message, hint)


@dataclass(frozen=True)
class DeviceResult:
    """One process on one device. ``device_count`` is None when the process did not get so far."""

    device: int
    outcome: Verdict
    cases: tuple[CaseResult, ...] = ()
    library: str = ""
    library_inode: int = 0
    soc: str = ""
    device_count: int | None = None
    seconds: float = 0.0
    output: str = ""

    def to_dict(self) -> dict[str, Any]:
        return {
            "device": self.device,
            **self.outcome.to_dict(),
            "soc": self.soc,
            "seconds": round(self.seconds, 3),
            "cases": [case.to_dict() for case in self.cases],
        }


@dataclass(frozen=True)
class SmokeReport:
    """The whole test. ``device`` is the one that decided (None when none was asked); ``devices`` all that were asked.

    ``reason`` is '' for a pass, else one of the SMOKE_* names of this module; ``library`` and ``library_inode`` are
    those of the libcust_opapi.so that was mapped.
    """

    verdict: str
    reason: str
    code: int | None
    code_name: str
    message: str
    hint: str
    device: int | None
    cases: tuple[CaseResult, ...]
    library: str
    library_inode: int
    seconds: float
    remark: str
    devices: tuple[DeviceResult, ...] = ()
    warnings: tuple[str, ...] = ()
    output: str = field(default="", repr=False)

    @property
    def passed(self) -> bool:
        return self.verdict == "pass"

    def to_dict(self) -> dict[str, Any]:
        return {
            "verdict": self.verdict,
            "reason": self.reason,
            "code": self.code,
            "code_name": self.code_name,
            "message": self.message,
            "hint": self.hint,
            "device": self.device,
            "cases": [case.to_dict() for case in self.cases],
            "library": self.library,
            "library_inode": self.library_inode,
            "seconds": round(self.seconds, 3),
            "remark": self.remark,
            "devices": [item.to_dict() for item in self.devices],
            "warnings": list(self.warnings),
            "output": self.output,
        }

    def error(self, device: int | str = "auto") -> SmallqError | None:
        """None for a pass; NoToolkitError UNKNOWN_DEVICE for a ``device`` that is not there; else a SmokeError."""
        if self.passed:
            return None
        counts = [item.device_count for item in self.devices if item.device_count is not None]
        if isinstance(device, int) and counts and device >= max(counts):
            return NoToolkitError("UNKNOWN_DEVICE", self.message, hint=self.hint, details=self.to_dict())
        return SmokeError(self.reason, self.message, hint=self.hint, details=self.to_dict())
