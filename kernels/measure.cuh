// What the device can multiply at most with mma.sync: products of registers, over and over.
#pragma once

#include "params.cuh"

struct MeasureParams {
    float* sums;  // [blocks]
    uint32_t repeats;
};

static_assert(sizeof(MeasureParams) == 16, "src/scan/cuda/params.rs");

constexpr int MEASURE_TILES = 8;

// 4,096 products a tile and repeat, by each warp.
KERNEL(multiply_only, MeasureParams) {
    float tiles[MEASURE_TILES][4] = {};
    const uint32_t lane = threadIdx.x % 32;
    for (uint32_t i = 0; i < p.repeats; i++)
#pragma unroll
        for (int tile = 0; tile < MEASURE_TILES; tile++) multiply_halves(tiles[tile], lane, i, lane, i, lane, i);
    float sum = 0;
    for (int tile = 0; tile < MEASURE_TILES; tile++)
        for (int i = 0; i < 4; i++) sum += tiles[tile][i];
    // So that nothing is left out.
    if (sum == 12345.0f) p.sums[blockIdx.x] = sum;
}
