"""The files and links of a simulated CANN installation, in the old (8.0 - 8.3) and the new (8.5 and later) layout.

Sources: cann.md 1.1 and 1.2 (layouts), 1.4 (set_env.sh), 2.1 (version files), 3.3 (platform_config).
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from smallq_deploy.base.versions import CannVersion
from smallq_deploy.sandbox.facts import FIRMWARE, REMARK, SOC_NAMES, Release, Soc, platform_ini, release_of, soc_of
from smallq_deploy.sandbox.native_cache import NATIVE, sources_digest

_OLD_COMPONENTS = ("runtime", "compiler", "hccl", "opp", "toolkit", "opp_kernel")
_VERSION_CFG = ("runtime", "compiler", "hccl", "opp", "toolkit", "aoe", "ncs", "opp_kernel")
_SCRIPTS = NATIVE / "scripts"
_TEMPLATE = Path("tools/op_project_templates/ascendc/customize")


@dataclass(frozen=True)
class Spec:
    """What to create: an installation root with one CANN in it."""

    root: Path
    version: CannVersion
    layout: str
    arch: str
    soc: Soc
    devices: int

    @property
    def release(self) -> Release:
        return release_of(self.version)

    @property
    def is_old(self) -> bool:
        return self.layout == "old"

    @property
    def real_home(self) -> Path:
        """The directory that holds the files."""
        return self.root / "ascend-toolkit" / str(self.version) if self.is_old else self.root / f"cann-{self.version}"

    @property
    def home(self) -> Path:
        """What set_env.sh exports as ASCEND_HOME_PATH."""
        return self.root / "ascend-toolkit" / "latest" if self.is_old else self.real_home

    @property
    def set_env(self) -> Path:
        return self.root / "ascend-toolkit" / "set_env.sh" if self.is_old else self.real_home / "set_env.sh"

    @property
    def arch_dir(self) -> Path:
        return self.real_home / f"{self.arch}-linux"

    @property
    def opp(self) -> Path:
        """The real opp directory (behind ``latest/opp`` in the old layout)."""
        return self.real_home / "opp"

    @property
    def recipes(self) -> Path:
        return self.root / "cann-recipes-infer"


def write(path: Path, text: str, mode: int = 0o644) -> None:
    """Write a new file and its parents."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)


def link(path: Path, target: str | Path) -> None:
    """Make ``path`` a symbolic link with exactly this target."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(target)


def copy(source: Path, target: Path, mode: int | None = None) -> None:
    """Copy one file and its parents."""
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
    target.chmod(mode if mode is not None else 0o644)


def copy_sources(source: Path, target: Path) -> None:
    """Copy a directory of our own sources; caches of interpreters stay behind."""
    shutil.copytree(source, target, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__", "*.pyc"))


def filled(template: Path, **values: str) -> str:
    """Text of a template with each @NAME@ replaced."""
    text = template.read_text()
    for name, value in values.items():
        text = text.replace(f"@{name}@", value)
    return text


def create_toolkit(spec: Spec, libraries: Path | None) -> None:
    """Write the toolkit. ``libraries`` is the compiled runtime, or None for an architecture that is not the host's."""
    _arch_tree(spec, libraries)
    _tools(spec, libraries)
    _opp(spec)
    (spec.real_home / "python/site-packages").mkdir(parents=True)
    if spec.is_old:
        _old_versions(spec)
        _latest(spec)
    else:
        _new_versions(spec)


def _arch_tree(spec: Spec, libraries: Path | None) -> None:
    home, base = spec.real_home, spec.arch_dir
    copy_sources(NATIVE / "include", base / "include")
    copy_sources(NATIVE / "emulator" / "include", base / "tikcpp/tikcfw")
    copy(NATIVE / "common" / "sim_launch.h", base / "tikcpp/tikcfw/sim_launch.h")
    copy(_SCRIPTS / "toolkit/bisheng", base / "ccec_compiler/bin/bisheng", 0o755)
    write(base / "ccec_compiler/build_id", sources_digest()[:12] + "\n")
    for name in ("conf", "devlib", "lib64/plugin/opskernel", "lib64/plugin/nnengine"):
        (base / name).mkdir(parents=True, exist_ok=True)
    for name in SOC_NAMES:
        write(base / f"data/platform_config/{name}.ini", platform_ini(soc_of(name)))
    write(base / "data/sim/devices.conf", f"soc={spec.soc.name}\ndevices={spec.devices}\n")
    if libraries is not None:
        _libraries(spec, libraries)
    write(base / "ascend_toolkit_install.info", _install_info(spec, "Ascend-cann-toolkit", REMARK))
    npu_smi = spec.root / "driver/tools/npu-smi"
    link(base / "bin/npu-smi", os.path.relpath(npu_smi, base / "bin"))
    for name in ("bin", "include", "lib64", "conf", *(() if spec.is_old else ("devlib",))):
        link(home / name, f"{spec.arch}-linux/{name}")
    if spec.arch == "aarch64":
        link(home / "arm64-linux", "aarch64-linux")


