// A naive version of penalty.cu: one thread adds everything.
#include "common.cuh"

// Adds l2 / 2 times the sum of the squared weights of a layer to the loss of the first image.
extern "C" __global__ void naive_penalty(const real* weights, int count, real l2, real* losses) {
  double squares = 0;
  for (int i = 0; i < count; i++) squares += double(weights[i]) * double(weights[i]);
  losses[0] += real(double(l2) / 2 * squares);
}
