// Exact top-k on a GPU: the kernels of one query batch, in launch order.
// crates/topk/src/cuda/batch.rs launches them; crates/topk/src/cuda/mod.rs explains the algorithm.
//
//     prepare_f16 | prepare_int8_*       quantize the queries, bound their errors     prepare.cuh
//     list_rows                          list the rows that pass a selective filter
//     for each segment of the matrix:
//         for each pass over some of its tiles:
//             scan_small_*|scan_large_*  approximate scores; those that reach the query's threshold
//                                        become candidates          scan_small.cuh, scan_large.cuh
//             prune                      raise the threshold, drop candidates below it
//         rescore                        canonical scores of the remaining candidates
//         select_top_k                   the best k of these and of the earlier segments
//         prune_rescore_select           these three in one, for the last pass of most batches
//     score_all, merge_keys              instead: all rows for a query with too many candidates
//
// Error bound: |approximate - canonical| <= e for every row of a query (prepare.cuh). k rows have
// canonical scores of at least (k-th best approximate score) - e, so a row below
// (k-th best approximate score) - 2 e cannot be among the best k, nor one below
// (k-th best canonical score of any subset) - e. Every other row stays a candidate and is rescored.
// The results are those of the CPU twin, crates/topk/src/oracle.rs, bit for bit. Equal scores are
// ordered by ascending row (keys.cuh).
//
// Limits of all kernels: k <= 2048, at most 2^31 rows per segment, dimensions as shared memory
// allows (16,384 values of a query are 64 KiB). Threads per block are SELECT_THREADS unless stated.

#include "measure.cuh"
#include "prepare.cuh"
#include "scan_large.cuh"
#include "scan_small.cuh"

// Appends the rows of a mask to a list, in no particular order. Grid: one thread per mask word.
// CPU twin: RowMask::collect_range.
KERNEL(list_rows, ListParams) {
    SHARED uint32_t start;
    const uint32_t word = blockIdx.x * SELECT_THREADS + threadIdx.x;
    uint32_t bits = word * 32 < p.n_rows ? p.mask[word] : 0, total;
    const uint32_t mine = popcount(bits), inclusive = block_inclusive_sum(mine, total);
    // One atomicAdd reserves the slots of the whole block.
    if (threadIdx.x == 0) start = atomicAdd(p.n_listed, total);
    block_barrier();
    uint32_t* to = p.list + start + inclusive - mine;
    for (; bits; bits &= bits - 1) *to++ = word * 32 + 31 - leading_zeros(bits & (~bits + 1));
}

// The scans, by element type and queries per block: see scan_small.cuh and scan_large.cuh for grid,
// block and shared memory. crates/topk/src/cuda/launch.rs chooses among them.
KERNEL(scan_small_f16_8, ScanParams) { scan_small<F16, 1, 1>(p); }
KERNEL(scan_small_f16_16, ScanParams) { scan_small<F16, 1, 2>(p); }
KERNEL(scan_small_f16_32, ScanParams) { scan_small<F16, 1, 4>(p); }
KERNEL(scan_small_f16_64, ScanParams) { scan_small<F16, 1, 8>(p); }
KERNEL(scan_small_int8_8, ScanParams) { scan_small<Int8, 2, 1>(p); }
KERNEL(scan_small_int8_16, ScanParams) { scan_small<Int8, 2, 2>(p); }
KERNEL(scan_small_int8_32, ScanParams) { scan_small<Int8, 2, 4>(p); }
KERNEL_FOR(scan_large_f16, ScanParams, TILE_THREADS, TILE_BLOCKS) { scan_large<F16>(p); }
KERNEL_FOR(scan_large_int8, ScanParams, TILE_THREADS, TILE_BLOCKS) { scan_large<Int8>(p); }
KERNEL_FOR(scan_large_f16_hopper, ScanParams, TILE_THREADS, 1) { scan_large_hopper<F16, true>(p); }
KERNEL_FOR(scan_large_int8_hopper, ScanParams, TILE_THREADS, 1) {
    scan_large_hopper<Int8, true>(p);
}
// For queries that do not fit into shared memory.
KERNEL_FOR(scan_large_f16_hopper_streamed, ScanParams, TILE_THREADS, 1) {
    scan_large_hopper<F16, false>(p);
}
KERNEL_FOR(scan_large_int8_hopper_streamed, ScanParams, TILE_THREADS, 1) {
    scan_large_hopper<Int8, false>(p);
}

