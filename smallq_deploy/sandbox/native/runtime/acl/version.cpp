// SPDX-License-Identifier: Apache-2.0
// Version queries and small value helpers. Versions are read from the toolkit's version files, nothing is built in.
#include <sys/utsname.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <string>
#include <vector>

#include "acl/acl.h"
#include "internal.h"

namespace simrt {
namespace {

// The value of a "key=value" line, or an empty text.
std::string FileValue(const std::string& path, const std::string& key) {
    std::ifstream file(path);
    std::string line;
    while (std::getline(file, line)) {
        if (line.compare(0, key.size() + 1, key + "=") == 0) {
            const std::string value = line.substr(key.size() + 1);
            return value.substr(0, value.find_last_not_of(" \t\r") + 1);
        }
    }
    return "";
}

std::string Home() { return EnvOr("ASCEND_HOME_PATH", ""); }

// version_dir is the CANN version before 8.5 (Version is then an internal number) and just "cann" from 8.5 on.
std::string VersionOf(const std::string& path) {
    const std::string directory = FileValue(path, "version_dir");
    const bool named = !directory.empty() && directory[0] >= '0' && directory[0] <= '9';
    return named ? directory : FileValue(path, "Version");
}

// A package's version: share/info/<package> on 8.5 and later, else <package>/version.info, else the toolkit's own.
std::string PackageVersion(aclCANNPackageName name) {
    static const char* const kDirectories[] = {"", "runtime", "compiler", "hccl", "toolkit", "opp", "opp_kernel"};
    if (name == ACL_PKG_NAME_DRIVER) {
        const std::string path = FileValue("/etc/ascend_install.info", "Driver_Install_Path_Param");
        return FileValue(path + "/driver/version.info", "Version");
    }
    if (name != ACL_PKG_NAME_CANN) {
        const std::string directory = kDirectories[name];
        const std::string shared = FileValue(Home() + "/share/info/" + directory + "/version.info", "Version");
        return !shared.empty() ? shared : VersionOf(Home() + "/" + directory + "/version.info");
    }
    utsname host;
    uname(&host);
    return FileValue(Home() + "/" + host.machine + "-linux/ascend_toolkit_install.info", "version");
}

// 9.0.0-beta.2 -> 9.0.0.beta2, the form this call has always given.
std::string Dotted(const std::string& version) {
    const size_t dash = version.find('-');
    if (dash == std::string::npos) {
        return version;
    }
    std::string suffix = version.substr(dash + 1);
    suffix.erase(std::remove(suffix.begin(), suffix.end(), '.'), suffix.end());
    return version.substr(0, dash) + "." + suffix;
}

void CopyText(char* target, size_t capacity, const std::string& text) {
    std::memset(target, 0, capacity);
    std::strncpy(target, text.c_str(), capacity - 1);
}

std::vector<std::string> Split(const std::string& text, const char* separators) {
    std::vector<std::string> parts;
    size_t at = 0;
    while (at <= text.size()) {
        const size_t end = text.find_first_of(separators, at);
        parts.push_back(text.substr(at, end == std::string::npos ? end : end - at));
        at = end == std::string::npos ? text.size() + 1 : end + 1;
    }
    return parts;
}

bool Number(const std::string& text, int32_t* value) {
    char* end = nullptr;
    *value = static_cast<int32_t>(std::strtol(text.c_str(), &end, 10));
    return !text.empty() && text[0] >= '0' && text[0] <= '9' && *end == '\0';
}

// share/info/<name>, also tried with '-' and '_' exchanged.
std::string InfoVersion(std::string name) {
    for (int attempt = 0; attempt < 3; ++attempt) {
        const std::string version = FileValue(Home() + "/share/info/" + name + "/version.info", "Version");
        if (!version.empty()) {
            return version;
        }
        const char from = attempt == 0 ? '-' : '_';
        for (char& c : name) {
            c = c == from ? (attempt == 0 ? '_' : '-') : c;
        }
    }
    return "";
}

// 8.5.0 -> 80500000; alpha, beta and rc lower it by 300, 200 and 100, and their number adds. False if not of that form.
bool VersionNumber(const std::string& version, int32_t* number) {
    const std::vector<std::string> parts = Split(version, ".-");
    int32_t value[3] = {0, 0, 0};
    if (parts.size() < 3) {
        return false;
    }
    for (size_t i = 0; i < 3; ++i) {
        if (!Number(parts[i], &value[i])) {
            return false;
        }
    }
    *number = value[0] * 10000000 + value[1] * 100000 + value[2] * 1000;
    if (parts.size() == 3) {
        return true;
    }
    const std::string suffix = parts[3];
    const size_t digits = suffix.find_first_of("0123456789");
    const std::string word = suffix.substr(0, digits);
    int32_t serial = 0;
    Number(digits != std::string::npos ? suffix.substr(digits) : (parts.size() > 4 ? parts[4] : "0"), &serial);
    const int32_t lower = word == "alpha" ? 300 : word == "beta" ? 200 : word == "rc" ? 100 : 0;
    *number += serial - lower;
    return lower != 0;
}

}  // namespace
}  // namespace simrt

using simrt::Fail;

