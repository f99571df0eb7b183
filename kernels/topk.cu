// Exact top-k: the kernels of one chain, in the order in which they run.
//
//     prepare | prepare_planes_*   queries in half precision or in bytes, and how wrong their scores can be
//     list_rows                    the rows that pass a selective filter
//     then for every shard:
//       scan_small_* | scan_bytes_* | scan_large*  a round: approximate scores, those above the threshold become candidates
//       tighten                    the k-th best so far gives the next round's threshold; candidates below it go
//       rescore                    canonical scores of what is left
//       finish                     the best k of these and of the shards before
//       conclude                   after the last round, the three in one
//       score_all, merge           instead of all that, for a query that had too many candidates
//
// Every row whose canonical score could be among the best k stays a candidate: with |approximate - canonical| <= error, a row at
// or above (k-th approximate score - 2 error), or (k-th canonical score so far - error), stays. Results are those of src/scan/order.rs, bit for bit.

#include "measure.cuh"
#include "scan_large.cuh"
#include "scan_small.cuh"
#include "select.cuh"

// What a block finds of its query: the largest magnitude, and the power of two that brings it to 1 to 2.
DEVICE int scaling_power(const float* values, uint32_t stride, float& largest) {
    SHARED uint32_t most;
    if (threadIdx.x == 0) most = 0;
    block_barrier();
    // The bits of a positive float are in its order.
    uint32_t mine = 0;
    for (uint32_t i = threadIdx.x; i < stride; i += SELECT_THREADS) {
        const uint32_t bits = float_bits(values[i]) & 0x7fffffffu;
        mine = bits > mine ? bits : mine;
    }
    atomicMax(&most, mine);
    block_barrier();
    largest = bits_float(most);
    return most == 0 ? 0 : -exponent_of(largest);
}

// The state of a query at the start of a batch. Canonical scores may lose as much as the least number there is where they become float32; the
// last factor of the error covers the rounding that made it.
DEVICE void begin_query(const Queries& q, uint32_t query, int power, double error) {
    q.powers[query] = power;
    q.errors[query] = round_up((error + scale_by_power(1, power - 149)) * (1 + 1e-6) + 1e-30);
    q.thresholds[query] = -INFINITE;
    q.counts[query] = 0;
    q.n_best[query] = 0;
    q.flags[query] = 0;
}

// A bound on the relative error of one addition within a tensor core: they add products in groups, cut off below the largest one's
// 24 bits. 2^-21 a term leaves room for the published behaviour of every generation (Fasi et al., 2021, "Numerical behavior of
// NVIDIA tensor cores": at least 23 bits, truncated, groups of 4 to 16 terms).
constexpr double TERM_ERROR = 1.0 / (1 << 21);

KERNEL(prepare, PrepareParams) {
    const Queries& q = p.queries;
    const uint32_t query = blockIdx.x, stride = p.rows.stride;
    uint16_t* const halves = q.halves + static_cast<size_t>(query) * stride;
    if (query >= q.n) {
        for (uint32_t i = threadIdx.x; i < stride; i += SELECT_THREADS) halves[i] = 0;
        return;
    }
    const float* const values = q.values + static_cast<size_t>(query) * stride;
    float largest;
    const int power = scaling_power(values, stride, largest);
    double lost = 0, kept = 0;
    for (uint32_t i = threadIdx.x; i < stride; i += SELECT_THREADS) {
        const double exact = scale_by_power(values[i], power);
        const uint16_t half = to_half(exact);
        const double value = half_value(half);
        halves[i] = half;
        lost += (exact - value) * (exact - value);
        kept += value * value;
    }
    lost = block_sum(lost);
    kept = block_sum(kept);
    if (threadIdx.x != 0) return;
    // Cauchy and Schwarz, for what the query lost and for what the additions lose.
    begin_query(q, query, power, (sqrt(lost) + TERM_ERROR * (stride + 32) * sqrt(kept)) * q.max_norm);
}

// What integer scores lose where they become float32, relative to the norms' product: three roundings and room.
constexpr double FLOAT_ERROR = 1.0 / (1 << 20);

