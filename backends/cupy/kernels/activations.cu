// Activations that are not fused into another kernel, and their gradients. One thread per element.
//
// Cost per image: reads and writes every element once.
// Options: -DACTIVATION=IDENTITY, RELU, SIGMOID or TANH; -DGATHER and -DINPUT as in
// stage_input.cuh.
#include "common.cuh"
#include "stage_input.cuh"

// y = activation(x), both (B, units). Grid: B · units threads, once per member.
// At most 40 registers.
extern "C" __global__ void activation(const INPUT* __restrict__ x, StageInput input, int units,
                                      int64 member_stride, real* __restrict__ y) {
  const StageRows rows = stage_rows(x, input, units, member_stride);
  const Position position(units);
  const int image = position.quotient, unit = position.remainder;
  if (image >= rows.count) return;
  of_member(y, member_stride)[int64(image) * units + unit] =
      activate(ACTIVATION, rows.from(image).row(0)[unit]);
}

// dx = dy times the derivative of the activation that computed y; `dx` and `dy` may be the same
// array. Grid: `size` threads, once per member.
// At most 32 registers.
extern "C" __global__ void activation_backward(const real* dy, const real* __restrict__ y,
                                               int64 size, int64 member_stride, real* dx) {
  const int64 i = int64(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= size) return;
  of_member(dx, member_stride)[i] =
      of_member(dy, member_stride)[i] * derivative(ACTIVATION, of_member(y, member_stride)[i]);
}
