// SPDX-License-Identifier: Apache-2.0
// The kernel types a source declares. The real compiler reads these macros from the text, at file scope or in a
// function; here they note the type, so that SyncAll can tell whether the launch would have the counters it needs.
#ifndef SMALLQ_EMU_KERNEL_TYPE_H_
#define SMALLQ_EMU_KERNEL_TYPE_H_

#include <cstdint>
#include <map>
#include <mutex>
#include <string>

namespace emu {

// Of one kernel object. Blocks run in threads of their own and may pass a declaration at the same time.
class KernelTypes {
public:
    void Declare(const char* type) {
        const std::lock_guard<std::mutex> lock(mutex_);
        default_ = type;
    }
    void Declare(uint64_t key, const char* type) {
        const std::lock_guard<std::mutex> lock(mutex_);
        byKey_[key] = type;
    }
    // Empty where the source names no type for this tiling key: the compiler then chooses one that fits.
    std::string Of(uint64_t key) {
        const std::lock_guard<std::mutex> lock(mutex_);
        const auto found = byKey_.find(key);
        return found == byKey_.end() ? default_ : found->second;
    }

private:
    std::mutex mutex_;
    std::string default_;
    std::map<uint64_t, std::string> byKey_;
};

inline KernelTypes kernelTypes;

// A declaration is what is legal both at file scope and as a statement.
struct KernelTypeDeclaration {
    explicit KernelTypeDeclaration(const char* type) { kernelTypes.Declare(type); }
    KernelTypeDeclaration(uint64_t key, const char* type) { kernelTypes.Declare(key, type); }
};

}  // namespace emu

#define SIM_JOIN_NAMES(a, b) a##b
#define SIM_UNIQUE_NAME(prefix, number) SIM_JOIN_NAMES(prefix, number)
#define KERNEL_TASK_TYPE(key, value)                                                 \
    const ::emu::KernelTypeDeclaration SIM_UNIQUE_NAME(simKernelType, __COUNTER__) { \
        static_cast<uint64_t>(key), #value                                           \
    }
#define KERNEL_TASK_TYPE_DEFAULT(value) \
    const ::emu::KernelTypeDeclaration SIM_UNIQUE_NAME(simKernelType, __COUNTER__) { #value }

#endif  // SMALLQ_EMU_KERNEL_TYPE_H_
