// GEMM of tiles on Hopper (sm_90a) by warpgroup products (wgmma), and their self-test.
//
// Two warpgroups multiply 64 rows each with 128 columns, in half precision or int8. Both sides lie
// in shared memory as slabs of 128 bytes per row, in the 128-byte swizzle that wgmma reads: the
// 16-byte piece p of row r is at p ^ r mod 8. Columns are permuted so that the sums of a lane are
// eight contiguous columns. Format of slabs and descriptors: PTX ISA, "Asynchronous warpgroup level
// matrix instructions".
#pragma once

#include "tiles.cuh"

// Rows of a slab that a thread copies.
constexpr int ROWS_PER_THREAD = 4;

// Rows and columns of a thread's sums; see MmaLayout.
struct WgmmaLayout {
    static constexpr int ROW_GROUPS = 1, COLUMN_GROUPS = 4;
    int row, column;

    DEVICE WgmmaLayout() {
        const int lane = static_cast<int>(threadIdx.x) % 32;
        const int warp = static_cast<int>(threadIdx.x) / 32;
        row = warp * 16 + lane / 4;
        column = lane % 4 * 8;
    }
    DEVICE int row_of(int, int i) const { return row + i / 2 * 8; }
    DEVICE int column_of(int m, int n, int i) const { return column + m * 32 + n * 2 + i % 2; }
};

// Index of a piece in a slab.
DEVICE int swizzled_piece(int row, int piece) { return row * 8 + (piece ^ row % 8); }
// Row of the slab that holds a column: of each 32, column 8 p + 2 n + i is in row 8 n + 2 p + i.
DEVICE int permuted_column(int column) {
    return column / 32 * 32 + column % 8 / 2 * 8 + column % 32 / 8 * 2 + column % 2;
}

// Shared memory of a block in bytes, for rows of `steps` x 128 bytes: a slab of rows per stage, and
// of columns per step if they are resident, else per stage.
HOST_DEVICE constexpr int hopper_shared_bytes(bool resident, int stages, int steps) {
    return ((resident ? steps : stages) + stages) * SLAB * 16;
}

// Multiplies 128 columns with a stream of tiles of 128 rows, of `chunks` x 64 bytes each. Block:
// TILE_THREADS. `shared`: hopper_shared_bytes(..), aligned to 1,024.
//
// rows(tile, row) and columns(column) return where values begin, null for zeros; `anywhere` is any
// readable address. begin(tile) is called before the products of a tile, finish(tile, sums) after.
// RESIDENT columns are copied once and stay; others are streamed with the rows. N_STAGES slabs are
// the pipeline, of which IN_FLIGHT steps of products may be running beside the copies.
template <class Sum, bool RESIDENT, int N_STAGES, int IN_FLIGHT, class Rows, class Columns,
          class Begin, class Finish>
