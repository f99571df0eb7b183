// A stand-in for the CUDA driver library, libcuda.so.1: the functions of it that warpseek calls,
// with the kernels running on the CPU.
//
// Properties and faults come from the environment: CUDA_SHIM_MEMORY (bytes of device memory),
// CUDA_SHIM_DRIVER (version, 13000), CUDA_SHIM_CAPABILITY (major * 10 + minor, 90),
// CUDA_SHIM_FAIL (the name of a function, which then fails with "unknown error"; `name:n` from its
// n-th call on), CUDA_SHIM_WRONG_PRODUCTS (wrong warpgroup products).
//
// Copies and launches happen at once, whatever the stream: a missing wait between streams does not
// show here.

#include <atomic>
#include <map>
#include <mutex>
#include <string>

#include "../../kernels/encoder.cu"
#include "../../kernels/topk.cu"

// Fibres

#if defined(__x86_64__)
// Saves the callee-saved registers, switches stacks, and continues where the other fibre stopped.
asm(R"(
.text
.globl shim_switch
shim_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq (%rsi), %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
)");
extern "C" void shim_switch(void** from, void** to);
struct Context {
    void* stack = nullptr;
    void begin(char* memory, size_t size, void (*entry)()) {
        uintptr_t top = (reinterpret_cast<uintptr_t>(memory) + size) & ~uintptr_t(15);
        void** at = reinterpret_cast<void**>(top);
        *--at = nullptr;
        *--at = reinterpret_cast<void*>(entry);
        for (int i = 0; i < 6; i++) *--at = nullptr;
        stack = at;
    }
};
static void change(Context& from, Context& to) { shim_switch(&from.stack, &to.stack); }
#else
#include <ucontext.h>
struct Context {
    ucontext_t context;
    void begin(char* memory, size_t size, void (*entry)()) {
        getcontext(&context);
        context.uc_stack.ss_sp = memory;
        context.uc_stack.ss_size = size;
        context.uc_link = nullptr;
        makecontext(&context, entry, 0);
    }
};
static void change(Context& from, Context& to) { swapcontext(&from.context, &to.context); }
#endif

constexpr size_t STACK = 64 << 10;

static Context scheduler;
static std::vector<Context> fibres;
static std::vector<bool> ended;
static std::vector<char> stacks;
static unsigned current;
static bool progress;
static void (*body)(const void*);
static const void* body_argument;

void shim::made_progress() { progress = true; }

void shim::yield() {
    const unsigned me = current;
    change(fibres[me], scheduler);
    threadIdx = {me, 0, 0};
}

void shim::stop(const char* why) {
    fprintf(stderr, "block (%u, %u), thread %u: %s\n", blockIdx.x, blockIdx.y, threadIdx.x, why);
    abort();
}

static void fibre() {
    threadIdx = {current, 0, 0};
    body(body_argument);
    ended[current] = true;
    progress = true;
    change(fibres[current], scheduler);
    abort();
}

static void run_block(unsigned n_threads) {
    fibres.resize(n_threads);
    ended.assign(n_threads, false);
    stacks.resize(n_threads * STACK);
    shim::block = {n_threads, 0, 0};
    shim::warps.assign(n_threads / 32, {});
    for (shim::Warp& warp : shim::warps) warp.meeting.expected = 32;
    shim::threads.assign(n_threads, {});
    for (unsigned i = 0; i < n_threads; i++)
        fibres[i].begin(stacks.data() + i * STACK, STACK, fibre);
    // Threads run in turn. With eager copies each warp runs as far as it can instead, so that a
    // missing barrier lets it overwrite data that other warps still read.
    const unsigned together = shim::eager() ? 32 : n_threads;
    for (unsigned left = n_threads; left > 0;) {
        progress = false;
        left = 0;
        for (unsigned first = 0; first < n_threads; first += together) {
            for (bool moves = true; moves;) {
                const bool before = progress;
                progress = false;
                for (current = first; current < first + together; current++)
                    if (!ended[current]) change(scheduler, fibres[current]);
                moves = progress && shim::eager();
                progress |= before;
            }
        }
        for (unsigned i = 0; i < n_threads; i++) left += !ended[i];
        if (!progress) {
            fprintf(stderr, "threads of block (%u, %u) wait for threads that do not come\n",
                    blockIdx.x, blockIdx.y);
            abort();
        }
    }
}

// The driver

