// SPDX-License-Identifier: Apache-2.0
// Small kernels, each with one mistake that the tiling switches on; switched off, the same lines are correct. The
// tiling names the kernel. Input and output are 256 halfs (numbers and an unwritten buffer), the workspace 1024 floats
// that nobody has written.
#include "kernel_operator.h"

#include <cstring>
#include <stdexcept>

using namespace AscendC;

struct Request {
    char name[32];
    uint32_t broken;
    uint32_t part;  // halfs a block writes, for the kernels that run on several blocks
};

constexpr uint32_t kCount = 256;

struct World {
    GlobalTensor<half> in, out;
    GlobalTensor<float> work;
    bool bad;
    uint32_t part;
};

// ----- unified buffer -----

__aicore__ void UbTooLarge(World& w) {
    TPipe pipe;
    TBuf<QuePosition::VECCALC> first, second;
    pipe.InitBuffer(first, 180 * 1024);
    pipe.InitBuffer(second, w.bad ? 16 * 1024 : 8 * 1024);
}

__aicore__ void SecondPipe(World& w) {
    TPipe pipe;
    TBuf<QuePosition::VECCALC> first, second;
    pipe.InitBuffer(first, 1024);
    if (!w.bad) {
        pipe.Destroy();
    }
    TPipe other;
    other.InitBuffer(second, 1024);
}

__aicore__ void BufferCutTooLong(World& w) {
    TPipe pipe;
    TBuf<QuePosition::VECCALC> buf;
    pipe.InitBuffer(buf, 1024);
    Duplicate(buf.Get<float>(w.bad ? 257 : 256), 0.0f, 64);
}

// ----- operands: a and b are 1024 floats, all ones and all twos -----

template <class Body>
__aicore__ void OnFloats(World& w, Body body) {
    TPipe pipe;
    TBuf<QuePosition::VECCALC> buf;
    TQue<QuePosition::VECOUT, 1> outQue;
    pipe.InitBuffer(buf, 4096);
    pipe.InitBuffer(outQue, 1, 4096);
    LocalTensor<float> a = buf.Get<float>();
    LocalTensor<float> b = outQue.AllocTensor<float>();
    Duplicate(a, 1.0f, 1024);
    Duplicate(b, 2.0f, 1024);
    PipeBarrier<PIPE_V>();
    body(a, b, w.bad);
    outQue.EnQue(b);
    b = outQue.DeQue<float>();
    DataCopy(w.work, b, 64);
    outQue.FreeTensor(b);
}

using Floats = LocalTensor<float>;

__aicore__ void RepeatsPastTheEnd(World& w) {
    OnFloats(w, [](Floats& a, Floats& b, bool bad) {
        Adds(b, a, 1.0f, (uint64_t)64, (uint8_t)(bad ? 17 : 16), UnaryRepeatParams(1, 1, 8, 8));
    });
}
__aicore__ void TensorTooShort(World& w) {
    OnFloats(w, [](Floats& a, Floats& b, bool bad) { Adds(b[bad ? 968 : 960], a, 1.0f, 64); });
}
__aicore__ void MisalignedSource(World& w) {
    OnFloats(w, [](Floats& a, Floats& b, bool bad) { Adds(b, a[bad ? 4 : 8], 1.0f, 64); });
}
__aicore__ void MaskTooLong(World& w) {
    OnFloats(
        w, [](Floats& a, Floats& b, bool bad) { Adds(b, a, 1.0f, (uint64_t)(bad ? 65 : 64), 1, UnaryRepeatParams()); });
}
__aicore__ void MaskEmpty(World& w) {
    OnFloats(w, [](Floats& a, Floats& b, bool bad) {
        uint64_t mask[2] = {bad ? uint64_t{0} : uint64_t{3}, ~uint64_t{0}};
        Adds(b, a, 1.0f, mask, 1, UnaryRepeatParams());
    });
}
__aicore__ void TooManyRepeats(World& w) {
    OnFloats(w, [](Floats& a, Floats& b, bool bad) { BlockReduceSum<float>(b, a, bad ? 256 : 16, 64, 1, 1, 8); });
}
__aicore__ void BlockStrideOfDestinationZero(World& w) {
    OnFloats(w, [](Floats& a, Floats& b, bool bad) {
        Adds(b, a, 1.0f, (uint64_t)64, 1, UnaryRepeatParams((uint16_t)(bad ? 0 : 1), 1, 8, 8));
    });
}
__aicore__ void StrideTooLong(World& w) {
    OnFloats(w, [](Floats& a, Floats& b, bool bad) { WholeReduceSum<float>(b, a, 8, 1, 1, bad ? 65536 : 1, 8); });
}
__aicore__ void OverlapByOneBlock(World& w) {
    OnFloats(w, [](Floats& a, Floats& b, bool bad) { Add(b, b[bad ? 8 : 0], a, 64); });
}
__aicore__ void MultiplyAddOntoItsSource(World& w) {
    OnFloats(w, [](Floats& a, Floats& b, bool bad) { MulAddDst(b, bad ? b : a, a, 64); });
}

