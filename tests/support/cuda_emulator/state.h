// The state of a launch, which scheduler.cpp and mbarriers.cpp share.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "scheduler.h"

namespace emulator {

constexpr unsigned ASCENDING_ORDER = 0, DESCENDING_ORDER = 1, RANDOM_ORDER = 2;

enum class State {
  ready,
  yielded,
  at_block_barrier,
  at_warp_barrier,
  at_cluster_barrier,
  at_mbarrier,
  done
};

struct Fiber : Thread {
  char* stack;
  void* stack_pointer;
  State state;
  Location location;
  unsigned mask;
  uint64_t value;       // of this lane in a warp exchange
  bool has_arrived;     // at the cluster barrier, without having waited
  unsigned arrivals;    // at the cluster barrier since the kernel began
  uint32_t mbarrier;    // address of the mbarrier at which the thread waits
  uint32_t parity;      // of the phase for whose end it waits
  bool has_unreleased_mbarrier;  // has initialized one, after which no fence or release followed
};

struct Block {
  int held_thread = -1;  // number of the thread that is held back; -1 if none
  bool has_waited = false;  // at a cluster barrier, so all blocks of the cluster have started
  unsigned rank;  // in the cluster
  Index index;
  std::vector<Fiber> fibers;
  std::vector<char> shared;           // contents of shared memory while another block runs
  std::vector<uint64_t> warp_values;  // of all threads, see `Thread`
};

extern const Launch* launch;
extern const std::vector<Block*>* concurrent_blocks;  // those of the cluster, if there are clusters
extern Block* loaded_block;  // whose shared memory is in place; null between two blocks

inline Fiber* running() { return static_cast<Fiber*>(current); }

bool all_done(const Block& block);
// Returns control to the scheduler.
void suspend(State state, Location location);

// Returns whether the phase has ended for which a thread waits.
bool has_ended(const Fiber& waiting);
// The asynchronous stores that have not ended. Each ends at an unknown time.
size_t stores_in_flight();
void end_store(size_t number);
void forget_stores();

}  // namespace emulator
