"""PyTorch: the project's networks as modules, and three ways to train them.

Imported by `torch_peer` once PyTorch is known to be there. Figures in comments are of a step on one
core (AMD EPYC, AVX2) with PyTorch 2.13.
"""

import importlib
import math
import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from benchmarks.contenders.base import (
    HostArray,
    HostArrays,
    InferenceSession,
    TrainingSession,
    TrainingTask,
)
from mnist_accel.nn import (
    SGD,
    Activation,
    AdaGrad,
    Adam,
    AdamW,
    AvgPool2d,
    Conv2d,
    Flatten,
    Layer,
    Linear,
    Loss,
    MaxPool2d,
    Network,
    RMSProp,
    UpdateRule,
)
from mnist_accel.nn.layers import Shape

# Of no type, so that types are checked alike where PyTorch is missing.
torch: Any = importlib.import_module("torch")
nn = torch.nn
F = torch.nn.functional
Tensor: TypeAlias = Any
Module: TypeAlias = Any
Step: TypeAlias = Callable[[Tensor], Tensor]

WARM_UP_STEPS = 3


def device() -> Any:
    """Return the GPU if there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def synchronize() -> None:
    """Wait for the device."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def use_float32() -> None:
    """Forbid TF32, which cuDNN would use for convolutions; let cuDNN look for its best kernel."""
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.benchmark = True


def to_device(host: HostArray) -> Tensor:
    """Return a tensor of its own with the values of a host array; images channels last on the CPU.

    oneDNN computes convolutions faster so: cnn at 64 takes 2.9 ms instead of 4.5, at 512 18
    instead of 32; lenet at 64 7.3 instead of 9.4.
    """
    tensor = torch.tensor(host, device=device())
    if tensor.ndim == 4 and not torch.cuda.is_available():
        return tensor.contiguous(memory_format=torch.channels_last)
    return tensor


def weight_to_torch(host: HostArray) -> HostArray:
    """Turn a linear weight (in, out) into (out, in); every other parameter is laid out alike."""
    return host.T if host.ndim == 2 else host


def weight_to_host(tensor: Tensor) -> HostArray:
    """Undo `weight_to_torch`."""
    host = tensor.detach().cpu().numpy()
    return np.array(host.T if host.ndim == 2 else host)


def build_network(model: Network) -> Module:
    """Return the network with its weights as a module."""
    modules, shape = [], model.input_shape
    for layer in model.layers:
        modules.append(_module(layer, shape))
        shape = layer.output_shape(shape)
    network = nn.Sequential(*modules).to(device())
    if not torch.cuda.is_available():
        network = network.to(memory_format=torch.channels_last)
    load_weights(network, model)
    return network


def load_weights(network: Module, model: Network) -> None:
    """Overwrite the parameters of the module, where they lie, with those of the network."""
    with torch.no_grad():
        for parameter, host in zip(network.parameters(), model.state_dict().values(), strict=True):
            parameter.copy_(torch.tensor(weight_to_torch(host)))


def _module(layer: Layer, input_shape: Shape) -> Module:
    match layer:
        case Linear(units=units, bias=bias):
            return nn.Linear(input_shape[0], units, bias=bias)
        case Conv2d(channels=channels, kernel_size=size, stride=stride, padding=padding, bias=bias):
            return nn.Conv2d(
                input_shape[0], channels, size, stride=stride, padding=padding, bias=bias
            )
        case MaxPool2d():
            return nn.MaxPool2d(layer.size, layer.effective_stride)
        case AvgPool2d():
            return nn.AvgPool2d(layer.size, layer.effective_stride)
        case Activation(kind="relu"):
            return nn.ReLU()
        case Activation(kind="sigmoid"):
            return nn.Sigmoid()
        case Activation(kind="tanh"):
            return nn.Tanh()
        case Flatten():
            return nn.Flatten()
    raise ValueError(f"no module stands for a layer of kind {layer.kind!r}")


def _targets(loss: Loss, labels: NDArray[np.int64], classes: int) -> Tensor:
    """Return what the loss compares logits with: classes for softmax, else one-hot rows."""
    if loss.kind == "softmax_cross_entropy":
        return to_device(labels)
    return to_device(np.eye(classes, dtype=np.float32)[labels])