typedef int Result;
enum : Result {
    SUCCESS = 0,
    INVALID_VALUE = 1,
    OUT_OF_MEMORY = 2,
    INVALID_DEVICE = 101,
    INVALID_CONTEXT = 201,
    NOT_FOUND = 500,
    CAPTURE_UNSUPPORTED = 900,
    CAPTURE_INVALIDATED = 901,
    UNKNOWN = 999
};

static std::recursive_mutex mutex;
static std::map<uintptr_t, size_t> allocations;
static size_t allocated;
static std::map<std::string, int> calls;
static thread_local void* context;

static long number(const char* name, long otherwise) {
    const char* value = getenv(name);
    return value ? atol(value) : otherwise;
}

static bool fails(const char* function) {
    const char* wanted = getenv("CUDA_SHIM_FAIL");
    if (!wanted) return false;
    const size_t length = strlen(function);
    if (strncmp(wanted, function, length) != 0 || (wanted[length] != 0 && wanted[length] != ':'))
        return false;
    std::lock_guard<std::recursive_mutex> lock(mutex);
    return ++calls[function] >= (wanted[length] == ':' ? atoi(wanted + length + 1) : 1);
}

// A stream capture: launches that are recorded and not run.
struct Launch {
    const shim::Kernel* kernel;
    dim3 grid;
    unsigned threads, shared;
    std::vector<char> argument;
};
struct Graph {
    void* stream;
    std::vector<Launch> launches;
    bool invalid = false;
};
static thread_local Graph* captured;

// True during a capture, which the calling function invalidates.
static bool invalidates_capture() {
    if (captured) captured->invalid = true;
    return captured != nullptr;
}

#define API(name, ...) extern "C" Result name(__VA_ARGS__)
#define MAY_FAIL \
    if (fails(__func__)) return UNKNOWN
// For functions that need a context on the thread.
#define IN_CONTEXT \
    if (!context) return INVALID_CONTEXT
#define NOT_CAPTURED \
    if (invalidates_capture()) return CAPTURE_UNSUPPORTED

