"""A check for spreadsheets, for Prometheus and on a terminal: complete, parseable, and harmless whatever hosts say."""

from __future__ import annotations

import csv
import html
import io
import re
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import pytest

from smallq_deploy.base.errors import SmallqError
from smallq_deploy.cli.fleet_check import check_blocks
from smallq_deploy.cli.render import plain_lines
from smallq_deploy.fleet.check.html import html_text, write_html
from smallq_deploy.fleet.check.matrix import Intended, Matrix
from smallq_deploy.fleet.check.prometheus import prometheus_text, write_prometheus
from smallq_deploy.fleet.check.spreadsheet import csv_text, write_csv
from smallq_deploy.fleet.hosts import Host
from tests.support.fleetfacts import NOW, RELEASE, answer, fleet, matrix, unreachable

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\"'&{{7*7}}<!--\n# HELP evil"


@pytest.fixture(scope="module")
def hundred() -> Matrix:
    hosts, answers = fleet(100)
    arrivals = {host.name: NOW for host in hosts}
    return Matrix.of(answers, hosts, now=NOW, arrivals=arrivals, inventory="npu.yaml", intended=Intended(RELEASE))


@pytest.fixture
def hostile() -> Matrix:
    said = answer("a", arch=HOSTILE, driver="=HYPERLINK(1)", kernel="\u202egnp", live__release="@SUM(A1)", soc="x\\")
    return Matrix.of([said, answer("b"), answer("c")], [Host(name) for name in "abc"], now=NOW, inventory=HOSTILE)


def test_csv_has_every_host_and_column(hundred: Matrix) -> None:
    rows = list(csv.DictReader(io.StringIO(csv_text(hundred))))
    assert [row["host"] for row in rows] == [row.host for row in hundred.rows]
    by_host = {row["host"]: row for row in rows}
    for row in hundred.rows:
        line = by_host[row.host]
        assert line["asked"] == ("yes" if row.ok else "no")
        assert (line["cann"], line["code"]) == (row.cann, row.code)
        assert bool(line["differs"]) == (row.host in hundred.differs_by_host)
        assert bool(line["wrong"]) == (row.host in hundred.faults_by_host)
    assert {row["clock_skew_seconds"] for row in rows} == {"0.0", "339.0", ""}


def test_no_cell_is_computed_by_a_spreadsheet(hostile: Matrix) -> None:
    rows = list(csv.reader(io.StringIO(csv_text(hostile))))
    cells = [cell for row in rows for cell in row]
    assert "'=HYPERLINK(1)" in cells and "'@SUM(A1)" in cells
    assert not any(cell.lstrip().startswith(("=", "+", "@", "\t")) for cell in cells)
    assert len({len(row) for row in rows}) == 1


_LABEL = r'[a-z_]+="(?:[^"\\\n]|\\["\\n])*"'
_SAMPLE = re.compile(rf"([a-z_]+)(?:\{{({_LABEL}(?:,{_LABEL})*)\}})? (-?[0-9.e+]+)")


def parsed(text: str) -> dict[tuple[str, str], float]:
    """Prometheus' text format, read strictly: (name, labels) -> value. Raises ValueError."""
    samples: dict[tuple[str, str], float] = {}
    described: dict[str, set[str]] = {}
    closed: set[str] = set()
    current = ""
    if not text.endswith("\n"):
        raise ValueError("no newline at the end")
    for line in text.splitlines():
        if line.startswith("# "):
            _, kind, name, _ = line.split(" ", 3)
            if kind in described.setdefault(name, set()):
                raise ValueError(f"{kind} of {name} twice")
            described[name].add(kind)
            continue
        found = _SAMPLE.fullmatch(line)
        if found is None:
            raise ValueError(f"no sample: {line!r}")
        name, labels = found[1], found[2] or ""
        if described.get(name) != {"HELP", "TYPE"} or (name, labels) in samples or name in closed:
            raise ValueError(f"{name}: no HELP and TYPE, twice, or not together")
        if name != current:
            closed.add(current)
            current = name
        samples[name, labels] = float(found[3])
    return samples


@pytest.mark.parametrize(
    "text",
    [
        "a 1\n",
        "# HELP a b\n# TYPE a gauge\na 1",
        "# HELP a b\n# TYPE a gauge\na 1\na 1\n",
        '# HELP a b\n# TYPE a gauge\na{x="1\n"} 1\n',
        '# HELP a b\n# TYPE a gauge\na{x="\\q"} 1\n',
        "# HELP a b\n# TYPE a gauge\na one\n",
    ],
)
def test_the_reader_of_this_test_refuses_what_prometheus_refuses(text: str) -> None:
    with pytest.raises(ValueError):
        parsed(text)


