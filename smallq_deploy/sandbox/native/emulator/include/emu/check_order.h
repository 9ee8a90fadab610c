// SPDX-License-Identifier: Apache-2.0
// Strict mode: the order between the pipes of one core. Two accesses to the same bytes of UB or GM, one of them a
// write, must be ordered by flags (queues' own included), barriers or the order within a pipe; the vector pipe orders
// its instructions only by PipeBarrier<PIPE_V>, as with --cce-auto-sync=off. The emulator itself runs in program order,
// so a missing flag changes no value: only this checker sees it.
#ifndef SMALLQ_EMU_CHECK_ORDER_H_
#define SMALLQ_EMU_CHECK_ORDER_H_

#include <string>
#include <vector>

#include "access_log.h"
#include "check_bounds.h"
#include "lanes.h"

namespace emu {

// The source position of every instruction of a core, by its number.
class SiteLog {
public:
    struct Site {
        const char* api;
        Where at;
    };

    void Append(const char* api, Where at) {
        if (sites_.empty() || !Same(sites_[last_], api, at)) {
            last_ = Find(api, at);
        }
        of_.push_back(last_);
    }
    const Site& Of(uint32_t number) const { return sites_[of_[number - 1]]; }

private:
    static bool Same(const Site& site, const char* api, Where at) {
        return site.at.line == at.line && site.at.file == at.file && site.api == api;
    }
    uint16_t Find(const char* api, Where at) {
        for (size_t i = 0; i < sites_.size(); ++i) {
            if (Same(sites_[i], api, at)) {
                return static_cast<uint16_t>(i);
            }
        }
        sites_.push_back(Site{api, at});
        return static_cast<uint16_t>(sites_.size() - 1);
    }

    std::vector<Site> sites_;
    std::vector<uint16_t> of_;
    uint16_t last_ = 0;
};

class OrderChecker final : public Checker {
public:
    explicit OrderChecker(const Core& core) : ub_(core.UbSize()) {}

    void OnVector(const Core& core, const VectorEvent& event) override {
        Start(kVector, event.api, event.at);
        for (uint32_t i = event.operandCount; i-- > 0;) {  // sources first: their own write is no hazard for them
            Walk(core, event, event.operands[i], i == 0);
        }
    }

    void OnCopy(const Core& core, const CopyEvent& event) override {
        const Pipe pipe = event.toGm ? kStore : kLoad;
        Start(pipe, event.api, event.at);
        const uint32_t ubRow = event.leftBytes + event.rowBytes + event.rightBytes + event.fillerBytes;
        const Access ub = MakeAccess(pipe, !event.toGm, false);
        const Access gm = MakeAccess(pipe, event.toGm, false);
        if (event.gmStep == event.rowBytes) {
            TouchGm(core, event, event.gm, event.gm + uint64_t{event.rows} * event.rowBytes, gm);
        }
        for (uint32_t row = 0; row < event.rows; ++row) {
            const uint32_t begin = event.ub + row * event.ubStep;
            TouchUb(core, event.api, event.toGm ? "src" : "dst", begin, begin + ubRow, ub, event.at);
            if (event.gmStep != event.rowBytes) {
                const uint64_t from = event.gm + row * event.gmStep;
                TouchGm(core, event, from, from + event.rowBytes, gm);
            }
        }
    }

    void OnScalar(const Core& core, const ScalarEvent& event) override {
        Start(kScalar, event.api, event.at);
        const Access access = MakeAccess(kScalar, event.write, false);
        if (event.inGm) {
            const Hazard hazard = gm_.Touch(event.address, event.address + event.size, access);
            if (hazard.earlier != 0) {
                ReportGm(core, event.api, "tensor", event.address, event.address + event.size, access, hazard,
                         event.at);
            }
        } else {
            const uint32_t begin = static_cast<uint32_t>(event.address);
            TouchUb(core, event.api, "tensor", begin, begin + event.size, access, event.at);
        }
    }

