// SPDX-License-Identifier: Apache-2.0
// The cost model: replays the traces of all blocks on a model of the chip and reports modelled time. Nothing in it is a
// measurement. It runs after the launch, in simulated time only, so it does not depend on host threads.
//
// A core hands out instructions in program order, one each kIssueCycles, into three pipes (MTE2, V, MTE3) that work in
// order and wait for flags. A copy occupies its pipe while its bytes move; all cores together move kHbmBytesPerCycle,
// shared equally by the transfers under way, one core at most kCoreBytesPerCycle. Bytes that were touched before in
// this launch, with less than an L2 of other traffic since, come from L2 at the core's rate.
#ifndef SMALLQ_EMU_COST_MODEL_H_
#define SMALLQ_EMU_COST_MODEL_H_

#include <deque>
#include <map>
#include <queue>
#include <vector>

#include "cost_l2.h"
#include "cost_trace.h"

namespace emu {
namespace cost {

// What one stretch between two SyncAlls, or the whole launch, used.
struct Usage {
    double end = 0;  // cycles since the first core started
    double busy[kPipes] = {};
    double hbmBytes = 0;
    double l2Bytes = 0;
    double readBytes = 0;
    double writtenBytes = 0;
};

class Machine {
public:
    Machine(const LaunchContext& context, const std::vector<Trace>& traces, uint32_t cores)
        : traces_(traces), cores_(cores), l2_(context) {}

    // One entry a stretch between SyncAlls.
    const std::vector<Usage>& Run() {
        for (next_ = 0; next_ < traces_.size() && next_ < cores_; ++next_) {
            blocks_.emplace_back(traces_[next_], next_);
        }
        for (Block& block : blocks_) {
            Advance(block);
        }
        while (!events_.empty() || !hbm_.empty()) {
            Proceed();
        }
        return usage_;
    }

    double DistinctTensorBytes() const { return l2_.DistinctTensorBytes(); }

private:
    struct Waiting {
        const Step* step;
        double handedOut;
    };
    struct Block {
        Block(const Trace& traceIn, size_t numberIn) : trace(&traceIn), number(numberIn) {}

        const Trace* trace;
        size_t number;
        size_t at = 0;  // next step the scalar unit looks at
        double time[kPipes] = {};
        double done[kPipes] = {};  // when the last result of a pipe is there
        std::deque<Waiting> queue[kPipes];
        bool moving[kPipes] = {};
        double started[kPipes] = {};
        double l2Share[kPipes] = {};
        std::map<uint16_t, std::deque<double>> flags;
        size_t phase = 0;
        bool atSync = false;
        bool ended = false;
    };
    enum class What : uint8_t { kStart, kFinish, kCoreFree };
    struct Event {
        double time;
        uint64_t order;  // events of one moment happen in the order they were planned
        What what;
        size_t block;
        Pipe pipe;
        bool operator>(const Event& other) const {
            return time > other.time || (time == other.time && order > other.order);
        }
    };
    struct Transfer {
        double end;  // in bytes moved for each transfer since the beginning
        uint64_t order;
        size_t block;
        Pipe pipe;
        bool operator>(const Transfer& other) const {
            return end > other.end || (end == other.end && order > other.order);
        }
    };

    double Rate() const {
        return std::min(kCoreBytesPerCycle, kHbmBytesPerCycle / static_cast<double>(std::max<size_t>(hbm_.size(), 1)));
    }

    // The next thing that happens on the chip.
    void Proceed() {
        const double hbmEnd = hbm_.empty() ? -1 : now_ + std::max(0.0, hbm_.top().end - moved_) / Rate();
        if (!hbm_.empty() && (events_.empty() || hbmEnd <= events_.top().time)) {
            moved_ = std::max(moved_, hbm_.top().end);
            now_ = hbmEnd;
            const Transfer transfer = hbm_.top();
            hbm_.pop();
            PlanFinish(blocks_[transfer.block], transfer.pipe);
            return;
        }
        const Event event = events_.top();
        events_.pop();
        moved_ += hbm_.empty() ? 0 : (event.time - now_) * Rate();
        now_ = event.time;
        Block& block = blocks_[event.block];
        if (event.what == What::kCoreFree) {
            StartBlock();
        } else if (event.what == What::kStart) {
            StartCopy(block, event.pipe);
        } else {
            FinishCopy(block, event.pipe);
        }
    }