// As prepare, for rows in 8 bits: the query as the sum of planes of bytes, the second of what the first left over.
template <int PLANES>
DEVICE void prepare_planes(const PrepareParams& p) {
    SHARED uint32_t most_left;
    const Queries& q = p.queries;
    const uint32_t query = blockIdx.x, stride = p.rows.stride, byte_stride = p.rows.byte_stride;
    int8_t* const planes = q.planes + static_cast<size_t>(query) * PLANES * byte_stride;
    if (query >= q.n) {
        for (uint32_t i = threadIdx.x; i < PLANES * byte_stride; i += SELECT_THREADS) planes[i] = 0;
        return;
    }
    const float* const values = q.values + static_cast<size_t>(query) * stride;
    float largest;
    const int power = scaling_power(values, stride, largest);
    // Of two planes the first need not be exact; a single one has as fine a step as there can be.
    const float first_step = PLANES == 2 || largest == 0 ? 2.0f / 127 : round_up(scale_by_power(largest, power) / 127);
    if (threadIdx.x == 0) most_left = 0;
    block_barrier();
    const auto left_at = [&](uint32_t i, int& first) {
        const double exact = scale_by_power(values[i], power);
        first = static_cast<int>(round_to_integer(exact / first_step));
        return exact - static_cast<double>(first_step) * first;
    };
    if (PLANES == 2) {
        float most = 0;
        for (uint32_t i = threadIdx.x; i < stride; i += SELECT_THREADS) {
            int first;
            const double left = left_at(i, first);
            const float magnitude = round_up(left < 0 ? -left : left);
            most = magnitude > most ? magnitude : most;
        }
        atomicMax(&most_left, float_bits(most));
        block_barrier();
    }
    const float second_step = bits_float(most_left) / 127;
    double lost = 0, kept = 0;
    for (uint32_t i = threadIdx.x; i < byte_stride; i += SELECT_THREADS) {
        int first = 0, second = 0;
        if (i < stride) {
            const double left = left_at(i, first);
            if (second_step > 0) second = static_cast<int>(round_to_integer(left / second_step));
            const double last = left - static_cast<double>(second_step) * second;
            const double value = static_cast<double>(first_step) * first + static_cast<double>(second_step) * second;
            lost += last * last;
            kept += value * value;
        }
        planes[i] = static_cast<int8_t>(first);
        if (PLANES == 2) planes[byte_stride + i] = static_cast<int8_t>(second);
    }
    lost = block_sum(lost);
    kept = block_sum(kept);
    if (threadIdx.x != 0) return;
    q.steps[query * 2] = first_step;
    q.steps[query * 2 + 1] = second_step;
    // Cauchy and Schwarz, for what the row lost and for what the query did; src/scan/cpu/query.rs has it at length.
    const double bytes_norm = static_cast<double>(q.max_norm) + p.rows.max_residual;
    begin_query(q, query, power, sqrt(kept) * p.rows.max_residual + sqrt(lost) * q.max_norm + FLOAT_ERROR * sqrt(kept) * bytes_norm);
}

KERNEL(prepare_planes_1, PrepareParams) { prepare_planes<1>(p); }
KERNEL(prepare_planes_2, PrepareParams) { prepare_planes<2>(p); }

KERNEL(list_rows, ListParams) {
    SHARED uint32_t place;
    const uint32_t word = blockIdx.x * SELECT_THREADS + threadIdx.x;
    uint32_t bits = word * 32 < p.n_rows ? p.mask[word] : 0, total;
    const uint32_t mine = ones(bits), upto = inclusive_sum(mine, total);
    if (threadIdx.x == 0) place = atomicAdd(p.n_listed, total);
    block_barrier();
    uint32_t* to = p.list + place + upto - mine;
    for (; bits; bits &= bits - 1) *to++ = word * 32 + 31 - leading_zeros(bits & (~bits + 1));
}

