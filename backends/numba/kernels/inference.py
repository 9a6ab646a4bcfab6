"""Predictions: computes all stages for images, and probabilities from the logits.

Linear layers read their weights (inputs, outputs) directly from the network's parameter vector, so
no copy has to be updated after training. Many pixels and many outputs of a ReLU are 0. The nonzero
numbers of an input row are therefore collected first, and only their rows of the weights are read.

The prediction of a single image takes microseconds, about as long as Numba takes to unpack a few
dozen arguments. `predict` therefore takes plain tuples, which Numba unpacks faster than named
tuples, and converts them inside; and addresses of buffers, which Numba unpacks faster than arrays.

Cost per image: as in `fused_convolution`, and 2·n·outputs operations for n nonzero inputs of a
linear layer.
"""

from typing import Any, NamedTuple

import numpy as np

from backends.numba.kernels.compilation import allocating_entry, call, entry, kernel
from backends.numba.kernels.csr import BITS, append, nonzero_bits
from backends.numba.kernels.dense import add_bias
from backends.numba.kernels.elementwise import SIGMOID, activate
from backends.numba.kernels.forward import finish
from backends.numba.kernels.losses import softmax
from backends.numba.kernels.simd.sparse import gather_axpy
from backends.numba.kernels.stages import inputs_of, outputs_of
from backends.numba.kernels.vector_width import ALIGNMENT
from backends.numba.kernels.views import copy, fill_zero, pointer, pointer_to, view, view_2d
from backends.numba.kernels.workspace import Images, Tile, Workspace


class Network(NamedTuple):
    """A program with its prepared parameters.

    Attributes:
        stages: table of the stages. Linear layers have no stage kernel, and the offsets of their
            parameters refer to the network's vector.
        offsets: offsets of all convolutions.
        read: as in `stages.Plan`; 0 if the first stage is linear.
        softmax: whether probabilities are the softmax of the logits, otherwise their sigmoid.
        shift: number that is added to scaled pixels.
        lowest: smallest floating-point input that is allowed.
        highest: largest one.
        filters: packed parameters of convolutions.
    """

    stages: Any
    offsets: Any
    read: int
    softmax: bool
    shift: float
    lowest: float
    highest: float
    filters: Any


# Buffers of one thread: the number of images in a tile, and addresses, as `workspace.Workspace`
# describes them. Then the addresses of a uint32 buffer for the positions of the nonzero numbers of
# one input row, and of a buffer for the row followed by its nonzero numbers, with its length.
BUFFERS = np.dtype(
    [
        (name, np.int64)
        for name in (
            *("capacity", "outputs", "padded", "masks", "wide_masks", "no_bias"),
            *("indices", "data", "length"),
        )
    ]
)


class Nonzeros(NamedTuple):
    """Buffers for one input row.

    Attributes:
        row: scaled and shifted pixels, (1, pixels).
        indices: positions of the nonzero numbers.
        data: the nonzero numbers.
    """

    row: Any
    indices: Any
    data: Any


@entry
def pack(weights: Any, source: Any, target: Any, filters: Any) -> None:
    """Copy parameters of convolutions to their packed order.

    Args:
        weights: the network's parameter vector.
        source: positions in `weights`.
        target: positions in `filters`.
        filters: changed in place.
    """
    for i in range(len(source)):
        filters[target[i]] = weights[source[i]]


@allocating_entry
def predict(
    bounds: Any, buffers: Any, network: Any, weights: Any, pixels: Any, scale: float,
    probabilities: bool, results: Any,
) -> bool:  # fmt: skip
    """Predict images `begin` to `end` − 1; return False if an input is out of range.

    Args:
        bounds: (begin, end).
        buffers: of dtype `BUFFERS`, (1,).
        network: the fields of `Network`, as a plain tuple.
        weights: the network's parameter vector, extended so that the last row of each weight
            matrix can be read in whole vectors.
        pixels: (N, pixels), uint8 or floating-point; only the latter are checked.
        scale: factor of the pixels; 1 if they are floating-point.
        probabilities: whether to return probabilities instead of logits.
        results: logits or probabilities, (N, classes); changed in place.
    """
    begin, end = bounds
    net, memory = Network(*network), buffers[0]
    work = _workspace(memory, weights.dtype.type)
    images = Images(pixels, 0, 0, 0, 0, scale, net.shift)
    nonzeros = _nonzeros(memory, weights.dtype.type, pixels.shape[1])
    last = net.stages[len(net.stages) - 1]
    rows = np.empty(end, np.int64)
    for n in range(begin, end):
        rows[n] = n
    for first in range(begin, end, work.capacity):
        count = min(work.capacity, end - first)
        if scale == 1 and not _in_range(pixels, first, first + count, net.lowest, net.highest):
            return False
        _forward(net, weights, images, Tile(rows, first, count, first), work, nonzeros)
        logits = outputs_of(last, work.outputs, work, count)
        _write_results(logits, net.softmax, probabilities, results, first)
    return True