// Canonical score of a query and a row, [stride] each, by 16 lanes: lane j sums the products at
// i = j mod 16 in float64, then lanes 8, 4, 2 and 1 apart are added. The result is in the first of
// the lanes. CPU twin: canonical_score in crates/topk/src/oracle.rs.
DEVICE float canonical_score(const float* query, const uint16_t* row, uint32_t stride) {
    double sum = 0;
    // Loads in flight per lane.
    constexpr uint32_t LOADS = 8;
    for (uint32_t start = threadIdx.x % 16; start < stride; start += LOADS * 16) {
        uint16_t values[LOADS];
#pragma unroll
        for (uint32_t i = 0; i < LOADS; i++)
            values[i] = start + i * 16 < stride ? row[start + i * 16] : 0;
#pragma unroll
        for (uint32_t i = 0; i < LOADS; i++)
            if (start + i * 16 < stride)
                sum = multiply_add(query[start + i * 16], f16_value(values[i]), sum);
    }
    for (int i = 8; i > 0; i /= 2) sum += warp_down(sum, i, 16);
    return static_cast<float>(sum) + 0.0f;
}

// Rows that a block scores canonically at a time.
constexpr uint32_t ROWS_AT_A_TIME = SELECT_THREADS / 16;

// Copies a query to shared memory, [stride].
DEVICE void load_query(const ScanQueries& q, uint32_t query, uint32_t stride, float* values) {
    for (uint32_t i = threadIdx.x; i < stride; i += SELECT_THREADS)
        values[i] = q.values[static_cast<size_t>(query) * stride + i];
}

// The keys of [n] at index threadIdx.x and every SELECT_THREADS further, in registers; NO_KEY past
// the end.
struct RegisterKeys {
    static constexpr uint32_t PER_THREAD = 4, PER_BLOCK = PER_THREAD * SELECT_THREADS;
    uint64_t keys[PER_THREAD];

    DEVICE void load(const uint64_t* from, uint32_t n) {
#pragma unroll
        for (uint32_t i = 0; i < PER_THREAD; i++) {
            const uint32_t at = i * SELECT_THREADS + threadIdx.x;
            keys[i] = at < n ? from[at] : NO_KEY;
        }
    }
};

// The lowest canonical score, scaled like approximate scores, of k candidates whose approximate
// score is at least `kth`. It is a lower bound on the k-th best canonical score, and mostly a
// tighter one than the error bound gives.
template <class Each>
DEVICE double lowest_canonical(const SelectParams& p, uint32_t query, uint32_t kth,
                               const Each& each_key) {
    DYNAMIC_SHARED(float, values);
    SHARED uint32_t n_chosen, least;
    const ScanQueries& q = p.queries;
    const uint32_t stride = p.rows.stride;
    uint32_t* const chosen = reinterpret_cast<uint32_t*>(values + stride);
    if (threadIdx.x == 0) n_chosen = 0, least = ~0u;
    load_query(q, query, stride, values);
    block_barrier();
    each_key([&](uint64_t key) {
        if (key_score(key) < kth) return;
        const uint32_t slot = atomicAdd(&n_chosen, 1u);
        if (slot < q.k) chosen[slot] = key_row(key) - p.rows.first_row;
    });
    block_barrier();
    for (uint32_t start = 0; start < q.k; start += ROWS_AT_A_TIME) {
        const uint32_t i = start + threadIdx.x / 16;
        const uint16_t* const row =
            p.rows.values + static_cast<size_t>(chosen[i < q.k ? i : q.k - 1]) * stride;
        const float score = canonical_score(values, row, stride);
        if (threadIdx.x % 16 == 0 && i < q.k) atomicMin(&least, ordered_bits(score));
    }
    block_barrier();
    return scale_by_power(from_ordered_bits(least), q.exponents[query]);
}

