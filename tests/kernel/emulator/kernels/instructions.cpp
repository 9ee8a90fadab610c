// SPDX-License-Identifier: Apache-2.0
// One vector instruction a launch: loads three UB images from GM, runs the instruction the tiling describes, stores the
// destination's image. The tiling key is the instruction; every parameter comes from the tiling, so one compilation
// serves every case.
#include "kernel_operator.h"

using namespace AscendC;

struct Instruction {
    uint64_t maskBits[2];
    uint64_t maskCount;
    uint32_t form;  // 0 lane bits, 1 lane count, 2 element count
    int32_t elements;
    uint32_t repeats;
    uint32_t blk[3];  // block strides of dst, src0, src1
    uint32_t rep[3];  // repeat strides
    float scalar;
    uint32_t mode;  // RoundMode or ReduceOrder
};

constexpr uint32_t kImage = 16384;  // bytes of each UB image

template <typename T>
struct Images {
    GlobalTensor<T> gm[3];
    TBuf<QuePosition::VECIN> buffers[3];
    LocalTensor<T> dst, src0, src1;

    __aicore__ void Load(TPipe* pipe, GM_ADDR a, GM_ADDR b, GM_ADDR c) {
        GM_ADDR pointers[3] = {a, b, c};
        for (int i = 0; i < 3; ++i) {
            gm[i].SetGlobalBuffer((__gm__ T*)pointers[i], kImage / sizeof(T));
            pipe->InitBuffer(buffers[i], kImage);
            DataCopy(buffers[i].template Get<T>(), gm[i], kImage / sizeof(T));
        }
        dst = buffers[0].template Get<T>();
        src0 = buffers[1].template Get<T>();
        src1 = buffers[2].template Get<T>();
        PipeBarrier<PIPE_ALL>();
    }
    __aicore__ void Store() {
        PipeBarrier<PIPE_ALL>();
        DataCopy(gm[0], dst, kImage / sizeof(T));
    }
};

#define RUN_BINARY(Name)                                                                             \
    do {                                                                                             \
        const BinaryRepeatParams params((uint8_t)in.blk[0], (uint8_t)in.blk[1], (uint8_t)in.blk[2],  \
                                        (uint8_t)in.rep[0], (uint8_t)in.rep[1], (uint8_t)in.rep[2]); \
        if (in.form == 0) {                                                                          \
            Name(im.dst, im.src0, im.src1, in.maskBits, (uint8_t)in.repeats, params);                \
        } else if (in.form == 1) {                                                                   \
            Name(im.dst, im.src0, im.src1, in.maskCount, (uint8_t)in.repeats, params);               \
        } else {                                                                                     \
            Name(im.dst, im.src0, im.src1, in.elements);                                             \
        }                                                                                            \
    } while (false)

#define RUN_SCALAR(Name)                                                                             \
    do {                                                                                             \
        const UnaryRepeatParams params((uint16_t)in.blk[0], (uint16_t)in.blk[1], (uint8_t)in.rep[0], \
                                       (uint8_t)in.rep[1]);                                          \
        const T scalar = (T)in.scalar;                                                               \
        if (in.form == 0) {                                                                          \
            Name(im.dst, im.src0, scalar, in.maskBits, (uint8_t)in.repeats, params);                 \
        } else if (in.form == 1) {                                                                   \
            Name(im.dst, im.src0, scalar, in.maskCount, (uint8_t)in.repeats, params);                \
        } else {                                                                                     \
            Name(im.dst, im.src0, scalar, in.elements);                                              \
        }                                                                                            \
    } while (false)

#define RUN_UNARY(Name)                                                                              \
    do {                                                                                             \
        const UnaryRepeatParams params((uint16_t)in.blk[0], (uint16_t)in.blk[1], (uint8_t)in.rep[0], \
                                       (uint8_t)in.rep[1]);                                          \
        if (in.form == 0) {                                                                          \
            Name(im.dst, im.src0, in.maskBits, (uint8_t)in.repeats, params);                         \
        } else if (in.form == 1) {                                                                   \
            Name(im.dst, im.src0, in.maskCount, (uint8_t)in.repeats, params);                        \
        } else {                                                                                     \
            Name(im.dst, im.src0, in.elements);                                                      \
        }                                                                                            \
    } while (false)

#define RUN_BLOCK(Name)                                                                                        \
    do {                                                                                                       \
        if (in.form == 0) {                                                                                    \
            Name<T>(im.dst, im.src0, (int32_t)in.repeats, in.maskBits, (int32_t)in.rep[0], (int32_t)in.blk[1], \
                    (int32_t)in.rep[1]);                                                                       \
        } else {                                                                                               \
            Name<T>(im.dst, im.src0, (int32_t)in.repeats, (int32_t)in.maskCount, (int32_t)in.rep[0],           \
                    (int32_t)in.blk[1], (int32_t)in.rep[1]);                                                   \
        }                                                                                                      \
    } while (false)

#define RUN_WHOLE(Name, ...)                                                                                   \
    do {                                                                                                       \
        if (in.form == 0) {                                                                                    \
            Name<T>(im.dst, im.src0, in.maskBits, (int32_t)in.repeats, (int32_t)in.rep[0], (int32_t)in.blk[1], \
                    (int32_t)in.rep[1] __VA_ARGS__);                                                           \
        } else {                                                                                               \
            Name<T>(im.dst, im.src0, (int32_t)in.maskCount, (int32_t)in.repeats, (int32_t)in.rep[0],           \
                    (int32_t)in.blk[1], (int32_t)in.rep[1] __VA_ARGS__);                                       \
        }                                                                                                      \
    } while (false)

