// The forward pass of a network on one image.
//
// A tensor is {shape, data}: images are [channels, height, width], vectors are [length]. The layers and
// the names of the weights are those of the model file.

"use strict";

function linear(x, layer) {
  const [inputs, outputs] = layer.W.shape;
  const y = new Float64Array(outputs);
  if (layer.b) y.set(layer.b.data);
  for (let i = 0; i < inputs; i++) {
    const value = x.data[i];
    if (value === 0) continue; // most pixels of a drawing are 0
    for (let j = 0; j < outputs; j++) y[j] += value * layer.W.data[i * outputs + j];
  }
  return { shape: [outputs], data: y };
}

function conv2d(x, layer) {
  const [channels, height, width] = x.shape;
  const [filters, , side] = layer.W.shape;
  const { stride, padding } = layer;
  const rows = Math.floor((height + 2 * padding - side) / stride) + 1;
  const columns = Math.floor((width + 2 * padding - side) / stride) + 1;
  const y = new Float64Array(filters * rows * columns);
  for (let f = 0; f < filters; f++) {
    for (let row = 0; row < rows; row++) {
      for (let column = 0; column < columns; column++) {
        let sum = layer.b ? layer.b.data[f] : 0;
        for (let c = 0; c < channels; c++) {
          for (let i = 0; i < side; i++) {
            const at = row * stride + i - padding;
            if (at < 0 || at >= height) continue;
            for (let j = 0; j < side; j++) {
              const across = column * stride + j - padding;
              if (across < 0 || across >= width) continue;
              sum +=
                x.data[(c * height + at) * width + across] *
                layer.W.data[((f * channels + c) * side + i) * side + j];
            }
          }
        }
        y[(f * rows + row) * columns + column] = sum;
      }
    }
  }
  return { shape: [filters, rows, columns], data: y };
}

// Combine each patch of a channel with `start` and `add`, and divide by `divisor`.
function pool(x, layer, start, add, divisor) {
  const [channels, height, width] = x.shape;
  const { size, stride } = layer;
  const rows = Math.floor((height - size) / stride) + 1;
  const columns = Math.floor((width - size) / stride) + 1;
  const y = new Float64Array(channels * rows * columns);
  for (let c = 0; c < channels; c++) {
    for (let row = 0; row < rows; row++) {
      for (let column = 0; column < columns; column++) {
        let value = start;
        for (let i = 0; i < size; i++) {
          for (let j = 0; j < size; j++) {
            const at = (c * height + row * stride + i) * width + column * stride + j;
            value = add(value, x.data[at]);
          }
        }
        y[(c * rows + row) * columns + column] = value / divisor;
      }
    }
  }
  return { shape: [channels, rows, columns], data: y };
}

const elementwise = (f) => (x) => ({ shape: x.shape, data: x.data.map(f) });
const sigmoid = elementwise((value) => 1 / (1 + Math.exp(-value)));

const LAYERS = {
  linear,
  conv2d,
  max_pool2d: (x, layer) => pool(x, layer, -Infinity, Math.max, 1),
  avg_pool2d: (x, layer) => pool(x, layer, 0, (sum, value) => sum + value, layer.size ** 2),
  flatten: (x) => ({ shape: [x.data.length], data: x.data }),
  dropout: (x) => x,
  relu: elementwise((value) => Math.max(value, 0)),
  sigmoid,
  tanh: elementwise(Math.tanh),
};

function softmax(logits) {
  const largest = Math.max(...logits);
  const powers = Array.from(logits, (value) => Math.exp(value - largest));
  const sum = powers.reduce((a, b) => a + b);
  return powers.map((power) => power / sum);
}

// Return the outputs of all layers for the pixels of an image in 0…1, and the probabilities.
function predict(network, pixels) {
  let x = { shape: network.input_shape, data: Float64Array.from(pixels, (p) => p + network.pixel_shift) };
  const outputs = network.layers.map((layer) => (x = LAYERS[layer.kind](x, layer)));
  const probabilities = network.outputs === "softmax" ? softmax(x.data) : Array.from(sigmoid(x).data);
  return { outputs, probabilities };
}

// Return the network whose weights are one base64 text of float32 numbers.
function decode(description) {
  const bytes = Uint8Array.from(atob(description.weights), (c) => c.charCodeAt(0));
  const values = new Float32Array(bytes.buffer);
  let begin = 0;
  for (const layer of description.layers) {
    for (const name of ["W", "b"]) {
      if (!layer[name]) continue;
      const length = layer[name].reduce((a, b) => a * b);
      layer[name] = { shape: layer[name], data: values.subarray(begin, begin + length) };
      begin += length;
    }
  }
  return description;
}
