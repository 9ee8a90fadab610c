"""--limit, and whether names resolve."""

from __future__ import annotations

from pathlib import Path

import pytest

from smallq_deploy.base.errors import SmallqError
from smallq_deploy.fleet.hosts import Host
from smallq_deploy.fleet.inventory.load import load_inventory
from smallq_deploy.fleet.inventory.names import check_names
from smallq_deploy.fleet.inventory.ranges import compress, expand_list

TEXT = """\
schema: 1
hosts:
  npu[001-020]:
  login1:
  fe80::1:
groups:
  rack1: {members: ["npu[001-010]"]}
  rack2: {members: ["npu[011-020]"]}
  room: {members: [rack1, rack2]}
  ready: {members: ["npu[005-015]"]}
  empty: {members: []}
"""


@pytest.fixture
def lab(tmp_path: Path) -> Path:
    path = tmp_path / "lab.yaml"
    path.write_text(TEXT)
    return path


@pytest.mark.parametrize(
    ("limit", "expected"),
    [
        ([], "npu[001-020],login1,fe80::1"),
        (["all"], "npu[001-020],login1,fe80::1"),
        (["*"], "npu[001-020],login1,fe80::1"),
        (["npu003"], "npu003"),
        (["npu020,npu001"], "npu001,npu020"),  # in the inventory's order
        (["npu001", "npu003"], "npu001,npu003"),
        (["rack1"], "npu[001-010]"),
        (["rack1:rack2"], "npu[001-020]"),
        (["rack*"], "npu[001-020]"),
        (["npu00?"], "npu[001-009]"),
        (["npu[001-003,005]"], "npu[001-003,005]"),
        (["npu0[0-1]1"], "npu001,npu011"),
        (["npu[0-1]1*", "login*"], "npu[010-019],login1"),
        (["npu0[0-1]*,login1"], "npu[001-019],login1"),
        (["room:!rack1"], "npu[011-020]"),
        (["!rack1:room"], "npu[011-020]"),
        (["rack1:&ready"], "npu[005-010]"),
        (["room:&ready:!npu007:!npu01?"], "npu[005-006],npu[008-009]"),
        (["!room"], "login1,fe80::1"),
        (["&ready"], "npu[005-015]"),
        (["fe80::1"], "fe80::1"),
        (["fe80::1,npu001:npu002"], "npu[001-002],fe80::1"),
        (["all,!fe80::1"], "npu[001-020],login1"),
        (["all:!empty"], "npu[001-020],login1,fe80::1"),
        ([" npu001 , npu002 "], "npu[001-002]"),
    ],
)
def test_which_hosts_are_meant(lab: Path, limit: list[str], expected: str) -> None:
    found = load_inventory(lab, limit=limit)
    assert [host.name for host in found] == expand_list(expected)
    # Groups keep what is left of them.
    names = {host.name for host in found}
    assert all(set(hosts) <= names and (hosts or not limit) for hosts in found.groups.values())
    if limit == ["rack1:&ready"]:
        assert found.groups == {name: tuple(expand_list("npu[005-010]")) for name in ("rack1", "room", "ready")}


@pytest.mark.parametrize(
    ("limit", "code", "expected"),
    [
        ("npu021", "NO_SUCH_HOST", "'npu021' matches no host or group of lab; did you mean 'npu02"),
        ("rakc1", "NO_SUCH_HOST", "did you mean 'rack1'?"),
        ("npu[015-030]", "NO_SUCH_HOST", "npu[021-030] matches no host"),
        ("npu001,!npu999", "NO_SUCH_HOST", "'npu999' matches no host"),
        ("xpu*", "NO_SUCH_HOST", "'xpu*' matches no host"),
        ("rack1:&rack2", "NO_SUCH_HOST", "leaves no host of lab"),
        ("!all", "NO_SUCH_HOST", "leaves no host of lab"),
        ("empty", "NO_SUCH_HOST", "leaves no host of lab"),
        ("", "BAD_LIMIT", "is empty"),
        (" , ", "BAD_LIMIT", "is empty"),
        ("npu[1-", "BAD_LIMIT", "bracket without its partner"),
        ("rack1[0:5]", "BAD_LIMIT", "steps"),
        ("npu001,!", "BAD_LIMIT", "stands alone"),
        ("@nowhere.txt", "BAD_LIMIT", "cannot read nowhere.txt"),
        ("npu;id", "NO_SUCH_HOST", "matches no host"),
        ("npu\x1b[2J", "BAD_LIMIT", "bracket"),
    ],
)
def test_a_slip_of_the_pen_is_an_error(
    lab: Path, monkeypatch: pytest.MonkeyPatch, limit: str, code: str, expected: str
) -> None:
    monkeypatch.chdir(lab.parent)
    with pytest.raises(SmallqError) as caught:
        load_inventory(lab, limit=[limit])
    assert (caught.value.code, int(caught.value.exit_status), bool(caught.value.hint)) == (code, 2, True)
    assert expected in caught.value.message
    assert caught.value.message.isprintable()


