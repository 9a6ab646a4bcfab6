// CUDA C++ for g++: the words, the built-in variables and the functions that the kernels use.
//
// Included before every kernel file. What is missing here is missing on purpose: a kernel that uses
// something new does not compile, and the emulator learns it together with a test.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>

#include "scheduler.h"

// ---------------------------------------------------------------------------------------- words

#define __global__
#define __device__
#define __forceinline__ inline
#define __noinline__ __attribute__((noinline))
#define __launch_bounds__(...)
#define __grid_constant__
// Kernels that run as clusters lie together, so that it can be told which they are. All have 8 blocks,
// as many as every GPU with clusters allows.
#define __cluster_dims__(x, y, z)                                                         \
  __attribute__((section("cuda_clusters_of_" EMULATOR_TEXT(x) "_" EMULATOR_TEXT(y) "_" \
                         EMULATOR_TEXT(z))))
#define EMULATOR_TEXT(word) EMULATOR_TEXT_OF(word)
#define EMULATOR_TEXT_OF(word) #word
extern "C" __attribute__((visibility("hidden"), weak)) char __start_cuda_clusters_of_8_1_1,
    __stop_cuda_clusters_of_8_1_1;
// All shared variables of a module lie together, so that a block's can be exchanged for another's.
#define __shared__ static __attribute__((section("cuda_shared")))

// The first of them, so that there is such a section.
__shared__ __attribute__((used)) char cuda_shared_is_not_empty;
extern "C" __attribute__((visibility("hidden"))) char __start_cuda_shared, __stop_cuda_shared;

// ---------------------------------------------------------------------------- built-in variables

#define threadIdx (emulator::current->index)
#define blockIdx (emulator::block_index())
#define blockDim (emulator::block_size())
#define gridDim (emulator::grid_size())

// ----------------------------------------------------------------------------- barriers, shuffles

inline void __syncthreads(int line = __builtin_LINE()) {
  emulator::wait_for_block({"__syncthreads", line});
}

inline void __syncwarp(unsigned mask = 0xffffffff, int line = __builtin_LINE()) {
  emulator::exchange(mask, 0, {"__syncwarp", line});
}

inline void __cluster_barrier_arrive() { emulator::arrive_at_cluster(); }

inline void __cluster_barrier_wait(int line = __builtin_LINE()) {
  emulator::wait_for_cluster({"__cluster_barrier_wait", line});
}

namespace emulator {

template <class Value>
Value shuffle(unsigned mask, Value value, unsigned source, Place place) {
  static_assert(sizeof(Value) == 4 || sizeof(Value) == 8, "shuffles move 4 or 8 bytes");
  uint64_t bits = 0;
  memcpy(&bits, &value, sizeof value);
  exchange(mask, bits, place);
  if (!(current->present >> source & 1))
    fail("lane %u reads from lane %u by %s in line %d, which takes no part", current->lane, source,
         place.operation, place.line);
  memcpy(&value, &current->received[source], sizeof value);
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

// ------------------------------------------------------------------------------- memory of others

// Threads never run at the same time, so every access is as if it were atomic.
template <class Number>
Number atomicAdd(Number* address, std::common_type_t<Number> value) {
  const Number before = *address;
  *address += value;
  return before;
}

inline void __threadfence() {}

inline void __nanosleep(unsigned, int line = __builtin_LINE()) {
  emulator::sleep({"__nanosleep", line});
}

// ----------------------------------------------------------------------------------- mathematics

// CUDA has these for both types under one name; C has them for double alone.
using std::exp;
using std::fabs;
using std::fma;
using std::log;
using std::log1p;
using std::sqrt;
using std::tanh;

inline int min(int a, int b) { return a < b ? a : b; }
inline int max(int a, int b) { return a > b ? a : b; }

inline unsigned __umulhi(unsigned a, unsigned b) {
  return unsigned((unsigned long long)a * b >> 32);
}

// ------------------------------------------------------------------------- the way in from Python

namespace emulator {

// What a parameter takes: its size, and for pointers the size of an element and whether it is a
// floating-point number.
struct Parameter {
  int bytes, element_bytes, element_is_real;
};

template <class Type>
constexpr Parameter parameter() {
  using Element = std::remove_pointer_t<Type>;
  if constexpr (std::is_pointer_v<Type>)
    return {sizeof(Type), sizeof(Element), std::is_floating_point_v<Element>};
  else
    return {sizeof(Type), 0, std::is_floating_point_v<Type>};
}

// Calls a kernel whose arguments lie at the addresses of an array, as CUDA's own launch takes them.
template <auto kernel>
struct Entry;

template <class... Arguments, void (*kernel)(Arguments...)>
struct Entry<kernel> {
  static constexpr Parameter parameters[] = {parameter<Arguments>()...};

  static unsigned blocks_of_a_cluster() {
    const char* const address = reinterpret_cast<const char*>(kernel);
    const bool is_cluster = address >= &__start_cuda_clusters_of_8_1_1 &&
                            address < &__stop_cuda_clusters_of_8_1_1;
    return is_cluster ? 8 : 1;
  }

  static void call(void** addresses) { call(addresses, std::index_sequence_for<Arguments...>{}); }

  template <size_t... number>
  static void call(void** addresses, std::index_sequence<number...>) {
    kernel(*static_cast<Arguments*>(addresses[number])...);
  }
};

}  // namespace emulator

// Makes a kernel known; written at the end of each file by the Python side.
#define EMULATOR_KERNEL(name)                                                                 \
  extern "C" int parameters_of_##name(const emulator::Parameter** parameters) {               \
    *parameters = emulator::Entry<name>::parameters;                                          \
    return sizeof emulator::Entry<name>::parameters / sizeof(emulator::Parameter);            \
  }                                                                                           \
  extern "C" int blocks_of_a_cluster_of_##name() {                                            \
    return emulator::Entry<name>::blocks_of_a_cluster();                                      \
  }                                                                                           \
  extern "C" const char* launch_##name(emulator::Launch launch) {                             \
    launch.kernel = emulator::Entry<name>::call;                                              \
    launch.cluster = emulator::Entry<name>::blocks_of_a_cluster();                            \
    launch.shared = &__start_cuda_shared;                                                     \
    launch.shared_bytes = unsigned(&__stop_cuda_shared - &__start_cuda_shared);               \
    return emulator::run(launch);                                                             \
  }
