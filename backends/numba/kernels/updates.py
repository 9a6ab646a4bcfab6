"""One step of each optimizer on a range of the parameters.

`backends.operations.updates` has the formulas.

Each rule has a stage kernel, which updates a range of the parameters and their state. Its
parameters:

    rule: the settings.
    lr: learning rate.
    step: number of the step, from 1.
    parameters: changed in place, `Parameters`.
    gradient: gradient of all parameters, (size,).
    begin: number of the first parameter to update.
    count: number of parameters to update.

Parameters, their gradient and each state array of the optimizer are vectors in the same packed
order (see `backends.numba.layout`). Unused lanes stay 0.

Cost per step: one pass that reads parameters, gradient and state and writes parameters and state.
Per parameter it reads and writes 3 numbers without state, 5 with one state array, 7 with two.
"""

import math
from typing import Any, NamedTuple

import numpy as np

from backends.numba.kernels.compilation import allocating_entry, call, stage_kernel
from backends.numba.kernels.denormals import flush_denormals, restore_denormals
from backends.numba.kernels.views import pointer_to, view


class Rule(NamedTuple):
    """The settings of an optimizer; the settings that only other optimizers have are 0.

    Attributes:
        is_linear: whether steps can have a linear form (see `epoch`): those of plain SGD without a
            penalty can.
    """

    is_linear: bool
    weight_decay: float
    momentum: float
    nesterov: float
    decay: float
    beta1: float
    beta2: float
    eps: float
    decoupled: float


class Parameters(NamedTuple):
    """The parameters of a network and the state of its optimizer, in packed order.

    Attributes:
        packed: the parameters, (size,).
        states: addresses of the state arrays of the optimizer, each (size,).
    """

    packed: Any
    states: Any


@stage_kernel
def sgd(
    rule: Any, lr: float, step: int, parameters: Any, gradient: Any, begin: int, count: int
) -> None:
    """Update by plain stochastic gradient descent."""
    cast = parameters.packed.dtype.type
    weights, grads = view(parameters.packed, begin, count), view(gradient, begin, count)
    rate, weight_decay = cast(lr), cast(rule.weight_decay)
    for i in range(len(weights)):
        weights[i] -= rate * (grads[i] + weight_decay * weights[i])


@stage_kernel
def momentum(
    rule: Any, lr: float, step: int, parameters: Any, gradient: Any, begin: int, count: int
) -> None:
    """Update by SGD with momentum. The state is the velocity."""
    cast = parameters.packed.dtype.type
    weights, grads = view(parameters.packed, begin, count), view(gradient, begin, count)
    velocity = view(pointer_to(cast, parameters.states[0]), begin, count)
    rate, weight_decay, kept = cast(lr), cast(rule.weight_decay), cast(rule.momentum)
    # A Nesterov step is gradient + momentum · velocity, any other step is the velocity.
    of_gradient = cast(1) if rule.nesterov else cast(0)
    of_velocity = kept if rule.nesterov else cast(1)
    for i in range(len(weights)):
        grad = grads[i] + weight_decay * weights[i]
        velocity[i] = kept * velocity[i] + grad
        weights[i] -= rate * (of_gradient * grad + of_velocity * velocity[i])


@stage_kernel
def adagrad(
    rule: Any, lr: float, step: int, parameters: Any, gradient: Any, begin: int, count: int
) -> None:
    """Update by AdaGrad. The state is the sum of the squared gradients."""
    cast = parameters.packed.dtype.type
    weights, grads = view(parameters.packed, begin, count), view(gradient, begin, count)
    square_sum = view(pointer_to(cast, parameters.states[0]), begin, count)
    rate, weight_decay, eps = cast(lr), cast(rule.weight_decay), cast(rule.eps)
    for i in range(len(weights)):
        grad = grads[i] + weight_decay * weights[i]
        square_sum[i] += grad * grad
        weights[i] -= rate * grad / (math.sqrt(square_sum[i]) + eps)


@stage_kernel
def rmsprop(
    rule: Any, lr: float, step: int, parameters: Any, gradient: Any, begin: int, count: int
) -> None:
    """Update by RMSprop. The state is the mean of the squared gradients."""
    cast = parameters.packed.dtype.type
    weights, grads = view(parameters.packed, begin, count), view(gradient, begin, count)
    square_mean = view(pointer_to(cast, parameters.states[0]), begin, count)
    rate, weight_decay, eps = cast(lr), cast(rule.weight_decay), cast(rule.eps)
    kept, added = cast(rule.decay), cast(1 - rule.decay)
    for i in range(len(weights)):
        grad = grads[i] + weight_decay * weights[i]
        square_mean[i] = kept * square_mean[i] + added * grad * grad
        weights[i] -= rate * grad / (math.sqrt(square_mean[i]) + eps)


@stage_kernel
def adam(
    rule: Any, lr: float, step: int, parameters: Any, gradient: Any, begin: int, count: int
) -> None:
    """Update by Adam. The state is the means of the gradients and of the squared gradients."""
    cast = parameters.packed.dtype.type
    weights, grads = view(parameters.packed, begin, count), view(gradient, begin, count)
    mean = view(pointer_to(cast, parameters.states[0]), begin, count)
    square_mean = view(pointer_to(cast, parameters.states[1]), begin, count)
    eps = cast(rule.eps)
    beta1, beta2 = cast(rule.beta1), cast(rule.beta2)
    rest1, rest2 = cast(1 - rule.beta1), cast(1 - rule.beta2)
    scale = cast(lr / (1 - rule.beta1**step))
    correction = cast(1 / (1 - rule.beta2**step))
    shrink = cast(1 - lr * rule.weight_decay) if rule.decoupled else cast(1)
    coupled = cast(0) if rule.decoupled else cast(rule.weight_decay)
    for i in range(len(weights)):
        weight = weights[i] * shrink
        grad = grads[i] + coupled * weight
        mean[i] = beta1 * mean[i] + rest1 * grad
        square_mean[i] = beta2 * square_mean[i] + rest2 * grad * grad
        weights[i] = weight - scale * mean[i] / (math.sqrt(square_mean[i] * correction) + eps)


# The update rules that have a kernel.
KERNELS = {
    "sgd": sgd,
    "momentum": momentum,
    "adagrad": adagrad,
    "rmsprop": rmsprop,
    "adam": adam,
}
RULES = tuple(KERNELS)


@allocating_entry
def update(kernel: int, settings: Any, lr: float, step: int, arrays: Any, gradient: Any) -> None:
    """Update all parameters, as a single operation.

    Args:
        kernel: address of the stage kernel of the rule.
        settings: the fields of `Rule`, as a plain tuple.
        lr: learning rate.
        step: number of the step, from 1.
        arrays: the parameters and the state arrays, each (size,).
        gradient: gradient of all parameters, (size,).
    """
    states = np.empty(len(arrays) - 1, np.uint64)
    for number in range(len(states)):
        states[number] = arrays[number + 1].ctypes.data
    parameters = Parameters(arrays[0], states)
    mode = flush_denormals()
    call(kernel, Rule(*settings), lr, step, parameters, gradient, 0, len(gradient))
    restore_denormals(mode)