// Raises a query's threshold, drops the candidates below it and returns the number of the others.
// A query whose candidates overflowed is flagged, and takes none from then on.
DEVICE uint32_t prune_query(const SelectParams& p, uint32_t query) {
    const ScanQueries& q = p.queries;
    uint64_t* const candidates = q.candidates + static_cast<size_t>(query) * q.capacity;
    const uint32_t n = p.n_first_pass ? p.n_first_pass : q.counts[query];
    float threshold = q.thresholds[query];
    block_barrier();
    if (n > q.capacity) {
        if (threadIdx.x == 0) {
            q.overflowed[query] = 1;
            q.counts[query] = 0;
            q.thresholds[query] = INFINITE;
        }
        return 0;
    }
    // The first keys stay in registers; the rest is read again by each pass of the selection.
    RegisterKeys held;
    held.load(candidates, n);
    const auto each_key = [&](const auto& take) {
#pragma unroll
        for (uint32_t i = 0; i < RegisterKeys::PER_THREAD; i++)
            if (held.keys[i] != NO_KEY) take(held.keys[i]);
        for (uint32_t i = RegisterKeys::PER_BLOCK + threadIdx.x; i < n; i += SELECT_THREADS) {
            const uint64_t key = candidates[i];
            if (key != NO_KEY) take(key);
        }
    };
    const auto each_score = [&](const auto& take) {
        each_key([&](uint64_t key) { take(key_score(key)); });
    };
    const Range range = range_of(each_score);
    if (range.count >= q.k) {
        const uint32_t kth = kth_largest(q.k, range, each_score).value;
        const double least = p.refine
                                 ? lowest_canonical(p, query, kth, each_key)
                                 : from_ordered_bits(kth) - static_cast<double>(q.errors[query]);
        const float reached = round_down(least - q.errors[query]);
        threshold = reached > threshold ? reached : threshold;
    }
    const auto stays = [&](uint64_t key) {
        return key != NO_KEY && from_ordered_bits(key_score(key)) >= threshold;
    };
    // Compacts the list in place.
    uint32_t kept = 0;
    for (uint32_t start = 0; start < n; start += RegisterKeys::PER_BLOCK) {
        if (start > 0) held.load(candidates + start, n - start);
        uint32_t mine = 0, total;
#pragma unroll
        for (uint32_t i = 0; i < RegisterKeys::PER_THREAD; i++) mine += stays(held.keys[i]);
        // The barriers of the sum separate reading these keys from overwriting them.
        uint64_t* to = candidates + kept + block_inclusive_sum(mine, total) - mine;
#pragma unroll
        for (uint32_t i = 0; i < RegisterKeys::PER_THREAD; i++)
            if (stays(held.keys[i])) *to++ = held.keys[i];
        kept += total;
    }
    if (threadIdx.x == 0) {
        q.counts[query] = kept;
        q.thresholds[query] = threshold;
    }
    return kept;
}

// Ends a pass. Grid: [queries]. Dynamic shared memory: with `refine` a query, stride x 4 bytes, and
// k x 4 bytes, else none.
KERNEL_FOR(prune, SelectParams, SELECT_THREADS, 6) { prune_query(p, blockIdx.x); }

// Replaces the scores of a query's n candidates, or of this block's share of them, by canonical
// scores.
DEVICE void rescore_query(const SelectParams& p, uint32_t query, uint32_t n) {
    DYNAMIC_SHARED(float, values);
    const ScanQueries& q = p.queries;
    const uint32_t stride = p.rows.stride;
    uint64_t* const candidates = q.candidates + static_cast<size_t>(query) * q.capacity;
    load_query(q, query, stride, values);
    block_barrier();
    for (uint32_t start = blockIdx.y * ROWS_AT_A_TIME; start < n;
         start += gridDim.y * ROWS_AT_A_TIME) {
        // Both halves of a warp take part in its shuffles, with a row or without.
        const uint32_t i = start + threadIdx.x / 16;
        const uint32_t row = key_row(candidates[i < n ? i : n - 1]);
        const float score = canonical_score(
            values, p.rows.values + static_cast<size_t>(row - p.rows.first_row) * stride, stride);
        if (threadIdx.x % 16 == 0 && i < n) candidates[i] = make_key(score, row);
    }
}

// Grid: [queries, blocks per query]. Dynamic shared memory: a query, stride x 4 bytes.
KERNEL(rescore, SelectParams) { rescore_query(p, blockIdx.x, p.queries.counts[blockIdx.x]); }

