// SPDX-License-Identifier: Apache-2.0
// Pairing of SetFlag and WaitFlag, queues' own flags included. Always subscribed: an unpaired wait would hang the core.
// The order between pipes that the flags establish is not checked here.
#ifndef SMALLQ_EMU_CHECK_FLAGS_H_
#define SMALLQ_EMU_CHECK_FLAGS_H_

#include "core.h"

namespace emu {

class FlagChecker final : public Checker {
public:
    void OnSync(const Core& core, const SyncEvent& event) override {
        if (event.kind != SyncKind::kSet && event.kind != SyncKind::kWait) {
            return;
        }
        const size_t pair = static_cast<size_t>(event.event);
        if (event.id < 0 || event.id >= Core::kEventIds) {
            Raise(SIM_FINDING, "FLAG_MISUSE", event.api, core.Block(), event.at, "event id %d of %s is not in 0..7",
                  event.id, kHardEventNames[pair]);
        }
        const uint8_t bit = static_cast<uint8_t>(1u << event.id);
        if (event.kind == SyncKind::kSet) {
            if ((set_[pair] & bit) != 0) {
                Raise(SIM_FINDING, "FLAG_SET_TWICE", event.api, core.Block(), event.at,
                      "%s id %d is set again before anything waited for it", kHardEventNames[pair], event.id);
            }
            set_[pair] = static_cast<uint8_t>(set_[pair] | bit);
            setAt_[pair][event.id] = event.at;
            return;
        }
        if ((set_[pair] & bit) == 0) {
            Raise(SIM_HANG, "FLAG_WAIT_UNSET", event.api, core.Block(), event.at,
                  "%s id %d was never set: the core would wait for ever", kHardEventNames[pair], event.id);
        }
        set_[pair] = static_cast<uint8_t>(set_[pair] & ~bit);
    }

    void OnKernelEnd(const Core& core) override {
        for (size_t pair = 0; pair < static_cast<size_t>(AscendC::HardEvent::MAX); ++pair) {
            for (int id = 0; id < Core::kEventIds; ++id) {
                if (((set_[pair] >> id) & 1u) != 0) {
                    Raise(SIM_FINDING, "FLAG_LEFT_SET", "SetFlag", core.Block(), setAt_[pair][id],
                          "%s id %d is still set when the kernel ends: nothing waited for it", kHardEventNames[pair],
                          id);
                }
            }
        }
    }

private:
    uint8_t set_[static_cast<size_t>(AscendC::HardEvent::MAX)] = {};
    Where setAt_[static_cast<size_t>(AscendC::HardEvent::MAX)][Core::kEventIds] = {};
};

}  // namespace emu

#endif  // SMALLQ_EMU_CHECK_FLAGS_H_
