// SPDX-License-Identifier: Apache-2.0
// Who touched which bytes last: the memory of the pipe-order checker, for UB (by block, by byte where an instruction
// touches part of one) and for GM (by range).
#ifndef SMALLQ_EMU_ACCESS_LOG_H_
#define SMALLQ_EMU_ACCESS_LOG_H_

#include <map>
#include <vector>

#include "pipe_clock.h"

namespace emu {

// Last accesses to some bytes, as numbers of instructions; 0: none.
struct LastAccess {
    uint32_t write = 0;
    uint32_t read[kPipes] = {};
    uint8_t writer = 0;  // pipe of the write
};

enum class Order : uint8_t { kReadAfterWrite, kWriteAfterRead, kWriteAfterWrite };

// Two accesses that nothing orders.
struct Hazard {
    Order order;
    Pipe earlierPipe;
    uint32_t earlier;  // number of the earlier instruction; 0: there is no hazard
};

// One access of one instruction, which does not conflict with itself (it may read and write the same place).
struct Access {
    Pipe pipe;
    bool write;
    bool reads;  // a write that also reads (accumulation)
    uint32_t number;
    Known known;
};

inline Hazard FindHazard(const LastAccess& last, const Access& access) {
    if (last.write > access.known.upTo[last.writer] && last.write != access.number) {
        return Hazard{access.write && !access.reads ? Order::kWriteAfterWrite : Order::kReadAfterWrite,
                      static_cast<Pipe>(last.writer), last.write};
    }
    for (uint8_t pipe = 0; access.write && pipe < kPipes; ++pipe) {
        if (last.read[pipe] > access.known.upTo[pipe] && last.read[pipe] != access.number) {
            return Hazard{Order::kWriteAfterRead, static_cast<Pipe>(pipe), last.read[pipe]};
        }
    }
    return Hazard{Order::kReadAfterWrite, kScalar, 0};
}

// A write that is ordered after everything before it stands for all of it.
inline void Note(LastAccess& last, const Access& access) {
    if (access.write) {
        last.write = access.number;
        last.writer = access.pipe;
    } else {
        last.read[access.pipe] = access.number;
    }
}

class UbLog {
public:
    explicit UbLog(uint32_t ubSize) : blocks_(ubSize / kBlockBytes + 2) {}

    // Bytes `mask` (bit i: byte i) of one block. Returns the hazard, if any.
    Hazard Touch(uint32_t block, uint32_t mask, const Access& access) {
        Block& state = blocks_[block];
        if (mask == ~0u && state.bytes < 0) {
            const Hazard hazard = FindHazard(state.all, access);
            Note(state.all, access);
            return hazard;
        }
        return TouchBytes(state, mask, access);
    }

private:
    struct Block {
        LastAccess all;
        int32_t bytes = -1;  // index of the record by byte, where the bytes differ
    };
    struct Bytes {
        LastAccess of[kBlockBytes];
    };

    Hazard TouchBytes(Block& state, uint32_t mask, const Access& access) {
        if (state.bytes < 0) {
            if (spare_.empty()) {
                spare_.push_back(static_cast<int32_t>(split_.size()));
                split_.emplace_back();
            }
            state.bytes = spare_.back();
            spare_.pop_back();
            for (LastAccess& last : split_[static_cast<size_t>(state.bytes)].of) {
                last = state.all;
            }
        }
        Bytes& bytes = split_[static_cast<size_t>(state.bytes)];
        Hazard found{Order::kReadAfterWrite, kScalar, 0};
        for (uint32_t left = mask; left != 0; left &= left - 1) {
            LastAccess& last = bytes.of[__builtin_ctz(left)];
            const Hazard hazard = FindHazard(last, access);
            found = found.earlier == 0 ? hazard : found;
            Note(last, access);
        }
        if (mask == ~0u && access.write) {
            state.all = LastAccess();
            Note(state.all, access);
            spare_.push_back(state.bytes);
            state.bytes = -1;
        }
        return found;
    }

    std::vector<Block> blocks_;
    std::vector<Bytes> split_;
    std::vector<int32_t> spare_;
};

// Ranges of GM since the last moment at which all pipes were finished.
class GmLog {
public:
    Hazard Touch(uint64_t begin, uint64_t end, const Access& access) {
        Hazard found{Order::kReadAfterWrite, kScalar, 0};
        auto range = Split(begin);
        Split(end);
        range = ranges_.lower_bound(begin);
        uint64_t at = begin;
        while (at < end) {
            if (range == ranges_.end() || range->first > at) {
                const uint64_t gapEnd = range == ranges_.end() || range->first > end ? end : range->first;
                range = ranges_.emplace_hint(range, at, Range{gapEnd, LastAccess()});
            }
            const Hazard hazard = FindHazard(range->second.last, access);
            found = found.earlier == 0 ? hazard : found;
            Note(range->second.last, access);
            at = range->second.end;
            ++range;
        }
        return found;
    }

    void Clear() { ranges_.clear(); }

private:
    struct Range {
        uint64_t end;
        LastAccess last;
    };
    using Ranges = std::map<uint64_t, Range>;

    // Makes `at` a border of the range it lies in.
    Ranges::iterator Split(uint64_t at) {
        auto after = ranges_.upper_bound(at);
        if (after == ranges_.begin()) {
            return after;
        }
        auto range = std::prev(after);
        if (range->first < at && at < range->second.end) {
            const Range tail = range->second;
            range->second.end = at;
            return ranges_.emplace_hint(after, at, tail);
        }
        return range;
    }

    Ranges ranges_;
};

}  // namespace emu

#endif  // SMALLQ_EMU_ACCESS_LOG_H_
