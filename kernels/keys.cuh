// Keys: a score and its row as one integer, in the order of results: higher scores first, equal
// scores by ascending row. CPU twin: `Key` in crates/topk/src/oracle.rs.
#pragma once

#include "platform.cuh"

// Below the key of every row; the key of a row that a filter excludes.
constexpr uint64_t NO_KEY = 0;

// A float32 as an unsigned integer with the same order.
DEVICE uint32_t ordered_bits(float score) {
    const uint32_t bits = float_bits(score);
    return bits >> 31 ? ~bits : bits | 0x80000000u;
}

DEVICE float from_ordered_bits(uint32_t bits) {
    return bits_float(bits >> 31 ? bits & 0x7fffffffu : ~bits);
}

DEVICE uint64_t make_key(float score, uint32_t row) {
    return static_cast<uint64_t>(ordered_bits(score)) << 32 | static_cast<uint32_t>(~row);
}

DEVICE uint32_t key_score(uint64_t key) { return static_cast<uint32_t>(key >> 32); }
DEVICE uint32_t key_row(uint64_t key) { return ~static_cast<uint32_t>(key); }
