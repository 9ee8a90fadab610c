// SPDX-License-Identifier: Apache-2.0
// DataCopy and DataCopyPad between GM and UB.
//
// In UB a row starts on a 32-byte block. DataCopyPad towards UB writes left padding, the row, right padding; what is
// left of the last block is undefined on the hardware, and so is the padding itself when isPad is false
// (kernel_operator_data_copy_impl.h of dav_c220 only sets the pad register with isPad). Undefined bytes become NaN.
#ifndef SMALLQ_EMU_DATA_COPY_H_
#define SMALLQ_EMU_DATA_COPY_H_

#include <cstring>

#include "core.h"
#include "params.h"
#include "tensor.h"

namespace emu {

constexpr uint32_t kMaxCopyRows = 4095;      // blockCount
constexpr uint32_t kMaxCopyBytes = 2097151;  // blockLen of DataCopyPad
constexpr uint32_t kMaxPadBytes = 32;        // padding on either side of a row

// A padding element as bytes.
struct PadValue {
    uint8_t bytes[8];
    uint32_t size;
};

inline uint32_t RoundUpToBlock(uint32_t bytes) { return (bytes + kBlockBytes - 1) / kBlockBytes * kBlockBytes; }

template <typename T>
CopyEvent DescribeCopy(const char* api, bool toGm, const AscendC::LocalTensor<T>& local,
                       const AscendC::GlobalTensor<T>& global, uint32_t rows, uint32_t rowBytes, Where at) {
    CopyEvent event{};
    event.api = api;
    event.toGm = toGm;
    event.number = NumberOf<T>();
    event.elementSize = sizeof(T);
    event.gm = global.SimAddress();
    event.gmBase = global.SimBase();
    event.gmSize = global.SimBytes();
    event.ub = local.SimAddress();
    event.ubEnd = local.SimEnd();
    event.position = local.SimPlace();
    event.rows = rows;
    event.rowBytes = rowBytes;
    event.padWritten = true;
    event.granule = kBlockBytes;
    event.at = at;
    return event;
}

inline void RunCopyIn(const CopyEvent& event, const PadValue& pad) {
    Core& core = Here();
    core.Tell(event);
    for (uint32_t row = 0; row < event.rows; ++row) {
        uint8_t* to = core.Ub(event.ub + row * event.ubStep);
        const auto writePad = [&event, &pad](uint8_t* begin, uint32_t bytes) {
            if (!event.padWritten) {
                std::memset(begin, 0xff, bytes);
                return;
            }
            for (uint32_t i = 0; i < bytes; i += pad.size) {
                std::memcpy(begin + i, pad.bytes, pad.size);
            }
        };
        writePad(to, event.leftBytes);
        to += event.leftBytes;
        std::memcpy(to, reinterpret_cast<const void*>(event.gm + row * event.gmStep), event.rowBytes);
        to += event.rowBytes;
        writePad(to, event.rightBytes);
        std::memset(to + event.rightBytes, 0xff, event.fillerBytes);
    }
}

inline void RunCopyOut(const CopyEvent& event) {
    const Core& core = Here();
    core.Tell(event);
    for (uint32_t row = 0; row < event.rows; ++row) {
        const uint64_t to = event.gm + row * event.gmStep;
        std::memcpy(reinterpret_cast<void*>(to), core.Ub(event.ub + row * event.ubStep), event.rowBytes);
        core.Context().MarkWritten(to, event.rowBytes);
    }
}

inline void CheckCopyRange(const char* api, uint64_t rows, uint64_t bytes, uint32_t elementSize, Where at) {
    if (rows > kMaxCopyRows || bytes > kMaxCopyBytes || bytes % elementSize != 0) {
        Raise(SIM_FINDING, "COPY_RANGE", api, Here().Block(), at,
              "%llu rows of %llu bytes: at most %u rows of at most %u bytes, a multiple of the element's %u",
              static_cast<unsigned long long>(rows), static_cast<unsigned long long>(bytes), kMaxCopyRows,
              kMaxCopyBytes, elementSize);
    }
}

// Plain DataCopy: everything in whole 32-byte blocks.
template <typename T>
CopyEvent DescribeBlocks(bool toGm, const AscendC::LocalTensor<T>& local, const AscendC::GlobalTensor<T>& global,
                         const AscendC::DataCopyParams& params, Where at) {
    if (params.blockCount > kMaxCopyRows) {
        CheckCopyRange("DataCopy", params.blockCount, 0, 1, at);
    }
    CopyEvent event =
        DescribeCopy("DataCopy", toGm, local, global, params.blockCount, params.blockLen * kBlockBytes, at);
    const uint32_t ubGap = toGm ? params.srcStride : params.dstStride;
    const uint32_t gmGap = toGm ? params.dstStride : params.srcStride;
    event.ubStep = event.rowBytes + ubGap * kBlockBytes;
    event.gmStep = event.rowBytes + uint64_t{gmGap} * kBlockBytes;
    return event;
}

// One run of count elements; the instruction counts blocks, so what does not fill one would be left out.
template <typename T>
AscendC::DataCopyParams WholeBlocks(uint32_t count, Where at) {
    const uint64_t bytes = uint64_t{count} * sizeof(T);
    if (bytes % kBlockBytes != 0 || bytes / kBlockBytes > 0xffff) {
        Raise(SIM_FINDING, "COPY_RANGE", "DataCopy", Here().Block(), at,
              "%u elements are %llu bytes, not 1 to 65535 whole blocks of 32 bytes", count,
              static_cast<unsigned long long>(bytes));
    }
    return AscendC::DataCopyParams(1, static_cast<uint16_t>(bytes / kBlockBytes), 0, 0);
}

template <typename T>
void CopyPadIn(const AscendC::LocalTensor<T>& dst, const AscendC::GlobalTensor<T>& src,
               const AscendC::DataCopyExtParams& params, bool isPad, uint32_t left, uint32_t right, const PadValue& pad,
               Where at) {
    CheckCopyRange("DataCopyPad", params.blockCount, params.blockLen, sizeof(T), at);
    if (params.blockCount == 0 || params.blockLen == 0) {
        return;  // documented: nothing is copied, the destination keeps its old contents
    }
    if (left * sizeof(T) > kMaxPadBytes || right * sizeof(T) > kMaxPadBytes) {
        Raise(SIM_FINDING, "COPY_RANGE", "DataCopyPad", Here().Block(), at,
              "padding of %u and %u elements: at most %u bytes on a side", left, right, kMaxPadBytes);
    }
    CopyEvent event = DescribeCopy("DataCopyPad", false, dst, src, params.blockCount, params.blockLen, at);
    event.leftBytes = left * static_cast<uint32_t>(sizeof(T));
    event.rightBytes = right * static_cast<uint32_t>(sizeof(T));
    event.padWritten = isPad;
    const uint32_t padded = event.leftBytes + event.rowBytes + event.rightBytes;
    event.fillerBytes = RoundUpToBlock(padded) - padded;
    event.ubStep = padded + event.fillerBytes + params.dstStride * kBlockBytes;
    event.gmStep = uint64_t{params.blockLen} + params.srcStride;
    RunCopyIn(event, pad);
}

template <typename T>
void CopyPadOut(const AscendC::GlobalTensor<T>& dst, const AscendC::LocalTensor<T>& src,
                const AscendC::DataCopyExtParams& params, Where at) {
    CheckCopyRange("DataCopyPad", params.blockCount, params.blockLen, sizeof(T), at);
    if (params.blockCount == 0 || params.blockLen == 0) {
        return;
    }
    CopyEvent event = DescribeCopy("DataCopyPad", true, src, dst, params.blockCount, params.blockLen, at);
    event.granule = 1;
    event.ubStep = RoundUpToBlock(params.blockLen) + params.srcStride * kBlockBytes;
    event.gmStep = uint64_t{params.blockLen} + params.dstStride;
    RunCopyOut(event);
}

}  // namespace emu

