// The scheduler of the emulator: fibers, barriers, and what may be said when they never meet.

#include "scheduler.h"

#include <algorithm>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <vector>

#include <sys/mman.h>

#ifndef __x86_64__
#error "the switch from one fiber to another is written for x86-64"
#endif

namespace emulator {

Thread* current = nullptr;

namespace {

constexpr size_t STACK_BYTES = 64 << 10;
constexpr unsigned WARP = 32;
// Rounds in which nobody does anything but sleep, after which nobody is expected to wake.
constexpr unsigned MOST_IDLE_ROUNDS = 10000;

// For how many rounds a block is the slow one.
constexpr unsigned SLOW_ROUNDS = 512;
constexpr unsigned NEIGHBOURS = 3;  // blocks of an ordinary launch that run side by side

enum class State { ready, asleep, at_block_barrier, at_warp_barrier, at_cluster_barrier, done };

struct Fiber : Thread {
  char* stack;
  void* stack_pointer;
  State state;
  Place place;
  unsigned mask;
  uint64_t given;
  bool has_arrived;  // where its cluster meets
};

}  // namespace

struct Block {
  int lagging = -1;  // number of a thread; -1 if none
  Index index;
  std::vector<Fiber> fibers;
  std::vector<char> shared;        // the block's shared memory while another block runs
  std::vector<uint64_t> received;  // by all threads, see `Thread`
};

namespace {

const Launch* launch = nullptr;
void* scheduler_stack_pointer = nullptr;
char error[1024];

// ---------------------------------------------------------------------------------------- fibers

// Keeps the registers that a function must keep on the stack, and goes on with another stack.
extern "C" void emulator_switch(void** keep_stack_pointer, void* other_stack_pointer);
asm(R"(.text
.type emulator_switch, @function
emulator_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
)");

Fiber* running() { return static_cast<Fiber*>(current); }

void leave(State state, Place place) {
  Fiber* fiber = running();
  fiber->state = state;
  fiber->place = place;
  emulator_switch(&fiber->stack_pointer, scheduler_stack_pointer);
}

void first_function_of_a_fiber() {
  launch->kernel(launch->arguments);
  leave(State::done, {"the end of the kernel", 0});
  abort();  // nobody wakes a thread that is done
}

// Stacks are kept from launch to launch: there are as many as the largest launch needed.
char* stack(size_t number) {
  static std::vector<char*> stacks;
  while (stacks.size() <= number) {
    void* memory = mmap(nullptr, STACK_BYTES, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) {
      perror("the emulator got no memory for the stack of a thread");
      abort();
    }
    stacks.push_back(static_cast<char*>(memory));
  }
  return stacks[number];
}

void start(Fiber& fiber) {
  void** top = reinterpret_cast<void**>(fiber.stack + STACK_BYTES);
  *--top = nullptr;  // functions expect the stack to be 8 bytes off a multiple of 16
  *--top = reinterpret_cast<void*>(first_function_of_a_fiber);
  for (int saved_register = 0; saved_register < 6; saved_register++) *--top = nullptr;
  fiber.stack_pointer = top;
  fiber.state = State::ready;
}

// --------------------------------------------------------------------------------- shared memory

// AddressSanitizer keeps forbidden zones between the variables, and watches memcpy. The loop is
// volatile, or the compiler would make a call of memcpy of it.
void copy_bytes(volatile char* to, const volatile char* from, size_t count) {
  for (size_t i = 0; i < count; i++) to[i] = from[i];
}

void bring_in(Block& block) { copy_bytes(launch->shared, block.shared.data(), block.shared.size()); }

void take_out(Block& block) { copy_bytes(block.shared.data(), launch->shared, block.shared.size()); }

// -------------------------------------------------------------------------------------- barriers

bool same(Place one, Place other) {
  return one.line == other.line && !strcmp(one.operation, other.operation);
}

// Wakes all threads of a block if all are at the same barrier; returns whether they are.
bool release_block(Block& block) {
  for (const Fiber& fiber : block.fibers)
    if (fiber.state != State::at_block_barrier || !same(fiber.place, block.fibers[0].place))
      return false;
  for (Fiber& fiber : block.fibers) fiber.state = State::ready;
  return true;
}

// Wakes the lanes of a warp whose partners have all come; returns whether there are any.
bool release_warp(Fiber* warp, unsigned lanes) {
  bool any = false;
  for (unsigned first = 0; first < lanes; first++) {
    if (warp[first].state != State::at_warp_barrier) continue;
    const unsigned mask = warp[first].mask;
    const Place place = warp[first].place;
    bool complete = true;
    for (unsigned lane = 0; lane < WARP; lane++) {
      if (!(mask >> lane & 1)) continue;
      complete &= lane < lanes && warp[lane].state == State::at_warp_barrier &&
                  warp[lane].mask == mask && same(warp[lane].place, place);
    }
    if (!complete) continue;
    // All partners wait here, so nobody still reads what was given last time.
    for (unsigned lane = 0; lane < lanes; lane++) {
      if (!(mask >> lane & 1)) continue;
      warp[lane].received[lane] = warp[lane].given;
      warp[lane].present = mask;
      warp[lane].state = State::ready;
    }
    any = true;
  }
  return any;
}

bool release(Block& block) {
  bool any = release_block(block);
  for (size_t first = 0; first < block.fibers.size(); first += WARP) {
    const size_t left = block.fibers.size() - first;
    any |= release_warp(&block.fibers[first], left < WARP ? unsigned(left) : WARP);
  }
  return any;
}

// Wakes all threads of a cluster if all wait at the same barrier of it; returns whether they do.
bool release_cluster(const std::vector<Block*>& blocks) {
  const Place place = blocks[0]->fibers[0].place;
  for (const auto& block : blocks)
    for (const Fiber& fiber : block->fibers)
      if (fiber.state != State::at_cluster_barrier || !same(fiber.place, place)) return false;
  for (auto& block : blocks)
    for (Fiber& fiber : block->fibers) fiber.state = State::ready;
  return true;
}

// Says who waits where, a part for each group of threads that wait together.
void report_deadlock(const std::vector<Block*>& blocks) {
  for (const auto& block : blocks) {
    char waiting[700] = "";
    size_t length = 0;
    const Fiber* told = nullptr;
    bool all_done = true;
    for (const Fiber& fiber : block->fibers) {
      all_done &= fiber.state == State::done;
      if (told && same(told->place, fiber.place) && told->mask == fiber.mask) continue;
      if (length > sizeof waiting - 150) break;
      const char* verb = fiber.state == State::done ? "is at" : "waits in";
      length += snprintf(waiting + length, sizeof waiting - length, "; from %u on %s %s",
                         unsigned(&fiber - block->fibers.data()), verb, fiber.place.operation);
      if (fiber.place.line)
        length += snprintf(waiting + length, sizeof waiting - length, " in line %d",
                           fiber.place.line);
      if (fiber.state == State::at_warp_barrier)
        length += snprintf(waiting + length, sizeof waiting - length, " for mask %08x", fiber.mask);
      told = &fiber;
    }
    if (all_done) continue;
    fail("threads of block (%u, %u, %u) wait for each other for ever%s", block->index.x,
         block->index.y, block->index.z, waiting);
    return;
  }
}

// -------------------------------------------------------------------------------------- schedule

class Order {
 public:
  Order(unsigned kind, unsigned seed) : kind_(kind), state_(seed * 2654435761u + 1) {}

