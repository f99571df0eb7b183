// What kernels ask of the machine: warp collectives, matrix products, asynchronous copies.
//
// Compiled by nvcc these are the GPU's instructions. Compiled by a C++ compiler (tests/cuda/shim.h) they are plain functions over
// fibres, so that the very same kernels run on a CPU under test.
#pragma once

#include <stdint.h>

#ifdef __CUDACC__

#include <cuda_fp16.h>

#define KERNEL(name, Params) extern "C" __global__ void name(const __grid_constant__ Params p)
// Whether a multiprocessor has shared memory for two blocks of 96 KiB, which then may have half of the registers each.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900 && __CUDA_ARCH__ < 1200
constexpr int TILE_BLOCKS = 2;
#else
constexpr int TILE_BLOCKS = 1;
#endif

// With registers for so many blocks on a multiprocessor at a time.
#define KERNEL_FOR(name, Params, threads, blocks) extern "C" __global__ void __launch_bounds__(threads, blocks) name(const __grid_constant__ Params p)
#define DEVICE __device__ __forceinline__
#define HOST_DEVICE __host__ __device__ __forceinline__
#define SHARED __shared__
#define DYNAMIC_SHARED(Type, name) Type* const name = reinterpret_cast<Type*>(dynamic_shared)

extern __shared__ __align__(1024) unsigned char dynamic_shared[];

constexpr unsigned WHOLE_WARP = 0xffffffffu;

template <class T> DEVICE T warp_down(T value, int lanes, int width = 32) { return __shfl_down_sync(WHOLE_WARP, value, lanes, width); }
template <class T> DEVICE T warp_up(T value, int lanes) { return __shfl_up_sync(WHOLE_WARP, value, lanes); }
template <class T> DEVICE T warp_xor(T value, int lanes) { return __shfl_xor_sync(WHOLE_WARP, value, lanes); }
template <class T> DEVICE T warp_from(T value, int lane) { return __shfl_sync(WHOLE_WARP, value, lane); }
DEVICE bool warp_any(bool yes) { return __any_sync(WHOLE_WARP, yes); }
DEVICE void warp_barrier() { __syncwarp(); }
DEVICE void block_barrier() { __syncthreads(); }
DEVICE int leading_zeros(uint32_t value) { return __clz(static_cast<int>(value)); }
DEVICE int ones(uint32_t value) { return __popc(value); }
DEVICE int ones(uint64_t value) { return __popcll(value); }
DEVICE uint32_t float_bits(float value) { return __float_as_uint(value); }
DEVICE float bits_float(uint32_t bits) { return __uint_as_float(bits); }
DEVICE float half_value(uint16_t bits) { return __half2float(__ushort_as_half(bits)); }
DEVICE uint16_t to_half(double value) { return __half_as_ushort(__double2half(value)); }
// Two values, the first in the low half; what a half does not reach becomes the largest one.
DEVICE uint32_t pack_halves(float low, float high) {
    constexpr float MOST = 65504.0f;
    const __half2 pair = __floats2half2_rn(fminf(fmaxf(low, -MOST), MOST), fminf(fmaxf(high, -MOST), MOST));
    return *reinterpret_cast<const uint32_t*>(&pair);
}
DEVICE float round_up(double value) { return __double2float_ru(value); }
DEVICE float round_down(double value) { return __double2float_rd(value); }
// The integer at or below it, or the nearest one that there is.
DEVICE int32_t integer_below(float value) { return __float2int_rd(value); }
DEVICE double multiply_add(double a, double b, double c) { return __fma_rn(a, b, c); }
DEVICE double scale_by_power(double value, int power) { return scalbn(value, power); }
DEVICE double round_to_integer(double value) { return rint(value); }
DEVICE int exponent_of(double value) { return ilogb(value); }

// Rows are read once: past the first-level cache, and the first to leave the second.
DEVICE uint4 load_stream(const uint4* from) {
    uint4 v;
    asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];" : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "l"(from));
    return v;
}

// d += a b for a 16 x 16 tile of rows and a 16 x 8 tile of queries, halves in, float32 sums; the layout of mma.m16n8k16.
DEVICE void multiply_halves(float (&d)[4], uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3, uint32_t b0, uint32_t b1) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

// The same for a tile of 16 x 32 and one of 32 x 8 bytes, with sums of 32 bits; the layout of mma.m16n8k32.
DEVICE void multiply_bytes(int32_t (&d)[4], uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3, uint32_t b0, uint32_t b1) {
    asm volatile("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                 : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3])
                 : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

// Four squares of 8 x 8 halves from shared memory, each turned over; lane l says where row l mod 8 of square l / 8 begins.
DEVICE void load_turned(uint32_t (&to)[4], const void* row) {
    const unsigned address = static_cast<unsigned>(__cvta_generic_to_shared(row));
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];" : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3]) : "r"(address) : "memory");
}

// 16 bytes from global to shared memory, or 16 zeros; done when the thread has waited for the group it was committed in.
DEVICE void copy_async(void* to, const void* from, bool zeros) {
    const unsigned address = static_cast<unsigned>(__cvta_generic_to_shared(to));
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(address), "l"(from), "r"(zeros ? 0 : 16) : "memory");
}
DEVICE void commit_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int PENDING> DEVICE void wait_copies() { asm volatile("cp.async.wait_group %0;" ::"n"(PENDING) : "memory"); }

