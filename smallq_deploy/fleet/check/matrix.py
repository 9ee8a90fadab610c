"""The fleet as one matrix: which hosts are alike, what differs, what is wrong, and which could not be asked."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from smallq_deploy.base.errors import DifferencesError, HostsFailedError, Problems, SmallqError
from smallq_deploy.base.versions import CannSpecifier, CannVersion
from smallq_deploy.fleet.check.columns import BY_KEY, MAX_SKEW, UNIFORM, duration
from smallq_deploy.fleet.check.rows import Row, row_of
from smallq_deploy.fleet.hosts import Host
from smallq_deploy.fleet.inventory.ranges import compress
from smallq_deploy.fleet.node import Answer

_NAMED = 20  # hosts that an error message names
NOTHING = "nothing"  # how an empty value is called


class Arrivals:
    """Notes when each answer came: ``ask(..., on_answer=arrivals)``. Without it no clock can be judged closely."""

    def __init__(self) -> None:
        self.times: dict[str, float] = {}

    def __call__(self, answer: Answer) -> None:
        self.times[answer.host] = time.time()


@dataclass(frozen=True)
class Intended:
    """What should be installed: a release's id, the sha256 of its packages and the CANN versions it is for; '' and ()
    are not compared."""

    release: str = ""
    packages: tuple[str, ...] = ()
    cann: str = ""

    def faults(self, row: Row) -> Iterator[tuple[str, str]]:
        if self.release and row.release != self.release:
            what = row.release or ("nothing" if not row.installed else row.origin or "an unknown tree")
            yield "NOT_INTENDED", f"{what} is installed instead of {self.release}"
        elif self.packages and row.package not in self.packages:
            yield "NOT_INTENDED", f"package {row.package[:12] or NOTHING} is not one of the intended"
        if self.cann and row.cann:
            reason = _rejects(self.cann, row.cann)
            if reason:
                yield "CANN_NOT_INTENDED", reason

    def to_dict(self) -> dict[str, Any]:
        return {"release": self.release, "packages": list(self.packages), "cann": self.cann}


@dataclass(frozen=True)
class Difference:
    """One column in which hosts differ from the norm."""

    column: str  # its key
    value: str
    norm: str

    def __str__(self) -> str:
        return f"{BY_KEY[self.column].title} {self.value or NOTHING} instead of {self.norm or NOTHING}"

    def to_dict(self) -> dict[str, str]:
        return {"column": self.column, "value": self.value, "norm": self.norm}


@dataclass(frozen=True)
class Group:
    """Hosts that are equal in every column that should be uniform; ``differs`` is () for the norm."""

    hosts: tuple[str, ...]
    values: Mapping[str, str]
    differs: tuple[Difference, ...] = ()

    @cached_property
    def names(self) -> str:
        """The hosts, as a short list."""
        return compress(self.hosts)

    def to_dict(self) -> dict[str, Any]:
        return {
            "hosts": list(self.hosts),
            "names": self.names,
            "values": dict(self.values),
            "differs": [item.to_dict() for item in self.differs],
        }


@dataclass(frozen=True)
class Fault:
    """Something wrong, with the hosts of which it is true in the same words."""

    code: str
    text: str
    hosts: tuple[str, ...]

    @cached_property
    def names(self) -> str:
        """The hosts, as a short list."""
        return compress(self.hosts)

    def to_dict(self) -> dict[str, Any]:
        return {"code": self.code, "text": self.text, "hosts": list(self.hosts), "names": self.names}


@dataclass(frozen=True)
class Matrix:
    """A check of a fleet. ``time`` is when it ended (epoch seconds), ``inventory`` what the hosts were taken from."""

    rows: tuple[Row, ...]
    time: float
    inventory: str = ""
    intended: Intended = field(default_factory=Intended)

    @staticmethod
    def of(
        answers: Sequence[Answer],
        hosts: Iterable[Host],
        *,
        now: float,
        began: float | None = None,
        arrivals: Mapping[str, float] | None = None,
        intended: Intended | None = None,
        inventory: str = "",
    ) -> Matrix:
        """The matrix of answers to `facts`; a host without an answer is a row too.

        ``now`` and ``began`` (epoch seconds) are the end and the start of asking; ``arrivals`` (of :class:`Arrivals`)
        when each answer came: a host's clock is right when it lies between sending and arrival.
        """
        found = {answer.host: answer for answer in answers}
        times = arrivals or {}
        longest = max((answer.seconds for answer in answers), default=0.0)
        rows = []
        for host in hosts:
            answer = found.get(host.name)
            latest = times.get(host.name, now)
            if host.name in times and answer is not None:
                earliest = latest - answer.seconds
            else:
                earliest = began if began is not None else now - longest
            # A host's own clock is told in milliseconds, and ours may be set while we wait.
            rows.append(row_of(host, answer, earliest=earliest - 1, latest=latest + 1))
        return Matrix(tuple(rows), now, inventory, intended or Intended())

    @cached_property
    def failed(self) -> tuple[Row, ...]:
        """Hosts that could not be asked, or whose command failed."""
        return tuple(row for row in self.rows if not row.ok)

    @cached_property
    def asked(self) -> tuple[Row, ...]:
        return tuple(row for row in self.rows if row.ok)

    @cached_property
    def failures(self) -> tuple[Fault, ...]:
        """The failed hosts, grouped by what was said of them."""
        return _grouped((row.host, row.code, row.message) for row in self.failed)

    @cached_property
    def groups(self) -> tuple[Group, ...]:
        """Equal hosts together, the norm (most hosts) first, then from few to many: what is rare is looked at first."""
        found: dict[tuple[str, ...], list[Row]] = {}
        for row in self.asked:
            found.setdefault(tuple(column.text(row) for column in UNIFORM), []).append(row)
        if not found:
            return ()
        wanted = Counter({key: len(rows) for key, rows in found.items()})
        right = {key: not any(True for _ in self.intended.faults(rows[0])) for key, rows in found.items()}
        norm = max(found, key=lambda key: (wanted[key], right[key]))
        groups = []
        for key in sorted(found, key=lambda key: (key != norm, wanted[key])):
            values = {column.key: value for column, value in zip(UNIFORM, key, strict=True)}
            differs = tuple(
                Difference(column.key, value, usual)
                for column, value, usual in zip(UNIFORM, key, norm, strict=True)
                if value != usual
            )
            groups.append(Group(tuple(row.host for row in found[key]), values, differs))
        return tuple(groups)

    @property
    def norm(self) -> Group | None:
        return self.groups[0] if self.groups else None

    @property
    def outliers(self) -> tuple[Group, ...]:
        return self.groups[1:]

    @cached_property
    def faults(self) -> tuple[Fault, ...]:
        """What is wrong, whether hosts are alike or not; what few hosts have comes first."""
        return _grouped((row.host, code, text) for row in self.asked for code, text in self._faults_of(row))

    @cached_property
    def faults_by_host(self) -> Mapping[str, tuple[str, ...]]:
        """host -> what is wrong with it, in words."""
        found: dict[str, list[str]] = {}
        for fault in self.faults:
            for host in fault.hosts:
                found.setdefault(host, []).append(fault.text)
        return {host: tuple(texts) for host, texts in found.items()}

    @cached_property
    def differs_by_host(self) -> Mapping[str, tuple[Difference, ...]]:
        """host -> how it differs from the norm, for the hosts that do."""
        return {host: group.differs for group in self.outliers for host in group.hosts}

    def _faults_of(self, row: Row) -> Iterator[tuple[str, str]]:
        yield from _faults(row)
        yield from self.intended.faults(row)

    @property
    def failure(self) -> SmallqError | None:
        """None where all hosts were asked, are alike and well.

        HostsFailedError HOSTS_FAILED (11), DifferencesError FLEET_DIFFERS (10), or both with the status of the first.
        """
        problems: list[SmallqError] = []
        if self.failed:
            named = [f"{row.host}: {row.code}" for row in self.failed[:_NAMED]]
            more = f" and {len(self.failed) - _NAMED} more" if len(self.failed) > _NAMED else ""
            details = {"hosts": {row.host: row.code for row in self.failed}}
            problems.append(
                HostsFailedError(
                    "HOSTS_FAILED",
                    f"{len(self.failed)} of {len(self.rows)} hosts could not be asked ({', '.join(named)}{more})",
                    hint=self.failed[0].hint,
                    details=details,
                )
            )
        if self.outliers or self.faults:
            unlike = len({host for group in self.outliers for host in group.hosts})
            wrong = len(self.faults_by_host)
            parts = [f"{_count(unlike)} differ{'s' * (unlike == 1)} from the others"] if unlike else []
            parts += [f"something is wrong on {_count(wrong)}"] if wrong else []
            problems.append(
                DifferencesError(
                    "FLEET_DIFFERS",
                    f"of {_count(len(self.asked))}, {' and '.join(parts)}",
                    hint="the hosts and what differs are listed above; --all shows every host",
                    details={"outliers": unlike, "faults": [fault.code for fault in self.faults]},
                )
            )
        if not problems:
            return None
        return problems[0] if len(problems) == 1 else Problems(problems)

    @property
    def summary(self) -> dict[str, int]:
        return {
            "hosts": len(self.rows),
            "asked": len(self.asked),
            "failed": len(self.failed),
            "alike": len(self.norm.hosts) if self.norm else 0,
            "differ": sum(len(group.hosts) for group in self.outliers),
            "faulty": len(self.faults_by_host),
        }

    def to_dict(self) -> dict[str, Any]:
        """Everything, for --json; :func:`smallq_deploy.fleet.saved.load` reads it back."""
        return {
            "time": round(self.time, 3),
            "inventory": self.inventory,
            "intended": self.intended.to_dict(),
            "summary": self.summary,
            "norm": self.norm.to_dict() if self.norm else None,
            "outliers": [group.to_dict() for group in self.outliers],
            "faults": [fault.to_dict() for fault in self.faults],
            "failures": [fault.to_dict() for fault in self.failures],
            "hosts": [row.to_dict() for row in self.rows],
        }


def _count(number: int) -> str:
    return f"{number} host{'s' * (number != 1)}"


def _grouped(found: Iterable[tuple[str, str, str]]) -> tuple[Fault, ...]:
    together: dict[tuple[str, str], list[str]] = {}
    for host, code, text in found:
        together.setdefault((code, text), []).append(host)
    faults = [Fault(code, text, tuple(hosts)) for (code, text), hosts in together.items()]
    return tuple(sorted(faults, key=lambda fault: (len(fault.hosts), fault.code, fault.text)))


def _faults(row: Row) -> Iterator[tuple[str, str]]:
    """What is wrong with one host by itself."""
    if row.problem:
        yield row.problem, row.problem_message or row.problem
    if row.cann_arch not in ("", row.arch):
        yield "ARCH_DIFFERS", f"the toolkit is for {row.cann_arch}, the machine is {row.arch}"
    if row.unhealthy:
        yield "NPU_UNHEALTHY", f"NPU {', '.join(row.unhealthy)}"
    if row.transaction:
        yield "OPEN_TRANSACTION", f"an open transaction: {row.transaction}"
    if row.state == "removed":
        yield "REMOVED", f"generation {row.generation} should be live and is gone"
    elif row.drift:
        yield "DRIFT", f"{row.drift} installed files differ" + (f" ({row.drift_kinds})" if row.drift_kinds else "")
    if row.state == "unknown":
        yield "UNKNOWN_TREE", "a vendor directory that was not installed by smallq-deploy"
    if row.state in ("current", "changed"):
        if row.smoke and row.smoke != "pass":
            yield "SMOKE_NOT_PASSED", f"the last smoke test: {row.smoke}"
        elif not row.proven and row.smoke != "pass" and row.origin != "adopted":
            yield "UNPROVEN", "no smoke test passed for what is live"
        if row.built_for and row.cann and row.built_for != row.cann:
            yield "CANN_CHANGED", f"installed under CANN {row.built_for}, which is {row.cann} now"
    if row.state in ("current", "changed", "unknown") and not row.listed:
        yield "NOT_LISTED", "config.ini does not name the vendor, so CANN does not look into it"
    if row.shadowed:
        yield "SHADOWED", f"vendor {', '.join(row.shadowed)} has the same operator and comes first"
    if row.skew is not None and abs(row.skew) > MAX_SKEW:
        way = "ahead" if row.skew > 0 else "behind"
        yield "CLOCK_SKEW", f"the clock is {duration(abs(row.skew))} {way}"


def _rejects(specifier: str, version: str) -> str:
    try:
        return CannSpecifier.parse(specifier).rejects(CannVersion.parse(version), allow_prerelease=True)
    except SmallqError as error:
        return error.message