extern "C" {

aclError aclsysGetCANNVersion(aclCANNPackageName name, aclCANNPackageVersion* version) {
    if (version == nullptr || name < ACL_PKG_NAME_CANN || name > ACL_PKG_NAME_DRIVER) {
        return Fail(ACL_ERROR_INVALID_PARAM, "EE1001", "aclsysGetCANNVersion: null pointer or unknown package");
    }
    const std::string text = simrt::Dotted(simrt::PackageVersion(name));
    if (text.empty()) {
        return Fail(ACL_ERROR_INVALID_FILE, "EE1003", "aclsysGetCANNVersion: no version file for this package");
    }
    std::memset(version, 0, sizeof(*version));
    simrt::CopyText(version->version, sizeof(version->version), text);
    std::vector<std::string> parts = simrt::Split(text, ".");
    parts.resize(4);
    char* const targets[] = {version->majorVersion, version->minorVersion, version->releaseVersion,
                             version->patchVersion};
    for (size_t i = 0; i < 4; ++i) {
        simrt::CopyText(targets[i], ACL_PKG_VERSION_PARTS_MAX_SIZE, parts[i]);
    }
    return ACL_SUCCESS;
}

aclError aclsysGetVersionStr(char* pkgName, char* versionStr) {
    if (pkgName == nullptr || versionStr == nullptr) {
        return Fail(ACL_ERROR_INVALID_PARAM, "EE1001", "aclsysGetVersionStr: null pointer");
    }
    const std::string version = simrt::InfoVersion(pkgName);
    if (version.empty()) {
        return Fail(ACL_ERROR_INVALID_FILE, "EE1003", std::string("no version file for package ") + pkgName);
    }
    simrt::CopyText(versionStr, ACL_PKG_VERSION_MAX_SIZE, version);
    return ACL_SUCCESS;
}

aclError aclsysGetVersionNum(char* pkgName, int32_t* versionNum) {
    char text[ACL_PKG_VERSION_MAX_SIZE];
    if (versionNum == nullptr) {
        return Fail(ACL_ERROR_INVALID_PARAM, "EE1001", "aclsysGetVersionNum: null pointer");
    }
    const aclError status = aclsysGetVersionStr(pkgName, text);
    if (status != ACL_SUCCESS) {
        return status;
    }
    if (!simrt::VersionNumber(text, versionNum)) {
        return Fail(ACL_ERROR_INVALID_PARAM, "EE1001", std::string("version ") + text + " has no number form");
    }
    return ACL_SUCCESS;
}

aclError aclrtGetVersion(int32_t* majorVersion, int32_t* minorVersion, int32_t* patchVersion) {
    if (majorVersion == nullptr || minorVersion == nullptr || patchVersion == nullptr) {
        return Fail(ACL_ERROR_INVALID_PARAM, "EE1001", "aclrtGetVersion: null pointer");
    }
    // The version of the acl interface, not of CANN.
    *majorVersion = 1;
    *minorVersion = 14;
    *patchVersion = 0;
    return ACL_SUCCESS;
}

size_t aclDataTypeSize(aclDataType dataType) {
    switch (dataType) {
        case ACL_INT8:
        case ACL_UINT8:
        case ACL_BOOL:
            return 1;
        case ACL_FLOAT16:
        case ACL_BF16:
        case ACL_INT16:
        case ACL_UINT16:
            return 2;
        case ACL_FLOAT:
        case ACL_INT32:
        case ACL_UINT32:
        case ACL_COMPLEX32:
            return 4;
        case ACL_INT64:
        case ACL_UINT64:
        case ACL_DOUBLE:
        case ACL_COMPLEX64:
            return 8;
        case ACL_COMPLEX128:
            return 16;
        default:
            return 0;
    }
}

aclFloat16 aclFloatToFloat16(float value) {
    uint32_t bits;
    std::memcpy(&bits, &value, sizeof(bits));
    const uint16_t sign = static_cast<uint16_t>((bits >> 16) & 0x8000U);
    const uint32_t magnitude = bits & 0x7FFFFFFFU;
    if (magnitude > 0x7F800000U) {
        return static_cast<uint16_t>(sign | 0x7E00U);
    }
    if (magnitude >= 0x477FF000U) {
        return static_cast<uint16_t>(sign | 0x7C00U);
    }
    // Adding a magic number lets the FPU round to nearest even; subnormal halves use a fixed one.
    const uint32_t exponent = magnitude >> 23;
    const uint32_t shift = exponent < 113 ? 126 - exponent : 13;
    if (shift > 24) {
        return sign;
    }
    const uint32_t mantissa = exponent < 113 ? ((magnitude & 0x7FFFFFU) | 0x800000U) : magnitude - (112U << 23);
    const uint32_t half = 1U << (shift - 1);
    const uint32_t odd = (mantissa >> shift) & 1U;
    return static_cast<uint16_t>(sign | ((mantissa + half - 1U + odd) >> shift));
}

float aclFloat16ToFloat(aclFloat16 value) {
    const uint32_t sign = (value & 0x8000U) << 16;
    const uint32_t exponent = (value >> 10) & 0x1FU;
    const uint32_t mantissa = value & 0x3FFU;
    float result;
    if (exponent == 0) {
        result = static_cast<float>(mantissa) * 5.9604644775390625e-8F;
        return sign != 0 ? -result : result;
    }
    const uint32_t bits = sign | (exponent == 31 ? 0x7F800000U : (exponent + 112U) << 23) | (mantissa << 13);
    std::memcpy(&result, &bits, sizeof(result));
    return result;
}

}  // extern "C"
