// The inline PTX that the kernels use. build.py replaces each asm statement by a call of `inline_ptx`.
#pragma once

#include <cstring>
#include <initializer_list>

#include "scheduler.h"
#include "tensor_cores.h"

namespace emulator {

using Outputs = std::initializer_list<void*>;
using Inputs = std::initializer_list<uint32_t>;

// An instruction, and the function that runs it.
struct Instruction {
  const char* text;
  size_t outputs, inputs;
  void (*run)(void* const* outputs, const uint32_t* inputs, int line);
};

constexpr Instruction INSTRUCTIONS[] = {
    {MMA_SYNC, 4, 6, mma_sync},
    {"mbarrier.init.shared::cta.b64 [%0], %1;", 0, 2,
     [](void* const*, const uint32_t* in, int line) {
       mbarrier_init(in[0], in[1], {"mbarrier.init", line});
     }},
    {"fence.mbarrier_init.release.cluster;", 0, 0,
     [](void* const*, const uint32_t*, int) { mbarrier_init_fence(); }},
    {"mbarrier.arrive.release.cta.shared::cta.b64 _, [%0];", 0, 1,
     [](void* const*, const uint32_t* in, int line) {
       mbarrier_arrive(in[0], 0, {"mbarrier.arrive", line});
     }},
    {"mbarrier.arrive.release.cluster.shared::cluster.b64 _, [%0];", 0, 1,
     [](void* const*, const uint32_t* in, int line) {
       mbarrier_arrive(in[0], 0, {"mbarrier.arrive", line});
     }},
    {"mbarrier.arrive.expect_tx.release.cta.shared::cta.b64 _, [%0], %1;", 0, 2,
     [](void* const*, const uint32_t* in, int line) {
       mbarrier_arrive(in[0], in[1], {"mbarrier.arrive.expect_tx", line});
     }},
    {"{ .reg .pred done; mbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 done, [%1], %2; "
     "selp.u32 %0, 1, 0, done; }",
     1, 2,
     [](void* const* out, const uint32_t* in, int line) {
       mbarrier_wait(in[0], in[1], {"mbarrier.try_wait", line});
       *static_cast<uint32_t*>(out[0]) = 1;
     }},
    {"st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.v4.b32 "
     "[%0], {%1, %2, %3, %4}, [%5];",
     0, 6,
     [](void* const*, const uint32_t* in, int line) {
       store_async(in[0], in + 1, in[5], {"st.async", line});
     }},
};

inline void inline_ptx(const char* text, Outputs outputs, Inputs inputs, int line = __builtin_LINE()) {
  for (const Instruction& instruction : INSTRUCTIONS)
    if (!strcmp(text, instruction.text) && outputs.size() == instruction.outputs &&
        inputs.size() == instruction.inputs)
      return instruction.run(outputs.begin(), inputs.begin(), line);
  fail("line %d: the emulator does not support the PTX %s", line, text);
}

}  // namespace emulator
