// SPDX-License-Identifier: Apache-2.0
// The struct the host hands to the kernel. 26 fields of 4 bytes, then 3 of 8: no padding, 128 bytes.
#ifndef SMALLQ_FLASH_ATTENTION_TILING_H_
#define SMALLQ_FLASH_ATTENTION_TILING_H_

#include "exe_graph/runtime/tiling_context.h"
#include "register/op_def_registry.h"
#include "register/tilingdata_base.h"
#include "tiling/platform/platform_ascendc.h"
#include "error/ops_error.h"

namespace optiling {
BEGIN_TILING_DATA_DEF(SmallqFlashAttentionTilingData)
TILING_DATA_FIELD_DEF(uint32_t, numHeads);  // K/V heads
TILING_DATA_FIELD_DEF(uint32_t, qLen);      // q rows of one K/V head: query length times q heads of the group
TILING_DATA_FIELD_DEF(uint32_t, kvLen);
TILING_DATA_FIELD_DEF(uint32_t, hdK);
TILING_DATA_FIELD_DEF(uint32_t, hdV);
TILING_DATA_FIELD_DEF(uint32_t, hdKPad);          // hdK rounded up to 16; keys 3 and 4: columns of a chunk
TILING_DATA_FIELD_DEF(uint32_t, hdVPad);          // the same for hdV
TILING_DATA_FIELD_DEF(uint32_t, kPitch);          // elements from one K row in UB to the next
TILING_DATA_FIELD_DEF(uint32_t, qTile);           // q rows of one item
TILING_DATA_FIELD_DEF(uint32_t, numQTile);        // tiles of one head
TILING_DATA_FIELD_DEF(uint32_t, blockK);          // keys of one block
TILING_DATA_FIELD_DEF(uint32_t, stepBlocks);      // blocks of one softmax step
TILING_DATA_FIELD_DEF(uint32_t, partRows);        // partial output rows of a q row
TILING_DATA_FIELD_DEF(uint32_t, castRows);        // V rows cast to fp32 at a time
TILING_DATA_FIELD_DEF(uint32_t, qGroup);          // q rows of one group of dot products
TILING_DATA_FIELD_DEF(uint32_t, numSplit);        // parts the keys of a head are split into
TILING_DATA_FIELD_DEF(uint32_t, splitLen);        // keys of one part, a multiple of 64
TILING_DATA_FIELD_DEF(uint32_t, usedCores);       // blocks launched
TILING_DATA_FIELD_DEF(uint32_t, itemsPerCore);    // every core takes this many items,
TILING_DATA_FIELD_DEF(uint32_t, itemsTail);       // the first itemsTail cores one more
TILING_DATA_FIELD_DEF(uint32_t, queryLen);        // query length: row r of a K/V head is token r % queryLen
TILING_DATA_FIELD_DEF(uint32_t, causal);          // 1: token i sees keys up to length - queryLen + i
TILING_DATA_FIELD_DEF(uint32_t, headsPerLength);  // K/V heads that share one actual length; 0: all have kvLen keys
TILING_DATA_FIELD_DEF(uint32_t, l2Hint);          // 1: K and V are read once and exceed L2, do not cache them
TILING_DATA_FIELD_DEF(uint32_t, wide);            // 1: bf16
TILING_DATA_FIELD_DEF(float, scale);              // factor of a dot product
TILING_DATA_FIELD_DEF(uint64_t, wsPartOffset);    // user workspace, bytes: partial outputs of a KV split
TILING_DATA_FIELD_DEF(uint64_t, wsStatOffset);    // their maxima and denominators
TILING_DATA_FIELD_DEF(uint64_t, wsRunOffset);     // key 3: running output of each core
END_TILING_DATA_DEF;

REGISTER_TILING_DATA_CLASS(SmallqFlashAttention, SmallqFlashAttentionTilingData)

// Nothing is kept from compile time: the platform is read at every tiling, from the device the launch goes to.
struct SmallqFlashAttentionCompileInfo {};
}  // namespace optiling

#endif  // SMALLQ_FLASH_ATTENTION_TILING_H_
