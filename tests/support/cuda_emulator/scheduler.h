// Interface of the scheduler: what the kernel side (cuda.h) calls.
//
// Each CUDA thread is a fiber. All fibers run on one CPU thread. A fiber runs until it reaches a
// barrier, a shuffle, __nanosleep or the end of the kernel; then the scheduler resumes another one.
// Blocks that may wait for each other run concurrently, other blocks run one after the other.
#pragma once

#include <cstdint>

namespace emulator {

struct Index {
  unsigned x, y, z;
};

// A call in the source code. Barriers on different lines are different barriers.
struct Location {
  const char* function;
  int line;
};

struct Block;

struct Thread {
  Index index;    // threadIdx
  unsigned lane;  // in the warp
  Block* block;
  uint64_t* warp_values;  // the value of each lane in the last warp exchange
  unsigned active_mask;   // the mask of the last warp exchange of this thread
};

// A launch, as the Python side describes it.
struct Launch {
  void (*kernel)(void**);
  void** arguments;
  Index grid, block;
  unsigned concurrent_blocks;  // 1, or all blocks of a cooperative launch
  unsigned cluster_size;       // blocks per cluster; 1 without clusters
  unsigned order;              // of threads and blocks: 0 ascending, 1 descending, 2 random
  unsigned seed;               // of the random order
  char* shared;                // static shared memory of the module
  unsigned shared_bytes;
};

extern Thread* current;

Index block_index();
Index block_size();
Index grid_size();

// Waits until all threads of the block wait at this location.
void block_barrier(Location location);
// Marks that this thread has arrived at the cluster barrier. Other threads may run before it continues.
// `is_release` says whether that makes its writes visible to the threads that wait.
void cluster_arrive(Location location, bool is_release);
// Waits until all threads of the cluster have arrived. Those that wait must wait at this location.
void cluster_wait(Location location);
// Returns the address of a shared variable in a block of the cluster. Another block must not have ended,
// and a cluster barrier must have shown that it has started.
void* map_shared(const void* variable, unsigned rank, Location location);
// Returns the address of a shared variable, of any block of the cluster, as PTX takes it.
uint32_t shared_address(const void* variable, Location location);
// Operations on a barrier in shared memory (mbarrier), given its address. `expected_bytes` is added to the
// bytes that the phase expects. The barrier of an arrival may be in another block.
void mbarrier_init(uint32_t address, uint32_t arrivals, Location location);
void mbarrier_init_fence();
void mbarrier_arrive(uint32_t address, uint32_t expected_bytes, Location location);
// Waits for the end of the phase with this parity.
void mbarrier_wait(uint32_t address, uint32_t parity, Location location);
// Begins to store 16 bytes in the shared memory of a block, and to count them in a barrier of that block.
void store_async(uint32_t address, const uint32_t* words, uint32_t mbarrier, Location location);
// Waits until all lanes of the mask wait at this location, then gives each lane the values of all.
void warp_exchange(unsigned mask, uint64_t value, Location location);
// Lets other threads run. A thread that polls memory must call this.
void yield(Location location);
// Ends the launch with a message.
void fail(const char* format, ...) __attribute__((format(printf, 1, 2)));

// Runs a launch; returns an error message, or an empty string.
const char* run(const Launch& launch);

}  // namespace emulator
