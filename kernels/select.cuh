// Selection within a block of SELECT_THREADS: sums, the k-th largest of many values by radix
// selection, and a bitonic sort of few keys. All threads of the block call these functions.
#pragma once

#include "keys.cuh"
#include "params.cuh"

constexpr int SELECT_WARPS = SELECT_THREADS / 32;

// The sum over this and all lower threads; `total` becomes the sum over the block.
DEVICE uint32_t block_inclusive_sum(uint32_t value, uint32_t& total) {
    SHARED uint32_t sums[SELECT_WARPS];
    const int thread = threadIdx.x, lane = thread % 32;
    value = warp_inclusive_sum(value);
    if (lane == 31) sums[thread / 32] = value;
    block_barrier();
    uint32_t before = 0;
    total = 0;
    for (int i = 0; i < SELECT_WARPS; i++) {
        if (i < thread / 32) before += sums[i];
        total += sums[i];
    }
    block_barrier();
    return before + value;
}

DEVICE double block_sum(double value) {
    SHARED double sums[SELECT_WARPS];
    for (int i = 16; i > 0; i /= 2) value += warp_xor(value, i);
    if (threadIdx.x % 32 == 0) sums[threadIdx.x / 32] = value;
    block_barrier();
    double total = 0;
    for (int i = 0; i < SELECT_WARPS; i++) total += sums[i];
    block_barrier();
    return total;
}

struct Range {
    uint32_t least, most, count;
};

// Range and count of the values that all threads pass to the argument of `each`.
template <class Each>
DEVICE Range range_of(const Each& each) {
    SHARED uint32_t least, most;
    if (threadIdx.x == 0) least = ~0u, most = 0;
    block_barrier();
    uint32_t low = ~0u, high = 0, mine = 0, count;
    each([&](uint32_t value) {
        low = value < low ? value : low;
        high = value > high ? value : high;
        mine++;
    });
    for (int i = 16; i > 0; i /= 2) {
        const uint32_t other_low = warp_xor(low, i), other_high = warp_xor(high, i);
        low = other_low < low ? other_low : low;
        high = other_high > high ? other_high : high;
    }
    if (threadIdx.x % 32 == 0) {
        atomicMin(&least, low);
        atomicMax(&most, high);
    }
    block_inclusive_sum(mine, count);
    const Range range = {least, most, count};
    block_barrier();
    return range;
}

struct Kth {
    uint32_t value;
    uint32_t above;  // the number of greater values
};

// The k-th largest of the values within `range`, of which there are at least k >= 1. Radix
// selection: one pass over the values for each 8 bits of most - least.
template <class Each>
DEVICE Kth kth_largest(uint32_t k, const Range& range, const Each& each) {
    SHARED uint32_t histogram[256];
    SHARED uint32_t found, found_above;
    const int thread = threadIdx.x;
    uint32_t prefix = 0, above = 0;
    int high = range.most == range.least ? 0 : 32 - leading_zeros(range.most - range.least);
    while (high > 0) {
        const int width = high < 8 ? high : 8, shift = high - width;
        histogram[thread] = 0;
        block_barrier();
        each([&](uint32_t value) {
            value -= range.least;
            if (static_cast<uint64_t>(value) >> high == prefix)
                atomicAdd(histogram + (value >> shift & ((1u << width) - 1)), 1u);
        });
        block_barrier();
        // Sums from the greatest digit down.
        const uint32_t digit = 255 - thread, mine = histogram[digit];
        uint32_t total;
        const uint32_t inclusive = above + block_inclusive_sum(mine, total);
        if (inclusive >= k && inclusive - mine < k) {
            found = digit;
            found_above = inclusive - mine;
        }
        block_barrier();
        prefix = prefix << width | found;
        above = found_above;
        high = shift;
        block_barrier();
    }
    return {range.least + prefix, above};
}

// Bitonic sort of [size] keys in shared memory, greatest first; size is a power of two.
DEVICE void sort_descending(uint64_t* keys, uint32_t size) {
    for (uint32_t block = 2; block <= size; block *= 2) {
        for (uint32_t step = block / 2; step > 0; step /= 2) {
            block_barrier();
            for (uint32_t i = threadIdx.x; i < size / 2; i += SELECT_THREADS) {
                const uint32_t a = i / step * step * 2 + i % step, b = a + step;
                const bool down = (a & block) == 0;
                const uint64_t first = keys[a], second = keys[b];
                if ((first < second) == down) {
                    keys[a] = second;
                    keys[b] = first;
                }
            }
        }
    }
    block_barrier();
}
