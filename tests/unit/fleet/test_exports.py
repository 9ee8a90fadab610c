"""Exports: what is written is read back as it was meant, by each engine's own reader where there is one."""

from __future__ import annotations

import base64
import dataclasses
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from smallq_deploy.base.errors import SmallqError
from smallq_deploy.base.fsops import sha256_file
from smallq_deploy.fleet.export import KINDS, exporter
from smallq_deploy.fleet.export.kubernetes import CONFIGMAP_LIMIT
from smallq_deploy.fleet.export.request import ExportRequest, cut
from smallq_deploy.fleet.export.text import dump
from smallq_deploy.fleet.export.write import write_export
from smallq_deploy.fleet.hosts import Host, Inventory
from smallq_deploy.fleet.inventory.load import load_inventory
from smallq_deploy.fleet.rollout.policy import Policy

# Each is something else to one or another reader of YAML, or the end of a quoted text.
HOSTILE = ["no", "1e3", "0123", "0x1f", "1_000", "12:30", "~", "null", "2026-01-01", "=", "<<", "a: b", "- x", "#c", ""]
HOSTILE += ["it's", 'say "x"', "{{ 7 * 7 }}", "{% raw %}", "$HOME `id` $(id)", "a\\b", "two\nlines", "!tag", "&a", "*a"]
HOSTILE += [" blank ", "%PATH% %%", "中文", "[1]", "{a}", "@at", "y", "Off"]
BIN = Path(sys.executable).parent


def hosts(count: int, **values: Any) -> tuple[Host, ...]:
    return tuple(Host(f"npu{number:03d}", **values) for number in range(1, count + 1))


def request_for(
    bundle: Path, some: tuple[Host, ...], policy: Mapping[str, str] | None = None, **more: Any
) -> ExportRequest:
    values: dict[str, Any] = {"units": ("ascend910b",), "arches": ("aarch64",), **more}
    inventory = Inventory("test", "test.yml", some, {"rack-1": (some[0].name,)} if some else {})
    return ExportRequest(inventory, bundle, sha256_file(bundle), policy=Policy.parse(**(policy or {})), **values)


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    path = tmp_path / "it's a bundle.pyz"
    path.write_bytes(b"#!/usr/bin/env python3\nprint()\n")
    return path


def documents(files: Mapping[str, str]) -> Iterator[tuple[str, Any]]:
    for name, text in files.items():
        if name.endswith((".yaml", ".yml")):
            yield from ((name, document) for document in yaml.safe_load_all(text))


# Text


def test_every_text_is_read_back_as_it_was() -> None:
    value = {"list": HOSTILE, **{f"key {number}": text for number, text in enumerate(HOSTILE)}}
    assert yaml.safe_load(dump(value)) == value
    keys = dict.fromkeys(HOSTILE, 1)
    assert yaml.safe_load(dump(keys)) == keys


def test_words_that_other_readers_take_for_numbers_are_quoted() -> None:
    """Readers of YAML 1.2 take 1e3 for a number, which PyYAML does not; both read a quoted one alike."""
    for text in ("1e3", "0o17", ".5", "no", "0123"):
        assert dump([text]) == f'---\n- "{text}"\n'
    assert dump(["npu001"]) == "---\n- npu001\n"


# Writing


def test_writes_scripts_executable_and_again_over_its_own(tmp_path: Path) -> None:
    place = tmp_path / "new" / "export"
    write_export({"a.sh": "#!/bin/sh\n", "d/b.yml": "x: 1\n", "old.txt": "old"}, place)
    assert os.access(place / "a.sh", os.X_OK)
    assert not os.access(place / "d" / "b.yml", os.X_OK)
    write_export({"a.sh": "#!/bin/bash\n", "d/b.yml": "x: 1\n"}, place)
    assert (place / "a.sh").read_text() == "#!/bin/bash\n"
    assert not (place / "old.txt").exists()


