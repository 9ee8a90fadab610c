"""Directory trees that look like CANN installations: version files, links, set_env.sh; no libraries, no compiler.

Composed from cann.md 1 and 2. For tests of everything that only reads; what has to run takes the simulated toolkit.
"""

from __future__ import annotations

import os
from pathlib import Path

_NEW_SET_ENV = """\
home=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")
export ASCEND_HOME_PATH=$home ASCEND_TOOLKIT_HOME=$home ASCEND_OPP_PATH=$home/opp
export LD_LIBRARY_PATH=$home/lib64:$LD_LIBRARY_PATH PYTHONPATH=$home/python/site-packages:$PYTHONPATH
export PATH=$home/bin:$PATH
"""
_OLD_SET_ENV = """\
export ASCEND_HOME_PATH={latest} ASCEND_TOOLKIT_HOME={latest} ASCEND_OPP_PATH={latest}/opp
export LD_LIBRARY_PATH={latest}/lib64:$LD_LIBRARY_PATH
"""


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def install_info(home: Path, version: str, arch: str, remark: str = "") -> Path:
    lines = ["package_name=Ascend-cann-toolkit", f"version={version}", "innerversion=V100R001C25SPC001B212"]
    lines += [f"arch={arch}", "os=linux", f"path={home}/{arch}-linux"] + ([f"remark={remark}"] if remark else [])
    return write(home / f"{arch}-linux" / "ascend_toolkit_install.info", "\n".join(lines) + "\n")


def _opp(opp: Path, version_dir: str, arch: str) -> None:
    write(opp / "version.info", f"Version=1.2.3\nversion_dir={version_dir}\n")
    write(opp / "scene.info", f"os=linux\nos_version=\narch={arch}")
    (opp / "vendors").mkdir()


def make_new(
    root: Path, version: str = "8.5.0", *, arch: str | None = None, remark: str = "", active: bool = True
) -> Path:
    """CANN 8.5 or later below the installation root ``root``; returns its home."""
    arch = arch or os.uname().machine
    home = root / f"cann-{version}"
    install_info(home, version, arch, remark)
    for package in ("runtime", "opbase", "asc-devkit"):
        write(home / "share" / "info" / package / "version.info", f"Version={version}\nversion_dir=cann\n")
    _opp(home / "opp", "cann", arch)
    write(home / "set_env.sh", _NEW_SET_ENV)
    if active:
        links = ((root / "cann", home), (root / "ascend-toolkit" / "latest", root / "cann"))
        for link, target in links:
            link.parent.mkdir(exist_ok=True)
            link.unlink(missing_ok=True)
            link.symlink_to(target)
    return home


def make_old(root: Path, version: str = "8.1.RC1", *, arch: str | None = None, active: bool = True) -> Path:
    """CANN 8.0 to 8.3 below ``root``; returns the version's own directory. ``latest`` is a real directory of links."""
    arch = arch or os.uname().machine
    base = root / "ascend-toolkit"
    home = base / version
    install_info(home, version, arch)
    _opp(home / "opp", version, arch)
    write(home / "runtime" / "version.info", f"Version=7.7.0.1.238\nversion_dir={version}\n")
    if active:
        latest = base / "latest"
        latest.mkdir(exist_ok=True)
        for link, target in (
            (latest / "opp", f"../{version}/opp"),
            (latest / f"{arch}-linux", f"../{version}/{arch}-linux"),
        ):
            link.unlink(missing_ok=True)
            link.symlink_to(target)
        write(latest / "version.cfg", f"# version: 1.0\nruntime_running_version=[7.7.0.1.238:{version}]\n")
        write(base / "set_env.sh", _OLD_SET_ENV.format(latest=latest))
    return home
