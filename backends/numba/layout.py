"""The layout of a program for the compiled kernels: offsets of parameters and buffers.

The kernels read a packed copy of the parameters, in another order and padded to whole vectors:

    network's vector    W1 (784, 50) │ b1 (50) │ W2 (50, 10) │ b2 (10)
    packed vector       W1, rows of 56 numbers │ b1, 64 │ W2, transposed, rows of 56 │ b2, 16

`Layout.positions` is the position of each parameter in the packed vector. `Layout.packing` is the
same as a list of matrices, which a kernel copies in the order of the memory (see `kernels.chunk`),
and `Layout.unpacking` is the way back.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backends.numba.kernels import elementwise, losses, stages, updates
from backends.numba.kernels.simd.pooling import CHANNEL_LANES
from backends.numba.kernels.vector_width import ALIGNMENT, lanes_of
from backends.program import ANY, CompiledKinds, Program, Stage

Array = NDArray[Any]

MAX_COLUMNS = 1 << 16  # the CSR format stores columns as uint16

COMPILED = CompiledKinds(
    stages={
        "linear": {"units": ANY, "bias": ANY},
        # Every convolution is uniform, because all outputs are summed in the same order.
        "conv2d": {
            "channels": ANY,
            "kernel_size": ANY,
            "stride": (1,),
            "padding": ANY,
            "bias": ANY,
            "uniform": ANY,
        },
        "max_pool2d": {"size": ANY, "stride": ANY, "ties": ANY},
        "avg_pool2d": {"size": ANY, "stride": ANY},
        "activation": {},
    },
    activations=elementwise.ACTIVATIONS,
    losses=losses.LOSSES,
    updates=updates.RULES,
    update_settings=updates.Rule._fields,
    l2=True,
)


@dataclass(frozen=True)
class Layout:
    """A program in the form that the kernels read.

    Attributes:
        stages: table of the stages, of dtype `kernels.stages.STAGE`, without addresses.
        offsets: as in `kernels.stages.Plan`.
        positions: position of each parameter in the packed vector, (parameters,).
        packing: the same as matrices, in the form that `kernels.chunk.copy_blocks` reads.
        unpacking: the same for the copy from the packed vector to the network's vector.
        weights: begin and end of the weights of each layer in the packed vector, (layers, 2).
        packed_size: length of the packed vector.
        sizes: sizes of the buffers of one thread by name. Those of "outputs", "padded", "masks" and
            "wide_masks" are for one image.
    """

    stages: NDArray[Any]
    offsets: NDArray[np.uint64]
    positions: NDArray[np.int64]
    packing: NDArray[np.int64]
    unpacking: NDArray[np.int64]
    weights: NDArray[np.int64]
    packed_size: int
    sizes: Mapping[str, int]


def reads_input(program: Program) -> bool:
    """Return whether the first stage can read CSR rows or pixels: a linear layer without shift."""
    first = program.stages[0]
    return (
        first.kind == "linear"
        and program.pixel_shift == 0
        and math.prod(first.input_shape) <= MAX_COLUMNS
    )


def multiplications(program: Program) -> int:
    """Return the number of multiplications by weights for the logits of one image."""
    count = 0
    for stage in program.stages:
        if stage.weight is not None:
            side, grown = stage.kernel_size, 2 * stage.padding + 1
            sizes = [size + grown - side for size in stage.input_shape[1:]] if side else []
            inputs = side**2 * stage.input_shape[0] if side else math.prod(stage.input_shape)
            count += math.prod(sizes) * inputs * stage.output_shape[0]
    return count


def channels_last(program: Program, rows: Array) -> Array:
    """Return rows of inputs (N, size) in the order that the first stage reads: channels last."""
    shape = program.stages[0].input_shape
    if len(shape) == 1 or shape[0] == 1:
        return rows
    images = rows.reshape(len(rows), *shape).transpose(0, 2, 3, 1)
    return np.ascontiguousarray(images).reshape(rows.shape)


def lay_out(program: Program, *, is_sparse: bool) -> Layout:
    """Return the layout of a program.

    Args:
        program: network and loss.
        is_sparse: whether the first stage, a linear one, takes CSR input.
    """
    placement = _Placement(program)
    table = np.zeros(len(program.stages), stages.STAGE)
    for number, (stage, row) in enumerate(zip(program.stages, table, strict=True)):
        row["is_first"] = number == 0
        placement.add(stage, row, is_sparse=is_sparse and number == 0)
    packing = np.concatenate(placement.blocks)
    return Layout(
        stages=table,
        offsets=np.concatenate(placement.offsets),
        positions=placement.positions,
        packing=packing,
        unpacking=packing.take((0, 1, 5, 6, 7, 2, 3, 4), axis=1),
        weights=np.array(placement.weights, np.int64).reshape(-1, 2),
        packed_size=placement.packed_size,
        sizes=placement.sizes,
    )


class _Placement:
    """Assigns offsets to one stage after another."""

    def __init__(self, program: Program) -> None:
        self.positions = np.full(program.parameters, -1, np.int64)
        self.blocks = [np.zeros((0, 8), np.int64)]
        self.weights: list[tuple[int, int]] = []
        self.packed_size = 0
        self._vector = lanes_of(np.dtype(program.dtype).itemsize)
        self.offsets = [np.zeros(0, np.uint64)]
        names = (
            "outputs", "padded", "masks", "wide_masks",
            "no_bias", "conv", "filters", "dfilters", "places", "dpadded",
        )  # fmt: skip
        self.sizes = dict.fromkeys(names, 0)
        # The input of the next stage. Flattening does not change the shape that is stored here.
        shape = program.stages[0].input_shape
        self._shape = _as_image(shape)
        self._lanes = _round_up(shape[0], self._vector) if len(shape) == 1 else shape[0]
        self._x_size = self._row_size(self._shape, self._lanes)
        self._x_offset = 0
        self._reads_input = reads_input(program)

    def add(self, stage: Stage, row: Any, *, is_sparse: bool) -> None:
        """Fill the row of the next stage, except the addresses."""
        out_shape = self._shape if stage.kind == "activation" else _as_image(stage.output_shape)
        row["activation"] = elementwise.ACTIVATIONS.index(stage.activation)
        row["in_channels"], row["height"], row["width"] = self._shape
        row["out_channels"], row["out_height"], row["out_width"] = out_shape
        row["in_lanes"], row["x_size"] = self._lanes, self._x_size
        if stage.kind == "conv2d":
            row["vectors"] = 1 if out_shape[0] <= CHANNEL_LANES else 2
            row["out_lanes"] = _round_up(out_shape[0], int(row["vectors"]) * CHANNEL_LANES)
        elif stage.kind == "linear":
            row["out_lanes"] = _round_up(out_shape[0], self._vector)
        else:
            row["out_lanes"] = self._lanes
        row["y_size"] = self._row_size(out_shape, int(row["out_lanes"]))
        # Some first stages read the data set directly; others copy pixels.
        if row["is_first"] and stage.kind != "conv2d" and not self._reads_input:
            self.sizes["outputs"] += self._x_size
        row["x_offset"] = self._x_offset
        row["y_offset"] = self._x_offset = self._reserve("outputs", row)
        self._place_parameters(stage, row, is_sparse=is_sparse)
        if stage.kind == "conv2d":
            self._place_convolution(stage, row)
        if stage.pooling is not None:
            row["pool_size"], row["pool_stride"] = stage.pooling.size, stage.pooling.stride
            row["all_ties"] = stage.pooling.ties == "all"
            masks = "masks" if stage.kind == "conv2d" else "wide_masks"
            row["mask_offset"] = self._reserve(masks, row)
        self._shape = out_shape
        self._lanes, self._x_size = int(row["out_lanes"]), int(row["y_size"])

    def _row_size(self, shape: tuple[int, int, int], lanes: int) -> int:
        """Return the size of a row of outputs, in whole vectors."""
        return _round_up(math.prod(shape[1:]) * lanes, self._vector)

    def _reserve(self, name: str, row: Any) -> int:
        """Enlarge a buffer by the size of a stage's outputs; return the offset of the new part."""
        begin = self.sizes[name]
        self.sizes[name] += int(row["y_size"])
        return begin

    def _place_parameters(self, stage: Stage, row: Any, *, is_sparse: bool) -> None:
        """Set the offsets of weight and bias."""
        row["weight"] = row["bias"] = stages.NONE
        if stage.weight is not None:
            reads_pixels = row["is_first"] and self._reads_input and not is_sparse
            block = self._vector if reads_pixels else 0
            count, elements, where = _weight_positions(stage, row, is_sparse=is_sparse, block=block)
            row["weight"] = self._pack(stage.weight + elements, where, count)
            self.weights.append((int(row["weight"]), self.packed_size))
        if stage.bias is not None:
            where = np.arange(stage.output_shape[0])[None, None]
            row["bias"] = self._pack(stage.bias + where, where, where.size)

    def _pack(self, elements: NDArray[np.int64], where: NDArray[np.int64], count: int) -> int:
        """Append a weight or bias to the packed vector, and return its offset there.

        Args:
            elements: positions in the network's vector, (blocks, rows, columns). The elements of a
                row are neighbors, and the rows of a block have a constant stride.
            where: packed positions of these elements, relative to the returned offset. Rows and
                columns of a block have constant strides.
            count: packed size.
        """
        begin = self.packed_size
        where = begin + where
        self.positions[elements] = where
        columns = (
            *elements.shape[1:],
            *(elements[:, 0, 0], _strides(elements[:, :, 0]), 1),
            *(where[:, 0, 0], _strides(where[:, :, 0]), _strides(where[:, 0])),
        )
        self.blocks.append(np.stack(np.broadcast_arrays(*columns), axis=1))
        self.packed_size += _round_up(count, ALIGNMENT)
        return begin

    def _place_convolution(self, stage: Stage, row: Any) -> None:
        """Set the sizes and offsets that only convolutions have."""
        side, lanes = stage.kernel_size, int(row["in_lanes"])
        row["kernel_size"], row["padding"] = side, stage.padding
        height, width = (int(row[name]) + 2 * stage.padding for name in ("height", "width"))
        conv_height, conv_width = height - side + 1, width - side + 1
        row["conv_height"], row["conv_width"] = conv_height, conv_width
        i, j, c = np.ix_(range(side), range(side), range(stage.input_shape[0]))
        row["tap_offsets"] = self._append_offsets((i * width + j) * lanes + c)
        padded = height * width * lanes
        row["padded_offset"], row["padded_size"] = self.sizes["padded"], padded
        self.sizes["padded"] += padded
        out, outputs = stage.output_shape[0], conv_height * conv_width * int(row["out_lanes"])
        frame_row = _round_up((side + 1) * lanes, 2 * CHANNEL_LANES)
        largest = {
            "no_bias": int(row["out_lanes"]),
            "conv": outputs,
            "filters": (2 * out * (side + 1) + 1) * frame_row,
            "dfilters": out * side * _round_up(side * lanes, CHANNEL_LANES),
            "places": 2 * outputs,
            "dpadded": padded,
        }
        for name, size in largest.items():
            self.sizes[name] = max(self.sizes[name], size)

    def _append_offsets(self, offsets: NDArray[Any]) -> int:
        """Append to `Plan.offsets`, and return the position of the first new offset."""
        begin = sum(map(len, self.offsets))
        self.offsets.append(offsets.astype(np.uint64).ravel())
        return begin


