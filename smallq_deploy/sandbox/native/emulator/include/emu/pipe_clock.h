// SPDX-License-Identifier: Apache-2.0
// What each pipe of a vector core knows to be finished: the happens-before relation of its four instruction queues.
//
// The scalar unit hands instructions to MTE2, V and MTE3 in program order; each of them starts its own in that order.
// Copies of one pipe also take effect in that order; vector instructions overlap, so V knows its own earlier results
// only after PipeBarrier<PIPE_V> (or a flag that came back from another pipe). Everything else has to be told by a
// flag: SetFlag carries what its pipe has done and knows, WaitFlag hands that to the pipe that waits. What the scalar
// unit has waited for is known to every instruction it hands out later; what it has stored itself is not, that takes an
// S_ flag. Source: API reference, "intra-core synchronisation"; design/kernel.md 2.3.
#ifndef SMALLQ_EMU_PIPE_CLOCK_H_
#define SMALLQ_EMU_PIPE_CLOCK_H_

#include "core.h"

namespace emu {

constexpr uint32_t kPipes = 4;
enum Pipe : uint8_t { kScalar = 0, kVector = 1, kLoad = 2, kStore = 3 };
constexpr const char* kPipeNames[kPipes] = {"S", "V", "MTE2", "MTE3"};

// Number of the last instruction of each pipe known to be finished. Instructions of a core are numbered from 1 across
// all pipes.
struct Known {
    uint32_t upTo[kPipes] = {};

    void Join(const Known& other) {
        for (uint32_t pipe = 0; pipe < kPipes; ++pipe) {
            upTo[pipe] = upTo[pipe] > other.upTo[pipe] ? upTo[pipe] : other.upTo[pipe];
        }
    }
};

struct PipePair {
    int source;  // -1: a pipe that vector cores do not have
    int target;
};

constexpr PipePair PipesOf(AscendC::HardEvent event) {
    using AscendC::HardEvent;
    switch (event) {
        case HardEvent::MTE2_V:
            return {kLoad, kVector};
        case HardEvent::V_MTE2:
            return {kVector, kLoad};
        case HardEvent::MTE3_V:
            return {kStore, kVector};
        case HardEvent::V_MTE3:
            return {kVector, kStore};
        case HardEvent::V_V:
            return {kVector, kVector};
        case HardEvent::MTE3_MTE2:
            return {kStore, kLoad};
        case HardEvent::MTE2_MTE3:
            return {kLoad, kStore};
        case HardEvent::S_V:
            return {kScalar, kVector};
        case HardEvent::V_S:
            return {kVector, kScalar};
        case HardEvent::S_MTE2:
            return {kScalar, kLoad};
        case HardEvent::MTE2_S:
            return {kLoad, kScalar};
        case HardEvent::S_MTE3:
            return {kScalar, kStore};
        case HardEvent::MTE3_S:
            return {kStore, kScalar};
        default:
            return {-1, -1};
    }
}

class PipeClock {
public:
    // Numbers the next instruction of a pipe; Of(pipe) is then what it may rely on.
    uint32_t Issue(Pipe pipe) {
        HandOut(pipe);
        ++count_;
        if (pipe != kVector) {
            known_[pipe].upTo[pipe] = count_ - 1;
        }
        return count_;
    }

    const Known& Of(Pipe pipe) const { return known_[pipe]; }
    uint32_t Count() const { return count_; }

    void OnSync(const SyncEvent& event) {
        switch (event.kind) {
            case SyncKind::kSet:
            case SyncKind::kWait:
                OnFlag(event);
                break;
            case SyncKind::kPipeBarrier:
                if (event.pipe == PIPE_V) {
                    known_[kVector].upTo[kVector] = count_;
                } else if (event.pipe == PIPE_ALL) {
                    FinishAll();
                }
                break;
            case SyncKind::kSyncAll:
                FinishAll();
                break;
        }
    }

private:
    void OnFlag(const SyncEvent& event) {
        const PipePair pair = PipesOf(event.event);
        if (pair.source < 0) {
            return;
        }
        Known& flag = flags_[static_cast<size_t>(event.event)][event.id & (Core::kEventIds - 1)];
        if (event.kind == SyncKind::kSet) {
            const Pipe source = static_cast<Pipe>(pair.source);
            HandOut(source);
            flag = known_[source];
            flag.upTo[source] = count_;
        } else {
            known_[pair.target].Join(flag);
        }
    }

    // The scalar unit hands something to a pipe: what it has waited for has happened.
    void HandOut(Pipe pipe) {
        const uint32_t own = known_[pipe].upTo[kScalar];
        known_[pipe].Join(known_[kScalar]);
        if (pipe != kScalar) {
            known_[pipe].upTo[kScalar] = own;
        }
    }

    void FinishAll() {
        for (Known& known : known_) {
            for (uint32_t& upTo : known.upTo) {
                upTo = count_;
            }
        }
    }

    uint32_t count_ = 0;
    Known known_[kPipes];
    Known flags_[static_cast<size_t>(AscendC::HardEvent::MAX)][Core::kEventIds];
};

}  // namespace emu

#endif  // SMALLQ_EMU_PIPE_CLOCK_H_