DEVICE void stream_tiles(uint4* shared, const uint4* anywhere, int chunks, uint32_t n_tiles,
                         const Rows& rows, const Columns& columns, const Begin& begin,
                         const Finish& finish) {
    constexpr int STAGE = RESIDENT ? SLAB : 2 * SLAB, AHEAD = N_STAGES - 1 - IN_FLIGHT;
    static_assert(AHEAD >= 1, "a stage is never filled while it is read");
    const int thread = static_cast<int>(threadIdx.x), piece = thread % 8;
    const int steps = (chunks + 1) / 2;
    const uint32_t total = n_tiles * steps;
    uint4* const stages = shared + (RESIDENT ? steps * SLAB : 0);
    // This thread copies piece `thread % 8` of rows `thread / 8`, and 32, 64 and 96 further.
    const uint4 *row_at[ROWS_PER_THREAD], *column_at[ROWS_PER_THREAD];
#pragma unroll
    for (int i = 0; i < ROWS_PER_THREAD; i++) column_at[i] = columns(thread / 8 + i * 32);
    const auto copy = [&](uint4* to, const uint4* from, int step) {
        // An odd number of chunks leaves 64 bytes of the last step empty.
        const bool zeros = from == nullptr || step * 2 + piece / 4 >= chunks;
        copy_async(to, zeros ? anywhere : from + step * 8 + piece, zeros);
    };
    const auto copy_columns = [&](uint4* slab, int step) {
#pragma unroll
        for (int i = 0; i < ROWS_PER_THREAD; i++)
            copy(slab + swizzled_piece(permuted_column(thread / 8 + i * 32), piece), column_at[i],
                 step);
    };
    int load_step = 0;
    uint32_t load_tile = 0, loaded = 0;
    const auto load = [&] {
        if (loaded < total) {
            uint4* const stage = stages + loaded % N_STAGES * STAGE;
#pragma unroll
            for (int i = 0; i < ROWS_PER_THREAD; i++) {
                const int row = thread / 8 + i * 32;
                if (load_step == 0) row_at[i] = rows(load_tile, row);
                copy(stage + swizzled_piece(row, piece), row_at[i], load_step);
            }
            if (!RESIDENT) copy_columns(stage + SLAB, load_step);
            loaded++;
            if (++load_step == steps) {
                load_step = 0;
                load_tile++;
            }
        }
        commit_copies();
    };
    if (RESIDENT)
        for (int step = 0; step < steps; step++) copy_columns(shared + step * SLAB, step);
    for (int i = 0; i < AHEAD; i++) load();

    uint32_t done = 0;
    for (uint32_t tile = 0; tile < n_tiles; tile++) {
        Sum sums[4][4][4];
        begin(tile);
        for (int step = 0; step < steps; step++, done++) {
            wait_copies<AHEAD - 1>();
            fence_async_proxy();
            // All threads' copies of this step have landed, and the stage to fill next is free.
            block_barrier();
            load();
            const uint4* const stage = stages + done % N_STAGES * STAGE;
            const uint4* const left = stage + thread / 128 * (SLAB / 2);
            const uint4* const right = RESIDENT ? shared + step * SLAB : stage + SLAB;
            wgmma_fence();
#pragma unroll
            // One product covers 32 bytes of each row: two pieces.
            for (int k = 0; k < 4; k++)
                wgmma_multiply(sums, left + k * 2, right + k * 2, step > 0 || k > 0);
            wgmma_commit();
            wgmma_wait<IN_FLIGHT>();
        }
        wgmma_wait<0>();
        wgmma_keep_sums(sums);
        finish(tile, sums);
    }
}

template <class Sum>
DEVICE void check(const CheckParams& p, uint4* shared) {
    const uint32_t stride = p.chunks * 4;
    const uint4* const first = static_cast<const uint4*>(p.rows);
    const uint4* const first_column = static_cast<const uint4*>(p.columns);
    const int chunks = static_cast<int>(p.chunks);
    const auto rows = [&](uint32_t tile, int row) {
        return first + (tile * TILE_SIDE + row) * stride;
    };
    const auto columns = [&](int column) { return first_column + column * stride; };
    const WgmmaLayout layout;
    const auto begin = [](uint32_t) {};
    const auto finish = [&](uint32_t tile, const Sum(&sums)[4][4][4]) {
#pragma unroll
        for (int m = 0; m < 4; m++)
#pragma unroll
            for (int n = 0; n < 4; n++)
#pragma unroll
                for (int i = 0; i < 4; i++)
                    p.sums[(tile * TILE_SIDE + layout.row_of(m, i)) * TILE_SIDE +
                           layout.column_of(m, n, i)] = static_cast<float>(sums[m][n][i]);
    };
    if (p.resident)
        stream_tiles<Sum, true, HOPPER_STAGES, 1>(shared, first, chunks, p.n_tiles, rows, columns,
                                                  begin, finish);
    else
        stream_tiles<Sum, false, HOPPER_STAGES_TWO_BLOCKS, 0>(shared, first, chunks, p.n_tiles,
                                                              rows, columns, begin, finish);
}

// Test product, by which the host decides whether wgmma kernels are used: sums = rows x columns.
// Grid: 1. Block: TILE_THREADS. Dynamic shared memory: hopper_shared_bytes(..). Launcher and CPU
// twin: crates/compute/src/gpu/wgmma.rs.
KERNEL_FOR(check_wgmma, CheckParams, TILE_THREADS, 1) {
    DYNAMIC_SHARED(uint4, shared);
    if (p.int8)
        check<int32_t>(p, shared);
    else
        check<float>(p, shared);
}