@pytest.mark.parametrize("case", ["foreign", "edited", "link", "directory", "file in the way", "bad record"])
def test_nothing_of_others_is_overwritten(tmp_path: Path, case: str) -> None:
    place = tmp_path / "export"
    write_export({"d/a.yml": "ours\n", "b.yml": "b\n"}, place)
    wanted = place / "d" / "a.yml"
    if case == "foreign":
        wanted = place / "new.yml"
        wanted.write_text("somebody's\n")
    elif case == "edited":
        wanted.write_text("edited\n")
    elif case == "link":
        wanted.unlink()
        (tmp_path / "target").write_text("ours\n")
        wanted.symlink_to(tmp_path / "target")
    elif case == "directory":
        wanted.unlink()
        wanted.mkdir()
    elif case == "file in the way":
        shutil.rmtree(place / "d")
        (place / "d").write_text("somebody's\n")
    else:
        (place / ".smallq-export.json").write_text('{"files": {"d/a.yml": 7}')
        wanted.write_text("edited\n")
    before = {str(path): path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(SmallqError) as caught:
        write_export({"d/a.yml": "newer\n", "b.yml": "newer\n", "new.yml": "newer\n"}, place)
    assert (caught.value.code, int(caught.value.exit_status)) == ("EXPORT_EXISTS", 7)
    assert {str(path): path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_what_was_edited_stays_when_it_is_not_exported_any_more(tmp_path: Path) -> None:
    write_export({"a": "a", "b": "b"}, tmp_path / "export")
    (tmp_path / "export" / "a").write_text("mine")
    write_export({"c": "c"}, tmp_path / "export")
    assert sorted(path.name for path in (tmp_path / "export").glob("[!.]*")) == ["a", "c"]


# All kinds


@pytest.mark.parametrize("kind", KINDS)
def test_is_a_pure_function_and_knows_no_empty_fleet(bundle: Path, kind: str) -> None:
    request = request_for(bundle, hosts(30))
    assert exporter(kind)(request) == exporter(kind)(request)
    assert all(text.endswith("\n") for text in exporter(kind)(request).values())
    with pytest.raises(SmallqError) as caught:
        exporter(kind)(request_for(bundle, ()))
    assert caught.value.code == "NO_HOSTS"


def test_followers_of_a_shared_opp_are_in_a_wave_but_not_changed(bundle: Path) -> None:
    some = (*hosts(2, shared_opp="nfs"), Host("other"), Host("last", shared_opp="nfs"))
    waves = cut(request_for(bundle, some, {"waves": "1,3"}))
    assert [[host.name for host in wave.change] for wave in waves] == [["npu001"], ["other"], []]
    assert [[host.name for host in wave.verify] for wave in waves] == [[], ["npu002"], ["last"]]


# Ansible


def _plain(value: Any) -> str:
    """What `ansible-inventory` shows of a text that is no template."""
    return str(value["__ansible_unsafe"]) if isinstance(value, dict) else str(value)


def test_ansible_inventory_is_one_of_ours_too(bundle: Path, tmp_path: Path) -> None:
    """What was exported can be imported: the same hosts, reached in the same way."""
    some = (
        Host("npu001", address="192.0.2.1", port=22, user="me", key="/keys/a", known_hosts="/known_hosts", sudo=True),
        Host("npu002", jump="ops@gate:2222", python="/usr/bin/python3.11", cann="/opt/cann", opp="/opt/opp"),
        Host("no", shared_opp="nfs", timeout=30.0, vendor="mine"),
    )
    write_export(exporter("ansible")(request_for(bundle, some)), tmp_path / "ansible")
    found = load_inventory(f"ansible:{tmp_path / 'ansible' / 'inventory.yml'}")
    assert [dataclasses.replace(host, source="", groups=()) for host in found] == [
        dataclasses.replace(host, timeout=host.timeout or 900.0) for host in some
    ]
    assert found.groups["rack_1"] == ("npu001",)


def test_ansible_inventory_as_ansible_reads_it(bundle: Path, tmp_path: Path) -> None:
    some = tuple(
        Host(
            f"npu{number:03d}",
            address="192.0.2.1",
            port=2222,
            user="me",
            key=f"/keys/{text} key",
            known_hosts=f"/known {number}",
            jump="gate:22",
            sudo=True,
            cann=f"/opt/{text}",
            opp=text,
        )
        for number, text in enumerate(HOSTILE)
    )
    place = tmp_path / "ansible"
    write_export(exporter("ansible")(request_for(bundle, some)), place)
    done = subprocess.run(
        [str(BIN / "ansible-inventory"), "-i", "inventory.yml", "--list"],
        cwd=place,
        env={**os.environ, "ANSIBLE_LOCAL_TEMP": str(tmp_path / "t")},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    found = json.loads(done.stdout)["_meta"]["hostvars"]
    assert list(found) == [host.name for host in some]
    for host, text in zip(some, HOSTILE, strict=True):
        values = found[host.name]
        found_paths = [_plain(values.get(name, "")) for name in ("smallq_cann", "smallq_opp")]
        assert found_paths == [f"/opt/{text}", text]
        assert (values["ansible_host"], values["ansible_port"], values["ansible_become"]) == ("192.0.2.1", 2222, True)


@pytest.mark.parametrize(
    ("policy", "serial", "percentage"),
    [
        ({}, [1, 4, 20, 75], 0),
        ({"waves": "100%", "max_fail": "3"}, [100], 3),
        ({"waves": "10,20", "max_fail": "4"}, [10, 10, 80], 5),
        ({"waves": "50%", "max_fail_wave": "10%", "max_fail": "1"}, [50, 50], 10),
    ],
)
def test_ansible_waves_and_budget(bundle: Path, policy: dict[str, str], serial: list[int], percentage: int) -> None:
    (play,) = yaml.safe_load(exporter("ansible")(request_for(bundle, hosts(100), policy))["install.yml"])
    assert (play["serial"], play["max_fail_percentage"]) == (serial, percentage)


def test_ansible_uses_modules_of_ansible_builtin_only(bundle: Path) -> None:
    keywords = {"name", "vars", "when", "register", "check_mode", "changed_when", "failed_when", "timeout"}
    for name, document in documents(exporter("ansible")(request_for(bundle, hosts(3)))):
        if "/tasks/" in name:
            used = {key for task in document for key in task} - keywords
            assert used
            assert all(key.startswith("ansible.builtin.") for key in used), (name, used)


@pytest.mark.parametrize("play", ["install.yml", "rollback.yml", "smoke.yml", "verify.yml"])
def test_ansible_syntax(bundle: Path, tmp_path: Path, play: str) -> None:
    place = tmp_path / "ansible"
    write_export(exporter("ansible")(request_for(bundle, hosts(3))), place)

    def check() -> tuple[int, str]:
        env = {**os.environ, "ANSIBLE_NOCOLOR": "1", "ANSIBLE_LOCAL_TEMP": str(tmp_path / "t")}
        argv = [str(BIN / "ansible-playbook"), "--syntax-check", play]
        done = subprocess.run(argv, cwd=place, env=env, capture_output=True, text=True, timeout=60)
        return done.returncode, done.stdout + done.stderr

    status, text = check()
    assert (status, "WARNING" in text) == (0, False), text
    tasks = place / "roles" / "smallq_deploy" / "tasks" / "main.yml"
    tasks.write_text(tasks.read_text().replace("ansible.builtin.import_tasks", "ansible.builtin.no_such_module"))
    assert check()[0] != 0


# Kubernetes

VERSIONS = ("1.29", "1.31", "1.33", "1.37")


def validated(files: Mapping[str, str]) -> dict[str, Any]:
    """kind -> the manifests, each valid in every version."""
    found: dict[str, Any] = {}
    for name, document in documents(files):
        for version in VERSIONS:
            kubernetes_validate.validate(document, version, strict=True)
        found[name] = document
    return found


def pods(manifests: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [item["spec"]["template"]["spec"] for item in manifests.values() if "template" in item.get("spec", {})]


@pytest.mark.parametrize("delivery", ["configMap", "hostPath", "image"])
def test_kubernetes_manifests_are_valid(bundle: Path, delivery: str) -> None:
    if delivery == "image":
        bundle.write_bytes(os.urandom(CONFIGMAP_LIMIT + 1))
    more = {
        "bundle_dir": "/srv/no" if delivery == "hostPath" else "",
        "namespace": "1e3",
        "cann": "/opt/a $(HOME) b/cann",
    }
    files = exporter("kubernetes")(request_for(bundle, hosts(40, shared_opp=""), **more))
    manifests = validated(files)
    assert ("bundle.yaml" in files, "Dockerfile" in files) == (delivery == "configMap", delivery == "image")
    assert len(pods(manifests)) == 6  # four waves, the DaemonSet, the smoke test
    for pod in pods(manifests):
        paths = [volume["hostPath"] for volume in pod["volumes"] if "hostPath" in volume]
        assert {path["type"] for path in paths} == {"Directory"}
        assert "/usr/local/Ascend" in [path["path"] for path in paths]
        for container in [*pod["containers"], *pod.get("initContainers", [])]:
            places = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
            for volume in pod["volumes"]:
                if volume["name"].startswith("host-"):
                    assert places[volume["name"]] == volume["hostPath"]["path"]
            assert not any("subPath" in mount for mount in container["volumeMounts"])
            assert container["securityContext"]["runAsUser"] == 0
            assert container["securityContext"]["privileged"] is False
            assert "/opt/a $$(HOME) b/cann" in container["command"]
        terms = pod["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
        for term in terms:
            keys = {item["key"] for item in term["matchExpressions"]}
            assert "host-arch" in keys
            assert keys & {"accelerator-type", "node.kubernetes.io/npu.chip.name"}
        assert {item["key"] for item in pod["tolerations"]} >= {"huawei.com/Ascend910", "device-plugin"}


def test_a_broken_manifest_is_refused_by_the_validator(bundle: Path) -> None:
    files = dict(exporter("kubernetes")(request_for(bundle, hosts(3))))
    for right, wrong in (
        ("hostPath:", "hostpath:"),
        ("completions: 1", 'completions: "1"'),
        ("backoffLimitPerIndex: 0", "backoffLimitPerIndex: none"),
    ):
        name = "install-wave-1.yaml"
        assert right in files[name]
        with pytest.raises(kubernetes_validate.ValidationError):
            validated({name: files[name].replace(right, wrong)})


def test_kubernetes_jobs_have_a_pod_for_every_node_of_their_wave(bundle: Path) -> None:
    manifests = validated(exporter("kubernetes")(request_for(bundle, hosts(40))))
    seen: list[str] = []
    for number in range(1, 5):
        job = manifests[f"install-wave-{number}.yaml"]["spec"]
        affinity = job["template"]["spec"]["affinity"]
        (term, *_) = affinity["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
        (names,) = (item["values"] for item in term["matchExpressions"] if item["key"] == "kubernetes.io/hostname")
        assert job["completions"] == job["parallelism"] == len(names)
        assert job["backoffLimitPerIndex"] == 0
        (anti,) = affinity["podAntiAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
        assert anti["topologyKey"] == "kubernetes.io/hostname"
        assert anti["labelSelector"]["matchLabels"].items() <= job["template"]["metadata"]["labels"].items()
        seen += names
    assert seen == [host.name for host in hosts(40)]
    daemonset = manifests["daemonset.yaml"]["spec"]
    assert daemonset["updateStrategy"]["rollingUpdate"]["maxUnavailable"] == 1  # 1, 1, 8, 30
    smoke = manifests["smoke.yaml"]["spec"]["template"]["spec"]["containers"][0]
    assert smoke["resources"]["limits"] == {"huawei.com/Ascend910": 1}
    assert manifests["namespace.yaml"]["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "privileged"


def test_kubernetes_configmap_holds_the_bundle(bundle: Path) -> None:
    manifests = validated(exporter("kubernetes")(request_for(bundle, hosts(1))))
    (content,) = manifests["bundle.yaml"]["binaryData"].values()
    assert base64.b64decode(content) == bundle.read_bytes()
    bundle.write_bytes(os.urandom(CONFIGMAP_LIMIT))
    assert len(exporter("kubernetes")(request_for(bundle, hosts(1)))["bundle.yaml"]) < 1 << 20


@pytest.mark.parametrize(
    ("more", "code"),
    [
        ({"units": ()}, "EXPORT_UNIT"),
        ({"units": ("ascend910b", "ascend310p")}, "EXPORT_UNIT"),
        ({"units": ("ascend310b",)}, "EXPORT_UNIT"),
        ({"namespace": "No"}, "BAD_VALUE"),
        ({"selector": ("a=b c",)}, "BAD_VALUE"),
        ({"base_image": "x\nRUN id"}, "BAD_VALUE"),
        ({"image": "--privileged"}, "BAD_VALUE"),
        ({"bundle": Path("gone.pyz")}, "IO_ERROR"),
    ],
)
def test_kubernetes_refuses(bundle: Path, more: dict[str, Any], code: str) -> None:
    with pytest.raises(SmallqError) as caught:
        exporter("kubernetes")(dataclasses.replace(request_for(bundle, hosts(2)), **more))
    assert caught.value.code == code


def test_kubernetes_selector_of_the_user(bundle: Path) -> None:
    files = exporter("kubernetes")(request_for(bundle, hosts(2), units=("ascend310b",), selector=("pool=no",)))
    assert all(pod["nodeSelector"]["pool"] == "no" for pod in pods(validated(files)))


# Shell

SCRIPTS = {"slurm": ("submit.sh", "job.sbatch"), "ssh": ("ssh.sh",), "clustershell": ("clush.sh",)}


@pytest.mark.parametrize("kind", SCRIPTS)
def test_scripts_are_sound(bundle: Path, tmp_path: Path, kind: str) -> None:
    some = (
        *hosts(3, cann="/opt/it's $HOME"),
        Host("no", sudo=True),
        Host("x1", shared_opp="n"),
        Host("x2", shared_opp="n"),
    )
    files = exporter(kind)(request_for(bundle, some))
    write_export(files, tmp_path / kind)
    for name in SCRIPTS[kind]:
        subprocess.run(["bash", "-n", name], cwd=tmp_path / kind, check=True)
        subprocess.run([str(BIN / "shellcheck"), "-s", "bash", name], cwd=tmp_path / kind, check=True)
    for path in (tmp_path / kind).glob("node/*.sh"):
        subprocess.run(["sh", "-n", path], check=True)
        subprocess.run([str(BIN / "shellcheck"), "-S", "warning", "-s", "sh", path], check=True)


@pytest.mark.parametrize("kind", SCRIPTS)
def test_the_checks_of_scripts_are_not_blind(tmp_path: Path, kind: str) -> None:
    broken = tmp_path / "broken.sh"
    broken.write_text("#!/bin/bash\nif true; then\n  rm -rf $1/*\n")
    assert subprocess.run(["bash", "-n", broken], capture_output=True).returncode != 0
    broken.write_text("#!/bin/bash\nrm -rf $1/*\n")
    assert subprocess.run([str(BIN / "shellcheck"), broken], capture_output=True).returncode != 0
