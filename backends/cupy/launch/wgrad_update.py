"""Launch of kernels/wgrad_update.cu, and how it divides the layers among blocks."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from backends.cupy.launch.conv_shape import NO_CONV, ConvShape
from backends.cupy.launch.graph_batch import GraphBatch
from backends.cupy.launch.launcher import Launcher, c_type
from backends.cupy.launch.tiles import LARGE, SMALL, Tile, tile_for
from backends.cupy.launch.updates import parameter_arguments, rule_settings
from backends.cupy.loader import Constant
from backends.operations.common import Array
from backends.operations.updates import UpdateRule

MAX_FILTER_TILE = 5  # side of a filter tile: a warp reduces at most 32 sums
MAX_LAYERS = 16  # arguments of a kernel take at most 4 KB

# A layer gets enough blocks to keep a large GPU busy, but each block sums at least MIN_TERMS
# products per parameter; with fewer, the addition of the partial sums would take most of the time.
TARGET_THREADS = 1 << 17
MIN_TERMS = 2048


@dataclass(frozen=True)
class SplitK:
    """The division of a layer's gradient; kernels/wgrad_update.cu describes the fields."""

    units: int
    splits: int
    parameters: int

    @property
    def blocks(self) -> int:
        """Number of blocks."""
        return self.units * self.splits


def tile_for_gradients(dtype: str, layers: Iterable[tuple[int, int]], images: int) -> Tile:
    """Return the tiles of dW, chosen for the largest layer.

    Args:
        dtype: dtype of the gradients.
        layers: inputs and outputs of all linear layers.
        images: number of images of the largest batch.
    """
    largest = max(layers, key=math.prod, default=None)
    if largest is None:
        return SMALL
    inputs, outputs = largest
    split = split_linear(inputs, outputs, images, tile=LARGE)
    return tile_for(dtype, inputs + 1, outputs, splits=split.splits)


def split_linear(inputs: int, outputs: int, images: int, *, tile: Tile) -> SplitK:
    """Return how the gradient of a linear layer is divided."""
    units = math.prod(tile.grid(inputs + 1, outputs))
    splits = _splits(units, images, terms=1, threads=tile.threads)
    return SplitK(units, splits, outputs * (inputs + 1))


def split_conv(
    shape: ConvShape, images: int, *, cells: int, filter_tile: int, threads: int
) -> SplitK:
    """Return how the gradient of a convolution is divided.

    Args:
        shape: sizes of the convolution.
        images: number of images of the largest batch.
        cells: number of cells of an output map.
        filter_tile: side of the filter tiles.
        threads: threads per block.
    """
    filters = shape.filters * shape.channels
    units = filters * math.ceil(shape.kernel_size / filter_tile) ** 2
    splits = _splits(units, images, terms=cells, threads=threads)
    return SplitK(units, splits, filters * shape.kernel_size**2 + shape.filters)


def filter_tile_for(*kernel_sizes: int) -> int:
    """Return the side of the filter tiles for convolutions with these filters."""
    return max(1, min(MAX_FILTER_TILE, max(kernel_sizes)))


def _splits(units: int, images: int, *, terms: int, threads: int) -> int:
    """Return the number of splits of each unit; an image adds `terms` products to each sum."""
    target_blocks = TARGET_THREADS // threads
    return max(1, min(target_blocks // units, images * terms // MIN_TERMS, images))


@dataclass(frozen=True)
class WgradLayer:
    """A layer whose parameters are updated; kernels/wgrad_update.cu describes the fields."""

    x: Array | None
    dy: Array
    mask: Array | None
    split: SplitK
    partial_sums: Array | None
    tile_counters: Array | None
    weight: int
    bias: int
    inputs: int
    outputs: int
    conv: ConvShape = NO_CONV


def wgrad_update(
    launcher: Launcher,
    rule: UpdateRule,
    layers: Sequence[WgradLayer],
    tile: Tile,
    batch: GraphBatch,
    parameters: Sequence[Array],
    *,
    l2: float = 0.0,
) -> None:
    """Update the parameters of all layers by their gradients, and store the loss of the step.

    Args:
        launcher: launches the kernel.
        rule: the optimizer.
        layers: the layers.
        tile: tiles of the weight gradients of linear layers.
        batch: the batch, whose losses are computed already.
        parameters: the parameter vector and the state arrays of the rule; changed in place.
        l2: α of the penalty ½·α·‖W‖² / B, whose gradient is added.
    """
    dataset, chunk = batch.dataset, batch.chunk
    weights, *rule_state = parameters
    constants: dict[str, Constant] = {
        "RULE": rule.kind.upper(),
        "PIXEL": c_type(dataset.images),
        "FILTER_TILE": filter_tile_for(*(layer.conv.kernel_size for layer in layers)),
        "MAX_LAYERS": MAX_LAYERS,
        **tile.constants,
    }
    launcher.kernel("wgrad_update", "wgrad_update", constants)(
        (1 + sum(layer.split.blocks for layer in layers),),
        tile.threads,
        layers={"layers": layer_structs(layers), "count": len(layers)},
        images=dataset.images,
        rows=chunk.rows,
        pixel_shift=batch.pixel_shift,
        chunk=chunk,
        state=batch.state,
        **parameter_arguments(weights, rule_state),
        settings=rule_settings(rule),
        l2=l2,
        member_stride=launcher.member_stride,
    )


def layer_structs(layers: Sequence[WgradLayer]) -> list[dict[str, Any]]:
    """Return the structs of the layers, each with its first block."""
    ends = accumulate((layer.split.blocks for layer in layers), initial=0)
    return [{**vars(layer), "first_block": end} for layer, end in zip(layers, ends, strict=False)]
