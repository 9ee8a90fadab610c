// SPDX-License-Identifier: Apache-2.0
// The usual first vector version: one key row at a time. Cast the K row, multiply with each q row, ReduceSum, read the
// sum with the scalar unit; later cast the V row and add it with a scalar probability (Axpy). K and V blocks are
// double-buffered and a cast serves all q rows.
// With ROW_DOT_TUNED the same design with what its form permits: WholeReduceSum, which does not wait for the scalar
// unit on every call, and the cast of a V row beside the Axpy of the row before it.
#include "rival.h"

namespace Rival {

constexpr uint32_t kDepth = 2;
constexpr int32_t kBlocksOfRepeat = 8;

class RowDot {
public:
    __aicore__ inline RowDot() {}

    __aicore__ inline void Init(const Tensors& gm, const RivalTilingData& shape, AscendC::TPipe* pipe) {
        gm_ = gm;
        shape_ = shape;
        kPitch_ = RoundUp(shape.hdK, kRowAlign);
        vPitch_ = RoundUp(shape.hdV, kRowAlign);
        productPitch_ = RoundUp(shape.hdK, kRepeatFloats);
        parts_ = productPitch_ / kRepeatFloats;
        partPitch_ = RoundUp(parts_, kBlockFloats);
        slots_ = RoundUp(shape.blockK + 1, kBlockFloats);
        blocks_ = CeilDiv(shape.kvLen, shape.blockK);
        pipe->InitBuffer(kQue_, kDepth, shape.blockK * kPitch_ * sizeof(half));
        pipe->InitBuffer(vQue_, kDepth, shape.blockK * vPitch_ * sizeof(half));
        pipe->InitBuffer(qQue_, 1, shape.qLen * kPitch_ * sizeof(half));
        pipe->InitBuffer(outQue_, 1, shape.qLen * vPitch_ * sizeof(half));
        pipe->InitBuffer(q32Buf_, shape.qLen * kPitch_ * sizeof(float));
        pipe->InitBuffer(rowBuf_, (kPitch_ > 2 * vPitch_ ? kPitch_ : 2 * vPitch_) * sizeof(float));
        pipe->InitBuffer(productBuf_, shape.qLen * productPitch_ * sizeof(float));
        pipe->InitBuffer(partBuf_, shape.qLen * partPitch_ * sizeof(float));
        pipe->InitBuffer(scoreBuf_, shape.qLen * slots_ * sizeof(float));
        pipe->InitBuffer(accBuf_, shape.qLen * vPitch_ * sizeof(float));
        q32_ = q32Buf_.Get<float>();
        row_ = rowBuf_.Get<float>();
        product_ = productBuf_.Get<float>();
        part_ = partBuf_.Get<float>();
        score_ = scoreBuf_.Get<float>();
        acc_ = accBuf_.Get<float>();
        // The columns between the end of a product and the end of its last repeat stay 0.
        AscendC::Duplicate<float>(product_, 0.0f, static_cast<int32_t>(shape.qLen * productPitch_));
        AscendC::PipeBarrier<PIPE_V>();
    }

    __aicore__ inline void Process() {
        for (uint32_t head = AscendC::GetBlockIdx(); head < shape_.numHeads; head += AscendC::GetBlockNum()) {
            ProcessHead(head);
        }
    }

private:
    using InQue = AscendC::TQue<AscendC::TPosition::VECIN, kDepth>;

    __aicore__ inline uint32_t Keys(uint32_t block) const {
        const uint32_t left = shape_.kvLen - block * shape_.blockK;
        return left < shape_.blockK ? left : shape_.blockK;
    }

    __aicore__ inline void Load(InQue& que, const GlobalTensor<half>& gm, uint64_t head, uint32_t block,
                                uint32_t width) {
        LocalTensor<half> rows = que.AllocTensor<half>();
        const uint64_t row = head * shape_.kvLen + uint64_t{block} * shape_.blockK;
        LoadRows(rows, gm[row * width], Keys(block), width);
        que.EnQue(rows);
    }

