"""What a simulated toolkit says about itself: versions, component versions, SoCs and their platform files.

Sources: the files of a CANN 8.1.RC1 installation (ascend_toolkit_install.info, <component>/version.info, version.cfg,
data/platform_config/*.ini) and the packaging scripts of 8.5 and 9.x.
"""

from __future__ import annotations

from dataclasses import dataclass

from smallq_deploy.base.errors import UsageError
from smallq_deploy.base.versions import CannVersion

REMARK = "simulated toolkit"


@dataclass(frozen=True)
class Release:
    """Version facts of one CANN release. ``component`` is the version in the components' version.info."""

    version: str
    inner: str
    component: str
    driver: str
    timestamp: str = "00000000_000000000"


FIRMWARE = "7.1.0.11.220"

# Inner versions do not increase with the version (cann.md 2.1); driver pairs are those of cann.md 2.4.
_RELEASES = {
    release.version: release
    for release in (
        Release("8.1.RC1", "V100R001C21SPC001B238", "7.7.0.1.238", "25.0.rc1", "20250428_203017761"),
        Release("8.3.RC1", "V100R001C23SPC001B231", "8.3.0.1.200", "25.3.rc1"),
        Release("8.5.0", "V100R001C25SPC001B212", "8.5.0", "25.5.0"),
        Release("9.0.0", "V100R001C25B046", "9.0.0", "26.0.rc1"),
        Release("9.1.0", "V100R001C11B063", "9.1.0", "26.0.rc1"),
    )
}


def release_of(version: CannVersion) -> Release:
    """The facts of ``version``; one not in the table takes those of the release before it, and its own version."""
    known = _RELEASES.get(str(version))
    if known is not None:
        return known
    before = _RELEASES["8.1.RC1"]
    for item in _RELEASES.values():
        if CannVersion.parse(before.version) <= CannVersion.parse(item.version) <= version:
            before = item
    return Release(str(version), before.inner, str(version), before.driver)


@dataclass(frozen=True)
class Soc:
    """One chip of the Atlas A2 family; sizes in bytes, frequency in MHz, ``memory_size`` '' where the file has none."""

    name: str
    cube_cores: int
    vector_cores: int
    cube_freq: int
    memory_size: str
    l2_size: int
    vir_types: str
    prefetch: bool = True


_SOCS = {
    soc.name: soc
    for soc in (
        Soc("Ascend910B1", 24, 48, 1850, "68719476736", 201326592, "2,3,6,12,24"),
        Soc("Ascend910B2", 24, 48, 1800, "68719476736", 201326592, "2,3,6,12,24"),
        Soc("Ascend910B2C", 24, 48, 1800, "", 201326592, "2,3,6,12,24"),
        Soc("Ascend910B3", 20, 40, 1800, "68719476736", 201326592, "4,5,10,20"),
        Soc("Ascend910B4", 20, 40, 1500, "34359738368", 100663296, "4,5,10,20"),
        Soc("Ascend910B4-1", 20, 40, 1500, "34359738368", 176160768, "4,5,10,20", prefetch=False),
    )
}
SOC_NAMES: tuple[str, ...] = tuple(_SOCS)


def soc_of(name: str) -> Soc:
    """The chip called ``name`` (Ascend910B3 or 910B3). Raises UsageError UNKNOWN_SOC."""
    full = name if name.startswith("Ascend") else f"Ascend{name}"
    if full not in _SOCS:
        raise UsageError(
            "UNKNOWN_SOC", f"the sandbox cannot simulate {name!r}", hint="it knows " + ", ".join(SOC_NAMES)
        )
    return _SOCS[full]


def platform_ini(soc: Soc) -> str:
    """Text of data/platform_config/<soc>.ini: the sections that hosts and tiling read (no instruction tables)."""
    prefetch = "prefetch_num=8\n" if soc.prefetch else ""
    return f"""\
# Platform configuration ({REMARK})

[version]
SoC_version={soc.name}
Short_SoC_version=Ascend910B
AIC_version=AIC-C-220
CCEC_AIC_version=dav-c220-cube
CCEC_AIV_version=dav-c220-vec
CCEC_CUBE_version=dav-c220-cube
CCEC_VECTOR_version=dav-c220-vec
Compiler_aicpu_support_os=true
Arch_type=4

[SoCInfo]
ai_core_cnt={soc.cube_cores}
cube_core_cnt={soc.cube_cores}
vector_core_cnt={soc.vector_cores}
ai_cpu_cnt=4
memory_type=
memory_size={soc.memory_size}
l2_type=0
l2_size={soc.l2_size}
l2PageNum=64
{prefetch}ffts_mode=ffts-plus
core_type_list=CubeCore,VectorCore
cube_vector_combine=split
hardware_sync_betweencore=1
vir_type_list={soc.vir_types}

[AICoreSpec]
cube_freq={soc.cube_freq}
cube_m_size=16
cube_n_size=16
cube_k_size=16
vec_calc_size=128
l0_a_size=65536
l0_b_size=65536
l0_c_size=131072
l1_size=524288
fb0_size=2048
fb1_size=1024
fb2_size=2048
fb3_size=2048
bt_size=1024
smask_buffer=0
ub_size=196608
ubblock_size=32
ubbank_size=4096
ubbank_num=64
ubburst_in_one_block=32
ubbank_group_num=16
unzip_engines=4
unzip_max_ratios=64
unzip_channels=2
unzip_is_tight=1
support_fixpipe=1
sparsity=1

[AICoreMemoryRates]
ddr_rate=32
ddr_read_rate=32
ddr_write_rate=32
l2_rate=110
l2_read_rate=110
l2_write_rate=86
l1_to_l0_a_rate=512
l1_to_l0_b_rate=256
l1_to_ub_rate=128
l0_c_to_ub_rate=256
ub_to_l2_rate=64
ub_to_ddr_rate=64
ub_to_l1_rate=128

[CPUCache]
AICPUSyncBySW=0
TSCPUSyncBySW=0
"""
