// SPDX-License-Identifier: Apache-2.0
// The first kernel most people write: every multiply-add on the scalar unit, element by element with GetValue and
// SetValue. K and V blocks are double-buffered; the scalar unit has no exp, so that alone runs on the vector unit.
#include "rival.h"

namespace Rival {

constexpr uint32_t kBuffers = 2;

class ScalarDot {
public:
    __aicore__ inline ScalarDot() {}

    __aicore__ inline void Init(const Tensors& gm, const RivalTilingData& shape, AscendC::TPipe* pipe) {
        gm_ = gm;
        shape_ = shape;
        kPitch_ = RoundUp(shape.hdK, kRowAlign);
        vPitch_ = RoundUp(shape.hdV, kRowAlign);
        slots_ = RoundUp(shape.blockK + 1, kBlockFloats);
        blocks_ = CeilDiv(shape.kvLen, shape.blockK);
        pipe->InitBuffer(kBuf_, kBuffers * shape.blockK * kPitch_ * sizeof(half));
        pipe->InitBuffer(vBuf_, kBuffers * shape.blockK * vPitch_ * sizeof(half));
        pipe->InitBuffer(qBuf_, shape.qLen * kPitch_ * sizeof(half));
        pipe->InitBuffer(scoreBuf_, shape.qLen * slots_ * sizeof(float));
        pipe->InitBuffer(accBuf_, shape.qLen * vPitch_ * sizeof(float));
        pipe->InitBuffer(outQue_, 1, shape.qLen * vPitch_ * sizeof(half));
        k_ = kBuf_.Get<half>();
        v_ = vBuf_.Get<half>();
        q_ = qBuf_.Get<half>();
        score_ = scoreBuf_.Get<float>();
        acc_ = accBuf_.Get<float>();
    }

    __aicore__ inline void Process() {
        for (uint32_t head = AscendC::GetBlockIdx(); head < shape_.numHeads; head += AscendC::GetBlockNum()) {
            ProcessHead(head);
        }
    }

private:
    // A buffer is loaded when the scalar unit has read it for the last time. Buffer b uses event id b.
    __aicore__ inline void Load(uint64_t head, uint32_t block) {
        const int32_t buffer = static_cast<int32_t>(block % kBuffers);
        if (block >= kBuffers) {
            AscendC::WaitFlag<HardEvent::S_MTE2>(buffer);
        }
        const uint64_t row = head * shape_.kvLen + uint64_t{block} * shape_.blockK;
        const uint32_t keys = Keys(block);
        LoadRows(k_[buffer * shape_.blockK * kPitch_], gm_.k[row * shape_.hdK], keys, shape_.hdK);
        LoadRows(v_[buffer * shape_.blockK * vPitch_], gm_.v[row * shape_.hdV], keys, shape_.hdV);
        AscendC::SetFlag<HardEvent::MTE2_S>(buffer);
    }

    __aicore__ inline uint32_t Keys(uint32_t block) const {
        const uint32_t left = shape_.kvLen - block * shape_.blockK;
        return left < shape_.blockK ? left : shape_.blockK;
    }

    __aicore__ inline void ProcessHead(uint64_t head) {
        Order<HardEvent::S_MTE2>();  // the head before has read q, k and v
        LoadRows(q_, gm_.q[head * shape_.qLen * shape_.hdK], shape_.qLen, shape_.hdK);
        Load(head, 0);
        for (uint32_t t = 0; t < shape_.qLen; ++t) {
            maximum_[t] = kNoMaximum;
            total_[t] = 0.0f;
            for (uint32_t d = 0; d < vPitch_; ++d) {
                acc_.SetValue(t * vPitch_ + d, 0.0f);
            }
        }
        for (uint32_t block = 0; block < blocks_; ++block) {
            if (block + 1 < blocks_) {
                Load(head, block + 1);
            }
            const int32_t buffer = static_cast<int32_t>(block % kBuffers);
            AscendC::WaitFlag<HardEvent::MTE2_S>(buffer);
            for (uint32_t t = 0; t < shape_.qLen; ++t) {
                ProcessRow(t, k_[buffer * shape_.blockK * kPitch_], v_[buffer * shape_.blockK * vPitch_], Keys(block));
            }
            if (block + kBuffers < blocks_) {
                AscendC::SetFlag<HardEvent::S_MTE2>(buffer);
            }
        }
        Store(head);
    }

