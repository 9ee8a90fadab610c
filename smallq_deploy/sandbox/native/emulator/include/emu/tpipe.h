// SPDX-License-Identifier: Apache-2.0
// TPipe, TQue, TBuf: who owns which bytes of UB, and the states a queued buffer goes through
// (free -> occupied -> enqueued -> dequeued -> free), with the event ids the 8.1 implementation spends on them.
#ifndef SMALLQ_EMU_TPIPE_H_
#define SMALLQ_EMU_TPIPE_H_

#include <exception>

#include "core.h"
#include "sync.h"
#include "tensor.h"

namespace emu {

constexpr bool IsUb(AscendC::TPosition position) {
    return position == AscendC::TPosition::VECIN || position == AscendC::TPosition::VECOUT ||
           position == AscendC::TPosition::VECCALC;
}

// Flag that says "filled" when a buffer goes from src to dst ...
constexpr AscendC::HardEvent FilledEvent(AscendC::TPosition src, AscendC::TPosition dst) {
    using AscendC::HardEvent;
    return !IsUb(src) ? HardEvent::MTE2_V
                      : (!IsUb(dst) ? HardEvent::V_MTE3 : (src == dst ? HardEvent::V_V : HardEvent::MTE2_MTE3));
}
// ... and the one that says "may be filled again".
constexpr AscendC::HardEvent FreedEvent(AscendC::TPosition src, AscendC::TPosition dst) {
    using AscendC::HardEvent;
    return !IsUb(src) ? HardEvent::V_MTE2
                      : (!IsUb(dst) ? HardEvent::MTE3_V : (src == dst ? HardEvent::V_V : HardEvent::MTE3_MTE2));
}

[[noreturn]] inline void QueueMisuse(const char* api, Where at, const char* text) {
    Raise(SIM_FINDING, "QUEUE_MISUSE", api, Here().Block(), at, "%s", text);
}

// Hands out UB upwards from 0 in 32-byte steps, as TPipe::InitBuffer does.
inline Buffer* CutBuffers(uint32_t count, uint32_t length, Where at) {
    Core& core = Here();
    if (count == 0 || length == 0) {
        Raise(SIM_FINDING, "UB_OVERFLOW", "InitBuffer", core.Block(), at, "%u buffers of %u bytes", count, length);
    }
    if (core.bufferCount + count > Core::kMaxBuffers) {
        Raise(SIM_FINDING, "UB_OVERFLOW", "InitBuffer", core.Block(), at, "more than %u buffers in one TPipe",
              Core::kMaxBuffers);
    }
    const uint64_t step = (uint64_t{length} + kBlockBytes - 1) / kBlockBytes * kBlockBytes;
    const uint64_t end = core.ubUsed + step * count;
    if (end > core.UbSize()) {
        Raise(SIM_FINDING, "UB_OVERFLOW", "InitBuffer", core.Block(), at,
              "%u buffers of %u bytes end at byte %llu of a unified buffer of %u bytes", count, length,
              static_cast<unsigned long long>(end), core.UbSize());
    }
    Buffer* first = core.buffers + core.bufferCount;
    for (uint32_t i = 0; i < count; ++i) {
        first[i] = Buffer();
        first[i].address = core.ubUsed;
        first[i].length = static_cast<uint32_t>(step);
        core.ubUsed += static_cast<uint32_t>(step);
    }
    core.bufferCount += count;
    core.Tell(BufferEvent{"InitBuffer", first->address, core.ubUsed, at});
    return first;
}

inline void WaitFreed(Buffer& buffer, const char* api, Where at) {
    if (buffer.freeEvent != AscendC::INVALID_TEVENTID) {
        Flag(SyncKind::kWait, buffer.freeKind, buffer.freeEvent, at);
        GiveBackEvent(api, buffer.freeKind, buffer.freeEvent, at);
        buffer.freeEvent = AscendC::INVALID_TEVENTID;
    }
}

inline void WaitAllFreed(const char* api, Where at) {
    Core& core = Here();
    for (uint32_t i = 0; i < core.bufferCount; ++i) {
        WaitFreed(core.buffers[i], api, at);
    }
}

template <typename T>
AscendC::LocalTensor<T> TensorOn(Buffer& buffer, uint32_t offset, uint32_t bytes, AscendC::TPosition position) {
    AscendC::LocalTensor<T> tensor;
    const uint32_t begin = buffer.address + offset;
    tensor.SimAssign(begin, begin + bytes, buffer.address + buffer.length, position, &buffer);
    return tensor;
}

}  // namespace emu

namespace AscendC {

template <TPosition src, TPosition dst, int32_t depth, auto mask = 0>
class TQueBind {
public:
    TQueBind() {}