// ----- copies -----

__aicore__ void TooManyRows(World& w) {
    TPipe pipe;
    TBuf<QuePosition::VECIN> buf;
    pipe.InitBuffer(buf, 160 * 1024);
    DataCopyPad(buf.Get<half>(), w.in, DataCopyExtParams((uint16_t)(w.bad ? 4096 : 4), 2, 0, 0, 0),
                DataCopyPadExtParams<half>(true, 0, 15, half(0)));
}
__aicore__ void PaddingTooLong(World& w) {
    TPipe pipe;
    TBuf<QuePosition::VECIN> buf;
    pipe.InitBuffer(buf, 1024);
    DataCopyPad(buf.Get<half>(), w.in, DataCopyExtParams(1, 2, 0, 0, 0),
                DataCopyPadExtParams<half>(true, 0, w.bad ? 17 : 16, half(0)));
}
__aicore__ void CopyOfPartOfABlock(World& w) {
    TPipe pipe;
    TBuf<QuePosition::VECIN> buf;
    pipe.InitBuffer(buf, 1024);
    DataCopy(buf.Get<half>(), w.in, w.bad ? 100 : 96);
}
__aicore__ void CopyToMisalignedUb(World& w) {
    TPipe pipe;
    TBuf<QuePosition::VECIN> buf;
    pipe.InitBuffer(buf, 1024);
    DataCopy(buf.Get<half>()[w.bad ? 8 : 16], w.in, 32);
}
__aicore__ void PaddedCopyIntoVeccalc(World& w) {
    TPipe pipe;
    TBuf<QuePosition::VECCALC> calc;
    TBuf<QuePosition::VECIN> in;
    pipe.InitBuffer(calc, 1024);
    pipe.InitBuffer(in, 1024);
    DataCopyPad(w.bad ? calc.Get<half>() : in.Get<half>(), w.in, DataCopyExtParams(1, 64, 0, 0, 0),
                DataCopyPadExtParams<half>(false, 0, 0, half(0)));
}
__aicore__ void CopyPastTheUbTensor(World& w) {
    TPipe pipe;
    TBuf<QuePosition::VECIN> buf;
    pipe.InitBuffer(buf, 512);
    DataCopy(buf.Get<half>(w.bad ? 240 : 256), w.in, kCount);
}
__aicore__ void LoadPastTheTensor(World& w) {
    TPipe pipe;
    TBuf<QuePosition::VECIN> buf;
    pipe.InitBuffer(buf, 1024);
    DataCopy(buf.Get<half>(), w.in[w.bad ? 16 : 0], kCount);
}
__aicore__ void LoadPastTheAllocation(World& w) {
    TPipe pipe;
    TBuf<QuePosition::VECIN> buf;
    pipe.InitBuffer(buf, 2048);
    GlobalTensor<half> unsized;
    unsized.SetGlobalBuffer(w.in.GetPhyAddr(0));
    DataCopy(buf.Get<half>(), unsized, w.bad ? kCount + 16 : kCount);
}
__aicore__ void StorePastTheEnd(World& w) {
    TPipe pipe;
    TBuf<QuePosition::VECOUT> buf;
    pipe.InitBuffer(buf, 1024);
    Duplicate(buf.Get<half>(), half(1), 512);
    PipeBarrier<PIPE_ALL>();
    DataCopyPad(w.out[200], buf.Get<half>(), DataCopyExtParams(1, w.bad ? 114 : 112, 0, 0, 0));
}
__aicore__ void ScalarStorePastTheEnd(World& w) { w.out.SetValue(w.bad ? 256 : 255, half(1)); }

