// Main loop of a scan of large batches on Hopper (sm_90a): wgmma fed by TMA, warp-specialised, with
// the comparison and nearly no hits.
//
// A block keeps 128 queries in shared memory and streams tiles of 192 rows past them, 64 values at
// a time, through a pipeline of four stages. One warp (the producer) requests the tiles; two
// warpgroups (the consumers) multiply 64 queries each, so that a thread owns two queries and keeps
// their thresholds in registers. While one warpgroup compares, the other one multiplies.
#pragma once

#include <cuda.h>
#include <cuda_fp16.h>
#include <stdint.h>

namespace wgmma {

constexpr int DIM = 384;
constexpr int QUERIES = 128, ROWS = 192, SLAB = 64, SLABS = DIM / SLAB, STAGES = 4;
constexpr int QUERY_SLAB_BYTES = QUERIES * SLAB * 2, STAGE_BYTES = ROWS * SLAB * 2;
constexpr int THREADS = 128 * 3;
constexpr int SHARED_BYTES = 1024 + SLABS * QUERY_SLAB_BYTES + STAGES * STAGE_BYTES;

__device__ __forceinline__ uint32_t shared_address(const void* at) {
    return static_cast<uint32_t>(__cvta_generic_to_shared(at));
}

__device__ __forceinline__ void barrier_init(uint64_t* barrier, int count) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(barrier)),
                 "r"(count));
}
__device__ __forceinline__ void barrier_expect(uint64_t* barrier, int bytes) {
    asm volatile(
        "mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(barrier)),
        "r"(bytes)
        : "memory");
}
__device__ __forceinline__ void barrier_arrive(uint64_t* barrier) {
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_address(barrier))
                 : "memory");
}
__device__ __forceinline__ void barrier_wait(uint64_t* barrier, int parity) {
    asm volatile(
        "{\n"
        ".reg .pred done;\n"
        "again:\n"
        "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
        "@!done bra again;\n"
        "}\n" ::"r"(shared_address(barrier)),
        "r"(parity)
        : "memory");
}
// Starts a TMA copy of 64 values of the rows from `row` on, in the 128-byte swizzle.
__device__ __forceinline__ void load_box(void* to, const CUtensorMap* map, uint64_t* barrier,
                                         int value, int row) {
    asm volatile(
        "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], "
        "[%1, {%3, %4}], [%2];" ::"r"(shared_address(to)),
        "l"(map), "r"(shared_address(barrier)), "r"(value), "r"(row)
        : "memory");
}

// Matrix descriptor of rows of 128 bytes in the 128-byte swizzle, eight rows per 1,024 bytes.
__device__ __forceinline__ uint64_t descriptor(const void* at) {
    return static_cast<uint64_t>((shared_address(at) & 0x3ffff) >> 4) | 1ull << 16 |
           static_cast<uint64_t>(1024 >> 4) << 32 | 1ull << 62;
}

__device__ __forceinline__ void fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ __forceinline__ void commit() {
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}
template <int PENDING>
__device__ __forceinline__ void wait() {
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(PENDING) : "memory");
}

#define D8(i)                                                                                   \
    "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3]), "+f"(d[i + 4]), "+f"(d[i + 5]), \
        "+f"(d[i + 6]), "+f"(d[i + 7])
// d (64 queries x 192 rows) = or += a (64 x 16) b (16 x 192).
__device__ __forceinline__ void multiply(float (&d)[96], uint64_t a, uint64_t b, bool add) {
    asm volatile(
        "{\n"
        ".reg .pred p;\n"
        "setp.ne.b32 p, %98, 0;\n"
        "wgmma.mma_async.sync.aligned.m64n192k16.f32.f16.f16 {"
        "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, "
        "%20, %21, %22, %23, "
        "%24, %25, %26, %27, %28, %29, %30, %31, %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, "
        "%42, %43, %44, %45, %46, %47, "
        "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63, %64, %65, "
        "%66, %67, %68, %69, %70, %71, "
        "%72, %73, %74, %75, %76, %77, %78, %79, %80, %81, %82, %83, %84, %85, %86, %87, %88, %89, "
        "%90, %91, %92, %93, %94, %95}, "
        "%96, %97, p, 1, 1, 0, 0;\n"
        "}\n"
        : D8(0), D8(8), D8(16), D8(24), D8(32), D8(40), D8(48), D8(56), D8(64), D8(72), D8(80),
          D8(88)
        : "l"(a), "l"(b), "r"(static_cast<int>(add)));
}
#undef D8

