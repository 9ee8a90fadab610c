// SPDX-License-Identifier: Apache-2.0
// One emulated vector core while it runs a block: its unified buffer, mask register, buffer pool, event ids, observers.
#ifndef SMALLQ_EMU_CORE_H_
#define SMALLQ_EMU_CORE_H_

#include <algorithm>
#include <cstring>
#include <memory>
#include <vector>

#include "events.h"
#include "finding.h"
#include "platform.h"

namespace emu {

enum class BufferState : uint8_t { kFree, kOccupied, kEnqueued, kDequeued };

// One buffer handed out by TPipe::InitBuffer.
struct Buffer {
    BufferState state = BufferState::kFree;
    uint32_t address = 0;
    uint32_t length = 0;
    AscendC::TEventID enqueueEvent = AscendC::INVALID_TEVENTID;
    AscendC::TEventID freeEvent = AscendC::INVALID_TEVENTID;
    AscendC::HardEvent freeKind = AscendC::HardEvent::MAX;
};

// What all blocks of a launch share. SyncAll is the scheduler's (launch.h).
class LaunchContext {
public:
    explicit LaunchContext(const SimLaunch& launch) : launch_(launch) {}
    virtual ~LaunchContext() = default;
    virtual void SyncAll(Core& core, Where at) = 0;

    const SimLaunch& Launch() const { return launch_; }

    // The live allocation that holds address, or nullptr.
    const SimGmRegion* Region(uint64_t address) const {
        const SimGmRegion* begin = launch_.regions;
        const SimGmRegion* end = begin + launch_.regionCount;
        const SimGmRegion* after = std::upper_bound(
            begin, end, address, [](uint64_t value, const SimGmRegion& region) { return value < region.base; });
        if (after == begin) {
            return nullptr;
        }
        const SimGmRegion* region = after - 1;
        return address - region->base < region->size ? region : nullptr;
    }

    // Notes in the runtime's map that these bytes of GM now hold something. They lie inside one region.
    void MarkWritten(uint64_t address, uint64_t bytes) const {
        const SimGmRegion* region = Region(address);
        if (region != nullptr && region->shadow != nullptr) {
            std::memset(region->shadow + (address - region->base), 1, bytes);
        }
    }

private:
    const SimLaunch& launch_;
};

class Core {
public:
    static constexpr uint32_t kMaxBuffers = 64;  // TPipe limit (kernel_tpipe.h)
    static constexpr int kEventIds = 8;          // per pair of pipes

    Core(LaunchContext& context, uint32_t block)
        : context_(context), block_(block), ubSize_(static_cast<uint32_t>(context.Launch().ubSize)) {
        // 0xff.. is a NaN in fp16 and in fp32: whatever is computed from never-written bytes shows. One more block,
        // because lanes are loaded in whole blocks and only strict mode insists that a block is aligned.
        storage_.reset(new uint8_t[ubSize_ + 2 * kBlockBytes]);
        ub_ = storage_.get() + (kBlockBytes - reinterpret_cast<uintptr_t>(storage_.get()) % kBlockBytes) % kBlockBytes;
        std::memset(ub_, 0xff, ubSize_ + kBlockBytes);
        std::fill(std::begin(maskRegister), std::end(maskRegister), ~uint64_t{0});
    }

    LaunchContext& Context() const { return context_; }
    const SimLaunch& Launch() const { return context_.Launch(); }
    uint32_t Block() const { return block_; }
    uint32_t UbSize() const { return ubSize_; }
    uint8_t* Ub(uint32_t position) const { return ub_ + position; }

    void Subscribe(std::unique_ptr<Checker> checker) { checkers_.push_back(std::move(checker)); }
    void Tell(const VectorEvent& event) const {
        for (const auto& checker : checkers_) {
            checker->OnVector(*this, event);
        }
    }
    void Tell(const CopyEvent& event) const {
        for (const auto& checker : checkers_) {
            checker->OnCopy(*this, event);
        }
    }
    void Tell(const ScalarEvent& event) const {
        for (const auto& checker : checkers_) {
            checker->OnScalar(*this, event);
        }
    }
    void Tell(const SyncEvent& event) const {
        for (const auto& checker : checkers_) {
            checker->OnSync(*this, event);
        }
    }
    void Tell(const BufferEvent& event) const {
        for (const auto& checker : checkers_) {
            checker->OnBuffer(*this, event);
        }
    }
    void TellEnd() const {
        for (const auto& checker : checkers_) {
            checker->OnKernelEnd(*this);
        }
    }

    uint64_t maskRegister[2];

    // State of the one TPipe of the block (kept here because tensors and queues refer to its buffers).
    Buffer buffers[kMaxBuffers];
    uint32_t bufferCount = 0;
    uint32_t ubUsed = 0;
    uint32_t livePipes = 0;
    uint8_t eventsTaken[static_cast<size_t>(AscendC::HardEvent::MAX)] = {};

private:
    LaunchContext& context_;
    uint32_t block_;
    uint32_t ubSize_;
    std::unique_ptr<uint8_t[]> storage_;
    uint8_t* ub_;
    std::vector<std::unique_ptr<Checker>> checkers_;
};

inline thread_local Core* currentCore = nullptr;

// The core this code runs on. API functions may only be called from a kernel.
inline Core& Here() { return *currentCore; }

}  // namespace emu

#endif  // SMALLQ_EMU_CORE_H_
