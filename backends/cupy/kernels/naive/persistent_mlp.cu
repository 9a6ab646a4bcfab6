// A naive version of persistent/persistent_mlp.cu: one thread runs all steps.
#include "common.cuh"
#include "naive/dot.cuh"
#include "naive/losses.cuh"
#include "naive/persistent.cuh"

struct NaiveSizes {
  int inputs, hidden, outputs;
};

// x (images, inputs), h and dh (images, hidden), logits and dlogits (images, outputs) hold a batch.
// Long: the arrays in shared memory of the fast kernel are arguments.
extern "C" __global__ void naive_persistent_mlp(const uint8* images, const int* labels,
                                                const int* rows, const int* bounds,
                                                NaiveSettings settings, NaiveSizes sizes,
                                                real* weight1, real* bias1, real* weight2,
                                                real* bias2, real* x, real* h, real* dh,
                                                real* logits, real* dlogits, double* losses,
                                                int* correct) {
  const int inputs = sizes.inputs, hidden = sizes.hidden, outputs = sizes.outputs;
  for (int step = 0; step < settings.steps; step++) {
    const int begin = bounds[2 * step], count = bounds[2 * step + 1] - begin;
    losses[step] = correct[step] = 0;
    for (int i = 0; i < count * inputs; i++)
      x[i] =
          normalize(images[rows[begin + i / inputs] * inputs + i % inputs], settings.pixel_shift);
    for (int i = 0; i < count * hidden; i++) {
      const real* const row = x + i / hidden * inputs;
      const real sum = bias1[i % hidden] + dot(row, 1, weight1 + i % hidden, hidden, inputs);
      h[i] = activate(settings.activation, sum);
    }
    for (int i = 0; i < count * outputs; i++) {
      const real* const row = h + i / outputs * hidden;
      logits[i] = bias2[i % outputs] + dot(row, 1, weight2 + i % outputs, outputs, hidden);
    }
    for (int image = 0; image < count; image++) {
      int is_correct;
      const int label = labels[rows[begin + image]], first = image * outputs;
      losses[step] += loss_of_image(settings.loss, logits + first, outputs, label, dlogits + first,
                                    is_correct) /
                      count;
      correct[step] += is_correct;
    }
    for (int i = 0; i < count * outputs; i++) dlogits[i] /= count;
    for (int i = 0; i < count * hidden; i++) {
      const real* const row = dlogits + i / hidden * outputs;
      dh[i] = dot(row, 1, weight2 + i % hidden * outputs, 1, outputs) *
              derivative(settings.activation, h[i]);
    }
    // SGD. The gradient of a weight is the sum over the images of its input times dh or dlogits.
    const auto update = [&](real& weight, real gradient) {
      weight -= settings.lr * (gradient + settings.weight_decay * weight);
    };
    const real one = 1;
    for (int i = 0; i < inputs * hidden; i++)
      update(weight1[i], dot(x + i / hidden, inputs, dh + i % hidden, hidden, count));
    for (int i = 0; i < hidden * outputs; i++)
      update(weight2[i], dot(h + i / outputs, hidden, dlogits + i % outputs, outputs, count));
    for (int j = 0; j < hidden; j++) update(bias1[j], dot(&one, 0, dh + j, hidden, count));
    for (int o = 0; o < outputs; o++) update(bias2[o], dot(&one, 0, dlogits + o, outputs, count));
  }
}
