"""The layers whose parameters descend.cu changes, as the kernel takes them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backends.cuda.sizes import Maps
from backends.operations.common import Array
from backends.program import Stage

TILE_ROWS, TILE_COLUMNS = 16, 32  # as tiles.cuh has them
PATCH = 5  # as filter_gradient.cuh has it
MOST_LAYERS = 16  # as descend.cu and head.cu have it; a kernel takes at most 4 KB of arguments

# So many blocks of a layer keep a large GPU busy. Each has at least so many terms to add up; with
# fewer, they would spend their time with putting their sums together.
WANTED_BLOCKS = 512
FEWEST_TERMS = 2048

# As the structure `Layer` of descend.cu.
_LAYER = np.dtype(
    [
        ("x", "uint64"),
        ("dy", "uint64"),
        ("mask", "uint64"),
        ("parts", "uint64"),
        ("tickets", "uint64"),
        ("first_block", "int32"),
        ("shares", "int32"),
        ("parameters", "int32"),
        ("weight", "int32"),
        ("bias", "int32"),
        ("inputs", "int32"),
        ("outputs", "int32"),
        ("maps", "int32", 7),
    ],
    align=True,
)


@dataclass(frozen=True)
class Cut:
    """How the gradients of a layer are shared out among blocks of threads.

    Attributes:
        units: parts of its parameters.
        shares: parts of the images, each of which adds up a unit.
        parameters: how many there are.
    """

    units: int
    shares: int
    parameters: int


def cut(stage: Stage, batch_size: int) -> Cut:
    """Return how many blocks a stage with parameters has, for batches of up to so many images."""
    outputs, terms = stage.output_shape[0], batch_size
    if stage.kind == "conv2d":
        patches = math.ceil(stage.kernel_size / PATCH) ** 2
        units = outputs * stage.input_shape[0] * patches
        weights = outputs * stage.input_shape[0] * stage.kernel_size**2
        terms *= math.prod(stage.output_shape[1:])
    else:
        units = -(-outputs // TILE_COLUMNS) * -(-(stage.input_shape[0] + 1) // TILE_ROWS)
        weights = outputs * stage.input_shape[0]
    shares = min(WANTED_BLOCKS // units, terms // FEWEST_TERMS, batch_size)
    return Cut(units, max(1, shares), weights + (0 if stage.bias is None else outputs))


@dataclass(frozen=True)
class Layer:
    """A layer with parameters, at the end of a captured step.

    Attributes:
        x: what it took; None where that are images of the data set.
        dy: the gradient of what its activation took.
        mask: where the maxima lie; None where the layer does not pool.
        cut: how it is shared out.
        parts: sums of gradients of each share; None where there is one.
        tickets: how many shares of each unit are done, 0 before and after; None as before.
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
    cut: Cut
    parts: Array | None
    tickets: Array | None
    weight: int
    bias: int | None
    inputs: int
    outputs: int
    maps: Maps | None = None
    kernel_size: int = 0


def as_argument(layers: Sequence[Layer]) -> NDArray[Any]:
    """Return layers as the kernel takes them by value: one structure of NumPy."""
    table = np.zeros(MOST_LAYERS, _LAYER)
    table["first_block"] = np.iinfo("int32").max
    first_block = 0
    for entry, layer in zip(table, layers, strict=False):
        entry["x"] = address(layer.x)
        entry["dy"] = address(layer.dy)
        entry["mask"] = address(layer.mask)
        entry["parts"], entry["tickets"] = address(layer.parts), address(layer.tickets)
        entry["first_block"] = first_block
        entry["shares"], entry["parameters"] = layer.cut.shares, layer.cut.parameters
        entry["weight"] = layer.weight
        entry["bias"] = -1 if layer.bias is None else layer.bias
        entry["inputs"], entry["outputs"] = layer.inputs, layer.outputs
        if layer.maps:
            entry["maps"] = layer.maps.as_argument(layer.kernel_size, layer.mask is not None)
        first_block += blocks_of(layer)
    return table.view([("layers", _LAYER, MOST_LAYERS)]).reshape(())


def blocks_of(layer: Layer) -> int:
    """Return how many blocks of threads a layer has."""
    return layer.cut.units * layer.cut.shares


def address(array: Array | None) -> int:
    """Return where an array lies on the device."""
    return 0 if array is None else int(array.data.ptr)
