"""Launch of kernels/wgrad_update.cu, and how it divides the layers among blocks."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from backends.cupy.launch.conv_shape import NO_CONV, ConvShape
from backends.cupy.launch.graph_batch import GraphBatch
from backends.cupy.launch.launcher import Launcher, c_type, ceil_div
from backends.cupy.launch.tiles import LARGE, SMALL, Tile, tile_for
from backends.cupy.launch.updates import parameter_arguments, rule_settings
from backends.cupy.loader import WARP_SIZE, Constant
from backends.operations.common import Array
from backends.operations.updates import UpdateRule

MAX_FILTER_TILE = 5  # side of a filter tile: a warp reduces at most 32 sums
MAX_FILTERS_PER_TILE = 6  # gradients of their outputs in registers
# Of kernels/narrow_wgrad.cuh: the largest number of outputs of a layer, and the rows of a block.
MAX_NARROW_COLUMNS, NARROW_ROWS = 16, 16
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


@dataclass(frozen=True)
class FilterTile:
    """The part of the filters whose gradient one block computes.

    Attributes:
        side: number of taps down and across.
        filters: number of filters.
    """

    side: int
    filters: int

    @property
    def constants(self) -> dict[str, Constant]:
        """Options of conv_wgrad.cuh."""
        return {"FILTER_TILE": self.side, "FILTERS_PER_TILE": self.filters}


def narrow_columns(outputs: Iterable[int]) -> int:
    """Return the number of outputs of narrow layers, whose gradients are computed without tiles.

    It is a compile-time constant: the largest of `outputs`, those of all linear layers, up to
    `MAX_NARROW_COLUMNS`; 1 if there is none.
    """
    return max((count for count in outputs if count <= MAX_NARROW_COLUMNS), default=1)


def tile_for_gradients(
    dtype: str, layers: Iterable[tuple[int, int]], images: int, *, narrow: int
) -> Tile:
    """Return the tiles of dW, chosen for the largest layer that is not narrow.

    Args:
        dtype: dtype of the gradients.
        layers: inputs and outputs of all linear layers.
        images: number of images of the largest batch.
        narrow: outputs of narrow layers.
    """
    wide = (layer for layer in layers if layer[1] != narrow)
    largest = max(wide, key=math.prod, default=None)
    if largest is None:
        return SMALL
    inputs, outputs = largest
    split = split_linear(inputs, outputs, images, tile=LARGE, narrow=narrow)
    return tile_for(dtype, inputs + 1, outputs, splits=split.splits)


def split_linear(inputs: int, outputs: int, images: int, *, tile: Tile, narrow: int) -> SplitK:
    """Return how the gradient of a linear layer is divided.

    Args:
        inputs: inputs of the layer.
        outputs: outputs of the layer.
        images: number of images of the largest batch.
        tile: tiles of dW.
        narrow: outputs of narrow layers, which have no tiles.
    """
    tiles = ceil_div(inputs + 1, NARROW_ROWS), 1
    units = math.prod(tiles if outputs == narrow else tile.grid(inputs + 1, outputs))
    splits = _splits(units, images, terms=1, threads=tile.threads)
    return SplitK(units, splits, outputs * (inputs + 1))


def split_conv(
    shape: ConvShape, images: int, *, cells: int, filter_tile: FilterTile, threads: int
) -> SplitK:
    """Return how the gradient of a convolution is divided.

    Args:
        shape: sizes of the convolution.
        images: number of images of the largest batch.
        cells: number of cells of an output map.
        filter_tile: the filter tiles.
        threads: threads per block.
    """
    units = math.ceil(shape.filters / filter_tile.filters) * shape.channels
    units *= math.ceil(shape.kernel_size / filter_tile.side) ** 2
    # With several filters, a cell takes about one and a half times as long as with one.
    terms = cells if filter_tile.filters == 1 else 3 * cells // 2
    splits = _splits(units, images, terms=terms, threads=threads)
    taps = shape.filters * shape.channels * shape.kernel_size**2
    return SplitK(units, splits, taps + shape.filters)


def filter_tile_for(*kernel_sizes: int) -> FilterTile:
    """Return the filter tiles for convolutions with these filters; 0 stands for another layer."""
    if not any(kernel_sizes):
        return FilterTile(1, 1)  # compiles fastest
    side = min(MAX_FILTER_TILE, max(kernel_sizes))
    return FilterTile(side, min(MAX_FILTERS_PER_TILE, WARP_SIZE // (side**2 + 1)))


def _splits(units: int, images: int, *, terms: int, threads: int) -> int:
    """Return the number of splits of each unit; an image adds `terms` products to each sum."""
    target_blocks = TARGET_THREADS // threads
    return max(1, min(target_blocks // units, images * terms // MIN_TERMS, images))


@dataclass(frozen=True)
class WgradLayer:
    """A layer whose parameters are updated; kernels/wgrad_update.cu describes the fields."""

    x: Array | None
    dy: Array | None
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
    narrow: int,
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
        narrow: outputs of narrow layers.
        batch: the batch, whose losses are computed already.
        parameters: the parameter vector and the state arrays of the rule; changed in place.
        l2: α of the penalty ½·α·‖W‖² / B, whose gradient is added.
    """
    constants: dict[str, Constant] = {
        "RULE": rule.kind.upper(),
        "PIXEL": c_type(batch.dataset.images),
        "MAX_LAYERS": MAX_LAYERS,
        "NARROW_COLUMNS": narrow,
        **filter_tile_for(*(layer.conv.kernel_size for layer in layers)).constants,
        **tile.constants,
    }
    launcher.kernel("wgrad_update", "wgrad_update", constants)(
        (1 + sum(layer.split.blocks for layer in layers),),
        tile.threads,
        **update_arguments(launcher, rule, layers, batch, parameters),
        l2=l2,
    )


def update_arguments(
    launcher: Launcher,
    rule: UpdateRule,
    layers: Sequence[WgradLayer],
    batch: GraphBatch,
    parameters: Sequence[Array],
) -> dict[str, Any]:
    """Return the arguments of a kernel that updates the parameters of layers."""
    weights, *rule_state = parameters
    return {
        "layers": {"layers": layer_structs(layers), "count": len(layers)},
        "images": batch.dataset.images,
        "rows": batch.chunk.rows,
        "pixel_shift": batch.pixel_shift,
        "chunk": batch.chunk,
        "state": batch.state,
        **parameter_arguments(weights, rule_state),
        "settings": rule_settings(rule),
        "member_stride": launcher.member_stride,
    }


def layer_structs(layers: Sequence[WgradLayer]) -> list[dict[str, Any]]:
    """Return the structs of the layers, each with its first block."""
    ends = accumulate((layer.split.blocks for layer in layers), initial=0)
    return [{**vars(layer), "first_block": end} for layer, end in zip(layers, ends, strict=False)]
