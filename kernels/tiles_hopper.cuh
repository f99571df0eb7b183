// Products of many rows and many columns on Hopper (sm_90a), by its products of whole warpgroups (wgmma).
//
// Two warpgroups multiply 64 rows each with 128 columns, of halves or of bytes. Both sides lie in shared memory, 128 bytes of each row at a time, in the order
// that these products read: rows of 128 bytes, the 16-byte piece p of row r at p ^ r mod 8. Columns lie permuted, so that a lane has eight on end.
#pragma once

#include "tiles.cuh"

// 16-byte pieces of 128 bytes of 128 rows.
constexpr int SLAB = TILE_SIDE * 8;
constexpr int HOPPER_ROWS = 4;
// Stages where one block has a multiprocessor, and where two have.
constexpr int HOPPER_STAGES = 6, HOPPER_STAGES_OF_TWO = 3;

// Where a thread's sums belong; see TilePlace.
struct HopperPlace {
    static constexpr int ROW_GROUPS = 1, COLUMN_GROUPS = 4;
    int row, column;

    DEVICE HopperPlace() {
        const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
        row = warp * 16 + lane / 4;
        column = lane % 4 * 8;
    }
    DEVICE int row_of(int, int i) const { return row + i / 2 * 8; }
    DEVICE int column_of(int m, int n, int i) const { return column + m * 32 + n * 2 + i % 2; }
};

// Where row or column `row` of a side has its piece `piece`.
DEVICE int slab_place(int row, int piece) { return row * 8 + (piece ^ row % 8); }
// The row of shared memory of a column: of 32, column 8 p + 2 n + i is entry 8 n + 2 p + i.
DEVICE int column_row(int column) { return column / 32 * 32 + column % 8 / 2 * 8 + column % 32 / 8 * 2 + column % 2; }

// Shared memory for `steps` steps of 128 bytes: stages of rows, and of columns unless these stay.
HOST_DEVICE constexpr int hopper_shared_bytes(bool resident, int stages, int steps) { return ((resident ? steps : stages) + stages) * SLAB * 16; }

// Multiplies 128 columns with one tile of 128 rows after the other. `rows(tile, row)` and `columns(column)` say where values begin (nowhere:
// zeros), `begin(tile)` comes before a tile's products and `finish(tile, sums)` takes its sums. Rows have `chunks` times 64 bytes. RESIDENT columns are copied once; DEPTH steps of products may be under way beside the next copies.
template <class Sum, bool RESIDENT, int STAGES_, int DEPTH, class Rows, class Columns, class Begin, class Finish>
DEVICE void stream_tiles(uint4* shared, const uint4* anywhere, int chunks, uint32_t n_tiles, const Rows& rows, const Columns& columns, const Begin& begin, const Finish& finish) {
    constexpr int STAGE = RESIDENT ? SLAB : 2 * SLAB, AHEAD = STAGES_ - 1 - DEPTH;
    static_assert(AHEAD >= 1, "a stage that is filled is not one that is read");
    const int thread = static_cast<int>(threadIdx.x), piece = thread % 8;
    const int steps = (chunks + 1) / 2;
    const uint32_t total = n_tiles * steps;
    uint4* const stages = shared + (RESIDENT ? steps * SLAB : 0);
    // What this thread copies: piece `thread % 8` of rows `thread / 8`, and 32, 64 and 96 further.
    const uint4 *row_at[HOPPER_ROWS], *column_at[HOPPER_ROWS];
#pragma unroll
    for (int i = 0; i < HOPPER_ROWS; i++) column_at[i] = columns(thread / 8 + i * 32);
    const auto copy = [&](uint4* to, const uint4* from, int step) {
        // Behind the values there may be 64 bytes of nothing.
        const bool zeros = from == nullptr || step * 2 + piece / 4 >= chunks;
        copy_async(to, zeros ? anywhere : from + step * 8 + piece, zeros);
    };
    const auto copy_columns = [&](uint4* slab, int step) {
#pragma unroll
        for (int i = 0; i < HOPPER_ROWS; i++) copy(slab + slab_place(column_row(thread / 8 + i * 32), piece), column_at[i], step);
    };
    int load_step = 0;
    uint32_t load_tile = 0, loaded = 0;
    const auto load = [&] {
        if (loaded < total) {
            uint4* const stage = stages + loaded % STAGES_ * STAGE;
#pragma unroll
            for (int i = 0; i < HOPPER_ROWS; i++) {
                const int row = thread / 8 + i * 32;
                if (load_step == 0) row_at[i] = rows(load_tile, row);
                copy(stage + slab_place(row, piece), row_at[i], load_step);
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
            publish_copies();
            // What all threads have copied is here, and the stage that is filled next is read no more.
            block_barrier();
            load();
            const uint4* const stage = stages + done % STAGES_ * STAGE;
            const uint4* const left = stage + thread / 128 * (SLAB / 2);
            const uint4* const right = RESIDENT ? shared + step * SLAB : stage + SLAB;
            begin_products();
#pragma unroll
            // A product's 32 bytes are two pieces.
            for (int k = 0; k < 4; k++) multiply_slabs(sums, left + k * 2, right + k * 2, step > 0 || k > 0);
            commit_products();
            wait_products<DEPTH>();
        }
        wait_products<0>();
        hold_sums(sums);
        finish(tile, sums);
    }
}

// The sums of n_tiles * 128 rows and 128 columns of `chunks` * 64 bytes, [n_tiles * 128, 128]: by which the host sees whether these products are
// what they are taken for.
struct CheckParams {
    const void* rows;
    const void* columns;
    float* sums;
    uint32_t chunks;
    uint32_t n_tiles;
    uint32_t resident;
    uint32_t bytes;  // whether values are bytes
};
static_assert(sizeof(CheckParams) == 40, "src/gpu/hopper.rs");

template <class Sum>
DEVICE void check(const CheckParams& p, uint4* shared) {
    const uint32_t stride = p.chunks * 4;
    const uint4 *const first = static_cast<const uint4*>(p.rows), *const first_column = static_cast<const uint4*>(p.columns);
    const auto rows = [&](uint32_t tile, int row) { return first + (tile * TILE_SIDE + row) * stride; };
    const auto columns = [&](int column) { return first_column + column * stride; };
    const HopperPlace place;
    const auto finish = [&](uint32_t tile, const Sum (&sums)[4][4][4]) {
#pragma unroll
        for (int m = 0; m < 4; m++)
#pragma unroll
            for (int n = 0; n < 4; n++)
#pragma unroll
                for (int i = 0; i < 4; i++) p.sums[(tile * TILE_SIDE + place.row_of(m, i)) * TILE_SIDE + place.column_of(m, n, i)] = static_cast<float>(sums[m][n][i]);
    };
    const auto begin = [](uint32_t) {};
    if (p.resident) stream_tiles<Sum, true, HOPPER_STAGES, 1>(shared, first, static_cast<int>(p.chunks), p.n_tiles, rows, columns, begin, finish);
    else stream_tiles<Sum, false, HOPPER_STAGES_OF_TWO, 0>(shared, first, static_cast<int>(p.chunks), p.n_tiles, rows, columns, begin, finish);
}

KERNEL_FOR(check_products, CheckParams, TILE_THREADS, 1) {
    DYNAMIC_SHARED(uint4, shared);
    if (p.bytes) check<int32_t>(p, shared);
    else check<float>(p, shared);
}
