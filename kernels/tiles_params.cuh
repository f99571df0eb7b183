// Shapes of the tiles that the scan of large batches and the encoder multiply, and the parameters
// of the test product. kernels/build.rs generates the Rust side, crates/compute/src/gpu/tiles.rs.
#pragma once

#include "platform.cuh"

// Rows and columns of a tile.
constexpr int TILE_SIDE = 128;
// Threads of a block that multiplies tiles.
constexpr int TILE_THREADS = 256;
// Pipeline stages of a block without wgmma.
constexpr int TILE_STAGES = 3;
// 64-byte chunks per pipeline stage.
constexpr int STEP_CHUNKS = 2;
// 16-byte pieces of one side of a stage.
constexpr int SIDE_PIECES = STEP_CHUNKS * TILE_SIDE * 4;
// Shared memory of a block without wgmma, in bytes.
constexpr int TILE_SHARED_BYTES = TILE_STAGES * 2 * SIDE_PIECES * 16;

// 16-byte pieces of a slab: 128 bytes of 128 rows.
constexpr int SLAB = TILE_SIDE * 8;
// Bytes of a slab.
constexpr int SLAB_BYTES = SLAB * 16;
// Pipeline stages on Hopper with one block per multiprocessor.
constexpr int HOPPER_STAGES = 6;
// Pipeline stages on Hopper with two blocks per multiprocessor.
constexpr int HOPPER_STAGES_TWO_BLOCKS = 3;

// Parameters of check_wgmma.
struct CheckParams {
    const void* rows;     // [n_tiles x TILE_SIDE, chunks x 64 bytes]
    const void* columns;  // [TILE_SIDE, chunks x 64 bytes]
    float* sums;          // [n_tiles x TILE_SIDE, TILE_SIDE]
    uint32_t chunks;      // 64-byte chunks of a row
    uint32_t n_tiles;     // tiles of rows
    uint32_t resident;    // 1: columns stay in shared memory; 0: they are streamed
    uint32_t int8;        // 1: int8 values; 0: half precision
};

static_assert(sizeof(CheckParams) == 40, "layout of the Rust side");
