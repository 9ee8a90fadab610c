// SPDX-License-Identifier: Apache-2.0
// Moving rows between global memory and UB.
#ifndef SMALLQ_FLASH_ATTENTION_LOAD_H_
#define SMALLQ_FLASH_ATTENTION_LOAD_H_

#include "smallq_flash_attention_common.h"

namespace SmallqFlashAttention {

// Writes: dst, rows x pitch elements, columns width .. width rounded up to a UB block set to zero.
// Reads: rows x width elements, gmPitch elements from one row to the next.
// Barriers left to the caller: none on the vector pipe; dst belongs to a queue, whose EnQue and DeQue order the copy.
struct LoadRows {
    template <typename T>
    __aicore__ static inline void Run(const LocalTensor<T>& dst, const GlobalTensor<T>& src, uint32_t rows,
                                      uint32_t width, uint32_t pitch, uint32_t gmPitch) {
        constexpr uint32_t bytes = sizeof(T);
        constexpr uint32_t perBlock = kUbBlock / bytes;
        const uint32_t padded = RoundUp(width, perBlock);
        const uint32_t filler = padded - width;
        // Rows without a gap on either side that fill whole blocks are one burst; a row is a burst of its own
        // otherwise.
        const bool dense = filler == 0 && pitch == padded && gmPitch == width;
        AscendC::DataCopyExtParams copy;
        copy.blockCount = static_cast<uint16_t>(dense ? 1 : rows);
        copy.blockLen = (dense ? rows * width : width) * bytes;
        copy.srcStride = dense ? 0 : (gmPitch - width) * bytes;    // bytes
        copy.dstStride = dense ? 0 : (pitch - padded) / perBlock;  // blocks
        AscendC::DataCopyPadExtParams<T> pad;
        pad.isPad = filler > 0;
        pad.leftPadding = 0;
        pad.rightPadding = static_cast<uint8_t>(filler);  // elements
        pad.paddingValue = T();
        AscendC::DataCopyPad(dst, src, copy, pad);
    }
};

// Reads: src, rows x pitch elements. Writes exactly rows x width elements, gmPitch elements from one row to the next:
// the filler of a row is dropped, so that rows of a neighbouring head in the same 32 bytes of global memory stay
// untouched. Barriers left to the caller: src belongs to a queue, as above.
struct StoreRows {
    template <typename T>
    __aicore__ static inline void Run(const GlobalTensor<T>& dst, const LocalTensor<T>& src, uint32_t rows,
                                      uint32_t width, uint32_t pitch, uint64_t gmPitch) {
        constexpr uint32_t bytes = sizeof(T);
        constexpr uint32_t perBlock = kUbBlock / bytes;
        AscendC::DataCopyExtParams copy;
        copy.blockCount = static_cast<uint16_t>(rows);
        copy.blockLen = width * bytes;
        copy.srcStride = (pitch - RoundUp(width, perBlock)) / perBlock;     // blocks
        copy.dstStride = static_cast<uint32_t>((gmPitch - width) * bytes);  // bytes
        AscendC::DataCopyPad(dst, src, copy);
    }
};

}  // namespace SmallqFlashAttention

#endif  // SMALLQ_FLASH_ATTENTION_LOAD_H_
