"""The layers whose parameters descend.cu changes, as the kernel takes them."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backends.cupy.launch.shapes import Maps
from backends.cupy.launch.tiles import LARGE, SMALL, Tile, tile_of
from backends.operations.common import Array

MOST_PATCH = 5  # a side of the patches of filter_gradient.cuh: a warp adds up 32 numbers
MOST_LAYERS = 16  # as descend.cu and head.cu have it; a kernel takes at most 4 KB of arguments

# So many threads of a layer keep a large GPU busy. Each block has at least so many terms to add up;
# with fewer, they would spend their time with putting their sums together.
THREADS_OF_A_LAYER = 1 << 17
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
        parameters: how many there are, a bias for each output among them.
    """

    units: int
    shares: int
    parameters: int


def tile_of_gradients(dtype: str, layers: Iterable[tuple[int, int]], images: int) -> Tile:
    """Return by which tiles the gradients of weights are computed.

    Args:
        dtype: of the numbers.
        layers: inputs and outputs of all linear layers; the tiles suit the one that has most work.
        images: of the largest batch.
    """
    largest = max(layers, key=math.prod, default=None)
    if largest is None:
        return SMALL
    inputs, outputs = largest
    cut = cut_linear(inputs, outputs, images, tile=LARGE)
    return tile_of(dtype, inputs + 1, outputs, shares=cut.shares)


def cut_linear(inputs: int, outputs: int, images: int, *, tile: Tile) -> Cut:
    """Return how many blocks a linear layer has."""
    units = math.prod(tile.grid(inputs + 1, outputs))
    shares = _shares(units, images, terms=1, threads=tile.threads)
    return Cut(units, shares, outputs * (inputs + 1))


def cut_filters(
    maps: Maps, kernel_size: int, images: int, *, cells: int, patch: int, threads: int
) -> Cut:
    """Return how many blocks a convolution has.

    Args:
        maps: its sizes.
        kernel_size: side of its filters.
        images: of the largest batch.
        cells: of the maps that it leaves.
        patch: side of the patches into which filters are cut.
        threads: of a block.
    """
    pairs = maps.filters * maps.channels
    units = pairs * math.ceil(kernel_size / patch) ** 2
    shares = _shares(units, images, terms=cells, threads=threads)
    return Cut(units, shares, pairs * kernel_size**2 + maps.filters)


def patch_of(*kernel_sizes: int) -> int:
    """Return the side of the patches into which filters of these sizes are cut."""
    return max(1, min(MOST_PATCH, max(kernel_sizes)))


def _shares(units: int, images: int, *, terms: int, threads: int) -> int:
    """Return among how many blocks a unit's images are shared out, of so many terms each."""
    wanted = THREADS_OF_A_LAYER // threads
    return max(1, min(wanted // units, images * terms // FEWEST_TERMS, images))


@dataclass(frozen=True)
class Layer:
    """A layer with parameters, at the end of a captured step.

    Attributes:
        x: what it took, (B, inputs); None where that are images of the data set.
        dy: the gradient of what its activation took, (B, outputs) or (B, filters, height, width).
        mask: where the maxima lie, like `dy`, uint8; None where the layer does not pool.
        cut: how it is shared out.
        parts: sums of gradients, (shares, parameters); None where there is one share.
        tickets: how many shares of each unit are done, (units,), int32, 0 before and after a step;
            None where there is one share.
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
    assert len(layers) <= MOST_LAYERS
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
