// SPDX-License-Identifier: Apache-2.0
// What a block asked of its pipes, in program order: the input of the cost model. Vector instructions that follow one
// another become one entry. Recorded only when the launch asks for a report.
#ifndef SMALLQ_EMU_COST_TRACE_H_
#define SMALLQ_EMU_COST_TRACE_H_

#include <algorithm>
#include <set>
#include <vector>

#include "cost_constants.h"
#include "pipe_clock.h"

namespace emu {
namespace cost {

enum class Op : uint8_t { kWork, kCopy, kSet, kWait, kFinishAll, kSyncAll };

struct Step {
    Op op;
    uint8_t pipe;     // kWork, kCopy: the pipe; kSet: the source; kWait: the target
    uint16_t slot;    // kSet, kWait: event and id
    uint32_t issued;  // kWork: instructions in it
    uint32_t cycles;  // kWork: busy cycles; kSet: cycles until the last result is there; kCopy: index of the copy
};

struct Copy {
    uint64_t gm;
    uint64_t gmStep;
    uint32_t rows;
    uint32_t rowBytes;
};

struct Trace {
    std::vector<Step> steps;
    std::vector<Copy> copies;
    uint64_t vectorInstructions = 0;
};

class TraceRecorder final : public Checker {
public:
    explicit TraceRecorder(Trace& trace) : trace_(trace) {}

    void OnVector(const Core&, const VectorEvent& event) override {
        const Instruction& instruction = Find(event.api);
        const uint32_t cycles = std::max(instruction.slope * Conflicts(event) * event.repeats, kIssueCycles);
        Work(kVector, cycles, 1);
        pending_ = std::max(pending_, instruction.fixed);
        ++trace_.vectorInstructions;
    }

    void OnCopy(const Core&, const CopyEvent& event) override {
        const bool dense = event.rows == 1;
        trace_.steps.push_back(Step{Op::kCopy, static_cast<uint8_t>(event.toGm ? kStore : kLoad), 0, 1,
                                    static_cast<uint32_t>(trace_.copies.size())});
        trace_.copies.push_back(Copy{event.gm, dense ? event.rowBytes : event.gmStep, event.rows, event.rowBytes});
    }

    void OnScalar(const Core&, const ScalarEvent& event) override {
        uint32_t cycles = event.write ? kSetValueCycles : kGetValueCycles;
        if (event.inGm && cached_.insert(event.address / 64).second) {
            cycles += kGlobalMissCycles;
        }
        Work(kScalar, cycles, 0);
    }

    void OnSync(const Core&, const SyncEvent& event) override {
        if (event.kind == SyncKind::kPipeBarrier && event.pipe == PIPE_V) {
            Work(kVector, pending_, 0);
            pending_ = 0;
        } else if (event.kind == SyncKind::kPipeBarrier || event.kind == SyncKind::kSyncAll) {
            if (event.kind == SyncKind::kSyncAll || event.pipe == PIPE_ALL) {
                Work(kVector, pending_, 0);
                pending_ = 0;
                const Op op = event.kind == SyncKind::kSyncAll ? Op::kSyncAll : Op::kFinishAll;
                trace_.steps.push_back(Step{op, 0, 0, 0, 0});
            }
        } else {
            const PipePair pair = PipesOf(event.event);
            if (pair.source >= 0) {
                const bool set = event.kind == SyncKind::kSet;
                const int pipe = set ? pair.source : pair.target;
                const uint16_t slot = static_cast<uint16_t>(static_cast<uint32_t>(event.event) * Core::kEventIds +
                                                            static_cast<uint32_t>(event.id));
                trace_.steps.push_back(Step{set ? Op::kSet : Op::kWait, static_cast<uint8_t>(pipe), slot, 0,
                                            set && pipe == kVector ? pending_ : 0});
            }
        }
    }

private:
    void Work(Pipe pipe, uint32_t cycles, uint32_t issued) {
        if (!trace_.steps.empty() && trace_.steps.back().op == Op::kWork && trace_.steps.back().pipe == pipe &&
            trace_.steps.back().issued < 64 && trace_.steps.back().cycles < 4096) {
            trace_.steps.back().cycles += cycles;
            trace_.steps.back().issued += issued;
        } else if (cycles != 0) {
            trace_.steps.push_back(Step{Op::kWork, pipe, 0, issued, cycles});
        }
    }

    const Instruction& Find(const char* api) {
        if (api != lastApi_) {
            lastApi_ = api;
            last_ = &CostOf(api);
        }
        return *last_;
    }

    // How many of the blocks that a repeat reads lie in one of the 16 bank groups: reads of one group wait for each
    // other. A block that all lanes share (block stride 0) is read once and not counted.
    static uint32_t Conflicts(const VectorEvent& event) {
        uint8_t used[16] = {};
        uint32_t most = 1;
        for (uint32_t i = 1; i < event.operandCount; ++i) {
            const UbOperand& operand = event.operands[i];
            if (operand.blockStride == 0 || (i == 2 && operand.address == event.operands[1].address)) {
                continue;
            }
            const uint32_t perBlock = kBlockBytes / operand.elementSize;
            for (uint32_t block = 0; block * perBlock < operand.lanes; ++block) {
                const uint32_t group = (operand.address + block * operand.blockStride) / kBlockBytes % 16;
                most = std::max<uint32_t>(most, ++used[group]);
            }
        }
        return most;
    }

    Trace& trace_;
    uint32_t pending_ = 0;  // fixed cycles nothing has waited for yet
    std::set<uint64_t> cached_;
    const char* lastApi_ = nullptr;
    const Instruction* last_ = nullptr;
};

}  // namespace cost
}  // namespace emu

#endif  // SMALLQ_EMU_COST_TRACE_H_
