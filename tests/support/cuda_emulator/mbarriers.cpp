// Barriers in shared memory that count arrivals and bytes (mbarrier), and the asynchronous stores whose
// bytes they count.
//
// A store ends at an unknown time: the scheduler decides when its bytes are written and counted.

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "state.h"

namespace emulator {

namespace {

constexpr unsigned VALID = 0x5A;  // memory that nothing has been written to differs
constexpr unsigned OFFSET_BITS = 24;
constexpr uint32_t OFFSET_MASK = (1u << OFFSET_BITS) - 1;
constexpr int MAX_BYTES = (1 << 20) - 1;
constexpr unsigned STORE_BYTES = 16;

// The 8 bytes of a barrier.
struct Mbarrier {
  uint64_t valid : 8;
  uint64_t parity : 1;       // of the current phase
  uint64_t was_awaited : 1;  // the previous phase
  uint64_t born : 6;  // arrivals at the cluster barrier of the thread that initialized this barrier
  uint64_t arrivals : 12, missing_arrivals : 12;  // of each phase, and of the current phase
  int64_t missing_bytes : 22;  // negative while bytes have arrived that are not expected yet
};
static_assert(sizeof(Mbarrier) == 8);

struct Store {
  Block* block;
  uint32_t address, mbarrier;
  uint32_t words[STORE_BYTES / 4];
  Location location;
};

std::vector<Store> stores;

Block* block_of(uint32_t address) { return (*concurrent_blocks)[address >> OFFSET_BITS]; }

char* memory_at(uint32_t address) {
  Block* const block = block_of(address);
  char* const shared = block == loaded_block ? launch->shared : block->shared.data();
  return shared + (address & OFFSET_MASK);
}

void misuse(Location location, const char* problem) {
  fail("%s in line %d: %s", location.function, location.line, problem);
}

// Returns a barrier that the running thread may use; null after an error.
Mbarrier* usable(uint32_t address, Location location) {
  const auto barrier = reinterpret_cast<Mbarrier*>(memory_at(address));
  const Fiber& thread = *running();
  const char* problem = nullptr;
  if (address % sizeof(Mbarrier))
    problem = "the address of the barrier is not a multiple of 8";
  else if (all_done(*block_of(address)))
    problem = "the block of the barrier has ended";
  else if (barrier->valid != VALID)
    problem = "the barrier is not initialized";
  else if (block_of(address) != thread.block && thread.arrivals - thread.has_arrived <= barrier->born)
    problem = "no cluster barrier has made the initialization of the barrier visible";
  if (problem) misuse(location, problem);
  return problem ? nullptr : barrier;
}

// Begins the next phase if the current one is complete.
void advance(Mbarrier& barrier) {
  if (barrier.missing_arrivals || barrier.missing_bytes) return;
  barrier.parity ^= 1;
  barrier.missing_arrivals = barrier.arrivals;
  barrier.was_awaited = 0;
}

void add_missing_bytes(Mbarrier& barrier, int bytes, Location location) {
  const int64_t missing = barrier.missing_bytes + bytes;
  if (std::abs(missing) > MAX_BYTES) misuse(location, "a phase of a barrier counts too many bytes");
  barrier.missing_bytes = missing;
}

bool is_own(uint32_t address) { return block_of(address) == running()->block; }

}  // namespace

bool has_ended(const Fiber& waiting) {
  return reinterpret_cast<const Mbarrier*>(memory_at(waiting.mbarrier))->parity != waiting.parity;
}

size_t stores_in_flight() { return stores.size(); }

void forget_stores() { stores.clear(); }

void end_store(size_t number) {
  const Store store = stores[number];
  stores.erase(stores.begin() + number);
  if (all_done(*store.block)) {
    misuse(store.location, "the block ended before the asynchronous store into its shared memory");
    return;
  }
  memcpy(memory_at(store.address), store.words, STORE_BYTES);
  auto& barrier = *reinterpret_cast<Mbarrier*>(memory_at(store.mbarrier));
  add_missing_bytes(barrier, -int(STORE_BYTES), store.location);
  advance(barrier);
}

uint32_t shared_address(const void* variable, Location location) {
  const char* const address = static_cast<const char*>(variable);
  for (const Block* block : *concurrent_blocks) {
    const char* const shared = block == loaded_block ? launch->shared : block->shared.data();
    if (address >= shared && address < shared + launch->shared_bytes)
      return block->rank << OFFSET_BITS | uint32_t(address - shared);
  }
  misuse(location, "the variable is not in shared memory");
  return running()->block->rank << OFFSET_BITS;
}

void mbarrier_init(uint32_t address, uint32_t arrivals, Location location) {
  if (!is_own(address) || address % sizeof(Mbarrier) || arrivals < 1 || arrivals >= 1 << 12)
    return misuse(location, "a barrier is in the block's own shared memory, has an address that is a "
                            "multiple of 8, and expects 1 to 4095 arrivals");
  auto& barrier = *reinterpret_cast<Mbarrier*>(memory_at(address));
  barrier.valid = VALID;
  barrier.parity = 0;
  barrier.was_awaited = 1;
  barrier.born = running()->arrivals;
  barrier.arrivals = barrier.missing_arrivals = arrivals;
  barrier.missing_bytes = 0;
  running()->has_unreleased_mbarrier = true;
}

void mbarrier_init_fence() { running()->has_unreleased_mbarrier = false; }

void mbarrier_arrive(uint32_t address, uint32_t expected_bytes, Location location) {
  Mbarrier* const barrier = usable(address, location);
  if (!barrier) return;
  if (!barrier->was_awaited)
    return misuse(location, "a thread arrives before any thread has waited for the previous phase");
  if (!barrier->missing_arrivals)
    return misuse(location, "a thread arrives after all arrivals that the phase expects");
  add_missing_bytes(*barrier, int(expected_bytes), location);
  barrier->missing_arrivals--;
  advance(*barrier);
}

void mbarrier_wait(uint32_t address, uint32_t parity, Location location) {
  if (!is_own(address)) return misuse(location, "a thread can wait only in its own block");
  if (!usable(address, location)) return;
  running()->mbarrier = address;
  running()->parity = parity & 1;
  suspend(State::at_mbarrier, location);
  reinterpret_cast<Mbarrier*>(memory_at(address))->was_awaited = 1;
}

void store_async(uint32_t address, const uint32_t* words, uint32_t mbarrier, Location location) {
  if (launch->cluster_size == 1) return misuse(location, "there are no clusters");
  if (address % STORE_BYTES) return misuse(location, "the address is not a multiple of 16");
  if (block_of(address) != block_of(mbarrier))
    return misuse(location, "the variable and its barrier are in different blocks");
  if (!usable(mbarrier, location)) return;
  Store store = {block_of(address), address, mbarrier, {}, location};
  std::copy(words, words + STORE_BYTES / 4, store.words);
  stores.push_back(store);
}

}  // namespace emulator
