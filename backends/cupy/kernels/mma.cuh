// The matrix instruction of tensor cores. It needs compute capability 8.0.
#pragma once

#include "common.cuh"

// Adds the product of a 16×16 matrix and a 16×8 matrix of bfloat16 to a 16×8 matrix of float. All
// lanes of a warp take part, and each holds some elements of the matrices:
//
//   lane = 4 g + t      rows       columns                  registers
//   left                g, g + 8   2 t, 2 t + 1, and + 8    left[0]: row g, left[1]: row g + 8,
//                                                           left[2], left[3]: the same, columns + 8
//   right (transposed)  g          2 t, 2 t + 1, and + 8    right[0], right[1]: columns + 8
//   sums                g, g + 8   2 t, 2 t + 1             sums[0], sums[1]: row g,
//                                                           sums[2], sums[3]: row g + 8
//
// A register of `left` and `right` holds two consecutive elements, the first in its lower half.
// Products are exact. Sums have at least the precision of float, in an unspecified order and
// rounding; current GPUs truncate.
DEVICE void mma_16x8x16(float (&sums)[4], const uint32 (&left)[4], const uint32 (&right)[2]) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
      "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
      : "r"(left[0]), "r"(left[1]), "r"(left[2]), "r"(left[3]), "r"(right[0]), "r"(right[1]));
}
