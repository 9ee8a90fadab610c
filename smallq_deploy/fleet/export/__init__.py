"""For those who use an engine of their own: files for Ansible, Kubernetes, Slurm, ClusterShell and plain ssh.

Each exporter is a pure function of an ``ExportRequest`` (request.py) that returns relative file names with their text;
``write_export`` (write.py) puts them into a directory.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from smallq_deploy.fleet.export.request import ExportRequest

KINDS = ("ansible", "kubernetes", "slurm", "clustershell", "ssh")


def exporter(kind: str) -> Callable[[ExportRequest], dict[str, str]]:
    """The function of one of KINDS."""
    from smallq_deploy.fleet.export.ansible import export_ansible
    from smallq_deploy.fleet.export.clustershell import export_clustershell, export_ssh
    from smallq_deploy.fleet.export.kubernetes import export_kubernetes
    from smallq_deploy.fleet.export.slurm import export_slurm

    return {
        "ansible": export_ansible,
        "kubernetes": export_kubernetes,
        "slurm": export_slurm,
        "clustershell": export_clustershell,
        "ssh": export_ssh,
    }[kind]
