// kernels/platform.cuh on a CPU: the threads of a block are fibres that run in turn, and a
// collective is a point where they meet.
//
// Modelled: barriers and warp collectives (a warp or block that does not meet in full ends the
// program), shared memory, atomics, the fragments of mma.m16n8k16 with sums truncated after each
// product, and asynchronous copies. These land as late as the program allows, or at once if
// CUDA_SHIM_EAGER is set: the former shows a missing wait, the latter an overwrite of data that is
// still read.
// Not modelled: memory order between blocks, which run one after the other, and time.
#pragma once

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifdef __SSE2__
#include <emmintrin.h>
#endif

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <vector>

// Defines a kernel and registers it under its name.
#define KERNEL(name, Params)                                                      \
    static void name(const Params& p);                                            \
    static const shim::Registration registration_of_##name(                       \
        {#name, sizeof(Params),                                                   \
         [](const void* params) { name(*static_cast<const Params*>(params)); }}); \
    static void name(const Params& p)
#define KERNEL_FOR(name, Params, threads, blocks) KERNEL(name, Params)
#define DEVICE inline
#define HOST_DEVICE inline
#define SHARED static
#define DYNAMIC_SHARED(Type, name) \
    Type* const name = reinterpret_cast<Type*>(shim::dynamic_shared.data())

struct uint4 {
    uint32_t x, y, z, w;
};
struct dim3 {
    uint32_t x, y, z;
};

inline dim3 threadIdx, blockIdx, blockDim, gridDim;

namespace shim {

struct Kernel {
    const char* name;
    size_t argument;  // bytes of its parameter struct
    void (*run)(const void* params);
};
inline std::vector<Kernel>& kernels() {
    static std::vector<Kernel> all;
    return all;
}
struct Registration {
    explicit Registration(const Kernel& kernel) { kernels().push_back(kernel); }
};

inline std::vector<max_align_t> dynamic_shared;

// A point where `expected` fibres meet; each generation is one meeting.
struct Meeting {
    unsigned expected = 0, arrived = 0, generation = 0;
};
struct Warp {
    Meeting meeting;
    uint64_t slots[32];
    bool votes[2];
    uint32_t a[32][4], b[32][2];
    // Factors of a product in half precision, for each k: rows r and r + 8, and columns.
    float left[16][8][2], right[16][8];
};
struct Copy {
    void* to;
    const void* from;
    bool zeros;
};
// A warpgroup product of 64 rows and 128 columns of 32 bytes, with this thread's sums: float32 of
// half precision, or int32 of int8.
struct Product {
    float* sums;
    int32_t* integers;
    const void *left, *right;
    bool add;
};
struct Thread {
    std::vector<std::vector<Copy>> groups;  // committed, not yet landed
    std::vector<Copy> open;
    std::vector<std::vector<Product>> products;  // committed, not yet computed
    std::vector<Product> open_products;
    bool published = true;  // true if wgmma may read its copies
};
inline Meeting block;
inline std::vector<Warp> warps;
inline std::vector<Thread> threads;

void yield();  // driver.cpp
void made_progress();
[[noreturn]] void stop(const char* why);

inline void meet(Meeting& meeting) {
    const unsigned generation = meeting.generation;
    if (++meeting.arrived == meeting.expected) {
        meeting.arrived = 0;
        meeting.generation++;
        made_progress();
        return;
    }
    while (meeting.generation == generation) yield();
}

inline unsigned lane() { return threadIdx.x % 32; }
inline Warp& warp() { return warps[threadIdx.x / 32]; }

// The value of lane `from`; called by all lanes.
template <class T>
T exchange(T value, unsigned from) {
    Warp& w = warp();
    uint64_t bits = 0;
    memcpy(&bits, &value, sizeof(T));
    w.slots[lane()] = bits;
    meet(w.meeting);
    memcpy(&value, &w.slots[from], sizeof(T));
    meet(w.meeting);
    return value;
}

// Shares a lane's fragments of two matrices with all lanes.
inline Warp& bring(const uint32_t (&a)[4], const uint32_t (&b)[2]) {
    Warp& w = warp();
    memcpy(w.a[lane()], a, sizeof(a));
    memcpy(w.b[lane()], b, sizeof(b));
    meet(w.meeting);
    return w;
}

inline void land(const Copy& copy) {
    if (copy.zeros)
        memset(copy.to, 0, 16);
    else
        memcpy(copy.to, copy.from, 16);
}

inline bool eager() {
    static const bool is = getenv("CUDA_SHIM_EAGER") != nullptr;
    return is;
}

}  // namespace shim

