// SPDX-License-Identifier: Apache-2.0
// Strict mode: two blocks must not write the same GM bytes between two SyncAlls, nor - with a write that is not exact
// to the byte - the same line. The writes are collected while blocks run and compared when all have ended, so the
// result does not depend on who ran first. DataCopyPad is byte exact, DataCopy writes whole 32-byte lines, a scalar
// store goes through a 64-byte cache line that is not coherent between cores.
#ifndef SMALLQ_EMU_CHECK_CROSS_CORE_H_
#define SMALLQ_EMU_CHECK_CROSS_CORE_H_

#include <algorithm>
#include <mutex>
#include <tuple>
#include <vector>

#include "core.h"

namespace emu {

struct GmWrite {
    uint64_t begin;
    uint64_t end;
    uint32_t block;
    uint32_t granule;
    uint32_t phase;  // SyncAlls before it
    const char* api;
    Where at;

    uint64_t FirstLine() const { return begin / granule * granule; }
    uint64_t LastLine() const { return (end + granule - 1) / granule * granule; }
};

class WriteLog {
public:
    void Add(const std::vector<GmWrite>& writes) {
        const std::lock_guard<std::mutex> lock(mutex_);
        writes_.insert(writes_.end(), writes.begin(), writes.end());
    }

    // Appends one finding for the lowest place where two blocks collide, if there is one.
    void FindConflict(std::vector<Finding>* findings) {
        std::sort(writes_.begin(), writes_.end(), [](const GmWrite& a, const GmWrite& b) {
            return std::make_tuple(a.phase, a.FirstLine(), a.block, a.begin) <
                   std::make_tuple(b.phase, b.FirstLine(), b.block, b.begin);
        });
        // Sweep: compare each write with the one before it that reaches furthest, of its own and of any other block.
        std::vector<GmWrite> reaching;
        for (const GmWrite& write : writes_) {
            reaching.erase(std::remove_if(reaching.begin(), reaching.end(),
                                          [&write](const GmWrite& old) {
                                              return old.phase != write.phase || old.LastLine() <= write.FirstLine();
                                          }),
                           reaching.end());
            for (const GmWrite& old : reaching) {
                if (old.block != write.block && Collide(old, write)) {
                    findings->push_back(Describe(old, write));
                    return;
                }
            }
            reaching.push_back(write);
        }
    }

private:
    static bool Collide(const GmWrite& a, const GmWrite& b) {
        // What a write touches is its lines; a byte-exact one touches its bytes.
        return a.FirstLine() < b.LastLine() && b.FirstLine() < a.LastLine();
    }

    static Finding Describe(const GmWrite& a, const GmWrite& b) {
        const GmWrite& first = a.block < b.block ? a : b;
        const GmWrite& second = a.block < b.block ? b : a;
        const bool sameBytes = a.begin < b.end && b.begin < a.end;
        const uint64_t offset = second.begin > first.begin ? second.begin - first.begin : first.begin - second.begin;
        std::string text = "its " + std::to_string(first.end - first.begin) + " bytes and the " +
                           std::to_string(second.end - second.begin) + " bytes core " + std::to_string(second.block) +
                           " writes with " + second.api + " at " + BaseName(second.at.file) + ":" +
                           std::to_string(second.at.line) + " start " + std::to_string(offset) + " bytes apart and ";
        if (sameBytes) {
            text += "overlap";
        } else {
            const GmWrite& coarse = a.granule > b.granule ? a : b;
            text += std::string("share a line of ") + std::to_string(coarse.granule) + " bytes, which " + coarse.api +
                    " writes as a whole";
        }
        return Finding{SIM_FINDING, first.block, "CROSS_CORE_WRITE",
                       first.api,   text,        BaseName(first.at.file) + ":" + std::to_string(first.at.line)};
    }

    std::mutex mutex_;
    std::vector<GmWrite> writes_;
};

// Collects the writes of one block.
class WriteRecorder final : public Checker {
public:
    explicit WriteRecorder(WriteLog& log) : log_(log) {}

    void OnCopy(const Core& core, const CopyEvent& event) override {
        for (uint32_t row = 0; event.toGm && row < event.rows; ++row) {
            const uint64_t begin = event.gm + row * event.gmStep;
            Record(GmWrite{begin, begin + event.rowBytes, core.Block(), event.granule, phase_, event.api, event.at});
        }
    }

    void OnScalar(const Core& core, const ScalarEvent& event) override {
        if (event.inGm && event.write) {
            Record(GmWrite{event.address, event.address + event.size, core.Block(), 64, phase_, event.api, event.at});
        }
    }

    void OnSync(const Core&, const SyncEvent& event) override {
        if (event.kind == SyncKind::kSyncAll) {
            ++phase_;
        }
    }

    void OnKernelEnd(const Core&) override { log_.Add(writes_); }

private:
    // Rows that follow one another become one write.
    void Record(const GmWrite& write) {
        if (!writes_.empty()) {
            GmWrite& before = writes_.back();
            if (before.end == write.begin && before.granule == write.granule && before.phase == write.phase &&
                before.at.line == write.at.line && before.at.file == write.at.file) {
                before.end = write.end;
                return;
            }
        }
        writes_.push_back(write);
    }

    WriteLog& log_;
    std::vector<GmWrite> writes_;
    uint32_t phase_ = 0;
};

}  // namespace emu

#endif  // SMALLQ_EMU_CHECK_CROSS_CORE_H_
