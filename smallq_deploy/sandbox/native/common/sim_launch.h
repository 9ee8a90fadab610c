// SPDX-License-Identifier: Apache-2.0
// C ABI between the simulated runtime (libascendcl, libnnopbase) and a simulated kernel object.
//
// In the sandbox a kernel "<OpType>_<md5>.o" is a host shared object that exports one C symbol,
// SIM_KERNEL_LAUNCH_SYMBOL, of type SimKernelLaunchFn. The runtime fills a SimLaunch and calls it; the emulator
// compiled into the object runs every block and reports what real hardware would have punished.
#ifndef SMALLQ_SIM_LAUNCH_H_
#define SMALLQ_SIM_LAUNCH_H_

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define SIM_LAUNCH_ABI 1u
#define SIM_KERNEL_LAUNCH_SYMBOL "smallq_sim_kernel_launch"

// One live device allocation. shadow has one byte for each byte of the allocation: 0 = never written, 1 = written.
typedef struct SimGmRegion {
    uint64_t base;
    uint64_t size;
    uint8_t* shadow;
} SimGmRegion;

enum SimStatus {
    SIM_OK = 0,
    SIM_FINDING = 1,    // strict mode found an error; message holds "CODE: text" lines, one a finding
    SIM_HANG = 2,       // would hang on hardware (SyncAll never completed, queue never filled)
    SIM_BAD_LAUNCH = 3  // wrong ABI number, argument count, more blocks than cores with SyncAll ...
};

// Report of the cost model: one line of JSON without a line feed, every figure modelled. Fields: label, soc,
// tiling_key, blocks, cores, us (kernel_us + launch_us), cycles, bound, bytes_read, bytes_written, bytes_hbm, bytes_l2,
// roofline_bytes (each tensor byte once), roofline_us, ratio_to_roofline (kernel_us / roofline_us),
// vector_instructions, busy (share of the time, by resource), phases (us and bound of each stretch between SyncAlls).
typedef struct SimReport {
    uint32_t capacity;  // in: bytes at text; 4096 is enough for 40 phases
    uint32_t length;    // out: bytes of the whole report without the NUL; 0 if the launch failed
    char* text;         // out: NUL-terminated; empty if the launch failed or the report does not fit
} SimReport;

typedef struct SimLaunch {
    uint32_t abi;       // SIM_LAUNCH_ABI
    uint32_t blockDim;  // blocks to run, one a vector core
    uint64_t tilingKey;
    const void* tilingData;  // host copy of the tiling struct
    uint64_t tilingSize;     // bytes
    const uint64_t* gmArgs;  // device addresses of inputs then outputs, in definition order; 0 for an absent one
    uint32_t gmArgCount;
    uint64_t workspace;          // device address of the *user* workspace (after the system part), 0 if none
    const SimGmRegion* regions;  // sorted by base
    uint32_t regionCount;
    uint32_t coreNumAiv;  // vector cores of the simulated SoC (40 on Ascend 910B3)
    uint64_t ubSize;      // bytes of unified buffer a kernel may use (196352 on Ascend 910B3)
    uint32_t threads;     // blocks run at once; 0 = host cores
    uint32_t strict;      // 1 = check everything, 0 = arithmetic only
    char* message;        // out: NUL-terminated text, may be empty
    uint32_t messageCapacity;
    uint32_t reserved;
    SimReport* report;  // NULL: the launch is not traced
} SimLaunch;

typedef int (*SimKernelLaunchFn)(SimLaunch* launch);

#ifdef __cplusplus
}
#endif

#endif  // SMALLQ_SIM_LAUNCH_H_
