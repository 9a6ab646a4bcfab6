"""The project's networks, losses and optimizers as PyTorch modules, functions and optimizers.

Timings in comments are per step on one core (AMD EPYC, AVX2) with PyTorch 2.13.
"""

import inspect
import warnings
from collections.abc import Callable, Iterable
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional as F  # noqa: N812  # PyTorch's own convention

from backends import Shape
from benchmarks.contenders.base import HostArray
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

Tensor: TypeAlias = Any
Module: TypeAlias = Any
Mode: TypeAlias = Literal["eager", "compiled", "graph"]

WARM_UP_STEPS = 3
_ACTIVATIONS = {"relu": nn.ReLU, "sigmoid": nn.Sigmoid, "tanh": nn.Tanh}


def device() -> Any:
    """Return the GPU if there is one, otherwise the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def synchronize() -> None:
    """Wait for the GPU, if there is one."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def use_float32() -> None:
    """Disable TF32, which cuDNN uses for convolutions by default, and let cuDNN autotune."""
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.benchmark = True


def to_device(host: HostArray) -> Tensor:
    """Return a copy of a host array on the device; images are channels-last on the CPU.

    oneDNN convolves channels-last images faster: `cnn` takes 2.9 ms instead of 4.5 ms with batches
    of 64, and 18 ms instead of 32 ms with 512; `lenet` takes 7.3 ms instead of 9.4 ms with 64.
    """
    tensor = torch.tensor(host, device=device())
    if tensor.ndim == 4 and not torch.cuda.is_available():
        return tensor.contiguous(memory_format=torch.channels_last)
    return tensor


def convert_images(images: HostArray, input_shape: Shape, shift: float) -> Tensor:
    """Return host images (N, pixels) as the float32 input of a network (N, *input_shape)."""
    # PyTorch converts uint8 with several threads; NumPy takes twice as long.
    pixels = torch.tensor(images, device=device()).reshape(-1, *input_shape)
    is_scaled = pixels.is_floating_point()
    layout = torch.contiguous_format
    if len(input_shape) == 3 and not torch.cuda.is_available():
        layout = torch.channels_last
    pixels = pixels.to(torch.float32, memory_format=layout)
    if not is_scaled:
        pixels /= 255
    return pixels.add_(shift) if shift else pixels


def weight_to_host(tensor: Tensor) -> HostArray:
    """Return a parameter in the project's layout: a linear weight (out, in) becomes (in, out)."""
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
    """Overwrite the parameters of the module in place with those of the network."""
    with torch.no_grad():
        for parameter, host in zip(network.parameters(), model.state_dict().values(), strict=True):
            parameter.copy_(torch.tensor(host.T if host.ndim == 2 else host))


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
        case Activation(kind=kind) if kind in _ACTIVATIONS:
            return _ACTIVATIONS[kind]()
        case Flatten():
            return nn.Flatten()
    raise ValueError(f"PyTorch has no module for a layer of kind {layer.kind!r}")


def loss_targets(loss: Loss, labels: NDArray[np.int64], classes: int) -> Tensor:
    """Return the targets of the loss: labels (N,) for softmax, else one-hot rows (N, classes)."""
    if loss.kind == "softmax_cross_entropy":
        return to_device(labels)
    return to_device(np.eye(classes, dtype=np.float32)[labels])


def mean_loss(loss: Loss) -> Callable[[Tensor, Tensor], Tensor]:
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
    raise ValueError(f"PyTorch has no function for the loss {loss.kind!r}")


def build_optimizer(
    optimizer: UpdateRule, parameters: Iterable[Tensor], *, capturable: bool = False
) -> Any:
    """Return PyTorch's optimizer, fused if possible.

    With a fused optimizer, `lenet` with batches of 64 takes 9.4 ms instead of 10.5 ms.
    """
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
            raise ValueError(f"PyTorch has no optimizer for {optimizer}")
    return kind(parameters, **common, **special)


def compiled(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Compile a function for the exact shapes it is called with, separate from other functions."""
    with warnings.catch_warnings():  # Inductor imports a deprecated part of PyTorch
        warnings.filterwarnings("ignore", "`torch.jit", DeprecationWarning)
        from torch._inductor import compile_fx  # noqa: F401
    return torch.compile(  # type: ignore[no-any-return]
        function,
        fullgraph=True,
        dynamic=False,
        mode="reduce-overhead" if torch.cuda.is_available() else None,
        **_isolation(),
    )


def _isolation() -> dict[str, bool]:
    """Return the option of `torch.compile` that compiles each function separately.

    Without this option, which PyTorch 2.13 introduced, functions with the same code share a limit
    of compiled variants; it is raised so that no benchmark reaches it.
    """
    if "isolate_recompiles" in inspect.signature(torch.compile).parameters:
        return {"isolate_recompiles": True}
    torch._dynamo.config.cache_size_limit = 1000
    return {}


def capture_graph(function: Callable[[Tensor], Tensor], argument: Tensor) -> tuple[Any, Tensor]:
    """Return a CUDA graph of `function(argument)`, and the tensor that each replay overwrites."""
    # PyTorch requires a warm-up on another stream before a capture.
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(WARM_UP_STEPS):
            function(argument)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = function(argument)
    return graph, result
