"""Versions of CANN, of its components, of driver and firmware; specifiers over them; compute units.

Forms and order: cann.md 2.3 and 2.4; units: cann.md 3.4. All four kinds of version have one order, part by part, but
are types of their own: the component version 7.7.0.1.238 belongs to CANN 8.1.RC1, and comparing the two is a mistake
that Python refuses.
"""

from __future__ import annotations

import functools
import operator
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

from smallq_deploy.base.errors import UsageError

# What a part of a version can be, in the order in which parts at the same place sort. A missing part counts as the
# number 0, so that 8.2.RC1.alpha003 < 8.2.RC1.B020 < 8.2.RC1 < 8.2.0-beta.1 < 8.2.0.
_TEST, _ALPHA, _BETA, _CANDIDATE, _BUILD, _PRE, _NUMBER = range(7)
_RANKS = {"t": _TEST, "alpha": _ALPHA, "beta": _BETA, "rc": _CANDIDATE, "b": _BUILD, "pre": _PRE, "": _NUMBER}
_MAX_PARTS = 8
_NUM = r"[0-9]{1,9}"
_SUFFIX = rf"(?:[.-](?:alpha|beta|rc)\.?{_NUM})?(?:\.B{_NUM})?(?:\.pre)?"
_FLAGS = re.IGNORECASE | re.ASCII
_PART = re.compile(rf"(alpha|beta|rc|pre|t|b|)\.?({_NUM})?", _FLAGS)
Part = tuple[int, int]
V = TypeVar("V", bound="Version")


def _parts(text: str) -> tuple[Part, ...]:
    """The parts of a text that one of the patterns below accepted, padded to the same length for all versions."""
    found: list[Part] = []
    # "beta.2" is one part.
    for word in re.split(r"[.-]", re.sub(r"(alpha|beta|rc)\.", r"\1", text, flags=_FLAGS)):
        kind, number = _PART.fullmatch(word).groups()  # type: ignore[union-attr]
        found.append((_RANKS[kind.lower()], int(number or 0)))
    return (*found, *((_NUMBER, 0),) * (_MAX_PARTS - len(found)))


@dataclass(frozen=True, eq=False)
class Version:
    """A version: the text as it was read, which ``str()`` gives back, and the key it is compared by.

    Two texts of the same version are equal: 8.5.0-beta.1 and 8.5.0.BETA01.
    """

    text: str
    key: tuple[Part, ...]

    what: ClassVar[str] = "a version"
    forms: ClassVar[str] = ""
    pattern: ClassVar[re.Pattern[str]] = re.compile("")

    @classmethod
    def parse(cls: type[V], text: str) -> V:
        """Raises UsageError BAD_VERSION for anything that is no version of this kind."""
        stripped = text.strip()
        key = _parts(stripped) if cls.pattern.fullmatch(stripped) else ()
        if len(key) != _MAX_PARTS:
            raise UsageError("BAD_VERSION", f"{text!r:.80} is not {cls.what}", hint=f"forms: {cls.forms}")
        return cls(stripped, key)

    def __str__(self) -> str:
        return self.text

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return isinstance(other, Version) and self.key == other.key

    def __hash__(self) -> int:
        return hash((type(self).__name__, self.key))

    # Spelled out: functools.total_ordering loses that only versions of one kind compare.
    def __lt__(self: V, other: V) -> bool:
        return self.key < other.key if type(other) is type(self) else NotImplemented

    def __le__(self: V, other: V) -> bool:
        return self.key <= other.key if type(other) is type(self) else NotImplemented

    def __gt__(self: V, other: V) -> bool:
        return self.key > other.key if type(other) is type(self) else NotImplemented

    def __ge__(self: V, other: V) -> bool:
        return self.key >= other.key if type(other) is type(self) else NotImplemented