KERNEL(scan_small_1, ScanParams) { scan_few<Halves, 1, 1>(p); }
KERNEL(scan_small_2, ScanParams) { scan_few<Halves, 1, 2>(p); }
KERNEL(scan_small_4, ScanParams) { scan_few<Halves, 1, 4>(p); }
KERNEL(scan_small_8, ScanParams) { scan_few<Halves, 1, 8>(p); }
KERNEL(scan_bytes_1, ScanParams) { scan_few<Bytes, 2, 1>(p); }
KERNEL(scan_bytes_2, ScanParams) { scan_few<Bytes, 2, 2>(p); }
KERNEL(scan_bytes_4, ScanParams) { scan_few<Bytes, 2, 4>(p); }
KERNEL_FOR(scan_large, ScanParams, TILE_THREADS, TILE_BLOCKS) { scan_many<Halves>(p); }
KERNEL_FOR(scan_large_bytes, ScanParams, TILE_THREADS, TILE_BLOCKS) { scan_many<Bytes>(p); }
KERNEL_FOR(scan_large_hopper, ScanParams, TILE_THREADS, 1) { scan_many_hopper<Halves, true>(p); }
KERNEL_FOR(scan_large_hopper_wide, ScanParams, TILE_THREADS, 1) { scan_many_hopper<Halves, false>(p); }
KERNEL_FOR(scan_large_hopper_bytes, ScanParams, TILE_THREADS, 1) { scan_many_hopper<Bytes, true>(p); }
KERNEL_FOR(scan_large_hopper_bytes_wide, ScanParams, TILE_THREADS, 1) { scan_many_hopper<Bytes, false>(p); }

// The canonical score, by 16 lanes: each sums in float64 the products of its place mod 16, then lanes 8, 4, 2 and 1 apart are added.
// The first of the lanes has it.
DEVICE float canonical_score(const float* query, const uint16_t* row, uint32_t stride) {
    double sum = 0;
    // So many values of the row are on their way at a time.
    constexpr uint32_t AT_ONCE = 8;
    for (uint32_t start = threadIdx.x % 16; start < stride; start += AT_ONCE * 16) {
        uint16_t values[AT_ONCE];
#pragma unroll
        for (uint32_t i = 0; i < AT_ONCE; i++) values[i] = start + i * 16 < stride ? row[start + i * 16] : 0;
#pragma unroll
        for (uint32_t i = 0; i < AT_ONCE; i++)
            if (start + i * 16 < stride) sum = multiply_add(query[start + i * 16], half_value(values[i]), sum);
    }
    for (int i = 8; i > 0; i /= 2) sum += warp_down(sum, i, 16);
    return static_cast<float>(sum) + 0.0f;
}

// Keys that a thread holds: of [n], those at its place and every SELECT_THREADS further; NO_KEY where there are none.
struct HeldKeys {
    static constexpr uint32_t PER_THREAD = 4, ALL = PER_THREAD * SELECT_THREADS;
    uint64_t keys[PER_THREAD];

    DEVICE void load(const uint64_t* from, uint32_t n) {
#pragma unroll
        for (uint32_t i = 0; i < PER_THREAD; i++) keys[i] = i * SELECT_THREADS + threadIdx.x < n ? from[i * SELECT_THREADS + threadIdx.x] : NO_KEY;
    }
};

// The least canonical score, scaled as approximate ones are, of k candidates whose approximate score is at least `kth`. The k-th of all canonical scores is no
// less, and mostly nearer to this than the error bound tells.
template <class Each>
DEVICE double least_canonical(const SelectParams& p, uint32_t query, uint32_t kth, const Each& each_key) {
    DYNAMIC_SHARED(float, values);
    SHARED uint32_t n_chosen, least;
    const Queries& q = p.queries;
    const uint32_t stride = p.rows.stride;
    uint32_t* const chosen = reinterpret_cast<uint32_t*>(values + stride);
    if (threadIdx.x == 0) n_chosen = 0, least = ~0u;
    for (uint32_t i = threadIdx.x; i < stride; i += SELECT_THREADS) values[i] = q.values[static_cast<size_t>(query) * stride + i];
    block_barrier();
    each_key([&](uint64_t key) {
        if (key_score(key) < kth) return;
        const uint32_t place = atomicAdd(&n_chosen, 1u);
        if (place < q.k) chosen[place] = key_row(key) - p.rows.first_row;
    });
    block_barrier();
    for (uint32_t start = 0; start < q.k; start += SELECT_THREADS / 16) {
        const uint32_t i = start + threadIdx.x / 16;
        const uint32_t row = chosen[i < q.k ? i : q.k - 1];
        const float score = canonical_score(values, p.rows.values + static_cast<size_t>(row) * stride, stride);
        if (threadIdx.x % 16 == 0 && i < q.k) atomicMin(&least, ordered(score));
    }
    block_barrier();
    return scale_by_power(from_ordered(least), q.powers[query]);
}