// counts[query] += the rows whose score reaches the query's threshold. Grid: [streams, query
// tiles]; a stream takes every gridDim.x-th tile of rows. Block: THREADS. Dynamic shared memory:
// SHARED_BYTES. DIM dimensions.
__global__ void __launch_bounds__(THREADS, 1)
    scan(const __grid_constant__ CUtensorMap rows, const __grid_constant__ CUtensorMap queries,
         const float* thresholds, uint32_t* counts, uint32_t n_rows) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
    extern __shared__ unsigned char raw[];
    unsigned char* const base =
        reinterpret_cast<unsigned char*>((reinterpret_cast<uintptr_t>(raw) + 1023) / 1024 * 1024);
    unsigned char* const stages = base + SLABS * QUERY_SLAB_BYTES;
    __shared__ uint64_t full[STAGES], empty[STAGES], queries_here;
    const int warpgroup = threadIdx.x / 128, first_query = blockIdx.y * QUERIES;
    const uint32_t n_tiles = (n_rows + ROWS - 1) / ROWS;
    if (threadIdx.x == 0) {
        for (int i = 0; i < STAGES; i++) {
            barrier_init(full + i, 1);
            barrier_init(empty + i, 2);
        }
        barrier_init(&queries_here, 1);
        asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    }
    __syncthreads();
    if (warpgroup == 0) {
        asm volatile("setmaxnreg.dec.sync.aligned.u32 40;");
        if (threadIdx.x != 0) return;
        barrier_expect(&queries_here, SLABS * QUERY_SLAB_BYTES);
        for (int slab = 0; slab < SLABS; slab++)
            load_box(base + slab * QUERY_SLAB_BYTES, &queries, &queries_here, slab * SLAB,
                     first_query);
        int step = 0;
        for (uint32_t tile = blockIdx.x; tile < n_tiles; tile += gridDim.x) {
            for (int slab = 0; slab < SLABS; slab++, step++) {
                const int stage = step % STAGES;
                // The first round of stages is empty.
                barrier_wait(empty + stage, step / STAGES % 2 ^ 1);
                barrier_expect(full + stage, STAGE_BYTES);
                load_box(stages + stage * STAGE_BYTES, &rows, full + stage, slab * SLAB,
                         static_cast<int>(tile * ROWS));
            }
        }
        return;
    }
    asm volatile("setmaxnreg.inc.sync.aligned.u32 232;");
    const int consumer = warpgroup - 1, thread = threadIdx.x % 128, lane = thread % 32;
    // Sum i of a thread: query 16 warp + lane / 4 (+ 8), row 8 (i / 4) + 2 (lane % 4) + i % 2.
    const int query = first_query + consumer * 64 + thread / 32 * 16 + lane / 4;
    const float low = thresholds[query], high = thresholds[query + 8];
    uint32_t n_low = 0, n_high = 0;
    barrier_wait(&queries_here, 0);
    int step = 0;
    for (uint32_t tile = blockIdx.x; tile < n_tiles; tile += gridDim.x) {
        float d[96];
        for (int slab = 0; slab < SLABS; slab++, step++) {
            const int stage = step % STAGES;
            barrier_wait(full + stage, step / STAGES % 2);
            const uint64_t a = descriptor(base + slab * QUERY_SLAB_BYTES + consumer * 64 * 128),
                           b = descriptor(stages + stage * STAGE_BYTES);
            fence();
#pragma unroll
            // 16 values are 32 bytes: two units of the descriptor's address.
            for (int k = 0; k < SLAB / 16; k++)
                multiply(d, a + k * 2, b + k * 2, slab > 0 || k > 0);
            commit();
            // The products of the previous step are done: its stage may be filled again.
            wait<1>();
            if (slab > 0 && thread == 0) barrier_arrive(empty + (step - 1) % STAGES);
        }
        wait<0>();
        if (thread == 0) barrier_arrive(empty + (step - 1) % STAGES);
        const uint32_t left = n_rows - tile * ROWS;
#pragma unroll
        for (int i = 0; i < 96; i++) {
            const uint32_t row = i / 4 * 8 + lane % 4 * 2 + i % 2;
            const bool is_low = i % 4 < 2;
            if (row < left && d[i] >= (is_low ? low : high)) (is_low ? n_low : n_high)++;
        }
    }
    atomicAdd(counts + query, n_low);
    atomicAdd(counts + query + 8, n_high);
#endif
}

}  // namespace wgmma