    __aicore__ inline void ProcessHead(uint64_t head) {
        LocalTensor<half> q = qQue_.AllocTensor<half>();
        LoadRows(q, gm_.q[head * shape_.qLen * shape_.hdK], shape_.qLen, shape_.hdK);
        qQue_.EnQue(q);
        Load(kQue_, gm_.k, head, 0, shape_.hdK);
        Load(vQue_, gm_.v, head, 0, shape_.hdV);
        AscendC::PipeBarrier<PIPE_V>();  // the head before has read q32 and acc
        AscendC::Duplicate<float>(acc_, 0.0f, static_cast<int32_t>(shape_.qLen * vPitch_));
        q = qQue_.DeQue<half>();
        AscendC::Cast(q32_, q, AscendC::RoundMode::CAST_NONE, shape_.qLen * kPitch_);
        AscendC::PipeBarrier<PIPE_V>();
        qQue_.FreeTensor(q);
        for (uint32_t t = 0; t < shape_.qLen; ++t) {
            maximum_[t] = kNoMaximum;
            total_[t] = 0.0f;
        }
        for (uint32_t block = 0; block < blocks_; ++block) {
            if (block + 1 < blocks_) {
                Load(kQue_, gm_.k, head, block + 1, shape_.hdK);
                Load(vQue_, gm_.v, head, block + 1, shape_.hdV);
            }
            LocalTensor<half> k = kQue_.DeQue<half>();
            Scores(k, Keys(block));
            kQue_.FreeTensor(k);
            for (uint32_t t = 0; t < shape_.qLen; ++t) {
                Softmax(t, Keys(block));
            }
            LocalTensor<half> v = vQue_.DeQue<half>();
            Accumulate(v, Keys(block));
            vQue_.FreeTensor(v);
        }
        Store(head);
    }

    // score [qLen][slots], and in blockMaximum_ the maximum of each row including this block.
    __aicore__ inline void Scores(const LocalTensor<half>& k, uint32_t keys) {
        for (uint32_t t = 0; t < shape_.qLen; ++t) {
            blockMaximum_[t] = maximum_[t];
        }
        for (uint32_t i = 0; i < keys; ++i) {
            AscendC::Cast(row_, k[i * kPitch_], AscendC::RoundMode::CAST_NONE, kPitch_);
            AscendC::PipeBarrier<PIPE_V>();
            for (uint32_t t = 0; t < shape_.qLen; ++t) {
                AscendC::Mul<float>(product_[t * productPitch_], q32_[t * kPitch_], row_,
                                    static_cast<int32_t>(kPitch_));
            }
            AscendC::PipeBarrier<PIPE_V>();
            for (uint32_t t = 0; t < shape_.qLen; ++t) {
                Reduce(t);
            }
            WaitForSums();
            for (uint32_t t = 0; t < shape_.qLen; ++t) {
                const float sum = Sum(t) * shape_.scale;
                score_.SetValue(t * slots_ + i, sum);
                blockMaximum_[t] = sum > blockMaximum_[t] ? sum : blockMaximum_[t];
            }
            Order<HardEvent::S_V>();  // the next row's sums overwrite these
        }
    }

#ifdef ROW_DOT_TUNED
    static constexpr uint32_t kRows32 = 2;  // the cast of a V row overlaps the Axpy of the row before it

    // The sums of a product's repeats stay in UB until the scalar unit adds them: one wait for all q rows.
    __aicore__ inline void Reduce(uint32_t t) {
        AscendC::WholeReduceSum<float>(part_[t * partPitch_], product_[t * productPitch_],
                                       static_cast<int32_t>(kRepeatFloats), static_cast<int32_t>(parts_), 1, 1,
                                       kBlocksOfRepeat);
    }

    __aicore__ inline void WaitForSums() { Order<HardEvent::V_S>(); }

    __aicore__ inline float Sum(uint32_t t) const {
        float sum = part_.GetValue(t * partPitch_);
        for (uint32_t part = 1; part < parts_; ++part) {
            sum += part_.GetValue(t * partPitch_ + part);
        }
        return sum;
    }
#else
    static constexpr uint32_t kRows32 = 1;

    __aicore__ inline void Reduce(uint32_t t) {
        AscendC::ReduceSum<float>(part_[t * partPitch_], product_[t * productPitch_], product_[t * productPitch_],
                                  static_cast<int32_t>(shape_.hdK));
    }

    __aicore__ inline void WaitForSums() {}  // ReduceSum does

    __aicore__ inline float Sum(uint32_t t) const { return part_.GetValue(t * partPitch_); }
#endif

