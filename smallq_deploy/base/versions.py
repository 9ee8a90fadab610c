"""CANN versions and specifiers, compute units. Forms and order: cann.md 2.3; units: cann.md 3.4."""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass

from smallq_deploy.base.errors import UsageError

_VERSION = re.compile(
    r"""^(?P<major>\d+)\.(?P<minor>\d+)\.
        (?:(?P<patch>\d+)|RC(?P<rc>\d+)|T(?P<t>\d+)(?P<tail>(?:\.\d+)*))
        (?:[.-](?P<kind>alpha|beta|rc)\.?(?P<n>\d+))?
        (?P<pre>\.pre)?$""",
    re.VERBOSE | re.IGNORECASE,
)
_KINDS = {"alpha": 0, "beta": 1, "rc": 2}


@functools.total_ordering
@dataclass(frozen=True, eq=False)
class CannVersion:
    """A CANN version such as 8.1.RC1, 8.2.RC1.alpha003, 8.5.0-beta.1 or 8.5.0.

    Order: X.Y.T* < X.Y.RCn.alphaK < X.Y.RCn < X.Y.RC(n+1) < X.Y.0.alphaK < X.Y.0-beta.K < X.Y.0-rc.K < X.Y.0 < X.Y.1.
    ``str()`` gives back the text that was parsed.
    """

    text: str
    key: tuple[int, ...]

    @staticmethod
    def parse(text: str) -> CannVersion:
        """Raises UsageError BAD_VERSION for anything that is no CANN version."""
        found = _VERSION.match(text.strip())
        if not found:
            raise UsageError(
                "BAD_VERSION",
                f"{text!r} is not a CANN version",
                hint="forms: 8.1.RC1, 8.5.0, 8.5.0-beta.1, 8.2.RC1.alpha003",
            )
        if found["t"] is not None:
            tail = [int(part) for part in found["tail"].split(".") if part]
            stage = (0, int(found["t"]), tail[0] if tail else 0)
        elif found["rc"] is not None:
            stage = (1, int(found["rc"]), 0)
        else:
            stage = (2, int(found["patch"]), 0)
        suffix = (_KINDS[found["kind"].lower()], int(found["n"])) if found["kind"] else (3, 0)
        key = (int(found["major"]), int(found["minor"]), *stage, *suffix, 0 if found["pre"] else 1)
        return CannVersion(text.strip(), key)

    @property
    def is_prerelease(self) -> bool:
        """True for alpha, beta, rc, RCn, T and .pre builds."""
        return self.key[2] != 2 or self.key[5] != 3 or self.key[7] == 0

    @property
    def release(self) -> tuple[int, int]:
        """(major, minor)."""
        return self.key[0], self.key[1]

    def __str__(self) -> str:
        return self.text

    def __eq__(self, other: object) -> bool:
        return isinstance(other, CannVersion) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)

    def __lt__(self, other: CannVersion) -> bool:
        return self.key < other.key


_CLAUSE = re.compile(r"^(>=|<=|==|!=|>|<)\s*(\S+)$")


@dataclass(frozen=True)
class CannSpecifier:
    """Comma-separated clauses such as ``>=8.5.0,<10``-like bounds over CannVersion (no wildcards)."""

    text: str
    clauses: tuple[tuple[str, CannVersion], ...]

    @staticmethod
    def parse(text: str) -> CannSpecifier:
        """Raises UsageError BAD_SPECIFIER."""
        clauses = []
        for part in text.split(","):
            found = _CLAUSE.match(part.strip())
            if not found:
                raise UsageError(
                    "BAD_SPECIFIER", f"{text!r} is not a version specifier", hint="example: >=8.5.0,<9.3.0"
                )
            clauses.append((found[1], CannVersion.parse(found[2])))
        return CannSpecifier(text, tuple(clauses))

    def __str__(self) -> str:
        return self.text

    def rejects(self, version: CannVersion) -> str:
        """'' when ``version`` satisfies every clause, else the reason in words."""
        for operator, bound in self.clauses:
            good = {
                ">=": version >= bound,
                "<=": version <= bound,
                "==": version == bound,
                "!=": version != bound,
                ">": version > bound,
                "<": version < bound,
            }[operator]
            if not good:
                return f"CANN {version} does not satisfy {operator}{bound}"
        return ""


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
