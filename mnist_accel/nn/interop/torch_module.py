"""Networks from and to PyTorch modules."""

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mnist_accel.nn.graph import Graph
from mnist_accel.nn.layers import (
    Activation,
    AvgPool2d,
    Conv2d,
    Dropout,
    Flatten,
    Layer,
    Linear,
    MaxPool2d,
)
from mnist_accel.util.optional_packages import missing
from mnist_accel.util.text import excerpt

_ACTIVATIONS = {"relu": "ReLU", "sigmoid": "Sigmoid", "tanh": "Tanh"}
_OUTPUTS = {"softmax": ("Softmax", "LogSoftmax"), "sigmoid": ("Sigmoid",), "identity": ()}
_DTYPES = ("torch.float16", "torch.float32", "torch.float64")
Weights: TypeAlias = dict[str, NDArray[Any]]


def to_module(graph: Graph, weights: Mapping[str, NDArray[Any]]) -> Any:
    """Return a `torch.nn.Sequential` in evaluation mode that computes the logits of a network.

    Weights of linear layers are transposed, because PyTorch stores them as (outputs, inputs).

    Raises:
        MissingPackageError: PyTorch is not installed.
        ValueError: a layer has no form in PyTorch; the message names it.
    """
    torch = _import_torch()
    modules = []
    for number, node in enumerate(graph.nodes, 1):
        is_known = type(node.layer) in _TO_MODULE
        is_activation = isinstance(node.layer, Activation)
        if not is_known or (is_activation and node.layer.kind not in _ACTIVATIONS):
            raise ValueError(f"layer {number} ({node.layer.kind}) has no form in PyTorch")
        module = _TO_MODULE[type(node.layer)](torch.nn, node.layer, node.input_shape)
        with torch.no_grad():
            for name, key in node.keys.items():
                array = (
                    weights[key].T if node.layer.kind == "linear" and name == "W" else weights[key]
                )
                target = module.weight if name == "W" else module.bias
                target.data = torch.from_numpy(np.ascontiguousarray(array).copy())
        modules.append(module)
    return torch.nn.Sequential(*modules).eval()


def from_module(module: Any, *, outputs: str) -> tuple[list[Layer], list[Weights]]:
    """Return the layers of a module, and the parameters of each layer by their names in it.

    Args:
        module: a `torch.nn.Sequential` of supported layers, which may be nested.
        outputs: the activation that the loss of the network contains, "softmax", "sigmoid" or
            "identity". It is left out at the end of the module.

    Raises:
        MissingPackageError: PyTorch is not installed.
        TypeError: `module` is not a `torch.nn.Sequential`.
        ValueError: a layer is not supported; the message names the first one. Or the module ends
            in a softmax, which the loss does not contain, or two modules share a parameter.
    """
    torch = _import_torch()
    if not _is_sequential(torch, module):
        raise TypeError(f"expected a torch.nn.Sequential, got {type(module).__name__}")
    modules = list(_flattened(torch, module))
    _check_hooks(module, "the module")
    _require_own_parameters(modules)
    if modules and _is_output(modules[-1][1], outputs):
        modules.pop()
    layers, weights = [], []
    for path, one in modules:
        try:
            layers.append(_layer(torch.nn, one))
            weights.append(_weights(one))
        except ValueError as error:
            raise ValueError(
                f"layer {path} of the module, {excerpt(one)}, is not supported: {error}"
            ) from None
    return layers, weights


def _is_sequential(torch: Any, module: Any) -> bool:
    """Return whether a module calls its children one after another, and does nothing else."""
    sequential = torch.nn.Sequential
    return isinstance(module, sequential) and type(module).forward is sequential.forward


def _is_output(module: Any, outputs: str) -> bool:
    """Return whether the last module is the activation that the loss contains.

    Raises:
        ValueError: it is a softmax, but over another dimension or not in the loss.
    """
    name = type(module).__name__
    if name in _OUTPUTS["softmax"]:
        if outputs != "softmax":
            raise ValueError(
                f"the module ends in {name}, but the outputs of the loss are {outputs}; give the "
                "loss SoftmaxCrossEntropy()"
            )
        if module.dim not in (None, 1, -1):
            raise ValueError(f"the module ends in {module}, expected dim=1, the classes")
    return name in _OUTPUTS[outputs]


def _require_own_parameters(modules: list[tuple[str, Any]]) -> None:
    """Check that all parameters have values, and that no two modules share one.

    Two layers of a network would train apart.

    Raises:
        ValueError: a parameter has no values, or two modules share one; the message names them.
    """
    owners: dict[int, str] = {}  # paths by the address of a parameter
    for path, module in modules:
        for name, parameter in module.named_parameters():
            if parameter.is_meta:
                raise ValueError(
                    f"{path}.{name} of the module is on the device meta, so it has no values; "
                    "create the module on the CPU"
                )
            address = parameter.data_ptr()
            if address in owners:
                raise ValueError(
                    f"layers {owners[address]} and {path}.{name} of the module share a parameter, "
                    "which a network cannot represent; give each layer a copy of its own"
                )
            if parameter.numel():
                owners[address] = f"{path}.{name}"