template <class T>
T warp_down(T value, int lanes, int width = 32) {
    const int lane = static_cast<int>(shim::lane());
    return shim::exchange(value, lane % width + lanes < width ? lane + lanes : lane);
}
template <class T>
T warp_up(T value, int lanes) {
    const int lane = static_cast<int>(shim::lane());
    return shim::exchange(value, lane >= lanes ? lane - lanes : lane);
}
template <class T>
T warp_xor(T value, int lanes) {
    return shim::exchange(value, shim::lane() ^ lanes);
}
template <class T>
T warp_broadcast(T value, int lane) {
    return shim::exchange(value, lane);
}
DEVICE bool warp_any(bool yes) {
    shim::Warp& w = shim::warp();
    // The next vote uses the other slot: a lane that gets there has read this one.
    bool& any = w.votes[w.meeting.generation % 2];
    if (w.meeting.arrived == 0) any = false;
    any = any || yes;
    shim::meet(w.meeting);
    return any;
}
DEVICE void warp_barrier() { shim::meet(shim::warp().meeting); }
DEVICE void block_barrier() { shim::meet(shim::block); }
DEVICE int leading_zeros(uint32_t value) { return value ? __builtin_clz(value) : 32; }
DEVICE int popcount(uint32_t value) { return __builtin_popcount(value); }
DEVICE int popcount(uint64_t value) { return __builtin_popcountll(value); }

DEVICE uint32_t float_bits(float value) {
    uint32_t bits;
    memcpy(&bits, &value, 4);
    return bits;
}
DEVICE float bits_float(uint32_t bits) {
    float value;
    memcpy(&value, &bits, 4);
    return value;
}
DEVICE float f16_value(uint16_t bits) {
    static const std::vector<float> values = [] {
        std::vector<float> values(1 << 16);
        for (unsigned half = 0; half < values.size(); half++) {
            const int exponent = half >> 10 & 31, fraction = half & 1023;
            const float size = exponent ? std::ldexp(1024.0f + fraction, exponent - 25)
                                        : std::ldexp(static_cast<float>(fraction), -24);
            values[half] = half >> 15 ? -size : size;
        }
        return values;
    }();
    return values[bits];
}
// Rounds to nearest, ties to even, for |value| up to 65504.
DEVICE uint16_t to_f16(double value) {
    const double size = std::fabs(value);
    const int exponent = size < 0x1p-14 ? -14 : std::ilogb(size);
    const uint32_t steps = static_cast<uint32_t>(std::nearbyint(std::ldexp(size, 10 - exponent)));
    // A carry into the exponent gives the right bits.
    const uint32_t bits =
        size < 0x1p-14 ? steps : (static_cast<uint32_t>(exponent + 15) << 10) + steps - 1024;
    return static_cast<uint16_t>(bits | (std::signbit(value) ? 0x8000u : 0u));
}
DEVICE uint32_t pack_f16x2(float low, float high) {
    const auto half = [](float value) {
        return to_f16(std::fmin(std::fmax(value, -65504.0f), 65504.0f));
    };
    return half(low) | static_cast<uint32_t>(half(high)) << 16;
}
DEVICE float round_up(double value) {
    const float near = static_cast<float>(value);
    return near < value ? std::nextafterf(near, INFINITY) : near;
}
DEVICE float round_down(double value) {
    const float near = static_cast<float>(value);
    return near > value ? std::nextafterf(near, -INFINITY) : near;
}
DEVICE int32_t floor_to_int(float value) {
    return static_cast<int32_t>(std::floor(std::fmin(std::fmax(value, -0x1p31f), 0x1.fffffep30f)));
}
DEVICE double multiply_add(double a, double b, double c) { return std::fma(a, b, c); }
DEVICE double scale_by_power(double value, int power) { return std::ldexp(value, power); }
DEVICE double round_to_integer(double value) { return std::nearbyint(value); }
DEVICE int exponent_of(double value) { return std::ilogb(value); }

template <class T>
T atomicAdd(T* at, T value) {
    const T before = *at;
    *at += value;
    return before;
}
template <class T>
void atomicMin(T* at, T value) {
    if (value < *at) *at = value;
}
template <class T>
void atomicMax(T* at, T value) {
    if (value > *at) *at = value;
}

DEVICE uint4 load_stream(const uint4* from) { return *from; }

