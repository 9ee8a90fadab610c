// SPDX-License-Identifier: Apache-2.0
// Strict mode: two blocks must not write the same GM bytes between two SyncAlls, nor - with a write that is not exact
// to the byte - the same line, and none may read what another one writes. The accesses are collected while blocks run
// and compared when all have ended, so the result does not depend on who ran first. DataCopyPad is byte exact, DataCopy
// writes whole 32-byte lines, a scalar store goes through a 64-byte cache line that is not coherent between cores: a
// scalar load of a line that is already cached does not see what was stored since, not even after a SyncAll.
#ifndef SMALLQ_EMU_CHECK_CROSS_CORE_H_
#define SMALLQ_EMU_CHECK_CROSS_CORE_H_

#include <algorithm>
#include <map>
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

// A read that must not meet another block's write in the phases [since, phase].
struct GmRead {
    uint64_t begin;
    uint64_t end;
    uint32_t block;
    uint32_t since;  // a copy or a first scalar load: phase; a load of a cached line: the phase it was cached in
    uint32_t phase;
    const char* api;
    Where at;
};

class AccessLog {
public:
    void Add(const std::vector<GmWrite>& writes, const std::vector<GmRead>& reads) {
        const std::lock_guard<std::mutex> lock(mutex_);
        writes_.insert(writes_.end(), writes.begin(), writes.end());
        reads_.insert(reads_.end(), reads.begin(), reads.end());
    }

    // Appends findings for the lowest place where two blocks write, and the lowest where one reads what another writes.
    void FindConflicts(std::vector<Finding>* findings) {
        FindTwoWriters(findings);
        FindReader(findings);
    }

private:
    void FindTwoWriters(std::vector<Finding>* findings) {
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

    // Every read against the writes that overlap it: a phase's writes in order of their start, with the furthest end so
    // far, so that the search stops where nothing earlier can reach the read.
    void FindReader(std::vector<Finding>* findings) {
        std::map<uint32_t, std::vector<const GmWrite*>> byPhase;
        for (const GmWrite& write : writes_) {
            byPhase[write.phase].push_back(&write);
        }
        std::map<uint32_t, std::vector<uint64_t>> reach;
        for (auto& phase : byPhase) {
            std::sort(phase.second.begin(), phase.second.end(), [](const GmWrite* a, const GmWrite* b) {
                return std::make_tuple(a->begin, a->block) < std::make_tuple(b->begin, b->block);
            });
            uint64_t furthest = 0;
            for (const GmWrite* write : phase.second) {
                furthest = std::max(furthest, write->end);
                reach[phase.first].push_back(furthest);
            }
        }
        std::sort(reads_.begin(), reads_.end(), [](const GmRead& a, const GmRead& b) {
            return std::make_tuple(a.phase, a.begin, a.block) < std::make_tuple(b.phase, b.begin, b.block);
        });
        for (const GmRead& read : reads_) {
            for (auto phase = byPhase.lower_bound(read.since); phase != byPhase.end() && phase->first <= read.phase;
                 ++phase) {
                const GmWrite* write = OverlappingWrite(read, phase->second, reach[phase->first]);
                if (write != nullptr) {
                    findings->push_back(Describe(read, *write));
                    return;
                }
            }
        }
    }

    static const GmWrite* OverlappingWrite(const GmRead& read, const std::vector<const GmWrite*>& writes,
                                           const std::vector<uint64_t>& reach) {
        const auto after = std::lower_bound(writes.begin(), writes.end(), read.end,
                                            [](const GmWrite* write, uint64_t end) { return write->begin < end; });
        const GmWrite* found = nullptr;
        for (size_t i = static_cast<size_t>(after - writes.begin()); i-- > 0 && reach[i] > read.begin;) {
            // A block's own scalar store is in its cache; its own copies are ordered by flags, but never reach the
            // cache.
            const bool other = writes[i]->block != read.block || (read.since < read.phase && writes[i]->granule != 64);
            if (writes[i]->end > read.begin && other) {
                found = writes[i];
            }
        }
        return found;
    }

    static Finding Describe(const GmRead& read, const GmWrite& write) {
        const bool stale = read.since < read.phase && write.phase < read.phase;
        const uint64_t begin = std::max(read.begin, write.begin);
        const uint64_t end = std::min(read.end, write.end);
        std::string text = "operand src reads " + std::to_string(end - begin) + " bytes that core " +
                           std::to_string(write.block) + " writes with " + write.api + " at " +
                           BaseName(write.at.file) + ":" + std::to_string(write.at.line);
        text += stale ? " after this core had cached their line: the scalar unit sees the old value"
                      : " between the same two SyncAlls (" + std::to_string(read.phase) + " before them)";
        const std::string position = BaseName(read.at.file) + ":" + std::to_string(read.at.line);
        if (stale) {
            return Finding{SIM_FINDING, read.block, "DCACHE_STALE", read.api, text, position};
        }
        return Finding{SIM_FINDING, read.block, "CROSS_CORE_READ_WRITE", read.api, text, position};
    }

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
    std::vector<GmRead> reads_;
};

// Collects the accesses of one block; a block that ends early leaves what it did until then.
class AccessRecorder final : public Checker {
public:
    explicit AccessRecorder(AccessLog& log) : log_(log) {}
    ~AccessRecorder() override { log_.Add(writes_, reads_); }

    void OnCopy(const Core& core, const CopyEvent& event) override {
        const bool dense = event.gmStep == event.rowBytes;
        const uint64_t bytes = dense ? uint64_t{event.rows} * event.rowBytes : event.rowBytes;
        for (uint32_t row = 0; row < (dense ? 1 : event.rows); ++row) {
            const uint64_t begin = event.gm + row * event.gmStep;
            if (event.toGm) {
                Record(GmWrite{begin, begin + bytes, core.Block(), event.granule, phase_, event.api, event.at});
            } else {
                Record(GmRead{begin, begin + bytes, core.Block(), phase_, phase_, event.api, event.at});
            }
        }
    }

    void OnScalar(const Core& core, const ScalarEvent& event) override {
        if (!event.inGm) {
            return;
        }
        const uint64_t end = event.address + event.size;
        const auto cached = cached_.emplace(event.address / kCacheLine, phase_).first;  // a store allocates, too
        if (event.write) {
            Record(GmWrite{event.address, end, core.Block(), kCacheLine, phase_, event.api, event.at});
        } else {
            Record(GmRead{event.address, end, core.Block(), cached->second, phase_, event.api, event.at});
        }
    }

    void OnSync(const Core&, const SyncEvent& event) override {
        if (event.kind == SyncKind::kSyncAll) {
            ++phase_;
        }
    }

private:
    static constexpr uint32_t kCacheLine = 64;

    // Reads that follow one another, as those of a streamed tensor, become one read.
    void Record(const GmRead& read) {
        for (size_t back = 1; back <= 2 && back <= reads_.size(); ++back) {  // K and V take turns
            GmRead& before = reads_[reads_.size() - back];
            if (before.end == read.begin && before.since == read.since && before.phase == read.phase &&
                before.at.line == read.at.line && before.at.file == read.at.file) {
                before.end = read.end;
                return;
            }
        }
        reads_.push_back(read);
    }

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

    AccessLog& log_;
    std::vector<GmWrite> writes_;
    std::vector<GmRead> reads_;
    std::map<uint64_t, uint32_t> cached_;  // cache line -> phase it was first loaded in
    uint32_t phase_ = 0;
};

}  // namespace emu

#endif  // SMALLQ_EMU_CHECK_CROSS_CORE_H_