API(cuInit, unsigned) {
    MAY_FAIL;
    return number("CUDA_SHIM_DEVICES", 1) ? SUCCESS : 100;
}
API(cuDriverGetVersion, int* version) {
    *version = static_cast<int>(number("CUDA_SHIM_DRIVER", 13000));
    return SUCCESS;
}
API(cuDeviceGetCount, int* count) {
    *count = static_cast<int>(number("CUDA_SHIM_DEVICES", 1));
    return SUCCESS;
}
API(cuDeviceGet, int* device, int ordinal) {
    if (ordinal >= number("CUDA_SHIM_DEVICES", 1)) return INVALID_DEVICE;
    *device = ordinal;
    return SUCCESS;
}
API(cuDeviceGetName, char* name, int length, int) {
    snprintf(name, length, "stand-in");
    return SUCCESS;
}
API(cuDeviceGetAttribute, int* value, int attribute, int) {
    const int capability = static_cast<int>(number("CUDA_SHIM_CAPABILITY", 90));
    switch (attribute) {
        case 16: *value = 3; break;  // multiprocessors
        case 75: *value = capability / 10; break;
        case 76: *value = capability % 10; break;
        case 97: *value = 99 << 10; break;  // shared memory per block
        default: *value = 0;
    }
    return SUCCESS;
}
API(cuDeviceTotalMem_v2, size_t* bytes, int) {
    *bytes = number("CUDA_SHIM_MEMORY", 1l << 30);
    return SUCCESS;
}
API(cuDevicePrimaryCtxRetain, void** to, int) {
    MAY_FAIL;
    static int it;
    *to = &it;
    return SUCCESS;
}
API(cuDevicePrimaryCtxRelease_v2, int) { return SUCCESS; }
API(cuCtxGetCurrent, void** to) {
    *to = context;
    return SUCCESS;
}
API(cuCtxSetCurrent, void* to) {
    context = to;
    return SUCCESS;
}
API(cuCtxSynchronize, void) { return SUCCESS; }
API(cuMemGetInfo_v2, size_t* free, size_t* total) {
    *total = number("CUDA_SHIM_MEMORY", 1l << 30);
    *free = *total - allocated;
    return SUCCESS;
}
API(cuMemAlloc_v2, uint64_t* to, size_t bytes) {
    NOT_CAPTURED;
    MAY_FAIL;
    std::lock_guard<std::recursive_mutex> lock(mutex);
    if (allocated + bytes > static_cast<size_t>(number("CUDA_SHIM_MEMORY", 1l << 30)))
        return OUT_OF_MEMORY;
    // Not padded, so that memory checkers see an access past the end.
    void* memory = aligned_alloc(256, (bytes + 255) / 256 * 256);
    memset(memory, 0xa5, bytes);
    allocations[reinterpret_cast<uintptr_t>(memory)] = bytes;
    allocated += bytes;
    *to = reinterpret_cast<uintptr_t>(memory);
    return SUCCESS;
}
API(cuMemFree_v2, uint64_t at) {
    NOT_CAPTURED;
    std::lock_guard<std::recursive_mutex> lock(mutex);
    const auto found = allocations.find(at);
    if (found == allocations.end()) return INVALID_VALUE;
    allocated -= found->second;
    allocations.erase(found);
    free(reinterpret_cast<void*>(at));
    return SUCCESS;
}
// True if [at, at + bytes) lies within an allocation.
static bool holds(uint64_t at, size_t bytes) {
    std::lock_guard<std::recursive_mutex> lock(mutex);
    auto found = allocations.upper_bound(at);
    if (found == allocations.begin()) return false;
    --found;
    return at + bytes <= found->first + found->second;
}
API(cuMemHostAlloc, void** to, size_t bytes, unsigned) {
    NOT_CAPTURED;
    MAY_FAIL;
    IN_CONTEXT;
    *to = aligned_alloc(4096, (bytes + 4095) / 4096 * 4096);
    return *to ? SUCCESS : OUT_OF_MEMORY;
}
API(cuMemFreeHost, void* at) {
    free(at);
    return SUCCESS;
}
API(cuMemsetD8Async, uint64_t at, unsigned char value, size_t bytes, void*) {
    NOT_CAPTURED;
    IN_CONTEXT;
    if (!holds(at, bytes)) return INVALID_VALUE;
    memset(reinterpret_cast<void*>(at), value, bytes);
    return SUCCESS;
}
API(cuMemcpyHtoDAsync_v2, uint64_t to, const void* from, size_t bytes, void*) {
    NOT_CAPTURED;
    IN_CONTEXT;
    MAY_FAIL;
    if (!holds(to, bytes)) return INVALID_VALUE;
    memcpy(reinterpret_cast<void*>(to), from, bytes);
    return SUCCESS;
}
API(cuMemcpyDtoHAsync_v2, void* to, uint64_t from, size_t bytes, void*) {
    NOT_CAPTURED;
    IN_CONTEXT;
    MAY_FAIL;
    if (!holds(from, bytes)) return INVALID_VALUE;
    memcpy(to, reinterpret_cast<const void*>(from), bytes);
    return SUCCESS;
}
API(cuMemcpyDtoDAsync_v2, uint64_t to, uint64_t from, size_t bytes, void*) {
    IN_CONTEXT;
    if (!holds(from, bytes) || !holds(to, bytes)) return INVALID_VALUE;
    memmove(reinterpret_cast<void*>(to), reinterpret_cast<const void*>(from), bytes);
    return SUCCESS;
}
API(cuStreamCreate, void** to, unsigned) {
    *to = new char;
    return SUCCESS;
}
API(cuStreamDestroy_v2, void* stream) {
    delete static_cast<char*>(stream);
    return SUCCESS;
}
API(cuStreamSynchronize, void*) {
    NOT_CAPTURED;
    MAY_FAIL;
    return SUCCESS;
}
API(cuStreamWaitEvent, void*, void*, unsigned) {
    NOT_CAPTURED;
    return SUCCESS;
}
API(cuEventCreate, void** to, unsigned) {
    static int it;
    *to = &it;
    return SUCCESS;
}
API(cuEventDestroy_v2, void*) { return SUCCESS; }
API(cuEventRecord, void*, void*) {
    NOT_CAPTURED;
    return SUCCESS;
}
API(cuEventSynchronize, void*) {
    NOT_CAPTURED;
    MAY_FAIL;
    return SUCCESS;
}
API(cuEventQuery, void*) { return SUCCESS; }
API(cuEventElapsedTime, float* ms, void*, void*) {
    *ms = 1;
    return SUCCESS;
}
API(cuModuleLoadData, void** to, const void*) {
    MAY_FAIL;
    static int it;
    *to = &it;
    return SUCCESS;
}
API(cuModuleUnload, void*) { return SUCCESS; }
API(cuModuleGetFunction, const void** to, void*, const char* name) {
    for (const shim::Kernel& kernel : shim::kernels()) {
        if (strcmp(kernel.name, name) != 0) continue;
        *to = &kernel;
        return SUCCESS;
    }
    return NOT_FOUND;
}
// Dynamic shared memory that a launch of each kernel may request.
static std::map<const void*, unsigned> most_shared;
API(cuFuncSetAttribute, const void* function, int attribute, int value) {
    if (attribute != 8 || value > (number("CUDA_SHIM_CAPABILITY", 90) == 90 ? 227 << 10 : 99 << 10))
        return INVALID_VALUE;
    std::lock_guard<std::recursive_mutex> lock(mutex);
    most_shared[function] = value;
    return SUCCESS;
}
API(cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags, int* blocks, const void*, int, size_t,
    unsigned) {
    *blocks = 2;
    return SUCCESS;
}
static void launch(const Launch& launch) {
    body = launch.kernel->run;
    body_argument = launch.argument.data();
    gridDim = launch.grid;
    blockDim = {launch.threads, 1, 1};
    for (unsigned y = 0; y < launch.grid.y; y++) {
        for (unsigned x = 0; x < launch.grid.x; x++) {
            blockIdx = {x, y, 0};
            // No data of the previous block remains.
            shim::dynamic_shared.assign(
                (launch.shared + sizeof(max_align_t) - 1) / sizeof(max_align_t), {});
            memset(shim::dynamic_shared.data(), 0xa5,
                   shim::dynamic_shared.size() * sizeof(max_align_t));
            run_block(launch.threads);
        }
    }
}
API(cuLaunchKernel, const void* function, unsigned gx, unsigned gy, unsigned gz, unsigned bx,
    unsigned by, unsigned bz, unsigned shared, void* stream, void** arguments, void**) {
    IN_CONTEXT;
    MAY_FAIL;
    if (gx == 0 || gy == 0 || gz != 1 || gy > 65535 || bx % 32 != 0 || by != 1 || bz != 1 ||
        bx > 1024)
        return INVALID_VALUE;
    std::lock_guard<std::recursive_mutex> lock(mutex);
    if (shared > (48 << 10) && shared > most_shared[function]) return INVALID_VALUE;
    const shim::Kernel* const kernel = static_cast<const shim::Kernel*>(function);
    const char* const argument = static_cast<const char*>(arguments[0]);
    const Launch now = {kernel, {gx, gy, 1}, bx, shared, {argument, argument + kernel->argument}};
    if (captured && captured->stream == stream)
        captured->launches.push_back(now);
    else
        launch(now);
    return SUCCESS;
}

