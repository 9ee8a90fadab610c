// SPDX-License-Identifier: Apache-2.0
// Masks, operand descriptions and the lanes of one repeat: what every vector instruction is made of.
//
// A repeat works on 256 bytes of the widest operand: 64 lanes with an fp32 operand, 128 with fp16 only. A narrower
// operand then uses only as many blocks as its lanes need (4 blocks of fp16 for 64 lanes). Lanes are computed in fp32.
// Repeats run one after the other, so an instruction whose destination is read again by a later repeat accumulates.
#ifndef SMALLQ_EMU_LANES_H_
#define SMALLQ_EMU_LANES_H_

#include <cstring>

#include "core.h"
#include "half.h"
#include "tensor.h"

namespace emu {

struct Mask {
    uint64_t bits[2];
};

constexpr Mask kFullMask = {{~uint64_t{0}, ~uint64_t{0}}};

inline Mask MaskOfCount(uint64_t count) {
    if (count >= 128) {
        return kFullMask;
    }
    const uint64_t low = count >= 64 ? ~uint64_t{0} : (uint64_t{1} << count) - 1;
    const uint64_t high = count > 64 ? (uint64_t{1} << (count - 64)) - 1 : 0;
    return Mask{{low, high}};
}

inline bool CoversAll(const uint64_t mask[2], uint32_t lanes) {
    return mask[0] == ~uint64_t{0} && (lanes == 64 || mask[1] == ~uint64_t{0});
}

inline bool IsActive(const uint64_t mask[2], uint32_t lane) { return ((mask[lane >> 6] >> (lane & 63)) & 1u) != 0; }

// Highest active lane plus one; 0 when none is.
inline uint32_t ActiveEnd(const uint64_t mask[2], uint32_t lanes) {
    if (lanes > 64 && mask[1] != 0) {
        return 128 - static_cast<uint32_t>(__builtin_clzll(mask[1]));
    }
    return mask[0] == 0 ? 0 : 64 - static_cast<uint32_t>(__builtin_clzll(mask[0]));
}

// How often an instruction runs and on which lanes.
struct Iteration {
    uint32_t repeats;
    Mask mask;
    Mask tail;  // lanes of the last repeat
};

// Level 0 calls set the mask register unless isSetMask is false, then they use what it holds.
template <bool isSetMask>
Iteration Repeats(uint32_t repeats, const Mask& mask) {
    uint64_t* reg = Here().maskRegister;
    if (isSetMask) {
        reg[0] = mask.bits[0];
        reg[1] = mask.bits[1];
    }
    const Mask used = {{reg[0], reg[1]}};
    return Iteration{repeats, used, used};
}

// Raises MASK_RANGE for a prefix count the instruction cannot have; the check needs the count, which events do not
// carry.
inline Mask CheckedCount(const char* api, uint64_t count, uint32_t lanes, bool used, Where at) {
    if (used && count > lanes) {
        Raise(SIM_FINDING, "MASK_RANGE", api, Here().Block(), at, "mask %llu is more than the %u lanes of a repeat",
              static_cast<unsigned long long>(count), lanes);
    }
    const Mask mask = MaskOfCount(count);
    const Core& core = Here();
    if (!used && count != AscendC::MASK_PLACEHOLDER && core.Launch().strict != 0 &&
        (mask.bits[0] != core.maskRegister[0] || (lanes > 64 && mask.bits[1] != core.maskRegister[1]))) {
        Raise(SIM_FINDING, "MASK_STALE", api, core.Block(), at,
              "the call names the first %llu lanes, but with isSetMask = false it runs on those of the mask register, "
              "which last held another mask (calls with an element count and Brcb leave it at all ones)",
              static_cast<unsigned long long>(count));
    }
    return mask;
}

// Calls with an element count run in counter mode and leave the mask register at all ones (8.1 implementation).
inline Iteration Elements(int64_t count, uint32_t lanes) {
    uint64_t* reg = Here().maskRegister;
    reg[0] = reg[1] = ~uint64_t{0};
    if (count <= 0) {
        return Iteration{0, kFullMask, kFullMask};
    }
    const uint32_t repeats = static_cast<uint32_t>((count + lanes - 1) / lanes);
    const uint64_t rest = static_cast<uint64_t>(count) - uint64_t{repeats - 1} * lanes;
    return Iteration{repeats, kFullMask, MaskOfCount(rest)};
}

// An operand whose elements follow the lanes. Strides in 32-byte blocks.
template <typename T>
UbOperand LaneOperand(const char* name, const AscendC::LocalTensor<T>& tensor, uint32_t lanes, uint32_t blockStride,
                      uint32_t repeatStride) {
    return UbOperand{name,
                     tensor.SimAddress(),
                     tensor.SimEnd(),
                     lanes,
                     static_cast<uint32_t>(sizeof(T)),
                     blockStride * kBlockBytes,
                     repeatStride * kBlockBytes,
                     true,
                     kBlockBytes};
}

inline VectorEvent Describe(const char* api, Shape shape, uint32_t lanes, const Iteration& iteration, Where at) {
    VectorEvent event{};
    event.api = api;
    event.shape = shape;
    event.lanes = lanes;
    event.repeats = iteration.repeats;
    event.mask[0] = iteration.mask.bits[0];
    event.mask[1] = iteration.mask.bits[1];
    event.tail[0] = iteration.tail.bits[0];
    event.tail[1] = iteration.tail.bits[1];
    event.at = at;
    return event;
}

// ----- lanes of one repeat -----

// count elements of 2 bytes.
template <typename T>
inline void ShortRowToFloat(const uint8_t* from, float* to, int count) {
    if constexpr (std::is_same<T, half>::value) {
        HalfRowToFloat(from, to, count);
    } else {
        static_assert(std::is_same<T, bfloat16_t>::value, "lanes are half, bfloat16 or float");
        for (int i = 0; i < count; ++i) {
            uint16_t bits;
            std::memcpy(&bits, from + 2 * i, sizeof(bits));
            to[i] = BfloatToFloat(bits);
        }
    }
}

// Loads the blocks that hold the first `used` lanes, and no byte beyond them.
template <typename T, int kLanes>
inline void LoadLanes(const uint8_t* from, uint32_t blockStride, uint32_t used, float* to) {
    static_assert(std::is_same<T, float>::value || sizeof(T) == 2, "lanes are half, bfloat16 or float");
    constexpr uint32_t kPerBlock = static_cast<uint32_t>(kBlockBytes / sizeof(T));
    if (blockStride == kBlockBytes && used == kLanes) {
        if constexpr (std::is_same<T, float>::value) {
            std::memcpy(to, from, sizeof(float) * kLanes);
        } else {
            ShortRowToFloat<T>(from, to, kLanes);
        }
        return;
    }
    for (uint32_t block = 0; block * kPerBlock < used; ++block) {
        const uint8_t* row = from + static_cast<size_t>(block) * blockStride;
        if constexpr (std::is_same<T, float>::value) {
            std::memcpy(to + block * kPerBlock, row, kBlockBytes);
        } else {
            ShortRowToFloat<T>(row, to + block * kPerBlock, kPerBlock);
        }
    }
}

// Bytes of a lane's element in its operand, from the start of the repeat.
template <typename T>
inline size_t LaneOffset(int lane, uint32_t blockStride) {
    constexpr int kPerBlock = static_cast<int>(kBlockBytes / sizeof(T));
    return static_cast<size_t>(lane / kPerBlock) * blockStride + static_cast<size_t>(lane % kPerBlock) * sizeof(T);
}

// The active lanes of a repeat; most masks are a prefix of the lanes, which needs no look at single bits.
struct ActiveLanes {
    ActiveLanes(const uint64_t mask[2], uint32_t lanes)
        : bits(mask),
          end(ActiveEnd(mask, lanes)),
          prefix(static_cast<uint32_t>(__builtin_popcountll(mask[0]) +
                                       (lanes > 64 ? __builtin_popcountll(mask[1]) : 0)) == end) {}

