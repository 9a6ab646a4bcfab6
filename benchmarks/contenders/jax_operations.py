"""JAX: single operations of a network, each compiled separately.

A backward operation is the function that `jax.vjp` returns; the forward pass runs before. Only
`softmax_cross_entropy` includes both, because its results are the loss and the gradient.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeAlias

import jax
import numpy as np

from benchmarks.contenders.base import OperationSession, OperationTask
from benchmarks.contenders.jax_networks import (
    UPDATES,
    Array,
    conv2d,
    linear,
    max_pool2d,
    softmax_cross_entropy,
)

Compute: TypeAlias = Callable[[], Sequence[Array]]

# Functions of x and, if the operation has them, weight and bias; settings are keyword arguments.
_FUNCTIONS: dict[str, Callable[..., Array]] = {
    "linear": linear,
    "conv2d": conv2d,
    "max_pool2d": lambda x, size: max_pool2d(x, size=size, stride=size),
    "conv2d_relu_max_pool2d": lambda x, weight, bias, size, **conv: max_pool2d(
        jax.nn.relu(conv2d(x, weight, bias, **conv)), size=size, stride=size
    ),
}
_NAMES = {*_FUNCTIONS, "softmax_cross_entropy", "sgd_update", "adam_update"}


def prepare_operation(task: OperationTask) -> OperationSession | None:
    """Return the operation on arrays of the device; None if no operation has this name."""
    if task.name not in _NAMES:
        return None
    compute = _prepare(task)

    def run() -> None:
        jax.block_until_ready(compute())

    # Updates donate their inputs, so the results are computed from new inputs.
    def results() -> Sequence[Any]:
        return [np.asarray(array) for array in _prepare(task)()]

    return OperationSession(run, results)


def _prepare(task: OperationTask) -> Compute:
    # The inputs are copied, and labels become int32, because JAX has no int64 by default.
    inputs = {
        name: jax.device_put(np.array(host, np.int32 if host.dtype == np.int64 else host.dtype))
        for name, host in task.inputs.items()
    }
    if task.name == "softmax_cross_entropy":
        loss_and_gradient = jax.jit(jax.value_and_grad(softmax_cross_entropy))
        return lambda: loss_and_gradient(inputs["x"], inputs["labels"])
    if task.name.endswith("_update"):
        return _update(task, inputs)
    dy, arguments = inputs.pop("dy", None), list(inputs.values())
    forward = jax.jit(partial(_FUNCTIONS[task.name], **task.settings))
    if task.direction == "forward":
        return lambda: [forward(*arguments)]
    _, pull_back = jax.vjp(forward, *arguments)
    backward = jax.jit(lambda pull_back, dy: pull_back(dy))
    return lambda: backward(pull_back, dy)


def _update(task: OperationTask, inputs: dict[str, Array]) -> Compute:
    rule = task.rule

    def update(arrays: Sequence[Array], grad: Array, step: Array) -> Sequence[Array]:
        weight, state = UPDATES[type(rule)](rule, arrays[0], grad, arrays[1:], step, rule.lr)
        return [weight, *state]

    compiled = jax.jit(update, donate_argnums=0)
    arrays: Sequence[Array] = [inputs["weight"], *(inputs[name] for name in rule.state_names)]
    step = jax.device_put(np.int32(task.settings.get("step", 1)))

    def compute() -> Sequence[Array]:
        nonlocal arrays
        arrays = compiled(arrays, inputs["grad"], step)
        return arrays

    return compute
