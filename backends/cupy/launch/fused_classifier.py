"""The end of a network, as head.cu takes it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backends.cupy.launch.shapes import MOST_CHANNELS, Maps, maps_of_a_thread
from backends.cupy.launch.tiles import LARGE, tile_of
from backends.cupy.launch.wgrad_update import MOST_LAYERS, address
from backends.operations.common import Array
from backends.program import ActivationKind

MOST_THREADS = 512  # as head_by_lanes.cuh has it
FEWEST_THREADS = 128
PRODUCTS_OF_A_THREAD = 16  # of the largest layer; a thread with fewer has little to do
# A block takes several images through the layers where there are more of them than this. Each block
# reads all weights; and a large GPU has about as many multiprocessors. Of very many images, each
# takes as many as a tile has rows.
WANTED_BLOCKS = 128
MOST_IMAGES = 8
# Of larger layers than this, each block would read more than it computes: they are launches of
# their own, whose tiles read a weight once for 16 images or more.
MOST_WEIGHTS = 1 << 16

# As common.cuh numbers them.
ACTIVATIONS: dict[ActivationKind, int] = {"identity": 0, "relu": 1, "sigmoid": 2, "tanh": 3}

# As the structure `Layer` of head.cu.
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
# As the structure `Convolution`.
_CONVOLUTION = np.dtype(
    [
        ("x", "uint64"),
        ("dy", "uint64"),
        ("mask", "uint64"),
        ("dx", "uint64"),
        ("weight", "int32"),
        ("below", "int32"),
        ("maps", "int32", 7),
    ],
    align=True,
)
_LAYERS = np.dtype(
    [
        ("of", _LAYER, MOST_LAYERS),
        ("convolutions", _CONVOLUTION, MOST_LAYERS),
        ("count", "int32"),
        ("convolution_count", "int32"),
    ],
    align=True,
)


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


@dataclass(frozen=True)
class HeadConvolution:
    """A convolution before the layers of a head, through which the head takes the gradients back.

    Attributes:
        x: what it takes, (B, channels, height, width), and what the activation `below` has made.
        dy: the gradient of what its activation took, (B, filters, height, width) of its outputs.
        mask: where the maxima lie, like `dy`, uint8; None where it does not pool.
        dx: set to the gradient of what the activation below took, like `x`.
        weight: where its filters begin in the parameter vector.
        below: the activation that made `x`.
        maps: its sizes.
        kernel_size: side of the filters.
    """

    x: Array
    dy: Array
    mask: Array | None
    dx: Array
    weight: int
    below: ActivationKind
    maps: Maps
    kernel_size: int


@dataclass(frozen=True)
class Head:
    """What head.cu computes.

    Attributes:
        dtype: "float32" or "float64".
        batch_size: images of the largest batch.
        layers: linear layers, one or more, the last with at most `MOST_CLASSES` outputs.
        convolutions: before them, from the last to the first, all with filters of one size.
    """

    dtype: str
    batch_size: int
    layers: Sequence[HeadLayer]
    convolutions: Sequence[HeadConvolution]

    @property
    def is_by_tiles(self) -> bool:
        """Whether a block takes as many images through the layers as a tile has rows."""
        widest = max(layer.outputs for layer in self.layers)
        columns = min(widest, LARGE.columns)  # a block goes through all columns itself
        return not self.convolutions and tile_of(self.dtype, self.batch_size, columns) == LARGE

    @property
    def images(self) -> int:
        """How many images a block takes through the layers."""
        if self.is_by_tiles:
            return LARGE.rows
        images = 1
        while images < MOST_IMAGES and images * WANTED_BLOCKS < self.batch_size:
            images *= 2
        return images

    @property
    def threads(self) -> int:
        """How many threads a block has."""
        if self.is_by_tiles:
            return LARGE.threads
        if self.convolutions:
            return MOST_THREADS
        largest = self.images * max(layer.inputs * layer.outputs for layer in self.layers)
        wanted = largest // PRODUCTS_OF_A_THREAD // 32 * 32
        return max(FEWEST_THREADS, min(MOST_THREADS, wanted))

    @property
    def constants(self) -> dict[str, int]:
        """The options of head.cu, but for the loss."""
        if not self.convolutions:
            side = {"SIDE": LARGE.side} if self.is_by_tiles else {}
            return {"IMAGES": self.images, "KERNEL_SIZE": 0, "CHANNELS": 1, **side}
        places = max(before.maps.threads_of_pixels for before in self.convolutions)
        channels = maps_of_a_thread(
            math.gcd(*(before.maps.channels for before in self.convolutions)),
            most=MOST_CHANNELS,
            threads=self.images * places,
            wanted=MOST_THREADS // 2,
        )
        kernel_size = self.convolutions[0].kernel_size
        return {"IMAGES": self.images, "KERNEL_SIZE": kernel_size, "CHANNELS": channels}

    def as_argument(self) -> NDArray[Any]:
        """Return what the kernel takes by value: one structure of NumPy."""
        assert max(len(self.layers), len(self.convolutions)) <= MOST_LAYERS
        argument = np.zeros((), _LAYERS)
        argument["count"] = len(self.layers)
        argument["convolution_count"] = len(self.convolutions)
        for entry, layer in zip(argument["of"], self.layers, strict=False):
            entry["x"] = address(layer.x)
            entry["dx"] = address(layer.dx)
            entry["weight"] = layer.weight
            entry["bias"] = -1 if layer.bias is None else layer.bias
            entry["inputs"], entry["outputs"] = layer.inputs, layer.outputs
            entry["below"] = ACTIVATIONS[layer.below]
        for entry, before in zip(argument["convolutions"], self.convolutions, strict=False):
            entry["x"], entry["dx"] = address(before.x), address(before.dx)
            entry["dy"], entry["mask"] = address(before.dy), address(before.mask)
            entry["weight"] = before.weight
            entry["below"] = ACTIVATIONS[before.below]
            entry["maps"] = before.maps.as_argument(before.kernel_size, before.mask is not None)
        return argument