def _mean_loss(loss: Loss) -> Callable[[Tensor, Tensor], Tensor]:
    """Return the function of (logits, targets) that sums over classes and averages over images."""
    match loss.kind:
        case "softmax_cross_entropy":
            return lambda logits, labels: F.cross_entropy(logits, labels)
        case "binary_cross_entropy":
            return lambda logits, targets: (
                F.binary_cross_entropy_with_logits(logits, targets, reduction="sum") / len(logits)
            )
        case "quadratic":
            return lambda logits, targets: (
                F.mse_loss(logits.sigmoid(), targets, reduction="sum") / (2 * len(logits))
            )
    raise ValueError(f"no function stands for the loss {loss.kind!r}")


def _build_optimizer(optimizer: UpdateRule, network: Module, *, capturable: bool = False) -> Any:
    """Return the optimizer; fused where there is such a one: lenet at 64 takes 9.4 ms, not 10.5."""
    common = {"lr": optimizer.lr, "weight_decay": optimizer.weight_decay}
    special: dict[str, Any]
    match optimizer:
        case SGD(momentum=momentum, nesterov=nesterov):
            kind = torch.optim.SGD
            special = {"momentum": momentum, "nesterov": nesterov, "fused": True}
        case Adam(beta1=beta1, beta2=beta2, eps=eps):
            kind = torch.optim.AdamW if isinstance(optimizer, AdamW) else torch.optim.Adam
            special = {"betas": (beta1, beta2), "eps": eps}
            special |= {"fused": True, "capturable": capturable}
        case AdaGrad(eps=eps):
            kind, special = torch.optim.Adagrad, {"eps": eps}
        case RMSProp(decay=decay, eps=eps):
            kind, special = torch.optim.RMSprop, {"alpha": decay, "eps": eps}
        case _:
            raise ValueError(f"no optimizer of PyTorch stands for {optimizer}")
    return kind(network.parameters(), **common, **special)


