"""Predictions: computes all stages for images, and probabilities from the logits.

Linear layers read their weights (inputs, outputs) directly from the network's parameter vector, so
no copy has to be updated after training. Only for thousands of images, `backends.numba.inference`
first copies the weights of a linear first layer to aligned rows. Many pixels and many outputs of a
ReLU are 0. The nonzero numbers of an input row are therefore collected first, and only their rows
of the weights are read.

The prediction of a single image takes microseconds, about as long as Numba takes to unpack a few
dozen arguments. `predict` therefore takes plain tuples, which Numba unpacks faster than named
tuples, and converts them inside; and addresses of buffers, which Numba unpacks faster than arrays.

Cost per image: as in `fused_convolution`, and 2·n·outputs operations for n nonzero inputs of a
linear layer.
"""

from typing import Any, NamedTuple

import numpy as np

from backends.numba.kernels.barrier import atomic_add_one, atomic_read, wait_for
from backends.numba.kernels.compilation import call, entry, kernel
from backends.numba.kernels.csr import BITS, append, nonzero_bits
from backends.numba.kernels.dense import add_bias
from backends.numba.kernels.elementwise import SIGMOID, activate
from backends.numba.kernels.forward import finish
from backends.numba.kernels.simd.losses import softmax
from backends.numba.kernels.simd.sparse import gather_axpy
from backends.numba.kernels.stages import inputs_of, outputs_of
from backends.numba.kernels.views import copy, fill_zero, pointer, pointer_to, view
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
        lowest: smallest input that is allowed.
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
# describes them. Then the addresses of an int64 buffer for the rows of the images in a tile, and of
# buffers for `Nonzeros`, with their length.
BUFFERS = np.dtype(
    [
        (name, np.int64)
        for name in (
            *("capacity", "outputs", "padded", "masks", "wide_masks", "no_bias"),
            *("rows", "pixels", "indices", "data", "length"),
        )
    ]
)

COUNTERS = 3  # length of the argument `counters` of `predict`


class Nonzeros(NamedTuple):
    """Buffers for the nonzero numbers of one input row.

    Attributes:
        pixels: the numbers before they are scaled and shifted, if they are pixels.
        indices: positions of the numbers in the row, uint32.
        data: the numbers.
    """

    pixels: Any
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


