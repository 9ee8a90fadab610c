// SPDX-License-Identifier: Apache-2.0
// The scratch buffers both paths have in UB, beside their queues.
#ifndef SMALLQ_FLASH_ATTENTION_BUFFERS_H_
#define SMALLQ_FLASH_ATTENTION_BUFFERS_H_

#include "smallq_flash_attention_common.h"

namespace SmallqFlashAttention {

class ScratchBuffers {
public:
    // Asks for the sizes of ub, so that with the queues the planner's sum is the end address.
    __aicore__ inline Scratch Init(AscendC::TPipe* pipe, const UbLayout& ub) {
        Scratch scratch;
        scratch.dots = Take(pipe, dots_, ub.dots);
        scratch.score = Take(pipe, score_, ub.score);
        scratch.probBlocks = Take(pipe, probBlocks_, ub.probBlocks);
        scratch.v32 = Take(pipe, v32_, ub.v32);
        scratch.pvAcc = Take(pipe, pvAcc_, ub.pvAcc);
        if (ub.q32 != 0) {
            scratch.q32 = Take(pipe, q32_, ub.q32);
            scratch.k32 = Take(pipe, k32_, ub.k32);
        }
        scratch.reduced = Take(pipe, reduced_, ub.reduced);
        scratch.rowMaxOld = Take(pipe, stat_[0], ub.stat);
        scratch.rowMaxNew = Take(pipe, stat_[1], ub.stat);
        scratch.rowSum = Take(pipe, stat_[2], ub.stat);
        scratch.alpha = Take(pipe, stat_[3], ub.stat);
        scratch.stepMax = Take(pipe, stat_[4], ub.stat);
        scratch.stepSum = Take(pipe, stat_[5], ub.stat);
        scratch.difference = Take(pipe, stat_[6], ub.stat);
        scratch.maxBlocks = Take(pipe, statBlocks_[0], ub.statBlocks);
        scratch.sumBlocks = Take(pipe, statBlocks_[1], ub.statBlocks);
        scratch.alphaBlocks = Take(pipe, statBlocks_[2], ub.statBlocks);
        return scratch;
    }

private:
    using Buffer = AscendC::TBuf<AscendC::QuePosition::VECCALC>;

    __aicore__ inline LocalTensor<float> Take(AscendC::TPipe* pipe, Buffer& buffer, uint32_t bytes) {
        pipe->InitBuffer(buffer, bytes);
        return buffer.Get<float>();
    }

    Buffer dots_;
    Buffer score_;
    Buffer probBlocks_;
    Buffer v32_;
    Buffer pvAcc_;
    Buffer q32_;
    Buffer k32_;
    Buffer reduced_;
    Buffer stat_[kStatVectors];
    Buffer statBlocks_[kStatBlockVectors];
};

}  // namespace SmallqFlashAttention

#endif  // SMALLQ_FLASH_ATTENTION_BUFFERS_H_
