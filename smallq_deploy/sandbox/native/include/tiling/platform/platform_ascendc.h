// SPDX-License-Identifier: Apache-2.0
// What a tiling function may ask about the SoC. Every value comes from platform_config/<Soc>.ini.
#ifndef SIM_TILING_PLATFORM_PLATFORM_ASCENDC_H_
#define SIM_TILING_PLATFORM_PLATFORM_ASCENDC_H_

#include <cstdint>
#include <cstdlib>
#include <cstring>

#include "platform/platform_infos_def.h"

namespace platform_ascendc {

enum class CoreMemType { L0_A = 0, L0_B = 1, L0_C = 2, L1 = 3, L2 = 4, UB = 5, HBM = 6, RESERVED };

enum class SocVersion {
    ASCEND910 = 0,
    ASCEND910B,
    ASCEND310P,
    ASCEND310B,
    ASCEND910_93,
    ASCEND950,
    RESERVED_VERSION = 99999
};

class PlatformAscendC {
public:
    explicit PlatformAscendC(fe::PlatFormInfos* platform_info) : info_(platform_info) {}

    // Cores a launch is counted in: AI cores (cube cores where cube and vector units are separate).
    uint32_t GetCoreNum() const { return static_cast<uint32_t>(Number("SoCInfo", "ai_core_cnt")); }
    uint32_t GetCoreNumAic() const {
        const uint64_t cube = Number("SoCInfo", "cube_core_cnt");
        return cube != 0 ? static_cast<uint32_t>(cube) : GetCoreNum();
    }
    uint32_t GetCoreNumAiv() const {
        const uint64_t vector = Number("SoCInfo", "vector_core_cnt");
        return vector != 0 ? static_cast<uint32_t>(vector) : GetCoreNum();
    }
    uint32_t GetCoreNumVector() const { return GetSocVersion() == SocVersion::ASCEND310P ? GetCoreNumAiv() : 0; }

    // Bytes of a memory; 0 when the SoC has none of that kind.
    void GetCoreMemSize(const CoreMemType& mem_type, uint64_t& size) const {
        switch (mem_type) {
            case CoreMemType::L0_A:
                size = Number("AICoreSpec", "l0_a_size");
                break;
            case CoreMemType::L0_B:
                size = Number("AICoreSpec", "l0_b_size");
                break;
            case CoreMemType::L0_C:
                size = Number("AICoreSpec", "l0_c_size");
                break;
            case CoreMemType::L1:
                size = Number("AICoreSpec", "l1_size");
                break;
            case CoreMemType::L2:
                size = Number("SoCInfo", "l2_size");
                break;
            case CoreMemType::UB:
                size = Number("AICoreSpec", "ub_size");
                if (IsAtlasA2() && size > kReservedUb) {
                    size -= kReservedUb;
                }
                break;
            case CoreMemType::HBM:
                size = Number("SoCInfo", "memory_size");
                break;
            default:
                size = 0;
                break;
        }
    }

    SocVersion GetSocVersion() const {
        const char* name = Text("version", "Short_SoC_version");
        if (std::strcmp(name, "Ascend910B") == 0) {
            return SocVersion::ASCEND910B;
        }
        if (std::strcmp(name, "Ascend910_93") == 0) {
            return SocVersion::ASCEND910_93;
        }
        if (std::strcmp(name, "Ascend310P") == 0) {
            return SocVersion::ASCEND310P;
        }
        if (std::strcmp(name, "Ascend310B") == 0) {
            return SocVersion::ASCEND310B;
        }
        if (std::strcmp(name, "Ascend910") == 0) {
            return SocVersion::ASCEND910;
        }
        return SocVersion::RESERVED_VERSION;
    }

    // Bytes at the start of the workspace that belong to the framework: 16 MiB where cube and vector units are
    // separate.
    uint32_t GetLibApiWorkSpaceSize() const { return IsAtlasA2() ? 16U * 1024U * 1024U : 2U * 1024U * 1024U; }

private:
    // Held back from every vector core's UB on Atlas A2 and A3 (asc-devkit: platform_ascendc.cpp).
    static constexpr uint64_t kReservedUb = 256;

    bool IsAtlasA2() const {
        const SocVersion version = GetSocVersion();
        return version == SocVersion::ASCEND910B || version == SocVersion::ASCEND910_93;
    }
    const char* Text(const char* section, const char* key) const {
        const char* found = info_ != nullptr ? info_->SimFind(section, key) : nullptr;
        return found != nullptr ? found : "";
    }
    uint64_t Number(const char* section, const char* key) const {
        return std::strtoull(Text(section, key), nullptr, 10);
    }

    fe::PlatFormInfos* info_;
};

}  // namespace platform_ascendc

#endif  // SIM_TILING_PLATFORM_PLATFORM_ASCENDC_H_
