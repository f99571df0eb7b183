// Attention over packed sequences of different lengths, without a matrix of scores in memory (flash
// attention): keys and values pass through shared memory in tiles, and the running sums are
// rescaled when a larger score appears (Milakov and Gimelshein 2018; Dao et al. 2022).
#pragma once

#include "encoder_params.cuh"

// Index of a 16-byte piece of a 64-byte chunk of a key. The pieces of eight keys, down or across,
// are in different banks.
DEVICE int attention_piece(int chunk, int key, int piece) {
    return (chunk * ATTENTION_KEYS + key) * 4 + (piece ^ key / 2 % 4);
}

// Score of a key that a query does not attend to: finite, so that a row of them has no infinite
// differences; sums over such keys alone are scaled to zero by the first real score.
constexpr float MASKED = -1e30f;

// context = softmax(scale q k^T + bias) v for the queries of one attention tile and one head of
// CHUNKS x 32 values. With a window each query attends to the keys within that distance.
//
// Grid: [tiles, heads]. Block: ATTENTION_THREADS; a warp has 16 queries. Dynamic shared memory:
// CHUNKS x ATTENTION_CHUNK_BYTES. Limits: any length of sequence.
// Scores are in base 2 (scale has log2(e)). CPU twin: attention.rs of the packed encoder.
template <int CHUNKS>
DEVICE void flash_attention(const AttentionParams& p) {
    DYNAMIC_SHARED(uint4, stages);
    // Pieces of the keys, or of the values, of a stage.
    constexpr int KEY_PIECES = CHUNKS * ATTENTION_KEYS * 4;
    const AttentionTile own = p.tiles[blockIdx.x];
    const int thread = static_cast<int>(threadIdx.x), lane = thread % 32, warp = thread / 32;
    const int group = lane / 4, piece = lane % 4;
    const uint32_t width = p.n_heads * CHUNKS * 4, stride = 3 * width;  // in pieces
    const uint4* const head = reinterpret_cast<const uint4*>(p.qkv) + blockIdx.y * CHUNKS * 4;
    // Tiles of keys that a query of the tile attends to.
    const uint32_t first_position = own.first_query - own.first_key;
    const uint32_t last_position = first_position + own.n_queries - 1;
    const uint32_t last_key = own.n_keys - 1;
    const uint32_t from_tile =
        (first_position > p.window ? first_position - p.window : 0) / ATTENTION_KEYS;
    const uint32_t n_tiles =
        (last_key - last_position > p.window ? last_position + p.window : last_key) /
            ATTENTION_KEYS +
        1;
    const auto load = [&](uint32_t tile) {
        uint4* const to = stages + tile % 2 * (2 * KEY_PIECES);
#pragma unroll
        for (int i = thread; i < KEY_PIECES; i += ATTENTION_THREADS) {
            const int chunk = i / (ATTENTION_KEYS * 4), key = i / 4 % ATTENTION_KEYS;
            const uint32_t at = tile * ATTENTION_KEYS + key;
            // Keys past the end are zeros, and are not read.
            const bool behind = at >= own.n_keys;
            const uint4* const from =
                head + static_cast<size_t>(own.first_key + (behind ? 0 : at)) * stride + chunk * 4 +
                i % 4;
            const int slot = attention_piece(chunk, key, i % 4);
            copy_async(to + slot, from + width, behind);
            copy_async(to + KEY_PIECES + slot, from + 2 * width, behind);
        }
    };
    load(from_tile);
    commit_copies();

    // Queries `mine` and `mine` + 8 of the tile.
    const uint32_t mine = warp * 16 + group;
    uint4 queries[2][CHUNKS];
    for (int h = 0; h < 2; h++)
        for (int c = 0; c < CHUNKS; c++) {
            queries[h][c] = uint4{0, 0, 0, 0};
            if (mine + h * 8 < own.n_queries)
                queries[h][c] = head[static_cast<size_t>(own.first_query + mine + h * 8) * stride +
                                     c * 4 + piece];
        }
    float sums[CHUNKS * 4][4] = {};
    float row_max[2] = {-__builtin_huge_valf(), -__builtin_huge_valf()}, row_sum[2] = {};
    for (uint32_t tile = from_tile; tile < n_tiles; tile++) {
        if (tile + 1 < n_tiles) load(tile + 1);
        commit_copies();
        wait_copies<1>();
        block_barrier();
        const uint4* const keys = stages + tile % 2 * (2 * KEY_PIECES);
        const uint4* const values = keys + KEY_PIECES;
        float scores[ATTENTION_KEYS / 8][4] = {};
#pragma unroll
        for (int c = 0; c < CHUNKS; c++)
#pragma unroll
            for (int n = 0; n < ATTENTION_KEYS / 8; n++) {
                const uint4 key = keys[attention_piece(c, n * 8 + group, piece)];
                mma_pieces(scores[n], queries[0][c], queries[1][c], key);
            }
        float new_max[2] = {row_max[0], row_max[1]};
#pragma unroll
        for (int n = 0; n < ATTENTION_KEYS / 8; n++)
#pragma unroll
            for (int i = 0; i < 4; i++) {
                const uint32_t key = tile * ATTENTION_KEYS + n * 8 + piece * 2 + i % 2;
                const uint32_t query = first_position + mine + i / 2 * 8;
                const uint32_t distance = key > query ? key - query : query - key;
                if (key >= own.n_keys || distance > p.window) {
                    scores[n][i] = MASKED;
                } else {
                    scores[n][i] *= p.scale;
                    // Queries past the end of the tile have no place in the bias.
                    if (p.bias != nullptr && mine + i / 2 * 8 < own.n_queries)
                        scores[n][i] +=
                            p.bias[blockIdx.y * (2 * p.n_bias - 1) + p.n_bias - 1 + key - query];
                }
                new_max[i / 2] = fmaxf(new_max[i / 2], scores[n][i]);
            }
#pragma unroll
        for (int h = 0; h < 2; h++) {
            // The scores of a query are in four lanes.
            new_max[h] = fmaxf(new_max[h], warp_xor(new_max[h], 1));
            new_max[h] = fmaxf(new_max[h], warp_xor(new_max[h], 2));
            const float factor = exp2f(row_max[h] - new_max[h]);
            row_max[h] = new_max[h];
            row_sum[h] *= factor;
#pragma unroll
            for (int d = 0; d < CHUNKS * 4; d++)
                for (int i = 0; i < 2; i++) sums[d][h * 2 + i] *= factor;
        }
#pragma unroll
        for (int n = 0; n < ATTENTION_KEYS / 8; n++)
#pragma unroll
            for (int i = 0; i < 4; i++) {
                scores[n][i] = exp2f(scores[n][i] - row_max[i / 2]);
                row_sum[i / 2] += scores[n][i];
            }
#pragma unroll
        for (int j = 0; j < ATTENTION_KEYS / 16; j++) {
            // The sums of one product have the layout of the left side of the next.
            const uint32_t a0 = pack_f16x2(scores[2 * j][0], scores[2 * j][1]);
            const uint32_t a1 = pack_f16x2(scores[2 * j][2], scores[2 * j][3]);
            const uint32_t a2 = pack_f16x2(scores[2 * j + 1][0], scores[2 * j + 1][1]);
            const uint32_t a3 = pack_f16x2(scores[2 * j + 1][2], scores[2 * j + 1][3]);
#pragma unroll
            for (int d = 0; d < CHUNKS * 2; d++) {
                // 16 keys of 16 values: four 8 x 8 matrices, transposed.
                const int column = d * 2 + lane / 16;
                uint32_t b[4];
                load_transposed(
                    b, values + attention_piece(column / 4, j * 16 + lane % 16, column % 4));
                mma_f16(sums[d * 2], a0, a1, a2, a3, b[0], b[1]);
                mma_f16(sums[d * 2 + 1], a0, a1, a2, a3, b[2], b[3]);
            }
        }
        // From here on the stage may be overwritten.
        block_barrier();
    }
#pragma unroll
    for (int h = 0; h < 2; h++) {
        row_sum[h] += warp_xor(row_sum[h], 1);
        row_sum[h] += warp_xor(row_sum[h], 2);
        if (mine + h * 8 >= own.n_queries) continue;
        const float scale = 1.0f / row_sum[h];
        const size_t row =
            static_cast<size_t>(own.first_out + mine + h * 8) * p.n_heads + blockIdx.y;
        uint32_t* const to = reinterpret_cast<uint32_t*>(p.context + row * (CHUNKS * 32));
#pragma unroll
        for (int d = 0; d < CHUNKS * 4; d++)
            to[d * 4 + piece] = pack_f16x2(sums[d][h * 2] * scale, sums[d][h * 2 + 1] * scale);
    }
}
