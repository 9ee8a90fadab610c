// SPDX-License-Identifier: Apache-2.0
// Strict mode: follows two facts about every byte of UB through every instruction.
//   never written   the value depends on bytes nobody has written since UB was handed out, or that were never written
//   in
//                   GM. Reading them is no error (a masked-off lane may be computed from them); letting them reach GM
//                   or the scalar unit is.
//   non-finite      the value depends on an infinity or NaN that came from GM. A NaN that reaches GM without this mark
//   was
//                   made by the kernel from finite numbers.
// The destination of an instruction gets the marks of everything it was computed from. One summary byte a 32-byte block
// keeps the usual case - all marks clear - cheap.
#ifndef SMALLQ_EMU_CHECK_TAINT_H_
#define SMALLQ_EMU_CHECK_TAINT_H_

#include <cstring>
#include <vector>

#include "check_bounds.h"
#include "core.h"
#include "lanes.h"

namespace emu {

class TaintChecker final : public Checker {
public:
    explicit TaintChecker(const Core& core)
        : marks_(core.UbSize() + kBlockBytes, kUnwritten), summary_(core.UbSize() / kBlockBytes + 1, kUnwritten) {}

    void OnBuffer(const Core&, const BufferEvent& event) override { Mark(event.begin, event.end, kUnwritten); }

    void OnVector(const Core&, const VectorEvent& event) override {
        for (uint32_t repeat = 0; repeat < event.repeats; ++repeat) {
            const bool last = repeat + 1 == event.repeats;
            const uint64_t* mask = last ? event.tail : event.mask;
            uint8_t any = 0;  // marks of all bytes the repeat reads or writes
            for (uint32_t i = 0; i < event.operandCount; ++i) {
                any |= SummaryOf(event.operands[i], repeat, event.lanes, mask);
            }
            const bool deadResults = event.shape == Shape::kBlockReduce && !CoversAll(mask, event.lanes);
            if (any != 0 || deadResults) {
                Propagate(event, repeat, mask);
            }
        }
    }

    void OnCopy(const Core& core, const CopyEvent& event) override {
        for (uint32_t row = 0; row < event.rows; ++row) {
            const uint64_t gm = event.gm + row * event.gmStep;
            const uint32_t ub = event.ub + row * event.ubStep;
            if (event.toGm) {
                CheckStore(core, event, row, ub);
            } else {
                Load(core, event, gm, ub);
            }
        }
    }

    void OnScalar(const Core& core, const ScalarEvent& event) override {
        if (event.inGm) {
            const SimGmRegion* region = core.Context().Region(event.address);
            if (!event.write && region->shadow != nullptr &&
                std::memchr(region->shadow + (event.address - region->base), 0, event.size) != nullptr) {
                Raise(SIM_FINDING, "UNWRITTEN_TO_SCALAR", event.api, core.Block(), event.at,
                      "reads GM bytes that were never written; what the kernel does next depends on them");
            }
            return;
        }
        const uint32_t begin = static_cast<uint32_t>(event.address);
        if (event.write) {
            Mark(begin, begin + event.size, 0);
        } else if ((MarksOf(begin, event.size) & kUnwritten) != 0) {
            Raise(SIM_FINDING, "UNWRITTEN_TO_SCALAR", event.api, core.Block(), event.at,
                  "UB bytes [%u, %u) depend on bytes never written; what the kernel does next depends on them", begin,
                  begin + event.size);
        }
    }

private:
    static constexpr uint8_t kUnwritten = 1;
    static constexpr uint8_t kNonFinite = 2;

    uint8_t MarksOf(uint32_t begin, uint32_t size) const {
        uint8_t any = 0;
        for (uint32_t i = begin; i < begin + size; ++i) {
            any |= marks_[i];
        }
        return any;
    }

    void Summarise(uint32_t begin, uint32_t end) {
        for (uint32_t block = begin / kBlockBytes; block * kBlockBytes < end; ++block) {
            uint64_t words[kBlockBytes / 8];
            std::memcpy(words, &marks_[block * kBlockBytes], sizeof(words));
            const uint64_t all = words[0] | words[1] | words[2] | words[3];
            summary_[block] = static_cast<uint8_t>(((all & 0x0101010101010101u) != 0 ? kUnwritten : 0) |
                                                   ((all & 0x0202020202020202u) != 0 ? kNonFinite : 0));
        }
    }

