// Primitives that kernels use: warp collectives, matrix products, asynchronous copies.
//
// nvcc compiles them to GPU instructions. A C++ compiler takes tests/cuda/shim.h instead, where
// they are plain functions over fibres, so that tests run the very same kernels on a CPU.
#pragma once

#include <stdint.h>

#ifdef __CUDACC__

#include <cuda_fp16.h>

// A kernel with one parameter struct `p`.
#define KERNEL(name, Params) extern "C" __global__ void name(const __grid_constant__ Params p)
// The same with registers for an occupancy of `blocks` blocks of `threads` threads per
// multiprocessor.
#define KERNEL_FOR(name, Params, threads, blocks)                 \
    extern "C" __global__ void __launch_bounds__(threads, blocks) \
        name(const __grid_constant__ Params p)

// Blocks of 96 KiB of shared memory per multiprocessor, each with its share of the registers.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900 && __CUDA_ARCH__ < 1200
constexpr int TILE_BLOCKS = 2;
#else
constexpr int TILE_BLOCKS = 1;
#endif

#define DEVICE __device__ __forceinline__
#define HOST_DEVICE __host__ __device__ __forceinline__
#define SHARED __shared__
#define DYNAMIC_SHARED(Type, name) Type* const name = reinterpret_cast<Type*>(dynamic_shared)

extern __shared__ __align__(1024) unsigned char dynamic_shared[];

constexpr unsigned FULL_WARP = 0xffffffffu;

// Warp shuffles: the value of the lane `lanes` above, below, or at lane ^ lanes; of one lane.
template <class T>
DEVICE T warp_down(T value, int lanes, int width = 32) {
    return __shfl_down_sync(FULL_WARP, value, lanes, width);
}
template <class T>
DEVICE T warp_up(T value, int lanes) {
    return __shfl_up_sync(FULL_WARP, value, lanes);
}
template <class T>
DEVICE T warp_xor(T value, int lanes) {
    return __shfl_xor_sync(FULL_WARP, value, lanes);
}
template <class T>
DEVICE T warp_broadcast(T value, int lane) {
    return __shfl_sync(FULL_WARP, value, lane);
}
DEVICE bool warp_any(bool yes) { return __any_sync(FULL_WARP, yes); }
DEVICE void warp_barrier() { __syncwarp(); }
DEVICE void block_barrier() { __syncthreads(); }

DEVICE int leading_zeros(uint32_t value) { return __clz(static_cast<int>(value)); }
DEVICE int popcount(uint32_t value) { return __popc(value); }
DEVICE int popcount(uint64_t value) { return __popcll(value); }
DEVICE uint32_t float_bits(float value) { return __float_as_uint(value); }
DEVICE float bits_float(uint32_t bits) { return __uint_as_float(bits); }
DEVICE float f16_value(uint16_t bits) { return __half2float(__ushort_as_half(bits)); }
DEVICE uint16_t to_f16(double value) { return __half_as_ushort(__double2half(value)); }
// Two values in half precision, the first in the low bits. Values beyond its range are clamped.
DEVICE uint32_t pack_f16x2(float low, float high) {
    constexpr float MOST = 65504.0f;
    const __half2 pair =
        __floats2half2_rn(fminf(fmaxf(low, -MOST), MOST), fminf(fmaxf(high, -MOST), MOST));
    return *reinterpret_cast<const uint32_t*>(&pair);
}
DEVICE float round_up(double value) { return __double2float_ru(value); }
DEVICE float round_down(double value) { return __double2float_rd(value); }
// The greatest integer that is not above `value`; clamped to 32 bits.
DEVICE int32_t floor_to_int(float value) { return __float2int_rd(value); }
DEVICE double multiply_add(double a, double b, double c) { return __fma_rn(a, b, c); }
DEVICE double scale_by_power(double value, int power) { return scalbn(value, power); }
DEVICE double round_to_integer(double value) { return rint(value); }
DEVICE int exponent_of(double value) { return ilogb(value); }

// Loads 16 bytes that are read once, past the L1 cache.
DEVICE uint4 load_stream(const uint4* from) {
    uint4 v;
    asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
                 : "l"(from));
    return v;
}

// d += a b for half-precision tiles of 16 x 16 and 16 x 8, float32 sums. Fragments as in the PTX
// ISA, mma.m16n8k16.
DEVICE void mma_f16(float (&d)[4], uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3, uint32_t b0,
                    uint32_t b1) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

// d += a b for int8 tiles of 16 x 32 and 32 x 8, int32 sums. Fragments as in mma.m16n8k32.
DEVICE void mma_int8(int32_t (&d)[4], uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3,
                     uint32_t b0, uint32_t b1) {
    asm volatile(
        "mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 "
        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3])
        : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

// Loads four 8 x 8 matrices in half precision from shared memory, each transposed. Lane l passes
// the address of row l mod 8 of matrix l / 8.
DEVICE void load_transposed(uint32_t (&to)[4], const void* row) {
    const unsigned address = static_cast<unsigned>(__cvta_generic_to_shared(row));
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"(address)
                 : "memory");
}