def _as_image(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Return a shape as (channels, height, width); a vector is an image of one pixel."""
    return (shape[0], 1, 1) if len(shape) == 1 else (shape[0], shape[1], shape[2])


def _round_up(count: int, unit: int) -> int:
    """Return the smallest multiple of `unit` that is at least `count`."""
    return -(-count // unit) * unit


def _positions(shape: tuple[int, int, int], lanes: int) -> NDArray[np.int64]:
    """Return the position in a padded row of each input, (cells, channels)."""
    channels, height, width = shape
    return np.arange(height * width)[:, None] * lanes + np.arange(channels)


def _strides(positions: NDArray[np.int64]) -> NDArray[np.int64] | int:
    """Return the distance of the equidistant positions in each row; 1 for rows of a single one."""
    return positions[:, 1] - positions[:, 0] if positions.shape[1] > 1 else 1


def _weight_positions(
    stage: Stage, row: Any, *, is_sparse: bool, block: int
) -> tuple[int, NDArray[np.int64], NDArray[np.int64]]:
    """Return the size of a packed weight, the positions of its elements, and their packed ones.

    Positions are relative to the weight, in the form that `_Placement._pack` takes.

    Args:
        stage: the stage, which has weights.
        row: its row of the table.
        is_sparse: whether a linear stage takes CSR input.
        block: lanes of the vector blocks of a linear stage (see `kernels.simd.gemm`), or 0 for a
            matrix (outputs, inputs).
    """
    if stage.kind == "linear":
        # The inputs are in the order of the shape before flattening.
        shape = int(row["in_channels"]), int(row["height"]), int(row["width"])
        inputs = _positions(shape, int(row["in_lanes"]))
        outputs = np.arange(stage.output_shape[0])
        numbers = np.arange(inputs.size).reshape(inputs.T.shape).T  # in the order of the network
        elements = numbers[..., None] * len(outputs) + outputs
        if is_sparse:
            width = int(row["out_lanes"])
            return int(row["x_size"]) * width, elements, inputs[..., None] * width + outputs
        count = len(outputs) * int(row["x_size"])
        if not block:
            return count, elements, inputs[..., None] + outputs * int(row["x_size"])
        run = math.gcd(inputs.shape[1], block)  # number of inputs that are neighbors in a vector
        first = inputs.reshape(-1, run, 1)
        where = first // block * block * len(outputs) + first % block + outputs * block
        return count, elements.reshape(-1, run, len(outputs)), where
    out, channels, side = stage.output_shape[0], stage.input_shape[0], stage.kernel_size
    tile = int(row["vectors"]) * CHANNEL_LANES
    o, c, tap = np.ix_(range(out), range(channels), range(side * side))
    taps = side * side * channels
    elements = o * taps + c * side * side + tap
    where = (o // tile * taps + tap * channels + c) * tile + o % tile
    return int(row["out_lanes"]) * taps, elements, where
