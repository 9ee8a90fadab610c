"""Checks of the machine: toolkit, driver, devices, and what a build needs (cann.md 1, 2.4, 3, 9.2)."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

from smallq_deploy.base.errors import NoToolkitError
from smallq_deploy.machine.facts import read_key_values
from smallq_deploy.operate.doctor import FAIL, PASS, WARN, Context, Finding, Skip, check, worst

_DEVICE_FILES = ("davinci_manager", "devmm_svm", "hisi_hdc")
_TOOLS = ("bash", "cmake", "make", "g++", "python3")
_JOB_MEMORY = 2 << 30  # bytes; a kernel compiler process is hungry


@check("toolkit", "machine", "without a CANN toolkit there is nothing to install into")
def toolkit(context: Context) -> Finding:
    found = context.environment.discovery
    evidence = tuple(f"{item.path} ({item.origin}): {item.reason}" for item in found.candidates)
    if found.chosen is None:
        message = found.problem.message if found.problem else found.why
        hint = found.problem.hint if found.problem else "install the CANN toolkit, or name its directory with --cann"
        return Finding(FAIL, message, evidence, mend=(hint,))
    if found.problem is not None:
        return Finding(WARN, found.problem.message, evidence, mend=(found.problem.hint,))
    if found.ambiguous:
        homes = ", ".join(str(item.home) for item in found.toolkits)
        return Finding(
            WARN,
            f"{len(found.toolkits)} toolkits, and nothing names one: {found.chosen.home} was looked at",
            (homes,),
            "commands that change something refuse to guess between toolkits",
            (f"source {found.chosen.set_env}", f"or say --cann {found.chosen.home} with each command"),
        )
    # A private root is a choice, not a defect; whether programs find it is asked by the checks of lookup.
    if found.warnings and not found.chosen.private:
        mend = f"source {found.chosen.set_env}"
        return Finding(WARN, found.warnings[0], (*found.warnings[1:], *evidence), mend=(mend,))
    return Finding(PASS, f"CANN {found.chosen.version} in {found.chosen.home} ({found.why})", evidence)


@check(
    "toolkit-files", "machine", "contradictions are the mark of a half-done upgrade, or of an install that was moved"
)
def toolkit_files(context: Context) -> Finding:
    chosen = context.toolkit
    if chosen.warnings:
        mend = f"install CANN {chosen.version} again at this place, toolkit and ops packages of the same version"
        return Finding(WARN, chosen.warnings[0], chosen.warnings[1:], mend=(mend,))
    sources = tuple(f"{name}: {source}" for name, source in sorted(chosen.sources.items()))
    return Finding(PASS, f"the version files agree on {chosen.version}", sources)


@check("set-env", "machine", "programs use CANN after this script was sourced; one that fails leaves them without it")
def set_env(context: Context) -> Finding:
    chosen = context.toolkit
    try:
        chosen.environment()
    except (NoToolkitError, OSError) as error:
        hint = error.hint if isinstance(error, NoToolkitError) else ""
        return Finding(FAIL, str(error), (str(chosen.set_env),), mend=(hint,) if hint else ())
    return Finding(PASS, f"{chosen.set_env} activates it")


@check("host-architecture", "machine", "libraries of another architecture cannot be loaded")
def host_architecture(context: Context) -> Finding:
    chosen, host = context.toolkit, context.environment.host_arch
    if chosen.arch == host:
        return Finding(PASS, f"host and toolkit are {host}")
    return Finding(
        WARN,
        f"the toolkit is for {chosen.arch}, this host is {host}: nothing of it can be run here",
        (f"architecture from {chosen.sources.get('arch', '?')}",),
        mend=("use `install --no-smoke` here and `smoke` on a machine of that architecture",),
    )


@check("compatibility", "machine", "outside of the tested combinations the operator may not build, load or compute")
def compatibility(context: Context) -> Finding:
    from smallq_deploy.package.compat import EVIDENCE, Policy, Target, compat_of, judge

    release, target = context.release, Target.of(context.environment)
    assert context.toolkit is not None  # there is nothing to judge without one
    verdict = judge(release, target, compat_of(release), Policy())
    findings = [
        Finding(FAIL if item.code == "KNOWN_BAD" else WARN, item.message, mend=(item.hint,) if item.hint else ())
        for item in verdict.problems
        if item.code != "DRIVER_TOO_OLD"  # the check named driver says it
    ]
    tested = f"; {EVIDENCE[verdict.evidence.evidence]}" if verdict.evidence is not None else ""
    return worst(findings, f"{release.id} is made for CANN {release.cann}; this machine is {target}{tested}")


@check("path-names", "machine", "CANN cuts kernel paths at the first '.o' or '.json' and then finds no kernel")
def path_names(context: Context) -> Finding:
    places = {str(context.toolkit.opp), context.effective.get("ASCEND_OPP_PATH", "")}
    custom = context.effective.get("ASCEND_CUSTOM_OPP_PATH", "").split(":")
    bad = sorted(place for place in (*places, *custom) if ".o" in place or ".json" in place)
    if bad:
        mend = "move it to a path without '.o' and '.json' in any directory name"
        return Finding(FAIL, f"{bad[0]} has '.o' or '.json' in its name", tuple(bad), mend=(mend,))
    return Finding(PASS, "no path has '.o' or '.json' in it")


@check("driver", "machine", "an older driver than CANN was published with is not supported; a newer one is")
def driver(context: Context) -> Finding:
    from smallq_deploy.package.compat import Target, compat_of

    devices = context.environment.devices
    if not devices.driver:
        if not devices.npus:
            raise Skip("no driver here, and no device: a build host, a login node or a container image")
        mend = ("mount the host's driver directory (/usr/local/Ascend/driver) into the container",)
        return Finding(WARN, "there are devices, but the driver's version is unknown", mend=mend)
    source = devices.sources.get("driver", "")
    record = read_key_values(context.root / "etc/ascend_install.info") or {}
    state = record.get("Driver_Install_Status", "complete")
    if state != "complete":
        place = context.root / "etc/ascend_install.info"
        return Finding(FAIL, f"the driver's install is '{state}', not complete", (str(place),), mend=(_driver_mend(),))
    version = context.toolkit.version
    pair = compat_of(context.release).driver_for(version)
    have = Target.of(context.environment).driver
    if have is None or pair is None:
        return Finding(PASS, f"driver {devices.driver}; no driver is known to belong to CANN {version}", (source,))
    if have < pair.driver:
        message = f"driver {devices.driver} is older than {pair.driver}, which CANN {pair.cann} came with"
        return Finding(WARN, message, (source, pair.source), mend=(_driver_mend(),))
    return Finding(PASS, f"driver {devices.driver} (CANN {pair.cann} came with {pair.driver})", (source, pair.source))


def _driver_mend() -> str:
    return (
        "install the driver (HDK) that the release notes of this CANN name: ./Ascend-hdk-*-npu-driver_*.run --upgrade"
    )


@check("devices", "machine", "an unhealthy or hanging device fails or stalls every program that opens it")
def devices(context: Context) -> Finding:
    found = context.environment.devices
    source = found.sources.get("npus", "")
    sick = [npu for npu in found.npus if npu.health not in ("OK", "unknown")]
    if sick:
        first = ", ".join(f"NPU {npu.npu_id} at {npu.bus_id}: {npu.health}" for npu in sick)
        mend = (f"npu-smi info -t health -i {sick[0].npu_id}", "reset the card or ask the vendor's support")
        grave = any(npu.health.lower() in ("alarm", "critical") for npu in sick)
        return Finding(FAIL if grave else WARN, f"{len(sick)} of {len(found.npus)} devices are not OK: {first}",
                       (source,), mend=mend)  # fmt: skip
    if found.warnings:
        return Finding(WARN, found.warnings[0], found.warnings[1:], mend=("npu-smi info",))
    if not found.npus:
        raise Skip("no NPU here: a build host, a login node or a container image")
    names = ", ".join(dict.fromkeys(npu.soc or npu.unit or "unknown chip" for npu in found.npus))
    return Finding(PASS, f"{len(found.npus)} devices ({names}), all OK", (source,))


@check("device-files", "machine", "a process without these files gets 507033 or 207006 instead of a device")
def device_files(context: Context) -> Finding:
    folder = context.root / "dev"
    chips = sorted(path.name for path in folder.glob("davinci*") if re.fullmatch(r"davinci\d+", path.name))
    if not chips:
        raise Skip(f"no {folder}/davinci* here")
    missing = [name for name in _DEVICE_FILES if not (folder / name).exists()]
    findings = []
    if missing:
        give = " ".join(f"--device /dev/{name}" for name in missing)
        text = f"{', '.join(str(folder / name) for name in missing)} missing beside {len(chips)} davinci files"
        findings.append(Finding(FAIL, text, mend=(f"start the container with {give}",)))
    present = [name for name in (*chips, *_DEVICE_FILES) if name not in missing]
    closed = [name for name in present if not os.access(folder / name, os.R_OK | os.W_OK)]
    if closed:
        owner = (folder / closed[0]).stat().st_gid
        text = f"this user may not open {', '.join(str(folder / name) for name in closed)}"
        group = _group_name(owner)
        findings.append(Finding(FAIL, text, mend=(f'sudo usermod -aG {group} "$USER", and log in again',)))
    return worst(findings, f"{len(chips)} devices and the manager's files can be opened")


def _group_name(number: int) -> str:
    import grp

    try:
        return grp.getgrgid(number).gr_name
    except KeyError:
        return str(number)


@check("driver-library", "machine", "stub libraries answer every call with an error (100039), missing ones stop dlopen")
def driver_library(context: Context) -> Finding:
    if not any((context.root / "dev").glob("davinci[0-9]*")):
        raise Skip("no device files here, so no driver library is needed")
    folders = [part for part in context.effective.get("LD_LIBRARY_PATH", "").split(":") if part]
    first = next((Path(part) for part in folders if os.path.isfile(os.path.join(part, "libascend_hal.so"))), None)
    real = context.root / "usr/local/Ascend/driver/lib64/driver"
    mend = (f'export LD_LIBRARY_PATH={real}:{real.parent}:"$LD_LIBRARY_PATH"',)
    if first is None:
        return Finding(FAIL, "no directory of LD_LIBRARY_PATH has libascend_hal.so", tuple(folders), mend=mend)
    if "devlib" in first.parts or "stub" in first.parts:
        return Finding(
            FAIL, f"LD_LIBRARY_PATH leads to the stub {first / 'libascend_hal.so'}", (str(first),), mend=mend
        )
    return Finding(PASS, f"libascend_hal.so comes from {first}")


@check("built-in-kernels", "machine", "without them CANN's own operators fail with 561112; custom ones still run")
def built_in_kernels(context: Context) -> Finding:
    chosen = context.toolkit
    records = sorted((chosen.real_home / f"{chosen.arch}-linux").glob("ascend_ops_install.info"))
    index = chosen.opp / "built-in/op_impl/ai_core/tbe/kernel/config"
    unit = context.unit
    if unit and (index / unit).is_dir():
        return Finding(PASS, f"built-in kernels of CANN for {unit} are here", (str(index / unit),))
    if (chosen.real_home / "opp_kernel").is_dir():
        return Finding(PASS, "a kernels package of CANN is installed", (str(chosen.real_home / "opp_kernel"),))
    if records:
        package = (read_key_values(records[0]) or {}).get("package_name", "")
        return Finding(PASS, f"{package or 'an ops package'} is recorded as installed", (str(records[0]),))
    line = "kernels" if chosen.layout == "old" else "ops"
    mend = f"install the {line} package of CANN {chosen.version} for this chip, where programs use CANN's own operators"
    return Finding(WARN, f"no kernels package of CANN {chosen.version} is recorded", (str(index),), mend=(mend,))


@check("build-tools", "machine", "they are needed to build the operator here; installing a built package needs none")
def build_tools(context: Context) -> Finding:
    chosen = context.toolkit
    environment = context.effective
    path = environment.get("PATH") or os.defpath
    findings = []
    missing = [name for name in _TOOLS if not shutil.which(name, path=path)]
    if missing:
        packages = " ".join(missing)
        text = f"not found: {', '.join(missing)}"
        mend = f"apt-get install {packages}   or: dnf install {packages.replace('g++', 'gcc-c++')}"
        findings.append(Finding(WARN, text, mend=(mend,)))
    places = [chosen.home / "bin", chosen.home / f"{chosen.arch}-linux/bin",
              chosen.home / f"{chosen.arch}-linux/ccec_compiler/bin",
              chosen.home / "compiler/ccec_compiler/bin"]  # fmt: skip
    search = ":".join([path, *map(str, places)])
    if not shutil.which("bisheng", path=search):
        mend = f"install the full toolkit package of CANN {chosen.version}, with the compiler"
        findings.append(
            Finding(WARN, "the kernel compiler bisheng was not found", tuple(map(str, places)), mend=(mend,))
        )
    scripts = chosen.home / "tools/op_project_templates/ascendc/customize/scripts/install.sh"
    if scripts.is_file() and not os.access(scripts, os.R_OK):
        mend = "install the toolkit with --install-for-all, or build as a user of its group"
        findings.append(Finding(WARN, f"this user may not read {scripts}, which goes into packages", mend=(mend,)))
    memory = _memory()
    if 0 < memory < _JOB_MEMORY:
        text = f"{memory / (1 << 30):.1f} GiB of memory are free; a kernel compiler process takes about 2 GiB"
        findings.append(Finding(WARN, text, mend=("export OPS_CPU_NUMBER=1",)))
    return worst(findings, "compiler and tools to build the operator are here")


def _memory() -> int:
    """Bytes of memory that are free here, by the kernel and the control group; 0 unknown."""
    known = []
    try:
        text = Path("/proc/meminfo").read_text(encoding="ascii")
        found = re.search(r"^MemAvailable:\s+(\d+) kB", text, re.MULTILINE)
        known += [int(found[1]) * 1024] if found else []
        known.append(int(Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii")))
    except (OSError, ValueError):
        pass  # "max" is no number: no limit
    return min(known, default=0)