// What follows is Hopper's alone; elsewhere it is nothing, and no kernel that needs it is launched.

// Lets warpgroups see what this thread's copies brought.
DEVICE void publish_copies() {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
#endif
}
// Between what a thread did with its sums and products that add to them.
DEVICE void begin_products() {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
#endif
}
DEVICE void commit_products() {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
#endif
}
template <int PENDING> DEVICE void wait_products() {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(PENDING) : "memory");
#endif
}
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
// Rows of 128 swizzled bytes, eight of them 1,024 bytes on end.
DEVICE uint64_t slab_descriptor(const void* at) {
    const uint64_t address = __cvta_generic_to_shared(at);
    return (address & 0x3ffff) >> 4 | 1ull << 16 | static_cast<uint64_t>(1024 >> 4) << 32 | 1ull << 62;
}
#endif
// sums = a b, or += a b where `add`, for 64 rows and 128 columns of 32 bytes (16 halves, or 32 bytes), begun for the warpgroup; `left` and `right` are where the first row's
// values are in shared memory. Of a lane are rows l / 4 (+ 8) of its warp's 16, and entries 8 (4 m + n) + 2 (l mod 4) + i mod 2 of the columns.
#define FOUR(kind, m, n) "+" kind(sums[m][n][0]), "+" kind(sums[m][n][1]), "+" kind(sums[m][n][2]), "+" kind(sums[m][n][3])
#define SIXTEEN(kind, m) FOUR(kind, m, 0), FOUR(kind, m, 1), FOUR(kind, m, 2), FOUR(kind, m, 3)
#define ALL_SUMS(kind) SIXTEEN(kind, 0), SIXTEEN(kind, 1), SIXTEEN(kind, 2), SIXTEEN(kind, 3)
#define MULTIPLY_SLABS(kind, instruction, more)                                                                                                                  \
    asm volatile(                                                                                                                                                \
        "{\n"                                                                                                                                                    \
        ".reg .pred add;\n"                                                                                                                                      \
        "setp.ne.b32 add, %66, 0;\n"                                                                                                                             \
        "wgmma.mma_async.sync.aligned." instruction " {"                                                                                                         \
        "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, " \
        "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63}, " \
        "%64, %65, add" more ";\n"                                                                                                                               \
        "}\n"                                                                                                                                                    \
        : ALL_SUMS(kind)                                                                                                                                         \
        : "l"(slab_descriptor(left)), "l"(slab_descriptor(right)), "r"(static_cast<int>(add)))
DEVICE void multiply_slabs(float (&sums)[4][4][4], const void* left, const void* right, bool add) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
    MULTIPLY_SLABS("f", "m64n128k16.f32.f16.f16", ", 1, 1, 0, 0");
#endif
}
DEVICE void multiply_slabs(int32_t (&sums)[4][4][4], const void* left, const void* right, bool add) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
    MULTIPLY_SLABS("r", "m64n128k32.s32.s8.s8", "");
#endif
}
// After products have been waited for: whatever is done with their sums is done after this.
DEVICE void hold_sums(float (&sums)[4][4][4]) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
    asm volatile("" : ALL_SUMS("f") : : "memory");
#endif
}
DEVICE void hold_sums(int32_t (&sums)[4][4][4]) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
    asm volatile("" : ALL_SUMS("r") : : "memory");
#endif
}
#undef MULTIPLY_SLABS
#undef ALL_SUMS
#undef SIXTEEN
#undef FOUR

#else
#include "shim.h"
#endif

// The sum over this and all lanes before it.
DEVICE uint32_t warp_sum_upto(uint32_t value) {
    const int lane = threadIdx.x % 32;
    for (int i = 1; i < 32; i *= 2) {
        const uint32_t other = warp_up(value, i);
        if (lane >= i) value += other;
    }
    return value;
}

// What two of a row's 16-byte pieces, eight rows apart, and one of a column are to a sum: two products.
DEVICE void multiply_pieces(float (&d)[4], const uint4& low, const uint4& high, const uint4& column) {
    multiply_halves(d, low.x, high.x, low.y, high.y, column.x, column.y);
    multiply_halves(d, low.z, high.z, low.w, high.w, column.z, column.w);
}
DEVICE void multiply_pieces(int32_t (&d)[4], const uint4& low, const uint4& high, const uint4& column) {
    multiply_bytes(d, low.x, high.x, low.y, high.y, column.x, column.y);
    multiply_bytes(d, low.z, high.z, low.w, high.w, column.z, column.w);
}
