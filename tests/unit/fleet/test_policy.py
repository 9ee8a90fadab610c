"""What a policy's option texts mean, and which are refused."""

from __future__ import annotations

import pytest

from smallq_deploy.base.errors import UsageError
from smallq_deploy.fleet.rollout.policy import Member, Policy, Share, cut_waves


def _members(count: int) -> list[Member]:
    return [Member(f"n{number:04d}") for number in range(count)]


@pytest.mark.parametrize(
    ("waves", "hosts", "sizes"),
    [
        ("1,5%,25%,100%", 1000, [1, 49, 200, 750]),
        ("1,5%,25%,100%", 20, [1, 1, 3, 15]),  # 5% of 20 is the canary alone: at least one more host a wave
        ("1,5%,25%,100%", 2, [1, 1]),
        ("1,5%,25%,100%", 1, [1]),
        ("1,5%,25%,100%", 0, []),
        ("1,5%", 100, [1, 4, 95]),  # the rest comes as a last wave
        ("3", 10, [3, 7]),
        ("0.5%,100%", 1000, [5, 995]),
        ("0.5%,100%", 100, [1, 99]),  # rounded up
        ("500,100%", 20, [20]),
        ("2,10,100%", 40, [2, 8, 30]),
    ],
)
def test_waves_are_sizes_of_the_fleet(waves: str, hosts: int, sizes: list[int]) -> None:
    assert [len(wave) for wave in cut_waves(_members(hosts), Policy.parse(waves=waves))] == sizes


def test_a_shared_opp_is_changed_by_one_host_and_seen_by_the_others() -> None:
    members = [Member("a", "nfs"), Member("b"), Member("c", "nfs"), Member("d", "nfs"), Member("e", "other")]
    first, second = cut_waves(members, Policy.parse(waves="1,100%"))
    assert first.change == ("a",)
    assert second.change == ("b", "e")
    assert dict(second.verify) == {"c": "a", "d": "a"}


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        ({"waves": ""}, "BAD_WAVES", "--waves: ''"),
        ({"waves": "1,,5%"}, "BAD_WAVES", "--waves: ''"),
        ({"waves": "0,5%"}, "BAD_WAVES", "a wave of 0 has no hosts"),
        ({"waves": "5%,1%"}, "BAD_WAVES", "1% after 5% does not grow"),
        ({"waves": "5,5"}, "BAD_WAVES", "does not grow"),
        ({"waves": "100%,200"}, "BAD_WAVES", "nothing is left for 200"),
        ({"waves": "101%"}, "BAD_WAVES", "more than all hosts"),
        ({"waves": "1.5"}, "BAD_WAVES", "neither a number of hosts"),
        ({"waves": "-1"}, "BAD_WAVES", "neither a number of hosts"),
        ({"waves": "٣"}, "BAD_WAVES", "neither a number of hosts"),
        ({"max_fail": "5 %"}, "BAD_MAX_FAIL", "--max-fail"),
        ({"max_fail": ""}, "BAD_MAX_FAIL", "--max-fail"),
        ({"max_fail_wave": "many"}, "BAD_MAX_FAIL", "--max-fail-wave: 'many'"),
        ({"max_fail_wave": "1" * 10_000}, "BAD_MAX_FAIL", "--max-fail-wave"),
        ({"soak": "8d"}, "BAD_SOAK", "'8d' is no time"),
        ({"soak": "200h"}, "BAD_SOAK", "is no time"),
        ({"on_fail": "rollback"}, "BAD_ON_FAIL", "'rollback' is not known"),
    ],
)
def test_a_wrong_text_is_answered(options: dict[str, str], code: str, words: str) -> None:
    with pytest.raises(UsageError) as caught:
        Policy.parse(**options)  # type: ignore[arg-type]
    assert caught.value.code == code
    assert words in caught.value.message
    assert len(caught.value.message) < 200
    assert caught.value.hint


def test_all_wrong_texts_are_answered_together() -> None:
    from smallq_deploy.base.errors import Problems

    with pytest.raises(Problems) as caught:
        Policy.parse(waves="x", max_fail="y", soak="z")
    assert [problem.code for problem in caught.value.problems] == ["BAD_WAVES", "BAD_MAX_FAIL", "BAD_SOAK"]


@pytest.mark.parametrize(("text", "seconds"), [("0", 0), ("90", 90), ("1.5s", 1.5), ("10m", 600), ("2h", 7200)])
def test_soak_times(text: str, seconds: float) -> None:
    assert Policy.parse(soak=text).soak == seconds


@pytest.mark.parametrize(
    ("text", "total", "down", "up"),
    [("3", 100, 3, 3), ("3%", 100, 3, 3), ("3%", 10, 0, 1), ("2.5%", 1000, 25, 25), ("0.001%", 1000, 0, 1)],
)
def test_shares_are_whole_hosts(text: str, total: int, down: int, up: int) -> None:
    share = Share.parse(text)
    assert (share.of(total), share.of(total, up=True)) == (down, up)
    assert Share.parse(str(share)) == share
