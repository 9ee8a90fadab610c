// SPDX-License-Identifier: Apache-2.0
// Moving rows between global memory and UB.
#ifndef SMALLQ_FLASH_ATTENTION_LOAD_H_
#define SMALLQ_FLASH_ATTENTION_LOAD_H_

#include "smallq_flash_attention_common.h"

namespace SmallqFlashAttention {

// Writes: dst, rows x pitch half, columns width .. width rounded up to 16 set to zero. Reads: rows x width dense half.
// Barriers left to the caller: none on the vector pipe; dst belongs to a queue, whose EnQue and DeQue order the copy.
struct LoadRows {
    __aicore__ static inline void Run(const LocalTensor<half>& dst, const GlobalTensor<half>& src, uint32_t rows,
                                      uint32_t width, uint32_t pitch) {
        constexpr uint32_t halfBytes = sizeof(half);
        const uint32_t padded = RoundUp(width, kBlockHalfs);
        const uint32_t filler = padded - width;
        // Rows that fill whole blocks and lie without a gap in UB are one burst; a row is a burst of its own otherwise.
        const bool dense = filler == 0 && pitch == padded;
        AscendC::DataCopyExtParams copy;
        copy.blockCount = static_cast<uint16_t>(dense ? 1 : rows);
        copy.blockLen = (dense ? rows * width : width) * halfBytes;
        copy.srcStride = 0;                                           // bytes: rows are dense in global memory
        copy.dstStride = dense ? 0 : (pitch - padded) / kBlockHalfs;  // blocks
        AscendC::DataCopyPadExtParams<half> pad;
        pad.isPad = filler > 0;
        pad.leftPadding = 0;
        pad.rightPadding = static_cast<uint8_t>(filler);  // elements
        pad.paddingValue = static_cast<half>(0);
        AscendC::DataCopyPad(dst, src, copy, pad);
    }
};

// Reads: src, rows x (width rounded up to 16) half. Writes exactly rows x width half: the filler of a row is dropped,
// so that rows of a neighbouring head in the same 32 bytes of global memory stay untouched.
// Barriers left to the caller: src belongs to a queue, as above.
struct StoreRows {
    __aicore__ static inline void Run(const GlobalTensor<half>& dst, const LocalTensor<half>& src, uint32_t rows,
                                      uint32_t width) {
        AscendC::DataCopyExtParams copy;
        copy.blockCount = static_cast<uint16_t>(rows);
        copy.blockLen = width * static_cast<uint32_t>(sizeof(half));
        copy.srcStride = 0;  // blocks
        copy.dstStride = 0;  // bytes
        AscendC::DataCopyPad(dst, src, copy);
    }
};

}  // namespace SmallqFlashAttention

#endif  // SMALLQ_FLASH_ATTENTION_LOAD_H_
