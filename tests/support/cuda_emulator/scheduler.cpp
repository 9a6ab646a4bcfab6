// The scheduler: runs the fibers of a launch, completes barriers and reports deadlocks.

#include "scheduler.h"

#include <algorithm>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <vector>

#include "fibers.h"
#include "state.h"

namespace emulator {

Thread* current = nullptr;
const Launch* launch = nullptr;
const std::vector<Block*>* concurrent_blocks = nullptr;
Block* loaded_block = nullptr;

namespace {

constexpr unsigned WARP_SIZE = 32;
// After this number of rounds in which threads only yield, the launch counts as deadlocked.
constexpr unsigned MAX_IDLE_ROUNDS = 10000;
// The following two apply to the random order. After this number of rounds, another block is held back.
constexpr unsigned ROUNDS_PER_HELD_BLOCK = 512;
// Number of blocks of an ordinary launch that run concurrently.
constexpr unsigned CONCURRENT_BLOCKS = 3;

void* scheduler_stack_pointer = nullptr;
char error[1024];

// ---------------------------------------------------------------------------------------- fibers

// Runs a thread until it waits, yields or ends.
void resume(Fiber& fiber) {
  current = &fiber;
  emulator_switch(&scheduler_stack_pointer, fiber.stack_pointer);
  current = nullptr;
}

// The first function on the stack of each fiber.
void run_kernel() {
  launch->kernel(launch->arguments);
  suspend(State::done, {"end of the kernel", 0});
  abort();  // a finished fiber is never resumed
}

// Allocates the threads of a block; `start` places them at the beginning of the kernel.
std::unique_ptr<Block> make_block(size_t first_stack) {
  const Index size = launch->block;
  auto block = std::make_unique<Block>();
  block->fibers.resize(size_t(size.x) * size.y * size.z);
  block->warp_values.resize(block->fibers.size() + WARP_SIZE);
  unsigned thread = 0;
  for (Fiber& fiber : block->fibers) {
    fiber.index = {thread % size.x, thread / size.x % size.y, thread / size.x / size.y};
    fiber.lane = thread % WARP_SIZE;
    fiber.block = block.get();
    fiber.warp_values = &block->warp_values[thread - fiber.lane];
    fiber.stack = stack(first_stack + thread);
    fiber.mask = 0;
    thread++;
  }
  return block;
}

void start(Block& block, unsigned number) {
  const Index grid = launch->grid;
  block.index = {number % grid.x, number / grid.x % grid.y, number / grid.x / grid.y};
  // All bits set is NaN, so that reads of unwritten shared memory show in the results.
  block.shared.assign(launch->shared_bytes, char(0xFF));
  block.has_waited = false;
  for (Fiber& fiber : block.fibers) {
    fiber.stack_pointer = prepare_stack(fiber.stack, run_kernel);
    fiber.state = State::ready;
    fiber.has_arrived = false;
    fiber.arrivals = 0;
    fiber.has_unreleased_mbarrier = false;
  }
}

// --------------------------------------------------------------------------------- shared memory

// memcpy cannot be used: AddressSanitizer checks it, and forbids the bytes between two variables. The
// pointers are volatile so that the compiler does not replace the loop by memcpy.
void copy_bytes(volatile char* to, const volatile char* from, size_t count) {
  for (size_t i = 0; i < count; i++) to[i] = from[i];
}

void restore_shared(Block& block) {
  loaded_block = &block;
  copy_bytes(launch->shared, block.shared.data(), block.shared.size());
}

void save_shared(Block& block) {
  copy_bytes(block.shared.data(), launch->shared, block.shared.size());
  loaded_block = nullptr;
}

// -------------------------------------------------------------------------------------- barriers

bool same(Location one, Location other) {
  return one.line == other.line && !strcmp(one.function, other.function);
}

// Releases all threads of a block if all wait at the same block barrier; returns whether they do.
bool release_block_barrier(Block& block) {
  for (const Fiber& fiber : block.fibers)
    if (fiber.state != State::at_block_barrier || !same(fiber.location, block.fibers[0].location))
      return false;
  for (Fiber& fiber : block.fibers) fiber.state = State::ready;
  return true;
}

// Returns whether all lanes of the mask of lane `first` wait with this mask at the same location.
bool is_complete(const Fiber* warp, unsigned lanes, unsigned first) {
  const unsigned mask = warp[first].mask;
  for (unsigned lane = 0; lane < WARP_SIZE; lane++) {
    if (!(mask >> lane & 1)) continue;
    if (lane >= lanes || warp[lane].state != State::at_warp_barrier || warp[lane].mask != mask ||
        !same(warp[lane].location, warp[first].location))
      return false;
  }
  return true;
}

// Completes the exchanges of a warp whose lanes all wait; returns whether there was one.
bool release_warp_exchanges(Fiber* warp, unsigned lanes) {
  bool any = false;
  for (unsigned first = 0; first < lanes; first++) {
    if (warp[first].state != State::at_warp_barrier || !is_complete(warp, lanes, first)) continue;
    const unsigned mask = warp[first].mask;
    // All lanes of the mask wait here, so none still reads the values of the previous exchange.
    for (unsigned lane = 0; lane < lanes; lane++) {
      if (!(mask >> lane & 1)) continue;
      warp[lane].warp_values[lane] = warp[lane].value;
      warp[lane].active_mask = mask;
      warp[lane].state = State::ready;
    }
    any = true;
  }
  return any;
}

// Completes the barriers and exchanges within a block; returns whether there was one.
bool release(Block& block) {
  bool any = release_block_barrier(block);
  for (size_t first = 0; first < block.fibers.size(); first += WARP_SIZE) {
    const size_t left = block.fibers.size() - first;
    const unsigned lanes = left < WARP_SIZE ? unsigned(left) : WARP_SIZE;
    any |= release_warp_exchanges(&block.fibers[first], lanes);
  }
  return any;
}

// Releases the threads that wait at a cluster barrier at which all threads of the cluster have arrived,
// if they wait at the same location; returns whether there was one.
bool release_cluster_barrier(const std::vector<Block*>& blocks) {
  unsigned completed = ~0u;  // barriers at which all threads have arrived
  for (const Block* block : blocks)
    for (const Fiber& fiber : block->fibers) completed = std::min(completed, fiber.arrivals);
  std::vector<Fiber*> waiting;
  for (Block* block : blocks)
    for (Fiber& fiber : block->fibers)
      if (fiber.state == State::at_cluster_barrier && fiber.arrivals <= completed)
        waiting.push_back(&fiber);
  for (const Fiber* fiber : waiting)
    if (!same(fiber->location, waiting[0]->location)) return false;
  for (Fiber* fiber : waiting) {
    fiber->state = State::ready;
    fiber->block->has_waited = true;
  }
  return !waiting.empty();
}

bool is_done(const Fiber& fiber) { return fiber.state == State::done; }

bool all_done(const std::vector<Block*>& blocks) {
  return std::all_of(blocks.begin(), blocks.end(), [](Block* block) { return all_done(*block); });
}

// Reports where the threads of the first unfinished block wait, one entry per group of threads.
void report_deadlock(const std::vector<Block*>& blocks) {
  const auto found =
      std::find_if(blocks.begin(), blocks.end(), [](Block* block) { return !all_done(*block); });
  if (found == blocks.end()) return;
  const Block& block = **found;
  char groups[700] = "";
  size_t length = 0;
  const Fiber* previous = nullptr;
  for (const Fiber& fiber : block.fibers) {
    if (previous && same(previous->location, fiber.location) && previous->mask == fiber.mask)
      continue;
    if (length > sizeof groups - 150) break;
    length += snprintf(groups + length, sizeof groups - length, "; from thread %u on: %s",
                       unsigned(&fiber - block.fibers.data()), fiber.location.function);
    if (fiber.location.line)
      length += snprintf(groups + length, sizeof groups - length, " in line %d",
                         fiber.location.line);
    if (fiber.state == State::at_warp_barrier)
      length += snprintf(groups + length, sizeof groups - length, " for mask %08x", fiber.mask);
    previous = &fiber;
  }
  fail("deadlock in block (%u, %u, %u)%s", block.index.x, block.index.y, block.index.z, groups);
}

// -------------------------------------------------------------------------------------- schedule

class Order {
 public:
  Order(unsigned kind, unsigned seed) : kind_(kind), state_(seed * 2654435761u + 1) {}