def _libraries(spec: Spec, libraries: Path) -> None:
    # Before 8.5 there was no libacl_rt.so: those libraries are built without it.
    before_85 = spec.version < CannVersion.parse("8.5.0.alpha001")
    source = libraries / "pre85" if before_85 else libraries
    for library in sorted(source.glob("lib*.so")):
        copy(library, spec.arch_dir / "lib64" / library.name, 0o755)


def _install_info(spec: Spec, package: str, remark: str) -> str:
    release = spec.release
    line = release.inner.split("SPC")[0].split("B")[0]
    return (
        f"package_name={package}\nversion={spec.version}\ninnerversion={release.inner}\n"
        f"compatible_version=[{line}]\narch={spec.arch}\nos=linux\npath={spec.arch_dir}\nremark={remark}\n"
    )


def _tools(spec: Spec, libraries: Path | None) -> None:
    home = spec.real_home
    link(home / "compiler/ccec_compiler", f"../{spec.arch}-linux/ccec_compiler")
    link(home / "tools/ccec_compiler", f"../{spec.arch}-linux/ccec_compiler")
    if libraries is not None:
        copy(libraries / "op_build", home / "tools/opbuild/op_build", 0o755)
    for helper in sorted((NATIVE / "opbuild").glob("*.py")):
        copy(helper, home / "tools/opbuild" / helper.name)
    template = home / _TEMPLATE
    copy_sources(_SCRIPTS / "op_project/project", template)
    copy_sources(_SCRIPTS / "op_project/cmake", template / "cmake")
    for script in ("compile_kernel.sh", "index_kernels.sh"):
        copy(NATIVE / "ascendc/cmake/scripts" / script, template / "cmake/util" / script)
    write(
        template / "cmake/makeself.cmake",
        filled(_SCRIPTS / "op_project/cmake/makeself.cmake", TAR_FORMAT="" if spec.is_old else "--tar-format posix"),
    )
    # 8.0 - 8.3 merge into an existing vendor directory, later ones replace its parts.
    variant, other = ("merge", "replace") if spec.is_old else ("replace", "merge")
    lines = filled(_SCRIPTS / "op_project/scripts/install.sh.in", VARIANT=variant).splitlines(keepends=True)
    kept = (line.removeprefix(f"#{variant}:") for line in lines if not line.startswith(f"#{other}:"))
    write(template / "scripts/install.sh", "".join(kept), 0o750)
    copy(_SCRIPTS / "op_project/scripts/upgrade.sh", template / "scripts/upgrade.sh", 0o750)
    copy(_SCRIPTS / f"op_project/scripts/help_{variant}.info", template / "scripts/help.info")


def _scene(spec: Spec) -> str:
    return f"os=linux\nos_version=\narch={spec.arch}"


def _opp(spec: Spec) -> None:
    opp = spec.opp
    (opp / "built-in/op_impl/ai_core/tbe").mkdir(parents=True)
    (opp / "vendors").mkdir()
    write(opp / "scene.info", _scene(spec))
    write(
        opp / "ascend_install.info",
        "USERNAME=root\nUSERGROUP=root\nOPP_INSTALL_TYPE=full\n"
        f"OPP_INSTALL_PATH_VAL={spec.real_home}\nOPP_VERSION={spec.release.component}\n",
    )
    (opp / "vendors").chmod(0o750)
    opp.chmod(0o750)


def _component_info(spec: Spec, version_dir: str, extra: str = "") -> str:
    release = spec.release
    return f"Version={release.component}\nversion_dir={version_dir}\ntimestamp={release.timestamp}\n{extra}"


def _old_versions(spec: Spec) -> None:
    home, version = spec.real_home, str(spec.version)
    for component in _OLD_COMPONENTS:
        # The range that the graph engine's loader accepts in a vendor's version.info (seen in 8.1.RC1).
        abi = 'required_opp_abi_version=">=6.3, <=7.7"\n' if component in ("runtime", "compiler") else ""
        write(home / component / "version.info", _component_info(spec, version, abi))
    write(home / "pyACL/version.info", f"Version={version}\n")
    link(home / "ops", "opp")
    major, minor = spec.version.release
    link(home.parent / f"{major}.{minor}", f"./{version}")
    write(spec.set_env, filled(_SCRIPTS / "toolkit/set_env_old.sh.in", ROOT=str(spec.root), VERSION=version), 0o644)


