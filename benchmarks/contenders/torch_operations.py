"""The operations of a network in PyTorch, as the benchmarks ask for them.

A backward operation is timed by itself: the forward pass is done beforehand, and its graph kept.
Only `softmax_cross_entropy` does both, as its results are the loss and the gradient.
"""

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np

from benchmarks.contenders.base import HostArray, OperationSession, OperationTask
from benchmarks.contenders.torch_training import (
    F,
    Tensor,
    synchronize,
    to_device,
    torch,
    use_float32,
)

Compute: TypeAlias = Callable[[], Sequence[Tensor]]


def prepare_operation(task: OperationTask) -> OperationSession | None:
    """Return the operation on tensors of the device; None where there is none of this name."""
    if task.name not in _PREPARE:
        return None
    use_float32()
    compute = _prepare(task)

    def run() -> None:
        compute()
        synchronize()

    # Updates change their inputs, so results are those of a new beginning.
    return OperationSession(run, lambda: [_to_host(tensor) for tensor in _prepare(task)()])


def _prepare(task: OperationTask) -> Compute:
    tensors = {name: to_device(host) for name, host in task.inputs.items()}
    return _PREPARE[task.name](tensors, task)


def _to_host(tensor: Tensor) -> HostArray:
    return np.array(tensor.detach().cpu().numpy())


def _differentiable(function: Callable[..., Tensor]) -> Callable[..., Compute]:
    """Turn a function of the inputs and settings into its forward or backward operation."""

    def prepare(of: dict[str, Tensor], task: OperationTask) -> Compute:
        dy = of.pop("dy", None)
        if task.direction == "forward":
            return torch.no_grad()(lambda: [function(of, **task.settings)])  # type: ignore[no-any-return]
        wanted = [of[name].requires_grad_() for name in task.wanted]
        y = function(of, **task.settings)
        return lambda: torch.autograd.grad(y, wanted, dy, retain_graph=True)

    return prepare


def _linear(of: dict[str, Tensor]) -> Tensor:
    return torch.addmm(of["bias"], of["x"], of["weight"])


def _conv2d(of: dict[str, Tensor], *, stride: int, padding: int) -> Tensor:
    return F.conv2d(of["x"], of["weight"], of.get("bias"), stride=stride, padding=padding)


def _max_pool2d(of: dict[str, Tensor], *, size: int) -> Tensor:
    return F.max_pool2d(of["x"], size)


def _conv2d_relu_max_pool2d(
    of: dict[str, Tensor], *, stride: int, padding: int, size: int
) -> Tensor:
    return F.max_pool2d(F.relu(_conv2d(of, stride=stride, padding=padding)), size)


def _softmax_cross_entropy(of: dict[str, Tensor], task: OperationTask) -> Compute:
    logits, labels = of["x"].requires_grad_(), of["labels"]

    def compute() -> Sequence[Tensor]:
        loss = F.cross_entropy(logits, labels)
        return [loss, *torch.autograd.grad(loss, logits)]

    return compute


def _sgd_update(of: dict[str, Tensor], task: OperationTask) -> Compute:
    weight = of["weight"].requires_grad_()
    weight.grad = of["grad"]
    optimizer = torch.optim.SGD([weight], lr=task.settings["lr"], fused=True)

    def compute() -> Sequence[Tensor]:
        optimizer.step()
        return [weight]

    return compute


def _adam_update(of: dict[str, Tensor], task: OperationTask) -> Compute:
    weight, settings = of["weight"].requires_grad_(), task.settings
    weight.grad = of["grad"]
    optimizer = torch.optim.Adam(
        [weight],
        lr=settings["lr"],
        betas=(settings["beta1"], settings["beta2"]),
        eps=settings["eps"],
        fused=True,
    )
    steps_done = torch.tensor(float(settings["step"] - 1), device=weight.device)
    optimizer.state[weight] = {"step": steps_done, "exp_avg": of["m"], "exp_avg_sq": of["v"]}

    def compute() -> Sequence[Tensor]:
        optimizer.step()
        return [weight, of["m"], of["v"]]

    return compute


_PREPARE: dict[str, Callable[[dict[str, Any], OperationTask], Compute]] = {
    "linear": _differentiable(_linear),
    "conv2d": _differentiable(_conv2d),
    "max_pool2d": _differentiable(_max_pool2d),
    "conv2d_relu_max_pool2d": _differentiable(_conv2d_relu_max_pool2d),
    "softmax_cross_entropy": _softmax_cross_entropy,
    "sgd_update": _sgd_update,
    "adam_update": _adam_update,
}
