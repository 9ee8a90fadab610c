// SPDX-License-Identifier: Apache-2.0
// Which part of the work a core does: its run of items, and what each of them covers.
#ifndef SMALLQ_FLASH_ATTENTION_ITEMS_H_
#define SMALLQ_FLASH_ATTENTION_ITEMS_H_

#include "kernel_tiling/kernel_tiling.h"
#include "smallq_flash_attention_common.h"

namespace SmallqFlashAttention {

// Some q rows of one K/V head against some of its keys.
struct Item {
    uint64_t head;      // K/V head
    uint64_t row;       // first q row, counted over all heads
    uint32_t firstRow;  // the same, counted in its head
    uint32_t rows;
    uint32_t split;     // which part of the keys
    uint32_t firstKey;  // of that part
    uint32_t keys;      // of that part; 0 where the head has fewer keys than the cache has room
    uint32_t length;    // keys of the head
};

// Items are numbered head, then q tile, then split; a core takes a contiguous run.
class ItemList {
public:
    // lengths is the address of the keys each head or batch has, int64; unused when the tiling names none.
    __aicore__ inline void Init(const SmallqFlashAttentionTilingData* tiling, GM_ADDR lengths) {
        tiling_ = tiling;
        if (tiling->headsPerLength != 0) {
            lengths_.SetGlobalBuffer((__gm__ int64_t*)lengths, tiling->numHeads / tiling->headsPerLength);
        }
        const uint64_t core = AscendC::GetBlockIdx();
        const uint64_t extra = tiling->itemsTail;
        first_ = core * tiling->itemsPerCore + (core < extra ? core : extra);
        count_ = tiling->itemsPerCore + (core < extra ? 1 : 0);
    }

    __aicore__ inline uint64_t Count() const { return count_; }

    __aicore__ inline Item Get(uint64_t index) const {
        const uint64_t number = first_ + index;
        const uint64_t tile = number / tiling_->numSplit;
        Item item;
        item.split = static_cast<uint32_t>(number % tiling_->numSplit);
        item.head = tile / tiling_->numQTile;
        item.firstRow = static_cast<uint32_t>(tile % tiling_->numQTile) * tiling_->qTile;
        item.rows = Min(tiling_->qTile, tiling_->qLen - item.firstRow);
        item.row = item.head * tiling_->qLen + item.firstRow;
        item.length = Length(item.head);
        item.firstKey = item.split * tiling_->splitLen;
        item.keys = item.length > item.firstKey ? Min(tiling_->splitLen, item.length - item.firstKey) : 0;
        return item;
    }

private:
    // Keys of a head; a number out of range counts as the nearest one in range. The tensor is an input, nobody writes
    // it during the launch, so a scalar read is safe.
    __aicore__ inline uint32_t Length(uint64_t head) const {
        if (tiling_->headsPerLength == 0) {
            return tiling_->kvLen;
        }
        const int64_t given = lengths_.GetValue(head / tiling_->headsPerLength);
        const int64_t most = tiling_->kvLen;
        return static_cast<uint32_t>(given < 0 ? 0 : (given > most ? most : given));
    }

    const SmallqFlashAttentionTilingData* tiling_ = nullptr;
    GlobalTensor<int64_t> lengths_;
    uint64_t first_ = 0;
    uint64_t count_ = 0;
};

// The constant part of a tile's shape, and the part that changes with the item.
struct TileShapes {
    __aicore__ static inline TileShape Make(const SmallqFlashAttentionTilingData* tiling, bool chunked, bool wide) {
        TileShape shape;
        shape.plan.qTile = tiling->qTile;
        shape.plan.blockK = tiling->blockK;
        shape.plan.stepBlocks = tiling->stepBlocks;
        shape.plan.partRows = tiling->partRows;
        shape.plan.castRows = tiling->castRows;
        shape.plan.qGroup = tiling->qGroup;
        shape.plan.hdKPad = tiling->hdKPad;
        shape.plan.hdVPad = tiling->hdVPad;
        shape.plan.kPitch = tiling->kPitch;
        shape.plan.chunked = chunked ? 1 : 0;
        shape.plan.wide = wide ? 1 : 0;
        shape.columns = BlockColumns(shape.plan);
        shape.scorePitch = ScorePitch(shape.plan);
        shape.scale = tiling->scale;
        shape.rows = 0;
        shape.tail.on = tiling->causal != 0;
        shape.tail.queryLen = tiling->queryLen;
        shape.tail.firstRow = shape.tail.firstKey = shape.tail.length = 0;
        return shape;
    }

    __aicore__ static inline void Set(TileShape& shape, const Item& item) {
        shape.rows = item.rows;
        shape.tail.firstRow = item.firstRow;
        shape.tail.firstKey = item.firstKey;
        shape.tail.length = item.length;
    }
};

}  // namespace SmallqFlashAttention

#endif  // SMALLQ_FLASH_ATTENTION_ITEMS_H_