    void OnSync(const Core&, const SyncEvent& event) override {
        clock_.OnSync(event);
        if (event.kind == SyncKind::kSyncAll || (event.kind == SyncKind::kPipeBarrier && event.pipe == PIPE_ALL)) {
            gm_.Clear();
        }
    }

private:
    void Start(Pipe pipe, const char* api, Where at) {
        clock_.Issue(pipe);
        sites_.Append(api, at);
    }

    Access MakeAccess(Pipe pipe, bool write, bool reads) const {
        return Access{pipe, write, reads, clock_.Count(), clock_.Of(pipe)};
    }

    // Bytes of one block's elements whose lanes are active.
    static uint32_t BytesOf(const UbOperand& operand, const uint64_t mask[2], uint32_t block) {
        const uint32_t perBlock = kBlockBytes / operand.elementSize;
        const uint32_t first = block * perBlock;
        const uint64_t lanes = (mask[first >> 6] >> (first & 63)) & ((uint64_t{1} << perBlock) - 1);
        if (lanes == (uint64_t{1} << perBlock) - 1) {
            return ~0u;
        }
        uint32_t bytes = 0;
        const uint32_t element = (1u << operand.elementSize) - 1;  // elements have 2 or 4 bytes
        for (uint32_t lane = 0; lane < perBlock; ++lane) {
            bytes |= ((lanes >> lane) & 1u) != 0 ? element << (lane * operand.elementSize) : 0u;
        }
        return bytes;
    }

    // What one repeat touches: up to 8 pieces of up to 32 bytes, relative to its start.
    struct Pieces {
        uint32_t count = 0;
        uint32_t offset[8];
        uint32_t bytes[8];
    };

    static Pieces PiecesOf(const UbOperand& operand, const VectorEvent& event, const uint64_t mask[2]) {
        Pieces pieces;
        const uint32_t perBlock = kBlockBytes / operand.elementSize;
        const uint32_t lanes = operand.masked ? event.lanes : operand.lanes;
        for (uint32_t block = 0; block * perBlock < lanes; ++block) {
            const uint32_t rest = (lanes - block * perBlock) * operand.elementSize;
            const uint32_t bytes =
                operand.masked ? BytesOf(operand, mask, block) : (rest >= kBlockBytes ? ~0u : (1u << rest) - 1);
            if (bytes == 0) {
                continue;
            }
            if (operand.blockStride == 0 && pieces.count != 0) {
                pieces.bytes[0] |= bytes;  // one block read again and again
                continue;
            }
            pieces.offset[pieces.count] = block * operand.blockStride;
            pieces.bytes[pieces.count++] = bytes;
        }
        return pieces;
    }

    void Walk(const Core& core, const VectorEvent& event, const UbOperand& operand, bool write) {
        const Access access = MakeAccess(kVector, write, write && event.accumulates);
        const bool still = operand.repeatStride == 0;  // every repeat touches the same bytes
        const Pieces most = PiecesOf(operand, event, event.mask);
        if (event.repeats > 1) {
            for (uint32_t repeat = 0; repeat < (still ? 1 : event.repeats - 1); ++repeat) {
                TouchPieces(core, event, operand, operand.address + repeat * operand.repeatStride, most, access);
            }
            if (still) {
                return;
            }
        }
        TouchPieces(core, event, operand, operand.address + (event.repeats - 1) * operand.repeatStride,
                    PiecesOf(operand, event, event.tail), access);
    }