// ----- bytes nobody has written -----

__aicore__ void DeadLanesReachTheSum(World& w) {
    TPipe pipe;
    TBuf<QuePosition::VECCALC> buf;
    TBuf<QuePosition::VECOUT> outBuf;
    pipe.InitBuffer(buf, 512);
    pipe.InitBuffer(outBuf, 512);
    LocalTensor<float> row = buf.Get<float>();
    Duplicate(row, 1.0f, 40);
    PipeBarrier<PIPE_V>();
    Muls(row, row, 2.0f, 64);  // computing with dead lanes is no error
    PipeBarrier<PIPE_V>();
    if (!w.bad) {
        uint64_t dead[2] = {~uint64_t{0} << 40, 0};
        Duplicate(row, 0.0f, dead, 1, 1, 8);
        PipeBarrier<PIPE_V>();
    }
    WholeReduceSum<float>(outBuf.Get<float>(), row, 64, 1, 1, 1, 8);
    PipeBarrier<PIPE_ALL>();
    DataCopyPad(w.work, outBuf.Get<float>(), DataCopyExtParams(1, 4, 0, 0, 0));
}
__aicore__ void PaddingNotWritten(World& w) {
    TPipe pipe;
    TBuf<QuePosition::VECIN> buf;
    pipe.InitBuffer(buf, 1024);
    // 17 columns a row at a pitch of 32; the store takes the padding along
    DataCopyPad(buf.Get<half>(), w.in, DataCopyExtParams(4, 34, 0, 0, 0),
                DataCopyPadExtParams<half>(!w.bad, 0, 15, half(0)));
    PipeBarrier<PIPE_ALL>();
    DataCopy(w.out, buf.Get<half>(), 128);
}
__aicore__ void WorkspaceNotWritten(World& w) {
    TPipe pipe;
    TBuf<QuePosition::VECIN> buf;
    pipe.InitBuffer(buf, 512);
    if (!w.bad) {
        Duplicate(buf.Get<float>(), 1.0f, 64);
        PipeBarrier<PIPE_ALL>();
        DataCopy(w.work, buf.Get<float>(), 64);
        PipeBarrier<PIPE_ALL>();
    }
    DataCopy(buf.Get<float>(), w.work, 64);
    PipeBarrier<PIPE_ALL>();
    DataCopy(w.work[64], buf.Get<float>(), 64);
}
__aicore__ void RecycledBufferNotRefilled(World& w) {
    TPipe pipe;
    TQue<QuePosition::VECIN, 1> que;
    pipe.InitBuffer(que, 1, 64);
    for (int pass = 0; pass < 2; ++pass) {
        LocalTensor<half> x = que.AllocTensor<half>();
        DataCopy(x, w.in, pass == 1 && w.bad ? 16 : 32);
        que.EnQue(x);
        x = que.DeQue<half>();
        PipeBarrier<PIPE_ALL>();
        DataCopy(w.out, x, 32);
        PipeBarrier<PIPE_ALL>();
        que.FreeTensor(x);
    }
}
__aicore__ void BlockWithoutActiveLanes(World& w) {
    OnFloats(w, [](Floats& a, Floats& b, bool bad) { BlockReduceSum<float>(b, a, 1, bad ? 32 : 64, 1, 1, 8); });
}
__aicore__ void RepeatWrapsToZero(World& w) {
    TPipe pipe;
    TBuf<QuePosition::VECOUT> buf;
    pipe.InitBuffer(buf, 256 * 256);
    const uint32_t repeats = w.bad ? 256 : 255;  // the instruction's field has 8 bits
    Duplicate(buf.Get<float>(), 1.0f, (uint64_t)64, (uint8_t)repeats, 1, 8);
    PipeBarrier<PIPE_ALL>();
    DataCopy(w.work, buf.Get<float>(), 64);
}
__aicore__ void BranchOnUnwrittenUb(World& w) {
    TPipe pipe;
    TBuf<QuePosition::VECCALC> buf;
    pipe.InitBuffer(buf, 512);
    LocalTensor<float> row = buf.Get<float>();
    Duplicate(row, 1.0f, w.bad ? 8 : 16);
    PipeBarrier<PIPE_ALL>();
    if (row.GetValue(12) > 0.5f) {
        row.SetValue(0, 2.0f);
    }
}
__aicore__ void BranchOnUnwrittenGm(World& w) {
    if (!w.bad) {
        w.work.SetValue(0, 1.0f);
    }
    if (w.work.GetValue(0) > 0.5f) {
        w.work.SetValue(1, 2.0f);
    }
}
__aicore__ void ZeroByZero(World& w) {
    OnFloats(w, [](Floats& a, Floats& b, bool bad) {
        Duplicate(a, bad ? 0.0f : 1.0f, 64);
        PipeBarrier<PIPE_V>();
        Div(b, a, a, 64);
    });
}
// Not a mistake of the kernel when its input holds the NaN; the test feeds both.
__aicore__ void PassThrough(World& w) {
    TPipe pipe;
    TBuf<QuePosition::VECIN> buf;
    TBuf<QuePosition::VECCALC> wide;
    pipe.InitBuffer(buf, 512);
    pipe.InitBuffer(wide, 1024);
    DataCopy(buf.Get<half>(), w.in, kCount);
    PipeBarrier<PIPE_ALL>();
    Cast(wide.Get<float>(), buf.Get<half>(), RoundMode::CAST_NONE, kCount);
    PipeBarrier<PIPE_V>();
    Sub(wide.Get<float>(), wide.Get<float>(), wide.Get<float>(), kCount);
    PipeBarrier<PIPE_V>();
    Cast(buf.Get<half>(), wide.Get<float>(), RoundMode::CAST_RINT, kCount);
    PipeBarrier<PIPE_ALL>();
    DataCopy(w.out, buf.Get<half>(), kCount);
}

