"""What the user allows a rollout: how it grows, how many hosts may fail, what is done then. And the cut into waves."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

from smallq_deploy.base.errors import SmallqError, UsageError, raise_problems

ON_FAIL = ("stop", "rollback-wave", "rollback-all")
WAVES = "1,5%,25%,100%"
_SHARE = re.compile(r"(\d{1,7})(?:(?:\.(\d{1,3}))?(%))?", re.ASCII)
_TIME = re.compile(r"(\d{1,6}(?:\.\d{1,3})?)\s*(s|m|h)?", re.ASCII)
_SECONDS = {"s": 1, "m": 60, "h": 3600}
_MAX_SOAK = 7 * 24 * 3600.0


@dataclass(frozen=True)
class Share:
    """A number of hosts, or a part of them: ``thousandths`` of a host, or of a per cent."""

    thousandths: int
    percent: bool = False

    @classmethod
    def parse(cls, text: str) -> Share:
        """``5`` or ``2.5%``. Raises ValueError."""
        found = _SHARE.fullmatch(text.strip())
        if not found:
            raise ValueError(f"{text!a:.40} is neither a number of hosts (5) nor a part of them (5%)")
        share = cls(int(found[1]) * 1000 + int((found[2] or "").ljust(3, "0")), bool(found[3]))
        if share.percent and share.thousandths > 100_000:
            raise ValueError(f"{text!a:.40} is more than all hosts")
        return share

    def of(self, total: int, *, up: bool = False) -> int:
        """How many of ``total`` hosts, whole ones only; ``up``: rounded up."""
        if not self.percent:
            return self.thousandths // 1000
        return -(-self.thousandths * total // 100_000) if up else self.thousandths * total // 100_000

    def __str__(self) -> str:
        return f"{self.thousandths / 1000:g}" + ("%" if self.percent else "")


NONE = Share(0)


@dataclass(frozen=True)
class Policy:
    """``waves``: sizes of the changed part of the fleet after each wave, the rest comes as a last one.

    ``max_fail``: how many hosts may fail in all, ``max_fail_wave`` in each wave (a part is one of that wave); one more
    stops the rollout. ``soak``: seconds between two waves. ``on_fail``: one of ON_FAIL. ``skip_unplannable``: hosts
    whose plan is impossible are left out, instead of nothing being done anywhere.
    """

    waves: tuple[Share, ...] = tuple(Share.parse(item) for item in WAVES.split(","))
    max_fail: Share = NONE
    max_fail_wave: Share | None = None
    soak: float = 0.0
    on_fail: str = "rollback-wave"
    skip_unplannable: bool = False

    @classmethod
    def parse(
        cls,
        *,
        waves: str = WAVES,
        max_fail: str = "0",
        max_fail_wave: str = "",
        soak: str = "0",
        on_fail: str = "rollback-wave",
        skip_unplannable: bool = False,
    ) -> Policy:
        """The policy of option texts. Raises UsageError BAD_WAVES, BAD_MAX_FAIL, BAD_SOAK, BAD_ON_FAIL; all at once."""
        problems: list[SmallqError] = []
        policy: dict[str, Any] = {"skip_unplannable": skip_unplannable}

        def read(name: str, text: str, parse: Callable[[str], Any], refuse: Callable[[str], UsageError]) -> None:
            try:
                policy[name] = parse(text)
            except ValueError as error:
                problems.append(refuse(f"--{name.replace('_', '-')}: {error}"))

        read("waves", waves, _waves, _bad_waves)
        read("max_fail", max_fail, Share.parse, _bad_limit)
        if max_fail_wave.strip():
            read("max_fail_wave", max_fail_wave, Share.parse, _bad_limit)
        read("soak", soak, _soak, _bad_soak)
        read("on_fail", on_fail, _on_fail, _bad_on_fail)
        raise_problems(problems)
        return cls(**policy)

    def to_dict(self) -> dict[str, Any]:
        """Texts that :meth:`from_dict` reads."""
        return {
            "waves": ",".join(map(str, self.waves)),
            "max_fail": str(self.max_fail),
            "max_fail_wave": "" if self.max_fail_wave is None else str(self.max_fail_wave),
            "soak": f"{self.soak:g}",
            "on_fail": self.on_fail,
            "skip_unplannable": self.skip_unplannable,
        }

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Policy:
        """The policy of :meth:`to_dict`. Raises as :meth:`parse`."""
        return cls.parse(**record)


def _waves(text: str) -> tuple[Share, ...]:
    shares = tuple(Share.parse(item) for item in text.split(","))
    for share in shares:
        if share.thousandths == 0:
            raise ValueError(f"a wave of {share} has no hosts")
    for before, after in pairwise(shares):
        if before.percent == after.percent and before.thousandths >= after.thousandths:
            raise ValueError(f"{after} after {before} does not grow")
        if before == Share(100_000, True):
            raise ValueError(f"nothing is left for {after} after 100%")
    return shares


def _soak(text: str) -> float:
    found = _TIME.fullmatch(text.strip())
    seconds = float(found[1]) * _SECONDS[found[2] or "s"] if found else math.inf
    if seconds > _MAX_SOAK:
        raise ValueError(f"{text!a:.40} is no time")
    return seconds


def _on_fail(text: str) -> str:
    if text not in ON_FAIL:
        raise ValueError(f"{text!a:.40} is not known")
    return text


def _bad_waves(why: str) -> UsageError:
    return UsageError("BAD_WAVES", why, hint=f"sizes of the fleet that grow, for example --waves {WAVES}")


def _bad_limit(why: str) -> UsageError:
    return UsageError("BAD_MAX_FAIL", why, hint="a number of hosts or a part of them, for example 3 or 1%")


def _bad_soak(why: str) -> UsageError:
    return UsageError("BAD_SOAK", why, hint="seconds, or 90s, 10m, 2h; at most a week")


def _bad_on_fail(why: str) -> UsageError:
    return UsageError("BAD_ON_FAIL", why, hint="one of " + ", ".join(ON_FAIL))


class Member(NamedTuple):
    """A host as the waves see it; hosts with the same ``shared`` label ('' for none) use one opp directory."""

    name: str
    shared: str = ""


@dataclass(frozen=True)
class Wave:
    """``change``: hosts to be changed. ``verify``: hosts that see what another one changed, and its name."""

    number: int
    change: tuple[str, ...]
    verify: Mapping[str, str]

    def __len__(self) -> int:
        return len(self.change) + len(self.verify)


def cut_waves(members: Sequence[Member], policy: Policy) -> tuple[Wave, ...]:
    """The waves, numbered from 1; every host is in one. The first host of a label is changed, the others are verified
    in the same wave or a later one. Each wave has at least one host."""
    ends: list[int] = []
    for share in policy.waves:
        ends.append(min(len(members), max(share.of(len(members), up=True), (ends[-1] if ends else 0) + 1)))
    leaders: dict[str, str] = {}
    for member in members:
        if member.shared:
            leaders.setdefault(member.shared, member.name)
    waves: list[Wave] = []
    start = 0
    for end in [*ends, len(members)]:
        if end > start:
            waves.append(_wave(len(waves) + 1, members[start:end], leaders))
            start = end
    return tuple(waves)


def _wave(number: int, members: Iterable[Member], leaders: Mapping[str, str]) -> Wave:
    change: list[str] = []
    verify: dict[str, str] = {}
    for name, shared in members:
        leader = leaders.get(shared, name)
        if leader == name:
            change.append(name)
        else:
            verify[name] = leader
    return Wave(number, tuple(change), verify)