namespace shim {

// Adds 16 products each to d, the sums of two rows and two columns. Products of half precision are
// exact in float32. A tensor core truncates below the 24 bits of a sum; here after every product,
// which is more than any tensor core does.
inline void add_products(float* d, const float* left, size_t left_stride, const float* right,
                         size_t right_stride) {
#ifdef __SSE2__
    const unsigned rounding = _mm_getcsr();
    _mm_setcsr(rounding | 0x6000);
    __m128 sums = _mm_loadu_ps(d);
    asm volatile("" : "+x"(sums) : : "memory");
    for (unsigned k = 0; k < 16; k++) {
        const __m128 rows =
            _mm_castpd_ps(_mm_load_sd(reinterpret_cast<const double*>(left + k * left_stride)));
        const __m128 columns =
            _mm_castpd_ps(_mm_load1_pd(reinterpret_cast<const double*>(right + k * right_stride)));
        sums = _mm_add_ps(sums, _mm_mul_ps(_mm_unpacklo_ps(rows, rows), columns));
    }
    asm volatile("" : "+x"(sums) : : "memory");
    _mm_storeu_ps(d, sums);
    _mm_setcsr(rounding);
#else
    for (unsigned i = 0; i < 4; i++)
        for (unsigned k = 0; k < 16; k++) {
            const double sum =
                static_cast<double>(d[i]) + static_cast<double>(left[k * left_stride + i / 2]) *
                                                right[k * right_stride + i % 2];
            const float near = static_cast<float>(sum);
            d[i] = std::fabs(near) > std::fabs(sum) ? bits_float(float_bits(near) - 1) : near;
        }
#endif
}

// A value of a slab: in rows of 128 bytes the 16-byte piece p is at p ^ row mod 8.
template <class T>
T slab_value(const void* start, unsigned row, unsigned k) {
    const char* const base = reinterpret_cast<const char*>(dynamic_shared.data());
    const size_t at = static_cast<const char*>(start) - base + row * 128 + k * sizeof(T);
    T value;
    memcpy(&value, base + (at ^ (at >> 7 & 7) << 4), sizeof(T));
    return value;
}

// Computes a warpgroup product for one thread.
inline void multiply(const Product& product) {
    const unsigned row = threadIdx.x / 32 % 4 * 16 + lane() / 4, pair = lane() % 4;
    if (product.integers) {
        for (unsigned i = 0; i < 64; i++) {
            int32_t sum = product.add ? product.integers[i] : 0;
            for (unsigned k = 0; k < 32; k++)
                sum += slab_value<int8_t>(product.left, row + i / 2 % 2 * 8, k) *
                       slab_value<int8_t>(product.right, i / 4 * 8 + pair * 2 + i % 2, k);
            product.integers[i] = sum;
        }
    } else {
        const auto value = [](const void* start, unsigned row, unsigned k) {
            return f16_value(slab_value<uint16_t>(start, row, k));
        };
        float left[16][2], right[16][2];
        for (unsigned k = 0; k < 16; k++)
            for (unsigned h = 0; h < 2; h++) left[k][h] = value(product.left, row + h * 8, k);
        if (!product.add) std::fill(product.sums, product.sums + 64, 0.0f);
        for (unsigned j = 0; j < 16; j++) {
            for (unsigned k = 0; k < 16; k++)
                for (unsigned i = 0; i < 2; i++)
                    right[k][i] = value(product.right, j * 8 + pair * 2 + i, k);
            add_products(product.sums + j * 4, left[0], 2, right[0], 2);
        }
    }
    if (getenv("CUDA_SHIM_WRONG_PRODUCTS"))
        (product.integers ? product.integers[37] += 1 : product.sums[37] += 1);
}

}  // namespace shim

DEVICE void mma_f16(float (&d)[4], uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3, uint32_t b0,
                    uint32_t b1) {
    shim::Warp& w = shim::warp();
    const unsigned group = shim::lane() / 4, pair = shim::lane() % 4;
    // Lane 4 (r mod 8) + c has row r and columns 2 c, 2 c + 1 (+ 8) of A; B likewise.
    const uint32_t a[4] = {a0, a1, a2, a3}, b[2] = {b0, b1};
    for (unsigned i = 0; i < 2; i++)
        for (unsigned j = 0; j < 2; j++) {
            const unsigned k = i * 8 + pair * 2 + j;
            for (unsigned h = 0; h < 2; h++)
                w.left[k][group][h] = f16_value(static_cast<uint16_t>(a[i * 2 + h] >> 16 * j));
            w.right[k][group] = f16_value(static_cast<uint16_t>(b[i] >> 16 * j));
        }
    shim::meet(w.meeting);
    // Sums: rows `group` and `group` + 8, columns 2 `pair` and 2 `pair` + 1.
    shim::add_products(d, w.left[0][group], 16, w.right[0] + pair * 2, 8);
    shim::meet(w.meeting);
}

