"""The layout of a program for the compiled kernels: where everything lies that they read and write.

Parameters are kept in another order than in the network's vector, filled up to whole vectors where
that lets a kernel go faster. `Layout.positions` says where each lies, so packing and unpacking are
one indexed copy.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backends.numba.kernels import stages as _table
from backends.numba.kernels.vectors import LANES as _LANES
from backends.program import Program, Stage

Array = NDArray[Any]

MOST_COLUMNS = 1 << 16  # that the type of the lists of pixels holds


@dataclass(frozen=True)
class Layout:
    """A program as the kernels take it.

    Attributes:
        plan: the stages; see `backends.numba.kernels.stages`.
        positions: where each parameter lies in the packed vector.
        packed_size: length of the packed vector.
        sizes: of the arrays of a workspace, by name: numbers of one image for "outputs", "padded",
            "masks" and "wide_masks", all numbers for the others.
    """

    plan: Any
    positions: NDArray[np.int64]
    packed_size: int
    sizes: Mapping[str, int]


def takes_lists(program: Program) -> bool:
    """Say whether the first stage is a linear one that can leave out pixels that are 0."""
    first = program.stages[0]
    return (
        first.kind == "linear"
        and program.pixel_shift == 0
        and math.prod(first.input_shape) <= MOST_COLUMNS
    )


def lay_out(program: Program, *, is_sparse: bool) -> Layout:
    """Choose the places of all that the kernels read and write.

    Args:
        program: what is to be computed.
        is_sparse: whether the first stage, a linear one, takes lists of pixels.
    """
    placing = _Placing(program)
    rows = np.zeros(len(program.stages), _table.STAGE)
    for number, (stage, row) in enumerate(zip(program.stages, rows, strict=True)):
        row["kind"] = getattr(_table, stage.kind.upper())
        if is_sparse and number == 0:
            row["kind"] = _table.SPARSE_LINEAR
        placing.place(stage, row)
    return Layout(
        plan=_table.Plan(rows, np.concatenate(placing.offsets), program.stages[-1].output_shape[0]),
        positions=placing.positions,
        packed_size=placing.packed_size,
        sizes=placing.sizes,
    )


class _Placing:
    """What has been placed so far, as the stages are taken in their order."""

    def __init__(self, program: Program) -> None:
        self.positions = np.full(program.parameters, -1, np.int64)
        self.packed_size = 0
        self.offsets = [np.zeros(0, np.uint64)]
        names = ("outputs", "padded", "masks", "wide_masks", "conv", "start", "filters", "dpadded")
        self.sizes = dict.fromkeys(names, 0)
        # What comes in next: as maps, which a vector made of maps still is; the numbers of a cell
        # and of a row; and its place in the arena.
        shape = program.stages[0].input_shape
        self._maps = _as_maps(shape)
        self._lanes = _filled(shape[0], _LANES) if len(shape) == 1 else shape[0]
        self._inputs = _row_size(self._maps, self._lanes)
        self._x = 0
        self._is_first = True

    def place(self, stage: Stage, row: Any) -> None:
        """Fill in the row of the next stage, whose kind is there."""
        out_shape = self._maps if stage.kind == "activation" else _as_maps(stage.output_shape)
        row["activation"] = _table.ACTIVATIONS.index(stage.activation)
        row["in_channels"], row["height"], row["width"] = self._maps
        row["out_channels"], row["out_height"], row["out_width"] = out_shape
        row["in_lanes"], row["inputs"] = self._lanes, self._inputs
        if stage.kind == "conv2d":
            row["vectors"] = 1 if out_shape[0] <= _LANES else 2
            row["out_lanes"] = _filled(out_shape[0], int(row["vectors"]) * _LANES)
        elif stage.kind == "linear":
            row["out_lanes"] = _filled(out_shape[0], _LANES)
        else:
            row["out_lanes"] = self._lanes
        row["outputs"] = _row_size(out_shape, int(row["out_lanes"]))
        self._place_rows(row)
        self._place_parameters(stage, row)
        if stage.kind == "conv2d":
            self._place_convolution(stage, row)
        if stage.pooling is not None:
            row["pool_size"], row["pool_stride"] = stage.pooling.size, stage.pooling.stride
            row["all_ties"] = stage.pooling.ties == "all"
            row["mask"] = self._room("masks" if stage.kind == "conv2d" else "wide_masks", row)
        self._maps = out_shape
        self._lanes, self._inputs = int(row["out_lanes"]), int(row["outputs"])

    def _room(self, name: str, row: Any) -> int:
        """Return where room for the outputs of a stage begins, after making it."""
        begin = self.sizes[name]
        self.sizes[name] += int(row["outputs"])
        return begin

    def _place_rows(self, row: Any) -> None:
        """Give the outputs room in the arena; and the pixels, where the first stage needs them."""
        if self._is_first and row["kind"] not in (_table.SPARSE_LINEAR, _table.CONV2D):
            self.sizes["outputs"] += self._inputs
        self._is_first = False
        row["x"] = self._x
        row["y"] = self._x = self._room("outputs", row)

    def _place_parameters(self, stage: Stage, row: Any) -> None:
        row["weight"] = row["bias"] = _table.NONE
        if stage.weight is not None:
            count, where = _weight_places(stage, row)
            row["weight"] = self._pack(stage.weight, where, count)
        if stage.bias is not None:
            outputs = stage.output_shape[0]
            row["bias"] = self._pack(stage.bias, np.arange(outputs), outputs)

    def _pack(self, first: int, where: NDArray[np.int64], count: int) -> int:
        """Return where a parameter begins in the packed vector, after making room for it.

        Args:
            first: where it begins in the network's vector.
            where: each of its numbers lies, counted from its packed beginning.
            count: numbers that it takes.
        """
        begin = self.packed_size
        self.positions[first : first + len(where)] = begin + where
        self.packed_size += _filled(count, 2 * _LANES)
        return begin

    def _place_convolution(self, stage: Stage, row: Any) -> None:
        side, lanes = stage.kernel_size, int(row["in_lanes"])
        row["kernel_size"], row["padding"] = side, stage.padding
        height, width = (int(row[name]) + 2 * stage.padding for name in ("height", "width"))
        conv_height, conv_width = height - side + 1, width - side + 1
        row["conv_height"], row["conv_width"] = conv_height, conv_width
        i, j, c = np.ix_(range(side), range(side), range(stage.input_shape[0]))
        row["tap_offsets"] = self._keep_offsets((i * width + j) * lanes + c)
        r, s = np.ix_(range(conv_height), range(conv_width))
        row["output_offsets"] = self._keep_offsets((r * width + s) * lanes)
        padded = height * width * lanes
        row["padded"] = self.sizes["padded"]
        self.sizes["padded"] += padded
        step = int(row["vectors"]) * _LANES
        largest = {
            "conv": conv_height * conv_width * step,
            "start": step,
            "filters": stage.output_shape[0] * side * side * lanes + _LANES,
            "dpadded": padded + _LANES,
        }
        for name, size in largest.items():
            self.sizes[name] = max(self.sizes[name], size)

    def _keep_offsets(self, offsets: NDArray[Any]) -> int:
        """Return where offsets begin among all, after adding them."""
        begin = sum(map(len, self.offsets))
        self.offsets.append(offsets.astype(np.uint64).ravel())
        return begin


def _as_maps(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Return a shape as (channels, height, width); a vector is one cell."""
    return (shape[0], 1, 1) if len(shape) == 1 else (shape[0], shape[1], shape[2])


