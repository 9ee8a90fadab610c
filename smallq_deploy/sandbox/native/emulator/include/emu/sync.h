// SPDX-License-Identifier: Apache-2.0
// Order between pipes and cores. Blocks run their instructions in program order, so flags and barriers change no value
// here: they are told to the checkers, which watch their pairing.
#ifndef SMALLQ_EMU_SYNC_H_
#define SMALLQ_EMU_SYNC_H_

#include "core.h"
#include "kernel_type.h"
#include "lanes.h"
#include "platform.h"

namespace emu {

inline void Flag(SyncKind kind, AscendC::HardEvent event, int32_t id, Where at) {
    const char* api = kind == SyncKind::kSet ? "SetFlag" : "WaitFlag";
    Here().Tell(SyncEvent{api, kind, event, id, PIPE_ALL, at});
}

// The launcher gives the counters that cores meet at to mixed launches only.
inline void NeedMixedLaunch(const char* api, Where at) {
    const Core& core = Here();
    const uint64_t key = core.Launch().tilingKey;
    if (kernelTypes.Of(key) == "KERNEL_TYPE_AIV_ONLY") {
        Raise(SIM_HANG, "SYNC_KERNEL_TYPE", api, core.Block(), at,
              "waits for ever: tiling key %llu is KERNEL_TYPE_AIV_ONLY, it needs KERNEL_TYPE_MIX_AIV_1_0",
              static_cast<unsigned long long>(key));
    }
}

// Lowest id of the pair that nobody holds; event ids are a resource of 8 a pair (kernel_tpipe.h).
inline AscendC::TEventID LowestFreeEvent(const char* api, AscendC::HardEvent event, Where at) {
    const Core& core = Here();
    const uint8_t taken = core.eventsTaken[static_cast<size_t>(event)];
    if (taken == 0xff) {
        Raise(SIM_FINDING, "EVENT_ID_EXHAUSTED", api, core.Block(), at, "all %d event ids of %s are in use",
              Core::kEventIds, kHardEventNames[static_cast<size_t>(event)]);
    }
    return static_cast<AscendC::TEventID>(__builtin_ctz(~static_cast<unsigned>(taken)));
}

inline AscendC::TEventID TakeEvent(const char* api, AscendC::HardEvent event, Where at) {
    const AscendC::TEventID id = LowestFreeEvent(api, event, at);
    Here().eventsTaken[static_cast<size_t>(event)] |= static_cast<uint8_t>(1u << id);
    return id;
}

inline void GiveBackEvent(const char* api, AscendC::HardEvent event, AscendC::TEventID id, Where at) {
    Core& core = Here();
    uint8_t& taken = core.eventsTaken[static_cast<size_t>(event)];
    if (id < 0 || id >= Core::kEventIds || ((taken >> id) & 1u) == 0) {
        Raise(SIM_FINDING, "FLAG_MISUSE", api, core.Block(), at, "event id %d of %s was not allocated", id,
              kHardEventNames[static_cast<size_t>(event)]);
    }
    taken = static_cast<uint8_t>(taken & ~(1u << id));
}

}  // namespace emu

namespace AscendC {

template <HardEvent event>
void SetFlag(int32_t eventID, emu::Where at = emu::Where::Here()) {
    emu::Flag(emu::SyncKind::kSet, event, eventID, at);
}

template <HardEvent event>
void WaitFlag(int32_t eventID, emu::Where at = emu::Where::Here()) {
    emu::Flag(emu::SyncKind::kWait, event, eventID, at);
}

template <pipe_t pipe>
void PipeBarrier(emu::Where at = emu::Where::Here()) {
    emu::Here().Tell(emu::SyncEvent{"PipeBarrier", emu::SyncKind::kPipeBarrier, HardEvent::MAX, 0, pipe, at});
}

template <bool isAIVOnly = true>
void SyncAll(emu::Where at = emu::Where::Here()) {
    emu::NeedMixedLaunch("SyncAll", at);
    emu::Core& core = emu::Here();
    core.Tell(emu::SyncEvent{"SyncAll", emu::SyncKind::kSyncAll, HardEvent::MAX, 0, PIPE_ALL, at});
    core.Context().SyncAll(core, at);
}

inline int64_t GetBlockIdx() { return emu::Here().Block(); }
inline int64_t GetBlockNum() { return emu::Here().Launch().blockDim; }
inline int64_t GetSubBlockIdx() { return 0; }

// The mask register, for calls with isSetMask = false.
template <typename T, MaskMode mode = MaskMode::NORMAL>
void SetVectorMask(const uint64_t maskHigh, const uint64_t maskLow) {
    static_assert(mode == MaskMode::NORMAL, "counter mode is set by the calls with an element count");
    emu::Here().maskRegister[0] = maskLow;
    emu::Here().maskRegister[1] = maskHigh;
}
template <typename T, MaskMode mode = MaskMode::NORMAL>
void SetVectorMask(int32_t len) {
    static_assert(mode == MaskMode::NORMAL, "counter mode is set by the calls with an element count");
    const emu::Mask bits = emu::MaskOfCount(static_cast<uint64_t>(len < 0 ? 0 : len));
    SetVectorMask<T, mode>(bits.bits[1], bits.bits[0]);
}
inline void ResetMask() { SetVectorMask<half>(~uint64_t{0}, ~uint64_t{0}); }

}  // namespace AscendC

#define TILING_KEY_IS(k) (emu::Here().Launch().tilingKey == static_cast<uint64_t>(k))

#endif  // SMALLQ_EMU_SYNC_H_
