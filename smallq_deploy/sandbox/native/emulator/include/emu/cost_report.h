// SPDX-License-Identifier: Apache-2.0
// The per-launch report of the cost model, as one line of JSON. Every figure in it is modelled.
#ifndef SMALLQ_EMU_COST_REPORT_H_
#define SMALLQ_EMU_COST_REPORT_H_

#include <cstdio>
#include <string>

#include "cost_model.h"

namespace emu {
namespace cost {

inline std::string Number(double value) {
    char text[40];
    std::snprintf(text, sizeof(text), "%.10g", value);
    return text;
}

// The share of a stretch's time in which each resource was busy; of pipes, the mean over the cores used.
struct Shares {
    double hbm;
    double pipe[kPipes];

    static Shares Of(const Usage& usage, double cycles, double cores) {
        Shares shares{};
        if (cycles > 0) {
            shares.hbm = usage.hbmBytes / kHbmBytesPerCycle / cycles;
            for (uint32_t pipe = 0; pipe < kPipes; ++pipe) {
                shares.pipe[pipe] = usage.busy[pipe] / cycles / cores;
            }
        }
        return shares;
    }

    // HBM where it moves most of what it could; else the pipe that is busiest; latency where nothing is half busy.
    const char* Bound() const {
        const double most = *std::max_element(pipe, pipe + kPipes);
        if (hbm >= 0.7 && hbm >= 0.9 * std::max(pipe[kVector], pipe[kScalar])) {
            return "HBM";
        }
        if (most < 0.5) {
            return "latency";
        }
        return most == pipe[kVector]   ? "vector"
               : most == pipe[kScalar] ? "scalar"
               : most == pipe[kLoad]   ? "copy in of one core"
                                       : "copy out of one core";
    }

    std::string Json() const {
        return "{\"HBM\": " + Number(hbm) + ", \"MTE2\": " + Number(pipe[kLoad]) + ", \"V\": " + Number(pipe[kVector]) +
               ", \"MTE3\": " + Number(pipe[kStore]) + ", \"S\": " + Number(pipe[kScalar]) + "}";
    }
};

inline std::string Report(const LaunchContext& context, const std::vector<Trace>& traces) {
    const SimLaunch& launch = context.Launch();
    const uint32_t cores = std::min(launch.blockDim, launch.coreNumAiv);
    Machine machine(context, traces, cores);
    const std::vector<Usage>& phases = machine.Run();
    Usage all;
    double begin = 0;
    std::string phaseText;
    for (const Usage& phase : phases) {
        const double cycles = phase.end - begin;
        const Shares shares = Shares::Of(phase, cycles, cores);
        phaseText += (phaseText.empty() ? "" : ", ") + std::string("{\"us\": ") +
                     Number(cycles / kCyclesPerMicrosecond) + ", \"bound\": \"" + shares.Bound() + "\"}";
        begin = phase.end;
        all.end = phase.end;
        all.hbmBytes += phase.hbmBytes;
        all.l2Bytes += phase.l2Bytes;
        all.readBytes += phase.readBytes;
        all.writtenBytes += phase.writtenBytes;
        for (uint32_t pipe = 0; pipe < kPipes; ++pipe) {
            all.busy[pipe] += phase.busy[pipe];
        }
    }
    uint64_t instructions = 0;
    for (const Trace& trace : traces) {
        instructions += trace.vectorInstructions;
    }
    const Shares shares = Shares::Of(all, all.end, cores);
    const double kernel = all.end / kCyclesPerMicrosecond;
    const double roofline = machine.DistinctTensorBytes() / kHbmBytesPerCycle / kCyclesPerMicrosecond;
    return "{\"label\": \"modelled, not measured\", \"soc\": \"Ascend910B3\", \"tiling_key\": " +
           std::to_string(launch.tilingKey) + ", \"blocks\": " + std::to_string(launch.blockDim) +
           ", \"cores\": " + std::to_string(cores) + ", \"us\": " + Number(kernel + kLaunchMicroseconds) +
           ", \"kernel_us\": " + Number(kernel) + ", \"launch_us\": " + Number(kLaunchMicroseconds) +
           ", \"cycles\": " + Number(all.end) + ", \"bound\": \"" + shares.Bound() +
           "\", \"bytes_read\": " + Number(all.readBytes) + ", \"bytes_written\": " + Number(all.writtenBytes) +
           ", \"bytes_hbm\": " + Number(all.hbmBytes) + ", \"bytes_l2\": " + Number(all.l2Bytes) +
           ", \"roofline_bytes\": " + Number(machine.DistinctTensorBytes()) + ", \"roofline_us\": " + Number(roofline) +
           ", \"ratio_to_roofline\": " + Number(roofline > 0 ? kernel / roofline : 0) +
           ", \"vector_instructions\": " + std::to_string(instructions) + ", \"busy\": " + shares.Json() +
           ", \"phases\": [" + phaseText + "]}";
}

}  // namespace cost
}  // namespace emu

#endif  // SMALLQ_EMU_COST_REPORT_H_
