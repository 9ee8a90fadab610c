// SPDX-License-Identifier: Apache-2.0
// GlobalTensor and LocalTensor: typed views of GM and UB that remember where they end.
#ifndef SMALLQ_EMU_TENSOR_H_
#define SMALLQ_EMU_TENSOR_H_

#include <cstring>

#include "core.h"
#include "half.h"
#include "platform.h"

namespace emu {

template <typename T>
constexpr Number NumberOf() {
    return std::is_same<T, half>::value         ? Number::kHalf
           : std::is_same<T, bfloat16_t>::value ? Number::kBfloat
           : std::is_same<T, float>::value      ? Number::kFloat
                                                : Number::kOther;
}

}  // namespace emu

namespace AscendC {

template <typename T>
class LocalTensor {
public:
    using PrimType = T;

    LocalTensor() {}

    T GetValue(const uint32_t index, emu::Where at = emu::Where::Here()) const {
        const uint32_t position = Locate("LocalTensor.GetValue", false, index, at);
        T value;
        std::memcpy(&value, emu::Here().Ub(position), sizeof(T));
        return value;
    }

    template <typename T1>
    void SetValue(const uint32_t index, const T1 value, emu::Where at = emu::Where::Here()) const {
        const uint32_t position = Locate("LocalTensor.SetValue", true, index, at);
        const T typed = static_cast<T>(value);
        std::memcpy(emu::Here().Ub(position), &typed, sizeof(T));
    }

    template <typename U>
    LocalTensor<U> ReinterpretCast() const {
        LocalTensor<U> other;
        other.SimAssign(position_, end_, limit_, place_, buffer_);
        return other;
    }

    LocalTensor operator[](const uint32_t offset) const {
        LocalTensor other = *this;
        // 32-bit as on the device; an instruction on a tensor that starts behind its end is reported when it runs.
        other.position_ = position_ + offset * static_cast<uint32_t>(sizeof(T));
        return other;
    }

    uint32_t GetSize() const { return position_ < end_ ? (end_ - position_) / static_cast<uint32_t>(sizeof(T)) : 0; }
    void SetSize(const uint32_t size) { end_ = position_ + size * static_cast<uint32_t>(sizeof(T)); }
    int32_t GetPosition() const { return static_cast<int32_t>(place_); }

    // What follows is for the emulator, not for kernels.
    void SimAssign(uint32_t position, uint32_t end, uint32_t limit, TPosition place, emu::Buffer* buffer) {
        position_ = position;
        end_ = end;
        limit_ = limit;
        place_ = place;
        buffer_ = buffer;
    }
    uint32_t SimAddress() const { return position_; }
    uint32_t SimEnd() const { return end_ < limit_ ? end_ : limit_; }
    TPosition SimPlace() const { return place_; }
    emu::Buffer* SimBuffer() const { return buffer_; }

private:
    uint32_t Locate(const char* api, bool write, uint32_t index, emu::Where at) const {
        const uint64_t position = position_ + uint64_t{index} * sizeof(T);
        emu::Here().Tell(emu::ScalarEvent{api, false, write, position, position_, SimEnd(), sizeof(T), at});
        return static_cast<uint32_t>(position);
    }

    uint32_t position_ = 0;  // first byte, from the start of UB
    uint32_t end_ = 0;       // first byte after the tensor
    uint32_t limit_ = 0;     // first byte after the buffer it was cut from
    TPosition place_ = TPosition::VECCALC;
    emu::Buffer* buffer_ = nullptr;
};

template <typename T>
class GlobalTensor {
public:
    using PrimType = T;

    GlobalTensor() {}

    void SetGlobalBuffer(__gm__ T* buffer, uint64_t bufferSize) {
        address_ = base_ = reinterpret_cast<uint64_t>(buffer);
        bytes_ = bufferSize * sizeof(T);
    }
    void SetGlobalBuffer(__gm__ T* buffer) { SetGlobalBuffer(buffer, 0); }

    const __gm__ T* GetPhyAddr() const { return reinterpret_cast<const T*>(address_); }
    __gm__ T* GetPhyAddr(const uint64_t offset) const { return reinterpret_cast<T*>(address_ + offset * sizeof(T)); }

    T GetValue(const uint64_t offset, emu::Where at = emu::Where::Here()) const {
        const uint64_t address = Locate("GlobalTensor.GetValue", false, offset, at);
        T value;
        std::memcpy(&value, reinterpret_cast<const void*>(address), sizeof(T));
        return value;
    }
    void SetValue(const uint64_t offset, T value, emu::Where at = emu::Where::Here()) {
        const uint64_t address = Locate("GlobalTensor.SetValue", true, offset, at);
        std::memcpy(reinterpret_cast<void*>(address), &value, sizeof(T));
        emu::Here().Context().MarkWritten(address, sizeof(T));
    }

    uint64_t GetSize() const { return bytes_ / sizeof(T); }
    GlobalTensor operator[](const uint64_t offset) const {
        GlobalTensor other = *this;
        other.address_ = address_ + offset * sizeof(T);
        return other;
    }

    template <CacheRwMode rwMode = CacheRwMode::RW>
    void SetL2CacheHint(CacheMode mode) {
        static_cast<void>(mode);  // changes time, not values
    }

    // What follows is for the emulator, not for kernels.
    uint64_t SimAddress() const { return address_; }
    uint64_t SimBase() const { return base_; }
    uint64_t SimBytes() const { return bytes_; }

private:
    uint64_t Locate(const char* api, bool write, uint64_t offset, emu::Where at) const {
        const uint64_t address = address_ + offset * sizeof(T);
        emu::Here().Tell(emu::ScalarEvent{api, true, write, address, base_, bytes_, sizeof(T), at});
        return address;
    }

    uint64_t address_ = 0;
    uint64_t base_ = 0;
    uint64_t bytes_ = 0;  // size of the buffer at base_; 0: not given
};

}  // namespace AscendC

#endif  // SMALLQ_EMU_TENSOR_H_