def _latest(spec: Spec) -> None:
    """``latest``: a real directory of links, one by one, as the installer of 8.0 - 8.3 leaves it."""
    version, latest = str(spec.version), spec.home
    arch = f"{spec.arch}-linux"
    for name in sorted(os.listdir(spec.real_home)):
        if name not in (arch, "arm64-linux", "bin", "include", "lib64", "conf", "tools", "python"):
            link(latest / name, f"../{version}/{'opp' if name == 'ops' else name}")
    for name in ("bin", "include", "lib64", "conf"):
        link(latest / name, f"{arch}/{name}")
    if spec.arch == "aarch64":
        link(latest / "arm64-linux", arch)
    for name in sorted(os.listdir(spec.real_home / "tools")):
        link(latest / "tools" / name, f"../../{version}/tools/{name}")
    (latest / "python/site-packages").mkdir(parents=True)
    link(latest / arch / "ascend_toolkit_install.info", f"../../{version}/{arch}/ascend_toolkit_install.info")
    for name in ("bin", "include", "lib64", "conf", "data", "devlib", "ccec_compiler", "tikcpp"):
        (latest / arch / name).mkdir(parents=True)
        for entry in sorted(os.listdir(spec.arch_dir / name)):
            link(latest / arch / name / entry, f"../../../{version}/{arch}/{name}/{entry}")
    setenv = filled(_SCRIPTS / "toolkit/setenv_old.bash.in", ROOT=str(spec.root), VERSION=version)
    write(latest / arch / "bin/setenv.bash", setenv)
    write(latest / "platform.ini", "product_type=dc\n")
    item = f"[{spec.release.component}:{version}]"
    kinds = ("running", "upgrade", "installed")
    lines = [f"{name}_{kind}_version={item}\n" for kind in kinds for name in _VERSION_CFG]
    write(latest / "version.cfg", "# version: 1.0\n" + "".join(lines))
    write(latest / "var/manager.info", "install_for_all=y\n")


def _new_versions(spec: Spec) -> None:
    home, root = spec.real_home, spec.root
    opbase = "ops_base" if spec.version < CannVersion.parse("9.0.0-beta.1") else "opbase"
    packages = ("asc-devkit", "asc-tools", "bisheng-compiler", "hccl", "hcomm", "metadef", "oam-tools", opbase)
    for package in (*packages, "ops_legacy", "runtime"):
        info = home / "share/info" / package
        write(info / "version.info", _component_info(spec, "cann"))
        write(info / "scene.info", _scene(spec))
        write(info / "ascend_install.info", f"USERNAME=root\nUSERGROUP=root\nINSTALL_PATH={root}\n")
    link(home / "compiler/version.info", "../share/info/asc-devkit/version.info")
    write(spec.opp / "version.info", _component_info(spec, "cann"))
    (home / "runtime").mkdir()
    (home / "toolkit/tools").mkdir(parents=True)
    (home / "var").mkdir()
    ops_info = _install_info(spec, "Ascend-cann-910b-ops", f"{REMARK}, no built-in kernels")
    write(spec.arch_dir / "ascend_ops_install.info", ops_info)
    copy(_SCRIPTS / "toolkit/set_env_new.sh", spec.set_env, 0o440)
    link(spec.arch_dir / "bin/setenv.bash", "../../set_env.sh")
    # These three are absolute in a real installation too.
    link(root / "cann", home)
    link(root / "ascend-toolkit/latest", root / "cann")
    link(root / "ascend-toolkit/set_env.sh", root / "ascend-toolkit/latest/set_env.sh")


def create_driver(spec: Spec) -> None:
    """Driver and firmware records and npu-smi; there is no driver library, because nothing in the sandbox needs one."""
    root, release = spec.root, spec.release
    write(
        root / "driver/version.info",
        f"Version={release.driver}\nascendhal_version=7.35.23\npackage_version={release.driver}\n"
        f"Innerversion={release.inner}\ncompatible_version_fw=[7.0.0,7.2.99]\nremark={REMARK}\n",
    )
    write(root / "firmware/version.info", f"Version={FIRMWARE}\nfirmware_version=1.0\nremark={REMARK}\n")
    copy(_SCRIPTS / "toolkit/npu-smi", root / "driver/tools/npu-smi", 0o755)
    for name in ("common", "driver"):
        (root / "driver/lib64" / name).mkdir(parents=True)


def create_recipes(spec: Spec) -> None:
    """A checkout of the operator build project, without our operator: that one is put in by ``smallq-deploy build``."""
    project = spec.recipes / "ops/ascendc"
    copy_sources(NATIVE / "ascendc", project)
    copy_sources(NATIVE / "ascendc_include", project / "src/utils/inc")
    if spec.is_old:
        # The project of that time names the toolkit component it fits; package names then carry that version.
        component = spec.release.component.rsplit(".", 1)[0]
        write(project / "version.info", f"Version={component}.\n")
    write(
        spec.recipes / "README.md",
        f"# cann-recipes-infer ({REMARK})\n\n`ops/ascendc` builds custom operators: "
        '`bash build.sh -n "vec_add_sample" -c "ascend910b"`\n',
    )