DEVICE void mma_int8(int32_t (&d)[4], uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3,
                     uint32_t b0, uint32_t b1) {
    shim::Warp& w = shim::bring({a0, a1, a2, a3}, {b0, b1});
    const unsigned group = shim::lane() / 4, pair = shim::lane() % 4;
    for (unsigned i = 0; i < 4; i++) {
        // As above, with columns 4 c to 4 c + 3 (+ 16) per lane.
        const unsigned row = group + i / 2 * 8, column = pair * 2 + i % 2;
        for (unsigned k = 0; k < 32; k++) {
            const uint32_t left = w.a[row % 8 * 4 + k % 16 / 4][row / 8 + k / 16 * 2],
                           right = w.b[column * 4 + k % 16 / 4][k / 16];
            const unsigned shift = k % 4 * 8;
            d[i] += static_cast<int8_t>(left >> shift) * static_cast<int8_t>(right >> shift);
        }
    }
    shim::meet(w.meeting);
}

DEVICE void load_transposed(uint32_t (&to)[4], const void* row) {
    for (unsigned i = 0; i < 4; i++) {
        // Lane 8 i + r has the address of row r of matrix i; a lane gets column lane / 4 of rows
        // 2 (lane mod 4) and the next.
        uint32_t pair = 0;
        for (unsigned j = 0; j < 2; j++) {
            const void* const from = shim::exchange(row, i * 8 + shim::lane() % 4 * 2 + j);
            uint16_t value;
            memcpy(&value, static_cast<const char*>(from) + shim::lane() / 4 * 2, 2);
            pair |= static_cast<uint32_t>(value) << 16 * j;
        }
        to[i] = pair;
    }
}

DEVICE void copy_async(void* to, const void* from, bool zeros) {
    const shim::Copy copy = {to, from, zeros};
    if (shim::eager())
        shim::land(copy);
    else
        shim::threads[threadIdx.x].open.push_back(copy);
}
DEVICE void commit_copies() {
    shim::Thread& thread = shim::threads[threadIdx.x];
    thread.groups.push_back(std::move(thread.open));
    thread.open.clear();
}
template <int PENDING>
void wait_copies() {
    std::vector<std::vector<shim::Copy>>& groups = shim::threads[threadIdx.x].groups;
    while (groups.size() > PENDING) {
        for (const shim::Copy& copy : groups.front()) shim::land(copy);
        if (!groups.front().empty()) shim::threads[threadIdx.x].published = false;
        groups.erase(groups.begin());
    }
}

// Warpgroup products are computed as late as possible too: when they are waited for.

DEVICE void fence_async_proxy() { shim::threads[threadIdx.x].published = true; }
DEVICE void wgmma_fence() {}
DEVICE void wgmma_commit() {
    shim::Thread& thread = shim::threads[threadIdx.x];
    thread.products.push_back(std::move(thread.open_products));
    thread.open_products.clear();
}
template <int PENDING>
void wgmma_wait() {
    std::vector<std::vector<shim::Product>>& groups = shim::threads[threadIdx.x].products;
    while (groups.size() > PENDING) {
        for (const shim::Product& product : groups.front()) shim::multiply(product);
        groups.erase(groups.begin());
    }
}
namespace shim {

inline void begin(const Product& product) {
    for (const Thread& thread : threads)
        if (!thread.published && !eager()) stop("a warpgroup reads copies that were not published");
    if (eager())
        multiply(product);
    else
        threads[threadIdx.x].open_products.push_back(product);
}

}  // namespace shim

DEVICE void wgmma_multiply(float (&sums)[4][4][4], const void* left, const void* right, bool add) {
    shim::begin({&sums[0][0][0], nullptr, left, right, add});
}
DEVICE void wgmma_multiply(int32_t (&sums)[4][4][4], const void* left, const void* right,
                           bool add) {
    shim::begin({nullptr, &sums[0][0][0], left, right, add});
}
DEVICE void wgmma_keep_sums(float (&)[4][4][4]) {}
DEVICE void wgmma_keep_sums(int32_t (&)[4][4][4]) {}
