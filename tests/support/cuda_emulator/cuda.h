// CUDA C++ for g++: the keywords, built-in variables and functions that the kernels use.
//
// Included before every kernel file. It defines only what the kernels use. A kernel that uses another
// function of CUDA does not compile until the function is added here, with a test.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>

#include "inline_ptx.h"
#include "scheduler.h"

// -------------------------------------------------------------------------------------- keywords

#define __global__
#define __device__
#define __forceinline__ inline
#define __noinline__ __attribute__((noinline))
#define __launch_bounds__(...)
#define __grid_constant__
// A section of the library holds the kernels that run in clusters, so the address of a kernel shows
// whether it does. Only clusters of 8 blocks are supported, the largest portable size.
#define __cluster_dims__(x, y, z)                                                           \
  __attribute__((section("cuda_clusters_of_" EMULATOR_STRING(x) "_" EMULATOR_STRING(y) "_" \
                         EMULATOR_STRING(z))))
#define EMULATOR_STRING(value) EMULATOR_STRINGIFY(value)
#define EMULATOR_STRINGIFY(value) #value
extern "C" __attribute__((visibility("hidden"), weak)) char __start_cuda_clusters_of_8_1_1,
    __stop_cuda_clusters_of_8_1_1;
// A section of the library holds all shared variables, so the scheduler can save and restore them.
#define __shared__ static __attribute__((section("cuda_shared")))

// Without a variable the section would not exist.
__shared__ __attribute__((used)) char cuda_shared_is_not_empty;
extern "C" __attribute__((visibility("hidden"))) char __start_cuda_shared, __stop_cuda_shared;

// ---------------------------------------------------------------------------- built-in variables

#define threadIdx (emulator::current->index)
#define blockIdx (emulator::block_index())
#define blockDim (emulator::block_size())
#define gridDim (emulator::grid_size())

// ------------------------------------------------------------------------- barriers and shuffles

inline void __syncthreads(int line = __builtin_LINE()) {
  emulator::block_barrier({"__syncthreads", line});
}

inline void __syncwarp(unsigned mask = 0xffffffff, int line = __builtin_LINE()) {
  emulator::warp_exchange(mask, 0, {"__syncwarp", line});
}

inline void __cluster_barrier_arrive(int line = __builtin_LINE()) {
  emulator::cluster_arrive({"__cluster_barrier_arrive", line}, true);
}

// Unlike the function above, releases no writes. The emulator checks this for mbarriers only.
inline void __cluster_barrier_arrive_relaxed(int line = __builtin_LINE()) {
  emulator::cluster_arrive({"__cluster_barrier_arrive_relaxed", line}, false);
}

inline void __cluster_barrier_wait(int line = __builtin_LINE()) {
  emulator::cluster_wait({"__cluster_barrier_wait", line});
}

inline void* __cluster_map_shared_rank(const void* variable, unsigned rank,
                                       int line = __builtin_LINE()) {
  return emulator::map_shared(variable, rank, {"__cluster_map_shared_rank", line});
}

inline size_t __cvta_generic_to_shared(const void* variable, int line = __builtin_LINE()) {
  return emulator::shared_address(variable, {"__cvta_generic_to_shared", line});
}

namespace emulator {

template <class Value>
Value shuffle(unsigned mask, Value value, unsigned source, Location location) {
  static_assert(sizeof(Value) == 4 || sizeof(Value) == 8, "shuffles move 4 or 8 bytes");
  uint64_t bits = 0;
  memcpy(&bits, &value, sizeof value);
  warp_exchange(mask, bits, location);
  if (!(current->active_mask >> source & 1))
    fail("%s in line %d: lane %u reads from lane %u, which is not in the mask", location.function,
         location.line, current->lane, source);
  memcpy(&value, &current->warp_values[source], sizeof value);
  return value;
}

}  // namespace emulator

template <class Value>
Value __shfl_sync(unsigned mask, Value value, int source, int line = __builtin_LINE()) {
  return emulator::shuffle(mask, value, source & 31, {"__shfl_sync", line});
}

template <class Value>
Value __shfl_xor_sync(unsigned mask, Value value, int bits, int line = __builtin_LINE()) {
  const unsigned source = emulator::current->lane ^ bits;
  return emulator::shuffle(mask, value, source, {"__shfl_xor_sync", line});
}