class CannVersion(Version):
    """A CANN version such as 8.1.RC1, 8.2.RC1.alpha003, 8.5.0-beta.1 or 8.5.0.

    Order: X.Y.T* < X.Y.RCn.alphaK < X.Y.RCn < X.Y.RC(n+1) < X.Y.0.alphaK < X.Y.0-beta.K < X.Y.0-rc.K < X.Y.0 < X.Y.1.
    """

    what = "a CANN version"
    forms = "8.1.RC1, 8.5.0, 8.5.0-beta.1, 8.2.RC1.alpha003"
    pattern = re.compile(
        rf"{_NUM}\.{_NUM}\.(?:{_NUM}{_SUFFIX}|RC{_NUM}(?:\.{_NUM})?{_SUFFIX}|T{_NUM}(?:\.{_NUM}){{0,2}}(?:\.B{_NUM})?)",
        _FLAGS,
    )

    @property
    def is_prerelease(self) -> bool:
        """True for alpha, beta, ``-rc.N``, build, T and ``.pre`` versions.

        8.1.RC1 is none: up to 8.3 the quarterly releases are called RCn, and no 8.1.0 followed.
        """
        return self.final is not self

    @functools.cached_property
    def final(self) -> CannVersion:
        """The release that a pre-release leads to: 8.2.RC1 for 8.2.RC1.alpha003, 8.5.0 for 8.5.0-beta.1 and 8.5.T4.0.

        A release is its own.
        """
        (_, major), (_, minor), (rank, number), *rest = self.key
        if rank == _TEST:
            return CannVersion.parse(f"{major}.{minor}.0")
        if all(kind == _NUMBER for kind, _ in rest):
            return self
        name = f"RC{number}" if rank == _CANDIDATE else str(number)
        patch = f".{rest[0][1]}" if rest[0][0] == _NUMBER and rest[0][1] else ""
        return CannVersion.parse(f"{major}.{minor}.{name}{patch}")

    @property
    def release(self) -> tuple[int, int]:
        """(major, minor)."""
        return self.key[0][1], self.key[1][1]


_DOTTED = re.compile(
    rf"{_NUM}(?:\.{_NUM}){{0,4}}(?:\.(?:RC|T){_NUM}(?:\.{_NUM}){{0,2}})?{_SUFFIX}",
    _FLAGS,
)


class DriverVersion(Version):
    """The version of the NPU driver: 25.5.0, 24.1.rc1, 25.0.RC1.1."""

    what = "a driver version"
    forms = "25.5.0, 24.1.rc1, 25.0.rc1.1"
    pattern = _DOTTED


class FirmwareVersion(Version):
    """The version of the NPU firmware: 7.1.0.11.220."""

    what = "a firmware version"
    forms = "7.1.0.11.220, 7.2.99"
    pattern = _DOTTED


class ComponentVersion(Version):
    """The internal version of a CANN component: 7.7.0.1.238, 7.7.T20.0.B210, 8.5.0, 9.2.0-beta.1.

    Up to 8.3 its numbers are not those of CANN.
    """

    what = "a component version"
    forms = "7.7.0.1.238, 7.6.T9.0.B057, 9.2.0-beta.1"
    pattern = _DOTTED


_CLAUSE = re.compile(r"(>=|<=|==|!=|>|<)\s*(\S+)")


def _clauses(text: str, kind: type[V], example: str) -> Iterator[tuple[str, V]]:
    for part in text.split(","):
        found = _CLAUSE.fullmatch(part.strip())
        if not found:
            raise UsageError("BAD_SPECIFIER", f"{text!r:.200} is not a version specifier", hint=f"example: {example}")
        yield found[1], kind.parse(found[2])


_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    "==": operator.eq,
    "!=": operator.ne,
    ">": operator.gt,
    "<": operator.lt,
}


@dataclass(frozen=True)
class Judgement:
    """What a specifier says of a version. ``fit``: "yes", "prerelease" (only where pre-releases are allowed), "no"."""

    fit: str
    reason: str

    def accepted(self, *, allow_prerelease: bool) -> bool:
        return self.fit == "yes" or (self.fit == "prerelease" and allow_prerelease)


