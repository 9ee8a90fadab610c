// SPDX-License-Identifier: Apache-2.0
// Bounds of UB and GM accesses. Always subscribed, first: it is what keeps a wrong kernel inside its own memory.
#ifndef SMALLQ_EMU_CHECK_BOUNDS_H_
#define SMALLQ_EMU_CHECK_BOUNDS_H_

#include "core.h"
#include "lanes.h"

namespace emu {

using Wide = unsigned long long;

// Bytes from the start of a repeat to the end of what an operand touches in it.
inline uint64_t SpanOf(const UbOperand& operand, uint32_t lanes) {
    if (lanes == 0) {
        return 0;
    }
    const uint32_t perBlock = kBlockBytes / operand.elementSize;
    if (operand.blockStride == 0) {
        return uint64_t{lanes < perBlock ? lanes : perBlock} * operand.elementSize;
    }
    const uint32_t last = lanes - 1;
    return uint64_t{last / perBlock} * operand.blockStride + uint64_t{last % perBlock + 1} * operand.elementSize;
}

// First byte after everything an operand touches in the whole instruction.
inline uint64_t EndOf(const UbOperand& operand, const VectorEvent& event) {
    const uint32_t tail = operand.masked ? ActiveEnd(event.tail, event.lanes) : operand.lanes;
    const uint32_t full = operand.masked ? ActiveEnd(event.mask, event.lanes) : operand.lanes;
    uint64_t end = operand.address;
    if (tail != 0) {
        end += uint64_t{event.repeats - 1} * operand.repeatStride + SpanOf(operand, tail);
    }
    if (event.repeats > 1 && full != 0) {
        const uint64_t before =
            operand.address + uint64_t{event.repeats - 2} * operand.repeatStride + SpanOf(operand, full);
        end = before > end ? before : end;
    }
    return end;
}

class BoundsChecker final : public Checker {
public:
    void OnVector(const Core& core, const VectorEvent& event) override {
        for (uint32_t i = 0; i < event.operandCount; ++i) {
            const UbOperand& operand = event.operands[i];
            const uint64_t end = EndOf(operand, event);
            if (operand.address > operand.end || end > operand.end || end > core.UbSize()) {
                Raise(SIM_FINDING, "UB_BOUNDS", event.api, core.Block(), event.at,
                      "operand %s walks UB bytes [%u, %llu) but its tensor ends at %u", operand.name, operand.address,
                      static_cast<Wide>(end), operand.end);
            }
        }
    }

    void OnCopy(const Core& core, const CopyEvent& event) override {
        const uint64_t steps = event.rows - 1;
        const uint64_t ubRow = uint64_t{event.leftBytes} + event.rowBytes + event.rightBytes + event.fillerBytes;
        const uint64_t ubEnd = event.ub + steps * event.ubStep + ubRow;
        if (event.ub > event.ubEnd || ubEnd > event.ubEnd || ubEnd > core.UbSize()) {
            Raise(SIM_FINDING, "UB_BOUNDS", event.api, core.Block(), event.at,
                  "operand %s walks UB bytes [%u, %llu) but its tensor ends at %u", event.toGm ? "src" : "dst",
                  event.ub, static_cast<Wide>(ubEnd), event.ubEnd);
        }
        const uint64_t gmEnd = event.gm + steps * event.gmStep + event.rowBytes;
        CheckGm(core, event.api, event.toGm ? "dst" : "src", event.gm, gmEnd, event.gmBase, event.gmSize, event.at);
    }

    void OnScalar(const Core& core, const ScalarEvent& event) override {
        if (event.inGm) {
            CheckGm(core, event.api, "tensor", event.address, event.address + event.size, event.base, event.limit,
                    event.at);
        } else if (event.address + event.size > event.limit || event.address + event.size > core.UbSize()) {
            Raise(SIM_FINDING, "UB_BOUNDS", event.api, core.Block(), event.at,
                  "UB bytes [%llu, %llu) but the tensor ends at %llu", static_cast<Wide>(event.address),
                  static_cast<Wide>(event.address + event.size), static_cast<Wide>(event.limit));
        }
    }

private:
    static void CheckGm(const Core& core, const char* api, const char* name, uint64_t begin, uint64_t end,
                        uint64_t base, uint64_t size, Where at) {
        if (size != 0 && (begin < base || end > base + size)) {
            Raise(SIM_FINDING, "GM_BOUNDS", api, core.Block(), at,
                  "operand %s walks bytes [%lld, %lld) of a GlobalTensor of %llu bytes", name,
                  static_cast<long long>(begin - base), static_cast<long long>(end - base), static_cast<Wide>(size));
        }
        const SimGmRegion* region = core.Context().Region(begin);
        if (region == nullptr || end < begin || end - region->base > region->size) {
            if (region == nullptr) {
                Raise(SIM_FINDING, "GM_BOUNDS", api, core.Block(), at,
                      "operand %s: %llu bytes at a GM address that lies in no allocation", name,
                      static_cast<Wide>(end - begin));
            }
            Raise(SIM_FINDING, "GM_BOUNDS", api, core.Block(), at,
                  "operand %s walks bytes [%llu, %llu) of a GM allocation of %llu bytes", name,
                  static_cast<Wide>(begin - region->base), static_cast<Wide>(end - region->base),
                  static_cast<Wide>(region->size));
        }
    }
};

}  // namespace emu

#endif  // SMALLQ_EMU_CHECK_BOUNDS_H_