// Replaces a query's best keys by the best k of them and of `keys`, sorted. Sets the threshold that
// the rows of later segments must reach.
DEVICE void merge_best(const ScanQueries& q, uint32_t query, const uint64_t* keys,
                       uint32_t n_keys) {
    DYNAMIC_SHARED(uint64_t, taken);
    SHARED uint32_t n_taken;
    uint64_t* const best = q.best + static_cast<size_t>(query) * q.k;
    const uint32_t n_best = q.n_best[query], n = n_keys + n_best;
    // Few keys are sorted without a selection.
    const bool few = n <= FEW_KEYS;
    uint32_t size = 1;
    while (size < (few ? n : q.k)) size *= 2;
    for (uint32_t i = threadIdx.x; i < size; i += SELECT_THREADS) taken[i] = NO_KEY;
    if (threadIdx.x == 0) n_taken = 0;
    block_barrier();
    const auto each_key = [&](const auto& take) {
        for (uint32_t i = threadIdx.x; i < n; i += SELECT_THREADS) {
            const uint64_t key = i < n_keys ? keys[i] : best[i - n_keys];
            if (key != NO_KEY) take(key);
        }
    };
    // The least key that is taken. No two keys are equal: select by score, then by row among ties.
    uint64_t least = 1;
    if (!few) {
        const auto each_score = [&](const auto& take) {
            each_key([&](uint64_t key) { take(key_score(key)); });
        };
        const Range range = range_of(each_score);
        if (range.count > q.k) {
            const Kth kth = kth_largest(q.k, range, each_score);
            const auto each_tied = [&](const auto& take) {
                each_key([&](uint64_t key) {
                    if (key_score(key) == kth.value) take(static_cast<uint32_t>(key));
                });
            };
            least = static_cast<uint64_t>(kth.value) << 32 |
                    kth_largest(q.k - kth.above, range_of(each_tied), each_tied).value;
        }
    }
    each_key([&](uint64_t key) {
        if (key >= least) taken[atomicAdd(&n_taken, 1u)] = key;
    });
    sort_descending(taken, size);
    const uint32_t n_kept = n_taken < q.k ? n_taken : q.k;
    for (uint32_t i = threadIdx.x; i < n_kept; i += SELECT_THREADS) best[i] = taken[i];
    if (threadIdx.x != 0) return;
    q.n_best[query] = n_kept;
    q.counts[query] = 0;
    q.thresholds[query] =
        n_kept < q.k ? -INFINITE
                     : round_down(scale_by_power(from_ordered_bits(key_score(taken[q.k - 1])),
                                                 q.exponents[query]) -
                                  q.errors[query]);
}

DEVICE void select_query(const SelectParams& p, uint32_t query, uint32_t n) {
    const ScanQueries& q = p.queries;
    merge_best(q, query, q.candidates + static_cast<size_t>(query) * q.capacity, n);
}

// Merges the rescored candidates into the best keys. Grid: [queries]. Dynamic shared memory: 8
// bytes per key to sort, for k rounded up to a power of two, at least FEW_KEYS.
KERNEL(select_top_k, SelectParams) { select_query(p, blockIdx.x, p.queries.counts[blockIdx.x]); }

// prune, rescore and select_top_k in one, if one block per query is enough. Grid: [queries].
// Dynamic shared memory: the most that one of the three needs.
KERNEL_FOR(prune_rescore_select, SelectParams, SELECT_THREADS, 6) {
    const uint32_t query = blockIdx.x, n = prune_query(p, query);
    block_barrier();
    rescore_query(p, query, n);
    block_barrier();
    select_query(p, query, n);
}

// Canonical keys of one query for all positions in [begin, end); NO_KEY for rows outside its mask.
// Grid: any number of blocks. Dynamic shared memory: a query, stride x 4 bytes.
KERNEL(score_all, ScoreAllParams) {
    DYNAMIC_SHARED(float, values);
    const uint32_t stride = p.rows.stride;
    load_query(p.queries, p.query, stride, values);
    block_barrier();
    for (uint32_t start = p.begin + blockIdx.x * ROWS_AT_A_TIME; start < p.end;
         start += gridDim.x * ROWS_AT_A_TIME) {
        const uint32_t position = start + threadIdx.x / 16;
        const uint32_t clamped = position < p.end ? position : p.end - 1;
        const uint32_t row = p.rows.list ? p.rows.list[clamped] : clamped;
        const float score =
            canonical_score(values, p.rows.values + static_cast<size_t>(row) * stride, stride);
        if (threadIdx.x % 16 == 0 && position < p.end)
            p.keys[position - p.begin] =
                is_in_mask(p.rows, p.query, row) ? make_key(score, p.rows.first_row + row) : NO_KEY;
    }
}

// Merges the keys of score_all into the best keys of one query. One block. Dynamic shared memory as
// select_top_k.
KERNEL(merge_keys, MergeParams) { merge_best(p.queries, p.query, p.keys, p.n_keys); }
