"""The layout of a program for the compiled kernels: where everything lies that they read and write.

Parameters are kept in another order than in the network's vector, filled up to whole vectors where
that lets a kernel go faster. `Layout.positions` says where each lies, so packing and unpacking are
one indexed copy.
"""

import importlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backends.program import Program, Stage

Array = NDArray[Any]


@dataclass(frozen=True)
class Layout:
    """A program as the kernels take it.

    Attributes:
        stages: a row for each stage; see `backends.numba_kernels.stages`.
        positions: where each parameter lies in the packed vector.
        packed_size: length of the packed vector.
        sizes: of the arrays of a workspace, by name: numbers of one image for "outputs", "padded",
            "masks" and "wide_masks", all numbers for the others.
    """

    stages: Array
    positions: NDArray[np.int64]
    packed_size: int
    sizes: Mapping[str, int]


def lay_out(program: Program, *, is_sparse: bool) -> Layout:
    """Choose the places of all that the kernels read and write.

    Args:
        program: what is to be computed.
        is_sparse: whether the first stage, a linear one, takes lists of pixels.
    """
    table = importlib.import_module("backends.numba_kernels.stages")
    lanes = importlib.import_module("backends.numba_kernels.vectors").LANES
    rows = np.zeros(len(program.stages), table.STAGE)
    positions = np.full(program.parameters, -1, np.int64)
    sizes = dict.fromkeys(("outputs", "padded", "masks", "wide_masks"), 0)
    sizes |= dict.fromkeys(("conv", "start", "filters", "dpadded", "product"), 0)
    packed = 0
    shape = _as_maps(program.stages[0].input_shape)
    in_lanes = shape[0]
    inputs = math.prod(shape[1:]) * in_lanes
    if not is_sparse:
        sizes["outputs"] = inputs
    # Where number i of a stage's input, in the order of the network, lies in its row.
    places = _places(shape, in_lanes)
    x = 0
    for number, (stage, row) in enumerate(zip(program.stages, rows, strict=True)):
        row["kind"] = _kind(table, stage, is_sparse=is_sparse and number == 0)
        row["activation"] = getattr(table, stage.activation.upper())
        in_shape, out_shape = _as_maps(stage.input_shape), _as_maps(stage.output_shape)
        row["in_channels"], row["height"], row["width"] = in_shape
        row["out_channels"], row["out_height"], row["out_width"] = out_shape
        out_lanes = _out_lanes(stage, row, lanes, in_lanes)
        row["in_lanes"], row["out_lanes"] = in_lanes, out_lanes
        row["x"], row["inputs"] = x, inputs
        outputs = math.prod(out_shape[1:]) * out_lanes
        row["y"], row["outputs"] = sizes["outputs"], outputs
        sizes["outputs"] += outputs
        row["weight"] = row["bias"] = table.NONE
        if stage.weight is not None:
            row["weight"] = packed
            count, where = _weight_places(stage, row, places, lanes)
            positions[stage.weight : stage.weight + len(where)] = packed + where
            packed += _filled(count, 2 * lanes)
        if stage.bias is not None:
            row["bias"] = packed
            positions[stage.bias : stage.bias + out_shape[0]] = packed + np.arange(out_shape[0])
            packed += _filled(out_shape[0], 2 * lanes)
        if stage.kind == "conv2d":
            _lay_out_convolution(stage, row, sizes, lanes)
        elif stage.kind == "linear":
            sizes["product"] = max(sizes["product"], inputs * outputs)
        if stage.pooling is not None:
            row["pool_size"], row["pool_stride"] = stage.pooling.size, stage.pooling.stride
            row["all_ties"] = stage.pooling.ties == "all"
            kind = "masks" if stage.kind == "conv2d" else "wide_masks"
            row["mask"] = sizes[kind]
            sizes[kind] += outputs
        places, in_lanes, inputs, x = _places(out_shape, out_lanes), out_lanes, outputs, row["y"]
    return Layout(rows, positions, packed, sizes)


def _kind(table: Any, stage: Stage, *, is_sparse: bool) -> int:
    return int(table.SPARSE_LINEAR if is_sparse else getattr(table, stage.kind.upper()))


def _as_maps(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Return a shape as (channels, height, width); a vector is one cell."""
    return (shape[0], 1, 1) if len(shape) == 1 else (shape[0], shape[1], shape[2])


def _filled(count: int, unit: int) -> int:
    """Return the next multiple of `unit`."""
    return -(-count // unit) * unit


def _out_lanes(stage: Stage, row: Any, lanes: int, in_lanes: int) -> int:
    """Return how many numbers a cell of the output takes, and set the vectors of a convolution."""
    channels = stage.output_shape[0]
    if stage.kind == "conv2d":
        row["vectors"] = 1 if channels <= lanes else 2
        return _filled(channels, int(row["vectors"]) * lanes)
    if stage.kind == "linear":
        return _filled(channels, lanes) if row["kind"] != 0 else channels
    return in_lanes


def _places(shape: tuple[int, int, int], lanes: int) -> NDArray[np.int64]:
    """Return where number (c, h, w) of a row lies, in the order in which networks count them."""
    channels, height, width = shape
    cells = np.arange(height * width) * lanes
    return (cells + np.arange(channels)[:, None]).ravel()


def _weight_places(
    stage: Stage, row: Any, places: NDArray[np.int64], lanes: int
) -> tuple[int, NDArray[np.int64]]:
    """Return the size of a packed weight, and where each of its numbers lies."""
    if stage.kind == "linear":
        width = int(row["outputs"])
        columns = np.arange(stage.output_shape[0])
        return int(row["inputs"]) * width, (places[:, None] * width + columns).ravel()
    out, channels, side = stage.output_shape[0], stage.input_shape[0], stage.kernel_size
    step = int(row["vectors"]) * lanes
    o, c, i, j = np.ix_(range(out), range(channels), range(side), range(side))
    taps = side * side * channels
    where = (o // step * taps + (i * side + j) * channels + c) * step + o % step
    return int(row["out_lanes"]) * taps, where.ravel()


def _lay_out_convolution(stage: Stage, row: Any, sizes: dict[str, int], lanes: int) -> None:
    row["kernel_size"], row["padding"] = stage.kernel_size, stage.padding
    height, width = (int(row[side]) + 2 * stage.padding for side in ("height", "width"))
    row["conv_height"] = height - stage.kernel_size + 1
    row["conv_width"] = width - stage.kernel_size + 1
    padded = height * width * int(row["in_lanes"])
    row["padded"] = sizes["padded"]
    sizes["padded"] += padded
    step = int(row["vectors"]) * lanes
    taps = stage.kernel_size**2 * int(row["in_lanes"])
    largest = {
        "conv": int(row["conv_height"]) * int(row["conv_width"]) * step,
        "start": step,
        "filters": stage.output_shape[0] * taps + lanes,
        "dpadded": padded + lanes,
    }
    sizes.update({name: max(sizes[name], size) for name, size in largest.items()})
