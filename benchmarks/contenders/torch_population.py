"""PyTorch: networks that are trained together by `torch.func`, as in its tutorial on ensembles."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.contenders.base import HostArrays, PopulationSession, TrainingTask
from benchmarks.contenders.torch_networks import (
    Tensor,
    build_network,
    convert_images,
    device,
    loss_targets,
    mean_loss,
    synchronize,
    to_device,
    use_float32,
    weight_to_host,
)
from mnist_accel.nn import SGD, Adam


class StackedTraining(PopulationSession):
    """`stack_module_state`, and `vmap` of the gradients of `functional_call`.

    The optimizers of `torch.optim` have one learning rate per tensor, and a stacked tensor needs
    one per network, so the update is written here.
    """

    def __init__(self, members: Sequence[TrainingTask]) -> None:
        use_float32()
        self._task = task = members[0]
        self._count = len(members)
        self._images = convert_images(task.images, task.model.input_shape, task.model.pixel_shift)
        self._targets = loss_targets(task.model.loss, task.labels, task.model.classes)
        networks = [build_network(member.model) for member in members]
        self._start, _ = torch.func.stack_module_state(networks)
        self._start = {name: stack.detach() for name, stack in self._start.items()}
        self._weights = self._start
        self._rates = torch.tensor([member.optimizer.lr for member in members], device=device())
        self._generators = [
            torch.Generator(device()).manual_seed(member.seed) for member in members
        ]
        network, loss = networks[0], mean_loss(task.model.loss)

        def loss_of(weights: dict[str, Tensor], images: Tensor, targets: Tensor) -> Tensor:
            return loss(torch.func.functional_call(network, weights, (images,)), targets)

        self._gradients = torch.func.vmap(torch.func.grad_and_value(loss_of))

    def run(self) -> None:
        """Train all networks for one epoch."""
        rows = len(self._images)
        orders = [torch.randperm(rows, generator=one, device=device()) for one in self._generators]
        self._train(torch.stack(orders).reshape(self._count, -1, self._task.batch_size))
        synchronize()

    def updates(self, batches: NDArray[np.int64]) -> NDArray[Any]:
        """Make an update per batch."""
        return np.asarray(self._train(to_device(batches)).cpu().numpy())

    def weights(self, member: int) -> HostArrays:
        """Return the weights of a network."""
        names = self._task.model.state_dict()
        stacks = self._weights.values()
        return {n: weight_to_host(stack[member]) for n, stack in zip(names, stacks, strict=True)}

    def _train(self, batches: Tensor) -> Tensor:
        """Make an update of all networks for each batch; return the losses (members, steps)."""
        self._weights = {name: stack.clone() for name, stack in self._start.items()}
        optimizer, names = self._task.optimizer, list(self._weights)
        weights = list(self._weights.values())
        rates = [self._rates.reshape(-1, *[1] * (w.ndim - 1)) for w in weights]
        state = [torch.zeros_like(w) for _ in optimizer.state_names for w in weights]
        losses = []
        for step, rows in enumerate(batches.unbind(1), start=1):
            images, targets = (
                data.index_select(0, rows.flatten()).reshape(*rows.shape, *data.shape[1:])
                for data in (self._images, self._targets)
            )
            gradients, loss = self._gradients(self._weights, images, targets)
            update(optimizer, weights, [gradients[name] for name in names], rates, state, step)
            losses.append(loss)
        return torch.stack(losses, 1)


def update(
    optimizer: SGD | Adam | Any,
    weights: list[Tensor],
    gradients: list[Tensor],
    rates: list[Tensor],
    state: list[Tensor],
    step: int,
) -> None:
    """Update stacked weights and state in place; `rates` have the learning rate of each network."""
    decay = optimizer.weight_decay
    if decay:
        gradients = [g + decay * w for g, w in zip(gradients, weights, strict=True)]
    if isinstance(optimizer, SGD):
        for w, g, rate in zip(weights, gradients, rates, strict=True):
            w.addcmul_(g, rate, value=-1)
        return
    means, squares = state[: len(weights)], state[len(weights) :]
    size = 1 / _bias_correction(optimizer.beta1, step)
    correction = _bias_correction(optimizer.beta2, step) ** -0.5
    for w, g, rate, m, v in zip(weights, gradients, rates, means, squares, strict=True):
        m.lerp_(g, 1 - optimizer.beta1)
        v.mul_(optimizer.beta2).addcmul_(g, g, value=1 - optimizer.beta2)
        denominator = v.sqrt().mul_(correction).add_(optimizer.eps)
        w.addcdiv_(m * rate, denominator, value=-size)


def _bias_correction(beta: float, step: int) -> float:
    return -math.expm1(step * math.log(beta)) if beta else 1.0