def test_prometheus_has_one_sample_a_host_and_gauge(hundred: Matrix) -> None:
    samples = parsed(prometheus_text(hundred))
    prefix = "smallq_deploy_"
    assert samples[prefix + "check_timestamp_seconds", ""] == NOW
    for row in hundred.rows:
        label = f'host="{row.host}"'
        assert samples[prefix + "host_asked", label] == row.ok
        if row.ok:
            assert samples[prefix + "host_npus_unhealthy", label] == len(row.unhealthy)
            assert samples[prefix + "host_drift", label] == row.drift
            assert samples[prefix + "host_outlier", label] == (row.host in hundred.differs_by_host)
        else:
            assert (prefix + "host_drift", label) not in samples
    assert sum(value for (name, _), value in samples.items() if name == prefix + "hosts") >= 100


def test_prometheus_labels_are_escaped(hostile: Matrix) -> None:
    samples = parsed(prometheus_text(hostile))
    (labels,) = [labels for name, labels in samples if name.endswith("host_info") and 'host="a"' in labels]
    assert 'soc="x\\\\"' in labels and '\\"' in labels and "\\n# HELP evil" in labels


def test_reports_replace_the_file_as_a_whole(tmp_path: Path, hundred: Matrix) -> None:
    path = tmp_path / "smallq.prom"
    path.write_text("old")
    before = path.stat().st_ino
    write_prometheus(hundred, path)
    assert path.stat().st_ino != before
    assert [item.name for item in tmp_path.iterdir()] == ["smallq.prom"]
    assert path.stat().st_mode & 0o777 == 0o644  # node_exporter is another user
    for write in (write_html, write_csv, write_prometheus):
        with pytest.raises(SmallqError) as caught:
            write(hundred, tmp_path / "none" / "report")
        assert "report" in caught.value.message


def test_terminal_shows_outliers_first_and_every_host_when_asked(hundred: Matrix) -> None:
    lines = plain_lines(check_blocks(hundred, every=False))
    text = "\n".join(lines)
    assert hundred.norm is not None
    assert text.index("differ:") < text.index("hosts like this: npu")
    assert max(map(len, lines)) < 160 < len(hundred.norm.names), "a long list of hosts is cut"
    assert len(lines) < 60
    for group in hundred.outliers:
        assert group.names in text
    assert "HOST_UNREACHABLE" in text
    every = plain_lines(check_blocks(hundred, every=True))
    assert all(any(line.startswith(row.host) for line in every) for row in hundred.rows)


def test_terminal_of_a_fleet_that_is_alike() -> None:
    text = "\n".join(plain_lines(check_blocks(matrix(9), every=False)))
    assert "all hosts like this: npu[001-009]" in text
    assert "differ" not in text and "not as it should be" not in text


def test_every_report_of_a_fleet_without_an_answer() -> None:
    found = Matrix.of([unreachable("a")], [Host("a")], now=NOW)
    assert "a: no connection within 10 s [HOST_UNREACHABLE]" in "\n".join(plain_lines(check_blocks(found, every=False)))
    assert "HOST_UNREACHABLE" in html_text(found)
    assert "HOST_UNREACHABLE" in csv_text(found)
    assert parsed(prometheus_text(found))["smallq_deploy_host_asked", 'host="a"'] == 0


class Seen(HTMLParser):
    """The elements and attributes that a browser would see."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: Counter[str] = Counter()
        self.attributes: set[str] = set()
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes |= {name for name, _ in attrs}


def test_page_holds_nothing_that_hosts_said_as_markup(hostile: Matrix) -> None:
    page = html_text(hostile)
    seen = Seen(page)
    assert seen.tags["script"] == 2 and not seen.tags["img"]
    assert Seen("<img src=x onerror=y>").attributes == {"src", "onerror"}  # it would be noticed
    assert not {name for name in seen.attributes if name.startswith("on") or name in ("src", "href", "style")}
    assert "{{7*7}}" in page and "\u202e" not in page
    style = page.partition("<style>")[2].partition("</style>")[0]
    assert not re.search(r"url\(|@import", style)
    assert "default-src 'none'" in html.unescape(page)