@dataclass(frozen=True)
class CannSpecifier:
    """Comma-separated clauses over CANN versions, such as ``>=8.5.0,<9.3.0`` (no wildcards).

    Pre-releases are neither taken nor refused silently: one is judged as the release it leads to, and where that
    fits, the answer is "prerelease" and the user decides. It fits without a question when the specifier names a
    pre-release of the same release (``>=9.1.0-beta.2`` takes 9.1.0-beta.3).
    """

    text: str
    clauses: tuple[tuple[str, CannVersion], ...]

    @staticmethod
    def parse(text: str) -> CannSpecifier:
        """Raises UsageError BAD_SPECIFIER, BAD_VERSION."""
        return CannSpecifier(text, tuple(_clauses(text, CannVersion, ">=8.5.0,<9.3.0")))

    def __str__(self) -> str:
        return self.text

    def judge(self, version: CannVersion) -> Judgement:
        """Does ``version`` satisfy every clause, and why or why not."""
        named = not version.is_prerelease or any(
            sign not in ("!=", "<") and bound.is_prerelease and bound.final == version.final
            for sign, bound in self.clauses
        )
        for sign, bound in self.clauses:
            subject = version if named or bound.is_prerelease else version.final
            if not _COMPARE[sign](subject, bound):
                which = "" if subject is version else f" is a pre-release of {subject}, which"
                return Judgement("no", f"CANN {version}{which} does not satisfy {sign}{bound}")
        if named:
            return Judgement("yes", f"CANN {version} satisfies {self}")
        final = version.final
        reason = f"CANN {version} is a pre-release of {final}; that satisfies {self}, which names no pre-release of it"
        return Judgement("prerelease", reason)

    def rejects(self, version: CannVersion, *, allow_prerelease: bool = False) -> str:
        """'' when ``version`` is taken, else the reason in words."""
        judgement = self.judge(version)
        return "" if judgement.accepted(allow_prerelease=allow_prerelease) else judgement.reason


@dataclass(frozen=True)
class DriverSpecifier:
    """Comma-separated clauses over driver versions, in their plain order."""

    text: str
    clauses: tuple[tuple[str, DriverVersion], ...]

    @staticmethod
    def parse(text: str) -> DriverSpecifier:
        """Raises UsageError BAD_SPECIFIER, BAD_VERSION."""
        return DriverSpecifier(text, tuple(_clauses(text, DriverVersion, ">=25.0.rc1,<26.0.0")))

    def __str__(self) -> str:
        return self.text

    def matches(self, version: DriverVersion) -> bool:
        return all(_COMPARE[sign](version, bound) for sign, bound in self.clauses)


# Lower-case Short_SoC_version of each SoC; the toolkit's platform_config ini is asked first, this is the fallback.
_UNITS: tuple[tuple[str, str], ...] = (
    (r"^Ascend910B[1-4](C|-1)?$", "ascend910b"),
    (r"^Ascend910_93\d\d$", "ascend910_93"),
    (r"^Ascend910_95\w*$", "ascend910_95"),
    (r"^Ascend950\w*$", "ascend950"),
    (r"^Ascend310P\d*$", "ascend310p"),
    (r"^Ascend310B\d*$", "ascend310b"),
    # The literal "Ascend910B" without a digit is the old A1 chip.
    (r"^Ascend910(A|B|ProA|ProB|PremiumA)?$", "ascend910"),
)


def compute_unit(soc: str) -> str:
    """Compute unit (build.sh ``-c``) of a SoC name such as Ascend910B3 or 910B3; '' when unknown (cann.md 3.4)."""
    name = soc if soc.lower().startswith("ascend") else "Ascend" + soc
    for pattern, unit in _UNITS:
        if re.match(pattern, name, re.IGNORECASE if "Pro" in pattern else 0):
            return unit
    return ""