def _check_hooks(module: Any, name: str) -> None:
    """Check that a module has no hooks, which may change what it computes.

    Raises:
        ValueError: it has some, such as those of pruning or weight normalization.
    """
    if module._forward_hooks or module._forward_pre_hooks:
        raise ValueError(f"{name} has forward hooks, which have no counterpart; remove them first")


def _import_torch() -> Any:
    try:
        import torch
    except ImportError as error:
        purpose = "conversion from and to PyTorch"
        raise missing(purpose, "torch", extra="torch", error=error) from error
    return torch


def _flattened(torch: Any, module: Any, prefix: str = "") -> Any:
    """Yield the layers of nested `Sequential` modules with their paths, such as "1.0"."""
    for name, child in module._modules.items():  # `named_children` omits repeated modules
        _check_hooks(child, f"layer {prefix}{name} of the module, {type(child).__name__},")
        if _is_sequential(torch, child):
            yield from _flattened(torch, child, f"{prefix}{name}.")
        elif not isinstance(child, torch.nn.Identity):
            yield f"{prefix}{name}", child


def _layer(nn: Any, module: Any) -> Layer:
    """Return the layer that a module corresponds to.

    Raises:
        ValueError: there is none.
    """
    kind = type(module)
    if kind is nn.Linear:
        return Linear(module.out_features, bias=module.bias is not None)
    if kind is nn.Conv2d:
        return _conv(module)
    if kind in (nn.MaxPool2d, nn.AvgPool2d):
        return _pool(module, MaxPool2d if kind is nn.MaxPool2d else AvgPool2d)
    if kind is nn.Flatten:
        if (module.start_dim, module.end_dim) != (1, -1):
            raise ValueError("it must flatten all dimensions of an image")
        return Flatten()
    if kind is nn.Dropout:
        return Dropout(module.p)
    for name, torch_name in _ACTIVATIONS.items():
        if kind is getattr(nn, torch_name):
            return Activation(name)
    known = "Linear, Conv2d, MaxPool2d, AvgPool2d, Flatten, Dropout"
    raise ValueError(f"known are {known}, {', '.join(_ACTIVATIONS.values())}")


def _conv(module: Any) -> Conv2d:
    if module.groups != 1 or module.dilation != (1, 1) or module.padding_mode != "zeros":
        raise ValueError("groups, dilation and padding other than with zeros have no counterpart")
    if isinstance(module.padding, str):
        raise ValueError(f"give the padding as a number, not {module.padding!r}")
    return Conv2d(
        module.out_channels,
        kernel_size=_square(module.kernel_size),
        stride=_square(module.stride),
        padding=_square(module.padding),
        bias=module.bias is not None,
    )


def _pool(module: Any, kind: type[Any]) -> Layer:
    if (
        _square(module.padding)
        or module.ceil_mode
        or getattr(module, "dilation", 1) not in (1, (1, 1))
        or getattr(module, "return_indices", False)
        or getattr(module, "divisor_override", None) is not None
    ):
        raise ValueError(
            "padding, dilation, ceil_mode, return_indices and divisor_override of pooling have no "
            "counterpart"
        )
    layer: Layer = kind(_square(module.kernel_size), stride=_square(module.stride))
    return layer


def _square(value: Any) -> int:
    """Return a size that is the same in both directions."""
    pair = value if isinstance(value, tuple) else (value, value)
    if pair[0] != pair[1]:
        raise ValueError(f"sizes must be equal in both directions, got {pair}")
    return int(pair[0])


def _weights(module: Any) -> Weights:
    """Return the parameters of a module, with the weights of linear layers as (inputs, outputs).

    Raises:
        ValueError: a parameter has an unsupported dtype.
    """
    weights = {}
    for name, key in (("weight", "W"), ("bias", "b")):
        parameter = getattr(module, name, None)
        if parameter is not None:
            if str(parameter.dtype) not in _DTYPES:
                raise ValueError(f"its {name} is {parameter.dtype}; known are {', '.join(_DTYPES)}")
            array = parameter.detach().cpu().numpy()
            weights[key] = array.T if key == "W" and array.ndim == 2 else array
    return weights


_TO_MODULE: dict[type[Any], Callable[[Any, Any, tuple[int, ...]], Any]] = {
    Linear: lambda nn, layer, shape: nn.Linear(shape[0], layer.units, bias=layer.bias),
    Conv2d: lambda nn, layer, shape: nn.Conv2d(
        shape[0], layer.channels, layer.kernel_size, layer.stride, layer.padding, bias=layer.bias
    ),
    MaxPool2d: lambda nn, layer, shape: nn.MaxPool2d(layer.size, layer.effective_stride),
    AvgPool2d: lambda nn, layer, shape: nn.AvgPool2d(layer.size, layer.effective_stride),
    Flatten: lambda nn, layer, shape: nn.Flatten(),
    Dropout: lambda nn, layer, shape: nn.Dropout(layer.rate),
    Activation: lambda nn, layer, shape: getattr(nn, _ACTIVATIONS[layer.kind])(),
}
