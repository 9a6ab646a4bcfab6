"""Single operations of a network with PyTorch.

A backward operation is timed without its forward pass, which runs during the preparation and whose
graph is retained. Only `softmax_cross_entropy` includes both passes, because its results are the
loss and the gradient.
"""

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from torch.nn import functional as F  # noqa: N812  # PyTorch's own convention

from benchmarks.contenders.base import OperationSession, OperationTask
from benchmarks.contenders.torch_networks import (
    Tensor,
    build_optimizer,
    synchronize,
    to_device,
    use_float32,
)

Compute: TypeAlias = Callable[[], Sequence[Tensor]]

# Positional arguments: x and, if the operation has parameters, weight and bias. Keyword arguments:
# the settings of the task.
_FUNCTIONS: dict[str, Callable[..., Tensor]] = {
    "linear": lambda x, weight, bias: torch.addmm(bias, x, weight),
    "conv2d": F.conv2d,
    "max_pool2d": lambda x, size: F.max_pool2d(x, size),
    "conv2d_relu_max_pool2d": lambda x, weight, bias, size, **conv: F.max_pool2d(
        F.relu(F.conv2d(x, weight, bias, **conv)), size
    ),
}
_NAMES = {*_FUNCTIONS, "softmax_cross_entropy", "sgd_update", "adam_update"}


def prepare_operation(task: OperationTask) -> OperationSession | None:
    """Prepare the operation on PyTorch's device; None if this module does not have it."""
    if task.name not in _NAMES:
        return None
    use_float32()
    compute = _prepare(task)

    def run() -> None:
        compute()
        synchronize()

    # Optimizer updates change their inputs, so the results are computed from new copies of them.
    def results() -> Sequence[Any]:
        return [np.array(tensor.detach().cpu().numpy()) for tensor in _prepare(task)()]

    return OperationSession(run, results)


def _prepare(task: OperationTask) -> Compute:
    inputs = {name: to_device(host) for name, host in task.inputs.items()}
    if task.name == "softmax_cross_entropy":
        return _loss(inputs["x"].requires_grad_(), inputs["labels"])
    if task.name.endswith("_update"):
        return _update(task, inputs)
    dy, arguments = inputs.pop("dy", None), list(inputs.values())
    function = _FUNCTIONS[task.name]
    if task.direction == "forward":
        return torch.no_grad()(lambda: [function(*arguments, **task.settings)])  # type: ignore[no-any-return]
    for argument in arguments:
        argument.requires_grad_()
    y = function(*arguments, **task.settings)
    return lambda: torch.autograd.grad(y, arguments, dy, retain_graph=True)


def _loss(logits: Tensor, labels: Tensor) -> Compute:
    def compute() -> Sequence[Tensor]:
        loss = F.cross_entropy(logits, labels)
        return [loss, *torch.autograd.grad(loss, logits)]

    return compute


def _update(task: OperationTask, inputs: dict[str, Tensor]) -> Compute:
    weight = inputs["weight"].requires_grad_()
    weight.grad = inputs["grad"]
    optimizer = build_optimizer(task.rule, [weight])
    state = [inputs[name] for name in task.rule.state_names]
    if state:  # only Adam has a state
        steps_done = torch.tensor(float(task.settings["step"] - 1), device=weight.device)
        names = ("step", "exp_avg", "exp_avg_sq")
        optimizer.state[weight] = dict(zip(names, (steps_done, *state), strict=True))

    def compute() -> Sequence[Tensor]:
        optimizer.step()
        return [weight, *state]

    return compute
