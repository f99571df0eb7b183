// The kernels' platform on a CPU: the threads of a block are fibres, run in turn, and a collective is a place where they meet.
//
// What is modelled: barriers and warp collectives (a warp or block that does not meet in full ends the program), shared memory,
// atomics, the fragments of mma.m16n8k16 with sums cut off after each product, and asynchronous copies that land as late as the program
// allows, or at once where CUDA_SHIM_EAGER is set: a missing wait shows in the one, writing over what is still read in the other.
// What is not: memory order between blocks, which run one after the other, and time.
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

#define KERNEL(name, Params) static void name(const Params& p)
#define KERNEL_FOR(name, Params, threads, blocks) KERNEL(name, Params)
#define DEVICE inline
#define HOST_DEVICE inline
#define SHARED static
#define DYNAMIC_SHARED(Type, name) Type* const name = reinterpret_cast<Type*>(shim::dynamic_shared.data())

struct uint4 {
    uint32_t x, y, z, w;
};
struct dim3 {
    uint32_t x, y, z;
};

inline dim3 threadIdx, blockIdx, blockDim, gridDim;

namespace shim {

inline std::vector<max_align_t> dynamic_shared;

// Where `expected` fibres meet. Each generation is one meeting.
struct Meeting {
    unsigned expected = 0, arrived = 0, generation = 0;
};
struct Warp {
    Meeting meeting;
    uint64_t slots[32];
    bool votes[2];
    uint32_t a[32][4], b[32][2];
    // Of a product of halves, for each k: rows r and r + 8, and columns.
    float left[16][8][2], right[16][8];
};
struct Copy {
    void* to;
    const void* from;
    bool zeros;
};
// 64 rows and 128 columns of 32 bytes for a warpgroup; `sums` of halves or `integers` of bytes are this thread's.
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
    bool published = true;  // whether warpgroups may read what its copies brought
};
inline Meeting block;
inline std::vector<Warp> warps;
inline std::vector<Thread> threads;

void yield();        // driver.cpp
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

// The value that lane `from` brings; all lanes come.
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

// Puts a lane's fragments of two matrices where all lanes see them.
inline Warp& bring(const uint32_t (&a)[4], const uint32_t (&b)[2]) {
    Warp& w = warp();
    memcpy(w.a[lane()], a, sizeof(a));
    memcpy(w.b[lane()], b, sizeof(b));
    meet(w.meeting);
    return w;
}

inline void land(const Copy& copy) {
    if (copy.zeros) memset(copy.to, 0, 16);
    else memcpy(copy.to, copy.from, 16);
}

inline bool eager() {
    static const bool is = getenv("CUDA_SHIM_EAGER") != nullptr;
    return is;
}

}  // namespace shim