// Drops the candidates that cannot be among the best k, and says how many are left; what later ones must reach is noted.
DEVICE uint32_t tighten_query(const SelectParams& p, uint32_t query) {
    const Queries& q = p.queries;
    uint64_t* const candidates = q.candidates + static_cast<size_t>(query) * q.capacity;
    const uint32_t n = p.n_direct ? p.n_direct : q.counts[query];
    float threshold = q.thresholds[query];
    block_barrier();
    if (n > q.capacity) {
        if (threadIdx.x == 0) {
            q.flags[query] = 1;
            q.counts[query] = 0;
            q.thresholds[query] = INFINITE;
        }
        return 0;
    }
    HeldKeys held;
    held.load(candidates, n);
    const auto each_key = [&](const auto& take) {
#pragma unroll
        for (uint32_t i = 0; i < HeldKeys::PER_THREAD; i++)
            if (held.keys[i] != NO_KEY) take(held.keys[i]);
        for (uint32_t i = HeldKeys::ALL + threadIdx.x; i < n; i += SELECT_THREADS) {
            const uint64_t key = candidates[i];
            if (key != NO_KEY) take(key);
        }
    };
    const auto scores = [&](const auto& take) { each_key([&](uint64_t key) { take(key_score(key)); }); };
    const Range range = range_of(scores);
    if (range.count >= q.k) {
        const uint32_t kth = kth_largest(q.k, range, scores).value;
        const double least = p.second_look ? least_canonical(p, query, kth, each_key) : from_ordered(kth) - static_cast<double>(q.errors[query]);
        const float reached = round_down(least - q.errors[query]);
        threshold = reached > threshold ? reached : threshold;
    }
    const auto stays = [&](uint64_t key) { return key != NO_KEY && from_ordered(key_score(key)) >= threshold; };
    uint32_t kept = 0;
    for (uint32_t start = 0; start < n; start += HeldKeys::ALL) {
        if (start > 0) held.load(candidates + start, n - start);
        uint32_t mine = 0, total;
#pragma unroll
        for (uint32_t i = 0; i < HeldKeys::PER_THREAD; i++) mine += stays(held.keys[i]);
        // Its barriers stand between the reading of these keys and their being written over.
        uint64_t* to = candidates + kept + inclusive_sum(mine, total) - mine;
#pragma unroll
        for (uint32_t i = 0; i < HeldKeys::PER_THREAD; i++)
            if (stays(held.keys[i])) *to++ = held.keys[i];
        kept += total;
    }
    if (threadIdx.x == 0) {
        q.counts[query] = kept;
        q.thresholds[query] = threshold;
    }
    return kept;
}

KERNEL_FOR(tighten, SelectParams, SELECT_THREADS, 6) { tighten_query(p, blockIdx.x); }

// Gives the query's n candidates, or this block's share of them, their canonical scores.
DEVICE void rescore_query(const SelectParams& p, uint32_t query, uint32_t n) {
    DYNAMIC_SHARED(float, values);
    const Queries& q = p.queries;
    const uint32_t stride = p.rows.stride;
    uint64_t* const candidates = q.candidates + static_cast<size_t>(query) * q.capacity;
    for (uint32_t i = threadIdx.x; i < stride; i += SELECT_THREADS) values[i] = q.values[static_cast<size_t>(query) * stride + i];
    block_barrier();
    constexpr uint32_t AT_ONCE = SELECT_THREADS / 16;
    for (uint32_t start = blockIdx.y * AT_ONCE; start < n; start += gridDim.y * AT_ONCE) {
        // Both halves of a warp go along, whether they have a row or not.
        const uint32_t i = start + threadIdx.x / 16;
        const uint32_t row = key_row(candidates[i < n ? i : n - 1]);
        const float score = canonical_score(values, p.rows.values + static_cast<size_t>(row - p.rows.first_row) * stride, stride);
        if (threadIdx.x % 16 == 0 && i < n) candidates[i] = make_key(score, row);
    }
}

