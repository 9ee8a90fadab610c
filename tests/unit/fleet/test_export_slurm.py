"""The Slurm export, run by stand-ins for Slurm's programs that do what their manual pages say, all on this machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from smallq_deploy.base.fsops import sha256_file
from smallq_deploy.fleet.export.request import ExportRequest
from smallq_deploy.fleet.export.slurm import export_slurm
from smallq_deploy.fleet.export.write import write_export
from smallq_deploy.fleet.hosts import Host, Inventory
from smallq_deploy.fleet.inventory.ranges import expand_list
from smallq_deploy.fleet.rollout.policy import Policy

# sbatch runs the job at once; srun runs the command once for each node of the job; a node sees SLURMD_NODENAME.
_SLURM = """\
import json, os, shutil, subprocess, sys
sys.path.insert(0, {checkout!r})
from smallq_deploy.fleet.inventory.ranges import expand_list
name, words = os.path.basename(sys.argv[0]), sys.argv[1:]
with open({log!r}, "a") as stream:
    stream.write(json.dumps([name, *words]) + "\\n")
options = []
while words and words[0].startswith("--"):
    options.append(words.pop(0))
values = dict(item[2:].split("=", 1) for item in options if "=" in item)
nodes = expand_list(os.environ.get("SLURM_JOB_NODELIST", ""))
if name == "sbatch":
    number = str(len(os.listdir({jobs!r})) + 1)
    status = 0
    if "dependency" in values:
        (state,) = open(os.path.join({jobs!r}, values["dependency"].removeprefix("afterok:")))
        status = 0 if state == "0" else None
    if status is not None:
        env = dict(os.environ, SLURM_JOB_ID=number, SLURM_JOB_NODELIST=values["nodelist"])
        env.update(SLURM_JOB_NUM_NODES=values["nodes"], SLURM_SUBMIT_DIR=os.getcwd(), HAS_GRES=values.get("gres", ""))
        shutil.copy(words[0], {spool!r})
        with open(f"slurm-{{number}}.out", "w") as out:
            argv = ["bash", {spool!r}, *words[1:]]
            done = subprocess.run(argv, env=env, cwd="/", stdout=out, stderr=out)
        status = done.returncode
    open(os.path.join({jobs!r}, number), "w").write("cancelled" if status is None else str(status))
    print(number + ";cluster")
elif name == "srun":
    worst = 0
    for node in nodes[:1] if words[0] in ("mkdir", "rm") else nodes:  # all nodes have one and the same /tmp here
        places = [values[key].replace("%N", node) if key in values else os.devnull for key in ("output", "error")]
        out, err = (open(place, "w") for place in places)
        done = subprocess.run(words, env=dict(os.environ, SLURMD_NODENAME=node), stdout=out, stderr=err)
        worst = max(worst, abs(done.returncode))
    sys.exit(worst)
elif name == "sbcast":
    shutil.copy(words[0], words[1])
elif words[:2] == ["show", "hostnames"]:
    print("\\n".join(expand_list(words[2])))