// ----- order of pipes and cores -----

__aicore__ void ScalarReadsTooEarly(World& w) {
    OnFloats(w, [](Floats& a, Floats&, bool bad) {
        Duplicate(a, 3.0f, 64);
        if (!bad) {
            SetFlag<HardEvent::V_S>(EVENT_ID0);
            WaitFlag<HardEvent::V_S>(EVENT_ID0);
        }
        a.GetValue(5);
        PipeBarrier<PIPE_V>();
    });
}
__aicore__ void VectorReadsAScalarStoreTooEarly(World& w) {
    OnFloats(w, [](Floats& a, Floats& b, bool bad) {
        PipeBarrier<PIPE_ALL>();
        a.SetValue(5, 3.0f);
        if (!bad) {
            SetFlag<HardEvent::S_V>(EVENT_ID0);
            WaitFlag<HardEvent::S_V>(EVENT_ID0);
        }
        Adds(b, a, 1.0f, 64);
    });
}
__aicore__ void StoresWhatIsStillLoading(World& w) {
    TPipe pipe;
    TBuf<QuePosition::VECIN> buf;
    pipe.InitBuffer(buf, 512);
    DataCopy(buf.Get<half>(), w.in, kCount);
    if (!w.bad) {
        SetFlag<HardEvent::MTE2_MTE3>(EVENT_ID0);
        WaitFlag<HardEvent::MTE2_MTE3>(EVENT_ID0);
    }
    DataCopy(w.out, buf.Get<half>(), kCount);
}
__aicore__ void LoadsWhatIsStillStored(World& w) {
    TPipe pipe;
    TBuf<QuePosition::VECIN> from, to;
    pipe.InitBuffer(from, 512);
    pipe.InitBuffer(to, 512);
    Duplicate(from.Get<half>(), half(1), kCount);
    SetFlag<HardEvent::V_MTE3>(EVENT_ID0);
    WaitFlag<HardEvent::V_MTE3>(EVENT_ID0);
    DataCopy(w.out, from.Get<half>(), kCount);
    if (!w.bad) {
        SetFlag<HardEvent::MTE3_MTE2>(EVENT_ID0);
        WaitFlag<HardEvent::MTE3_MTE2>(EVENT_ID0);
    }
    DataCopy(to.Get<half>(), w.out[64], 16);
}
// Each writes half of a block: no order is needed, until a third one reads both.
__aicore__ void ReadsTwoHalvesOfABlock(World& w) {
    OnFloats(w, [](Floats& a, Floats& b, bool bad) {
        uint64_t low[2] = {0x0f, 0}, high[2] = {0xf0, 0};
        Duplicate(a, 1.0f, low, 1, 1, 8);
        PipeBarrier<PIPE_V>();
        Duplicate(a, 2.0f, high, 1, 1, 8);
        Duplicate(a, 3.0f, low, 1, 1, 8);
        if (!bad) {
            PipeBarrier<PIPE_V>();
        }
        Adds(b, a, 1.0f, 8);
    });
}
__aicore__ void OwnMaskNotSet(World& w) {
    OnFloats(w, [](Floats& a, Floats& b, bool bad) {
        Adds(b, a, 1.0f, (uint64_t)8, 1, UnaryRepeatParams());
        PipeBarrier<PIPE_V>();
        if (bad) {
            Brcb(a[256], b, 1, BrcbRepeatParams(1, 8));
        }
        Muls<float, false>(b, b, 2.0f, (uint64_t)8, 1, UnaryRepeatParams());
    });
}
// Block 0 loads the line of in[0] (bad) or another one into its cache; block 1 stores in[0]; block 0 reads it.
__aicore__ void ReadsACachedLine(World& w) {
    TPipe pipe;
    TBuf<QuePosition::VECOUT> buf;
    pipe.InitBuffer(buf, 512);
    if (GetBlockIdx() == 0) {
        w.in.GetValue(w.bad ? 1 : 128);
    }
    SyncAll();
    if (GetBlockIdx() == 1) {
        Duplicate(buf.Get<half>(), half(7), 16);
        PipeBarrier<PIPE_ALL>();
        DataCopy(w.in, buf.Get<half>(), 16);
    }
    SyncAll();
    if (GetBlockIdx() == 0) {
        w.in.GetValue(0);
    }
}
__aicore__ void ReadsWhatANeighbourWrites(World& w) {
    TPipe pipe;
    TBuf<QuePosition::VECIN> buf;
    pipe.InitBuffer(buf, 512);
    if (GetBlockIdx() == 1) {
        Duplicate(buf.Get<half>(), half(7), 16);
        PipeBarrier<PIPE_ALL>();
        DataCopy(w.out, buf.Get<half>(), 16);
    }
    if (!w.bad) {
        SyncAll();
    }
    if (GetBlockIdx() == 0) {
        DataCopy(buf.Get<half>(), w.out, 16);
    }
}

