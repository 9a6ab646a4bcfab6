// Naive versions of linear.cu, tensor_linear.cu and tensor_wgrad.cu, and of the linear layers in
// fused_classifier.cu and wgrad_update.cu. One thread per result.
//
// Layout: as in linear.cu.
#include "common.cuh"
#include "naive/dot.cuh"

// y = activation(x W + bias); `bias` may be null.
extern "C" __global__ void naive_linear(const real* x, const real* weight, const real* bias,
                                        int images, int inputs, int outputs, Activation activation,
                                        real* y) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x, image = i / outputs, j = i % outputs;
  if (image >= images) return;
  const real sum = dot(x + image * inputs, 1, weight + j, outputs, inputs);
  y[i] = activate(activation, bias ? sum + bias[j] : sum);
}

// dx = dy Wᵀ times the derivative of the activation that computed x.
extern "C" __global__ void naive_linear_backward_x(const real* dy, const real* weight,
                                                   const real* x, int images, int inputs,
                                                   int outputs, Activation activation, real* dx) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x, image = i / inputs, k = i % inputs;
  if (image >= images) return;
  const real sum = dot(dy + image * outputs, 1, weight + k * outputs, 1, outputs);
  dx[i] = sum * derivative(activation, x[i]);
}

// dW = xᵀ dy, (inputs, outputs), and the gradient of the bias: the row of dW for an input that is
// 1. `dbias` may be null.
extern "C" __global__ void naive_linear_backward_weight(const real* dy, const real* x, int images,
                                                        int inputs, int outputs, real* dweight,
                                                        real* dbias) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x, k = i / outputs, j = i % outputs;
  const real one = 1;
  if (k < inputs) dweight[i] = dot(x + k, inputs, dy + j, outputs, images);
  if (k == inputs && dbias) dbias[j] = dot(&one, 0, dy + j, outputs, images);
}