    const uint64_t* bits;
    uint32_t end;
    bool prefix;
};

// Writes lanes already in the destination's type.
template <typename T, int kLanes>
inline void StoreTyped(uint8_t* to, uint32_t blockStride, const T* from, const ActiveLanes& active) {
    constexpr uint32_t kPerBlock = static_cast<uint32_t>(kBlockBytes / sizeof(T));
    if (!active.prefix) {
        for (uint32_t lane = 0; lane < active.end; ++lane) {
            if (IsActive(active.bits, lane)) {
                std::memcpy(to + LaneOffset<T>(static_cast<int>(lane), blockStride), from + lane, sizeof(T));
            }
        }
        return;
    }
    if (blockStride == kBlockBytes && active.end == kLanes) {
        std::memcpy(to, from, sizeof(T) * kLanes);
        return;
    }
    const uint32_t blocks = active.end / kPerBlock;
    for (uint32_t block = 0; block < blocks; ++block) {
        std::memcpy(to + static_cast<size_t>(block) * blockStride, from + block * kPerBlock, kBlockBytes);
    }
    std::memcpy(to + static_cast<size_t>(blocks) * blockStride, from + blocks * kPerBlock,
                (active.end - blocks * kPerBlock) * sizeof(T));
}

template <typename T, int kLanes>
inline void StoreLanes(uint8_t* to, uint32_t blockStride, const float* from, const ActiveLanes& active) {
    if constexpr (std::is_same<T, float>::value) {
        StoreTyped<T, kLanes>(to, blockStride, from, active);
    } else {
        T rounded[kLanes];
        for (int lane = 0; lane < kLanes; ++lane) {
            if constexpr (std::is_same<T, half>::value) {
                rounded[lane].bits = FloatToHalf(from[lane]);
            } else {
                rounded[lane].bits = FloatToBfloat(from[lane]);
            }
        }
        StoreTyped<T, kLanes>(to, blockStride, rounded, active);
    }
}

// True if no byte an operand reads in the whole instruction lies in what the destination writes (generous bounds).
inline bool Apart(const UbOperand& a, const UbOperand& b, const VectorEvent& event) {
    const auto last = [&event](const UbOperand& op) {
        return op.address + (event.repeats - 1) * op.repeatStride + 7 * op.blockStride + kBlockBytes;
    };
    return last(a) <= b.address || last(b) <= a.address;
}

// Runs op(destination lanes, source lanes ...) for every repeat of an instruction that has been described and checked.
template <typename D, typename S, int kLanes, int kSources, class Op>
void RunLanes(const VectorEvent& event, Op op) {
    Core& core = Here();
    const UbOperand& dst = event.operands[0];
    float result[kLanes] = {};
    float source[2][kLanes] = {};
    bool held[2] = {false, false};  // a source that stays put is loaded once
    const ActiveLanes most(event.mask, kLanes);
    const ActiveLanes tail(event.tail, kLanes);
    for (uint32_t repeat = 0; repeat < event.repeats; ++repeat) {
        const ActiveLanes& active = repeat + 1 == event.repeats ? tail : most;
        for (int i = 0; i < kSources; ++i) {
            const UbOperand& src = event.operands[i + 1];
            if (!held[i]) {
                LoadLanes<S, kLanes>(core.Ub(src.address + repeat * src.repeatStride), src.blockStride, active.end,
                                     source[i]);
                held[i] = repeat == 0 && src.repeatStride == 0 && event.repeats > 1 && Apart(src, dst, event);
            }
        }
        uint8_t* to = core.Ub(dst.address + repeat * dst.repeatStride);
        if (event.accumulates) {
            LoadLanes<D, kLanes>(to, dst.blockStride, active.end, result);
        }
        op(result, source[0], source[1]);
        StoreLanes<D, kLanes>(to, dst.blockStride, result, active);
    }
}

}  // namespace emu

#endif  // SMALLQ_EMU_LANES_H_