"""
# In place of the bundle: fails on the nodes it is told to, says what it was asked.
_BUNDLE = """\
import json, os, sys
node = os.environ["SLURMD_NODENAME"]
status = 4 if node in os.environ.get("BAD", "").split(",") and sys.argv[1] == "install" else 0
print(json.dumps({"exit_status": status, "node": node, "words": sys.argv[1:], "gres": os.environ["HAS_GRES"]}))
sys.exit(status)
"""


@dataclass
class Cluster:
    directory: Path
    place: Path

    def submit(self, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["./submit.sh", *words],
            cwd=self.place,
            env={**os.environ, "PATH": f"{self.directory / 'bin'}:{os.environ['PATH']}", **env},
            capture_output=True,
            text=True,
            timeout=60,
        )

    @property
    def calls(self) -> list[list[str]]:
        return [json.loads(line) for line in (self.directory / "log").read_text().splitlines()]

    def jobs(self) -> list[str]:
        """What each job ended with, in their order."""
        places = sorted((self.directory / "jobs").iterdir(), key=lambda path: int(path.name))
        return [path.read_text() for path in places]

    def asked(self) -> list[tuple[str, str]]:
        """(node, command) in the order of jobs."""
        found = []
        for folder in sorted((self.place / "results").iterdir(), key=lambda path: int(path.name.split("-")[0])):
            for path in sorted(folder.glob("*.json")):
                found.append((path.stem, json.loads(path.read_text())["words"][0]))
        return found


def cluster(directory: Path, hosts: list[Host], **policy: str) -> Cluster:
    """The export for ``hosts`` and a Slurm to run it."""
    for name in ("bin", "jobs"):
        (directory / name).mkdir()
    values = {"checkout": os.getcwd(), "log": str(directory / "log"), "jobs": str(directory / "jobs")}
    program = _SLURM.format(**values, spool=str(directory / "spool"))
    for name in ("sbatch", "srun", "sbcast", "scontrol"):
        path = directory / "bin" / name
        path.write_text(f"#!{sys.executable}\n{program}")
        path.chmod(0o755)
    bundle = directory / "it's the bundle.pyz"
    bundle.write_text(_BUNDLE)
    inventory = Inventory("test", "test.yml", tuple(hosts))
    request = ExportRequest(inventory, bundle, sha256_file(bundle), policy=Policy.parse(**policy))  # type: ignore[arg-type]
    write_export(export_slurm(request), directory / "export")
    (directory / "tmp").mkdir()
    job = directory / "export" / "job.sbatch"  # these job numbers are not those of this machine's only Slurm
    job.write_text(job.read_text().replace("place=/tmp/", f"place='{directory}'/tmp/"))
    return Cluster(directory, directory / "export")


def npus(count: int) -> list[Host]:
    return [Host(f"npu{number:03d}", python=sys.executable) for number in range(1, count + 1)]


def test_installs_wave_by_wave_then_verifies_everywhere(tmp_path: Path) -> None:
    hosts = [*npus(4), Host("no", python=sys.executable, cann="/opt/it's $HOME", vendor="mine")]
    slurm = cluster(tmp_path, hosts, waves="1,3")
    done = slurm.submit()
    assert done.returncode == 0, done.stdout + done.stderr
    assert slurm.jobs() == ["0"] * 4
    names = [host.name for host in hosts]
    installs = [(name, "install") for name in ["npu001", "npu002", "npu003", "no", "npu004"]]
    assert slurm.asked() == [*installs, *((name, "verify") for name in sorted(names))]
    answer = json.loads((slurm.place / "results" / "3-install" / "no.json").read_text())
    words = ["install", "--yes", "--cann", "/opt/it's $HOME", "--vendor", "mine", "--json"]
    assert answer == {"exit_status": 0, "node": "no", "words": words, "gres": "npu:1"}
    verified = json.loads((slurm.place / "results" / "4-verify" / "no.json").read_text())
    assert verified["gres"] == ""  # file checks need no device
    submitted = [call for call in slurm.calls if call[0] == "sbatch"]
    lists = [word.partition("=")[2] for call in submitted for word in call if word.startswith("--nodelist=")]
    assert lists[1] == "npu[002-003]"
    assert sorted(expand_list(lists[3])) == sorted(names)
    assert [word for word in submitted[1] if word.startswith("--dep")] == ["--dependency=afterok:1"]
    assert list((tmp_path / "tmp").iterdir()) == []


def test_a_failed_node_stops_the_waves_behind_it_and_is_drained(tmp_path: Path) -> None:
    slurm = cluster(tmp_path, npus(6), waves="1,3,100%")
    slurm.submit(BAD="npu003", DRAIN="yes")
    assert slurm.jobs() == ["0", "1", "cancelled", "cancelled"]
    statuses = (slurm.place / "results" / "2-install" / "statuses.tsv").read_text()
    assert statuses == "npu002\t0\nnpu003\t4\n"
    (update,) = (call for call in slurm.calls if call[:2] == ["scontrol", "update"])
    assert update[2:] == ["NodeName=npu003", "State=DRAIN", "Reason=smallq-deploy install: 4"]


def test_a_budget_lets_as_many_fail(tmp_path: Path) -> None:
    slurm = cluster(tmp_path, npus(6), waves="1,100%", max_fail="2")
    slurm.submit(BAD="npu003,npu004")
    assert slurm.jobs() == ["0", "0", "0"]
    assert not [call for call in slurm.calls if call[:2] == ["scontrol", "update"]]


def test_a_shared_opp_is_installed_once_and_verified_everywhere(tmp_path: Path) -> None:
    hosts = [Host(f"n{number}", python=sys.executable, shared_opp="nfs") for number in range(1, 5)]
    slurm = cluster(tmp_path, hosts, waves="1,100%")
    slurm.submit()
    assert slurm.asked() == [("n1", "install"), *((host.name, "verify") for host in hosts)]
    slurm.submit("rollback")
    assert [item for item in slurm.asked() if item[1] == "rollback"] == [("n1", "rollback")]


@pytest.mark.parametrize("broken", ["another bundle", "unknown node", "no answer"])
def test_what_goes_wrong_on_the_way_counts_as_failed(tmp_path: Path, broken: str) -> None:
    slurm = cluster(tmp_path, npus(2), waves="100%")
    status = {"another bundle": "5", "unknown node": "2", "no answer": "unknown"}[broken]
    job = slurm.place / "job.sbatch"
    if broken == "another bundle":
        (tmp_path / "it's the bundle.pyz").write_text("other")
    elif broken == "unknown node":
        job.write_text(job.read_text().replace("npu001 | npu002)", "npu002)"))
    else:
        job.write_text(job.read_text().replace("case $SLURMD_NODENAME in", "kill -9 $$\ncase $SLURMD_NODENAME in"))
    slurm.submit()
    assert slurm.jobs() == ["1", "cancelled"]
    statuses = dict(line.split() for line in (slurm.place / "results/1-install/statuses.tsv").read_text().splitlines())
    assert statuses["npu001"] == status


def test_a_place_that_somebody_made_before_is_not_used(tmp_path: Path) -> None:
    """Job numbers can be guessed, and everybody may write to /tmp."""
    slurm = cluster(tmp_path, npus(1))
    place = tmp_path / "tmp" / "smallq-deploy-1"
    place.mkdir()
    slurm.submit()
    assert slurm.jobs() == ["1", "cancelled"]
    assert list(place.iterdir()) == []


def test_another_word_is_refused(tmp_path: Path) -> None:
    slurm = cluster(tmp_path, npus(1))
    done = slurm.submit("instal")
    assert (done.returncode, done.stderr) == (2, "usage: ./submit.sh [install|rollback|smoke|verify]\n")
    assert slurm.jobs() == []
