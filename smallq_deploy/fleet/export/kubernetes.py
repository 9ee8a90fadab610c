"""Kubernetes: a Job per wave that installs on the nodes, a DaemonSet that keeps them so, a Job that asks the devices.

Paths, labels, resources and tolerations are those of MindCluster (cann.md 10.2). What a host keeps in its opp directory
is seen by workloads that mount this directory; images that carry CANN themselves need the operator in the image.
"""

from __future__ import annotations

import base64
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from smallq_deploy.base.errors import UsageError, access_error
from smallq_deploy.fleet.export.request import ExportRequest, HostWave, cut, names
from smallq_deploy.fleet.export.text import dump, fill
from smallq_deploy.fleet.hosts import Host

ROOT = "/usr/local/Ascend"
PLACE = "/smallq"
WANTED = ("smallq-deploy/install", "wanted")
# An object may have 1 MiB in all; binaryData is base64, four characters for three bytes.
CONFIGMAP_LIMIT = 760 * 1024
_HOLD = 90  # seconds a pod stays on its node when its work is done, so that no other pod of the Job comes to this node
_IMAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@-]*")
_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,40}[a-z0-9])?")
_LABEL = re.compile(
    r"([A-Za-z0-9.-]+/)?[A-Za-z0-9]([A-Za-z0-9_.-]*[A-Za-z0-9])?=[A-Za-z0-9]?([A-Za-z0-9_.-]*[A-Za-z0-9])?"
)
# unit -> node labels that mean it and nothing else; `accelerator: huawei-Ascend910` does not tell 910A from 910B.
_CHIP, _TYPE = "node.kubernetes.io/npu.chip.name", "accelerator-type"
_LABELS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "ascend910b": {
        _CHIP: ("910B1", "910B2", "910B2C", "910B3", "910B4", "910B4-1"),
        _TYPE: ("module-910b-8", "module-910b-16", "card-910b-2", "card-910b-infer"),
    },
    "ascend910_93": {_TYPE: ("module-a3-16", "module-a3-16-super-pod")},
    "ascend310p": {"accelerator": ("huawei-Ascend310P",)},
}
_ARCHES = {"aarch64": "huawei-arm", "x86_64": "huawei-x86"}
_RESOURCES = {"ascend310p": "huawei.com/Ascend310P", "ascend310b": "huawei.com/Ascend310"}
_NEWER = ("ascend910_95", "ascend950")
_DRIVER = ":".join(f"{ROOT}/driver/lib64{part}" for part in ("", "/common", "/driver"))
_TOLERATIONS = [
    {"key": "CriticalAddonsOnly", "operator": "Exists"},
    *(
        {"key": f"huawei.com/{name}", "operator": "Exists", "effect": "NoSchedule"}
        for name in ("Ascend910", "Ascend310", "Ascend310P", "npu")
    ),
    {"key": "device-plugin", "operator": "Equal", "value": "v2", "effect": "NoSchedule"},
]


def export_kubernetes(request: ExportRequest) -> dict[str, str]:
    """Relative file name -> text. The bundle comes from ``bundle_dir`` of every node where that is named, in ``image``
    where that is, else by ConfigMap where it is small enough, else in an image that the Dockerfile makes.

    Raises UsageError NO_HOSTS, BAD_VALUE, EXPORT_UNIT; access errors where the bundle cannot be read.
    """
    waves = cut(request)
    if not _NAME.fullmatch(request.namespace):
        raise UsageError("BAD_VALUE", f"{request.namespace!r} is no namespace", hint="small letters, digits and dashes")
    if len(request.units) != 1:
        raise UsageError(
            "EXPORT_UNIT",
            f"it must be for one compute unit, not for {', '.join(request.units) or 'none'}",
            hint="make a bundle for one (`bundle create --soc ascend910b`), and name only its hosts with --limit",
        )
    cluster = _Cluster(request, request.units[0])
    files = {"namespace.yaml": dump(cluster.namespace()), **cluster.delivery_files()}
    labels = ""
    for wave in (wave for wave in waves if wave.change):
        files[f"install-wave-{wave.number}.yaml"] = dump(cluster.install_job(wave))
        words = ["kubectl", "label", "node", *names(wave.change), "=".join(WANTED)]
        labels += f"# wave {wave.number}\n{shlex.join(words)}\n"
    return {
        **files,
        "daemonset.yaml": dump(cluster.daemonset(waves)),
        "smoke.yaml": dump(cluster.smoke_job()),
        "label-nodes.txt": labels,
    }


