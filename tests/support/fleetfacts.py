"""Synthetic answers to `facts`: a fleet of equal hosts, with the few that every real fleet has."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Mapping
from typing import Any

from smallq_deploy.fleet.check.matrix import Matrix
from smallq_deploy.fleet.hosts import Host
from smallq_deploy.fleet.node import Answer

NOW = 1_796_000_000.0  # 2026-11-29
RELEASE = "smallq-flash-attention-1.0.0"
PACKAGE, DIGEST = "5e" * 32, "d1" * 32


def facts(host: str, **changes: Any) -> dict[str, Any]:
    """What a host that is well says; ``changes`` name keys, those below another joined by ``__``."""
    data: dict[str, Any] = {
        "host": host,
        "time": NOW,
        "tool": "1.0.0",
        "python": "3.11.2",
        "arch": "aarch64",
        "kernel": "5.10.0-216.0.0.115.oe2203sp4.aarch64",
        "os": {"id": "openEuler", "version": "22.03", "name": "openEuler 22.03 (LTS-SP4)"},
        "container": "",
        "soc": "Ascend910B3",
        "npus": [{"index": index, "soc": "Ascend910B3", "health": "OK"} for index in range(8)],
        "driver": "25.5.0",
        "firmware": "7.7.0.6.236",
        "cann": {
            "version": "8.5.1",
            "inner_version": "V100R001C25SPC002B210",
            "home": "/usr/local/Ascend/cann-8.5.1",
            "arch": "aarch64",
            "kind": "toolkit",
            "remark": "",
        },
        "vendor": "customize",
        "opp": {
            "path": "/usr/local/Ascend/cann-8.5.1/opp",
            "live_path": "/usr/local/Ascend/cann-8.5.1/opp/vendors/customize",
            "shared": "",
            "file_system": "ext4",
            "mount_source": "/dev/sda2",
            "mount_path": "/usr/local/Ascend/cann-8.5.1/opp/vendors",
            "inode": 4711,
            "free_bytes": 300 * 2**30,
        },
        "live": {
            "state": "current",
            "generation": 3,
            "origin": "installed",
            "release": RELEASE,
            "package_sha256": PACKAGE,
            "digest": DIGEST,
            "built_for": "8.5.1",
            "operators": ["SmallqFlashAttention"],
            "created": "2026-11-20T10:00:00Z",
            "proven": True,
            "flags": [],
        },
        "smoke": {"verdict": "pass", "reason": "", "time": "2026-11-20T10:00:00Z", "age": 777_600},
        "drift": {"count": 0, "kinds": {}, "paths": [], "contents": False},
        "vendors": [],
        "load_priority": ["customize"],
        "listed": True,
        "transaction": None,
        "generations": 3,
        "pins": 0,
        "processes": 2,
        "processes_unseen": 0,
        "problem": None,
    }
    for name, value in changes.items():
        *parents, last = name.split("__")
        place = data
        for parent in parents:
            place = place[parent]
        assert last in place, name
        place[last] = value
    return data


def answer(host: str, data: Mapping[str, Any] | None = None, **changes: Any) -> Answer:
    return Answer(host, True, exit_status=0, data=facts(host, **changes) if data is None else data, seconds=1.5)


def unreachable(host: str) -> Answer:
    return Answer(
        host,
        False,
        "HOST_UNREACHABLE",
        "no connection within 10 s",
        f"does `ssh {host}` work?",
        asked=False,
        seconds=10,
    )


# What goes wrong in real fleets, and how it is said.
ODD: tuple[dict[str, Any], ...] = (
    {
        "cann__version": "8.5.0",
        "cann__inner_version": "V100R001C25SPC001B212",
        "cann__home": "/usr/local/Ascend/cann-8.5.0",
        "live__built_for": "8.5.0",
    },
    {"driver": "25.3.rc1"},
    {"npus": [{"index": 0, "soc": "Ascend910B3", "health": "Alarm"}, *facts("x")["npus"][1:]]},
    {"live__state": "changed",
     "drift": {"count": 4, "kinds": {"5": 3, "missing": 1}, "paths": ["op_api/lib/x"], "contents": True}},
    {"time": NOW + 340},
    {"live__proven": False, "smoke": None},
    {"vendors": [{"name": "mcsrf", "operators": ["SmallqFlashAttention", "Other"],
                  "clashes": ["SmallqFlashAttention"], "listed": True, "first": True}],
     "load_priority": ["mcsrf", "customize"]},
    {"transaction": {"transaction": "t1", "action": "install", "phase": "switching", "started": "2026-11-29T01:00:00Z",
                     "owner": {}, "running": False}, "live__state": "interrupted"},
)  # fmt: skip


def fleet(count: int, *, odd: int = 20, away: int = 3, seed: int = 1) -> tuple[list[Host], list[Answer]]:
    """``count`` hosts ``npu0001``..., of which ``odd`` have something of ODD and ``away`` cannot be asked."""
    chance = random.Random(seed)
    hosts = [Host(f"npu{number:04d}", groups=(f"rack{number // 40:02d}",)) for number in range(1, count + 1)]
    picked = chance.sample(range(count), odd + away)
    ways = {at: ODD[index % len(ODD)] for index, at in enumerate(picked[:odd])}
    answers = []
    for at, host in enumerate(hosts):
        if at in picked[odd:]:
            answers.append(unreachable(host.name))
            continue
        changes = copy.deepcopy(ways.get(at, {}))
        changes.setdefault("opp__free_bytes", chance.randrange(50, 400) * 2**30)
        changes.setdefault("live__generation", chance.choice((2, 3, 3, 4)))
        answers.append(answer(host.name, **changes))
    return hosts, answers


def matrix(count: int = 1, change: Callable[[int], Mapping[str, Any]] = lambda number: {}) -> Matrix:
    """A matrix of ``count`` hosts ``npu001``...; ``change(number)`` says what is different on one."""
    hosts = [Host(f"npu{number:03d}") for number in range(1, count + 1)]
    answers = [answer(host.name, **change(number)) for number, host in enumerate(hosts, 1)]
    return Matrix.of(answers, hosts, now=NOW, inventory="npu.yaml")
