"""One host of a check as a flat row: what its `facts` said, or why it could not be asked.

What a host says is not trusted: every value has its type and a longest length here, and nothing else is taken.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from smallq_deploy.fleet.hosts import Host
from smallq_deploy.fleet.node import Answer

LONGEST = 300  # characters of a text
_MOST = 20  # entries of a list
_WORDS = {"S": "size", "M": "mode", "5": "content", "L": "link"}  # letters of `verify`
T = TypeVar("T")


@dataclass(frozen=True)
class Row:
    """One host. With ``ok`` False only ``host``, ``groups``, ``code``, ``message``, ``hint`` and ``seconds`` count.

    '' and None mean unknown or not there. ``healthy`` NPUs said OK, ``unhealthy`` ones are told as ``3: Warning``;
    ``generation`` is the number live there; ``package`` a sha256; ``smoke_age`` and ``skew`` are seconds, the skew of
    the host's clock against this one (0 where the times agree as far as can be told); ``free`` bytes. ``problem`` is
    an error code of the host's own.
    """

    host: str
    groups: tuple[str, ...] = ()
    ok: bool = False
    code: str = ""
    message: str = ""
    hint: str = ""
    seconds: float = 0.0
    name: str = ""
    tool: str = ""
    arch: str = ""
    os: str = ""
    kernel: str = ""
    container: str = ""
    soc: str = ""
    npus: int = 0
    healthy: int = 0
    unhealthy: tuple[str, ...] = ()
    driver: str = ""
    firmware: str = ""
    cann: str = ""
    cann_arch: str = ""
    inner: str = ""
    remark: str = ""
    opp: str = ""
    shared: str = ""
    vendor: str = ""
    state: str = ""
    generation: int | None = None
    origin: str = ""
    release: str = ""
    package: str = ""
    digest: str = ""
    built_for: str = ""
    proven: bool = False
    listed: bool = False
    smoke: str = ""
    smoke_time: str = ""
    smoke_age: int | None = None
    drift: int = 0
    drift_kinds: str = ""
    foreign: tuple[str, ...] = ()
    clashes: tuple[str, ...] = ()
    shadowed: tuple[str, ...] = ()
    priority: str = ""
    transaction: str = ""
    processes: int = 0
    skew: float | None = None
    free: int = 0
    problem: str = ""
    problem_message: str = ""
    warnings: tuple[str, ...] = ()

    @property
    def installed(self) -> bool:
        """Is a vendor directory live, or should one be?"""
        return self.state not in ("", "absent")

    def to_dict(self) -> dict[str, Any]:
        return {key: list(value) if isinstance(value, tuple) else value for key, value in vars(self).items()}

    @staticmethod
    def from_dict(record: Mapping[str, Any]) -> Row:
        """The row of :meth:`to_dict`. Raises ValueError for anything else."""
        kinds = {item.name: str(item.type) for item in dataclasses.fields(Row)}
        if not isinstance(record, Mapping) or record.keys() != kinds.keys():
            names = ", ".join(sorted(set(record) ^ kinds.keys())[:5]) if isinstance(record, Mapping) else "no object"
            raise ValueError(f"a host's keys are not those of a check: {names:.200}")
        values = {name: _typed(name, record[name], kind) for name, kind in kinds.items()}
        if not values["host"]:
            raise ValueError("a host without a name")
        return Row(**values)


def _typed(name: str, value: Any, kind: str) -> Any:
    if value is None and kind.endswith("| None"):
        return None
    kind = kind.removesuffix(" | None")
    if kind == "tuple[str, ...]":
        if isinstance(value, list) and all(isinstance(item, str) for item in value):
            return tuple(value)
    elif kind == "float":
        if isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e18:
            return float(value)
    elif type(value).__name__ == kind:
        return value
    raise ValueError(f"{name} is {value!r:.60}, not {kind}")


def row_of(host: Host, answer: Answer | None, *, earliest: float, latest: float) -> Row:
    """The row of one host's answer to `facts`; ``earliest`` and ``latest`` bound the moment when its clock was read,
    by this machine's clock (epoch seconds)."""
    start = Row(host.name, host.groups)
    if answer is None:
        return dataclasses.replace(start, code="NOT_ASKED", message="it was not asked", hint="run the check again")
    start = dataclasses.replace(start, seconds=round(answer.seconds, 3))
    if not answer.ok:
        return dataclasses.replace(
            start,
            code=_cut(answer.code or "BAD_ANSWER"),
            message=_cut(answer.message),
            hint=_cut(answer.hint),
        )
    try:
        return _read(start, answer, earliest, latest)
    except (ValueError, TypeError, OverflowError) as error:
        return dataclasses.replace(
            start,
            code="BAD_ANSWER",
            message=_cut(f"its answer is not that of `facts`: {error}"),
            hint="does the host run another version of smallq-deploy?",
        )