// ------------------------------------------------------------------------- atomics and polling

// Only one thread runs at a time, so every access is atomic.
template <class Number>
Number atomicAdd(Number* address, std::common_type_t<Number> value) {
  const Number before = *address;
  *address += value;
  return before;
}

inline void __threadfence() {}

inline void __nanosleep(unsigned, int line = __builtin_LINE()) {
  emulator::yield({"__nanosleep", line});
}

// ----------------------------------------------------------------------------------- mathematics

// CUDA overloads these for float and double; C defines them for double only.
using std::exp;
using std::fabs;
using std::fma;
using std::fmax;
using std::log;
using std::log1p;
using std::sqrt;
using std::tanh;

inline int min(int a, int b) { return a < b ? a : b; }
inline int max(int a, int b) { return a > b ? a : b; }

inline unsigned __umulhi(unsigned a, unsigned b) {
  return unsigned((unsigned long long)a * b >> 32);
}

inline unsigned __float_as_uint(float x) {
  unsigned bits;
  memcpy(&bits, &x, sizeof bits);
  return bits;
}

inline float __uint_as_float(unsigned bits) {
  float x;
  memcpy(&x, &bits, sizeof x);
  return x;
}

// Returns four bytes of the eight of x and y; a digit of `selector` is the number of a byte.
inline unsigned __byte_perm(unsigned x, unsigned y, unsigned selector) {
  const uint64_t bytes = uint64_t(y) << 32 | x;
  unsigned result = 0;
  for (unsigned i = 0; i < 4; i++)
    result |= unsigned(bytes >> (selector >> 4 * i & 7) * 8 & 0xff) << 8 * i;
  return result;
}

// ----------------------------------------------------------------------- entry points for Python

namespace emulator {

// The type of a kernel parameter. `element_bytes` is 0 unless it is a pointer; `is_floating_point`
// describes the element of a pointer and the value itself otherwise.
struct Parameter {
  int bytes, element_bytes, is_floating_point;
};

template <class Type>
constexpr Parameter parameter() {
  using Element = std::remove_pointer_t<Type>;
  if constexpr (std::is_pointer_v<Type>)
    return {sizeof(Type), sizeof(Element), std::is_floating_point_v<Element>};
  else
    return {sizeof(Type), 0, std::is_floating_point_v<Type>};
}

// Calls a kernel with an array of addresses of its arguments, as cuLaunchKernel takes them.
template <auto kernel>
struct Entry;

template <class... Arguments, void (*kernel)(Arguments...)>
struct Entry<kernel> {
  static constexpr Parameter parameters[] = {parameter<Arguments>()...};

  static unsigned cluster_size() {
    const char* const address = reinterpret_cast<const char*>(kernel);
    const bool has_clusters = address >= &__start_cuda_clusters_of_8_1_1 &&
                            address < &__stop_cuda_clusters_of_8_1_1;
    return has_clusters ? 8 : 1;
  }

  static void call(void** addresses) { call(addresses, std::index_sequence_for<Arguments...>{}); }

  template <size_t... i>
  static void call(void** addresses, std::index_sequence<i...>) {
    kernel(*static_cast<Arguments*>(addresses[i])...);
  }
};

}  // namespace emulator

// Exports a kernel. The Python side appends one line per kernel to the source.
#define EMULATOR_KERNEL(name)                                                                  \
  extern "C" int parameters_of_##name(const emulator::Parameter** parameters) {                \
    *parameters = emulator::Entry<name>::parameters;                                           \
    return sizeof emulator::Entry<name>::parameters / sizeof(emulator::Parameter);             \
  }                                                                                            \
  extern "C" int cluster_size_of_##name() {                                                    \
    return emulator::Entry<name>::cluster_size();                                              \
  }                                                                                            \
  extern "C" const char* launch_##name(emulator::Launch launch) {                              \
    launch.kernel = emulator::Entry<name>::call;                                               \
    launch.cluster_size = emulator::Entry<name>::cluster_size();                               \
    launch.shared = &__start_cuda_shared;                                                      \
    launch.shared_bytes = unsigned(&__stop_cuda_shared - &__start_cuda_shared);                \
    return emulator::run(launch);                                                              \
  }
