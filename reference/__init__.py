"""The seven recipes in plain float64 loops: the reference that every backend is compared with.

This package shares no code with the others. It imports only NumPy and the standard library, handles
one example at a time, and writes the sums of the formulas as loops. Every layer is a pair of
functions, `layer` and `layer_backward`. A backward function takes the gradient of the loss with
respect to the layer's output, `dy`, and the layer's input. It returns the gradient with respect to
that input, `dx`, followed by those of the parameters.

Shapes for one example: vectors `(n,)`, images `(channels, height, width)`, weights `(in, out)`,
filters `(out_channels, in_channels, kh, kw)`. Everything is float64.
"""

from reference.activations import (
    ACTIVATIONS,
    ACTIVATIONS_BACKWARD,
    relu,
    relu_backward,
    sigmoid,
    sigmoid_backward,
    tanh,
    tanh_backward,
)
from reference.layers import Array, conv2d, conv2d_backward, linear, linear_backward, pad
from reference.losses import (
    LOSSES,
    NUMBER_LOSSES,
    binary_cross_entropy,
    multilabel_cross_entropy,
    one_hot,
    quadratic,
    softmax,
    softmax_cross_entropy,
    squared_error,
)
from reference.networks import RECIPES, Activation, Conv2d, MaxPool2d, Recipe, initial_weights
from reference.optimizers import OPTIMIZERS, Past, update
from reference.pooling import avg_pool2d, avg_pool2d_backward, max_pool2d, max_pool2d_backward
from reference.schedules import Schedule, constant_lr, cosine_lr, one_cycle_lr, step_lr
from reference.training import batch_loss_and_gradients, forward, loss_and_gradients, train

__all__ = [
    "ACTIVATIONS",
    "ACTIVATIONS_BACKWARD",
    "LOSSES",
    "NUMBER_LOSSES",
    "OPTIMIZERS",
    "RECIPES",
    "Activation",
    "Array",
    "Conv2d",
    "MaxPool2d",
    "Past",
    "Recipe",
    "Schedule",
    "avg_pool2d",
    "avg_pool2d_backward",
    "batch_loss_and_gradients",
    "binary_cross_entropy",
    "constant_lr",
    "conv2d",
    "conv2d_backward",
    "cosine_lr",
    "forward",
    "initial_weights",
    "linear",
    "linear_backward",
    "loss_and_gradients",
    "max_pool2d",
    "max_pool2d_backward",
    "multilabel_cross_entropy",
    "one_cycle_lr",
    "one_hot",
    "pad",
    "quadratic",
    "relu",
    "relu_backward",
    "sigmoid",
    "sigmoid_backward",
    "softmax",
    "softmax_cross_entropy",
    "squared_error",
    "step_lr",
    "tanh",
    "tanh_backward",
    "train",
    "update",
]