  // Returns the numbers below `count` in the order of this round.
  const std::vector<unsigned>& sequence(unsigned count) {
    numbers_.resize(count);
    for (unsigned i = 0; i < count; i++) numbers_[i] = kind_ == 1 ? count - 1 - i : i;
    if (kind_ == RANDOM_ORDER)
      for (unsigned i = count; i > 1; i--) std::swap(numbers_[i - 1], numbers_[random() % i]);
    return numbers_;
  }

  // Returns a random number below `count`.
  unsigned choose(unsigned count) { return random() % count; }

 private:
  unsigned random() {  // xorshift (Marsaglia 2003)
    state_ ^= state_ << 13;
    state_ ^= state_ >> 17;
    return state_ ^= state_ << 5;
  }

  unsigned kind_, state_;
  std::vector<unsigned> numbers_;
};

struct Progress {
  bool any = false;   // a thread ran, or a barrier completed
  bool real = false;  // the same, without threads that only yielded

  Progress& operator|=(Progress other) {
    any |= other.any;
    real |= other.real;
    return *this;
  }
};

// Runs all threads of a block that can run, except the one that is held back.
Progress run_ready(Block& block, Order& threads) {
  Progress progress;
  for (unsigned number : threads.sequence(unsigned(block.fibers.size()))) {
    Fiber& fiber = block.fibers[number];
    if (fiber.state == State::at_mbarrier && has_ended(fiber)) fiber.state = State::ready;
    if (fiber.state != State::ready && fiber.state != State::yielded) continue;
    if (fiber.state == State::ready && int(number) == block.held_thread) continue;
    resume(fiber);
    progress |= {true, fiber.state != State::yielded};
    if (error[0]) break;
  }
  return progress;
}

// Runs a block until all its threads wait, and completes its barriers. After its end, its shared memory
// holds NaN.
Progress run_block(Block& block, bool is_alone, Order& threads) {
  if (!is_alone) restore_shared(block);
  Progress progress = run_ready(block, threads);
  if (!is_alone) save_shared(block);
  if (all_done(block)) std::fill(block.shared.begin(), block.shared.end(), char(0xFF));
  if (!error[0] && release(block)) progress |= {true, true};
  return progress;
}

// Runs the held-back thread of one block and chooses another; returns whether there was one.
bool run_held_thread(const std::vector<Block*>& blocks, Order& order) {
  for (unsigned number : order.sequence(unsigned(blocks.size()))) {
    Block& block = *blocks[number];
    if (block.held_thread < 0 || block.fibers[block.held_thread].state != State::ready) continue;
    restore_shared(block);
    resume(block.fibers[block.held_thread]);
    save_shared(block);
    block.held_thread = int(order.choose(unsigned(block.fibers.size())));
    if (!error[0]) release(block);
    return true;
  }
  return false;
}

// Ends asynchronous stores: in ascending order all at once, in random order some, and otherwise only if
// nothing else can happen. Returns whether there was one.
bool end_stores(Order& order, bool is_idle) {
  bool any = false;
  for (size_t left = stores_in_flight(); left > 0 && !error[0]; left--) {
    const bool ends = launch->order == ASCENDING_ORDER || is_idle ||
                      (launch->order == RANDOM_ORDER && order.choose(2));
    if (!ends) continue;
    end_store(order.choose(unsigned(stores_in_flight())));
    any = true;
  }
  return any;
}

// Runs blocks concurrently until all are done. In random order one block at a time is held back until
// the others can only wait: in lockstep, a buffer that one block overwrites too early would already
// have been read by the others. For the same reason a thread of each block is held back until nothing
// else can run; another block may then see the writes of only some threads.
void run_blocks(const std::vector<Block*>& blocks, Order& threads, Order& order) {
  concurrent_blocks = &blocks;
  forget_stores();
  const bool is_alone = blocks.size() == 1;
  const bool hold_back = !is_alone && launch->order == RANDOM_ORDER;
  unsigned idle_rounds = 0, held_block = 0;
  for (unsigned round = 0; !error[0] && !all_done(blocks); round++) {
    const std::vector<unsigned> sequence = order.sequence(unsigned(blocks.size()));
    if (round % ROUNDS_PER_HELD_BLOCK == 0) held_block = sequence[0];
    Progress progress;
    for (unsigned number : sequence) {
      if (hold_back && number == held_block) continue;
      progress |= run_block(*blocks[number], is_alone, threads);
      if (error[0]) return;
      if (launch->order == ASCENDING_ORDER) end_stores(order, false);
    }
    if (hold_back && !progress.real) progress |= run_block(*blocks[held_block], is_alone, threads);
    if (!error[0] && !progress.real && run_held_thread(blocks, order)) progress = {true, true};
    if (release_cluster_barrier(blocks)) progress = {true, true};
    if (!error[0] && end_stores(order, !progress.real)) progress = {true, true};
    if (!progress.any) report_deadlock(blocks);
    idle_rounds = progress.real ? 0 : idle_rounds + 1;
    if (progress.any && idle_rounds > MAX_IDLE_ROUNDS)
      fail("deadlock: all threads poll memory that no running thread changes");
  }
  if (!error[0]) end_stores(order, true);  // fails, because their blocks have ended
}

// Returns the number of blocks that run concurrently, 0 if the launch is not possible.
unsigned group_size(unsigned blocks) {
  const bool is_cooperative = launch->concurrent_blocks > 1;
  if (launch->cluster_size > 1 && is_cooperative) {
    fail("a cooperative launch cannot have clusters");
    return 0;
  }
  if (blocks % launch->cluster_size) {
    fail("%u blocks cannot be divided into clusters of %u", blocks, launch->cluster_size);
    return 0;
  }
  if (is_cooperative) return launch->concurrent_blocks;
  if (launch->cluster_size > 1) return launch->cluster_size;
  // Blocks of an ordinary launch must not wait for each other, but on a GPU they overlap.
  return launch->order == RANDOM_ORDER ? std::min(blocks, CONCURRENT_BLOCKS) : 1;
}

}  // namespace

bool all_done(const Block& block) {
  return std::all_of(block.fibers.begin(), block.fibers.end(), is_done);
}

void suspend(State state, Location location) {
  Fiber* fiber = running();
  fiber->state = state;
  fiber->location = location;
  emulator_switch(&fiber->stack_pointer, scheduler_stack_pointer);
}

// -------------------------------------------------------------------------- called by the kernels

Index block_index() { return current->block->index; }
Index block_size() { return launch->block; }
Index grid_size() { return launch->grid; }

void block_barrier(Location location) { suspend(State::at_block_barrier, location); }

void cluster_arrive(Location location, bool is_release) {
  Fiber* fiber = running();
  if (!is_release && fiber->has_unreleased_mbarrier)
    fail("%s in line %d: no fence has released the initialization of an mbarrier",
         location.function, location.line);
  fiber->has_unreleased_mbarrier = false;
  if (launch->cluster_size == 1) fail("cluster barrier in a kernel without __cluster_dims__");
  if (fiber->has_arrived) fail("a thread arrives at the cluster barrier twice without waiting");
  fiber->has_arrived = true;
  fiber->arrivals++;
  suspend(State::ready, location);
}

void cluster_wait(Location location) {
  Fiber* fiber = running();
  if (!fiber->has_arrived)
    fail("%s in line %d: the thread has not arrived at the cluster barrier", location.function,
         location.line);
  fiber->has_arrived = false;
  suspend(State::at_cluster_barrier, location);
}

void* map_shared(const void* variable, unsigned rank, Location location) {
  char* const own = const_cast<char*>(static_cast<const char*>(variable));
  const char* problem = nullptr;
  Block* block = nullptr;
  if (launch->cluster_size == 1)
    problem = "there are no clusters";
  else if (rank >= launch->cluster_size)
    problem = "the cluster has no such block";
  else if (own < launch->shared || own >= launch->shared + launch->shared_bytes)
    problem = "the variable is not in shared memory";
  else if ((block = (*concurrent_blocks)[rank]) == running()->block)
    return own;
  else if (!running()->block->has_waited)
    problem = "it may not have started, because no cluster barrier is complete";
  else if (all_done(*block))
    problem = "it has ended";
  if (problem)
    fail("%s in line %d: no access to the shared memory of block %u: %s", location.function,
         location.line, rank, problem);
  return problem ? own : &block->shared[own - launch->shared];
}

void warp_exchange(unsigned mask, uint64_t value, Location location) {
  Fiber* fiber = running();
  if (!(mask >> fiber->lane & 1))
    fail("%s in line %d: lane %u is not in the mask %08x", location.function, location.line,
         fiber->lane, mask);
  fiber->mask = mask;
  fiber->value = value;
  suspend(State::at_warp_barrier, location);
}

void yield(Location location) { suspend(State::yielded, location); }

void fail(const char* format, ...) {
  if (error[0]) return;  // later errors are consequences of the first
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(error, sizeof error, format, arguments);
  va_end(arguments);
}

const char* run(const Launch& description) {
  launch = &description;
  error[0] = 0;
  Order threads(launch->order, launch->seed), order(launch->order, launch->seed + 1);
  const unsigned count = launch->grid.x * launch->grid.y * launch->grid.z;
  const unsigned group = group_size(count);
  if (!group) return error;
  const std::vector<unsigned> sequence = order.sequence((count + group - 1) / group);
  const size_t threads_per_block = size_t(launch->block.x) * launch->block.y * launch->block.z;
  std::vector<std::unique_ptr<Block>> blocks;
  for (unsigned i = 0; i < group; i++) blocks.push_back(make_block(i * threads_per_block));
  for (size_t number = 0; number < sequence.size() && !error[0]; number++) {
    std::vector<Block*> concurrent;
    for (unsigned i = 0; i < group && sequence[number] * group + i < count; i++) {
      start(*blocks[i], sequence[number] * group + i);
      blocks[i]->rank = i;
      concurrent.push_back(blocks[i].get());
    }
    const bool hold_back = launch->order == RANDOM_ORDER && concurrent.size() > 1;
    for (Block* block : concurrent)
      block->held_thread = hold_back ? int(threads.choose(unsigned(threads_per_block))) : -1;
    restore_shared(*concurrent[0]);
    run_blocks(concurrent, threads, order);
  }
  return error;
}

}  // namespace emulator
