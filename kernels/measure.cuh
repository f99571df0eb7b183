// The peak rate of mma.sync, which `warpseek bench` compares the scans with.
#pragma once

#include "params.cuh"

// Multiplies registers, `repeats` times MEASURE_PRODUCTS half-precision products per warp.
// Grid: any number of blocks. Block: SELECT_THREADS. Launched by measure() in
// crates/topk/src/cuda/batch.rs.
KERNEL(measure_mma, MeasureParams) {
    float tiles[MEASURE_TILES][4] = {};
    const uint32_t lane = threadIdx.x % 32;
    for (uint32_t i = 0; i < p.repeats; i++)
#pragma unroll
        for (int tile = 0; tile < MEASURE_TILES; tile++)
            mma_f16(tiles[tile], lane, i, lane, i, lane, i);
    float sum = 0;
    for (int tile = 0; tile < MEASURE_TILES; tile++)
        for (int i = 0; i < 4; i++) sum += tiles[tile][i];
    // A use of the sums, so that the compiler removes nothing.
    if (sum == 12345.0f) p.sums[blockIdx.x] = sum;
}