    // Scores to probabilities, relative to the new maximum; what was summed before is scaled to it.
    __aicore__ inline void Softmax(uint32_t t, uint32_t keys) {
        const LocalTensor<float> score = score_[t * slots_];
        Exponentials(score, keys, maximum_[t], blockMaximum_[t]);
        const float alpha = score.GetValue(keys);
        maximum_[t] = blockMaximum_[t];
        total_[t] *= alpha;
        AscendC::Muls<float>(acc_[t * vPitch_], acc_[t * vPitch_], alpha, static_cast<int32_t>(vPitch_));
    }

    __aicore__ inline void Accumulate(const LocalTensor<half>& v, uint32_t keys) {
        for (uint32_t i = 0; i < keys; ++i) {
            const LocalTensor<float> row = row_[i % kRows32 * vPitch_];
            AscendC::Cast(row, v[i * vPitch_], AscendC::RoundMode::CAST_NONE, vPitch_);
            AscendC::PipeBarrier<PIPE_V>();
            for (uint32_t t = 0; t < shape_.qLen; ++t) {
                const float p = score_.GetValue(t * slots_ + i);
                total_[t] += p;
                AscendC::Axpy<float, float>(acc_[t * vPitch_], row, p, static_cast<int32_t>(vPitch_));
            }
            if (kRows32 == 1 || i + 1 == keys) {
                AscendC::PipeBarrier<PIPE_V>();  // the next row is cast to the same place
            }
        }
    }

    __aicore__ inline void Store(uint64_t head) {
        LocalTensor<half> out = outQue_.AllocTensor<half>();
        AscendC::PipeBarrier<PIPE_V>();
        for (uint32_t t = 0; t < shape_.qLen; ++t) {
            AscendC::Muls<float>(acc_[t * vPitch_], acc_[t * vPitch_], 1.0f / total_[t], static_cast<int32_t>(vPitch_));
        }
        AscendC::PipeBarrier<PIPE_V>();
        AscendC::Cast(out, acc_, AscendC::RoundMode::CAST_RINT, shape_.qLen * vPitch_);
        outQue_.EnQue(out);
        out = outQue_.DeQue<half>();
        StoreRows(gm_.o[head * shape_.qLen * shape_.hdV], out, shape_.qLen, shape_.hdV);
        outQue_.FreeTensor(out);
    }

    Tensors gm_;
    RivalTilingData shape_;
    uint32_t kPitch_ = 0;
    uint32_t vPitch_ = 0;
    uint32_t productPitch_ = 0;
    uint32_t parts_ = 0;  // repeats of a product, each reduced to one sum
    uint32_t partPitch_ = 0;
    uint32_t slots_ = 0;  // scores of one row
    uint32_t blocks_ = 0;
    InQue kQue_;
    InQue vQue_;
    AscendC::TQue<AscendC::TPosition::VECIN, 1> qQue_;
    AscendC::TQue<AscendC::TPosition::VECOUT, 1> outQue_;
    AscendC::TBuf<AscendC::TPosition::VECCALC> q32Buf_;
    AscendC::TBuf<AscendC::TPosition::VECCALC> rowBuf_;
    AscendC::TBuf<AscendC::TPosition::VECCALC> productBuf_;
    AscendC::TBuf<AscendC::TPosition::VECCALC> partBuf_;
    AscendC::TBuf<AscendC::TPosition::VECCALC> scoreBuf_;
    AscendC::TBuf<AscendC::TPosition::VECCALC> accBuf_;
    LocalTensor<float> q32_;      // [qLen][kPitch]
    LocalTensor<float> row_;      // one K row, or two V rows in turn
    LocalTensor<float> product_;  // [qLen][productPitch]
    LocalTensor<float> part_;     // [qLen][partPitch]
    LocalTensor<float> score_;    // [qLen][slots]
    LocalTensor<float> acc_;      // [qLen][vPitch]
    float maximum_[kMaxRows];
    float blockMaximum_[kMaxRows];
    float total_[kMaxRows];  // denominators
};

}  // namespace Rival

KERNEL_TASK_TYPE_DEFAULT(KERNEL_TYPE_AIV_ONLY);

extern "C" __global__ __aicore__ void row_dot(GM_ADDR q, GM_ADDR k, GM_ADDR v, GM_ADDR o, GM_ADDR workspace,
                                              GM_ADDR tiling) {
    (void)workspace;
    GET_TILING_DATA(shape, tiling);
    Rival::Tensors gm;
    gm.Init(q, k, v, o, shape);
    AscendC::TPipe pipe;
    Rival::RowDot kernel;
    kernel.Init(gm, shape, &pipe);
    kernel.Process();
}