    template <typename T>
    LocalTensor<T> AllocTensor(emu::Where at = emu::Where::Here()) {
        for (uint32_t tried = 0; tried < count_; ++tried) {
            emu::Buffer& buffer = first_[cursor_];
            cursor_ = (cursor_ + 1) % count_;
            if (buffer.state != emu::BufferState::kFree) {
                continue;
            }
            emu::WaitFreed(buffer, "AllocTensor", at);
            buffer.state = emu::BufferState::kOccupied;
            emu::Here().Tell(emu::BufferEvent{"AllocTensor", buffer.address, buffer.address + buffer.length, at});
            return emu::TensorOn<T>(buffer, 0, buffer.length, kPlace);
        }
        emu::QueueMisuse("AllocTensor", at,
                         count_ == 0 ? "the queue has no buffers: InitBuffer was not called"
                                     : "no free buffer: a tensor of this queue was not freed");
    }

    template <typename T>
    void FreeTensor(LocalTensor<T>& tensor, emu::Where at = emu::Where::Here()) {
        emu::Buffer& buffer = Own(tensor.SimBuffer(), "FreeTensor", at);
        if (buffer.state == emu::BufferState::kFree) {
            emu::QueueMisuse("FreeTensor", at, "the tensor was freed before");
        }
        if (buffer.state == emu::BufferState::kEnqueued) {
            emu::QueueMisuse("FreeTensor", at, "the tensor is still in the queue");
        }
        buffer.state = emu::BufferState::kFree;
        if (kFreed != HardEvent::V_V) {
            buffer.freeKind = kFreed;
            buffer.freeEvent = emu::TakeEvent("FreeTensor", kFreed, at);
            emu::Flag(emu::SyncKind::kSet, kFreed, buffer.freeEvent, at);
        }
    }

    template <typename T>
    bool EnQue(const LocalTensor<T>& tensor, emu::Where at = emu::Where::Here()) {
        emu::Buffer& buffer = Own(tensor.SimBuffer(), "EnQue", at);
        if (buffer.state != emu::BufferState::kOccupied && buffer.state != emu::BufferState::kDequeued) {
            emu::QueueMisuse("EnQue", at,
                             buffer.state == emu::BufferState::kFree ? "the tensor is free: it was not allocated"
                                                                     : "the tensor is already in the queue");
        }
        if (used_ >= kDepth) {
            emu::QueueMisuse("EnQue", at, "more tensors enqueued than the depth of the queue");
        }
        ring_[tail_] = &buffer;
        tail_ = (tail_ + 1) % kDepth;
        ++used_;
        buffer.state = emu::BufferState::kEnqueued;
        if (kFilled != HardEvent::V_V) {
            buffer.enqueueEvent = emu::TakeEvent("EnQue", kFilled, at);
            emu::Flag(emu::SyncKind::kSet, kFilled, buffer.enqueueEvent, at);
        }
        return true;
    }

    template <typename T>
    LocalTensor<T> DeQue(emu::Where at = emu::Where::Here()) {
        if (used_ == 0) {
            emu::Raise(SIM_HANG, "QUEUE_MISUSE", "DeQue", emu::Here().Block(), at,
                       "the queue is empty: the core would wait for ever");
        }
        emu::Buffer& buffer = *ring_[head_];
        head_ = (head_ + 1) % kDepth;
        --used_;
        buffer.state = emu::BufferState::kDequeued;
        if (buffer.enqueueEvent != INVALID_TEVENTID) {
            emu::Flag(emu::SyncKind::kWait, kFilled, buffer.enqueueEvent, at);
            emu::GiveBackEvent("DeQue", kFilled, buffer.enqueueEvent, at);
            buffer.enqueueEvent = INVALID_TEVENTID;
        }
        return emu::TensorOn<T>(buffer, 0, buffer.length, kPlace);
    }

    bool VacantInQue() const { return used_ < kDepth; }
    bool HasTensorInQue() const { return used_ != 0; }
    int32_t GetTensorCountInQue() const { return used_; }
    bool HasIdleBuffer() const {
        for (uint32_t i = 0; i < count_; ++i) {
            if (first_[i].state == emu::BufferState::kFree) {
                return true;
            }
        }
        return false;
    }

private:
    friend class TPipe;
    static constexpr int32_t kDepth = depth > 0 ? depth : 1;
    static constexpr HardEvent kFilled = emu::FilledEvent(src, dst);
    static constexpr HardEvent kFreed = emu::FreedEvent(src, dst);
    static constexpr TPosition kPlace = emu::IsUb(src) && !emu::IsUb(dst) ? src : dst;
    static_assert(emu::IsUb(src) || emu::IsUb(dst), "queues of vector cores live in VECIN, VECOUT or VECCALC");

    emu::Buffer& Own(emu::Buffer* buffer, const char* api, emu::Where at) const {
        if (buffer == nullptr || buffer < first_ || buffer >= first_ + count_) {
            emu::QueueMisuse(api, at, "the tensor does not belong to this queue");
        }
        return *buffer;
    }

