// SPDX-License-Identifier: Apache-2.0
// Constants of the cost model, for one Ascend 910B3. None of them was measured for this project.
//   [S] read in a source   [D] derived by arithmetic from a source   [A] assumption without a source
// Sources: Ascend910B3.ini of CANN 8.1 (clock, cores, L2); asc-devkit samples (published times on other 910B parts);
// pto-isa cost model a2a3 (partly calibrated on 910B3). Derivations: design/kernel.md 5.1 and 5.2.
#ifndef SMALLQ_EMU_COST_CONSTANTS_H_
#define SMALLQ_EMU_COST_CONSTANTS_H_

#include <cstdint>
#include <cstring>

namespace emu {
namespace cost {

constexpr double kCyclesPerMicrosecond = 1800.0;  // [S] clock of the cores
constexpr double kHbmBytesPerCycle = 729.0;       // [A] 1.6 TB/s peak, [D] 0.82 of it reached; shared by the chip
constexpr double kCoreBytesPerCycle = 67.0;       // [D] ceiling of one core's copies, and its rate from L2
constexpr double kCopyLatency = 230.0;            // [D] cycles from the end of a transfer to its flag
constexpr double kRowCycles = 10.0;               // [A] least cycles of each row of a copy of several rows
constexpr uint64_t kL2Bytes = 201326592;          // [S] l2_size
constexpr uint64_t kL2Line = 512;                 // [D] bytes a copy should be aligned to
constexpr double kLaunchMicroseconds = 6.0;       // [S] host to first core and back, range 2.5 to 9.4
constexpr double kSyncMicroseconds = 2.0;         // [A] SyncAll over all vector cores
constexpr uint32_t kIssueCycles = 10;             // [A] scalar unit, between two instructions it hands out
constexpr uint32_t kQueueDepth = 32;              // [A] instructions a pipe holds before the scalar unit has to wait
// [D] GetValue + GetValue + add + SetValue take 34 cycles in a published sample; the arithmetic is in GetValue's share.
constexpr uint32_t kGetValueCycles = 13;
constexpr uint32_t kSetValueCycles = 8;
constexpr uint32_t kGlobalMissCycles = 230;  // [D] GlobalTensor.GetValue of a line not in the DCache: a copy's latency

// max(slope * repeats, kIssueCycles), and once before a dependent instruction may start: fixed.
struct Instruction {
    const char* api;
    uint32_t slope;
    uint32_t fixed;
};

constexpr Instruction kInstructions[] = {
    {"Add", 1, 24},             // slope [D] 86 cycles of 64 repeats, fixed [S]; also the next four
    {"Sub", 1, 24},             //
    {"Mul", 1, 24},             //
    {"Max", 1, 24},             //
    {"Min", 1, 24},             //
    {"Adds", 1, 26},            // [S]; also the next three
    {"Muls", 1, 26},            //
    {"Maxs", 1, 26},            //
    {"Mins", 1, 26},            //
    {"Abs", 1, 26},             // [A] as Muls
    {"Duplicate", 1, 24},       // [S]
    {"Exp", 2, 31},             // [S]
    {"Ln", 2, 31},              // [A] as Exp
    {"Div", 4, 31},             // [S]
    {"Cast", 2, 32},            // [S] marked uncalibrated there
    {"BlockReduceSum", 1, 38},  // [S] uncalibrated
    {"BlockReduceMax", 1, 31},  // [S] uncalibrated
    {"BlockReduceMin", 1, 31},  // [A] as BlockReduceMax
    {"WholeReduceSum", 7, 46},  // [S]
    {"WholeReduceMax", 7, 32},  // [S]
    {"WholeReduceMin", 7, 32},  // [A] as WholeReduceMax
    {"Brcb", 1, 18},            // slope [A], fixed [S]
    {"MulAddDst", 2, 26},       // slope [S], fixed [A]
    {"Axpy", 2, 26},            // [A] as MulAddDst
    {"ReduceSum", 7, 46},       // [A] as WholeReduceSum: one instruction; its flags and scalar steps are counted apart
    {"", 2, 32},                // [A] anything else
};

inline const Instruction& CostOf(const char* api) {
    const Instruction* entry = kInstructions;
    while (entry->api[0] != '\0' && std::strcmp(entry->api, api) != 0) {
        ++entry;
    }
    return *entry;
}

}  // namespace cost
}  // namespace emu

#endif  // SMALLQ_EMU_COST_CONSTANTS_H_
