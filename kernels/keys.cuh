// Scores and rows as integers whose natural order is the order of results, as src/scan/order.rs defines it.
#pragma once

#include "platform.cuh"

// Below every key of a row; what a row that a filter keeps out has.
constexpr uint64_t NO_KEY = 0;

// A float32 as an unsigned integer of the same order.
DEVICE uint32_t ordered(float score) {
    const uint32_t bits = float_bits(score);
    return bits >> 31 ? ~bits : bits | 0x80000000u;
}

DEVICE float from_ordered(uint32_t bits) { return bits_float(bits >> 31 ? bits & 0x7fffffffu : ~bits); }

// Higher scores are greater; among equal ones lower rows are.
DEVICE uint64_t make_key(float score, uint32_t row) { return static_cast<uint64_t>(ordered(score)) << 32 | static_cast<uint32_t>(~row); }

DEVICE uint32_t key_score(uint64_t key) { return static_cast<uint32_t>(key >> 32); }
DEVICE uint32_t key_row(uint64_t key) { return ~static_cast<uint32_t>(key); }