  // Returns the numbers below `count` in the order of this round.
  const std::vector<unsigned>& of(unsigned count) {
    numbers_.resize(count);
    for (unsigned i = 0; i < count; i++) numbers_[i] = kind_ == 1 ? count - 1 - i : i;
    if (kind_ == 2)
      for (unsigned i = count; i > 1; i--) std::swap(numbers_[i - 1], numbers_[random() % i]);
    return numbers_;
  }

  // Returns one of the numbers below `count`.
  unsigned one_of(unsigned count) { return random() % count; }

 private:
  unsigned random() {  // xorshift (Marsaglia 2003)
    state_ ^= state_ << 13;
    state_ ^= state_ >> 17;
    return state_ ^= state_ << 5;
  }

  unsigned kind_, state_;
  std::vector<unsigned> numbers_;
};

// What became of a turn: whether any thread ran, and whether any did more than look and sleep on.
struct Ran {
  bool any = false, awake = false;
};

// Has a thread go on to where it has to wait.
void resume(Fiber& fiber) {
  current = &fiber;
  emulator_switch(&scheduler_stack_pointer, fiber.stack_pointer);
  current = nullptr;
}

// Runs all threads of a block that can run, but for one that lags behind.
Ran run_ready(Block& block, Order& order) {
  Ran ran;
  for (unsigned number : order.of(unsigned(block.fibers.size()))) {
    Fiber& fiber = block.fibers[number];
    if (fiber.state != State::ready && fiber.state != State::asleep) continue;
    if (fiber.state == State::ready && int(number) == block.lagging) continue;
    resume(fiber);
    ran.any = true;
    ran.awake |= fiber.state != State::asleep;
    if (error[0]) break;
  }
  return ran;
}

bool all_done(const std::vector<Block*>& blocks) {
  for (const auto& block : blocks)
    for (const Fiber& fiber : block->fibers)
      if (fiber.state != State::done) return false;
  return true;
}

// Runs a block up to where its threads have to wait, and wakes those who need wait no longer.
Ran run_turn(Block& block, bool has_neighbours, Order& threads) {
  if (has_neighbours) bring_in(block);
  Ran ran = run_ready(block, threads);
  if (has_neighbours) take_out(block);
  if (error[0]) return ran;
  const bool released = release(block);
  return {ran.any || released, ran.awake || released};
}

// Has the thread of a block that lags behind catch up, and another of that block lag; returns whether
// there was one.
bool catch_up(const std::vector<Block*>& blocks, Order& order) {
  for (unsigned number : order.of(unsigned(blocks.size()))) {
    Block& block = *blocks[number];
    if (block.lagging < 0 || block.fibers[block.lagging].state != State::ready) continue;
    bring_in(block);
    resume(block.fibers[block.lagging]);
    take_out(block);
    block.lagging = int(order.one_of(unsigned(block.fibers.size())));
    if (!error[0]) release(block);
    return true;
  }
  return false;
}

// Runs blocks side by side to their end. In random order there is always one that runs only when the
// others have nothing to do but wait: blocks that kept step would never show that one overwrites
// what another has still to read. And in each block a thread lags behind, until nobody else can go on,
// and one block after the other: so a block may see what only some threads of another have done.
void run_blocks(const std::vector<Block*>& blocks, Order& threads, Order& order) {
  const bool several = blocks.size() > 1;
  unsigned idle_rounds = 0, slow = 0;
  for (unsigned round = 0; !error[0] && !all_done(blocks); round++) {
    const std::vector<unsigned> sequence = order.of(unsigned(blocks.size()));
    const bool one_is_slow = several && launch->order == 2;
    if (round % SLOW_ROUNDS == 0) slow = sequence[0];
    Ran all;
    for (unsigned number : sequence) {
      if (one_is_slow && number == slow) continue;
      const Ran ran = run_turn(*blocks[number], several, threads);
      if (error[0]) return;
      all = {all.any || ran.any, all.awake || ran.awake};
    }
    if (one_is_slow && !all.awake) {
      const Ran ran = run_turn(*blocks[slow], several, threads);
      all = {all.any || ran.any, all.awake || ran.awake};
    }
    if (!error[0] && !all.awake && catch_up(blocks, order)) all = {true, true};
    if (release_cluster(blocks)) all = {true, true};
    if (!all.any) report_deadlock(blocks);
    idle_rounds = all.awake ? 0 : idle_rounds + 1;
    if (all.any && idle_rounds > MOST_IDLE_ROUNDS)
      fail("all threads sleep, and what they wait for does not happen");
  }
}

// Makes the threads of a block, which `begin` sends to the beginning of the kernel.
std::unique_ptr<Block> make_block(size_t first_stack) {
  const Index size = launch->block;
  auto block = std::make_unique<Block>();
  block->fibers.resize(size_t(size.x) * size.y * size.z);
  block->received.resize(block->fibers.size() + WARP);
  unsigned thread = 0;
  for (Fiber& fiber : block->fibers) {
    fiber.index = {thread % size.x, thread / size.x % size.y, thread / size.x / size.y};
    fiber.lane = thread % WARP;
    fiber.block = block.get();
    fiber.received = &block->received[thread - fiber.lane];
    fiber.stack = stack(first_stack + thread);
    fiber.mask = 0;
    fiber.has_arrived = false;
    thread++;
  }
  return block;
}

void begin(Block& block, unsigned number) {
  const Index grid = launch->grid;
  block.index = {number % grid.x, number / grid.x % grid.y, number / grid.x / grid.y};
  // Whoever reads what nobody wrote finds NaN.
  block.shared.assign(launch->shared_bytes, char(0xFF));
  for (Fiber& fiber : block.fibers) start(fiber);
}

}  // namespace

// -------------------------------------------------------------------------- what the kernels call

Index block_index() { return current->block->index; }
Index block_size() { return launch->block; }
Index grid_size() { return launch->grid; }

void wait_for_block(Place place) { leave(State::at_block_barrier, place); }

void arrive_at_cluster() {
  Fiber* fiber = running();
  if (launch->cluster == 1) fail("a cluster barrier in a kernel that is not launched as a cluster");
  if (fiber->has_arrived) fail("a thread comes twice to a cluster barrier that it does not wait at");
  fiber->has_arrived = true;
}

void wait_for_cluster(Place place) {
  Fiber* fiber = running();
  if (!fiber->has_arrived)
    fail("%s in line %d by a thread that has not arrived", place.operation, place.line);
  fiber->has_arrived = false;
  leave(State::at_cluster_barrier, place);
}

void exchange(unsigned mask, uint64_t value, Place place) {
  Fiber* fiber = running();
  if (!(mask >> fiber->lane & 1))
    fail("lane %u calls %s in line %d for mask %08x, of which it is not part", fiber->lane,
         place.operation, place.line, mask);
  fiber->mask = mask;
  fiber->given = value;
  leave(State::at_warp_barrier, place);
}

void sleep(Place place) { leave(State::asleep, place); }

void fail(const char* format, ...) {
  if (error[0]) return;  // the first error is the cause of the others
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(error, sizeof error, format, arguments);
  va_end(arguments);
}

const char* run(const Launch& what) {
  launch = &what;
  error[0] = 0;
  Order threads(what.order, what.seed), order(what.order, what.seed + 1);
  const unsigned count = what.grid.x * what.grid.y * what.grid.z;
  if (count % what.cluster || (what.cluster > 1 && what.resident > 1)) {
    fail("%u blocks cannot be launched%s as clusters of %u", count,
         what.resident > 1 ? " cooperatively" : "", what.cluster);
    return error;
  }
  // One group after the other runs; the blocks of a cluster are neighbours. So are, in random order,
  // some of an ordinary launch, though none may wait for another.
  unsigned group = what.resident > 1 ? what.resident : what.cluster;
  if (group == 1 && what.order == 2) group = std::min(count, NEIGHBOURS);
  const std::vector<unsigned> sequence = order.of((count + group - 1) / group);
  const size_t block_size = size_t(what.block.x) * what.block.y * what.block.z;
  std::vector<std::unique_ptr<Block>> blocks;
  for (unsigned i = 0; i < group; i++) blocks.push_back(make_block(i * block_size));
  for (size_t number = 0; number < sequence.size() && !error[0]; number++) {
    std::vector<Block*> beside;
    for (unsigned i = 0; i < group && sequence[number] * group + i < count; i++) {
      begin(*blocks[i], sequence[number] * group + i);
      beside.push_back(blocks[i].get());
    }
    const bool one_lags = what.order == 2 && beside.size() > 1;
    for (Block* block : beside)
      block->lagging = one_lags ? int(threads.one_of(unsigned(block_size))) : -1;
    bring_in(*beside[0]);
    run_blocks(beside, threads, order);
  }
  return error;
}

}  // namespace emulator
