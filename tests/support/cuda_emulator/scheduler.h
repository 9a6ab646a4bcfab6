// How a launch is carried out: what the kernels' side (`cuda.h`) asks of the scheduler.
//
// Every CUDA thread is a fiber: a stack of its own on the one thread of the processor. A fiber runs
// until it comes to a barrier, a shuffle or its end; then the scheduler takes the next. Blocks that
// may wait for each other are kept side by side, all others run one after the other.
#pragma once

#include <cstdint>

namespace emulator {

struct Index {
  unsigned x, y, z;
};

// Where in the source a thread waits; barriers of different lines are different barriers.
struct Place {
  const char* operation;
  int line;
};

struct Block;

struct Thread {
  Index index;    // threadIdx
  unsigned lane;  // in its warp
  Block* block;
  uint64_t* received;  // what each lane of the warp gave to its last exchange
  unsigned present;    // the lanes that took part in the last one of this thread
};

// A launch, as the Python side describes it.
struct Launch {
  void (*kernel)(void**);
  void** arguments;
  Index grid, block;
  unsigned resident;   // how many blocks may wait for each other: 1, or all of a cooperative launch
  unsigned cluster;    // how many blocks form a cluster, which runs side by side; 1 without any
  unsigned order;      // in which order threads and blocks run: 0 up, 1 down, 2 at random
  unsigned seed;       // of the random order
  char* shared;        // the module's static shared memory
  unsigned shared_bytes;
};

extern Thread* current;

Index block_index();
Index block_size();
Index grid_size();

// Waits until all threads of the block are at the same barrier.
void wait_for_block(Place place);
// Says that this thread has come to where its cluster meets.
void arrive_at_cluster();
// Waits until all threads of the cluster have come, and wait at the same place.
void wait_for_cluster(Place place);
// Waits until all lanes of the mask are at the same place, and hands each what every lane gave.
void exchange(unsigned mask, uint64_t value, Place place);
// Lets others run: a thread that waits for a number in memory to change must call this.
void sleep(Place place);
// Ends the launch with a message.
void fail(const char* format, ...) __attribute__((format(printf, 1, 2)));

// Runs a launch; returns what went wrong, or an empty string.
const char* run(const Launch& launch);

}  // namespace emulator