    void Mark(uint32_t begin, uint32_t end, uint8_t mark) {
        std::memset(&marks_[begin], mark, end - begin);
        Summarise(begin, end);
    }

    uint8_t SummaryOf(const UbOperand& operand, uint32_t repeat, uint32_t lanes, const uint64_t mask[2]) const {
        const uint32_t begin = operand.address + repeat * operand.repeatStride;
        const uint32_t perBlock = kBlockBytes / operand.elementSize;
        const uint32_t used = operand.masked ? ActiveEnd(mask, lanes) : operand.lanes;
        const uint32_t blocks = (used + perBlock - 1) / perBlock;
        if (operand.blockStride == kBlockBytes && blocks == 8 && begin % kBlockBytes == 0) {
            uint64_t together;
            std::memcpy(&together, &summary_[begin / kBlockBytes], sizeof(together));
            return together == 0 ? 0 : (kUnwritten | kNonFinite);
        }
        uint8_t any = 0;
        for (uint32_t block = 0; block < blocks; ++block) {
            any |= summary_[(begin + block * operand.blockStride) / kBlockBytes];
        }
        return any;
    }

    static uint32_t ElementAt(const UbOperand& operand, uint32_t repeat, uint32_t lane) {
        const uint32_t perBlock = kBlockBytes / operand.elementSize;
        return operand.address + repeat * operand.repeatStride + lane / perBlock * operand.blockStride +
               lane % perBlock * operand.elementSize;
    }

    uint8_t ElementMarks(const UbOperand& operand, uint32_t repeat, uint32_t lane) const {
        return MarksOf(ElementAt(operand, repeat, lane), operand.elementSize);
    }

    void SetElement(const UbOperand& operand, uint32_t repeat, uint32_t lane, uint8_t mark) {
        const uint32_t begin = ElementAt(operand, repeat, lane);
        std::memset(&marks_[begin], mark, operand.elementSize);
        Summarise(begin, begin + operand.elementSize);
    }

    // The slow path of one repeat, element by element.
    void Propagate(const VectorEvent& event, uint32_t repeat, const uint64_t mask[2]) {
        const UbOperand& dst = event.operands[0];
        const UbOperand& src = event.operands[1];
        switch (event.shape) {
            case Shape::kFill:
            case Shape::kElementwise:
                for (uint32_t lane = 0; lane < event.lanes; ++lane) {
                    if (!IsActive(mask, lane)) {
                        continue;
                    }
                    uint8_t mark = event.accumulates ? ElementMarks(dst, repeat, lane) : uint8_t{0};
                    for (uint32_t i = 1; i < event.operandCount; ++i) {
                        mark |= ElementMarks(event.operands[i], repeat, lane);
                    }
                    SetElement(dst, repeat, lane, mark);
                }
                break;
            case Shape::kBlockReduce: {
                const uint32_t perBlock = kBlockBytes / src.elementSize;
                uint8_t results[8];
                for (uint32_t block = 0; block < 8; ++block) {
                    results[block] = LaneMarks(src, repeat, mask, block * perBlock, perBlock);
                }
                for (uint32_t block = 0; block < 8; ++block) {
                    SetElement(dst, repeat, block, results[block]);
                }
                break;
            }
            case Shape::kWholeReduce: {
                uint8_t result = LaneMarks(src, repeat, mask, 0, event.lanes);
                if (repeat > 0 && dst.repeatStride == 0) {  // all repeats into one sum
                    result |= ElementMarks(dst, repeat, 0);
                }
                for (uint32_t i = 0; i < dst.lanes; ++i) {
                    SetElement(dst, repeat, i, result);
                }
                break;
            }
            case Shape::kBroadcast: {
                const uint32_t perBlock = kBlockBytes / dst.elementSize;
                uint8_t elements[8];
                for (uint32_t block = 0; block < 8; ++block) {
                    elements[block] = ElementMarks(src, repeat, block);
                }
                for (uint32_t lane = 0; lane < dst.lanes; ++lane) {
                    SetElement(dst, repeat, lane, elements[lane / perBlock]);
                }
                break;
            }
        }
    }

    // Marks of a reduction over the active lanes of [first, first + count); without any, the result is undefined.
    uint8_t LaneMarks(const UbOperand& src, uint32_t repeat, const uint64_t mask[2], uint32_t first,
                      uint32_t count) const {
        uint8_t any = 0;
        bool found = false;
        for (uint32_t lane = first; lane < first + count; ++lane) {
            if (IsActive(mask, lane)) {
                any |= ElementMarks(src, repeat, lane);
                found = true;
            }
        }
        return found ? any : kUnwritten;
    }

