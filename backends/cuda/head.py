"""The layers at the end of a network, as head.cu takes them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backends.cuda.descent import MOST_LAYERS, address
from backends.operations.common import Array
from backends.program import ActivationKind

MOST_THREADS = 512  # as in head.cu

# As common.cuh numbers them.
_ACTIVATIONS: dict[ActivationKind, int] = {"identity": 0, "relu": 1, "sigmoid": 2, "tanh": 3}

# As the structures `Layer` and `Layers` of head.cu.
_LAYER = np.dtype(
    [
        ("x", "uint64"),
        ("dx", "uint64"),
        ("weight", "int32"),
        ("bias", "int32"),
        ("inputs", "int32"),
        ("outputs", "int32"),
        ("below", "int32"),
    ],
    align=True,
)
_LAYERS = np.dtype([("of", _LAYER, MOST_LAYERS), ("count", "int32")], align=True)


@dataclass(frozen=True)
class HeadLayer:
    """A linear layer at the end of a captured step.

    Attributes:
        x: what it takes (B, inputs), and what the layer before leaves.
        dx: set to the gradient of what the activation that made `x` took; None where nobody needs
            it, nor that of a layer before.
        weight: where its weights begin in the parameter vector.
        bias: where its bias begins; None without one.
        inputs: rows of the weights.
        outputs: columns of the weights.
        below: the activation that made `x`.
    """

    x: Array
    dx: Array | None
    weight: int
    bias: int | None
    inputs: int
    outputs: int
    below: ActivationKind


def threads(layers: Sequence[HeadLayer]) -> int:
    """Return how many threads take an image through these layers.

    A single one is the small layer before the loss, and there may be many images.
    """
    return 64 if len(layers) == 1 else MOST_THREADS


def as_argument(layers: Sequence[HeadLayer]) -> NDArray[Any]:
    """Return layers as the kernel takes them by value: one structure of NumPy."""
    argument = np.zeros((), _LAYERS)
    argument["count"] = len(layers)
    for entry, layer in zip(argument["of"], layers, strict=False):
        entry["x"] = address(layer.x)
        entry["dx"] = address(layer.dx)
        entry["weight"] = layer.weight
        entry["bias"] = -1 if layer.bias is None else layer.bias
        entry["inputs"], entry["outputs"] = layer.inputs, layer.outputs
        entry["below"] = _ACTIVATIONS[layer.below]
    return argument