template <class T> T warp_down(T value, int lanes, int width = 32) {
    const int lane = static_cast<int>(shim::lane());
    return shim::exchange(value, lane % width + lanes < width ? lane + lanes : lane);
}
template <class T> T warp_up(T value, int lanes) {
    const int lane = static_cast<int>(shim::lane());
    return shim::exchange(value, lane >= lanes ? lane - lanes : lane);
}
template <class T> T warp_xor(T value, int lanes) { return shim::exchange(value, shim::lane() ^ lanes); }
template <class T> T warp_from(T value, int lane) { return shim::exchange(value, lane); }
DEVICE bool warp_any(bool yes) {
    shim::Warp& w = shim::warp();
    // The next vote has the other place: who comes to it has read this one.
    bool& any = w.votes[w.meeting.generation % 2];
    if (w.meeting.arrived == 0) any = false;
    any = any || yes;
    shim::meet(w.meeting);
    return any;
}
DEVICE void warp_barrier() { shim::meet(shim::warp().meeting); }
DEVICE void block_barrier() { shim::meet(shim::block); }
DEVICE int leading_zeros(uint32_t value) { return value ? __builtin_clz(value) : 32; }
DEVICE int ones(uint32_t value) { return __builtin_popcount(value); }
DEVICE int ones(uint64_t value) { return __builtin_popcountll(value); }

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
DEVICE float half_value(uint16_t bits) {
    static const std::vector<float> values = [] {
        std::vector<float> values(1 << 16);
        for (unsigned half = 0; half < values.size(); half++) {
            const int exponent = half >> 10 & 31, fraction = half & 1023;
            const float size = exponent ? std::ldexp(1024.0f + fraction, exponent - 25) : std::ldexp(static_cast<float>(fraction), -24);
            values[half] = half >> 15 ? -size : size;
        }
        return values;
    }();
    return values[bits];
}
// Rounds to the nearest, ties to even; |value| is below 65504 here.
DEVICE uint16_t to_half(double value) {
    const double size = std::fabs(value);
    const int exponent = size < 0x1p-14 ? -14 : std::ilogb(size);
    const uint32_t steps = static_cast<uint32_t>(std::nearbyint(std::ldexp(size, 10 - exponent)));
    // A carry into the exponent comes out right by itself.
    const uint32_t bits = size < 0x1p-14 ? steps : (static_cast<uint32_t>(exponent + 15) << 10) + steps - 1024;
    return static_cast<uint16_t>(bits | (std::signbit(value) ? 0x8000u : 0u));
}
DEVICE uint32_t pack_halves(float low, float high) {
    const auto half = [](float value) { return to_half(std::fmin(std::fmax(value, -65504.0f), 65504.0f)); };
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
DEVICE int32_t integer_below(float value) { return static_cast<int32_t>(std::floor(std::fmin(std::fmax(value, -0x1p31f), 0x1.fffffep30f))); }
DEVICE double multiply_add(double a, double b, double c) { return std::fma(a, b, c); }
DEVICE double scale_by_power(double value, int power) { return std::ldexp(value, power); }
DEVICE double round_to_integer(double value) { return std::nearbyint(value); }
DEVICE int exponent_of(double value) { return std::ilogb(value); }

template <class T> T atomicAdd(T* at, T value) {
    const T before = *at;
    *at += value;
    return before;
}
template <class T> void atomicMin(T* at, T value) { if (value < *at) *at = value; }
template <class T> void atomicMax(T* at, T value) { if (value > *at) *at = value; }

DEVICE uint4 load_stream(const uint4* from) { return *from; }

namespace shim {

// To d, which are those of two rows and two columns, adds 16 products each; a product of halves is a float. A tensor core cuts off what
// stands below the 24 bits of a sum; here after every product, which is more than any of them does.
inline void add_products(float* d, const float* left, size_t left_stride, const float* right, size_t right_stride) {
#ifdef __SSE2__
    const unsigned rounding = _mm_getcsr();
    _mm_setcsr(rounding | 0x6000);
    __m128 sums = _mm_loadu_ps(d);
    asm volatile("" : "+x"(sums) : : "memory");
    for (unsigned k = 0; k < 16; k++) {
        const __m128 rows = _mm_castpd_ps(_mm_load_sd(reinterpret_cast<const double*>(left + k * left_stride)));
        const __m128 columns = _mm_castpd_ps(_mm_load1_pd(reinterpret_cast<const double*>(right + k * right_stride)));
        sums = _mm_add_ps(sums, _mm_mul_ps(_mm_unpacklo_ps(rows, rows), columns));
    }
    asm volatile("" : "+x"(sums) : : "memory");
    _mm_storeu_ps(d, sums);
    _mm_setcsr(rounding);
#else
    for (unsigned i = 0; i < 4; i++)
        for (unsigned k = 0; k < 16; k++) {
            const double sum = static_cast<double>(d[i]) + static_cast<double>(left[k * left_stride + i / 2]) * right[k * right_stride + i % 2];
            const float near = static_cast<float>(sum);
            d[i] = std::fabs(near) > std::fabs(sum) ? bits_float(float_bits(near) - 1) : near;
        }
#endif
}

// Where a warpgroup finds a value. Of a row of 128 bytes the 16-byte piece p lies at p ^ row mod 8.
template <class T> T slab_value(const void* start, unsigned row, unsigned k) {
    const char* const base = reinterpret_cast<const char*>(dynamic_shared.data());
    const size_t at = static_cast<const char*>(start) - base + row * 128 + k * sizeof(T);
    T value;
    memcpy(&value, base + (at ^ (at >> 7 & 7) << 4), sizeof(T));
    return value;
}

// A warpgroup's product for one of its threads.
inline void multiply(const Product& product) {
    const unsigned row = threadIdx.x / 32 % 4 * 16 + lane() / 4, pair = lane() % 4;
    if (product.integers) {
        for (unsigned i = 0; i < 64; i++) {
            int32_t sum = product.add ? product.integers[i] : 0;
            for (unsigned k = 0; k < 32; k++) sum += slab_value<int8_t>(product.left, row + i / 2 % 2 * 8, k) * slab_value<int8_t>(product.right, i / 4 * 8 + pair * 2 + i % 2, k);
            product.integers[i] = sum;
        }
    } else {
        const auto value = [](const void* start, unsigned row, unsigned k) { return half_value(slab_value<uint16_t>(start, row, k)); };
        float left[16][2], right[16][2];
        for (unsigned k = 0; k < 16; k++)
            for (unsigned h = 0; h < 2; h++) left[k][h] = value(product.left, row + h * 8, k);
        if (!product.add) std::fill(product.sums, product.sums + 64, 0.0f);
        for (unsigned j = 0; j < 16; j++) {
            for (unsigned k = 0; k < 16; k++)
                for (unsigned i = 0; i < 2; i++) right[k][i] = value(product.right, j * 8 + pair * 2 + i, k);
            add_products(product.sums + j * 4, left[0], 2, right[0], 2);
        }
    }
    if (getenv("CUDA_SHIM_WRONG_PRODUCTS")) (product.integers ? product.integers[37] += 1 : product.sums[37] += 1);
}

}  // namespace shim

DEVICE void multiply_halves(float (&d)[4], uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3, uint32_t b0, uint32_t b1) {
    shim::Warp& w = shim::warp();
    const unsigned group = shim::lane() / 4, pair = shim::lane() % 4;
    // A's fragment has row r and columns 2 c, 2 c + 1 (+ 8) in lane 4 (r mod 8) + c, B's likewise.
    const uint32_t a[4] = {a0, a1, a2, a3}, b[2] = {b0, b1};
    for (unsigned i = 0; i < 2; i++)
        for (unsigned j = 0; j < 2; j++) {
            const unsigned k = i * 8 + pair * 2 + j;
            for (unsigned h = 0; h < 2; h++) w.left[k][group][h] = half_value(static_cast<uint16_t>(a[i * 2 + h] >> 16 * j));
            w.right[k][group] = half_value(static_cast<uint16_t>(b[i] >> 16 * j));
        }
    shim::meet(w.meeting);
    // Element (row, column) of D: rows `group` and 8 further, columns 2 `pair` and the next.
    shim::add_products(d, w.left[0][group], 16, w.right[0] + pair * 2, 8);
    shim::meet(w.meeting);
}

DEVICE void multiply_bytes(int32_t (&d)[4], uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3, uint32_t b0, uint32_t b1) {
    shim::Warp& w = shim::bring({a0, a1, a2, a3}, {b0, b1});
    const unsigned group = shim::lane() / 4, pair = shim::lane() % 4;
    for (unsigned i = 0; i < 4; i++) {
        // As above, with columns 4 c to 4 c + 3 (+ 16) in a lane.
        const unsigned row = group + i / 2 * 8, column = pair * 2 + i % 2;
        for (unsigned k = 0; k < 32; k++) {
            const uint32_t left = w.a[row % 8 * 4 + k % 16 / 4][row / 8 + k / 16 * 2], right = w.b[column * 4 + k % 16 / 4][k / 16];
            const unsigned shift = k % 4 * 8;
            d[i] += static_cast<int8_t>(left >> shift) * static_cast<int8_t>(right >> shift);
        }
    }
    shim::meet(w.meeting);
}

DEVICE void load_turned(uint32_t (&to)[4], const void* row) {
    for (unsigned i = 0; i < 4; i++) {
        // A square's row r is where lane 8 i + r says; a lane gets column lane / 4 of rows 2 (lane mod 4) and the next.
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
    if (shim::eager()) shim::land(copy);
    else shim::threads[threadIdx.x].open.push_back(copy);
}
DEVICE void commit_copies() {
    shim::Thread& thread = shim::threads[threadIdx.x];
    thread.groups.push_back(std::move(thread.open));
    thread.open.clear();
}
template <int PENDING> void wait_copies() {
    std::vector<std::vector<shim::Copy>>& groups = shim::threads[threadIdx.x].groups;
    while (groups.size() > PENDING) {
        for (const shim::Copy& copy : groups.front()) shim::land(copy);
        if (!groups.front().empty()) shim::threads[threadIdx.x].published = false;
        groups.erase(groups.begin());
    }
}

// Hopper's products of warpgroups: late as well, when they are waited for.

DEVICE void publish_copies() { shim::threads[threadIdx.x].published = true; }
DEVICE void begin_products() {}
DEVICE void commit_products() {
    shim::Thread& thread = shim::threads[threadIdx.x];
    thread.products.push_back(std::move(thread.open_products));
    thread.open_products.clear();
}
template <int PENDING> void wait_products() {
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
    if (eager()) multiply(product);
    else threads[threadIdx.x].open_products.push_back(product);
}

}  // namespace shim

DEVICE void multiply_slabs(float (&sums)[4][4][4], const void* left, const void* right, bool add) { shim::begin({&sums[0][0][0], nullptr, left, right, add}); }
DEVICE void multiply_slabs(int32_t (&sums)[4][4][4], const void* left, const void* right, bool add) { shim::begin({nullptr, &sums[0][0][0], left, right, add}); }
DEVICE void hold_sums(float (&)[4][4][4]) {}
DEVICE void hold_sums(int32_t (&)[4][4][4]) {}