class EagerTraining(TrainingSession):
    """A step as PyTorch's tutorials write it, on data that lie on the device."""

    def __init__(self, task: TrainingTask) -> None:
        use_float32()
        self._task = task
        self._takes_all = task.takes_all  # asked for in a step, where the task cannot be traced
        model = task.model
        pixels = task.images.astype(np.float32) / 255 + np.float32(model.pixel_shift)
        started = time.perf_counter()
        self._images = to_device(pixels.reshape(-1, *model.input_shape))
        self._targets = _targets(model.loss, task.labels, model.classes)
        synchronize()
        if torch.cuda.is_available():
            self.transfer_s = time.perf_counter() - started
        self._generator = torch.Generator(device()).manual_seed(task.seed)
        self._network = build_network(model)
        self._loss = _mean_loss(model.loss)
        self._optimizer = self._new_optimizer()

    def run(self) -> None:
        """Train an epoch."""
        for rows in self._order().split(self._task.batch_size):
            self._step(rows)
        synchronize()

    def reset(self) -> None:
        """Load the weights of the task, and make a new optimizer."""
        load_weights(self._network, self._task.model)
        self._optimizer = self._new_optimizer()

    def gradients(self, rows: NDArray[np.int64]) -> HostArrays:
        """Differentiate the loss, and leave the weights alone."""
        batch = to_device(rows)
        loss = self._loss(self._network(self._images[batch]), self._targets[batch])
        return self._on_host(torch.autograd.grad(loss, list(self._network.parameters())))

    def updates(self, batches: NDArray[np.int64]) -> Sequence[float]:
        """Make the steps one after the other; look at their losses when all are made."""
        # Where a step is replayed, the next one overwrites its loss.
        losses = [self._step(rows).clone() for rows in to_device(batches)]
        return [float(loss) for loss in losses]

    def weights(self) -> HostArrays:
        """Return the parameters of the module."""
        return self._on_host(self._network.parameters())

    def predict(self, images: NDArray[np.uint8]) -> NDArray[np.int64]:
        """Return the class of the largest logit."""
        model = self._task.model
        with torch.inference_mode():
            pixels = to_device(images.astype(np.float32).reshape(-1, *model.input_shape))
            classes = self._network(pixels / 255 + model.pixel_shift).argmax(1).cpu().numpy()
        return np.asarray(classes, np.int64)

    def _order(self) -> Tensor:
        """Return the order of an epoch."""
        count, where = len(self._images), self._images.device
        if self._takes_all:
            return torch.arange(count, device=where)
        return torch.randperm(count, generator=self._generator, device=where)

    def _batch(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return the images in these rows and what they should be."""
        if self._takes_all:
            return self._images, self._targets
        # Neither gathering the epoch beforehand nor gathering bytes was faster.
        return self._images.index_select(0, rows), self._targets.index_select(0, rows)

    def _step(self, rows: Tensor) -> Tensor:
        """Make an update on the images in these rows; return their loss before it."""
        images, targets = self._batch(rows)
        self._optimizer.zero_grad(set_to_none=True)
        loss = self._loss(self._network(images), targets)
        loss.backward()
        self._optimizer.step()
        return loss.detach()

    def _new_optimizer(self) -> Any:
        return _build_optimizer(self._task.optimizer, self._network)

    def _batch_sizes(self) -> set[int]:
        """Return the sizes of the batches of an epoch: most, and what is left for the last."""
        count, batch = len(self._images), self._task.batch_size
        return {batch, count % batch} - {0}

    def _on_host(self, tensors: Any) -> HostArrays:
        """Name tensors, given in the order of the parameters, as the network does."""
        names = self._task.model.state_dict()
        return {name: weight_to_host(tensor) for name, tensor in zip(names, tensors, strict=True)}


class CompiledTraining(EagerTraining):
    """A step in one piece: gather, forward, loss, backward and update in one graph of Inductor.

    It takes `torch.func`, and updates written out. Compiling the step of `EagerTraining` breaks the
    graph at `backward` and at the optimizer, which costs more than is gained: two-layer at 512
    takes 1.6 ms instead of 2.1 to 2.5, backprop at 10 0.24 instead of 0.65, lenet at 64 7.2 instead
    of 14 to 24. The modes with autotuning, the C++ wrapper and foreach updates gained nothing on a
    CPU.
    """

    def __init__(self, task: TrainingTask) -> None:
        super().__init__(task)
        self._parameters = {
            name: parameter.detach() for name, parameter in self._network.named_parameters()
        }
        weights = list(self._parameters.values())
        self._update, self._state = _update_in_graph(task.optimizer, weights)
        if torch.cuda.is_available():  # lets Inductor record CUDA graphs that change them in place
            for tensor in (*weights, *self._state):
                torch._dynamo.mark_static_address(tensor)
        self._compiled = compiled(self._whole_step)
        started = time.perf_counter()
        # Else the time would be that of reading what an earlier session or run has left on disk.
        with importlib.import_module("torch._inductor.utils").fresh_cache():
            for size in self._batch_sizes():
                for _ in range(WARM_UP_STEPS):
                    self._step(torch.arange(size, device=device()))
            synchronize()
        self.compile_s = time.perf_counter() - started
        self.reset()

    def reset(self) -> None:
        """Overwrite weights and optimizer state where they lie, so that nothing is recompiled."""
        load_weights(self._network, self._task.model)
        for tensor in self._state:
            tensor.zero_()

    def _step(self, rows: Tensor) -> Tensor:
        return self._compiled(rows)

    def _whole_step(self, rows: Tensor) -> Tensor:
        images, targets = self._batch(rows)

        def mean_loss(parameters: dict[str, Tensor]) -> Tensor:
            return self._loss(
                torch.func.functional_call(self._network, parameters, (images,)), targets
            )

        gradients, loss = torch.func.grad_and_value(mean_loss)(self._parameters)
        self._update([gradients[name] for name in self._parameters])
        return loss


class GraphTraining(EagerTraining):
    """The eager step, recorded once for each batch size as a CUDA graph, and replayed."""

    def __init__(self, task: TrainingTask) -> None:
        super().__init__(task)
        started = time.perf_counter()
        self._graphs = {size: self._record(size) for size in self._batch_sizes()}
        synchronize()
        self.compile_s = time.perf_counter() - started
        self.reset()

    def reset(self) -> None:
        """Overwrite weights and optimizer state where they lie: the graphs know their addresses."""
        load_weights(self._network, self._task.model)
        for state in self._optimizer.state.values():
            for tensor in state.values():
                if tensor is not None:  # SGD without momentum keeps a None
                    tensor.zero_()

    def _new_optimizer(self) -> Any:
        return _build_optimizer(self._task.optimizer, self._network, capturable=True)

    def _record(self, size: int) -> tuple[Tensor, Any, Tensor]:
        """Return where a graph reads its rows, the graph, and where it leaves the loss."""
        rows = torch.arange(size, device=device())
        warm_up(lambda: super(GraphTraining, self)._step(rows))
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            loss = super()._step(rows)
        return rows, graph, loss

    def _step(self, rows: Tensor) -> Tensor:
        static_rows, graph, loss = self._graphs[len(rows)]
        static_rows.copy_(rows)
        graph.replay()
        return loss


def compiled(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Compile a function for the exact shapes it meets, apart from what else was compiled."""
    with warnings.catch_warnings():  # what Inductor imports uses a deprecated part of PyTorch
        warnings.filterwarnings("ignore", "`torch.jit", DeprecationWarning)
        importlib.import_module("torch._inductor.compile_fx")
    return torch.compile(  # type: ignore[no-any-return]
        function,
        fullgraph=True,
        dynamic=False,
        isolate_recompiles=True,
        mode="reduce-overhead" if torch.cuda.is_available() else None,
    )


def warm_up(function: Callable[[], Any]) -> None:
    """Run a function on a stream of its own, as must be before it is recorded in a CUDA graph."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(WARM_UP_STEPS):
            function()
    torch.cuda.current_stream().wait_stream(stream)


def _update_in_graph(
    optimizer: UpdateRule, weights: list[Tensor]
) -> tuple[Callable[[list[Tensor]], None], list[Tensor]]:
    """Return a function of the gradients that changes the weights, and its state, which is 0.

    PyTorch's own updates cannot be used: Inductor 2.13 joins their `add` to the matrix product of a
    gradient, and loses the factor `alpha` on the way.
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
            size = optimizer.lr / _bias_correction(optimizer.beta1, steps)
            correction = _bias_correction(optimizer.beta2, steps).rsqrt()
            for w, gradient, m, v in zip(weights, gradients, means, squares, strict=True):
                g = gradient + decay * w if decay and not optimizer.decoupled else gradient
                m.lerp_(g, 1 - optimizer.beta1)
                v.lerp_(g * g, 1 - optimizer.beta2)
                if decay and optimizer.decoupled:
                    w.mul_(1 - optimizer.lr * decay)
                w.sub_(size * m / (v.sqrt() * correction + optimizer.eps))

        return step_adam, [steps, *state]
    raise ValueError(f"no function stands for {optimizer}")


def _bias_correction(beta: float, steps: Tensor) -> Tensor:
    """Return 1 − betaˢᵗᵉᵖˢ; written so, float32 loses nothing where it is small."""
    return -torch.expm1(steps * math.log(beta)) if beta else torch.ones_like(steps)


def prepare_inference(
    model: Network, accelerate: Callable[[Step], Step] = lambda function: function
) -> InferenceSession:
    """Return predictions of the network, computed by what `accelerate` makes of the function."""
    use_float32()
    network = build_network(model).requires_grad_(False)
    softmax = model.loss.kind == "softmax_cross_entropy"

    def compute(pixels: Tensor) -> Tensor:
        logits = network(pixels + model.pixel_shift if model.pixel_shift else pixels)
        return logits.softmax(1) if softmax else logits.sigmoid()

    accelerated = accelerate(compute)

    def predict(images: NDArray[np.float32]) -> HostArray:
        writable = images if images.flags.writeable else images.copy()  # PyTorch warns otherwise
        with torch.inference_mode():
            pixels = torch.from_numpy(writable).reshape(-1, *model.input_shape).to(device())
            return np.asarray(accelerated(pixels).cpu().numpy())

    return predict


def graphed(function: Step) -> Step:
    """Replay a function of one tensor as a CUDA graph, recorded when it first meets a shape."""
    graphs: dict[Any, tuple[Tensor, Any, Tensor]] = {}

    def replay(pixels: Tensor) -> Tensor:
        if pixels.shape not in graphs:
            static = pixels.clone()
            warm_up(lambda: function(static))
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                results = function(static)
            graphs[pixels.shape] = static, graph, results
        static, graph, results = graphs[pixels.shape]
        static.copy_(pixels)
        graph.replay()
        return results

    return replay