@entry
def predict(
    counters: Any, buffers: Any, network: Any, weights: Any, pixels: Any, scale: float,
    probabilities: bool, results: Any,
) -> bool:  # fmt: skip
    """Predict images together with other threads; return False if an input is out of range.

    Each thread takes the next tile of images until none is left, and waits until all tiles are
    finished. A thread that starts late computes less, and one that starts after the last tile was
    taken changes nothing. So no thread waits for another one to start.

    Args:
        counters: zeros, int64 (COUNTERS,), which the threads of one call share: the next tile, and
            the numbers of tiles that are finished and that are out of range.
        buffers: of dtype `BUFFERS`, (1,).
        network: the fields of `Network`, as a plain tuple.
        weights: the network's parameter vector, extended so that the last row of each weight
            matrix can be read in whole vectors.
        pixels: (N, pixels), uint8 or floating-point; only the latter are checked.
        scale: factor of the pixels; 1 if they are floating-point.
        probabilities: whether to return probabilities instead of logits.
        results: logits or probabilities, (N, classes); changed in place.
    """
    taken, finished, outside = view(counters, 0, 1), view(counters, 1, 1), view(counters, 2, 1)
    net, memory = Network(*network), buffers[0]
    work = _workspace(memory, weights.dtype.type)
    images = Images(pixels, 0, 0, 0, 0, 0, scale, net.shift)
    nonzeros = _nonzeros(memory, weights.dtype.type, pixels.dtype.type)
    last = net.stages[len(net.stages) - 1]
    rows = view(pointer_to(np.int64, memory.rows), 0, memory.capacity)
    while True:
        first = atomic_add_one(taken) * memory.capacity
        if first >= len(pixels):
            break
        count = min(memory.capacity, len(pixels) - first)
        for n in range(count):
            rows[n] = first + n
        if not _forward(net, weights, images, Tile(rows, 0, count, 0), work, nonzeros):
            atomic_add_one(outside)
        logits = outputs_of(last, work.outputs, work, count)
        _write_results(logits, net.softmax, probabilities, results, first)
        atomic_add_one(finished)
    wait_for(finished, -(-len(pixels) // memory.capacity))
    return bool(atomic_read(outside) == 0)


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
            softmax(pointer(row, 0), pointer(row, 0), len(row), classes)
        copy(view(row, 0, classes), view(results, (first + n) * classes, classes))


@kernel
def _forward(net: Any, weights: Any, images: Any, tile: Any, work: Any, nonzeros: Any) -> bool:
    """Compute the outputs of all stages for a tile; return False if an input is out of range."""
    in_range = True
    if net.read:
        if images.scale == 1:  # floating-point
            begin, end = tile.rows[0], tile.rows[0] + tile.images
            in_range = _in_range(images.pixels, begin, end, net.lowest, net.highest)
        call(net.read, net.stages[0], net.filters, images, tile, work)
    for index in range(len(net.stages)):
        stage = net.stages[index]
        if stage.forward:
            call(stage.forward, stage, net.offsets, net.filters, work, tile.images)
        else:
            in_range &= _linear(net, stage, weights, images, tile, work, nonzeros)
        finish(stage, work, tile.images)
    return in_range


@kernel
def _linear(
    net: Any, stage: Any, weights: Any, images: Any, tile: Any, work: Any, nonzeros: Any
) -> bool:
    """Set the pre-activations of a linear layer; the first stage reads pixels.

    Return False if one of them is out of range.
    """
    x = inputs_of(stage, work.outputs, work, tile.images)
    y = outputs_of(stage, work.outputs, work, tile.images)
    in_range = True
    fill_zero(view(y, 0, y.size))
    inputs = stage.height * stage.width * stage.in_lanes
    for n in range(tile.images):
        if stage.is_first:
            row = tile.rows[tile.first + n]
            length = _collect_pixels(images.pixels, row, images.shift == 0, nonzeros)
            in_range &= _scale(net, images, length, nonzeros)
        else:
            length = _collect_inputs(stage, view(x, n * stage.x_size, inputs), nonzeros)
        gather_axpy(
            pointer(y, n * stage.y_size), pointer(weights, stage.weight), stage.weight_row,
            stage.y_size, pointer(nonzeros.indices, 0), pointer(nonzeros.data, 0), length,
        )  # fmt: skip
    if stage.bias >= 0:
        add_bias(y, view(weights, stage.bias, stage.out_channels))
    return in_range


@kernel
def _nonzeros(buffers: Any, kind: Any, pixel: Any) -> Any:
    """Return the buffers for an input row; `kind` and `pixel` are types of numbers."""
    return Nonzeros(
        view(pointer_to(pixel, buffers.pixels), 0, buffers.length),
        view(pointer_to(np.uint32, buffers.indices), 0, buffers.length),
        view(pointer_to(kind, buffers.data), 0, buffers.length),
    )


@kernel
def _collect_pixels(pixels: Any, image: int, only_nonzero: bool, nonzeros: Any) -> int:
    """Collect all pixels of an image, or only those that are not 0; return their number."""
    columns: int = pixels.shape[1]
    found = nonzeros.pixels
    if not only_nonzero:
        copy(view(pixels, image * columns, columns), view(found, 0, columns))
        for column in range(columns):
            nonzeros.indices[column] = column
        return columns
    length = 0
    for begin in range(0, columns, BITS):
        end = min(begin + BITS, columns)
        bits = nonzero_bits(pixels, image, begin, end)
        if bits:
            length = append(
                pixels, image, begin, end, bits, nonzeros.indices, found, length, len(found)
            )
    return length


@kernel
def _scale(net: Any, images: Any, length: int, nonzeros: Any) -> bool:
    """Scale and shift the collected pixels; return False if one of them is out of range."""
    pixel, cast = nonzeros.pixels.dtype.type, nonzeros.data.dtype.type
    lowest, highest = pixel(net.lowest), pixel(net.highest)
    scale, shift = cast(images.scale), cast(images.shift)
    found = nonzeros.pixels
    outside = np.uint32(0)
    for i in range(length):
        outside |= np.uint32(not (found[i] >= lowest and found[i] <= highest))
        nonzeros.data[i] = cast(found[i]) * scale + shift
    return bool(outside == 0)


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