    void TouchPieces(const Core& core, const VectorEvent& event, const UbOperand& operand, uint32_t begin,
                     const Pieces& pieces, const Access& access) {
        for (uint32_t i = 0; i < pieces.count; ++i) {
            const uint32_t at = begin + pieces.offset[i];
            const uint32_t shift = at % kBlockBytes;
            Hazard hazard = ub_.Touch(at / kBlockBytes, pieces.bytes[i] << shift, access);
            const uint32_t over = shift == 0 ? 0 : pieces.bytes[i] >> (kBlockBytes - shift);
            if (over != 0 && hazard.earlier == 0) {
                hazard = ub_.Touch(at / kBlockBytes + 1, over, access);
            }
            if (hazard.earlier != 0) {
                ReportUb(core, event.api, operand.name, at, at + kBlockBytes, access, hazard, event.at);
            }
        }
    }

    void TouchUb(const Core& core, const char* api, const char* name, uint32_t begin, uint32_t end,
                 const Access& access, Where at) {
        for (uint32_t block = begin / kBlockBytes; block * kBlockBytes < end; ++block) {
            const uint32_t start = block * kBlockBytes;
            uint32_t mask = begin > start ? ~0u << (begin - start) : ~0u;
            mask &= end < start + kBlockBytes ? (1u << (end - start)) - 1 : ~0u;
            const Hazard hazard = ub_.Touch(block, mask, access);
            if (hazard.earlier != 0) {
                ReportUb(core, api, name, begin > start ? begin : start, end, access, hazard, at);
            }
        }
    }

    void TouchGm(const Core& core, const CopyEvent& event, uint64_t begin, uint64_t end, const Access& access) {
        const Hazard hazard = gm_.Touch(begin, end, access);
        if (hazard.earlier != 0) {
            ReportGm(core, event.api, event.toGm ? "dst" : "src", begin, end, access, hazard, event.at);
        }
    }

    [[noreturn]] void ReportUb(const Core& core, const char* api, const char* name, uint32_t begin, uint32_t end,
                               const Access& access, const Hazard& hazard, Where at) const {
        Report(core, api, name, "UB bytes [" + std::to_string(begin) + ", " + std::to_string(end) + ")", access, hazard,
               at);
    }

    [[noreturn]] void ReportGm(const Core& core, const char* api, const char* name, uint64_t begin, uint64_t end,
                               const Access& access, const Hazard& hazard, Where at) const {
        const SimGmRegion* region = core.Context().Region(begin);
        const uint64_t base = region == nullptr ? 0 : region->base;
        Report(core, api, name,
               "bytes [" + std::to_string(begin - base) + ", " + std::to_string(end - base) + ") of a GM allocation",
               access, hazard, at);
    }

    [[noreturn]] void Report(const Core& core, const char* api, const char* name, const std::string& bytes,
                             const Access& access, const Hazard& hazard, Where at) const {
        const SiteLog::Site& earlier = sites_.Of(hazard.earlier);
        const bool earlierReads = hazard.order == Order::kWriteAfterRead;
        const bool nowReads = hazard.order == Order::kReadAfterWrite;
        const std::string there =
            std::string(earlier.api) + " at " + BaseName(earlier.at.file) + ":" + std::to_string(earlier.at.line);
        const std::string what = "operand " + std::string(name) + " " + (nowReads ? "reads " : "writes ") + bytes +
                                 ", which " + there + (earlierReads ? " reads" : " writes");
        if (hazard.earlierPipe == kVector && access.pipe == kVector) {
            Raise(SIM_FINDING, "SAME_PIPE_V_V", api, core.Block(), at, "%s; no PipeBarrier<PIPE_V> lies between",
                  what.c_str());
        }
        const std::string pair = std::string(kPipeNames[hazard.earlierPipe]) + "_" + kPipeNames[access.pipe];
        Raise(SIM_FINDING, ("MISSING_SYNC_" + pair).c_str(), api, core.Block(), at,
              "%s; no flag or barrier makes %s wait for %s", what.c_str(), kPipeNames[access.pipe],
              kPipeNames[hazard.earlierPipe]);
    }

    PipeClock clock_;
    UbLog ub_;
    GmLog gm_;
    SiteLog sites_;
};

}  // namespace emu

#endif  // SMALLQ_EMU_CHECK_ORDER_H_