def _read(start: Row, answer: Answer, earliest: float, latest: float) -> Row:
    data = answer.data
    system, cann, opp = _part(data, "os"), _part(data, "cann"), _part(data, "opp")
    live, smoke, drift, problem = (_part(data, name) for name in ("live", "smoke", "drift", "problem"))
    opened = _part(data, "transaction")
    npus = _records(data, "npus")
    vendors = _records(data, "vendors")
    operators = {_get(item, "name", str, ""): _texts(item, "clashes") for item in vendors}
    first = {_get(item, "name", str, "") for item in vendors if _get(item, "first", bool, False)}
    return dataclasses.replace(
        start,
        ok=True,
        name=_get(data, "host", str, ""),
        tool=_get(data, "tool", str, ""),
        arch=_get(data, "arch", str, ""),
        os=_get(system, "name", str, "") or _get(system, "id", str, ""),
        kernel=_get(data, "kernel", str, ""),
        container=_get(data, "container", str, ""),
        soc=_get(data, "soc", str, ""),
        npus=len(npus),
        healthy=sum(_get(npu, "health", str, "") == "OK" for npu in npus),
        unhealthy=tuple(
            f"{_get(npu, 'index', int, -1)}: {_get(npu, 'health', str, '')}"
            for npu in npus
            if _get(npu, "health", str, "") not in ("OK", "unknown", "")
        ),
        driver=_get(data, "driver", str, ""),
        firmware=_get(data, "firmware", str, ""),
        cann=_get(cann, "version", str, ""),
        cann_arch=_get(cann, "arch", str, ""),
        inner=_get(cann, "inner_version", str, ""),
        remark=_get(cann, "remark", str, ""),
        opp=_get(opp, "path", str, ""),
        shared=_get(opp, "shared", str, ""),
        vendor=_get(data, "vendor", str, ""),
        state=_get(live, "state", str, ""),
        generation=_get(live, "generation", int, None),
        origin=_get(live, "origin", str, ""),
        release=_get(live, "release", str, ""),
        package=_get(live, "package_sha256", str, ""),
        digest=_get(live, "digest", str, ""),
        built_for=_get(live, "built_for", str, ""),
        proven=_get(live, "proven", bool, False),
        listed=_get(data, "listed", bool, False),
        smoke=_get(smoke, "verdict", str, ""),
        smoke_time=_get(smoke, "time", str, ""),
        smoke_age=_get(smoke, "age", int, None),
        drift=_get(drift, "count", int, 0),
        drift_kinds=_cut(
            ", ".join(f"{count} {_WORDS.get(name, name)}" for name, count in sorted(_part(drift, "kinds").items()))
        ),
        foreign=tuple(sorted(operators)),
        clashes=tuple(sorted(name for name, names in operators.items() if names)),
        shadowed=tuple(sorted(name for name, names in operators.items() if names and name in first)),
        priority=_cut(", ".join(_texts(data, "load_priority"))),
        transaction=_cut(f"{_get(opened, 'action', str, '')}, {_get(opened, 'phase', str, '')}") if opened else "",
        processes=_get(data, "processes", int, 0),
        skew=_skew(_get(data, "time", float, None), earliest, latest),
        free=_get(opp, "free_bytes", int, 0),
        problem=_get(problem, "code", str, ""),
        problem_message=_get(problem, "message", str, ""),
        warnings=tuple(_cut(item) for item in answer.warnings[:_MOST]),
    )


def _skew(there: float | None, earliest: float, latest: float) -> float | None:
    """How far the host's clock lies outside the time in which it was read."""
    if there is None:
        return None
    if there < earliest:
        return round(there - earliest, 1)
    return round(max(0.0, there - latest), 1)


def _cut(text: str) -> str:
    """Not longer than a column can show, and without halves of characters."""
    text = text.encode("utf-8", "replace").decode("utf-8")
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"


def _get(record: Mapping[str, Any], name: str, kind: type[T], default: Any) -> Any:
    value = record.get(name)
    if value is None:
        return default
    if kind is float and type(value) is int:
        value = float(value)
    if type(value) is not kind:
        raise ValueError(f"{name} is {value!r:.60}, not {kind.__name__}")
    if isinstance(value, str):
        return _cut(value)
    if isinstance(value, (int, float)) and not abs(value) < 1e18:  # also what is no number
        raise ValueError(f"{name} is {value!r:.60}")
    return value


def _part(record: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = record.get(name)
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise ValueError(f"{name} is {value!r:.60}, not an object")
    return value


def _records(record: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    value = record.get(name)
    if not isinstance(value, list) or not all(isinstance(item, Mapping) for item in value):
        raise ValueError(f"{name} is {value!r:.60}, not a list of objects")
    return value[:1000]


def _texts(record: Mapping[str, Any], name: str) -> tuple[str, ...]:
    value = record.get(name)
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise ValueError(f"{name} is {value!r:.60}, not a list of texts")
    return tuple(_cut(item) for item in value[:_MOST])
