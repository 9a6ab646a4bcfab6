"""Training and prediction with PyTorch: eager, compiled, or replayed from a CUDA graph.

Timings in comments are per step on one core (AMD EPYC, AVX2) with PyTorch 2.13.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.contenders.base import (
    HostArray,
    HostArrays,
    InferenceSession,
    TrainingSession,
    TrainingTask,
)
from benchmarks.contenders.torch_networks import (
    WARM_UP_STEPS,
    Mode,
    Tensor,
    build_network,
    build_optimizer,
    capture_graph,
    compiled,
    convert_images,
    device,
    load_weights,
    loss_targets,
    mean_loss,
    synchronize,
    to_device,
    use_float32,
    weight_to_host,
)
from mnist_accel.nn import SGD, Adam, Network, UpdateRule

Forward: TypeAlias = Callable[[Tensor], Tensor]


class EagerTraining(TrainingSession):
    """The training loop of PyTorch's tutorials; the images are on the device from the start."""

    def __init__(self, task: TrainingTask) -> None:
        use_float32()
        self._task = task
        self._is_full_batch = task.is_full_batch  # `torch.compile` cannot trace the property
        model = task.model
        started = time.perf_counter()
        self._images, self._targets = self._converted()
        synchronize()
        if torch.cuda.is_available():
            self.transfer_s = time.perf_counter() - started
        self._generator = torch.Generator(device()).manual_seed(task.seed)
        self._network = build_network(model)
        self._loss = mean_loss(model.loss)
        self._optimizer = self._new_optimizer()
        self._batches: Iterator[Tensor] = iter(())

    def run(self) -> None:
        """Train one epoch."""
        for rows in self._order().split(self._task.batch_size):
            self._step(rows)
        synchronize()

    def run_from_arrays(self) -> None:
        """Convert the arrays, and train one epoch."""
        self._images, self._targets = self._converted()
        self.run()

    def step(self) -> None:
        """Make one update."""
        rows = next(self._batches, None)
        if rows is None:
            self._batches = iter(self._order().split(self._task.batch_size))
            rows = next(self._batches)
        self._step(rows)
        synchronize()

    def reset(self) -> None:
        """Load the weights of the task, and create a new optimizer."""
        load_weights(self._network, self._task.model)
        self._optimizer = self._new_optimizer()

    def gradients(self, rows: NDArray[np.int64]) -> HostArrays:
        """Return the gradients of the mean loss of these images, by parameter name."""
        batch = to_device(rows)
        loss = self._loss(self._network(self._images[batch]), self._targets[batch])
        return self._on_host(torch.autograd.grad(loss, list(self._network.parameters())))

    def updates(self, batches: NDArray[np.int64]) -> Sequence[float]:
        """Make one update per batch; copy all losses to the host after the last update."""
        # Each replay of a CUDA graph overwrites the same loss tensor, so the loss is cloned.
        losses = [self._step(rows).clone() for rows in to_device(batches)]
        return [float(loss) for loss in losses]

    def weights(self) -> HostArrays:
        """Return the weights as host arrays, by parameter name."""
        return self._on_host(self._network.parameters())

    def predict(self, images: NDArray[np.uint8]) -> NDArray[np.int64]:
        """Return the class of the largest logit of each image."""
        with torch.inference_mode():
            classes = self._network(to_device(self._task.pixels(images))).argmax(1)
        return np.asarray(classes.cpu().numpy(), np.int64)

    def _converted(self) -> tuple[Tensor, Tensor]:
        """Return the images and the targets of the task on the device."""
        task, model = self._task, self._task.model
        images = convert_images(task.images, model.input_shape, model.pixel_shift)
        return images, loss_targets(model.loss, task.labels, model.classes)

    def _order(self) -> Tensor:
        """Return the image order of an epoch: row indices, shape (N,)."""
        count, target = len(self._images), self._images.device
        if self._is_full_batch:
            return torch.arange(count, device=target)
        return torch.randperm(count, generator=self._generator, device=target)

    def _batch(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return the images in these rows and their targets, or all of them if full-batch."""
        if self._is_full_batch:
            return self._images, self._targets
        # Gathering all batches of an epoch in one call, or gathering uint8 pixels, was not faster.
        return self._images.index_select(0, rows), self._targets.index_select(0, rows)

    def _step(self, rows: Tensor) -> Tensor:
        """Update the network with the images in these rows; return the mean loss before that."""
        images, targets = self._batch(rows)
        self._optimizer.zero_grad(set_to_none=True)
        loss = self._loss(self._network(images), targets)
        loss.backward()
        self._optimizer.step()
        return loss.detach()

    def _new_optimizer(self) -> Any:
        return build_optimizer(self._task.optimizer, self._network.parameters())

    def _batch_sizes(self) -> set[int]:
        """Return the batch sizes that occur in an epoch; the last batch may be smaller."""
        count, batch = len(self._images), self._task.batch_size
        return {batch, count % batch} - {0}

    def _on_host(self, tensors: Any) -> HostArrays:
        """Return host copies by parameter name; `tensors` are in the order of the parameters."""
        names = self._task.model.state_dict()
        return {name: weight_to_host(tensor) for name, tensor in zip(names, tensors, strict=True)}


class CompiledTraining(EagerTraining):
    """A step that Inductor compiles to one graph: gather, forward, loss, backward and update.

    Gradients are computed by `torch.func`, and `_traceable_update` replaces the optimizer. If the
    step of `EagerTraining` is compiled instead, the graph breaks at `backward` and at the
    optimizer, and the step is slower:

        network and batch size   one graph   graph with breaks
        two-layer, 512           1.6 ms      2.1 to 2.5 ms
        backprop, 10             0.24 ms     0.65 ms
        lenet, 64                7.2 ms      14 to 24 ms

    On a CPU, Inductor's autotuning, its C++ wrapper and foreach updates made no step faster.
    """

    def __init__(self, task: TrainingTask) -> None:
        super().__init__(task)
        self._parameters = {
            name: parameter.detach() for name, parameter in self._network.named_parameters()
        }
        weights = list(self._parameters.values())
        self._update, self._state = _traceable_update(task.optimizer, weights)
        if torch.cuda.is_available():
            # Lets Inductor capture CUDA graphs that update these tensors in place.
            for tensor in (*weights, *self._state):
                torch._dynamo.mark_static_address(tensor)
        self._compiled = compiled(self._whole_step)
        started = time.perf_counter()
        for size in self._batch_sizes():
            for _ in range(WARM_UP_STEPS):
                self._step(torch.arange(size, device=device()))
        synchronize()
        self.compile_s = time.perf_counter() - started
        self.reset()

    def reset(self) -> None:
        """Overwrite weights and optimizer state in place, so that nothing is compiled again."""
        load_weights(self._network, self._task.model)
        for tensor in self._state:
            tensor.zero_()

    def _step(self, rows: Tensor) -> Tensor:
        return self._compiled(rows)

    def _whole_step(self, rows: Tensor) -> Tensor:
        images, targets = self._batch(rows)

        def loss_of(parameters: dict[str, Tensor]) -> Tensor:
            return self._loss(
                torch.func.functional_call(self._network, parameters, (images,)), targets
            )

        gradients, loss = torch.func.grad_and_value(loss_of)(self._parameters)
        self._update([gradients[name] for name in self._parameters])
        return loss


class GraphTraining(EagerTraining):
    """The eager step, captured in one CUDA graph per batch size and replayed."""

    def __init__(self, task: TrainingTask) -> None:
        super().__init__(task)
        started = time.perf_counter()
        self._graphs = {size: self._capture(size) for size in self._batch_sizes()}
        synchronize()
        self.compile_s = time.perf_counter() - started
        self.reset()

    def reset(self) -> None:
        """Overwrite weights and optimizer state in place: the graphs contain their addresses."""
        load_weights(self._network, self._task.model)
        for state in self._optimizer.state.values():
            for tensor in state.values():
                if tensor is not None:  # SGD without momentum stores None
                    tensor.zero_()

    def run_from_arrays(self) -> None:
        """Overwrite the images in place, because graphs contain addresses; train one epoch."""
        images, targets = self._converted()
        self._images.copy_(images)
        self._targets.copy_(targets)
        self.run()

    def _new_optimizer(self) -> Any:
        parameters = self._network.parameters()
        return build_optimizer(self._task.optimizer, parameters, capturable=True)

    def _capture(self, size: int) -> tuple[Tensor, Any, Tensor]:
        """Return the row tensor that the graph reads, the graph, and the loss that it writes."""
        static_rows = torch.arange(size, device=device())
        return (static_rows, *capture_graph(super()._step, static_rows))

    def _step(self, rows: Tensor) -> Tensor:
        static_rows, graph, loss = self._graphs[len(rows)]
        static_rows.copy_(rows)
        graph.replay()
        return loss


SESSIONS: dict[Mode, type[EagerTraining]] = {
    "eager": EagerTraining,
    "compiled": CompiledTraining,
    "graph": GraphTraining,
}


def _traceable_update(
    optimizer: UpdateRule, weights: list[Tensor]
) -> tuple[Callable[[list[Tensor]], None], list[Tensor]]:
    """Return a function that updates the weights from given gradients, and its zeroed state.

    PyTorch's own optimizers would give wrong results here: Inductor 2.13 fuses their
    `add(alpha=...)` with the matrix product that computes the gradient, and drops the factor
    `alpha`.
    """
    state = [torch.zeros_like(weight) for _ in optimizer.state_names for weight in weights]
    decay = optimizer.weight_decay
    if isinstance(optimizer, SGD):
        momentum, nesterov = optimizer.momentum, optimizer.nesterov

        def step_sgd(gradients: list[Tensor]) -> None:
            for i, (w, gradient) in enumerate(zip(weights, gradients, strict=True)):
                g = gradient + decay * w if decay else gradient
                if momentum:
                    state[i].copy_(momentum * state[i] + g)
                    g = g + momentum * state[i] if nesterov else state[i]
                w.sub_(optimizer.lr * g)

        return step_sgd, state
    if isinstance(optimizer, Adam):
        means, squares = state[: len(weights)], state[len(weights) :]
        steps = torch.zeros((), device=device())

        def step_adam(gradients: list[Tensor]) -> None:
            steps.add_(1)
            step_size = optimizer.lr / _bias_correction(optimizer.beta1, steps)
            correction = _bias_correction(optimizer.beta2, steps).rsqrt()
            for w, gradient, m, v in zip(weights, gradients, means, squares, strict=True):
                g = gradient + decay * w if decay and not optimizer.decoupled else gradient
                m.lerp_(g, 1 - optimizer.beta1)
                v.lerp_(g * g, 1 - optimizer.beta2)
                if decay and optimizer.decoupled:
                    w.mul_(1 - optimizer.lr * decay)
                w.sub_(step_size * m / (v.sqrt() * correction + optimizer.eps))

        return step_adam, [steps, *state]
    raise ValueError(f"compiled steps of PyTorch support only SGD and Adam, got {optimizer}")


def _bias_correction(beta: float, steps: Tensor) -> Tensor:
    """Return 1 − betaˢᵗᵉᵖˢ, without loss of digits in float32 if the result is small."""
    return -torch.expm1(steps * math.log(beta)) if beta else torch.ones_like(steps)


def prepare_inference(model: Network, mode: Mode) -> InferenceSession:
    """Return a function that maps host images to probabilities in the given mode."""
    use_float32()
    network = build_network(model).requires_grad_(False)
    softmax = model.loss.kind == "softmax_cross_entropy"

    def eager(pixels: Tensor) -> Tensor:
        logits = network(pixels + model.pixel_shift if model.pixel_shift else pixels)
        return logits.softmax(1) if softmax else logits.sigmoid()

    forward: Forward = {"eager": lambda f: f, "compiled": compiled, "graph": _replayed}[mode](eager)

    def predict(images: NDArray[np.float32]) -> HostArray:
        # PyTorch warns if an array is read-only.
        writable = images if images.flags.writeable else images.copy()
        with torch.inference_mode():
            pixels = torch.from_numpy(writable).reshape(-1, *model.input_shape).to(device())
            return np.asarray(forward(pixels).cpu().numpy())

    return predict


def _replayed(function: Forward) -> Forward:
    """Return a function that captures `function` in one CUDA graph per shape and replays it."""
    graphs: dict[Any, tuple[Tensor, Any, Tensor]] = {}

    def replay(pixels: Tensor) -> Tensor:
        if pixels.shape not in graphs:
            static_pixels = pixels.clone()
            graphs[pixels.shape] = (static_pixels, *capture_graph(function, static_pixels))
        static_pixels, graph, result = graphs[pixels.shape]
        static_pixels.copy_(pixels)
        graph.replay()
        return result

    return replay
