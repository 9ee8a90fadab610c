// SPDX-License-Identifier: Apache-2.0
// Which bytes of GM lie in L2, by lines: those touched before in this launch with less than an L2 of traffic since.
#ifndef SMALLQ_EMU_COST_L2_H_
#define SMALLQ_EMU_COST_L2_H_

#include <algorithm>
#include <map>
#include <vector>

#include "core.h"
#include "cost_trace.h"

namespace emu {
namespace cost {

class L2 {
public:
    explicit L2(const LaunchContext& context) : context_(context), workspace_(Base(context.Launch().workspace)) {}

    // Moves the bytes of a copy; returns how many of them HBM has to move. Stores always reach HBM.
    double Touch(const Copy& copy, bool store) {
        if (copy.gmStep == copy.rowBytes) {
            return TouchRow(copy.gm, uint64_t{copy.rows} * copy.rowBytes, store);
        }
        double fromHbm = 0;
        for (uint32_t row = 0; row < copy.rows; ++row) {
            fromHbm += TouchRow(copy.gm + row * copy.gmStep, copy.rowBytes, store);
        }
        return fromHbm;
    }

    // Bytes of tensors (not of workspace) that had to be moved at least once.
    double DistinctTensorBytes() const { return distinct_; }

private:
    // One line, in 16 sectors of 32 bytes.
    struct Line {
        uint32_t touched = 0;  // KiB of traffic before it was last touched
        uint16_t sectors = 0;  // that are in L2
        uint16_t ever = 0;     // that were touched at all
    };
    static_assert(kL2Line == 16 * kBlockBytes, "one bit a sector");

    static double Share(uint32_t some, uint32_t all) {
        return static_cast<double>(__builtin_popcount(some)) / __builtin_popcount(all);
    }

    uint64_t Base(uint64_t address) const {
        const SimGmRegion* region = context_.Region(address);
        return region == nullptr ? 0 : region->base;
    }

    double TouchRow(uint64_t begin, uint64_t bytes, bool store) {
        const SimGmRegion* region = context_.Region(begin);
        if (region == nullptr) {
            return static_cast<double>(bytes);
        }
        std::vector<Line>& lines = lines_[region->base];
        if (lines.empty()) {
            lines.resize(region->size / kL2Line + 2);
        }
        const uint64_t first = begin - region->base;
        double fromHbm = 0;
        for (uint64_t number = first / kL2Line; number * kL2Line < first + bytes; ++number) {
            const uint64_t begin32 = std::max(first, number * kL2Line) / kBlockBytes;
            const uint64_t part = std::min(first + bytes, (number + 1) * kL2Line) - std::max(first, number * kL2Line);
            const uint64_t end32 = (std::min(first + bytes, (number + 1) * kL2Line) - 1) / kBlockBytes + 1;
            const uint32_t sectors = ((1u << (end32 - begin32)) - 1) << (begin32 % (kL2Line / kBlockBytes));
            Line& line = lines[number];
            const uint32_t now = static_cast<uint32_t>(traffic_ / 1024);
            const uint32_t present = now - line.touched <= kL2Bytes / 1024 ? line.sectors : 0;
            const double missing = Share(sectors & ~present, sectors) * static_cast<double>(part);
            fromHbm += store ? static_cast<double>(part) : missing;
            if (region->base != workspace_) {
                distinct_ += Share(sectors & ~line.ever, sectors) * static_cast<double>(part);
            }
            line = Line{now, static_cast<uint16_t>(present | sectors), static_cast<uint16_t>(line.ever | sectors)};
            traffic_ += part;
        }
        return fromHbm;
    }

    const LaunchContext& context_;
    uint64_t workspace_;
    std::map<uint64_t, std::vector<Line>> lines_;
    uint64_t traffic_ = 0;
    double distinct_ = 0;
};

}  // namespace cost
}  // namespace emu

#endif  // SMALLQ_EMU_COST_L2_H_