class _Cluster:
    def __init__(self, request: ExportRequest, unit: str) -> None:
        self.request, self.unit = request, unit
        try:
            self.size = request.bundle.stat().st_size
        except OSError as error:
            raise access_error(error, f"look at the bundle {request.bundle}") from error
        if request.bundle_dir:
            self.by = "hostPath"
        else:
            self.by = "image" if request.image or self.size > CONFIGMAP_LIMIT else "configMap"
        made = f"smallq-deploy:{request.bundle_sha256[:12]}"
        self.image = request.image or (made if self.by == "image" else request.base_image)
        for name in (self.image, request.base_image):
            if not _IMAGE.fullmatch(name):
                raise UsageError("BAD_VALUE", f"{name!r} is no image", hint="such as python:3.12-slim")
        self.bundle_name = request.bundle.name if self.by == "hostPath" else request.node_name
        self.options = request.options(Host(""))
        if "--cann" not in self.options:
            self.options = ["--cann", ROOT, *self.options]

    def namespace(self) -> dict[str, Any]:
        labels = {f"pod-security.kubernetes.io/{mode}": "privileged" for mode in ("enforce", "audit", "warn")}
        return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": self.request.namespace, "labels": labels}}

    def delivery_files(self) -> dict[str, str]:
        """How the bundle gets to the pods."""
        if self.by == "image":
            values = {"base": self.request.base_image, "name": self.bundle_name, "place": PLACE, "image": self.image}
            return {"Dockerfile": fill("kubernetes/Dockerfile", values)}
        if self.by == "hostPath":
            return {}
        try:
            content = base64.b64encode(self.request.bundle.read_bytes()).decode()
        except OSError as error:
            raise access_error(error, f"read the bundle {self.request.bundle}") from error
        return {
            "bundle.yaml": dump(
                {
                    "apiVersion": "v1",
                    "kind": "ConfigMap",
                    "metadata": self._metadata("smallq-deploy-bundle"),
                    "immutable": True,
                    "binaryData": {self.bundle_name: content},
                }
            )
        }

    def install_job(self, wave: HostWave) -> dict[str, Any]:
        """One pod a node. What a pod's container ends with is the exit status of `install` there."""
        job = f"smallq-deploy-install-{wave.number}"
        words = ["install", "--yes", "--no-smoke", "--soc", self.unit, *self.options, "--json"]
        held = f'"$@"; status=$?; sleep {_HOLD}; exit "$status"'
        container = self._container("install", words, held=held)
        return self._job(job, container, wave.change)

    def smoke_job(self) -> dict[str, Any]:
        """Asks for one device a node: on nodes whose devices are all given away its pods wait."""
        job = "smallq-deploy-smoke"
        held = f'"$@"; status=$?; sleep {_HOLD}; exit "$status"'
        container = self._container("smoke", ["smoke", *self.options, "--json"], held=held, change=False)
        container["env"].append({"name": "LD_LIBRARY_PATH", "value": _DRIVER})
        amount = {_resource(self.unit): 1}
        container["resources"] = {"requests": amount, "limits": amount}
        return self._job(job, container, self.request.inventory.hosts)

    def daemonset(self, waves: Sequence[HostWave]) -> dict[str, Any]:
        """On nodes that carry the label WANTED: installs, then says by its readiness whether the files are right."""
        name = "smallq-deploy"
        labels = {"app.kubernetes.io/name": "smallq-deploy", "smallq-deploy/unit": self.unit}
        install = ["install", "--yes", "--no-smoke", "--soc", self.unit, *self.options, "--json"]
        verify = ["verify", *self.options, "--json"]
        report = self._container("report", verify, held='"$@"; exec sleep infinity', change=False)
        probe = {"exec": {"command": self._command(verify)}, "periodSeconds": 600, "timeoutSeconds": 120}
        report["readinessProbe"] = {**probe, "failureThreshold": 1}
        sizes = [len(wave.hosts) for wave in waves]
        pod = self._pod([report], init=[self._container("install", install)])
        pod["nodeSelector"] = {**pod.get("nodeSelector", {}), WANTED[0]: WANTED[1]}
        pod["priorityClassName"] = "system-node-critical"
        return {
            "apiVersion": "apps/v1",
            "kind": "DaemonSet",
            "metadata": self._metadata(name, labels),
            "spec": {
                "selector": {"matchLabels": labels},
                "updateStrategy": {
                    "type": "RollingUpdate",
                    # Of an update only: a new DaemonSet starts on every node with the label at once.
                    "rollingUpdate": {"maxUnavailable": sizes[min(1, len(sizes) - 1)]},
                },
                "template": {"metadata": {"labels": labels}, "spec": pod},
            },
        }

    def _job(self, name: str, container: dict[str, Any], hosts: Sequence[Host]) -> dict[str, Any]:
        labels = {"app.kubernetes.io/name": "smallq-deploy", "smallq-deploy/job": name}
        pod = self._pod([container], hosts=hosts)
        pod["restartPolicy"] = "Never"
        pod["activeDeadlineSeconds"] = int(self.request.timeout) + _HOLD
        pod["affinity"]["podAntiAffinity"] = {
            "requiredDuringSchedulingIgnoredDuringExecution": [
                {
                    "labelSelector": {"matchLabels": {"smallq-deploy/job": name}},
                    "topologyKey": "kubernetes.io/hostname",
                }
            ]
        }
        return {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": self._metadata(name, labels),
            "spec": {
                "completionMode": "Indexed",
                "completions": len(hosts),
                # All at once: a pod that has ended no longer keeps others from its node.
                "parallelism": len(hosts),
                "backoffLimitPerIndex": 0,
                "template": {"metadata": {"labels": labels}, "spec": pod},
            },
        }

    def _metadata(self, name: str, labels: Mapping[str, str] | None = None) -> dict[str, Any]:
        base = {"name": name, "namespace": self.request.namespace}
        return {**base, "labels": dict(labels)} if labels else base

    def _pod(
        self,
        containers: list[dict[str, Any]],
        *,
        init: list[dict[str, Any]] | None = None,
        hosts: Sequence[Host] = (),
    ) -> dict[str, Any]:
        volumes = [
            {"name": f"host-{number}", "hostPath": {"path": path, "type": "Directory"}}
            for number, path in enumerate(self._host_paths())
        ]
        if self.by == "hostPath":
            source: dict[str, Any] = {"hostPath": {"path": self.request.bundle_dir, "type": "Directory"}}
        else:
            source = {"configMap": {"name": "smallq-deploy-bundle"}}
        if self.by != "image":
            volumes.append({"name": "bundle", **source})
        volumes.append({"name": "cache", "emptyDir": {}})
        selector = dict(text.split("=", 1) for text in self._selector())
        return {
            "automountServiceAccountToken": False,
            "hostPID": True,  # to see which processes of the node have the old libraries mapped
            "terminationGracePeriodSeconds": 120,
            **({"nodeSelector": selector} if selector else {}),
            "affinity": {"nodeAffinity": self._nodes(hosts)},
            "tolerations": _TOLERATIONS,
            **({"initContainers": init} if init else {}),
            "containers": containers,
            "volumes": volumes,
        }

    def _selector(self) -> Sequence[str]:
        for text in self.request.selector:
            if not _LABEL.fullmatch(text):
                raise UsageError("BAD_VALUE", f"{text!r} is no node label", hint="label=value, as in a nodeSelector")
        return self.request.selector

    def _nodes(self, hosts: Sequence[Host]) -> dict[str, Any]:
        """Terms are alternatives, and everything in one term must hold."""
        always = [
            {"key": "host-arch", "operator": "In", "values": [_ARCHES.get(arch, arch) for arch in self.request.arches]}
        ]
        always = always if self.request.arches else []
        if hosts:
            always.append({"key": "kubernetes.io/hostname", "operator": "In", "values": names(hosts)})
        labels = _LABELS.get(self.unit, {})
        if not labels and not self.request.selector:
            raise UsageError(
                "EXPORT_UNIT",
                f"no node label is known that means {self.unit} and nothing else",
                hint="name one that your nodes have: --selector LABEL=VALUE",
            )
        chip = [[{"key": key, "operator": "In", "values": list(values)}] for key, values in labels.items()]
        terms = [[*always, *own] for own in chip] if not self.request.selector else [always]
        terms = [term for term in terms if term] or [[{"key": WANTED[0], "operator": "Exists"}]]
        return {
            "requiredDuringSchedulingIgnoredDuringExecution": {
                "nodeSelectorTerms": [{"matchExpressions": term} for term in terms]
            }
        }

    def _host_paths(self) -> list[str]:
        """Directories of the host, at the same place in the pod: the toolkit's links are absolute."""
        found = [ROOT]  # the driver's place, wherever the toolkit is
        for path in self.options[1::2]:
            if not path.startswith("/"):
                continue  # a vendor's name
            above = str(PurePosixPath(path).parent)
            place = path if above == "/" else above
            if not any(PurePosixPath(path).is_relative_to(other) for other in found):
                found.append(place)
        return found

    def _command(self, words: Sequence[str]) -> list[str]:
        """A list of words in a manifest: Kubernetes fills in $(NAME) there, and makes $( of $$(."""
        return [word.replace("$(", "$$(") for word in ("python3", f"{PLACE}/{self.bundle_name}", *words)]

    def _container(self, name: str, words: Sequence[str], *, held: str = "", change: bool = True) -> dict[str, Any]:
        mounts = [
            {"name": f"host-{number}", "mountPath": path, **({} if change else {"readOnly": True})}
            for number, path in enumerate(self._host_paths())
        ]
        if self.by != "image":
            mounts.append({"name": "bundle", "mountPath": PLACE, "readOnly": True})
        mounts.append({"name": "cache", "mountPath": "/cache"})
        command = self._command(words)
        return {
            "name": name,
            "image": self.image,
            "imagePullPolicy": "IfNotPresent",
            "command": ["sh", "-c", held, "sh", *command] if held else command,
            "env": [{"name": key, "value": "/cache"} for key in ("HOME", "TMPDIR", "XDG_CACHE_HOME", "XDG_DATA_HOME")],
            "securityContext": {
                "runAsUser": 0,  # opp/vendors is root's
                "runAsNonRoot": False,
                "privileged": False,
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"add": ["SYS_PTRACE"]},  # /proc/PID/maps of the node's processes
            },
            "resources": {"requests": {"cpu": "100m", "memory": "256Mi"}},
            "terminationMessagePolicy": "FallbackToLogsOnError",
            "volumeMounts": mounts,
        }


def _resource(unit: str) -> str:
    return _RESOURCES.get(unit, "huawei.com/npu" if unit in _NEWER else "huawei.com/Ascend910")
