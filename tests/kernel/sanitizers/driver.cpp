// SPDX-License-Identifier: Apache-2.0
// Launches the kernel linked into this program once: reads the launch from a file, writes what it left to another.
// Every tensor, its shadow, the workspace and the tiling struct is an allocation of its own and exactly as long as the
// launch says, so that AddressSanitizer sees any access beside it.
//
// Numbers are 64 bits in host order. Input: blockDim, tilingKey, coreNumAiv, ubSize, threads, strict, tiling bytes,
// workspace bytes, number of tensors, the size of each (0: absent), then the tiling struct and the tensors; the last
// tensor is the output. Output: status, bytes of the message, bytes of the output, then both.
// Exit status: 0 when the launch returned, 2 when a file is not as described.
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <vector>

#include "sim_launch.h"

extern "C" int smallq_sim_kernel_launch(SimLaunch* launch);

namespace {
constexpr size_t kDeviceAlignment = 512;
constexpr int kBadFile = 2;

struct FreeBytes {
    void operator()(uint8_t* bytes) const { std::free(bytes); }
};

struct CloseFile {
    void operator()(std::FILE* file) const { std::fclose(file); }
};

using File = std::unique_ptr<std::FILE, CloseFile>;

[[noreturn]] void Refuse(const char* what) {
    std::fprintf(stderr, "driver: %s\n", what);
    std::exit(kBadFile);
}

struct Memory {
    std::unique_ptr<uint8_t, FreeBytes> bytes;
    std::vector<uint8_t> shadow;

    uint64_t Address() const { return reinterpret_cast<uint64_t>(bytes.get()); }
};

Memory Allocate(uint64_t size, bool written) {
    Memory memory;
    if (size == 0) {
        return memory;
    }
    void* bytes = nullptr;
    if (posix_memalign(&bytes, kDeviceAlignment, size) != 0) {
        Refuse("out of memory");
    }
    memory.bytes.reset(static_cast<uint8_t*>(bytes));
    std::memset(bytes, 0xA5, size);
    memory.shadow.assign(size, written ? 1 : 0);
    memory.shadow.shrink_to_fit();
    return memory;
}

void Read(std::FILE* file, void* bytes, uint64_t size) {
    if (size != 0 && std::fread(bytes, 1, size, file) != size) {
        Refuse("the launch file is too short");
    }
}

uint64_t ReadNumber(std::FILE* file) {
    uint64_t value = 0;
    Read(file, &value, sizeof(value));
    return value;
}

void Write(std::FILE* file, const void* bytes, uint64_t size) {
    if (size != 0 && std::fwrite(bytes, 1, size, file) != size) {
        Refuse("the result file cannot be written");
    }
}
}  // namespace

int main(int argc, char** argv) {
    if (argc != 3) {
        Refuse("usage: driver LAUNCH RESULT");
    }
    const File input(std::fopen(argv[1], "rb"));
    if (input == nullptr) {
        Refuse("the launch file cannot be opened");
    }
    SimLaunch launch = {};
    launch.abi = SIM_LAUNCH_ABI;
    launch.blockDim = static_cast<uint32_t>(ReadNumber(input.get()));
    launch.tilingKey = ReadNumber(input.get());
    launch.coreNumAiv = static_cast<uint32_t>(ReadNumber(input.get()));
    launch.ubSize = ReadNumber(input.get());
    launch.threads = static_cast<uint32_t>(ReadNumber(input.get()));
    launch.strict = static_cast<uint32_t>(ReadNumber(input.get()));
    launch.tilingSize = ReadNumber(input.get());
    const uint64_t workspaceSize = ReadNumber(input.get());
    std::vector<uint64_t> sizes(ReadNumber(input.get()));
    if (sizes.empty()) {
        Refuse("no output");
    }
    for (uint64_t& size : sizes) {
        size = ReadNumber(input.get());
    }

    const Memory tiling = Allocate(launch.tilingSize, true);
    Read(input.get(), tiling.bytes.get(), launch.tilingSize);
    Memory workspace = Allocate(workspaceSize, false);
    std::vector<Memory> tensors;
    std::vector<uint64_t> addresses;
    std::vector<SimGmRegion> regions;
    for (size_t i = 0; i < sizes.size(); ++i) {
        const bool isOutput = i + 1 == sizes.size();
        tensors.push_back(Allocate(sizes[i], !isOutput));
        if (!isOutput) {
            Read(input.get(), tensors.back().bytes.get(), sizes[i]);
        }
        addresses.push_back(tensors.back().Address());
        if (sizes[i] != 0) {
            regions.push_back(SimGmRegion{tensors.back().Address(), sizes[i], tensors.back().shadow.data()});
        }
    }
    if (workspaceSize != 0) {
        regions.push_back(SimGmRegion{workspace.Address(), workspaceSize, workspace.shadow.data()});
    }
    std::sort(regions.begin(), regions.end(),
              [](const SimGmRegion& a, const SimGmRegion& b) { return a.base < b.base; });

    std::vector<char> message(4096);
    launch.tilingData = tiling.bytes.get();
    launch.gmArgs = addresses.data();
    launch.gmArgCount = static_cast<uint32_t>(addresses.size());
    launch.workspace = workspace.Address();
    launch.regions = regions.data();
    launch.regionCount = static_cast<uint32_t>(regions.size());
    launch.message = message.data();
    launch.messageCapacity = static_cast<uint32_t>(message.size());
    const int status = smallq_sim_kernel_launch(&launch);

    const File output(std::fopen(argv[2], "wb"));
    if (output == nullptr) {
        Refuse("the result file cannot be opened");
    }
    const uint64_t heading[] = {static_cast<uint64_t>(status), std::strlen(message.data()), sizes.back()};
    Write(output.get(), heading, sizeof(heading));
    Write(output.get(), message.data(), heading[1]);
    Write(output.get(), tensors.back().bytes.get(), sizes.back());
    return std::fflush(output.get()) == 0 ? 0 : kBadFile;
}