    void Plan(double time, What what, const Block& block, Pipe pipe) {
        events_.push(Event{std::max(time, now_), ++order_, what, block.number, pipe});
    }

    void StartCopy(Block& block, Pipe pipe) {
        const Copy& copy = CopyOf(block, pipe);
        const double bytes = static_cast<double>(copy.rows) * copy.rowBytes;
        const double fromHbm = l2_.Touch(copy, pipe == kStore);
        Usage& usage = UsageOf(block);
        (pipe == kStore ? usage.writtenBytes : usage.readBytes) += bytes;
        usage.hbmBytes += fromHbm;
        usage.l2Bytes += bytes - fromHbm;
        block.started[pipe] = now_;
        block.l2Share[pipe] = (bytes - fromHbm) / kCoreBytesPerCycle;
        if (fromHbm > 0) {
            hbm_.push(Transfer{moved_ + fromHbm, ++order_, block.number, pipe});
        } else {
            PlanFinish(block, pipe);
        }
    }

    void PlanFinish(Block& block, Pipe pipe) {
        const Copy& copy = CopyOf(block, pipe);
        const double rows = copy.rows > 1 ? copy.rows * kRowCycles : 0;
        Plan(std::max(now_ + block.l2Share[pipe], block.started[pipe] + rows), What::kFinish, block, pipe);
    }

    void FinishCopy(Block& block, Pipe pipe) {
        UsageOf(block).busy[pipe] += now_ - block.started[pipe];
        block.time[pipe] = now_;
        block.done[pipe] = now_ + kCopyLatency;
        block.moving[pipe] = false;
        block.queue[pipe].pop_front();
        Advance(block);
    }

    const Copy& CopyOf(const Block& block, Pipe pipe) const {
        return block.trace->copies[block.queue[pipe].front().step->cycles];
    }

    // Lets the scalar unit and the pipes of a block run as far as they get before something else must happen.
    void Advance(Block& block) {
        bool progress = true;
        while (progress && !block.ended) {
            progress = HandOut(block);
            for (const Pipe pipe : {kLoad, kVector, kStore}) {
                progress = Work(block, pipe) || progress;
            }
        }
    }

    bool HandOut(Block& block) {
        const size_t before = block.at;
        double& clock = block.time[kScalar];
        while (block.at < block.trace->steps.size() && !block.atSync) {
            const Step& step = block.trace->steps[block.at];
            if (step.op == Op::kFinishAll || step.op == Op::kSyncAll) {
                if (!Drained(block)) {
                    break;
                }
                for (uint32_t pipe = 0; pipe < kPipes; ++pipe) {
                    clock = std::max(clock, std::max(block.time[pipe], block.done[pipe]));
                }
                std::fill(block.time, block.time + kPipes, clock);
                if (step.op == Op::kSyncAll) {
                    ++block.at;
                    Arrive(block);
                    return true;
                }
            } else if (step.pipe != kScalar) {
                if (block.queue[step.pipe].size() >= kQueueDepth) {
                    break;
                }
                clock += step.op == Op::kCopy || step.op == Op::kWork ? kIssueCycles : 0;
                block.queue[step.pipe].push_back(Waiting{&step, clock});
                clock += step.op == Op::kWork && step.issued > 1 ? (step.issued - 1) * kIssueCycles : 0;
            } else if (step.op == Op::kWork) {
                clock += step.cycles;
                UsageOf(block).busy[kScalar] += step.cycles;
            } else if (step.op == Op::kSet) {
                block.flags[step.slot].push_back(clock);
            } else if (!TakeFlag(block, step.slot, &clock)) {
                break;
            }
            ++block.at;
        }
        if (block.at == block.trace->steps.size() && !block.atSync && Drained(block)) {
            End(block);
        }
        return block.at != before;
    }

