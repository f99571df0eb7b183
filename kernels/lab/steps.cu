// From naive to fast: kernels that count the scores at or above a threshold. Each is checked
// against the first one and timed.
//
//     nvcc -std=c++17 -O3 -arch=sm_90a kernels/lab/steps.cu -o steps && ./steps [ROWS] [QUERIES]
//
// The check uses thresholds that some scores reach; the timing, thresholds that none reaches. Not
// part of the program.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <random>
#include <vector>

#include "../topk.cu"
#include "wgmma.cuh"

#define CHECK(call)                                                                            \
    do {                                                                                       \
        const cudaError_t error = (call);                                                      \
        if (error != cudaSuccess) {                                                            \
            fprintf(stderr, "%s: %s (line %d)\n", #call, cudaGetErrorString(error), __LINE__); \
            exit(1);                                                                           \
        }                                                                                      \
    } while (0)

constexpr int D = wgmma::DIM;

// Step 1: one thread per score. Grid: [rows / 256, queries].
__global__ void naive(const half* rows, const half* queries, const float* thresholds,
                      uint32_t* counts, uint32_t n_rows) {
    const uint32_t row = blockIdx.x * blockDim.x + threadIdx.x, query = blockIdx.y;
    if (row >= n_rows) return;
    float sum = 0;
    for (int i = 0; i < D; i++)
        sum += __half2float(rows[static_cast<size_t>(row) * D + i]) *
               __half2float(queries[query * D + i]);
    if (sum >= thresholds[query]) atomicAdd(counts + query, 1);
}

// Step 2: one warp per row, so that loads are coalesced; one query after the other.
__global__ void warp_per_row(const half* rows, const half* queries, const float* thresholds,
                             uint32_t* counts, uint32_t n_rows, uint32_t n_queries) {
    const uint32_t row = (blockIdx.x * blockDim.x + threadIdx.x) / 32, lane = threadIdx.x % 32;
    if (row >= n_rows) return;
    float values[D / 32];
    for (int i = 0; i < D / 32; i++)
        values[i] = __half2float(rows[static_cast<size_t>(row) * D + i * 32 + lane]);
    for (uint32_t query = 0; query < n_queries; query++) {
        float sum = 0;
        for (int i = 0; i < D / 32; i++)
            sum += values[i] * __half2float(queries[query * D + i * 32 + lane]);
        for (int i = 16; i > 0; i /= 2) sum += __shfl_xor_sync(~0u, sum, i);
        if (lane == 0 && sum >= thresholds[query]) atomicAdd(counts + query, 1);
    }
}

template <class T>
T* on_device(const std::vector<T>& values) {
    T* to;
    CHECK(cudaMalloc(&to, values.size() * sizeof(T)));
    CHECK(cudaMemcpy(to, values.data(), values.size() * sizeof(T), cudaMemcpyHostToDevice));
    return to;
}

CUtensorMap tensor_map(const half* values, uint64_t n, uint32_t box_rows) {
    typedef CUresult (*Encode)(CUtensorMap*, CUtensorMapDataType, cuuint32_t, void*,
                               const cuuint64_t*, const cuuint64_t*, const cuuint32_t*,
                               const cuuint32_t*, CUtensorMapInterleave, CUtensorMapSwizzle,
                               CUtensorMapL2promotion, CUtensorMapFloatOOBfill);
    void* encode = nullptr;
    cudaDriverEntryPointQueryResult found;
    CHECK(cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &encode, 12000,
                                           cudaEnableDefault, &found));
    CUtensorMap map;
    const cuuint64_t sizes[2] = {D, n}, strides[1] = {D * 2};
    const cuuint32_t box[2] = {wgmma::SLAB, box_rows}, steps[2] = {1, 1};
    const CUresult result = reinterpret_cast<Encode>(encode)(
        &map, CU_TENSOR_MAP_DATA_TYPE_FLOAT16, 2, const_cast<half*>(values), sizes, strides, box,
        steps, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
        CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
    if (result != CUDA_SUCCESS) {
        fprintf(stderr, "cuTensorMapEncodeTiled: %d\n", result);
        exit(1);
    }
    return map;
}

int main(int argc, char** argv) {
    const uint32_t n_rows = argc > 1 ? atoi(argv[1]) : 1000000,
                   n_queries = argc > 2 ? atoi(argv[2]) : 1024;
    if (n_queries % QUERY_TILE != 0) {
        fprintf(stderr, "QUERIES must be a multiple of %d\n", QUERY_TILE);
        return 2;
    }
    std::mt19937 random(1);
    std::normal_distribution<float> normal(0, 1 / sqrtf(D));
    // Values repeat with an offset: cheap to make, and no kernel gains from it.
    std::vector<half> row_values(static_cast<size_t>(n_rows) * D), query_values(n_queries * D);
    std::vector<half> some(1 << 22);
    for (half& v : some) v = __float2half(normal(random));
    for (size_t i = 0; i < row_values.size(); i++)
        row_values[i] = some[(i + i / some.size() * 385) % some.size()];
    for (half& v : query_values) v = __float2half(normal(random));
    const half* const rows = on_device(row_values);
    const half* const queries = on_device(query_values);
    // About four standard deviations of a score.
    float* const thresholds = on_device(std::vector<float>(n_queries, 0.2f));
    float* const unreachable = on_device(std::vector<float>(n_queries, 1e30f));
    uint32_t* const counts = on_device(std::vector<uint32_t>(n_queries));
    int processors;
    CHECK(cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, 0));

    ScanParams p = {};
    p.rows.values = reinterpret_cast<const uint16_t*>(rows);
    p.rows.n_positions = n_rows;
    p.rows.stride = D;
    p.queries.f16 = const_cast<uint16_t*>(reinterpret_cast<const uint16_t*>(queries));
    p.queries.counts = counts;
    p.queries.n = n_queries;
    // Candidates are counted; none is kept.
    p.queries.candidates = nullptr;
    p.queries.capacity = 0;
    p.n_tiles = p.end = (n_rows + TILE - 1) / TILE;
    p.tile_step = 1;
    // Hits per warp; the program makes the buffer as large as the device allows.
    p.hits_per_warp = 64;
    const int small_bytes = 64 * D * 2 + SMALL_THREADS / 32 * p.hits_per_warp * sizeof(Hit),
              hopper_bytes = hopper_shared_bytes(true, HOPPER_STAGES, D / 64) +
                             TILE_THREADS / 32 * p.hits_per_warp * sizeof(Hit);
    const CUtensorMap row_map = tensor_map(rows, n_rows, wgmma::ROWS),
                      query_map = tensor_map(queries, n_queries, wgmma::QUERIES);
    CHECK(cudaFuncSetAttribute(scan_large_f16, cudaFuncAttributeMaxDynamicSharedMemorySize,
                               TILE_SHARED_BYTES));
    CHECK(cudaFuncSetAttribute(scan_small_f16_64, cudaFuncAttributeMaxDynamicSharedMemorySize,
                               small_bytes));
    CHECK(cudaFuncSetAttribute(scan_large_f16_hopper, cudaFuncAttributeMaxDynamicSharedMemorySize,
                               hopper_bytes));
    CHECK(cudaFuncSetAttribute(wgmma::scan, cudaFuncAttributeMaxDynamicSharedMemorySize,
                               wgmma::SHARED_BYTES));

    struct Step {
        const char* name;
        uint32_t most_queries;
        std::function<void(const float*, uint32_t)> run;
    };
    const Step steps[] = {
        {"thread per score", 64,
         [&](const float* t, uint32_t n) {
             naive<<<dim3((n_rows + 255) / 256, n), 256>>>(rows, queries, t, counts, n_rows);
         }},
        {"warp per row", 64,
         [&](const float* t, uint32_t n) {
             warp_per_row<<<(n_rows + 7) / 8, 256>>>(rows, queries, t, counts, n_rows, n);
         }},
        {"scan_small_f16_64", 64,
         [&](const float* t, uint32_t n) {
             p.queries.n = n;
             p.queries.thresholds = const_cast<float*>(t);
             scan_small_f16_64<<<dim3(processors * 2, (n + 63) / 64), SMALL_THREADS, small_bytes>>>(
                 p);
         }},
        {"scan_large_f16", ~0u,
         [&](const float* t, uint32_t n) {
             p.queries.n = n;
             p.queries.thresholds = const_cast<float*>(t);
             scan_large_f16<<<p.n_tiles*((n + QUERY_TILE - 1) / QUERY_TILE), TILE_THREADS,
                              TILE_SHARED_BYTES>>>(p);
         }},
        {"scan_large_f16_hopper", ~0u,
         [&](const float* t, uint32_t n) {
             p.queries.n = n;
             p.queries.thresholds = const_cast<float*>(t);
             const uint32_t tiles = (n + QUERY_TILE - 1) / QUERY_TILE,
                            streams = std::max(1u, processors / tiles);
             scan_large_f16_hopper<<<tiles * streams, TILE_THREADS, hopper_bytes>>>(p);
         }},
        {"wgmma and TMA", ~0u,
         [&](const float* t, uint32_t n) {
             const uint32_t tiles = (n + wgmma::QUERIES - 1) / wgmma::QUERIES;
             const uint32_t slabs = (processors + tiles - 1) / tiles;
             wgmma::scan<<<dim3(slabs, tiles), wgmma::THREADS, wgmma::SHARED_BYTES>>>(
                 row_map, query_map, t, counts, n_rows);
         }},
    };
    std::vector<uint32_t> expected(n_queries), found(n_queries);
    cudaEvent_t start, stop;
    CHECK(cudaEventCreate(&start));
    CHECK(cudaEventCreate(&stop));
    bool all_equal = true;
    printf(
        "%u rows of %d values\n| step | queries | ms | GB/s of rows | TFLOP/s | queries whose "
        "count differs by more than 1%% |\n",
        n_rows, D);
    for (const Step& step : steps) {
        for (uint32_t n : {64u, n_queries}) {
            if (n > step.most_queries) continue;
            const auto count = [&](const Step& by, std::vector<uint32_t>& to) {
                CHECK(cudaMemset(counts, 0, n_queries * 4));
                by.run(thresholds, n);
                CHECK(cudaGetLastError());
                CHECK(cudaMemcpy(to.data(), counts, n * 4, cudaMemcpyDeviceToHost));
            };
            count(n <= 64 ? steps[0] : steps[3], expected);
            count(step, found);
            uint32_t differ = 0;
            for (uint32_t i = 0; i < n; i++)
                differ += abs(static_cast<int>(expected[i]) - static_cast<int>(found[i])) >
                          1 + expected[i] / 100;
            all_equal = all_equal && differ == 0;
            float best = 1e30f;
            for (int i = 0; i < 10; i++) {
                CHECK(cudaEventRecord(start));
                step.run(unreachable, n);
                CHECK(cudaEventRecord(stop));
                CHECK(cudaEventSynchronize(stop));
                float ms;
                CHECK(cudaEventElapsedTime(&ms, start, stop));
                best = ms < best ? ms : best;
            }
            printf("| %s | %u | %.3f | %.0f | %.0f | %u |\n", step.name, n, best,
                   n_rows * (D * 2.0) / best / 1e6, 2.0 * n_rows * n * D / best / 1e9, differ);
        }
    }
    return all_equal ? 0 : 1;
}
