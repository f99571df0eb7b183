// Queries in the form that the scans read, and the error bound of each query.
//
// Every query is first scaled by the power of two that brings its largest magnitude to 1 to 2, so
// that half precision and int8 serve queries of any magnitude. Let x be the scaled query, x' what
// is stored of it, r a row and r' what the scan reads of it. By the Cauchy-Schwarz inequality
//
//     |x.r - x'.r'| <= |x - x'| |r| + |x'| |r - r'|
//
// plus the rounding errors of the sums. crates/topk/src/cpu/quantize.rs is the CPU twin.
//
// All kernels here: one block of SELECT_THREADS per query, n rounded up to QUERY_TILE blocks; the
// padding becomes zeros. No dynamic shared memory. Any stride. Launched by DeviceBatch::prepare.
#pragma once

#include "append.cuh"
#include "select.cuh"

// The exponent of the power of two that brings the query's largest magnitude to 1 to 2; `largest`
// becomes that magnitude. For all threads of the block.
DEVICE int scaling_exponent(const float* values, uint32_t stride, float& largest) {
    SHARED uint32_t most;
    if (threadIdx.x == 0) most = 0;
    block_barrier();
    // Positive floats have the order of their bits.
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

// Initial state of a query. The canonical score is rounded to float32, which costs up to 2^-149
// near zero; the factor covers the rounding of the bound itself.
DEVICE void begin_query(const ScanQueries& q, uint32_t query, int exponent, double error) {
    q.exponents[query] = exponent;
    q.errors[query] = round_up((error + scale_by_power(1, exponent - 149)) * (1 + 1e-6) + 1e-30);
    q.thresholds[query] = -INFINITE;
    q.counts[query] = 0;
    q.n_best[query] = 0;
    q.overflowed[query] = 0;
}

// Bound on the relative error of one addition in a tensor core. Tensor cores add products in groups
// and truncate below the 24 bits of the largest one. 2^-21 per term leaves room for the published
// behaviour of every generation: at least 23 bits, groups of 4 to 16 terms (Fasi et al. 2021,
// "Numerical behavior of NVIDIA tensor cores").
constexpr double TERM_ERROR = 1.0 / (1 << 21);

// Rounds queries to half precision. `values` [n, stride] in, `f16` [n rounded up, stride] out.
// Rows are read as they are, so the bound has the query's rounding and the additions.
KERNEL(prepare_f16, PrepareParams) {
    const ScanQueries& q = p.queries;
    const uint32_t query = blockIdx.x, stride = p.rows.stride;
    uint16_t* const f16 = q.f16 + static_cast<size_t>(query) * stride;
    if (query >= q.n) {
        for (uint32_t i = threadIdx.x; i < stride; i += SELECT_THREADS) f16[i] = 0;
        return;
    }
    const float* const values = q.values + static_cast<size_t>(query) * stride;
    float largest;
    const int exponent = scaling_exponent(values, stride, largest);
    // Squared norms of the rounding error and of the rounded query.
    double error = 0, norm = 0;
    for (uint32_t i = threadIdx.x; i < stride; i += SELECT_THREADS) {
        const double exact = scale_by_power(values[i], exponent);
        const uint16_t half = to_f16(exact);
        const double value = f16_value(half);
        f16[i] = half;
        error += (exact - value) * (exact - value);
        norm += value * value;
    }
    error = block_sum(error);
    norm = block_sum(norm);
    if (threadIdx.x != 0) return;
    const double bound = (sqrt(error) + TERM_ERROR * (stride + 32) * sqrt(norm)) * q.max_norm;
    begin_query(q, query, exponent, bound);
}

// Relative error of turning an exact integer sum into a float32 score: three roundings, and room.
constexpr double FLOAT_ERROR = 1.0 / (1 << 20);

// Quantizes queries to PARTS int8 vectors: the high part, the rounded query, and with PARTS = 2 the
// low part, the rounded remainder. `values` [n, stride] in, `int8` [n rounded up, PARTS,
// int8_stride] and `scales` [n, 2] out.
template <int PARTS>
DEVICE void prepare_int8(const PrepareParams& p) {
    SHARED uint32_t largest_remainder;
    const ScanQueries& q = p.queries;
    const uint32_t query = blockIdx.x, stride = p.rows.stride, int8_stride = p.rows.int8_stride;
    int8_t* const int8 = q.int8 + static_cast<size_t>(query) * PARTS * int8_stride;
    if (query >= q.n) {
        for (uint32_t i = threadIdx.x; i < PARTS * int8_stride; i += SELECT_THREADS) int8[i] = 0;
        return;
    }
    const float* const values = q.values + static_cast<size_t>(query) * stride;
    float largest;
    const int exponent = scaling_exponent(values, stride, largest);
    // With a low part the high part's scale may be fixed; alone it is as small as possible.
    const float high_scale =
        PARTS == 2 || largest == 0 ? 2.0f / 127 : round_up(scale_by_power(largest, exponent) / 127);
    if (threadIdx.x == 0) largest_remainder = 0;
    block_barrier();
    const auto remainder_at = [&](uint32_t i, int& high) {
        const double exact = scale_by_power(values[i], exponent);
        high = static_cast<int>(round_to_integer(exact / high_scale));
        return exact - static_cast<double>(high_scale) * high;
    };
    if (PARTS == 2) {
        float most = 0;
        for (uint32_t i = threadIdx.x; i < stride; i += SELECT_THREADS) {
            int high;
            const double remainder = remainder_at(i, high);
            const float magnitude = round_up(remainder < 0 ? -remainder : remainder);
            most = magnitude > most ? magnitude : most;
        }
        atomicMax(&largest_remainder, float_bits(most));
        block_barrier();
    }
    const float low_scale = bits_float(largest_remainder) / 127;
    double error = 0, norm = 0;
    for (uint32_t i = threadIdx.x; i < int8_stride; i += SELECT_THREADS) {
        int high = 0, low = 0;
        if (i < stride) {
            const double remainder = remainder_at(i, high);
            if (low_scale > 0) low = static_cast<int>(round_to_integer(remainder / low_scale));
            const double left = remainder - static_cast<double>(low_scale) * low;
            const double value =
                static_cast<double>(high_scale) * high + static_cast<double>(low_scale) * low;
            error += left * left;
            norm += value * value;
        }
        int8[i] = static_cast<int8_t>(high);
        if (PARTS == 2) int8[int8_stride + i] = static_cast<int8_t>(low);
    }
    error = block_sum(error);
    norm = block_sum(norm);
    if (threadIdx.x != 0) return;
    q.scales[query * 2] = high_scale;
    q.scales[query * 2 + 1] = low_scale;
    // Rows lose their residual, queries `error`; integer sums are exact.
    const double dequantized_norm = static_cast<double>(q.max_norm) + p.rows.max_residual;
    const double bound = sqrt(norm) * p.rows.max_residual + sqrt(error) * q.max_norm +
                         FLOAT_ERROR * sqrt(norm) * dequantized_norm;
    begin_query(q, query, exponent, bound);
}

// High part alone, for the large scan.
KERNEL(prepare_int8_1, PrepareParams) { prepare_int8<1>(p); }
// High and low part, for the small scan.
KERNEL(prepare_int8_2, PrepareParams) { prepare_int8<2>(p); }