// ----- queues -----

struct Queues {
    TPipe pipe;
    TQue<QuePosition::VECIN, 1> que, other;
    LocalTensor<half> x;

    __aicore__ Queues() {
        pipe.InitBuffer(que, 2, 512);
        pipe.InitBuffer(other, 1, 512);
        x = que.AllocTensor<half>();
    }
    __aicore__ void Finish() {
        x = que.DeQue<half>();
        que.FreeTensor(x);
    }
};

__aicore__ void TwoEnqueuesIntoDepthOne(World& w) {
    Queues q;
    q.que.EnQue(q.x);
    if (w.bad) {
        LocalTensor<half> y = q.que.AllocTensor<half>();
        q.que.EnQue(y);
    }
    q.Finish();
}
__aicore__ void DequeueOfAnEmptyQueue(World& w) {
    Queues q;
    q.que.EnQue(q.x);
    q.Finish();
    if (w.bad) {
        q.x = q.que.DeQue<half>();
    }
}
__aicore__ void NeverFreed(World& w) {
    Queues q;
    for (int i = 0; i < 4; ++i) {
        q.que.EnQue(q.x);
        q.x = q.que.DeQue<half>();
        if (!w.bad) {
            q.que.FreeTensor(q.x);
        }
        q.x = q.que.AllocTensor<half>();
    }
    q.que.FreeTensor(q.x);
}
__aicore__ void FreedTwice(World& w) {
    Queues q;
    q.que.FreeTensor(q.x);
    if (w.bad) {
        q.que.FreeTensor(q.x);
    }
}
__aicore__ void FreedWhileQueued(World& w) {
    Queues q;
    q.que.EnQue(q.x);
    if (w.bad) {
        q.que.FreeTensor(q.x);
    }
    q.Finish();
}
__aicore__ void TensorOfAnotherQueue(World& w) {
    Queues q;
    if (w.bad) {
        q.other.EnQue(q.x);
    }
    q.que.FreeTensor(q.x);
}
__aicore__ void EnqueuedTwice(World& w) {
    Queues q;
    q.que.EnQue(q.x);
    if (w.bad) {
        q.que.EnQue(q.x);
    }
    q.Finish();
}
__aicore__ void NeverDequeued(World& w) {
    Queues q;
    q.que.EnQue(q.x);
    if (!w.bad) {
        q.Finish();
    }
}