def test_every_wrong_term_is_told(lab: Path) -> None:
    with pytest.raises(SmallqError) as caught:
        load_inventory(lab, limit=["npu099,nobody", "npu001"])
    assert [problem.code for problem in caught.value.problems] == ["NO_SUCH_HOST"] * 2


def test_hosts_of_a_file(lab: Path) -> None:
    failed = lab.parent / "failed.txt"
    failed.write_text("# failed in wave 2\nnpu003\nnpu[007-008], login1  # slow\n\n")
    assert [host.name for host in load_inventory(lab, limit=[f"@{failed}"])] == ["npu003", "npu007", "npu008", "login1"]
    assert [host.name for host in load_inventory(lab, limit=["npu00?", f"!@{failed}"])] == expand_list(
        "npu[001-002,004-006,009]"
    )
    for text, expected in (
        ("npu003\nnpu300\n", "names npu300, no host"),
        ("\n", "names no host"),
        ("\xff[", "cannot read"),
    ):
        failed.write_text(text)
        with pytest.raises(SmallqError) as caught:
            load_inventory(lab, limit=[f"@{failed}"])
        assert expected in caught.value.message


def test_a_set_of_hosts_is_printed_short() -> None:
    assert compress(f"npu{n:03}" for n in range(1, 499)) == "npu[001-498]"
    assert compress(["npu2", "npu10", "npu1", "login", "npu1"]) == "login,npu[1-2,10]"
    assert compress(f"r{a}-npu{b:02}" for a in (1, 2) for b in range(1, 17)) == "r[1-2]-npu[01-16]"
    assert compress(["n09", "n10", "n9", "n099", "n100"]) == "n[9,09-10,099-100]"
    assert compress(["10.0.0.1", "10.0.0.2", "a.b2.c"]) == "10.0.0.[1-2],a.b2.c"
    assert compress([]) == ""


def test_names_that_do_not_resolve_are_told_with_their_line() -> None:
    hosts = [
        Host("localhost", source="x:1"),
        Host("10.0.0.1", source="x:2"),
        Host("gone.invalid", source="x:3"),
        Host("a", address="also-gone.invalid", source="x:4"),
        Host("b", address="local:/somewhere", source="x:5"),
        Host("c.invalid", jump="me@localhost:22", source="x:6"),  # resolved there
        Host("d", jump="me@no-bastion.invalid:22", source="x:7"),
        Host("e", jump="[::1]:22", source="x:8"),
        Host("f.invalid", relay="localhost", source="x:9"),
        Host("::1", source="x:10"),
    ]
    found = check_names(hosts, seconds=30)
    assert [(error.code, error.details["host"]) for error in found] == [
        ("UNKNOWN_ADDRESS", name) for name in ("gone.invalid", "a", "d")
    ]
    assert found[0].message.startswith("x:3: gone.invalid does not resolve: ")
    assert found[1].message.startswith("x:4: also-gone.invalid (a) does not resolve: ")
    assert found[2].message.startswith("x:7: the jump host no-bastion.invalid of d does not resolve: ")
    assert all(error.hint for error in found)


def test_names_of_the_ssh_configuration_are_fine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("paramiko")
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh" / "config").write_text(
        "Host npu1-alias\n  HostName 127.0.0.1\nHost npu2-alias\n  HostName gone.invalid\n"
        "Host behind-*\n  ProxyJump bastion\n"
    )
    hosts = [Host(name) for name in ("npu1-alias", "npu2-alias", "behind-1", "unknown.invalid")]
    assert [error.details["host"] for error in check_names(hosts, seconds=30)] == ["npu2-alias", "unknown.invalid"]


def test_a_relay_is_known_also_where_it_is_not_meant(tmp_path: Path) -> None:
    path = tmp_path / "lab.yaml"
    path.write_text(
        "schema: 1\nhosts:\n  npu[1-4]:\n  npu8:\n  npu9: {relay: npu8}\n"
        "groups:\n  a: {members: ['npu[1-4]'], vars: {relay: npu1}}\n"
    )
    assert [host.name for host in load_inventory(path).relays] == ["npu1", "npu8"]
    limited = load_inventory(path, limit=["npu[3-4]"])
    assert ([host.name for host in limited], [host.name for host in limited.relays]) == (["npu3", "npu4"], ["npu1"])


def test_a_resolver_that_does_not_answer_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    import socket
    import threading

    release = threading.Event()

    def hang(name: str, *rest: object, **more: object) -> list[object]:
        if name == "slow":
            release.wait(60)
        return []

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    try:
        found = check_names([Host("fast"), Host("slow")], seconds=0.5)
    finally:
        release.set()
    assert [error.message for error in found] == ["slow does not resolve: no answer within 0.5 s"]
