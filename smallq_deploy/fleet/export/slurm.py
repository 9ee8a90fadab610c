"""Slurm: a job per wave that depends on the one before, one task a node, the bundle by sbcast (cann.md 10.4)."""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Sequence

from smallq_deploy.base.errors import UsageError
from smallq_deploy.fleet.export.request import ExportRequest, cut, names
from smallq_deploy.fleet.export.text import fill, static
from smallq_deploy.fleet.hosts import Host
from smallq_deploy.fleet.inventory.ranges import compress

_WORD = re.compile(r"[A-Za-z0-9_.:=,-]*")


def export_slurm(request: ExportRequest) -> dict[str, str]:
    """Relative file name -> text; hosts are called as Slurm calls its nodes.

    Raises UsageError NO_HOSTS, BAD_VALUE.
    """
    waves = cut(request)
    for value in (request.gres, request.partition):
        if not _WORD.fullmatch(value):
            raise UsageError("BAD_VALUE", f"{value!r} is no word of Slurm's", hint="such as npu:1")
    changes = [wave for wave in waves if wave.change]
    everything = [host for wave in waves for host in wave.hosts]
    lines = [_submitted(wave.change, wave.may_fail) for wave in changes]
    partition = [f"--partition={request.partition}"] if request.partition else []
    submit = {
        "waves": "\n  ".join(lines),
        "all_changed": _submitted([host for wave in changes for host in wave.change], 0),
        "everything": _submitted(everything, 0),
        "options": shlex.join([f"--time={math.ceil(request.timeout / 60) + 5}", *partition]),
        "gres": shlex.quote(f"--gres={request.gres}") if request.gres else "",
    }
    job = {
        "bundle": shlex.quote(str(request.bundle)),
        "sha256": request.bundle_sha256,
        "nodes": "\n".join(_cases(request, everything)),
    }
    return {
        "submit.sh": fill("slurm/submit.sh", submit),
        "job.sbatch": fill("slurm/job.sbatch", job),
        "README.txt": static("slurm/README.txt"),
    }


def _submitted(hosts: Sequence[Host], may_fail: int) -> str:
    return f"submit {shlex.quote(compress(names(hosts)))} {len(hosts)} {may_fail}"


def _cases(request: ExportRequest, hosts: Sequence[Host]) -> list[str]:
    """Lines of a shell `case`: which nodes take which interpreter and options."""
    alike: dict[tuple[str, ...], list[str]] = {}
    for host in hosts:
        words = (*(("sudo", "-n") if host.sudo else ()), host.python or "python3", "./bundle.pyz", "@")
        alike.setdefault((*words, *request.options(host), "--json"), []).append(host.name)
    lines = []
    for words, own in sorted(alike.items(), key=lambda item: len(item[1])):
        at = words.index("@")
        call = f'{shlex.join(words[:at])} "$@" {shlex.join(words[at + 1 :])}'
        lines += [f"  {' | '.join(shlex.quote(name) for name in own)})", f"    {call} || status=$?", "    ;;"]
    return lines
