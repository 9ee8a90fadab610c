"""Machines written as data: a tree of files and links, an environment, what commands print, what is expected of it.

A tree file (trees/*.yaml) is a list of machines. Paths are as on the machine; the tree is built below
a temporary root, and the root is taken out of every answer before it is compared.

    machine: name of the case
    about: what is special
    host: aarch64                    (default)
    cann: DIR                        what --cann gets
    environ: {NAME: VALUE}           a value that starts with / is a path of the machine
    new / old: [{...}]               toolkits of the layout since 8.5 / up to 8.3, see below
    files / links / dirs / remove:   what is there besides; links are made as written
    deny: [PATH]                     what another user may not read
    npu_smi: {...}                   answers of npu-smi by arguments after `info`
    expect: {...}                    see test_machines.py
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

TREES = Path(__file__).parent / "trees"
_NEW_PACKAGES = ("asc-devkit", "bisheng-compiler", "metadef", "runtime")
_OLD_PACKAGES = ("compiler", "opp", "runtime", "toolkit")


def machines() -> list[dict[str, Any]]:
    """Every machine of every tree file."""
    found: list[dict[str, Any]] = []
    for path in sorted(TREES.glob("*.yaml")):
        with open(path, encoding="utf-8") as stream:
            found.extend({**item, "file": path.stem} for item in yaml.safe_load(stream))
    return found


def install_info(version: str, inner: str, arch: str, path: str, package: str = "Ascend-cann-toolkit") -> str:
    values = {"package_name": package, "version": version, "innerversion": inner, "arch": arch, "os": "linux"}
    return "".join(f"{name}={value}\n" for name, value in {**values, "path": f"{path}/{arch}-linux"}.items())


class Tree:
    """Builds one machine below ``root``."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def at(self, path: str) -> Path:
        return self.root / path.lstrip("/")

    def write(self, path: str, text: str, mode: int = 0o644) -> None:
        place = self.at(path)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text, encoding="utf-8")
        place.chmod(mode)

    def link(self, path: str, target: str) -> None:
        place = self.at(path)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.unlink(missing_ok=True)
        place.symlink_to(str(self.at(target)) if target.startswith("/") else target)

    def opp(self, home: str, arch: str, version: str, version_dir: str) -> None:
        self.write(f"{home}/opp/version.info", f"Version={version}\nversion_dir={version_dir}\n")
        self.write(f"{home}/opp/scene.info", f"os=linux\nos_version=\narch={arch}")
        self.at(f"{home}/opp/vendors").mkdir()

    def new(
        self,
        version: str,
        *,
        at: str = "/usr/local/Ascend",
        arch: str = "aarch64",
        inner: str = "V100R001C25SPC001B212",
        links: bool = True,
        name: str = "",
        ops: str = "",
    ) -> None:
        """8.5 and later: cann-<version>; with ``links`` `cann` and `latest` name it; ``ops`` is its kernel package."""
        home = f"{at}/{name or f'cann-{version}'}"
        self.write(f"{home}/{arch}-linux/ascend_toolkit_install.info", install_info(version, inner, arch, home))
        if ops:
            text = install_info(version, inner, arch, home, ops)
            self.write(f"{home}/{arch}-linux/ascend_ops_install.info", text)
        for package in _NEW_PACKAGES:
            self.write(f"{home}/share/info/{package}/version.info", f"Version={version}\nversion_dir=cann\n")
        self.opp(home, arch, version, "cann")
        self.write(f"{home}/set_env.sh", 'export ASCEND_HOME_PATH=$(dirname "$(readlink -f "$BASH_SOURCE")")\n', 0o444)
        if links:
            self.link(f"{at}/cann", home)
            self.link(f"{at}/ascend-toolkit/latest", f"{at}/cann")

    def old(
        self,
        version: str,
        *,
        at: str = "/usr/local/Ascend",
        arch: str = "aarch64",
        inner: str = "V100R001C21SPC001B238",
        component: str = "7.7.0.1.238",
        active: bool = True,
        base: str = "ascend-toolkit",
        kind: str = "toolkit",
    ) -> None:
        """8.0 to 8.3: <base>/<version>; ``active``: `latest` is a directory of links to it."""
        top = f"{at}/{base}"
        home = f"{top}/{version}"
        text = install_info(version, inner, arch, home, f"Ascend-cann-{kind}")
        # nnae keeps its record in the home itself.
        folder = home if kind == "nnae" else f"{home}/{arch}-linux"
        self.write(f"{folder}/ascend_{kind}_install.info", text)
        self.at(f"{home}/{arch}-linux").mkdir(exist_ok=True)
        for package in _OLD_PACKAGES[: 4 if kind == "toolkit" else 3]:
            if package != "opp":
                self.write(f"{home}/{package}/version.info", f"Version={component}\nversion_dir={version}\n")
        self.opp(home, arch, component, version)
        if not active:
            return
        for name in os.listdir(self.at(home)):
            if not name.endswith(".info") or kind == "nnae":
                self.link(f"{top}/latest/{name}", f"../{version}/{name}")
        packages = sorted(set(os.listdir(self.at(home))) & set(_OLD_PACKAGES))
        lines = [f"{package}_running_version=[{component}:{version}]\n" for package in packages]
        self.write(f"{top}/latest/version.cfg", "# version: 1.0\n" + "".join(lines))
        self.write(
            f"{top}/set_env.sh",
            f"export ASCEND_TOOLKIT_HOME={top}/latest\nexport ASCEND_OPP_PATH=${{ASCEND_TOOLKIT_HOME}}/opp\n",
        )

    def platform(self, path: str, socs: Mapping[str, str]) -> None:
        for soc, short in socs.items():
            self.write(f"{path}/{soc}.ini", f"[version]\nSoC_version={soc}\nShort_SoC_version={short}\n")

    def npu_smi(self, answers: Mapping[str, Any]) -> None:
        """``at``: where it lies; every other key is what stands after `npu-smi info`, its value the text it prints.

        A value can also be {text, exit, stderr}; ``hang: true`` makes it sleep. Unknown arguments end with status 1.
        """
        answers = dict(answers)
        path = answers.pop("at", "/usr/local/bin/npu-smi")
        mode = answers.pop("mode", 0o755)
        lines = ["#!/bin/bash", '[ "$1" = info ] || exit 2', "shift"]
        if answers.pop("hang", False):
            lines.append("sleep 300")
        lines.append('case "$*" in')
        for arguments, answer in answers.items():
            answer = answer if isinstance(answer, dict) else {"text": answer}
            stream = " >&2" if answer.get("stderr") else ""
            lines += [f'"{arguments}")', f"cat{stream} <<'TEXT'", str(answer["text"]).rstrip("\n"), "TEXT"]
            lines += [f"exit {answer.get('exit', 0)};;"]
        lines += ["*) echo 'Invalid parameter'; exit 1;;", "esac"]
        self.write(path, "\n".join(lines) + "\n", mode)

    def build(self, machine: Mapping[str, Any]) -> None:
        self.root.mkdir(parents=True, exist_ok=True)
        for toolkit in machine.get("new", ()):
            self.new(**toolkit)
        for toolkit in machine.get("old", ()):
            self.old(**toolkit)
        for path, text in machine.get("files", {}).items():
            self.write(path, text)
        for path in machine.get("dirs", ()):
            self.at(path).mkdir(parents=True, exist_ok=True)
        for path, target in machine.get("links", {}).items():
            self.link(path, target)
        for path, socs in machine.get("platform", {}).items():
            self.platform(path, socs)
        for bus, device in machine.get("pci", {}).items():
            self.write(f"/sys/bus/pci/devices/{bus}/vendor", "0x19e5\n")
            self.write(f"/sys/bus/pci/devices/{bus}/device", f"{device}\n")
        if "npu_smi" in machine:
            self.npu_smi(machine["npu_smi"])
        for path in machine.get("remove", ()):
            place = self.at(path)
            if place.is_dir() and not place.is_symlink():
                shutil.rmtree(place)
            else:
                place.unlink()
        for path in machine.get("deny", ()):
            self.at(path).chmod(0)

    def environ(self, machine: Mapping[str, Any]) -> dict[str, str]:
        values = {name: str(value) for name, value in machine.get("environ", {}).items()}
        return {name: str(self.at(value)) if value.startswith("/") else value for name, value in values.items()}
