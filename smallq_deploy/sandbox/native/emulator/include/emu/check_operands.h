// SPDX-License-Identifier: Apache-2.0
// Strict mode: what an instruction demands of its operands besides their bounds - alignment, a mask with lanes in it,
// usable strides, the overlap rule, the position a padded copy works on.
#ifndef SMALLQ_EMU_CHECK_OPERANDS_H_
#define SMALLQ_EMU_CHECK_OPERANDS_H_

#include "check_bounds.h"
#include "core.h"
#include "lanes.h"

namespace emu {

class OperandChecker final : public Checker {
public:
    void OnVector(const Core& core, const VectorEvent& event) override {
        for (uint32_t i = 0; i < event.operandCount; ++i) {
            const UbOperand& operand = event.operands[i];
            if (operand.address % operand.alignment != 0) {
                Raise(SIM_FINDING, "MISALIGNED", event.api, core.Block(), event.at,
                      "operand %s starts at UB byte %u, not a multiple of %u", operand.name, operand.address,
                      operand.alignment);
            }
        }
        if (ActiveEnd(event.mask, event.lanes) == 0 || ActiveEnd(event.tail, event.lanes) == 0) {
            Raise(SIM_FINDING, "MASK_RANGE", event.api, core.Block(), event.at, "the mask selects no lane");
        }
        const UbOperand& dst = event.operands[0];
        if (dst.blockStride == 0 && SpanBlocks(dst, event) > 1) {
            Raise(SIM_FINDING, "STRIDE_RANGE", event.api, core.Block(), event.at,
                  "block stride 0 of dst writes one block several times");
        }
        for (uint32_t i = 1; i < event.operandCount; ++i) {
            CheckOverlap(core, event, dst, event.operands[i]);
        }
    }

    void OnCopy(const Core& core, const CopyEvent& event) override {
        if (event.ub % kBlockBytes != 0) {
            Raise(SIM_FINDING, "MISALIGNED", event.api, core.Block(), event.at,
                  "operand %s starts at UB byte %u, not a multiple of %u", event.toGm ? "src" : "dst", event.ub,
                  kBlockBytes);
        }
        CheckGm(core, event.api, event.gm, event.elementSize, event.at);
        // Only rows that need padding or byte lengths are barred from VECCALC on A2; no check of the 8.1 headers says
        // so.
        if (event.position == AscendC::TPosition::VECCALC && std::strcmp(event.api, "DataCopyPad") == 0) {
            Raise(SIM_FINDING, "COPY_POSITION", event.api, core.Block(), event.at,
                  "the UB side must be in VECIN or VECOUT, it is in VECCALC");
        }
    }

    void OnScalar(const Core& core, const ScalarEvent& event) override {
        if (event.inGm) {
            CheckGm(core, event.api, event.address, event.size, event.at);
        }
    }

private:
    static void CheckGm(const Core& core, const char* api, uint64_t address, uint32_t elementSize, Where at) {
        if (address % elementSize != 0) {
            Raise(SIM_FINDING, "MISALIGNED", api, core.Block(), at,
                  "the GM address is not a multiple of the element's %u bytes", elementSize);
        }
    }

    static uint32_t LanesTouched(const UbOperand& operand, const VectorEvent& event) {
        return operand.masked ? ActiveEnd(event.repeats > 1 ? event.mask : event.tail, event.lanes) : operand.lanes;
    }

    static uint32_t SpanBlocks(const UbOperand& operand, const VectorEvent& event) {
        const uint32_t perBlock = kBlockBytes / operand.elementSize;
        return (LanesTouched(operand, event) + perBlock - 1) / perBlock;
    }

    // Inside one repeat the destination and a source may overlap only completely: same address, same block stride,
    // same width. MulAddDst allows no overlap at all.
    static void CheckOverlap(const Core& core, const VectorEvent& event, const UbOperand& dst, const UbOperand& src) {
        if (EndOf(dst, event) <= src.address || EndOf(src, event) <= dst.address) {
            return;
        }
        for (uint32_t repeat = 0; repeat < event.repeats; ++repeat) {
            const uint64_t to = dst.address + uint64_t{repeat} * dst.repeatStride;
            const uint64_t from = src.address + uint64_t{repeat} * src.repeatStride;
            const bool same = to == from && dst.blockStride == src.blockStride && dst.elementSize == src.elementSize &&
                              dst.masked == src.masked;
            if (!(same && !event.accumulates) && Intersect(event, dst, to, src, from)) {
                Raise(SIM_FINDING, "OPERAND_OVERLAP", event.api, core.Block(), event.at,
                      "dst at UB byte %llu and %s at %llu overlap in repeat %u%s", static_cast<Wide>(to), src.name,
                      static_cast<Wide>(from), repeat,
                      event.accumulates ? "" : " without having the same address and strides");
            }
        }
    }

    static bool Intersect(const VectorEvent& event, const UbOperand& a, uint64_t aBegin, const UbOperand& b,
                          uint64_t bBegin) {
        const uint32_t aBlocks = SpanBlocks(a, event);
        const uint32_t bBlocks = SpanBlocks(b, event);
        for (uint32_t i = 0; i < aBlocks; ++i) {
            const uint64_t aAt = aBegin + uint64_t{i} * a.blockStride;
            for (uint32_t j = 0; j < bBlocks; ++j) {
                const uint64_t bAt = bBegin + uint64_t{j} * b.blockStride;
                if (aAt < bAt + BlockBytesUsed(b) && bAt < aAt + BlockBytesUsed(a)) {
                    return true;
                }
            }
        }
        return false;
    }

    // A reduction's result may be shorter than a block.
    static uint64_t BlockBytesUsed(const UbOperand& operand) {
        const uint64_t bytes = uint64_t{operand.lanes} * operand.elementSize;
        return bytes < kBlockBytes ? bytes : kBlockBytes;
    }
};

}  // namespace emu

#endif  // SMALLQ_EMU_CHECK_OPERANDS_H_