def _filled(count: int, unit: int) -> int:
    """Return the next multiple of `unit`."""
    return -(-count // unit) * unit


def _row_size(shape: tuple[int, int, int], lanes: int) -> int:
    """Return how many numbers a row takes that holds maps: whole vectors."""
    return _filled(math.prod(shape[1:]) * lanes, _LANES)


def _places(shape: tuple[int, int, int], lanes: int) -> NDArray[np.int64]:
    """Return where number (c, h, w) of a row lies, in the order in which networks count them."""
    channels, height, width = shape
    cells = np.arange(height * width) * lanes
    return (cells + np.arange(channels)[:, None]).ravel()


def _weight_places(stage: Stage, row: Any) -> tuple[int, NDArray[np.int64]]:
    """Return the size of a packed weight, and where each of its numbers lies."""
    if stage.kind == "linear":
        # The inputs are counted as they were before they became a vector.
        maps = int(row["in_channels"]), int(row["height"]), int(row["width"])
        inputs = _places(maps, int(row["in_lanes"]))
        outputs = np.arange(stage.output_shape[0])
        if row["kind"] == _table.SPARSE_LINEAR:
            width = int(row["out_lanes"])
            return int(row["inputs"]) * width, (inputs[:, None] * width + outputs).ravel()
        step = int(row["inputs"])
        return len(outputs) * step, (inputs[:, None] + outputs * step).ravel()
    out, channels, side = stage.output_shape[0], stage.input_shape[0], stage.kernel_size
    step = int(row["vectors"]) * _LANES
    o, c, i, j = np.ix_(range(out), range(channels), range(side), range(side))
    taps = side * side * channels
    where = (o // step * taps + (i * side + j) * channels + c) * step + o % step
    return int(row["out_lanes"]) * taps, where.ravel()