namespace AscendC {

template <typename T>
void DataCopy(const LocalTensor<T>& dst, const GlobalTensor<T>& src, const DataCopyParams& repeatParams,
              emu::Where at = emu::Where::Here()) {
    if (repeatParams.blockCount != 0 && repeatParams.blockLen != 0) {
        emu::RunCopyIn(emu::DescribeBlocks(false, dst, src, repeatParams, at), emu::PadValue{{}, 1});
    }
}

template <typename T>
void DataCopy(const GlobalTensor<T>& dst, const LocalTensor<T>& src, const DataCopyParams& repeatParams,
              emu::Where at = emu::Where::Here()) {
    if (repeatParams.blockCount != 0 && repeatParams.blockLen != 0) {
        emu::RunCopyOut(emu::DescribeBlocks(true, src, dst, repeatParams, at));
    }
}

template <typename T>
void DataCopy(const LocalTensor<T>& dst, const GlobalTensor<T>& src, const uint32_t calCount,
              emu::Where at = emu::Where::Here()) {
    DataCopy(dst, src, emu::WholeBlocks<T>(calCount, at), at);
}

template <typename T>
void DataCopy(const GlobalTensor<T>& dst, const LocalTensor<T>& src, const uint32_t calCount,
              emu::Where at = emu::Where::Here()) {
    DataCopy(dst, src, emu::WholeBlocks<T>(calCount, at), at);
}

template <typename T>
void DataCopyPad(const LocalTensor<T>& dst, const GlobalTensor<T>& src, const DataCopyExtParams& dataCopyParams,
                 const DataCopyPadExtParams<T>& padParams, emu::Where at = emu::Where::Here()) {
    emu::PadValue pad{{}, sizeof(T)};
    std::memcpy(pad.bytes, &padParams.paddingValue, sizeof(T));
    emu::CopyPadIn(dst, src, dataCopyParams, padParams.isPad, padParams.leftPadding, padParams.rightPadding, pad, at);
}

template <typename T>
void DataCopyPad(const LocalTensor<T>& dst, const GlobalTensor<T>& src, const DataCopyParams& dataCopyParams,
                 const DataCopyPadParams& padParams, emu::Where at = emu::Where::Here()) {
    emu::PadValue pad{{}, sizeof(T)};
    std::memcpy(pad.bytes, &padParams.paddingValue, sizeof(T));
    const DataCopyExtParams wide(dataCopyParams.blockCount, dataCopyParams.blockLen, dataCopyParams.srcStride,
                                 dataCopyParams.dstStride, 0);
    emu::CopyPadIn(dst, src, wide, padParams.isPad, padParams.leftPadding, padParams.rightPadding, pad, at);
}

template <typename T>
void DataCopyPad(const GlobalTensor<T>& dst, const LocalTensor<T>& src, const DataCopyExtParams& dataCopyParams,
                 emu::Where at = emu::Where::Here()) {
    emu::CopyPadOut(dst, src, dataCopyParams, at);
}

template <typename T>
void DataCopyPad(const GlobalTensor<T>& dst, const LocalTensor<T>& src, const DataCopyParams& dataCopyParams,
                 emu::Where at = emu::Where::Here()) {
    const DataCopyExtParams wide(dataCopyParams.blockCount, dataCopyParams.blockLen, dataCopyParams.srcStride,
                                 dataCopyParams.dstStride, 0);
    emu::CopyPadOut(dst, src, wide, at);
}

}  // namespace AscendC

#endif  // SMALLQ_EMU_DATA_COPY_H_