    static bool IsNonFinite(Number number, const uint8_t* at) {
        if (number == Number::kHalf) {
            uint16_t bits;
            std::memcpy(&bits, at, sizeof(bits));
            return (bits & 0x7c00u) == 0x7c00u;
        }
        if (number == Number::kBfloat) {
            uint16_t bits;
            std::memcpy(&bits, at, sizeof(bits));
            return (bits & 0x7f80u) == 0x7f80u;
        }
        uint32_t bits;
        std::memcpy(&bits, at, sizeof(bits));
        return number == Number::kFloat && (bits & 0x7f800000u) == 0x7f800000u;
    }

    static bool IsNan(Number number, const uint8_t* at) {
        if (!IsNonFinite(number, at)) {
            return false;
        }
        if (number == Number::kHalf) {
            uint16_t bits;
            std::memcpy(&bits, at, sizeof(bits));
            return (bits & 0x03ffu) != 0;
        }
        if (number == Number::kBfloat) {
            uint16_t bits;
            std::memcpy(&bits, at, sizeof(bits));
            return (bits & 0x007fu) != 0;
        }
        uint32_t bits;
        std::memcpy(&bits, at, sizeof(bits));
        return (bits & 0x007fffffu) != 0;
    }

    void Load(const Core& core, const CopyEvent& event, uint64_t gm, uint32_t ub) {
        const uint8_t pad = event.padWritten ? 0 : kUnwritten;
        const uint32_t data = ub + event.leftBytes;
        const uint32_t after = data + event.rowBytes;
        std::memset(&marks_[ub], pad, event.leftBytes);
        std::memset(&marks_[data], 0, event.rowBytes);
        std::memset(&marks_[after], pad, event.rightBytes);
        std::memset(&marks_[after + event.rightBytes], kUnwritten, event.fillerBytes);
        const SimGmRegion* region = core.Context().Region(gm);
        if (region->shadow != nullptr) {
            const uint8_t* written = region->shadow + (gm - region->base);
            if (std::memchr(written, 0, event.rowBytes) != nullptr) {
                for (uint32_t i = 0; i < event.rowBytes; ++i) {
                    marks_[data + i] = written[i] == 0 ? kUnwritten : uint8_t{0};
                }
            }
        }
        if (event.number != Number::kOther) {
            const uint8_t* values = reinterpret_cast<const uint8_t*>(gm);
            for (uint32_t i = 0; i < event.rowBytes; i += event.elementSize) {
                if (IsNonFinite(event.number, values + i) && marks_[data + i] == 0) {
                    std::memset(&marks_[data + i], kNonFinite, event.elementSize);
                }
            }
        }
        Summarise(ub, after + event.rightBytes + event.fillerBytes);
    }

    void CheckStore(const Core& core, const CopyEvent& event, uint32_t row, uint32_t ub) const {
        const uint8_t* marks = &marks_[ub];
        for (uint32_t i = 0; i < event.rowBytes; ++i) {
            if ((marks[i] & kUnwritten) != 0) {
                uint32_t end = i;
                while (end < event.rowBytes && (marks[end] & kUnwritten) != 0) {
                    ++end;
                }
                Raise(SIM_FINDING, "UNWRITTEN_TO_GM", event.api, core.Block(), event.at,
                      "bytes [%u, %u) of row %u (UB [%u, %u)) depend on bytes never written", i, end, row, ub + i,
                      ub + end);
            }
        }
        if (event.number == Number::kOther) {
            return;
        }
        for (uint32_t i = 0; i < event.rowBytes; i += event.elementSize) {
            if (IsNan(event.number, core.Ub(ub + i)) && (marks[i] & kNonFinite) == 0) {
                Raise(SIM_FINDING, "NAN_FROM_FINITE", event.api, core.Block(), event.at,
                      "element %u of row %u (UB byte %u) is NaN, and no infinity or NaN went into it",
                      i / event.elementSize, row, ub + i);
            }
        }
    }

    std::vector<uint8_t> marks_;    // one byte of marks for each byte of UB
    std::vector<uint8_t> summary_;  // all marks of a block together
};

}  // namespace emu

#endif  // SMALLQ_EMU_CHECK_TAINT_H_