// Copies 16 bytes, or 16 zeros, from global to shared memory asynchronously (cp.async). The copy
// has landed when the thread has waited for the group in which it was committed.
DEVICE void copy_async(void* to, const void* from, bool zeros) {
    const unsigned address = static_cast<unsigned>(__cvta_generic_to_shared(to));
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(address), "l"(from),
                 "r"(zeros ? 0 : 16)
                 : "memory");
}
DEVICE void commit_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }
// Waits until at most PENDING groups are in flight.
template <int PENDING>
DEVICE void wait_copies() {
    asm volatile("cp.async.wait_group %0;" ::"n"(PENDING) : "memory");
}

// Hopper only. Elsewhere these are empty, and kernels that use them are not launched.

// Makes this thread's copies visible to wgmma.
DEVICE void fence_async_proxy() {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
#endif
}
// Orders a thread's accesses to its sums before the products that follow.
DEVICE void wgmma_fence() {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
#endif
}
DEVICE void wgmma_commit() {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
#endif
}
// Waits until at most PENDING groups of products are in flight.
template <int PENDING>
DEVICE void wgmma_wait() {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(PENDING) : "memory");
#endif
}
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
// Matrix descriptor of rows of 128 bytes in the 128-byte swizzle, eight rows per 1,024 bytes.
DEVICE uint64_t wgmma_descriptor(const void* at) {
    const uint64_t address = __cvta_generic_to_shared(at);
    return (address & 0x3ffff) >> 4 | 1ull << 16 | static_cast<uint64_t>(1024 >> 4) << 32 |
           1ull << 62;
}
#endif
// Starts sums = a b, or sums += a b if `add`, for a warpgroup: 64 rows and 128 columns of 32 bytes
// (16 values in half precision, 32 in int8). `left` and `right` point to the first row's and the
// first column's bytes in shared memory. Lane l has rows l / 4 and l / 4 + 8 of its warp's 16, and
// in sums[m][n][i] column 8 (4 m + n) + 2 (l mod 4) + i mod 2.
#define FOUR(kind, m, n)                                                       \
    "+" kind(sums[m][n][0]), "+" kind(sums[m][n][1]), "+" kind(sums[m][n][2]), \
        "+" kind(sums[m][n][3])
#define SIXTEEN(kind, m) FOUR(kind, m, 0), FOUR(kind, m, 1), FOUR(kind, m, 2), FOUR(kind, m, 3)
#define ALL_SUMS(kind) SIXTEEN(kind, 0), SIXTEEN(kind, 1), SIXTEEN(kind, 2), SIXTEEN(kind, 3)
#define WGMMA(kind, instruction, more)                                                      \
    asm volatile(                                                                           \
        "{\n"                                                                               \
        ".reg .pred add;\n"                                                                 \
        "setp.ne.b32 add, %66, 0;\n"                                                        \
        "wgmma.mma_async.sync.aligned." instruction                                         \
        " {%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "          \
        "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "  \
        "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "  \
        "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63}, " \
        "%64, %65, add" more                                                                \
        ";\n"                                                                               \
        "}\n"                                                                               \
        : ALL_SUMS(kind)                                                                    \
        : "l"(wgmma_descriptor(left)), "l"(wgmma_descriptor(right)), "r"(static_cast<int>(add)))
DEVICE void wgmma_multiply(float (&sums)[4][4][4], const void* left, const void* right, bool add) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
    WGMMA("f", "m64n128k16.f32.f16.f16", ", 1, 1, 0, 0");
#endif
}
DEVICE void wgmma_multiply(int32_t (&sums)[4][4][4], const void* left, const void* right,
                           bool add) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
    WGMMA("r", "m64n128k32.s32.s8.s8", "");
#endif
}
// Keeps the compiler from moving uses of the sums before the wait for their products.
DEVICE void wgmma_keep_sums(float (&sums)[4][4][4]) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
    asm volatile("" : ALL_SUMS("f") : : "memory");
#endif
}
DEVICE void wgmma_keep_sums(int32_t (&sums)[4][4][4]) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
    asm volatile("" : ALL_SUMS("r") : : "memory");
#endif
}
#undef WGMMA
#undef ALL_SUMS
#undef SIXTEEN
#undef FOUR

#else
#include "shim.h"
#endif

// The sum over this and all lower lanes.
DEVICE uint32_t warp_inclusive_sum(uint32_t value) {
    const int lane = threadIdx.x % 32;
    for (int i = 1; i < 32; i *= 2) {
        const uint32_t other = warp_up(value, i);
        if (lane >= i) value += other;
    }
    return value;
}

// The two products of a 16-byte piece of two rows, eight apart, with a piece of a column.
DEVICE void mma_pieces(float (&d)[4], const uint4& low, const uint4& high, const uint4& column) {
    mma_f16(d, low.x, high.x, low.y, high.y, column.x, column.y);
    mma_f16(d, low.z, high.z, low.w, high.w, column.z, column.w);
}
DEVICE void mma_pieces(int32_t (&d)[4], const uint4& low, const uint4& high, const uint4& column) {
    mma_int8(d, low.x, high.x, low.y, high.y, column.x, column.y);
    mma_int8(d, low.z, high.z, low.w, high.w, column.z, column.w);
}
