"""The layers whose parameters descend.cu changes, as the kernel takes them."""

from collections.abc import Sequence
from dataclasses import astuple, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backends.cuda.sizes import Maps
from backends.operations.common import Array

TILE = 16  # side of the tiles of tiles.cuh
MOST_LAYERS = 16  # as descend.cu and head.cu have it; a kernel takes at most 4 KB of arguments

# As the structure `Layer` of descend.cu.
_LAYER = np.dtype(
    [
        ("x", "uint64"),
        ("dy", "uint64"),
        ("mask", "uint64"),
        ("first_block", "int32"),
        ("weight", "int32"),
        ("bias", "int32"),
        ("inputs", "int32"),
        ("outputs", "int32"),
        ("maps", "int32", 7),
    ]
)
_NO_MAPS = (0,) * 7


@dataclass(frozen=True)
class Layer:
    """A layer with parameters, at the end of a captured step.

    Attributes:
        x: what it took; None where that are images of the data set.
        dy: the gradient of what its activation took.
        mask: where the maxima lie; None where the layer does not pool.
        weight: where its weights begin in the parameter vector.
        bias: where its bias begins; None without one.
        inputs: numbers that it takes of an image.
        outputs: columns of the weights, or filters.
        maps: of a convolution; None for a linear layer.
        kernel_size: side of the filters of a convolution.
    """

    x: Array | None
    dy: Array
    mask: Array | None
    weight: int
    bias: int | None
    inputs: int
    outputs: int
    maps: Maps | None = None
    kernel_size: int = 0

    @property
    def blocks(self) -> int:
        """How many blocks of threads it has."""
        if self.maps is None:
            return -(-self.outputs // TILE) * -(-(self.inputs + 1) // TILE)
        numbers = self.maps.channels * self.kernel_size**2 + (self.bias is not None)
        return self.maps.filters * numbers


def as_argument(layers: Sequence[Layer]) -> NDArray[Any]:
    """Return layers as the kernel takes them by value: one structure of NumPy."""
    table = np.zeros(MOST_LAYERS, _LAYER)
    table["first_block"] = np.iinfo("int32").max
    first_block = 0
    for entry, layer in zip(table, layers, strict=False):
        pooled = layer.mask is not None
        maps = layer.maps and (*astuple(layer.maps), layer.kernel_size, 2 if pooled else 1)
        entry["x"] = address(layer.x)
        entry["dy"] = address(layer.dy)
        entry["mask"] = address(layer.mask)
        entry["first_block"] = first_block
        entry["weight"] = layer.weight
        entry["bias"] = -1 if layer.bias is None else layer.bias
        entry["inputs"], entry["outputs"] = layer.inputs, layer.outputs
        entry["maps"] = maps or _NO_MAPS
        first_block += layer.blocks
    return table.view([("layers", _LAYER, MOST_LAYERS)]).reshape(())


def address(array: Array | None) -> int:
    """Return where an array lies on the device."""
    return 0 if array is None else int(array.data.ptr)
