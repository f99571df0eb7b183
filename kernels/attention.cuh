// Attention over sequences of their own lengths, without a matrix of scores in memory: keys and values pass by in tiles, and sums are
// rescaled when a larger score turns up (Milakov and Gimelshein 2018, Dao et al. 2022).
//
// A block takes up to 64 queries of one sequence and one head, a warp 16 of them. Its shared memory holds keys and values of two tiles.
#pragma once

#include "encoder_params.cuh"

constexpr int ATTENTION_THREADS = 128;
constexpr int ATTENTION_QUERIES = 64;
constexpr int ATTENTION_KEYS = 64;

// Where a 16-byte piece of a key's chunk lies: eight keys' pieces, down or across, are in different banks.
DEVICE int place_of(int chunk, int key, int piece) { return (chunk * ATTENTION_KEYS + key) * 4 + (piece ^ key / 2 % 4); }

template <int CHUNKS>
DEVICE void attend(const AttentionParams& p) {
    DYNAMIC_SHARED(uint4, tiles);
    constexpr int SIDE_PIECES = CHUNKS * ATTENTION_KEYS * 4;
    const Span span = p.spans[blockIdx.x];
    const int thread = static_cast<int>(threadIdx.x), lane = thread % 32, warp = thread / 32, group = lane / 4, piece = lane % 4;
    const uint32_t width = p.n_heads * CHUNKS * 4, stride = 3 * width;  // in pieces
    const uint4* const head = reinterpret_cast<const uint4*>(p.qkv) + blockIdx.y * CHUNKS * 4;
    const uint32_t n_tiles = (span.n_keys + ATTENTION_KEYS - 1) / ATTENTION_KEYS;
    const auto load = [&](uint32_t tile) {
        uint4* const to = tiles + tile % 2 * (2 * SIDE_PIECES);
#pragma unroll
        for (int i = thread; i < SIDE_PIECES; i += ATTENTION_THREADS) {
            const int chunk = i / (ATTENTION_KEYS * 4), key = i / 4 % ATTENTION_KEYS;
            const uint32_t at = tile * ATTENTION_KEYS + key;
            // Keys that do not exist weigh nothing, and are not read.
            const bool behind = at >= span.n_keys;
            const uint4* const from = head + static_cast<size_t>(span.first_key + (behind ? 0 : at)) * stride + chunk * 4 + i % 4;
            copy_async(to + place_of(chunk, key, i % 4), from + width, behind);
            copy_async(to + SIDE_PIECES + place_of(chunk, key, i % 4), from + 2 * width, behind);
        }
    };
    load(0);
    commit_copies();

    // Queries `mine` and `mine` + 8.
    const uint32_t mine = warp * 16 + group;
    uint4 queries[2][CHUNKS];
    for (int h = 0; h < 2; h++)
        for (int c = 0; c < CHUNKS; c++) {
            queries[h][c] = uint4{0, 0, 0, 0};
            if (mine + h * 8 < span.n_queries) queries[h][c] = head[static_cast<size_t>(span.first_query + mine + h * 8) * stride + c * 4 + piece];
        }
    float sums[CHUNKS * 4][4] = {};
    float most[2] = {-__builtin_huge_valf(), -__builtin_huge_valf()}, total[2] = {};
    for (uint32_t tile = 0; tile < n_tiles; tile++) {
        if (tile + 1 < n_tiles) load(tile + 1);
        commit_copies();
        wait_copies<1>();
        block_barrier();
        const uint4* const keys = tiles + tile % 2 * (2 * SIDE_PIECES);
        const uint4* const values = keys + SIDE_PIECES;
        float scores[ATTENTION_KEYS / 8][4] = {};
#pragma unroll
        for (int c = 0; c < CHUNKS; c++)
#pragma unroll
            for (int n = 0; n < ATTENTION_KEYS / 8; n++) {
                const uint4 key = keys[place_of(c, n * 8 + group, piece)];
                multiply_halves(scores[n], queries[0][c].x, queries[1][c].x, queries[0][c].y, queries[1][c].y, key.x, key.y);
                multiply_halves(scores[n], queries[0][c].z, queries[1][c].z, queries[0][c].w, queries[1][c].w, key.z, key.w);
            }
        float now[2] = {most[0], most[1]};
#pragma unroll
        for (int n = 0; n < ATTENTION_KEYS / 8; n++)
#pragma unroll
            for (int i = 0; i < 4; i++) {
                const uint32_t key = tile * ATTENTION_KEYS + n * 8 + piece * 2 + i % 2;
                scores[n][i] = key < span.n_keys ? scores[n][i] * p.scale : -__builtin_huge_valf();
                now[i / 2] = fmaxf(now[i / 2], scores[n][i]);
            }
#pragma unroll
        for (int h = 0; h < 2; h++) {
            // A query's scores are in four lanes.
            now[h] = fmaxf(now[h], warp_xor(now[h], 1));
            now[h] = fmaxf(now[h], warp_xor(now[h], 2));
            const float factor = exp2f(most[h] - now[h]);
            most[h] = now[h];
            total[h] *= factor;
#pragma unroll
            for (int d = 0; d < CHUNKS * 4; d++)
                for (int i = 0; i < 2; i++) sums[d][h * 2 + i] *= factor;
        }
#pragma unroll
        for (int n = 0; n < ATTENTION_KEYS / 8; n++)
#pragma unroll
            for (int i = 0; i < 4; i++) {
                scores[n][i] = exp2f(scores[n][i] - most[i / 2]);
                total[i / 2] += scores[n][i];
            }
#pragma unroll
        for (int j = 0; j < ATTENTION_KEYS / 16; j++) {
            // Sums of one product are laid out as the left side of the next.
            const uint32_t a0 = pack_halves(scores[2 * j][0], scores[2 * j][1]), a1 = pack_halves(scores[2 * j][2], scores[2 * j][3]);
            const uint32_t a2 = pack_halves(scores[2 * j + 1][0], scores[2 * j + 1][1]), a3 = pack_halves(scores[2 * j + 1][2], scores[2 * j + 1][3]);
#pragma unroll
            for (int d = 0; d < CHUNKS * 2; d++) {
                // Sixteen keys of sixteen values: four squares of eight, each turned over.
                const int column = d * 2 + lane / 16;
                uint32_t b[4];
                load_turned(b, values + place_of(column / 4, j * 16 + lane % 16, column % 4));
                multiply_halves(sums[d * 2], a0, a1, a2, a3, b[0], b[1]);
                multiply_halves(sums[d * 2 + 1], a0, a1, a2, a3, b[2], b[3]);
            }
        }
        // The tile may be written over.
        block_barrier();
    }
#pragma unroll
    for (int h = 0; h < 2; h++) {
        total[h] += warp_xor(total[h], 1);
        total[h] += warp_xor(total[h], 2);
        if (mine + h * 8 >= span.n_queries) continue;
        const float scale = 1.0f / total[h];
        uint32_t* const to = reinterpret_cast<uint32_t*>(p.context + (static_cast<size_t>(span.to + mine + h * 8) * p.n_heads + blockIdx.y) * (CHUNKS * 32));
#pragma unroll
        for (int d = 0; d < CHUNKS * 4; d++) to[d * 4 + piece] = pack_halves(sums[d][h * 2] * scale, sums[d][h * 2 + 1] * scale);
    }
}