@kernel
def _in_range(pixels: Any, begin: int, end: int, lowest: float, highest: float) -> bool:
    """Return whether all floating-point inputs are in a range; NaN counts as out of range."""
    low, high = pixels.dtype.type(lowest), pixels.dtype.type(highest)
    outside = 0
    for n in range(begin, end):
        row = view(pixels, n * pixels.shape[1], pixels.shape[1])
        for i in range(len(row)):
            outside |= not (row[i] >= low and row[i] <= high)
    return outside == 0


@kernel
def _workspace(buffers: Any, kind: Any) -> Any:
    """Return the workspace of one thread; the buffers of the backward pass are not used.

    `kind` is the type of the numbers.
    """
    outputs = pointer_to(kind, buffers.outputs)
    unused = outputs
    return Workspace(
        buffers.capacity,
        outputs,
        unused,
        pointer_to(kind, buffers.padded),
        pointer_to(np.uint8, buffers.masks),
        pointer_to(np.int64, buffers.wide_masks),
        pointer_to(kind, buffers.no_bias),
        unused,
        unused,
        unused,
        unused,
        unused,
        unused,
        unused,
        0,
        unused,
        0,
        1,
    )


@kernel
def _write_results(
    logits: Any, is_softmax: bool, probabilities: bool, results: Any, first: int
) -> None:
    """Write logits or probabilities to `results`, beginning at row `first`."""
    classes = results.shape[1]
    if probabilities and not is_softmax:
        activate(SIGMOID, logits)
    for n in range(len(logits)):
        row = view(logits, n * logits.shape[1], logits.shape[1])
        if probabilities and is_softmax:
            softmax(row, row, classes)
        copy(view(row, 0, classes), view(results, (first + n) * classes, classes))


@kernel
def _forward(net: Any, weights: Any, images: Any, tile: Any, work: Any, nonzeros: Any) -> None:
    """Compute the outputs of all stages for a tile; `nonzeros` is a buffer."""
    if net.read:
        call(net.read, net.stages[0], net.filters, images, tile, work)
    for index in range(len(net.stages)):
        stage = net.stages[index]
        if stage.forward:
            call(stage.forward, stage, net.offsets, net.filters, work, tile.images)
        else:
            _linear(stage, weights, images, tile, work, nonzeros)
        finish(stage, work, tile.images)


@kernel
def _linear(stage: Any, weights: Any, images: Any, tile: Any, work: Any, nonzeros: Any) -> None:
    """Set the pre-activations of a linear layer; the first stage reads pixels."""
    x = inputs_of(stage, work.outputs, work, tile.images)
    y = outputs_of(stage, work.outputs, work, tile.images)
    cast = weights.dtype.type
    scale, shift = cast(images.scale), cast(images.shift)
    fill_zero(view(y, 0, y.size))
    inputs = stage.height * stage.width * stage.in_lanes
    for n in range(tile.images):
        if stage.is_first:
            row = tile.rows[tile.first + n]
            length = _collect_pixels(images.pixels, row, scale, shift, nonzeros)
        else:
            length = _collect_inputs(stage, view(x, n * stage.x_size, inputs), nonzeros)
        gather_axpy(
            pointer(y, n * stage.y_size), pointer(weights, stage.weight), stage.out_channels,
            stage.y_size, pointer(nonzeros.indices, 0), pointer(nonzeros.data, 0), length,
        )  # fmt: skip
    if stage.bias >= 0:
        add_bias(y, view(weights, stage.bias, stage.out_channels))


@kernel
def _nonzeros(buffers: Any, kind: Any, pixels: int) -> Any:
    """Return the buffers for an input row, with a row of `pixels` numbers."""
    data = pointer_to(kind, buffers.data)
    begin = -(-pixels // ALIGNMENT) * ALIGNMENT
    return Nonzeros(
        view_2d(data, 0, 1, pixels),
        view(pointer_to(np.uint32, buffers.indices), 0, buffers.length),
        view(data, begin, buffers.length - begin),
    )


@kernel
def _collect_pixels(pixels: Any, image: int, scale: Any, shift: Any, nonzeros: Any) -> int:
    """Collect the pixels that are nonzero after scaling and shifting; return their number."""
    columns = pixels.shape[1]
    source, target = view(pixels, image * columns, columns), view(nonzeros.row, 0, columns)
    for column in range(columns):
        target[column] = target.dtype.type(source[column]) * scale + shift
    row = nonzeros.row
    length, limit = 0, len(nonzeros.data)
    for begin in range(0, columns, BITS):
        end = min(begin + BITS, columns)
        nonzero = nonzero_bits(row, 0, begin, end)
        length = append(row, 0, begin, end, nonzero, nonzeros.indices, nonzeros.data, length, limit)
    return length


@kernel
def _collect_inputs(stage: Any, x: Any, nonzeros: Any) -> int:
    """Collect the nonzero inputs of a stage, in the order of the network; return their number."""
    cells = stage.height * stage.width
    length = 0
    for cell in range(cells):
        for channel in range(stage.in_channels):
            value = x[cell * stage.in_lanes + channel]
            nonzeros.indices[length] = channel * cells + cell
            nonzeros.data[length] = value
            length += value != 0
    return length
