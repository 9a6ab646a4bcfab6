"""Predictions: images through all stages, and from logits to probabilities.

Weights of linear layers are read from the network's parameter vector, (inputs, outputs), so nothing
has to be prepared after they change. The nonzero numbers of an input row are collected in a sparse
row, and the rows of the weights that they select are added up: many pixels and outputs of a ReLU
are 0.

A single image takes microseconds, as long as Numba needs to unpack a few dozen arguments. `predict`
therefore takes plain tuples, which Numba unpacks faster than named ones, and names their fields
inside.

Cost per image: as in `fused_convolution`, and 2·n·outputs operations for n nonzero inputs of a
linear layer.
"""

from typing import Any, NamedTuple

import numpy as np

from backends.numba.kernels.compilation import entry, inlined_kernel, kernel
from backends.numba.kernels.dense import add_bias
from backends.numba.kernels.elementwise import SIGMOID, activate, clear_unused_lanes
from backends.numba.kernels.forward import convolve, pool, read_pixels
from backends.numba.kernels.losses import SOFTMAX_CROSS_ENTROPY, softmax
from backends.numba.kernels.sparse import add_sparse_product
from backends.numba.kernels.stages import (
    AVG_POOL2D,
    CONV2D,
    LINEAR,
    MAX_POOL2D,
    Plan,
    rows_of,
)
from backends.numba.kernels.views import copy, fill_zero, part
from backends.numba.kernels.workspace import Images, Tile, Workspace, thread_slice


class Network(NamedTuple):
    """A program with its prepared parameters.

    Attributes:
        stages: table of the stages; offsets of linear layers are those in the network's vector.
        offsets: offsets of all convolutions.
        loss: kind of the loss.
        shift: number that is added to scaled pixels.
        filters: packed parameters of convolutions.
    """

    stages: Any
    offsets: Any
    loss: int
    shift: float
    filters: Any


class Buffers(NamedTuple):
    """Buffers of all threads, with a row per thread.

    Attributes:
        capacity: maximum number of images in a tile.
        outputs: see `workspace.Workspace`.
        padded: see there.
        masks: see there.
        wide_masks: see there.
        conv: see there.
        bias: see there.
        indices: positions of the nonzero numbers of one input row, int64.
        data: these numbers.
    """

    capacity: int
    outputs: Any
    padded: Any
    masks: Any
    wide_masks: Any
    conv: Any
    bias: Any
    indices: Any
    data: Any


class Nonzeros(NamedTuple):
    """A buffer for the nonzero numbers of one input row.

    Attributes:
        indices: their positions.
        data: their values.
    """

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
    share: Any, network: Any, buffers: Any, weights: Any, pixels: Any, scale: float,
    probabilities: bool, results: Any,
) -> bool:  # fmt: skip
    """Predict some images; return whether their pixels are in range.

    Args:
        share: number of the thread, first image, and end of the images.
        network: the fields of `Network`, as a plain tuple.
        buffers: the fields of `Buffers`, as a plain tuple.
        weights: the network's parameter vector. Numbers after the last row of a layer may be read,
            as far as a whole vector goes, and are not used.
        pixels: (N, pixels), uint8 0…255 or floating-point 0…1; only the latter are checked.
        scale: factor of the pixels; 1 if they are floating-point.
        probabilities: whether to return probabilities instead of logits.
        results: set to them, (N, classes).
    """
    thread, begin, end = share
    if scale == 1 and not _in_range(pixels, begin, end):
        return False
    net, room = Network(*network), Buffers(*buffers)
    plan = Plan(net.stages, net.offsets, results.shape[1], net.loss)
    work = _thread_workspace(room, thread)
    empty = part(room.indices, 0, 0)
    images = Images(pixels, empty, empty, part(weights, 0, 0), 0, scale, net.shift)
    nonzeros = Nonzeros(thread_slice(room.indices, thread), thread_slice(room.data, thread))
    last = net.stages[len(net.stages) - 1]
    rows = np.empty(end, np.int64)
    for n in range(begin, end):
        rows[n] = n
    for first in range(begin, end, room.capacity):
        count = min(room.capacity, end - first)
        _forward(plan, weights, net.filters, images, Tile(rows, first, count), work, nonzeros)
        logits = rows_of(work.outputs, last.y_offset, last.y_size, room.capacity, count)
        _write_results(logits, plan, probabilities, results, first)
    return True