// ----- flags -----

constexpr HardEvent kEvent = HardEvent::MTE3_MTE2;

__aicore__ void FlagSetTwice(World& w) {
    TPipe pipe;
    const TEventID id = pipe.AllocEventID<kEvent>();
    SetFlag<kEvent>(id);
    if (w.bad) {
        SetFlag<kEvent>(id);
    }
    WaitFlag<kEvent>(id);
    pipe.ReleaseEventID<kEvent>(id);
}
__aicore__ void FlagNeverSet(World& w) {
    TPipe pipe;
    const TEventID id = pipe.FetchEventID<kEvent>();
    if (!w.bad) {
        SetFlag<kEvent>(id);
    }
    WaitFlag<kEvent>(id);
}
__aicore__ void FlagLeftSet(World& w) {
    SetFlag<kEvent>(EVENT_ID3);
    if (!w.bad) {
        WaitFlag<kEvent>(EVENT_ID3);
    }
}
__aicore__ void FlagOutOfRange(World& w) {
    SetFlag<kEvent>(w.bad ? 8 : 7);
    WaitFlag<kEvent>(7);
}
__aicore__ void EventIdsExhausted(World& w) {
    TPipe pipe;
    for (int i = 0; i < (w.bad ? 9 : 8); ++i) {
        pipe.AllocEventID<kEvent>();
    }
}
__aicore__ void EventReleasedTwice(World& w) {
    TPipe pipe;
    const TEventID id = pipe.AllocEventID<kEvent>();
    pipe.ReleaseEventID<kEvent>(id);
    if (w.bad) {
        pipe.ReleaseEventID<kEvent>(id);
    }
}

// ----- several blocks; each writes its `part` halfs of the output -----

__aicore__ void WritePart(World& w, uint32_t kind) {
    TPipe pipe;
    TBuf<QuePosition::VECOUT> buf;
    pipe.InitBuffer(buf, 512);
    LocalTensor<half> x = buf.Get<half>();
    Duplicate(x, half(GetBlockIdx()), kCount);
    PipeBarrier<PIPE_ALL>();
    const uint32_t extra = kind == 1 && w.bad ? 1 : 0;
    const GlobalTensor<half> mine = w.out[(uint64_t)GetBlockIdx() * w.part];
    if (kind == 0 && w.bad) {
        DataCopy(mine, x, 16);
    } else {
        DataCopyPad(mine, x, DataCopyExtParams(1, (w.part + extra) * 2, 0, 0, 0));
    }
}

__aicore__ void WholeBlocksOverNeighbours(World& w) { WritePart(w, 0); }
__aicore__ void OneElementTooMany(World& w) { WritePart(w, 1); }
__aicore__ void SameBytesWithoutSyncAll(World& w) {
    TPipe pipe;
    TBuf<QuePosition::VECOUT> buf;
    pipe.InitBuffer(buf, 512);
    LocalTensor<half> x = buf.Get<half>();
    Duplicate(x, half(GetBlockIdx()), kCount);
    PipeBarrier<PIPE_ALL>();
    if (GetBlockIdx() == 0) {
        DataCopy(w.out, x, 32);
    }
    if (!w.bad) {
        SyncAll();
    }
    if (GetBlockIdx() == 1) {
        DataCopy(w.out, x, 32);
    }
}
__aicore__ void WholeBlockInANeighboursLine(World& w) {
    TPipe pipe;
    TBuf<QuePosition::VECOUT> buf;
    pipe.InitBuffer(buf, 512);
    LocalTensor<half> x = buf.Get<half>();
    Duplicate(x, half(1), kCount);
    PipeBarrier<PIPE_ALL>();
    if (GetBlockIdx() == 0) {
        DataCopyPad(w.out, x, DataCopyExtParams(1, 34, 0, 0, 0));
    } else {
        DataCopy(w.out[w.bad ? 24 : 32], x, 16);
    }
}
__aicore__ void ScalarStoresToOneLine(World& w) { w.out.SetValue((uint64_t)GetBlockIdx() * (w.bad ? 1 : 32), half(1)); }
__aicore__ void OneBlockSkipsSyncAll(World& w) {
    if (!w.bad || GetBlockIdx() != 1) {
        SyncAll();
    }
}
__aicore__ void OneBlockFailsBeforeSyncAll(World& w) {
    if (w.bad && GetBlockIdx() == 1) {
        w.out.SetValue(256, half(1));
    }
    SyncAll();
}
__aicore__ void ThrowsOnBlockOne(World& w) {
    if (w.bad && GetBlockIdx() == 1) {
        throw 5;
    }
}