// Replayed graphs so far, for tests.
static std::atomic<int> replays;
API(shim_replays, void) { return replays; }

API(cuStreamBeginCapture_v2, void* stream, int) {
    IN_CONTEXT;
    MAY_FAIL;
    if (captured) return CAPTURE_UNSUPPORTED;
    captured = new Graph{stream, {}};
    return SUCCESS;
}
API(cuStreamIsCapturing, void* stream, int* status) {
    *status = captured && captured->stream == stream;
    return SUCCESS;
}
API(cuStreamEndCapture, void* stream, void** to) {
    Graph* const graph = captured;
    if (!graph || graph->stream != stream) return INVALID_VALUE;
    captured = nullptr;
    *to = graph;
    if (!graph->invalid) return SUCCESS;
    delete graph;
    *to = nullptr;
    return CAPTURE_INVALIDATED;
}
API(cuGraphInstantiateWithFlags, void** to, void* graph, unsigned long long) {
    MAY_FAIL;
    *to = new Graph(*static_cast<Graph*>(graph));
    return SUCCESS;
}
API(cuGraphDestroy, void* graph) {
    delete static_cast<Graph*>(graph);
    return SUCCESS;
}
API(cuGraphExecDestroy, void* graph) {
    delete static_cast<Graph*>(graph);
    return SUCCESS;
}
API(cuGraphLaunch, void* graph, void*) {
    IN_CONTEXT;
    NOT_CAPTURED;
    MAY_FAIL;
    std::lock_guard<std::recursive_mutex> lock(mutex);
    for (const Launch& one : static_cast<Graph*>(graph)->launches) launch(one);
    replays++;
    return SUCCESS;
}
API(cuGetErrorName, Result error, const char** to) {
    *to = error == OUT_OF_MEMORY ? "CUDA_ERROR_OUT_OF_MEMORY" : "CUDA_ERROR_UNKNOWN";
    return SUCCESS;
}
API(cuGetErrorString, Result error, const char** to) {
    *to = error == OUT_OF_MEMORY ? "out of memory" : "unknown error";
    return SUCCESS;
}