    emu::Buffer* first_ = nullptr;
    uint32_t count_ = 0;
    uint32_t cursor_ = 0;
    emu::Buffer* ring_[kDepth] = {};
    int32_t head_ = 0;
    int32_t tail_ = 0;
    int32_t used_ = 0;
};

template <TPosition pos, int32_t depth, auto mask = 0>
class TQue : public TQueBind<pos == TPosition::VECIN ? TPosition::GM : pos,
                             pos == TPosition::VECOUT ? TPosition::GM : pos, depth, mask> {};

// Scratch without events: the caller orders its uses.
template <TPosition pos = TPosition::LCM>
class TBuf {
public:
    TBuf() {}

    template <typename T>
    LocalTensor<T> Get(emu::Where at = emu::Where::Here()) {
        return GetWithOffset<T>(Owned("Get", at).length / static_cast<uint32_t>(sizeof(T)), 0, at);
    }
    template <typename T>
    LocalTensor<T> Get(uint32_t len, emu::Where at = emu::Where::Here()) {
        return GetWithOffset<T>(len, 0, at);
    }
    template <typename T>
    LocalTensor<T> GetWithOffset(uint32_t size, uint32_t bufOffset, emu::Where at = emu::Where::Here()) {
        emu::Buffer& buffer = Owned("Get", at);
        const uint64_t bytes = uint64_t{size} * sizeof(T);
        if (bufOffset + bytes > buffer.length) {
            emu::Raise(SIM_FINDING, "UB_BOUNDS", "Get", emu::Here().Block(), at,
                       "bytes [%u, %llu) of a buffer of %u bytes", bufOffset,
                       static_cast<unsigned long long>(bufOffset + bytes), buffer.length);
        }
        return emu::TensorOn<T>(buffer, bufOffset, static_cast<uint32_t>(bytes), pos);
    }

private:
    friend class TPipe;
    static_assert(emu::IsUb(pos), "buffers of vector cores live in VECIN, VECOUT or VECCALC");

    emu::Buffer& Owned(const char* api, emu::Where at) const {
        if (buffer_ == nullptr) {
            emu::QueueMisuse(api, at, "InitBuffer was not called for this buffer");
        }
        return *buffer_;
    }

    emu::Buffer* buffer_ = nullptr;
};

class TPipe {
public:
    explicit TPipe(emu::Where at = emu::Where::Here()) {
        emu::Core& core = emu::Here();
        if (core.livePipes != 0) {
            emu::Raise(
                SIM_FINDING, "UB_OVERFLOW", "TPipe", core.Block(), at,
                "a second TPipe hands out unified buffer from byte 0 again: its buffers overlap the first one's");
        }
        ++core.livePipes;
    }
    ~TPipe() noexcept(false) {
        if (std::uncaught_exceptions() == 0) {
            Destroy();
        } else {
            emu::Here().livePipes -= destroyed_ ? 0 : 1;  // a finding is on its way out: the block is over
        }
    }
    TPipe(const TPipe&) = delete;
    TPipe& operator=(const TPipe&) = delete;

    template <class T>
    bool InitBuffer(T& que, uint8_t num, uint32_t len, emu::Where at = emu::Where::Here()) {
        que.first_ = emu::CutBuffers(num, len, at);
        que.count_ = num;
        que.cursor_ = 0;
        que.head_ = que.tail_ = que.used_ = 0;
        return true;
    }
    template <TPosition pos>
    bool InitBuffer(TBuf<pos>& buf, uint32_t len, emu::Where at = emu::Where::Here()) {
        buf.buffer_ = emu::CutBuffers(1, len, at);
        return true;
    }

    // Waits for every outstanding free event, then starts again at byte 0.
    void Reset(emu::Where at = emu::Where::Here()) {
        emu::WaitAllFreed("TPipe.Reset", at);
        emu::Here().bufferCount = 0;
        emu::Here().ubUsed = 0;
    }

    template <HardEvent evt>
    TEventID AllocEventID(emu::Where at = emu::Where::Here()) {
        return emu::TakeEvent("AllocEventID", evt, at);
    }
    template <HardEvent evt>
    void ReleaseEventID(TEventID id, emu::Where at = emu::Where::Here()) {
        emu::GiveBackEvent("ReleaseEventID", evt, id, at);
    }
    // Looks the next free id up without reserving it.
    TEventID FetchEventID(HardEvent evt, emu::Where at = emu::Where::Here()) {
        return emu::LowestFreeEvent("FetchEventID", evt, at);
    }
    template <HardEvent evt>
    TEventID FetchEventID(emu::Where at = emu::Where::Here()) {
        return FetchEventID(evt, at);
    }

    void Destroy() {
        if (destroyed_) {
            return;
        }
        destroyed_ = true;
        emu::Core& core = emu::Here();
        --core.livePipes;
        emu::WaitAllFreed("TPipe.Destroy", emu::Where::Here());
        core.bufferCount = 0;
        core.ubUsed = 0;
    }

private:
    bool destroyed_ = false;
};

}  // namespace AscendC

#endif  // SMALLQ_EMU_TPIPE_H_