    bool Work(Block& block, Pipe pipe) {
        bool progress = false;
        double& clock = block.time[pipe];
        while (!block.queue[pipe].empty() && !block.moving[pipe]) {
            const Waiting head = block.queue[pipe].front();
            const double start = std::max(clock, head.handedOut);
            if (head.step->op == Op::kCopy) {
                block.moving[pipe] = true;
                Plan(start, What::kStart, block, pipe);
                return progress;
            }
            clock = start;
            if (head.step->op == Op::kWork) {
                clock += head.step->cycles;
                UsageOf(block).busy[pipe] += head.step->cycles;
            } else if (head.step->op == Op::kSet) {
                block.flags[head.step->slot].push_back(std::max(clock + head.step->cycles, block.done[pipe]));
            } else if (!TakeFlag(block, head.step->slot, &clock)) {
                return progress;
            }
            if (block.queue[pipe].size() == kQueueDepth) {
                block.time[kScalar] = std::max(block.time[kScalar], start);  // it waited for this place
            }
            block.queue[pipe].pop_front();
            progress = true;
        }
        return progress;
    }

    static bool TakeFlag(Block& block, uint16_t slot, double* clock) {
        std::deque<double>& times = block.flags[slot];
        if (times.empty()) {
            return false;
        }
        *clock = std::max(*clock, times.front());
        times.pop_front();
        return true;
    }

    static bool Drained(const Block& block) {
        return block.queue[kLoad].empty() && block.queue[kVector].empty() && block.queue[kStore].empty();
    }

    void Arrive(Block& block) {
        block.atSync = true;
        syncTime_ = std::max(syncTime_, block.time[kScalar]);
        UsageOf(block).end = std::max(UsageOf(block).end, block.time[kScalar]);
        if (++arrived_ < traces_.size()) {
            return;
        }
        arrived_ = 0;
        const double release = syncTime_ + kSyncMicroseconds * kCyclesPerMicrosecond;
        for (Block& each : blocks_) {
            each.atSync = false;
            ++each.phase;
            std::fill(each.time, each.time + kPipes, release);
        }
        for (Block& each : blocks_) {
            if (&each != &block) {  // this one is being advanced by the caller
                Advance(each);
            }
        }
    }

    // A block has ended; its core takes the next one, if more blocks than cores were launched.
    void End(Block& block) {
        block.ended = true;
        double end = 0;
        for (uint32_t pipe = 0; pipe < kPipes; ++pipe) {
            end = std::max(end, std::max(block.time[pipe], block.done[pipe]));
        }
        UsageOf(block).end = std::max(UsageOf(block).end, end);
        Plan(end, What::kCoreFree, block, kScalar);
    }

    void StartBlock() {
        if (next_ < traces_.size()) {
            blocks_.emplace_back(traces_[next_], next_);
            ++next_;
            std::fill(blocks_.back().time, blocks_.back().time + kPipes, now_);
            Advance(blocks_.back());
        }
    }

    Usage& UsageOf(const Block& block) {
        while (usage_.size() <= block.phase) {
            usage_.emplace_back();
        }
        return usage_[block.phase];
    }

    const std::vector<Trace>& traces_;
    size_t cores_;
    L2 l2_;
    std::deque<Block> blocks_;  // a deque: references stay valid when blocks are added
    size_t next_ = 0;
    std::priority_queue<Event, std::vector<Event>, std::greater<Event>> events_;
    std::priority_queue<Transfer, std::vector<Transfer>, std::greater<Transfer>> hbm_;
    std::vector<Usage> usage_;
    double now_ = 0;
    double moved_ = 0;  // bytes each transfer that was always under way would have moved
    uint64_t order_ = 0;
    size_t arrived_ = 0;
    double syncTime_ = 0;
};

}  // namespace cost
}  // namespace emu

#endif  // SMALLQ_EMU_COST_MODEL_H_
