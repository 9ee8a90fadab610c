"""What the exported pods run, run here: the containers' commands, with the places of a pod at places of this test."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from smallq_deploy.base.fsops import sha256_file
from smallq_deploy.fleet.export.kubernetes import PLACE, ROOT, export_kubernetes
from smallq_deploy.fleet.export.request import ExportRequest
from smallq_deploy.fleet.hosts import Host, Inventory
from tests.conftest import run_command


def test_the_commands_of_the_pods_do_what_they_are_there_for(
    fresh_toolkit: Callable[..., Path], operator_package: Path, tmp_path: Path
) -> None:
    bundle, cache, toolkit = tmp_path / "smallq.pyz", tmp_path / "cache", fresh_toolkit()
    run_command("bundle", "create", "-o", str(bundle), str(operator_package))
    cache.mkdir()
    inventory = Inventory("test", "test.yml", (Host("npu001"),))
    files = export_kubernetes(ExportRequest(inventory, bundle, sha256_file(bundle), ("ascend910b",), ("x86_64",)))
    assert "Dockerfile" in files  # it is too large for a ConfigMap

    def here(text: str) -> str:
        text = text.replace(f"{PLACE}/{sha256_file(bundle)[:24]}.pyz", str(bundle)).replace("/cache", str(cache))
        return sys.executable if text == "python3" else text.replace(ROOT, str(toolkit))

    def container(container: dict[str, Any]) -> dict[str, Any]:
        words = [here(word) for word in container["command"]]
        words = words[4:] if words[0] == "sh" else words  # without what holds the pod on its node
        env = {item["name"]: here(item["value"]) for item in container["env"]}
        done = subprocess.run(
            words, env={"PATH": os.environ["PATH"], **env}, capture_output=True, text=True, timeout=200
        )
        assert done.returncode == 0, done.stdout + done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def pod(name: str) -> dict[str, Any]:
        found: dict[str, Any] = yaml.safe_load(files[name])["spec"]["template"]["spec"]
        return found

    (job,) = pod("install-wave-1.yaml")["containers"]
    assert container(job)["data"]["decision"] == "install"
    daemonset = pod("daemonset.yaml")
    assert container(daemonset["initContainers"][0])["data"]["decision"] == "nothing"
    assert container(daemonset["containers"][0])["command"] == "verify"
    probe = daemonset["containers"][0]["readinessProbe"]["exec"]["command"]
    assert probe == daemonset["containers"][0]["command"][4:]
    assert container(pod("smoke.yaml")["containers"][0])["command"] == "smoke"


def test_a_held_pod_keeps_the_exit_status_of_its_command(tmp_path: Path) -> None:
    bundle = tmp_path / "small.pyz"
    bundle.write_text("")
    request = ExportRequest(Inventory("t", "t", (Host("n"),)), bundle, sha256_file(bundle), ("ascend910b",))
    job = yaml.safe_load(export_kubernetes(request)["install-wave-1.yaml"])
    shell, option, script, name, *_ = job["spec"]["template"]["spec"]["containers"][0]["command"]
    script = script.replace("sleep 90", "echo held")
    done = subprocess.run([shell, option, script, name, "sh", "-c", "exit 4"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (4, "held\n")
