// SPDX-License-Identifier: Apache-2.0
// IEEE binary16 storage type and exact conversions. All fp16 arithmetic of the emulator goes through fp32: for add,
// subtract, multiply and divide the second rounding cannot change the result (24 >= 2 * 11 + 2 bits).
#ifndef SMALLQ_EMU_HALF_H_
#define SMALLQ_EMU_HALF_H_

#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "platform.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace emu {

inline uint32_t FloatBits(float value) {
    uint32_t bits;
    std::memcpy(&bits, &value, sizeof(bits));
    return bits;
}

inline float BitsFloat(uint32_t bits) {
    float value;
    std::memcpy(&value, &bits, sizeof(value));
    return value;
}

// Exact, branch-free so that loops over lanes vectorise: the exponent is moved by a multiplication, which also
// normalises fp16 subnormals.
inline float HalfToFloat(uint16_t half) {
    const uint32_t sign = static_cast<uint32_t>(half & 0x8000u) << 16;
    const uint32_t magnitude = static_cast<uint32_t>(half & 0x7fffu) << 13;
    const uint32_t scaled = FloatBits(BitsFloat(magnitude) * 0x1p112f);
    const uint32_t special = magnitude >= (0x7c00u << 13) ? 0x7f800000u : 0u;  // infinity and NaN keep all ones
    return BitsFloat(scaled | special | sign);
}

// Round to nearest even, overflow to infinity (the INF/NAN mode, default on Ascend 910B), NaN stays NaN.
inline uint16_t FloatToHalf(float value) {
    const uint32_t bits = FloatBits(value);
    const uint32_t sign = (bits >> 16) & 0x8000u;
    const uint32_t magnitude = bits & 0x7fffffffu;
    // Adding 0.5 lets the FPU do the rounding of a subnormal result at bit 2^-24.
    const uint32_t subnormal = FloatBits(BitsFloat(magnitude) + 0.5f) - 0x3f000000u;
    const uint32_t normal = (magnitude - 0x38000000u + 0xfffu + ((magnitude >> 13) & 1u)) >> 13;
    const uint32_t large = magnitude > 0x7f800000u ? 0x7e00u : 0x7c00u;
    const uint32_t finite = magnitude < 0x38800000u ? subnormal : normal;
    return static_cast<uint16_t>((magnitude >= 0x47800000u ? large : finite) | sign);
}

// Rounds to a binary16 in any of the modes a Cast knows.
inline uint16_t FloatToHalf(float value, AscendC::RoundMode mode) {
    using AscendC::RoundMode;
    const uint16_t nearest = FloatToHalf(value);
    const float back = HalfToFloat(nearest);
    if (mode == RoundMode::CAST_NONE || mode == RoundMode::CAST_RINT || std::isnan(value) || back == value) {
        return nearest;  // CAST_NONE rounds as CAST_RINT where precision is lost (API document of Cast)
    }
    // The two neighbours around an inexact value, by magnitude.
    const bool roundedUp = std::fabs(back) > std::fabs(value);
    const uint16_t low = static_cast<uint16_t>(roundedUp ? nearest - 1 : nearest);  // toward zero
    const uint16_t high = static_cast<uint16_t>(low + 1);                           // away from zero
    const bool negative = std::signbit(value);
    switch (mode) {
        case RoundMode::CAST_FLOOR:
            return negative ? high : low;
        case RoundMode::CAST_CEIL:
            return negative ? low : high;
        case RoundMode::CAST_TRUNC:
            return low;
        case RoundMode::CAST_ODD:
            return (low & 1u) != 0 ? low : high;
        default: {  // CAST_ROUND: nearest, ties away from zero
            if ((low & 0x7fffu) == 0x7bffu) {
                return nearest;  // next to infinity nearest is already right except for the tie, which goes up too
            }
            const double middle = (static_cast<double>(HalfToFloat(low)) + static_cast<double>(HalfToFloat(high))) / 2;
            return std::fabs(static_cast<double>(value)) >= std::fabs(middle) ? high : low;
        }
    }
}

#if defined(__x86_64__)
__attribute__((target("avx,f16c"))) inline void HalfRowToFloatF16c(const uint8_t* from, float* to, int count) {
    for (int i = 0; i < count; i += 8) {
        _mm256_storeu_ps(to + i, _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from + 2 * i))));
    }
}
inline const bool kHasF16c = __builtin_cpu_supports("avx") && __builtin_cpu_supports("f16c");
#endif

// count is a multiple of 8; from need not be aligned.
inline void HalfRowToFloat(const uint8_t* from, float* to, int count) {
#if defined(__x86_64__)
    if (kHasF16c) {
        HalfRowToFloatF16c(from, to, count);
        return;
    }
#endif
    for (int i = 0; i < count; i += 8) {
        uint16_t bits[8];
        std::memcpy(bits, from + 2 * i, sizeof(bits));
        for (int j = 0; j < 8; ++j) {
            to[i + j] = HalfToFloat(bits[j]);
        }
    }
}

}  // namespace emu

struct half {
    uint16_t bits;

    half() = default;
    template <typename T, typename std::enable_if<std::is_arithmetic<T>::value, int>::type = 0>
    half(T value) : bits(emu::FloatToHalf(static_cast<float>(value))) {}
    operator float() const { return emu::HalfToFloat(bits); }
};
static_assert(sizeof(half) == 2 && std::is_trivially_copyable<half>::value, "half is two bytes of storage");

namespace emu {

inline float BfloatToFloat(uint16_t bits) { return BitsFloat(static_cast<uint32_t>(bits) << 16); }

// Rounds a bfloat16 in the mode of a Cast. NaN stays NaN.
inline uint16_t FloatToBfloat(float value, AscendC::RoundMode mode = AscendC::RoundMode::CAST_RINT) {
    using AscendC::RoundMode;
    const uint32_t bits = FloatBits(value);
    if (std::isnan(value)) {
        return static_cast<uint16_t>((bits >> 16) | 0x40u);
    }
    const bool negative = (bits >> 31) != 0;
    const uint32_t dropped = bits & 0xffffu;
    const uint32_t odd = (bits >> 16) & 1u;
    uint32_t up = dropped > 0x8000u || (dropped == 0x8000u && odd != 0) ? 1 : 0;
    if (mode == RoundMode::CAST_TRUNC || (mode == RoundMode::CAST_FLOOR && !negative) ||
        (mode == RoundMode::CAST_CEIL && negative)) {
        up = 0;
    } else if (mode == RoundMode::CAST_FLOOR || mode == RoundMode::CAST_CEIL) {
        up = dropped != 0 ? 1 : 0;
    } else if (mode == RoundMode::CAST_ROUND) {
        up = dropped >= 0x8000u ? 1 : 0;
    } else if (mode == RoundMode::CAST_ODD) {
        up = dropped != 0 && odd == 0 ? 1 : 0;
    }
    return static_cast<uint16_t>((bits >> 16) + up);
}

}  // namespace emu

// bfloat16: storage only, as on dav-c220, where Cast is the only arithmetic it takes part in.
struct bfloat16_t {
    uint16_t bits;

    bfloat16_t() = default;
    template <typename T, typename std::enable_if<std::is_arithmetic<T>::value, int>::type = 0>
    bfloat16_t(T value) : bits(emu::FloatToBfloat(static_cast<float>(value))) {}
    operator float() const { return emu::BfloatToFloat(bits); }
};
static_assert(sizeof(bfloat16_t) == 2 && std::is_trivially_copyable<bfloat16_t>::value, "two bytes of storage");

#endif  // SMALLQ_EMU_HALF_H_
