// SPDX-License-Identifier: Apache-2.0
// Calls the installed operator once through its generated aclnn API and compares with attention in double precision.
// Exit status: 0 within tolerance, 1 outside it, 2 wrong usage, 3 an acl or aclnn call failed.
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "acl/acl.h"
#include "aclnn_smallq_flash_attention.h"

namespace {

constexpr double kAbsoluteTolerance = 1e-3;
constexpr double kRelativeTolerance = 1e-3;
constexpr double kRelativeL2Tolerance = 5e-4;

struct Options {
    int64_t heads = 8;
    int64_t qLen = 4;
    int64_t kvLen = 1023;
    int64_t headDim = 128;
    int64_t headDimV = 0;  // 0: like headDim
    int64_t repeat = 1;
    int32_t device = 0;
    uint32_t seed = 1;
};

// ---- fp16 on the host -----------------------------------------------------------------------------------------------

double HalfToDouble(uint16_t bits) {
    const int exponent = (bits >> 10) & 31;
    const double mantissa = bits & 1023;
    double value = 0;
    if (exponent == 31) {
        value = mantissa == 0 ? INFINITY : NAN;
    } else if (exponent == 0) {
        value = std::ldexp(mantissa, -24);
    } else {
        value = std::ldexp(1024 + mantissa, exponent - 25);
    }
    return (bits & 0x8000) != 0 ? -value : value;
}

// Rounds to the nearest fp16, ties to even; for finite values within the fp16 range.
uint16_t DoubleToHalf(double value) {
    const uint16_t sign = std::signbit(value) ? 0x8000 : 0;
    const double magnitude = std::fabs(value);
    if (magnitude == 0) {
        return sign;
    }
    int exponent = 0;
    std::frexp(magnitude, &exponent);                            // magnitude in [2^(exponent-1), 2^exponent)
    const int shift = exponent - 1 < -14 ? -24 : exponent - 11;  // weight of the last mantissa bit
    const auto units = static_cast<uint32_t>(std::nearbyint(std::ldexp(magnitude, -shift)));
    // units carries the implicit bit, so the sum also rounds up across a power of two.
    const uint32_t biased = static_cast<uint32_t>(shift + 24);
    return static_cast<uint16_t>(sign | ((biased << 10) + units));
}

std::vector<uint16_t> RandomHalfs(int64_t count, std::mt19937* generator) {
    std::normal_distribution<double> normal;
    std::vector<uint16_t> values(static_cast<size_t>(count));
    for (uint16_t& value : values) {
        value = DoubleToHalf(normal(*generator));
    }
    return values;
}

// ---- reference ------------------------------------------------------------------------------------------------------

// One output row: softmax(q k^T / sqrt(headDim)) v with everything in double.
std::vector<double> ReferenceRow(const uint16_t* q, const uint16_t* k, const uint16_t* v, int64_t kvLen,
                                 int64_t headDim, int64_t headDimV) {
    std::vector<double> score(static_cast<size_t>(kvLen));
    double largest = -INFINITY;
    for (int64_t key = 0; key < kvLen; ++key) {
        double dot = 0;
        for (int64_t d = 0; d < headDim; ++d) {
            dot += HalfToDouble(q[d]) * HalfToDouble(k[key * headDim + d]);
        }
        score[key] = dot / std::sqrt(static_cast<double>(headDim));
        largest = std::fmax(largest, score[key]);
    }
    std::vector<double> row(static_cast<size_t>(headDimV), 0.0);
    double sum = 0;
    for (int64_t key = 0; key < kvLen; ++key) {
        const double weight = std::exp(score[key] - largest);
        sum += weight;
        for (int64_t d = 0; d < headDimV; ++d) {
            row[d] += weight * HalfToDouble(v[key * headDimV + d]);
        }
    }
    for (double& value : row) {
        value /= sum;
    }
    return row;
}

// ---- acl ------------------------------------------------------------------------------------------------------------

// Ends the program when a call failed, with its name, its code and what the toolkit says about it.
void Check(int code, const char* call) {
    if (code == 0) {
        return;
    }
    const char* text = aclGetRecentErrMsg();
    std::fprintf(stderr, "%s failed with %d: %s\n", call, code, text == nullptr ? "no message" : text);
    std::exit(3);
}

struct DeviceTensor {
    void* memory = nullptr;
    aclTensor* tensor = nullptr;
    size_t bytes = 0;
};

DeviceTensor MakeTensor(const std::vector<int64_t>& dims, const std::vector<uint16_t>* values) {
    DeviceTensor result;
    std::vector<int64_t> strides(dims.size(), 1);
    for (size_t i = dims.size() - 1; i > 0; --i) {
        strides[i - 1] = strides[i] * dims[i];
    }
    result.bytes = static_cast<size_t>(strides[0] * dims[0]) * sizeof(uint16_t);
    Check(aclrtMalloc(&result.memory, result.bytes, ACL_MEM_MALLOC_HUGE_FIRST), "aclrtMalloc");
    if (values != nullptr) {
        Check(aclrtMemcpy(result.memory, result.bytes, values->data(), result.bytes, ACL_MEMCPY_HOST_TO_DEVICE),
              "aclrtMemcpy");
    }
    result.tensor = aclCreateTensor(dims.data(), dims.size(), ACL_FLOAT16, strides.data(), 0, ACL_FORMAT_ND,
                                    dims.data(), dims.size(), result.memory);
    Check(result.tensor == nullptr ? 1 : 0, "aclCreateTensor");
    return result;
}

void Release(const DeviceTensor& tensor) {
    Check(aclDestroyTensor(tensor.tensor), "aclDestroyTensor");
    Check(aclrtFree(tensor.memory), "aclrtFree");
}

void CallOperator(const DeviceTensor& q, const DeviceTensor& k, const DeviceTensor& v, const DeviceTensor& o,
                  aclrtStream stream) {
    uint64_t workspaceBytes = 0;
    aclOpExecutor* executor = nullptr;
    Check(aclnnSmallqFlashAttentionGetWorkspaceSize(q.tensor, k.tensor, v.tensor, o.tensor, &workspaceBytes, &executor),
          "aclnnSmallqFlashAttentionGetWorkspaceSize");
    void* workspace = nullptr;
    if (workspaceBytes > 0) {
        Check(aclrtMalloc(&workspace, workspaceBytes, ACL_MEM_MALLOC_HUGE_FIRST), "aclrtMalloc of the workspace");
    }
    Check(aclnnSmallqFlashAttention(workspace, workspaceBytes, executor, stream), "aclnnSmallqFlashAttention");
    Check(aclrtSynchronizeStream(stream), "aclrtSynchronizeStream");
    if (workspace != nullptr) {
        Check(aclrtFree(workspace), "aclrtFree of the workspace");
    }
}

// ---- command line ---------------------------------------------------------------------------------------------------

const char kUsage[] =
    "usage: test_aclnn [--heads N] [--qlen N] [--kvlen N] [--headdim N] [--headdim-v N] [--device N] [--repeat N] "
    "[--seed N]\n";

[[noreturn]] void EndWithUsage(const std::string& problem) {
    std::fprintf(stderr, "%s\n%s", problem.c_str(), kUsage);
    std::exit(2);
}

int64_t ParseNumber(const std::string& option, const char* text, int64_t least) {
    char* end = nullptr;
    const long long value = std::strtoll(text, &end, 10);
    if (end == text || *end != '\0' || value < least) {
        EndWithUsage(option + " needs a number of at least " + std::to_string(least) + ", got '" + text + "'");
    }
    return value;
}

Options ParseOptions(int argc, char** argv) {
    Options options;
    for (int i = 1; i < argc; i += 2) {
        const std::string name = argv[i];
        if (name == "--help" || name == "-h") {
            std::fputs(kUsage, stdout);
            std::exit(0);
        }
        if (i + 1 >= argc) {
            EndWithUsage(name + " needs a value");
        }
        const char* value = argv[i + 1];
        if (name == "--heads") {
            options.heads = ParseNumber(name, value, 1);
        } else if (name == "--qlen") {
            options.qLen = ParseNumber(name, value, 1);
        } else if (name == "--kvlen") {
            options.kvLen = ParseNumber(name, value, 1);
        } else if (name == "--headdim") {
            options.headDim = ParseNumber(name, value, 1);
        } else if (name == "--headdim-v") {
            options.headDimV = ParseNumber(name, value, 1);
        } else if (name == "--repeat") {
            options.repeat = ParseNumber(name, value, 1);
        } else if (name == "--device") {
            options.device = static_cast<int32_t>(ParseNumber(name, value, 0));
        } else if (name == "--seed") {
            options.seed = static_cast<uint32_t>(ParseNumber(name, value, 0));
        } else {
            EndWithUsage("unknown option " + name);
        }
    }
    if (options.headDimV == 0) {
        options.headDimV = options.headDim;
    }
    return options;
}

// ---- comparison -----------------------------------------------------------------------------------------------------

// Prints the worst error and returns whether every element and the relative L2 norm are within tolerance.
bool Compare(const Options& options, const std::vector<uint16_t>& q, const std::vector<uint16_t>& k,
             const std::vector<uint16_t>& v, const std::vector<uint16_t>& o) {
    double worstAbsolute = 0;
    double worstBound = 0;
    double errorSquares = 0;
    double valueSquares = 0;
    bool finite = true;
    for (int64_t row = 0; row < options.heads * options.qLen; ++row) {
        const int64_t head = row / options.qLen;
        const std::vector<double> expected =
            ReferenceRow(&q[row * options.headDim], &k[head * options.kvLen * options.headDim],
                         &v[head * options.kvLen * options.headDimV], options.kvLen, options.headDim, options.headDimV);
        for (int64_t d = 0; d < options.headDimV; ++d) {
            const double got = HalfToDouble(o[row * options.headDimV + d]);
            const double error = std::fabs(got - expected[d]);
            finite = finite && std::isfinite(got);
            worstAbsolute = std::fmax(worstAbsolute, error);
            worstBound =
                std::fmax(worstBound, error / (kAbsoluteTolerance + kRelativeTolerance * std::fabs(expected[d])));
            errorSquares += error * error;
            valueSquares += expected[d] * expected[d];
        }
    }
    const double relativeL2 = valueSquares > 0 ? std::sqrt(errorSquares / valueSquares) : std::sqrt(errorSquares);
    const bool passed = finite && worstBound <= 1 && relativeL2 <= kRelativeL2Tolerance;
    std::printf("worst |error| %.3e, %.3f of the tolerance, relative L2 %.3e%s: %s\n", worstAbsolute, worstBound,
                relativeL2, finite ? "" : ", output not finite", passed ? "PASS" : "FAIL");
    return passed;
}

}  // namespace

