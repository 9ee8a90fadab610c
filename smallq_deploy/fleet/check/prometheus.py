"""The matrix in Prometheus' text format, for the textfile collector of node_exporter."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from smallq_deploy.base.visible import visible
from smallq_deploy.fleet.check.columns import BY_KEY
from smallq_deploy.fleet.check.matrix import Matrix
from smallq_deploy.fleet.check.rows import Row
from smallq_deploy.fleet.check.saved import write_report

_PREFIX = "smallq_deploy_"
_INFO = ("arch", "soc", "driver", "firmware", "cann", "inner", "remark", "state", "release", "package", "digest")

# name, help, value of a host that answered (None: no sample)
_GAUGES: tuple[tuple[str, str, Callable[[Row], float | None]], ...] = (
    ("host_npus", "NPUs that the host shows.", lambda row: row.npus),
    ("host_npus_unhealthy", "NPUs whose health is not OK.", lambda row: len(row.unhealthy)),
    ("host_generation", "Number of the live generation.", lambda row: row.generation),
    ("host_proven", "1 when a smoke test passed for what is live.", lambda row: int(row.smoke == "pass")),
    ("host_smoke_age_seconds", "Age of the last smoke test.", lambda row: row.smoke_age),
    ("host_drift", "Installed files that are not as installed.", lambda row: row.drift),
    ("host_open_transaction", "1 when a transaction is open.", lambda row: int(bool(row.transaction))),
    ("host_foreign_vendors", "Other vendor directories beside ours.", lambda row: len(row.foreign)),
    ("host_clock_skew_seconds", "How far the clock is ahead, as far as can be told.", lambda row: row.skew),
    ("host_free_bytes", "Free space where the operator is installed.", lambda row: row.free),
)


def prometheus_text(matrix: Matrix) -> str:
    """One sample a host and gauge; no time stamps, which the textfile collector refuses."""
    return "".join(f"{line}\n" for line in _lines(matrix))


def write_prometheus(matrix: Matrix, path: Path) -> None:
    """Replace ``path`` as a whole: the collector may read at any time. Raises the typed form of an OSError."""
    write_report(path, prometheus_text(matrix))


def _lines(matrix: Matrix) -> Iterator[str]:
    yield from _head("check_timestamp_seconds", "When the check ended.")
    yield f"{_PREFIX}check_timestamp_seconds {_number(matrix.time)}"
    yield from _head("hosts", "Hosts of the check, by what was found.")
    for kind in ("failed", "alike", "differ", "faulty"):
        yield f'{_PREFIX}hosts{{kind="{kind}"}} {matrix.summary[kind]}'
    yield from _head("host_asked", "1 when the host could be asked.")
    for row in matrix.rows:
        yield _sample("host_asked", row.host, int(row.ok))
    yield from _head("host_outlier", "1 when the host differs from most others.")
    for row in matrix.asked:
        yield _sample("host_outlier", row.host, int(row.host in matrix.differs_by_host))
    yield from _head("host_faults", "How many things are wrong with the host.")
    for row in matrix.asked:
        yield _sample("host_faults", row.host, len(matrix.faults_by_host.get(row.host, ())))
    for name, text, value in _GAUGES:
        yield from _head(name, text)
        for row in matrix.asked:
            number = value(row)
            if number is not None:
                yield _sample(name, row.host, number)
    yield from _head("host_info", "Always 1; the labels say what the host is.")
    for row in matrix.asked:
        yield _sample("host_info", row.host, 1, {key: BY_KEY[key].text(row) for key in _INFO})


def _head(name: str, text: str) -> Iterator[str]:
    yield f"# HELP {_PREFIX}{name} {text}"
    yield f"# TYPE {_PREFIX}{name} gauge"


def _sample(name: str, host: str, value: float, labels: dict[str, str] | None = None) -> str:
    pairs = ",".join(f'{key}="{_escaped(text)}"' for key, text in {"host": host, **(labels or {})}.items())
    return f"{_PREFIX}{name}{{{pairs}}} {_number(value)}"


def _number(value: float) -> str:
    return repr(value) if isinstance(value, int) or value != int(value) else str(int(value))


def _escaped(text: str) -> str:
    return visible(text, lines=True).replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
