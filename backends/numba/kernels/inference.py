"""Predictions: images through all stages, and the loss's own way from logits to probabilities.

Weights of linear layers are read where the network keeps them, (inputs, outputs), so nothing has to
be prepared when they have changed. An input row becomes a list of the numbers that are not 0, among
pixels and behind a ReLU a part only, and the rows of the weights that these meet are added up.

A single image takes microseconds, less than Python needs to hand over a few dozen arrays. So the
entry takes arrays one by one, and makes of them what the other kernels expect.

Cost per image: as in `fused_convolution`, and 2·n·outputs operations for n numbers that are not 0.
"""

from typing import Any

from backends.numba.kernels.compilation import entry, inlined_kernel, kernel
from backends.numba.kernels.dense import add_bias
from backends.numba.kernels.elementwise import activate, clear_filling
from backends.numba.kernels.forward import convolve, pool, read_pixels
from backends.numba.kernels.losses import SOFTMAX_CROSS_ENTROPY, softmax
from backends.numba.kernels.sparse import add_sparse_product
from backends.numba.kernels.stages import (
    AVG_POOL2D,
    CONV2D,
    LINEAR,
    MAX_POOL2D,
    SIGMOID,
    Plan,
    rows_of,
)
from backends.numba.kernels.views import copy, fill, part
from backends.numba.kernels.workspace import Images, Workspace, own


@entry
def pack(weights: Any, unpacked: Any, places: Any, filters: Any) -> None:
    """Bring parameters of convolutions into the order of the kernels.

    Args:
        weights: the parameters in the network's order.
        unpacked: which of them.
        places: where each is to lie.
        filters: receives them.
    """
    for i in range(len(unpacked)):
        filters[places[i]] = weights[unpacked[i]]


@entry
def predict(
    thread: int,
    first: int,
    last: int,
    stages: Any,
    offsets: Any,
    filters: Any,
    shift: float,
    loss: int,
    rows: Any,
    capacity: int,
    outputs: Any,
    padded: Any,
    masks: Any,
    wide_masks: Any,
    conv: Any,
    start: Any,
    columns: Any,
    values: Any,
    weights: Any,
    pixels: Any,
    scale: float,
    probabilities: bool,
    results: Any,
) -> bool:
    """Predict images `first` to `last` − 1; return whether their pixels are in range.

    Args:
        thread: whose rooms are used.
        first: of the images.
        last: one past the last of the images.
        stages: the table; places of linear layers are those in `weights`.
        offsets: of all convolutions.
        filters: parameters of convolutions in the order of the kernels.
        shift: what is added to pixels when they have been scaled.
        loss: its kind.
        rows: 0, 1, 2 and so on, at least N.
        capacity: images of a block.
        outputs: rooms, as `workspace.Workspace` names them.
        padded: likewise.
        masks: likewise.
        wide_masks: likewise.
        conv: likewise.
        start: likewise.
        columns: rooms for a list, int64.
        values: likewise, for its values.
        weights: the parameters in the network's order. What follows the last row of a layer may be
            read, as far as a whole vector goes, and is not used.
        pixels: (N, pixels) uint8 0…255 or floating-point 0…1; only these are checked.
        scale: what pixels are multiplied by.
        probabilities: whether results are probabilities; else logits.
        results: receives them, (N, classes).
    """
    if scale == 1:
        bad = 0
        for n in range(first, last):
            row = part(pixels, n * pixels.shape[1], pixels.shape[1])
            for i in range(len(row)):
                bad |= not (row[i] >= 0 and row[i] <= 1)  # so that a NaN is bad
        if bad:
            return False
    arena = own(outputs, thread)
    none = part(arena, 0, 0)
    work = Workspace(
        capacity, arena, none, own(padded, thread), own(masks, thread), own(wide_masks, thread),
        own(conv, thread), own(start, thread), none, none, none,
    )  # fmt: skip
    no_list = part(rows, 0, 0)
    images = Images(pixels, no_list, no_list, none, 0, scale, shift)
    plan = Plan(stages, offsets, results.shape[1])
    for block in range(first, last, capacity):
        count = min(capacity, last - block)
        _forward(
            plan, weights, filters, images, rows, block, count, work,
            own(columns, thread), own(values, thread),
        )  # fmt: skip
        end = stages[len(stages) - 1]
        logits = rows_of(arena, end.y, capacity, count, end.outputs)
        _write_results(logits, loss, probabilities, results, block)
    return True


@inlined_kernel
def _write_results(logits: Any, loss: int, probabilities: bool, results: Any, first: int) -> None:
    """Write logits, or what the loss makes of them, to the rows of `results` from `first` on."""
    classes = results.shape[1]
    if probabilities and loss != SOFTMAX_CROSS_ENTROPY:
        activate(SIGMOID, logits)
    for n in range(len(logits)):
        row = part(logits, n * logits.shape[1], logits.shape[1])
        if probabilities and loss == SOFTMAX_CROSS_ENTROPY:
            softmax(row, row, classes)
        copy(part(row, 0, classes), part(results, (first + n) * classes, classes))


@inlined_kernel
def _forward(
    plan: Any,
    weights: Any,
    filters: Any,
    images: Any,
    rows: Any,
    first: int,
    count: int,
    work: Any,
    columns: Any,
    values: Any,
) -> None:
    """Take a block of images through all stages."""
    number = weights.dtype.type
    scale, shift = number(images.scale), number(images.shift)
    for index in range(len(plan.stages)):
        stage = plan.stages[index]
        y = rows_of(work.outputs, stage.y, work.capacity, count, stage.outputs)
        x = rows_of(work.outputs, stage.x, work.capacity, count, stage.inputs)
        if index == 0 and stage.kind != CONV2D and stage.kind != LINEAR:
            read_pixels(stage, images, rows, first, x)
        if stage.kind == LINEAR:
            fill(part(y, 0, y.size))
            inputs = stage.height * stage.width * stage.in_lanes
            for n in range(count):
                if index == 0:
                    pixels = images.pixels[rows[first + n]]
                    length = _list(pixels, len(pixels), scale, shift, columns, values)
                else:
                    row = part(x, n * stage.inputs, inputs)
                    length = _list_maps(stage, row, columns, values)
                add_sparse_product(
                    part(y, n * stage.outputs, stage.outputs), weights, stage.weight,
                    stage.out_channels, columns, values, 0, length,
                )  # fmt: skip
            if stage.bias >= 0:
                add_bias(y, part(weights, stage.bias, stage.out_channels))
        elif stage.kind == CONV2D:
            convolve(plan, index, filters, images, rows, first, work, x, y)
        elif stage.kind == MAX_POOL2D or stage.kind == AVG_POOL2D:
            pool(stage, work, x, y)
        else:
            copy(part(x, 0, x.size), part(y, 0, y.size))
        activate(stage.activation, y)
        clear_filling(stage, y)


@kernel
def _list(numbers: Any, count: int, scale: Any, shift: Any, columns: Any, values: Any) -> int:
    """List the numbers that are not 0 after scaling and shifting; return how many there are."""
    length = 0
    for column in range(count):
        value = values.dtype.type(numbers[column]) * scale + shift
        columns[length] = column
        values[length] = value
        length += value != 0
    return length


@kernel
def _list_maps(stage: Any, x: Any, columns: Any, values: Any) -> int:
    """List what is not 0 among a stage's inputs, by their order in the network."""
    cells = stage.height * stage.width
    length = 0
    for cell in range(cells):
        for channel in range(stage.in_channels):
            value = x[cell * stage.in_lanes + channel]
            columns[length] = channel * cells + cell
            values[length] = value
            length += value != 0
    return length