int main(int argc, char** argv) {
    const Options options = ParseOptions(argc, argv);
    std::printf("SmallqFlashAttention heads %ld qLen %ld kvLen %ld headDim %ld/%ld on device %d\n", options.heads,
                options.qLen, options.kvLen, options.headDim, options.headDimV, options.device);

    std::mt19937 generator(options.seed);
    const std::vector<uint16_t> q = RandomHalfs(options.heads * options.qLen * options.headDim, &generator);
    const std::vector<uint16_t> k = RandomHalfs(options.heads * options.kvLen * options.headDim, &generator);
    const std::vector<uint16_t> v = RandomHalfs(options.heads * options.kvLen * options.headDimV, &generator);
    std::vector<uint16_t> o(static_cast<size_t>(options.heads * options.qLen * options.headDimV));

    Check(aclInit(nullptr), "aclInit");
    Check(aclrtSetDevice(options.device), "aclrtSetDevice");
    aclrtStream stream = nullptr;
    Check(aclrtCreateStream(&stream), "aclrtCreateStream");
    const DeviceTensor qDevice = MakeTensor({options.heads, options.qLen, options.headDim}, &q);
    const DeviceTensor kDevice = MakeTensor({options.heads, options.kvLen, options.headDim}, &k);
    const DeviceTensor vDevice = MakeTensor({options.heads, options.kvLen, options.headDimV}, &v);
    const DeviceTensor oDevice = MakeTensor({options.heads, options.qLen, options.headDimV}, nullptr);
    bool passed = true;
    for (int64_t call = 0; call < options.repeat; ++call) {
        CallOperator(qDevice, kDevice, vDevice, oDevice, stream);
        Check(aclrtMemcpy(o.data(), oDevice.bytes, oDevice.memory, oDevice.bytes, ACL_MEMCPY_DEVICE_TO_HOST),
              "aclrtMemcpy");
        passed = Compare(options, q, k, v, o) && passed;
    }
    Release(qDevice);
    Release(kDevice);
    Release(vDevice);
    Release(oDevice);
    Check(aclrtDestroyStream(stream), "aclrtDestroyStream");
    Check(aclrtResetDevice(options.device), "aclrtResetDevice");
    Check(aclFinalize(), "aclFinalize");
    return passed ? 0 : 1;
}
