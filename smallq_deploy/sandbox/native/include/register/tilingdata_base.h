// SPDX-License-Identifier: Apache-2.0
// Tiling structs: the host class behind BEGIN_TILING_DATA_DEF and the table op_build reads to write kernel_tiling.h.
//
// A field is stored at its naturally aligned offset, so the bytes equal the plain struct the kernel declares.
#ifndef SIM_REGISTER_TILINGDATA_BASE_H_
#define SIM_REGISTER_TILINGDATA_BASE_H_

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <vector>

#include "sim/op_library.h"

extern "C" {
// One field of a tiling struct; count 0 means a plain field, otherwise an array of count elements.
typedef struct SimTilingField {
    const char* type;
    const char* name;
    size_t offset;
    size_t element_size;
    size_t count;
    const struct SimTilingStruct* nested;
} SimTilingField;

typedef struct SimTilingStruct {
    const char* name;
    size_t size;
    const SimTilingField* fields;
    size_t field_count;
} SimTilingStruct;

typedef struct SimTilingClass {
    const char* op_type;
    const SimTilingStruct* layout;
} SimTilingClass;
}

namespace optiling {

class TilingDef {
public:
    explicit TilingDef(const char* class_name) : class_name_(class_name), align_(8) {}
    virtual ~TilingDef() {}

    const char* GetTilingClassName() const { return class_name_; }
    // Bytes of the struct, padded to its alignment.
    size_t GetDataSize() const { return (data_.size() + align_ - 1) / align_ * align_; }
    // Copies the struct out; a buffer that is too small stays untouched.
    void SaveToBuffer(void* buffer, size_t capacity) const {
        const size_t size = GetDataSize();
        if (buffer == nullptr || capacity < size) {
            return;
        }
        const std::vector<uint8_t> bytes = Bytes();
        std::memset(buffer, 0, size);
        std::memcpy(buffer, bytes.data(), bytes.size());
    }

    // Layout with nested structs resolved; lives as long as this object.
    const SimTilingStruct* SimLayout() {
        for (size_t i = 0; i < fields_.size(); ++i) {
            if (nested_[i] != 0) {
                fields_[i].nested = Nested(nested_[i])->SimLayout();
            }
        }
        layout_ = {class_name_, GetDataSize(), fields_.data(), fields_.size()};
        return &layout_;
    }

protected:
    size_t AddField(const char* type, const char* name, size_t element_size, size_t count) {
        const size_t offset = (data_.size() + element_size - 1) / element_size * element_size;
        data_.resize(offset + element_size * (count == 0 ? 1 : count));
        Record({type, name, offset, element_size, count, nullptr}, 0);
        return offset;
    }
    size_t AddStruct(const char* type, const char* name, const TilingDef& member) {
        const size_t offset = (data_.size() + 7) / 8 * 8;
        data_.resize(offset + member.GetDataSize());
        const ptrdiff_t place = reinterpret_cast<const char*>(&member) - reinterpret_cast<const char*>(this);
        Record({type, name, offset, member.GetDataSize(), 0, nullptr}, place);
        return offset;
    }
    template <typename T>
    void Store(size_t offset, const T* values, size_t count) {
        std::memcpy(data_.data() + offset, values, sizeof(T) * count);
    }
    template <typename T>
    T Load(size_t offset) const {
        T value;
        std::memcpy(&value, data_.data() + offset, sizeof(T));
        return value;
    }
    template <typename T>
    T* Pointer(size_t offset) {
        return reinterpret_cast<T*>(data_.data() + offset);
    }

private:
    void Record(const SimTilingField& field, ptrdiff_t nested) {
        fields_.push_back(field);
        nested_.push_back(nested);
    }
    // Nested structs are members of the derived class, kept as a distance so that copies stay valid.
    TilingDef* Nested(ptrdiff_t place) const {
        return reinterpret_cast<TilingDef*>(const_cast<char*>(reinterpret_cast<const char*>(this)) + place);
    }
    std::vector<uint8_t> Bytes() const {
        std::vector<uint8_t> bytes = data_;
        for (size_t i = 0; i < fields_.size(); ++i) {
            if (nested_[i] != 0) {
                const std::vector<uint8_t> inner = Nested(nested_[i])->Bytes();
                std::memcpy(bytes.data() + fields_[i].offset, inner.data(), inner.size());
            }
        }
        return bytes;
    }

    const char* class_name_;
    size_t align_;
    std::vector<uint8_t> data_;
    std::vector<SimTilingField> fields_;
    std::vector<ptrdiff_t> nested_;
    SimTilingStruct layout_;
};

namespace sim {

SIM_OP_LOCAL std::vector<SimTilingClass>& TilingClasses() {
    static std::vector<SimTilingClass> classes;
    return classes;
}

// The instance is never freed: the table points into it.
template <typename T>
bool RegisterTilingClass(const char* op_type) {
    std::vector<SimTilingClass>& classes = TilingClasses();
    for (size_t i = 0; i < classes.size(); ++i) {
        if (std::strcmp(classes[i].op_type, op_type) == 0) {
            return false;
        }
    }
    static T* const instance = new T();
    classes.push_back({op_type, instance->SimLayout()});
    return true;
}

}  // namespace sim
}  // namespace optiling

SIM_OP_EXPORT size_t SimTilingClassCount() { return optiling::sim::TilingClasses().size(); }
SIM_OP_EXPORT const SimTilingClass* SimTilingClassAt(size_t index) { return &optiling::sim::TilingClasses()[index]; }

#define BEGIN_TILING_DATA_DEF(class_name)                    \
    class class_name : public ::optiling::TilingDef {        \
    public:                                                  \
        class_name() : ::optiling::TilingDef(#class_name) {} \
                                                             \
    private:

#define TILING_DATA_FIELD_DEF(data_type, field_name)                                                      \
public:                                                                                                   \
    void set_##field_name(data_type field_value) { Store<data_type>(field_name##_at_, &field_value, 1); } \
    data_type get_##field_name() const { return Load<data_type>(field_name##_at_); }                      \
                                                                                                          \
private:                                                                                                  \
    static_assert(std::is_arithmetic<data_type>::value, "a tiling field must be a number");               \
    size_t field_name##_at_ = AddField(#data_type, #field_name, sizeof(data_type), 0)

#define TILING_DATA_FIELD_DEF_ARR(data_type, array_size, field_name)                         \
public:                                                                                      \
    void set_##field_name(const data_type* field_values) {                                   \
        Store<data_type>(field_name##_at_, field_values, array_size);                        \
    }                                                                                        \
    data_type* get_##field_name() { return Pointer<data_type>(field_name##_at_); }           \
                                                                                             \
private:                                                                                     \
    static_assert(std::is_arithmetic<data_type>::value, "a tiling array must hold numbers"); \
    size_t field_name##_at_ = AddField(#data_type, #field_name, sizeof(data_type), array_size)

#define TILING_DATA_FIELD_DEF_STRUCT(struct_type, field_name) \
public:                                                       \
    struct_type field_name;                                   \
                                                              \
private:                                                      \
    size_t field_name##_at_ = AddStruct(#struct_type, #field_name, field_name)

#define END_TILING_DATA_DEF }

#define REGISTER_TILING_DATA_CLASS(op_type, class_name)                              \
    static const bool g_##op_type##class_name##_registered __attribute__((unused)) = \
        ::optiling::sim::RegisterTilingClass<class_name>(#op_type);

#endif  // SIM_REGISTER_TILINGDATA_BASE_H_
