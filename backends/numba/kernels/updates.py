"""One step of each optimizer on a range of the parameters.

`backends.operations.updates` has the formulas.

Parameters, their gradient and each state array of the optimizer are vectors in the same packed
order (see `backends.numba.layout`). Unused lanes stay 0.

Cost per step: one pass that reads parameters, gradient and state and writes parameters and state.
Per parameter it reads and writes 3 numbers without state, 5 with one state array, 7 with two.
"""

import math
from typing import Any, NamedTuple

from backends.numba.kernels.compilation import kernel
from backends.numba.kernels.views import view

# The update rules that have a kernel. Each constant is the position in this tuple.
RULES = ("sgd", "momentum", "adagrad", "rmsprop", "adam")
SGD, MOMENTUM, ADAGRAD, RMSPROP, ADAM = range(5)


class Rule(NamedTuple):
    """The settings of an optimizer; the settings that only other optimizers have are 0.

    Attributes:
        kind: `SGD` or another constant of this module.
    """

    kind: int
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
        state: state arrays of the optimizer, (arrays, size).
    """

    packed: Any
    state: Any


@kernel
def update(
    rule: Any, lr: float, step: int, parameters: Any, gradient: Any, begin: int, count: int
) -> None:
    """Update parameters `begin` to `begin + count − 1` and their state by one step.

    Args:
        rule: the optimizer.
        lr: learning rate.
        step: number of the step, from 1.
        parameters: changed in place, `Parameters`.
        gradient: gradient of all parameters, (size,).
        begin: number of the first parameter to update.
        count: number of parameters to update.
    """
    cast = parameters.packed.dtype.type
    weights = view(parameters.packed, begin, count)
    grads = view(gradient, begin, count)
    rate = cast(lr)
    weight_decay = cast(rule.weight_decay)
    eps = cast(rule.eps)
    first_state = view(parameters.state, begin, count)
    if rule.kind == SGD:
        for i in range(len(weights)):
            weights[i] -= rate * (grads[i] + weight_decay * weights[i])
    elif rule.kind == MOMENTUM:
        momentum = cast(rule.momentum)
        velocity = first_state
        # A Nesterov step is gradient + momentum · velocity, any other step is the velocity.
        of_gradient = cast(1) if rule.nesterov else cast(0)
        of_velocity = momentum if rule.nesterov else cast(1)
        for i in range(len(weights)):
            grad = grads[i] + weight_decay * weights[i]
            velocity[i] = momentum * velocity[i] + grad
            weights[i] -= rate * (of_gradient * grad + of_velocity * velocity[i])
    elif rule.kind == ADAGRAD:
        square_sum = first_state
        for i in range(len(weights)):
            grad = grads[i] + weight_decay * weights[i]
            square_sum[i] += grad * grad
            weights[i] -= rate * grad / (math.sqrt(square_sum[i]) + eps)
    elif rule.kind == RMSPROP:
        square_mean = first_state
        kept = cast(rule.decay)
        added = cast(1 - rule.decay)
        for i in range(len(weights)):
            grad = grads[i] + weight_decay * weights[i]
            square_mean[i] = kept * square_mean[i] + added * grad * grad
            weights[i] -= rate * grad / (math.sqrt(square_mean[i]) + eps)
    else:
        mean = first_state
        square_mean = view(parameters.state, parameters.state.shape[1] + begin, count)
        beta1, beta2 = cast(rule.beta1), cast(rule.beta2)
        rest1, rest2 = cast(1 - rule.beta1), cast(1 - rule.beta2)
        scale = cast(lr / (1 - rule.beta1**step))
        correction = cast(1 / (1 - rule.beta2**step))
        shrink = cast(1 - lr * rule.weight_decay) if rule.decoupled else cast(1)
        coupled = cast(0) if rule.decoupled else weight_decay
        for i in range(len(weights)):
            weight = weights[i] * shrink
            grad = grads[i] + coupled * weight
            mean[i] = beta1 * mean[i] + rest1 * grad
            square_mean[i] = beta2 * square_mean[i] + rest2 * grad * grad
            weights[i] = weight - scale * mean[i] / (math.sqrt(square_mean[i] * correction) + eps)
