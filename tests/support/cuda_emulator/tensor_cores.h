// The instruction of tensor cores that the kernels use.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "scheduler.h"

namespace emulator {

constexpr char MMA_SYNC[] =
    "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
    "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};";

// Adds in float, rounded toward zero: the least accurate sum that the instruction may compute.
inline float add_toward_zero(float a, float b) {
  const double exact = double(a) + double(b);
  float sum = float(exact);
  if (std::fabs(sum) > std::fabs(exact)) {
    uint32_t bits;
    memcpy(&bits, &sum, sizeof bits);
    bits--;  // the next float toward zero
    memcpy(&sum, &bits, sizeof bits);
  }
  return sum;
}

// Returns one of the two bfloat16 of a register.
inline float bfloat16(uint32_t pair, unsigned number) {
  const uint32_t bits = number ? pair & 0xffff0000 : pair << 16;
  float value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

// Returns element (row, k) of the left factor, and element (k, column) of the right one, from the
// registers of all lanes: four of the left factor, then two of the right one.
inline float left_element(unsigned row, unsigned k) {
  const unsigned lane = row % 8 * 4 + k % 8 / 2;
  const auto registers = reinterpret_cast<const uint32_t*>(current->warp_values[lane]);
  return bfloat16(registers[row / 8 + k / 8 * 2], k % 2);
}
inline float right_element(unsigned k, unsigned column) {
  const unsigned lane = column * 4 + k % 8 / 2;
  const auto registers = reinterpret_cast<const uint32_t*>(current->warp_values[lane]);
  return bfloat16(registers[4 + k / 8], k % 2);
}

// Runs the instruction MMA_SYNC.
inline void mma_sync(void* const* outputs, const uint32_t* inputs, int line) {
  warp_exchange(0xffffffff, reinterpret_cast<uint64_t>(inputs), {"mma.sync", line});
  const unsigned lane = current->lane;
  for (unsigned i = 0; i < 4; i++) {
    const unsigned row = lane / 4 + i / 2 * 8, column = lane % 4 * 2 + i % 2;
    float& sum = *static_cast<float*>(outputs[i]);
    for (unsigned k = 0; k < 16; k++)
      sum = add_toward_zero(sum, left_element(row, k) * right_element(k, column));
  }
  // The registers of a lane exist until all lanes have read them.
  warp_exchange(0xffffffff, 0, {"mma.sync", line});
}

}  // namespace emulator