#define NAMED(kernel) {#kernel, kernel}
constexpr struct {
    const char* name;
    void (*run)(World&);
} kKernels[] = {
    NAMED(ScalarReadsTooEarly),
    NAMED(VectorReadsAScalarStoreTooEarly),
    NAMED(StoresWhatIsStillLoading),
    NAMED(LoadsWhatIsStillStored),
    NAMED(ReadsTwoHalvesOfABlock),
    NAMED(OwnMaskNotSet),
    NAMED(ReadsACachedLine),
    NAMED(ReadsWhatANeighbourWrites),
    NAMED(UbTooLarge),
    NAMED(SecondPipe),
    NAMED(BufferCutTooLong),
    NAMED(RepeatsPastTheEnd),
    NAMED(TensorTooShort),
    NAMED(MisalignedSource),
    NAMED(MaskTooLong),
    NAMED(MaskEmpty),
    NAMED(TooManyRepeats),
    NAMED(BlockStrideOfDestinationZero),
    NAMED(StrideTooLong),
    NAMED(OverlapByOneBlock),
    NAMED(MultiplyAddOntoItsSource),
    NAMED(TooManyRows),
    NAMED(PaddingTooLong),
    NAMED(CopyOfPartOfABlock),
    NAMED(CopyToMisalignedUb),
    NAMED(PaddedCopyIntoVeccalc),
    NAMED(CopyPastTheUbTensor),
    NAMED(LoadPastTheTensor),
    NAMED(LoadPastTheAllocation),
    NAMED(StorePastTheEnd),
    NAMED(ScalarStorePastTheEnd),
    NAMED(DeadLanesReachTheSum),
    NAMED(PaddingNotWritten),
    NAMED(WorkspaceNotWritten),
    NAMED(RecycledBufferNotRefilled),
    NAMED(BlockWithoutActiveLanes),
    NAMED(RepeatWrapsToZero),
    NAMED(BranchOnUnwrittenUb),
    NAMED(BranchOnUnwrittenGm),
    NAMED(ZeroByZero),
    NAMED(PassThrough),
    NAMED(TwoEnqueuesIntoDepthOne),
    NAMED(DequeueOfAnEmptyQueue),
    NAMED(NeverFreed),
    NAMED(FreedTwice),
    NAMED(FreedWhileQueued),
    NAMED(TensorOfAnotherQueue),
    NAMED(EnqueuedTwice),
    NAMED(NeverDequeued),
    NAMED(FlagSetTwice),
    NAMED(FlagNeverSet),
    NAMED(FlagLeftSet),
    NAMED(FlagOutOfRange),
    NAMED(EventIdsExhausted),
    NAMED(EventReleasedTwice),
    NAMED(WholeBlocksOverNeighbours),
    NAMED(OneElementTooMany),
    NAMED(WholeBlockInANeighboursLine),
    NAMED(SameBytesWithoutSyncAll),
    NAMED(ScalarStoresToOneLine),
    NAMED(OneBlockSkipsSyncAll),
    NAMED(OneBlockFailsBeforeSyncAll),
    NAMED(ThrowsOnBlockOne),
};

extern "C" __global__ __aicore__ void broken(GM_ADDR in, GM_ADDR out, GM_ADDR workspace, GM_ADDR tiling) {
    KERNEL_TASK_TYPE_DEFAULT(KERNEL_TYPE_MIX_AIV_1_0);
    Request request;
    SimCopyTiling(&request, tiling, sizeof(request));
    World w;
    w.in.SetGlobalBuffer((__gm__ half*)in, kCount);
    w.out.SetGlobalBuffer((__gm__ half*)out, kCount);
    w.work.SetGlobalBuffer((__gm__ float*)workspace, 1024);
    w.bad = request.broken != 0;
    w.part = request.part;
    for (const auto& kernel : kKernels) {
        if (std::strcmp(kernel.name, request.name) == 0) {
            kernel.run(w);
            return;
        }
    }
    throw std::runtime_error(request.name);
}
