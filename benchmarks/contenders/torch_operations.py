"""PyTorch: single operations of a network.

A backward operation is timed alone: the forward pass runs before, and its graph is retained. Only
`softmax_cross_entropy` includes both, because its results are the loss and the gradient.
"""

from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np
import torch
from torch.nn import functional as F  # noqa: N812  # PyTorch's own convention

from benchmarks.contenders.base import HostArray, OperationSession, OperationTask
from benchmarks.contenders.torch_networks import Tensor, synchronize, to_device, use_float32

Inputs: TypeAlias = dict[str, Tensor]
Compute: TypeAlias = Callable[[], Sequence[Tensor]]


def prepare_operation(task: OperationTask) -> OperationSession | None:
    """Return the operation on tensors of the device; None if no operation has this name."""
    if task.name not in _PREPARE:
        return None
    use_float32()
    compute = _prepare(task)

    def run() -> None:
        compute()
        synchronize()

    # Updates change their inputs, so the results are computed from new inputs.
    return OperationSession(run, lambda: [_to_host(tensor) for tensor in _prepare(task)()])


def _prepare(task: OperationTask) -> Compute:
    tensors = {name: to_device(host) for name, host in task.inputs.items()}
    return _PREPARE[task.name](tensors, task)


def _to_host(tensor: Tensor) -> HostArray:
    return np.array(tensor.detach().cpu().numpy())


def _differentiable(function: Callable[..., Tensor]) -> Callable[..., Compute]:
    """Return a function that prepares the forward or the backward operation of `function`."""

    def prepare(inputs: Inputs, task: OperationTask) -> Compute:
        dy = inputs.pop("dy", None)
        if task.direction == "forward":
            return torch.no_grad()(lambda: [function(inputs, **task.settings)])  # type: ignore[no-any-return]
        wanted = [inputs[name].requires_grad_() for name in task.wanted]
        y = function(inputs, **task.settings)
        return lambda: torch.autograd.grad(y, wanted, dy, retain_graph=True)

    return prepare


def _linear(inputs: Inputs) -> Tensor:
    return torch.addmm(inputs["bias"], inputs["x"], inputs["weight"])


def _conv2d(inputs: Inputs, *, stride: int, padding: int) -> Tensor:
    return F.conv2d(
        inputs["x"], inputs["weight"], inputs.get("bias"), stride=stride, padding=padding
    )


def _max_pool2d(inputs: Inputs, *, size: int) -> Tensor:
    return F.max_pool2d(inputs["x"], size)


def _conv2d_relu_max_pool2d(inputs: Inputs, *, stride: int, padding: int, size: int) -> Tensor:
    return F.max_pool2d(F.relu(_conv2d(inputs, stride=stride, padding=padding)), size)


def _softmax_cross_entropy(inputs: Inputs, task: OperationTask) -> Compute:
    logits, labels = inputs["x"].requires_grad_(), inputs["labels"]

    def compute() -> Sequence[Tensor]:
        loss = F.cross_entropy(logits, labels)
        return [loss, *torch.autograd.grad(loss, logits)]

    return compute


def _sgd_update(inputs: Inputs, task: OperationTask) -> Compute:
    weight = inputs["weight"].requires_grad_()
    weight.grad = inputs["grad"]
    optimizer = torch.optim.SGD([weight], lr=task.settings["lr"], fused=True)

    def compute() -> Sequence[Tensor]:
        optimizer.step()
        return [weight]

    return compute


def _adam_update(inputs: Inputs, task: OperationTask) -> Compute:
    weight, settings = inputs["weight"].requires_grad_(), task.settings
    weight.grad = inputs["grad"]
    optimizer = torch.optim.Adam(
        [weight],
        lr=settings["lr"],
        betas=(settings["beta1"], settings["beta2"]),
        eps=settings["eps"],
        fused=True,
    )
    steps_done = torch.tensor(float(settings["step"] - 1), device=weight.device)
    optimizer.state[weight] = {
        "step": steps_done,
        "exp_avg": inputs["m"],
        "exp_avg_sq": inputs["v"],
    }

    def compute() -> Sequence[Tensor]:
        optimizer.step()
        return [weight, inputs["m"], inputs["v"]]

    return compute


_PREPARE: dict[str, Callable[[Inputs, OperationTask], Compute]] = {
    "linear": _differentiable(_linear),
    "conv2d": _differentiable(_conv2d),
    "max_pool2d": _differentiable(_max_pool2d),
    "conv2d_relu_max_pool2d": _differentiable(_conv2d_relu_max_pool2d),
    "softmax_cross_entropy": _softmax_cross_entropy,
    "sgd_update": _sgd_update,
    "adam_update": _adam_update,
}
