// SPDX-License-Identifier: Apache-2.0
// Words of the Ascend C language and the enumerations of its basic API, as a host compiler can read them.
// Names and values follow the public headers of CANN 8.1 (basic_api: kernel_event.h, kernel_utils_mode.h,
// kernel_utils_macros.h).
#ifndef SMALLQ_EMU_PLATFORM_H_
#define SMALLQ_EMU_PLATFORM_H_

#include <cstddef>
#include <cstdint>

// Address spaces and function kinds mean nothing on the host.
#define __aicore__
#define __global__
#define __gm__
#define __ubuf__
#define __sync_alias__
#ifndef __inout_pipe__
#define __inout_pipe__(x)
#endif
#define GM_ADDR __gm__ uint8_t*

enum KernelMetaType : uint8_t {
    KERNEL_TYPE_AIV_ONLY,
    KERNEL_TYPE_AIC_ONLY,
    KERNEL_TYPE_MIX_AIV_1_0,
    KERNEL_TYPE_MIX_AIC_1_0,
    KERNEL_TYPE_MIX_AIC_1_1,
    KERNEL_TYPE_MIX_AIC_1_2,
    KERNEL_TYPE_MAX = 10,
};

enum pipe_t { PIPE_S = 0, PIPE_V, PIPE_M, PIPE_MTE1, PIPE_MTE2, PIPE_MTE3, PIPE_ALL };

enum event_t { EVENT_ID0 = 0, EVENT_ID1, EVENT_ID2, EVENT_ID3, EVENT_ID4, EVENT_ID5, EVENT_ID6, EVENT_ID7 };

namespace AscendC {

using TEventID = int8_t;
constexpr TEventID INVALID_TEVENTID = -1;
constexpr int32_t MIX = 0;
constexpr int32_t AIC = 1;
constexpr int32_t AIV = 2;
constexpr uint64_t MASK_PLACEHOLDER = 0;

enum class TPosition : uint8_t { GM, A1, A2, B1, B2, C1, C2, CO1, CO2, VECIN, VECOUT, VECCALC, LCM = VECCALC };
using QuePosition = TPosition;

enum class HardEvent : uint8_t {
    MTE2_MTE1,
    MTE1_MTE2,
    MTE1_M,
    M_MTE1,
    MTE2_V,
    V_MTE2,
    MTE3_V,
    V_MTE3,
    M_V,
    V_M,
    V_V,
    MTE3_MTE1,
    MTE1_MTE3,
    MTE1_V,
    MTE2_M,
    M_MTE2,
    V_MTE1,
    M_FIX,
    FIX_M,
    MTE3_MTE2,
    MTE2_MTE3,
    S_V,
    V_S,
    S_MTE2,
    MTE2_S,
    S_MTE3,
    MTE3_S,
    MAX,
};

enum class RoundMode : uint8_t { CAST_NONE = 0, CAST_RINT, CAST_FLOOR, CAST_CEIL, CAST_ROUND, CAST_TRUNC, CAST_ODD };
enum class ReduceOrder : uint8_t { ORDER_VALUE_INDEX = 0, ORDER_INDEX_VALUE, ORDER_ONLY_VALUE, ORDER_ONLY_INDEX };
enum class MaskMode : uint8_t { NORMAL = 0, COUNTER };
enum class CacheMode {
    CACHE_MODE_DISABLE = 0,
    CACHE_MODE_NORMAL = 1,
    CACHE_MODE_LAST = 2,
    CACHE_MODE_PERSISTENT = 4,
};
enum class CacheRwMode { READ = 1, WRITE = 2, RW = 3 };

}  // namespace AscendC

// The emulator runs vector cores only.
constexpr int32_t g_coreType = AscendC::AIV;
#define ASCEND_IS_AIV constexpr(g_coreType == AscendC::AIV)
#define ASCEND_IS_AIC constexpr(g_coreType == AscendC::AIC)
#define ASCEND_IS_NOT_AIV constexpr(g_coreType != AscendC::AIV)
#define ASCEND_IS_NOT_AIC constexpr(g_coreType != AscendC::AIC)

namespace emu {

constexpr uint32_t kBlockBytes = 32;    // one unified-buffer block
constexpr uint32_t kRepeatBytes = 256;  // one vector repeat: 8 blocks

constexpr const char* kHardEventNames[] = {
    "MTE2_MTE1", "MTE1_MTE2", "MTE1_M",    "M_MTE1",    "MTE2_V", "V_MTE2", "MTE3_V", "V_MTE3", "M_V",
    "V_M",       "V_V",       "MTE3_MTE1", "MTE1_MTE3", "MTE1_V", "MTE2_M", "M_MTE2", "V_MTE1", "M_FIX",
    "FIX_M",     "MTE3_MTE2", "MTE2_MTE3", "S_V",       "V_S",    "S_MTE2", "MTE2_S", "S_MTE3", "MTE3_S",
};
static_assert(sizeof(kHardEventNames) / sizeof(kHardEventNames[0]) == static_cast<size_t>(AscendC::HardEvent::MAX),
              "one name an event");

}  // namespace emu

#endif  // SMALLQ_EMU_PLATFORM_H_