    __aicore__ inline void ProcessRow(uint32_t t, const LocalTensor<half>& k, const LocalTensor<half>& v,
                                      uint32_t keys) {
        const LocalTensor<float> score = score_[t * slots_];
        const LocalTensor<float> acc = acc_[t * vPitch_];
        float maximum = maximum_[t];
        for (uint32_t i = 0; i < keys; ++i) {
            float sum = 0.0f;
            for (uint32_t d = 0; d < shape_.hdK; ++d) {
                sum +=
                    static_cast<float>(q_.GetValue(t * kPitch_ + d)) * static_cast<float>(k.GetValue(i * kPitch_ + d));
            }
            sum *= shape_.scale;
            score.SetValue(i, sum);
            maximum = sum > maximum ? sum : maximum;
        }
        Exponentials(score, keys, maximum_[t], maximum);
        const float alpha = score.GetValue(keys);
        float total = total_[t] * alpha;
        for (uint32_t d = 0; d < shape_.hdV; ++d) {
            acc.SetValue(d, acc.GetValue(d) * alpha);
        }
        for (uint32_t i = 0; i < keys; ++i) {
            const float p = score.GetValue(i);
            total += p;
            for (uint32_t d = 0; d < shape_.hdV; ++d) {
                acc.SetValue(d, acc.GetValue(d) + p * static_cast<float>(v.GetValue(i * vPitch_ + d)));
            }
        }
        maximum_[t] = maximum;
        total_[t] = total;
    }

    __aicore__ inline void Store(uint64_t head) {
        for (uint32_t t = 0; t < shape_.qLen; ++t) {
            for (uint32_t d = 0; d < shape_.hdV; ++d) {
                acc_.SetValue(t * vPitch_ + d, acc_.GetValue(t * vPitch_ + d) / total_[t]);
            }
        }
        LocalTensor<half> out = outQue_.AllocTensor<half>();
        Order<HardEvent::S_V>();
        AscendC::Cast(out, acc_, AscendC::RoundMode::CAST_RINT, shape_.qLen * vPitch_);
        Order<HardEvent::V_S>();  // the next head's scalar writes to acc
        outQue_.EnQue(out);
        out = outQue_.DeQue<half>();
        StoreRows(gm_.o[head * shape_.qLen * shape_.hdV], out, shape_.qLen, shape_.hdV);
        outQue_.FreeTensor(out);
    }

    Tensors gm_;
    RivalTilingData shape_;
    uint32_t kPitch_ = 0;
    uint32_t vPitch_ = 0;
    uint32_t slots_ = 0;  // scores of one row
    uint32_t blocks_ = 0;
    AscendC::TBuf<AscendC::TPosition::VECIN> kBuf_;
    AscendC::TBuf<AscendC::TPosition::VECIN> vBuf_;
    AscendC::TBuf<AscendC::TPosition::VECIN> qBuf_;
    AscendC::TBuf<AscendC::TPosition::VECCALC> scoreBuf_;
    AscendC::TBuf<AscendC::TPosition::VECCALC> accBuf_;
    AscendC::TQue<AscendC::TPosition::VECOUT, 1> outQue_;
    LocalTensor<half> k_;       // [2][blockK][kPitch]
    LocalTensor<half> v_;       // [2][blockK][vPitch]
    LocalTensor<half> q_;       // [qLen][kPitch]
    LocalTensor<float> score_;  // [qLen][slots]
    LocalTensor<float> acc_;    // [qLen][vPitch]
    float maximum_[kMaxRows];   // of each row's scores so far
    float total_[kMaxRows];     // and the denominator
};

}  // namespace Rival

KERNEL_TASK_TYPE_DEFAULT(KERNEL_TYPE_AIV_ONLY);

extern "C" __global__ __aicore__ void scalar_dot(GM_ADDR q, GM_ADDR k, GM_ADDR v, GM_ADDR o, GM_ADDR workspace,
                                                 GM_ADDR tiling) {
    (void)workspace;
    GET_TILING_DATA(shape, tiling);
    Rival::Tensors gm;
    gm.Init(q, k, v, o, shape);
    AscendC::TPipe pipe;
    Rival::ScalarDot kernel;
    kernel.Init(gm, shape, &pipe);
    kernel.Process();
}