#define COMMA ,

template <typename T>
__aicore__ void SameType(uint32_t op, Instruction& in, Images<T>& im) {
    switch (op) {
        case 0:
            RUN_BINARY(Add);
            break;
        case 1:
            RUN_BINARY(Sub);
            break;
        case 2:
            RUN_BINARY(Mul);
            break;
        case 3:
            RUN_BINARY(Div);
            break;
        case 4:
            RUN_BINARY(Max);
            break;
        case 5:
            RUN_BINARY(Min);
            break;
        case 6:
            RUN_BINARY(MulAddDst);
            break;
        case 10:
            RUN_SCALAR(Adds);
            break;
        case 11:
            RUN_SCALAR(Muls);
            break;
        case 12:
            RUN_SCALAR(Maxs);
            break;
        case 13:
            RUN_SCALAR(Mins);
            break;
        case 20:
            RUN_UNARY(Exp);
            break;
        case 21:
            RUN_UNARY(Ln);
            break;
        case 22:
            RUN_UNARY(Abs);
            break;
        case 30:
            RUN_BLOCK(BlockReduceSum);
            break;
        case 31:
            RUN_BLOCK(BlockReduceMax);
            break;
        case 32:
            RUN_BLOCK(BlockReduceMin);
            break;
        case 33:
            RUN_WHOLE(WholeReduceSum, );
            break;
        case 34:
            RUN_WHOLE(WholeReduceMax, COMMA(ReduceOrder) in.mode);
            break;
        case 35:
            RUN_WHOLE(WholeReduceMin, COMMA(ReduceOrder) in.mode);
            break;
        case 40:
            if (in.form == 0) {
                Duplicate(im.dst, (T)in.scalar, in.maskBits, (uint8_t)in.repeats, (uint16_t)in.blk[0],
                          (uint8_t)in.rep[0]);
            } else if (in.form == 1) {
                Duplicate(im.dst, (T)in.scalar, in.maskCount, (uint8_t)in.repeats, (uint16_t)in.blk[0],
                          (uint8_t)in.rep[0]);
            } else {
                Duplicate(im.dst, (T)in.scalar, in.elements);
            }
            break;
        case 41:
            Brcb(im.dst, im.src0, (uint8_t)in.repeats, BrcbRepeatParams((uint16_t)in.blk[0], (uint16_t)in.rep[0]));
            break;
    }
}

template <typename D, typename S>
__aicore__ void Convert(Instruction& in, LocalTensor<D> dst, LocalTensor<S> src) {
    const UnaryRepeatParams params((uint16_t)in.blk[0], (uint16_t)in.blk[1], (uint8_t)in.rep[0], (uint8_t)in.rep[1]);
    const RoundMode mode = (RoundMode)in.mode;
    if (in.form == 0) {
        Cast(dst, src, mode, in.maskBits, (uint8_t)in.repeats, params);
    } else if (in.form == 1) {
        Cast(dst, src, mode, in.maskCount, (uint8_t)in.repeats, params);
    } else {
        Cast(dst, src, mode, (uint32_t)in.elements);
    }
}

// Keys: 1000 + op on float, 2000 + op on half, 3000 MulAddDst half*half->float, 3001 Cast half->float, 3002 Cast
// float->half, 3003 isSetMask = false with the mask register as SetVectorMask leaves it.
extern "C" __global__ __aicore__ void instructions(GM_ADDR dst, GM_ADDR src0, GM_ADDR src1, GM_ADDR workspace,
                                                   GM_ADDR tiling) {
    KERNEL_TASK_TYPE_DEFAULT(KERNEL_TYPE_AIV_ONLY);
    (void)workspace;
    Instruction in;
    SimCopyTiling(&in, tiling, sizeof(in));
    TPipe pipe;
    const uint32_t key = (uint32_t)emu::Here().Launch().tilingKey;
    if (key >= 2000 && key < 3000) {
        Images<half> im;
        im.Load(&pipe, dst, src0, src1);
        SameType<half>(key - 2000, in, im);
        im.Store();
        return;
    }
    Images<float> im;
    im.Load(&pipe, dst, src0, src1);
    LocalTensor<half> half0 = im.src0.ReinterpretCast<half>();
    LocalTensor<half> half1 = im.src1.ReinterpretCast<half>();
    if (key < 2000) {
        SameType<float>(key - 1000, in, im);
    } else if (TILING_KEY_IS(3000)) {
        const BinaryRepeatParams params((uint8_t)in.blk[0], (uint8_t)in.blk[1], (uint8_t)in.blk[2], (uint8_t)in.rep[0],
                                        (uint8_t)in.rep[1], (uint8_t)in.rep[2]);
        if (in.form == 0) {
            MulAddDst<float, half>(im.dst, half0, half1, in.maskBits, (uint8_t)in.repeats, params);
        } else if (in.form == 1) {
            MulAddDst<float, half>(im.dst, half0, half1, in.maskCount, (uint8_t)in.repeats, params);
        } else {
            MulAddDst<float, half>(im.dst, half0, half1, in.elements);
        }
    } else if (TILING_KEY_IS(3001)) {
        Convert(in, im.dst, half0);
    } else if (TILING_KEY_IS(3002)) {
        Convert(in, im.dst.ReinterpretCast<half>(), im.src0);
    } else if (TILING_KEY_IS(3003)) {
        SetVectorMask<float>((uint64_t)0, in.maskBits[0]);
        Adds<float, false>(im.dst, im.src0, in.scalar, MASK_PLACEHOLDER, (uint8_t)in.repeats, UnaryRepeatParams());
    }
    im.Store();
}