@kernel
def _in_range(pixels: Any, begin: int, end: int) -> bool:
    """Return whether floating-point pixels are all in 0…1; NaN is not."""
    outside = 0
    for n in range(begin, end):
        row = part(pixels, n * pixels.shape[1], pixels.shape[1])
        for i in range(len(row)):
            outside |= not (row[i] >= 0 and row[i] <= 1)
    return outside == 0


@inlined_kernel
def _thread_workspace(room: Any, thread: int) -> Any:
    """Return the buffers of one thread; those of the backward pass are empty."""
    outputs = thread_slice(room.outputs, thread)
    empty = part(outputs, 0, 0)
    return Workspace(
        room.capacity,
        outputs,
        empty,
        thread_slice(room.padded, thread),
        thread_slice(room.masks, thread),
        thread_slice(room.wide_masks, thread),
        thread_slice(room.conv, thread),
        thread_slice(room.bias, thread),
        empty,
        empty,
        empty,
        empty,
    )


@inlined_kernel
def _write_results(logits: Any, plan: Any, probabilities: bool, results: Any, first: int) -> None:
    """Set the rows of `results` from `first` on to logits or probabilities."""
    classes = plan.classes
    if probabilities and plan.loss != SOFTMAX_CROSS_ENTROPY:
        activate(SIGMOID, logits)
    for n in range(len(logits)):
        row = part(logits, n * logits.shape[1], logits.shape[1])
        if probabilities and plan.loss == SOFTMAX_CROSS_ENTROPY:
            softmax(row, row, classes)
        copy(part(row, 0, classes), part(results, (first + n) * classes, classes))


@inlined_kernel
def _forward(
    plan: Any, weights: Any, filters: Any, images: Any, tile: Any, work: Any, nonzeros: Any
) -> None:
    """Compute the outputs of all stages for a tile; `nonzeros` is a buffer."""
    for index in range(len(plan.stages)):
        stage = plan.stages[index]
        y = rows_of(work.outputs, stage.y_offset, stage.y_size, work.capacity, tile.images)
        x = rows_of(work.outputs, stage.x_offset, stage.x_size, work.capacity, tile.images)
        if index == 0 and stage.kind != CONV2D and stage.kind != LINEAR:
            read_pixels(stage, images, tile, x)
        if stage.kind == LINEAR:
            _linear(stage, index, weights, images, tile, nonzeros, x, y)
        elif stage.kind == CONV2D:
            convolve(plan, index, filters, images, tile, work, x, y)
        elif stage.kind == MAX_POOL2D or stage.kind == AVG_POOL2D:
            pool(stage, work, x, y)
        else:
            copy(part(x, 0, x.size), part(y, 0, y.size))
        activate(stage.activation, y)
        clear_unused_lanes(stage, y)


@inlined_kernel
def _linear(
    stage: Any, index: int, weights: Any, images: Any, tile: Any, nonzeros: Any, x: Any, y: Any
) -> None:
    """Set y to a linear layer of pixels, in the first stage, or else of x, before activation."""
    number = weights.dtype.type
    scale, shift = number(images.scale), number(images.shift)
    fill_zero(part(y, 0, y.size))
    inputs = stage.height * stage.width * stage.in_lanes
    for n in range(tile.images):
        if index == 0:
            pixels = images.pixels[tile.rows[tile.first + n]]
            length = _collect_pixels(pixels, scale, shift, nonzeros)
        else:
            length = _collect_inputs(stage, part(x, n * stage.x_size, inputs), nonzeros)
        indices, data = part(nonzeros.indices, 0, length), part(nonzeros.data, 0, length)
        target = part(y, n * stage.y_size, stage.y_size)
        add_sparse_product(target, weights, stage.weight, stage.out_channels, indices, data)
    if stage.bias >= 0:
        add_bias(y, part(weights, stage.bias, stage.out_channels))


@kernel
def _collect_pixels(pixels: Any, scale: Any, shift: Any, nonzeros: Any) -> int:
    """Collect the pixels that are nonzero after scaling and shifting; return their number."""
    length = 0
    for column in range(len(pixels)):
        value = nonzeros.data.dtype.type(pixels[column]) * scale + shift
        nonzeros.indices[length] = column
        nonzeros.data[length] = value
        length += value != 0
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
