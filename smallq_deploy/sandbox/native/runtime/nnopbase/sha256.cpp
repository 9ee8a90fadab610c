// SPDX-License-Identifier: Apache-2.0
#include "sha256.h"

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <sstream>
#include <vector>

namespace nnop {
namespace {

uint32_t Rotate(uint32_t value, int count) { return (value >> count) | (value << (32 - count)); }

// The constants are the first 32 fractional bits of roots of the first 64 primes; computing them needs no table.
struct Constants {
    uint32_t round[64];
    uint32_t start[8];

    Constants() {
        int found = 0;
        for (uint32_t candidate = 2; found < 64; ++candidate) {
            bool prime = true;
            for (uint32_t divisor = 2; divisor * divisor <= candidate; ++divisor) {
                prime = prime && candidate % divisor != 0;
            }
            if (prime) {
                const long double root = std::cbrt(static_cast<long double>(candidate));
                round[found] = Fraction(root);
                if (found < 8) {
                    start[found] = Fraction(std::sqrt(static_cast<long double>(candidate)));
                }
                ++found;
            }
        }
    }
    static uint32_t Fraction(long double value) {
        return static_cast<uint32_t>((value - std::floor(value)) * 4294967296.0L);
    }
};

void Block(const Constants& constants, const uint8_t* bytes, uint32_t* state) {
    uint32_t w[64];
    for (int i = 0; i < 16; ++i) {
        w[i] = static_cast<uint32_t>(bytes[4 * i]) << 24 | static_cast<uint32_t>(bytes[4 * i + 1]) << 16 |
               static_cast<uint32_t>(bytes[4 * i + 2]) << 8 | bytes[4 * i + 3];
    }
    for (int i = 16; i < 64; ++i) {
        const uint32_t low = Rotate(w[i - 15], 7) ^ Rotate(w[i - 15], 18) ^ (w[i - 15] >> 3);
        const uint32_t high = Rotate(w[i - 2], 17) ^ Rotate(w[i - 2], 19) ^ (w[i - 2] >> 10);
        w[i] = w[i - 16] + low + w[i - 7] + high;
    }
    uint32_t v[8];
    std::memcpy(v, state, sizeof(v));
    for (int i = 0; i < 64; ++i) {
        const uint32_t high = Rotate(v[4], 6) ^ Rotate(v[4], 11) ^ Rotate(v[4], 25);
        const uint32_t choice = (v[4] & v[5]) ^ (~v[4] & v[6]);
        const uint32_t first = v[7] + high + choice + constants.round[i] + w[i];
        const uint32_t low = Rotate(v[0], 2) ^ Rotate(v[0], 13) ^ Rotate(v[0], 22);
        const uint32_t majority = (v[0] & v[1]) ^ (v[0] & v[2]) ^ (v[1] & v[2]);
        std::memmove(v + 1, v, 7 * sizeof(uint32_t));
        v[4] += first;
        v[0] = first + low + majority;
    }
    for (int i = 0; i < 8; ++i) {
        state[i] += v[i];
    }
}

}  // namespace

std::string FileSha256(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    if (!file) {
        return "";
    }
    std::stringstream content;
    content << file.rdbuf();
    std::string data = content.str();
    const uint64_t bits = static_cast<uint64_t>(data.size()) * 8;
    data.push_back('\x80');
    data.resize((data.size() + 8 + 63) / 64 * 64 - 8, '\0');
    for (int shift = 56; shift >= 0; shift -= 8) {
        data.push_back(static_cast<char>(bits >> shift));
    }
    static const Constants constants;
    uint32_t state[8];
    std::memcpy(state, constants.start, sizeof(state));
    for (size_t at = 0; at < data.size(); at += 64) {
        Block(constants, reinterpret_cast<const uint8_t*>(data.data()) + at, state);
    }
    std::string hex;
    char word[9];
    for (const uint32_t part : state) {
        std::snprintf(word, sizeof(word), "%08x", part);
        hex += word;
    }
    return hex;
}

}  // namespace nnop