KERNEL(rescore, SelectParams) { rescore_query(p, blockIdx.x, p.queries.counts[blockIdx.x]); }

// Keys that are sorted without a selection before; src/scan/cuda/params.rs has it too.
constexpr uint32_t FEW_KEYS = 512;

// Puts the best k of `keys` and of the query's best so far, sorted, in the place of the latter.
DEVICE void take_best(const Queries& q, uint32_t query, const uint64_t* keys, uint32_t n_keys) {
    DYNAMIC_SHARED(uint64_t, taken);
    SHARED uint32_t n_taken;
    uint64_t* const best = q.best + static_cast<size_t>(query) * q.k;
    const uint32_t n_best = q.n_best[query], n = n_keys + n_best;
    // So few are sorted as they are.
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
    // The least key that is taken; no two keys are equal.
    uint64_t least = 1;
    if (!few) {
        const auto scores = [&](const auto& take) { each_key([&](uint64_t key) { take(key_score(key)); }); };
        const Range range = range_of(scores);
        if (range.count > q.k) {
            const Kth kth = kth_largest(q.k, range, scores);
            const auto tied = [&](const auto& take) {
                each_key([&](uint64_t key) {
                    if (key_score(key) == kth.value) take(static_cast<uint32_t>(key));
                });
            };
            least = static_cast<uint64_t>(kth.value) << 32 | kth_largest(q.k - kth.above, range_of(tied), tied).value;
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
    // What a later shard's rows must reach.
    q.thresholds[query] = n_kept < q.k ? -INFINITE : round_down(scale_by_power(from_ordered(key_score(taken[q.k - 1])), q.powers[query]) - q.errors[query]);
}

DEVICE void finish_query(const SelectParams& p, uint32_t query, uint32_t n) {
    take_best(p.queries, query, p.queries.candidates + static_cast<size_t>(query) * p.queries.capacity, n);
}

KERNEL(finish, SelectParams) { finish_query(p, blockIdx.x, p.queries.counts[blockIdx.x]); }

// tighten, rescore and finish in one, where a block is enough for a query.
KERNEL_FOR(conclude, SelectParams, SELECT_THREADS, 6) {
    const uint32_t query = blockIdx.x, n = tighten_query(p, query);
    block_barrier();
    rescore_query(p, query, n);
    block_barrier();
    finish_query(p, query, n);
}

KERNEL(score_all, ScoreAllParams) {
    DYNAMIC_SHARED(float, values);
    const uint32_t stride = p.rows.stride;
    for (uint32_t i = threadIdx.x; i < stride; i += SELECT_THREADS) values[i] = p.queries.values[static_cast<size_t>(p.query) * stride + i];
    block_barrier();
    constexpr uint32_t AT_ONCE = SELECT_THREADS / 16;
    for (uint32_t start = p.begin + blockIdx.x * AT_ONCE; start < p.end; start += gridDim.x * AT_ONCE) {
        const uint32_t position = start + threadIdx.x / 16, there = position < p.end ? position : p.end - 1;
        const uint32_t row = p.rows.list ? p.rows.list[there] : there;
        const float score = canonical_score(values, p.rows.values + static_cast<size_t>(row) * stride, stride);
        if (threadIdx.x % 16 == 0 && position < p.end)
            p.keys[position - p.begin] = passes(p.rows, p.query, row) ? make_key(score, p.rows.first_row + row) : NO_KEY;
    }
}

KERNEL(merge, MergeParams) { take_best(p.queries, p.query, p.keys, p.n_keys); }
