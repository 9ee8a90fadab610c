"""The fleet matrix: outliers first, faults in words, exit statuses, saved checks and what changed between two."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from smallq_deploy.base.errors import SmallqError
from smallq_deploy.cli.envelope import dump, make_envelope
from smallq_deploy.fleet.check.compare import compare
from smallq_deploy.fleet.check.matrix import Intended, Matrix
from smallq_deploy.fleet.check.saved import load, save
from smallq_deploy.fleet.hosts import Host
from smallq_deploy.fleet.node import Answer
from tests.support.fleetfacts import NOW, ODD, PACKAGE, RELEASE, answer, facts, fleet, matrix, unreachable


def one(now: float = NOW, intended: Intended | None = None, **changes: Any) -> Matrix:
    return Matrix.of([answer("npu1", **changes)], [Host("npu1")], now=now, intended=intended)


def codes(found: Matrix) -> list[str]:
    return [fault.code for fault in found.faults]


def test_a_fleet_that_is_alike_and_well() -> None:
    found = matrix(500)
    assert found.failure is None
    assert (found.outliers, found.faults, found.failed) == ((), (), ())
    assert found.norm is not None and found.norm.names == "npu[001-500]"
    assert found.summary == {"hosts": 500, "asked": 500, "failed": 0, "alike": 500, "differ": 0, "faulty": 0}


def test_two_hosts_that_differ_are_named_first_with_what_differs() -> None:
    odd = {"cann__version": "8.5.0", "live__built_for": "8.5.0"}
    found = matrix(500, lambda number: odd if number in (17, 203) else {})
    (group,) = found.outliers
    assert (group.names, [str(item) for item in group.differs]) == ("npu[017,203]", ["CANN 8.5.0 instead of 8.5.1"])
    assert found.norm is not None and len(found.norm.hosts) == 498
    failure = found.failure
    assert failure is not None and (failure.code, failure.exit_status) == ("FLEET_DIFFERS", 10)
    assert failure.message == "of 500 hosts, 2 hosts differ from the others"


def test_the_rarest_group_comes_first() -> None:
    found = matrix(10, lambda number: {"driver": "a"} if number == 1 else {"driver": "b"} if number < 4 else {})
    assert [len(group.hosts) for group in found.groups] == [7, 1, 2]


def test_of_two_equal_halves_the_norm_is_what_was_intended() -> None:
    hosts = [Host("a"), Host("b")]
    answers = [answer("a", live__release="other-1.0"), answer("b")]
    found = Matrix.of(answers, hosts, now=NOW, intended=Intended(release=RELEASE))
    assert found.norm is not None and found.norm.hosts == ("b",)
    assert [fault.hosts for fault in found.faults] == [("a",)]


@pytest.mark.parametrize(
    ("changes", "code", "words"),
    [
        (ODD[2], "NPU_UNHEALTHY", "NPU 0: Alarm"),
        (ODD[3], "DRIFT", "4 installed files differ (3 content, 1 missing)"),
        (ODD[5], "UNPROVEN", "no smoke test passed for what is live"),
        (ODD[6], "SHADOWED", "vendor mcsrf has the same operator and comes first"),
        (ODD[7], "OPEN_TRANSACTION", "an open transaction: install, switching"),
        ({"listed": False}, "NOT_LISTED", "config.ini does not name the vendor, so CANN does not look into it"),
        ({"live__built_for": "8.3.RC1"}, "CANN_CHANGED", "installed under CANN 8.3.RC1, which is 8.5.1 now"),
        ({"live__state": "removed"}, "REMOVED", "generation 3 should be live and is gone"),
        ({"smoke__verdict": "fail"}, "SMOKE_NOT_PASSED", "the last smoke test: fail"),
        ({"problem": {"code": "STORE_DAMAGED", "message": "the state is damaged"}}, "STORE_DAMAGED", "is damaged"),
    ],
)
def test_what_is_wrong_with_one_host(changes: dict[str, Any], code: str, words: str) -> None:
    found = one(**changes)
    assert codes(found) == [code]
    assert words in found.faults[0].text
    failure = found.failure
    assert failure is not None and failure.exit_status == 10


def test_health_that_nobody_told_is_unknown_and_no_fault() -> None:
    found = one(npus=[{"index": 0, "soc": "", "health": "unknown"}])
    assert found.failure is None


def test_nothing_installed_anywhere_is_uniform_unless_something_was_intended() -> None:
    nothing = {"state": "absent", "generation": None, "origin": "", "release": "", "package_sha256": "", "digest": ""}
    absent = {
        "live": {**facts("x")["live"], **nothing, "built_for": "", "proven": False},
        "smoke": None,
        "listed": False,
    }
    assert one(**absent).failure is None
    found = one(**absent, intended=Intended(RELEASE))
    assert [fault.text for fault in found.faults] == [f"nothing is installed instead of {RELEASE}"]


@pytest.mark.parametrize(
    ("intended", "words"),
    [
        (Intended(RELEASE, (PACKAGE,), ">=8.5.0,<9.0.0"), None),
        (Intended("smallq-flash-attention-2.0.0"), "is installed instead of smallq-flash-attention-2.0.0"),
        (Intended(RELEASE, ("ab" * 32,)), "package 5e5e5e5e5e5e is not one of the intended"),
        (Intended(cann=">=9.0.0"), "CANN 8.5.1 does not satisfy >=9.0.0"),
    ],
)
def test_compared_with_what_was_intended(intended: Intended, words: str | None) -> None:
    texts = [fault.text for fault in one(intended=intended).faults]
    assert len(texts) == (words is not None)
    assert words is None or words in texts[0]


@pytest.mark.parametrize(
    ("there", "seconds", "arrived", "words"),
    [
        (NOW, 0.2, NOW, ""),
        (NOW - 90, 100.0, NOW, ""),  # it may have been read at any time while we waited
        (NOW - 90, 2.0, NOW, "the clock is 1 min behind"),
        (NOW + 59, 2.0, NOW, ""),
        (NOW + 3700, 2.0, NOW, "the clock is 1 h ahead"),
        (NOW - 200, 2.0, NOW - 200, ""),  # it answered long before the check ended
    ],
)
def test_a_clock_is_right_when_it_lies_between_sending_and_arrival(
    there: float, seconds: float, arrived: float, words: str
) -> None:
    said = Answer("a", True, exit_status=0, data=facts("a", time=there), seconds=seconds)
    found = Matrix.of([said], [Host("a")], now=NOW, arrivals={"a": arrived})
    assert [fault.text for fault in found.faults] == [words] * bool(words)


def test_hosts_that_could_not_be_asked_are_rows_and_end_with_11() -> None:
    hosts = [Host("a"), Host("b"), Host("c")]
    found = Matrix.of([answer("a"), unreachable("b")], hosts, now=NOW)
    assert [(row.host, row.code) for row in found.failed] == [("b", "HOST_UNREACHABLE"), ("c", "NOT_ASKED")]
    failure = found.failure
    assert failure is not None and (failure.code, failure.exit_status) == ("HOSTS_FAILED", 11)
    assert failure.details["hosts"] == {"b": "HOST_UNREACHABLE", "c": "NOT_ASKED"}
    both = Matrix.of([answer("a", driver="x", listed=False), answer("c"), unreachable("b")], hosts, now=NOW).failure
    assert both is not None and both.exit_status == 11
    assert [problem.code for problem in both.problems] == ["HOSTS_FAILED", "FLEET_DIFFERS"]


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"npus": "many", "vendors": []},
        facts("a", npus=[1]),
        facts("a", arch=["x"]),
        facts("a", time="now"),
        facts("a", time=float("nan")),
        facts("a", live__generation=True),
        facts("a", live__generation=10**30),
        facts("a", load_priority=[{}]),
        facts("a", drift__kinds=[1]),
    ],
)
def test_an_answer_of_another_form_is_told_as_such(data: dict[str, Any]) -> None:
    found = Matrix.of([answer("a", data)], [Host("a")], now=NOW)
    assert [row.code for row in found.failed] == ["BAD_ANSWER"]


def test_what_a_host_says_is_cut() -> None:
    found = one(arch="x" * 10**6, kernel="\udcff" * 10)
    assert len(found.rows[0].arch) == 300
    json.dumps(found.to_dict()).encode()
    found.rows[0].kernel.encode()


def test_saved_and_loaded_again(tmp_path: Path) -> None:
    hosts, answers = fleet(60)
    before = Matrix.of(answers, hosts, now=NOW, inventory="npu.yaml", intended=Intended(RELEASE, (PACKAGE,), ">=8.5.0"))
    save(before, tmp_path / "check.json")
    after = load(tmp_path / "check.json")
    assert after == before
    assert after.to_dict() == before.to_dict()
    printed = tmp_path / "printed.json"
    printed.write_text(dump(make_envelope("fleet check", data=before.to_dict())))
    assert load(printed) == before


def spoil(key: str, value: Any) -> Callable[[dict[str, Any]], Any]:
    def change(record: dict[str, Any]) -> Any:
        return {**record, key: value}

    return change


@pytest.mark.parametrize(
    ("change", "code", "status"),
    [
        (spoil("schema_version", 2), "CHECK_NEWER", 2),
        (spoil("schema_version", "1"), "BAD_CHECK", 5),
        (spoil("schema_version", True), "BAD_CHECK", 5),
        (spoil("more", 1), "BAD_CHECK", 5),
        (spoil("kind", "x"), "BAD_CHECK", 5),
        (spoil("time", "now"), "BAD_CHECK", 5),
        (spoil("hosts", {}), "BAD_CHECK", 5),
        (spoil("hosts", [{"host": "a"}]), "BAD_CHECK", 5),
        (lambda r: {**r, "hosts": r["hosts"] * 2}, "BAD_CHECK", 5),
        (lambda r: {**r, "hosts": [{**r["hosts"][0], "npus": "8"}]}, "BAD_CHECK", 5),
        (lambda r: {**r, "hosts": [{**r["hosts"][0], "skew": "8"}]}, "BAD_CHECK", 5),
        (lambda r: {**r, "hosts": [{**r["hosts"][0], "foreign": [1]}]}, "BAD_CHECK", 5),
        (spoil("intended", {"release": 1, "packages": [], "cann": ""}), "BAD_CHECK", 5),
        (lambda r: [r], "BAD_CHECK", 5),
        (lambda r: {"schema_version": 1, "command": "fleet check"}, "BAD_CHECK", 5),
    ],
)
def test_a_file_that_is_no_check_is_refused(
    tmp_path: Path, change: Callable[[dict[str, Any]], Any], code: str, status: int
) -> None:
    path = tmp_path / "check.json"
    save(matrix(1), path)
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    with pytest.raises(SmallqError) as caught:
        load(path)
    assert (caught.value.code, caught.value.exit_status) == (code, status)
    assert str(path) in caught.value.message


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "text").write_bytes(b"\xff[")
    (tmp_path / "deep").write_text("[" * 100_000)
    for name, code in (("none", "CHECK_NOT_FOUND"), ("text", "BAD_CHECK"), ("deep", "BAD_CHECK"), ("", "IO_ERROR")):
        with pytest.raises(SmallqError) as caught:
            load(tmp_path / name)
        assert caught.value.code == code


def test_two_equal_checks_show_no_change() -> None:
    later = Matrix.of(
        [answer("npu1", time=NOW + 9000, smoke__age=10**6, opp__free_bytes=1)], [Host("npu1")], now=NOW + 9000
    )
    assert compare(one(), later).same


def test_equal_changes_are_told_together() -> None:
    new = {"live__release": "r-2.0", "live__digest": "aa" * 32}

    def install(number: int) -> dict[str, Any]:
        if number == 3:
            return {"npus": facts("x")["npus"][:7]}
        if number == 4:
            return {"live__generation": 9}
        return {**new, "live__generation": number + 5}  # numbers differ from host to host

    found = compare(matrix(10), matrix(10, install))
    assert [(item.names, [str(change) for change in item.changes]) for item in found.changed] == [
        ("npu003", ["NPUs 8 -> 7", "health 8 OK -> 7 OK"]),
        ("npu004", ["generation 3 -> 9"]),
        ("npu[001-002,005-010]", [f"release {RELEASE} -> r-2.0", "digest d1d1d1d1d1d1 -> aaaaaaaaaaaa"]),
    ]
    assert not found.unchanged and not found.same


def test_hosts_that_went_and_came_and_faults_that_came_and_went() -> None:
    hosts = [Host(name) for name in "abcd"]
    old = Matrix.of([answer("a", listed=False), answer("b"), answer("c"), answer("d")], hosts, now=NOW)
    new = Matrix.of(
        [answer("b", listed=False), unreachable("c"), answer("a"), answer("e")],
        [*hosts[:3], Host("e")],
        now=NOW,
    )
    found = compare(old, new)
    assert (found.gone, found.added) == (("d",), ("e",))
    assert [(item.hosts, str(item.changes[0])) for item in found.changed] == [(("c",), "answer ok -> HOST_UNREACHABLE")]
    assert [(fault.code, fault.hosts) for fault in found.appeared] == [("NOT_LISTED", ("b",))]
    assert [(fault.code, fault.hosts) for fault in found.mended] == [("NOT_LISTED", ("a",))]
    json.dumps(found.to_dict())
