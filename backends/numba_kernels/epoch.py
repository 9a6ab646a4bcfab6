"""A whole epoch in one call: gather, forward, loss, backward and update, step after step.

Every thread runs `run_steps`. Within a step it takes a share of the batch through the network,
block by block, so that what a block leaves behind is still in the cache when the gradients come
back. Then the threads meet, each changes its own part of the parameters by what all have found, and
they meet again. With a given number of threads the sums are made in one order, so runs repeat to
the bit.
"""

from typing import Any, NamedTuple

from numpy.typing import NDArray

from backends.numba_kernels.barrier import meet
from backends.numba_kernels.compilation import entry, kernel
from backends.numba_kernels.dense import (
    add_bias,
    linear,
    linear_backward_bias,
    linear_backward_weight,
    linear_backward_x,
)
from backends.numba_kernels.elementwise import (
    activate,
    activate_backward,
    add,
    clear_filling,
    copy,
    fill,
)
from backends.numba_kernels.feature_maps import (
    avg_pool2d,
    avg_pool2d_backward,
    max_pool2d,
    max_pool2d_backward,
)
from backends.numba_kernels.fused_convolution import (
    add_bias_gradient,
    add_tap_products,
    add_to_input,
    conv2d,
    finish,
    lay_out_for_input,
    output_offsets,
    spread,
    tap_offsets,
)
from backends.numba_kernels.losses import loss_and_gradient
from backends.numba_kernels.sparse import (
    add_sparse_outer,
    first_at_least,
    sparse_linear,
)
from backends.numba_kernels.stages import (
    AVG_POOL2D,
    CONV2D,
    LINEAR,
    MAX_POOL2D,
    SPARSE_LINEAR,
    rows_of,
)
from backends.numba_kernels.updates import SGD, update
from backends.numba_kernels.vectors import LANES
from backends.numba_kernels.views import part, table

Array = NDArray[Any]


class Images(NamedTuple):
    """A data set.

    Attributes:
        pixels: (N, pixels) uint8 or floating-point; empty where the lists are used.
        starts: where each image's lists begin, (N + 1,); empty where the pixels are used.
        columns: of the pixels that are not 0, ascending for each image, uint16.
        values: of these pixels, in the type of `pixels`.
        scale: what values are multiplied by.
        shift: what is added then.
    """

    pixels: Array
    starts: Array
    columns: Array
    values: Array
    scale: float
    shift: float


class Workspace(NamedTuple):
    """What threads write to: arrays with a row for each, or the rows of one.

    Attributes:
        capacity: images of a block.
        outputs: of all stages, for a block.
        gradients: of `outputs`.
        padded: images with their borders, for a block.
        masks: tie masks of fused pooling, uint8.
        wide_masks: tie masks of other pooling, int64.
        conv: feature maps of one block of channels of one image.
        start: biases of a block of channels.
        filters: of one convolution, laid out for the gradient of its input.
        dpadded: gradient of an image with its border.
        product: a gradient of weights before it is added to others.
        parameters: gradient of all parameters.
    """

    capacity: int
    outputs: Array
    gradients: Array
    padded: Array
    masks: Array
    wide_masks: Array
    conv: Array
    start: Array
    filters: Array
    dpadded: Array
    product: Array
    parameters: Array


@kernel
def _pad(stage: Any, x: Any, padded: Any, scale: Any, shift: Any) -> None:
    """Copy an image into its border of zeros, and scale and shift its pixels."""
    lanes = stage.in_lanes
    run = stage.width * lanes
    row = (stage.width + 2 * stage.padding) * lanes
    corner = stage.padding * (row + lanes)
    number = padded.dtype.type
    for r in range(stage.height):
        source = part(x, r * run, run)
        target = part(padded, corner + r * row, run)
        for i in range(run):
            target[i] = number(source[i]) * scale + shift


@kernel
def forward(
    stages: Any, packed: Any, images: Any, rows: Any, first: int, count: int, work: Any
) -> None:
    """Take a block of images through all stages.

    Args:
        stages: the table.
        packed: the parameters.
        images: the data set.
        rows: of the data set.
        first: where in `rows` the block begins.
        count: images in the block.
        work: receives the outputs.
    """
    capacity = work.capacity
    number = packed.dtype.type
    for index in range(len(stages)):
        stage = stages[index]
        y = rows_of(work.outputs, stage.y, capacity, count, stage.outputs)
        if stage.kind == SPARSE_LINEAR:
            scale, width = number(images.scale), stage.outputs
            for n in range(count):
                row = rows[first + n]
                begin, end = images.starts[row], images.starts[row + 1]
                sparse_linear(
                    part(y, n * width, width),
                    packed,
                    stage.weight,
                    images.columns,
                    images.values,
                    begin,
                    end,
                )
                for i in range(stage.outputs):
                    y[n, i] *= scale
            if stage.bias >= 0:
                add_bias(y, part(packed, stage.bias, stage.out_channels))
            activate(stage.activation, y)
            clear_filling(y, stage.out_lanes, stage.out_channels)
            continue
        x = rows_of(work.outputs, stage.x, capacity, count, stage.inputs)
        is_first = index == 0
        if is_first and stage.kind != CONV2D:
            scale, shift = number(images.scale), number(images.shift)
            for n in range(count):
                pixels = images.pixels[rows[first + n]]
                for i in range(stage.inputs):
                    x[n, i] = number(pixels[i]) * scale + shift
        if stage.kind == LINEAR:
            linear(x, table(packed, stage.weight, stage.inputs, stage.outputs), y)
            if stage.bias >= 0:
                add_bias(y, part(packed, stage.bias, stage.outputs))
            activate(stage.activation, y)
        elif stage.kind == CONV2D:
            offsets = tap_offsets(stage)
            size = _padded_size(stage)
            for n in range(count):
                at = stage.padded * capacity + n * size
                padded = part(work.padded, at, size)
                if is_first:
                    pixels = images.pixels[rows[first + n]]
                    _pad(stage, pixels, padded, number(images.scale), number(images.shift))
                else:
                    _pad(
                        stage, part(x, n * stage.inputs, stage.inputs), padded, number(1), number(0)
                    )
                at = stage.mask * capacity + n * stage.outputs
                mask = part(work.masks, at, stage.outputs)
                conv2d(
                    stage,
                    padded,
                    packed,
                    offsets,
                    work.start,
                    work.conv,
                    part(y, n * stage.outputs, stage.outputs),
                    mask,
                )
            finish(stage, y)
        elif stage.kind == MAX_POOL2D:
            for n in range(count):
                at = stage.mask * capacity + n * stage.outputs
                max_pool2d(
                    stage,
                    part(x, n * stage.inputs, stage.inputs),
                    part(y, n * stage.outputs, stage.outputs),
                    part(work.wide_masks, at, stage.outputs),
                )
        elif stage.kind == AVG_POOL2D:
            for n in range(count):
                avg_pool2d(
                    stage,
                    part(x, n * stage.inputs, stage.inputs),
                    part(y, n * stage.outputs, stage.outputs),
                )
        else:
            copy(part(x, 0, x.size), part(y, 0, y.size))
            activate(stage.activation, y)
            clear_filling(y, stage.out_lanes, stage.out_channels)


@kernel
def _padded_size(stage: Any) -> Any:
    height = stage.height + 2 * stage.padding
    width = stage.width + 2 * stage.padding
    return height * width * stage.in_lanes


@kernel
def backward(
    stages: Any, packed: Any, count: int, work: Any, adds: bool, deltas: Any, first: int
) -> None:
    """Take the gradient of a block from the logits back to all parameters.

    Args:
        stages: the table.
        packed: the parameters.
        count: images in the block.
        work: holds what `forward` left, and the gradients of the logits; receives the gradients of
            the parameters, but for the weights of a sparse first stage.
        adds: whether gradients are added to those of earlier blocks.
        deltas: receives the gradients of the outputs of a sparse first stage, (batch, outputs).
        first: row of the block in `deltas`.
    """
    capacity = work.capacity
    for back in range(len(stages)):
        index = len(stages) - 1 - back
        stage = stages[index]
        y = rows_of(work.outputs, stage.y, capacity, count, stage.outputs)
        dy = rows_of(work.gradients, stage.y, capacity, count, stage.outputs)
        activate_backward(stage.activation, y, dy)
        if stage.bias >= 0 and stage.kind != CONV2D:
            dbias = part(work.parameters, stage.bias, stage.out_channels)
            linear_backward_bias(dy, dbias, adds)
        if stage.kind == SPARSE_LINEAR:
            copy(part(dy, 0, dy.size), part(deltas, first * stage.outputs, count * stage.outputs))
            continue
        x = rows_of(work.outputs, stage.x, capacity, count, stage.inputs)
        dx = rows_of(work.gradients, stage.x, capacity, count, stage.inputs)
        if stage.kind == LINEAR:
            weight = table(packed, stage.weight, stage.inputs, stage.outputs)
            dweight = table(work.parameters, stage.weight, stage.inputs, stage.outputs)
            linear_backward_weight(x, dy, dweight, work.product, adds)
            if index > 0:
                linear_backward_x(dy, weight, dx)
        elif stage.kind == CONV2D:
            _convolution_backward(stage, packed, count, work, adds, dy, dx, index > 0)
        elif index == 0:
            continue
        elif stage.kind == MAX_POOL2D:
            for n in range(count):
                at = stage.mask * capacity + n * stage.outputs
                max_pool2d_backward(
                    stage,
                    part(dy, n * stage.outputs, stage.outputs),
                    part(work.wide_masks, at, stage.outputs),
                    part(dx, n * stage.inputs, stage.inputs),
                )
        elif stage.kind == AVG_POOL2D:
            for n in range(count):
                avg_pool2d_backward(
                    stage,
                    part(dy, n * stage.outputs, stage.outputs),
                    part(dx, n * stage.inputs, stage.inputs),
                )
        else:
            copy(part(dy, 0, dy.size), part(dx, 0, dx.size))


@kernel
def _convolution_backward(
    stage: Any, packed: Any, count: int, work: Any, adds: bool, dy: Any, dx: Any, need_dx: bool
) -> None:
    capacity = work.capacity
    step = stage.vectors * LANES
    blocks = stage.out_lanes // step
    taps = stage.kernel_size * stage.kernel_size * stage.in_channels
    outputs = output_offsets(stage)
    size = _padded_size(stage)
    if not adds:
        fill(part(work.parameters, stage.weight, blocks * taps * step))
        if stage.bias >= 0:
            fill(part(work.parameters, stage.bias, stage.out_channels))
    if need_dx:
        fill(work.filters)
        lay_out_for_input(stage, packed, work.filters)
    for n in range(count):
        at = stage.padded * capacity + n * size
        padded = part(work.padded, at, size)
        at = stage.mask * capacity + n * stage.outputs
        mask = part(work.masks, at, stage.outputs)
        gradient = part(dy, n * stage.outputs, stage.outputs)
        for block in range(blocks):
            spread(stage, block, gradient, mask, work.conv)
            weight = stage.weight + block * taps * step
            add_tap_products(stage, work.conv, padded, outputs, work.parameters, weight)
        if stage.bias >= 0:
            add_bias_gradient(stage, gradient, mask, work.parameters)
        if need_dx:
            dpadded = part(work.dpadded, 0, size)
            fill(dpadded)
            add_to_input(stage, gradient, mask, work.filters, dpadded)
            _unpad(stage, dpadded, part(dx, n * stage.inputs, stage.inputs))


@kernel
def _unpad(stage: Any, dpadded: Any, dx: Any) -> None:
    """Copy the gradient of an image out of that with its border."""
    run = stage.width * stage.in_lanes
    row = (stage.width + 2 * stage.padding) * stage.in_lanes
    corner = stage.padding * (row + stage.in_lanes)
    for r in range(stage.height):
        copy(part(dpadded, corner + r * row, run), part(dx, r * run, run))


@entry
def run_steps(
    thread: int,
    counter: Any,
    stages: Any,
    loss: int,
    rule: int,
    settings: Any,
    packed: Any,
    state: Any,
    images: Any,
    labels: Any,
    rows: Any,
    bounds: Any,
    rates: Any,
    steps_before: int,
    column_bounds: Any,
    deltas: Any,
    workspaces: Any,
    losses: Any,
    correct: Any,
) -> None:
    """Do the part of one thread in some steps.

    Args:
        thread: its number, from 0.
        counter: where threads meet; 0 at the beginning.
        stages: the table.
        loss: kind of the loss.
        rule: kind of the update.
        settings: of the update.
        packed: the parameters.
        state: of the optimizer, (arrays, parameters).
        images: the data set.
        labels: class indices (N,).
        rows: of the data set, in the order in which they are taken.
        bounds: where in `rows` each step begins and ends, (steps, 2).
        rates: learning rate of each step.
        steps_before: steps that were done before.
        column_bounds: pixels whose weights each thread changes, where the first stage is sparse.
        deltas: scratch for the gradients of a sparse first stage, (batch, outputs).
        workspaces: of all threads.
        losses: receives each thread's sum of losses, (threads, steps).
        correct: receives how many images each thread has recognised, likewise.
    """
    threads = len(workspaces.parameters)
    work = of_thread(workspaces, thread)
    room = workspaces.parameters.shape[1]
    gradient = part(workspaces.parameters, 0, room)  # that of all, when it has been added up
    last = stages[len(stages) - 1]
    first = stages[0]
    is_sparse = first.kind == SPARSE_LINEAR
    dense_from = first.inputs * first.outputs if is_sparse else 0
    dense = len(packed) - dense_from
    # Whole cache lines: no two threads write to the same one.
    share = (dense // LANES // 2 // threads + 1) * LANES * 2
    begin = min(dense_from + thread * share, len(packed))
    end = min(begin + share, len(packed))
    arrivals = 0
    for step in range(len(rates)):
        batch = bounds[step, 1] - bounds[step, 0]
        low = batch * thread // threads
        high = batch * (thread + 1) // threads
        total = 0.0
        hits = 0
        if low == high:
            fill(work.parameters)
        for block in range(low, high, work.capacity):
            count = min(work.capacity, high - block)
            at = bounds[step, 0] + block
            forward(stages, packed, images, rows, at, count, work)
            logits = rows_of(work.outputs, last.y, work.capacity, count, last.outputs)
            dlogits = rows_of(work.gradients, last.y, work.capacity, count, last.outputs)
            loss_sum, recognised = loss_and_gradient(loss, logits, labels, rows, at, batch, dlogits)
            total += loss_sum
            hits += recognised
            backward(stages, packed, count, work, block > low, deltas, block)
        losses[thread, step] = total
        correct[thread, step] = hits
        if threads > 1:
            arrivals += threads
            meet(counter, arrivals)
        number = steps_before + step + 1
        if is_sparse:
            _update_sparse(
                first, rule, settings, rates[step], number, packed, state, images, rows,
                bounds[step, 0], batch, column_bounds[thread], column_bounds[thread + 1], threads,
                deltas, gradient,
            )  # fmt: skip
        for other in range(1, threads):
            add(
                part(workspaces.parameters, other * room + begin, end - begin),
                part(gradient, begin, end - begin),
            )
        update(
            rule,
            settings,
            rates[step],
            number,
            packed,
            gradient,
            state,
            begin,
            end - begin,
        )
        if threads > 1:
            arrivals += threads
            meet(counter, arrivals)


@kernel
def own(rooms: Any, thread: int) -> Any:
    """Return a thread's row of an array."""
    room = rooms.shape[1]
    return part(rooms, thread * room, room)


@kernel
def of_thread(workspaces: Any, thread: int) -> Any:
    """Return the workspace of one thread."""
    return Workspace(
        workspaces.capacity,
        own(workspaces.outputs, thread),
        own(workspaces.gradients, thread),
        own(workspaces.padded, thread),
        own(workspaces.masks, thread),
        own(workspaces.wide_masks, thread),
        own(workspaces.conv, thread),
        own(workspaces.start, thread),
        own(workspaces.filters, thread),
        own(workspaces.dpadded, thread),
        own(workspaces.product, thread),
        own(workspaces.parameters, thread),
    )


@kernel
def _update_sparse(
    stage: Any,
    rule: int,
    settings: Any,
    rate: float,
    step: int,
    packed: Any,
    state: Any,
    images: Any,
    rows: Any,
    first: int,
    batch: int,
    low: int,
    high: int,
    threads: int,
    deltas: Any,
    gradient: Any,
) -> None:
    """Change the weights of the columns `low` to `high` − 1 of a sparse first stage."""
    number = packed.dtype.type
    scale = number(images.scale)
    # A plain step needs no gradient: what would be added there goes straight to the weights.
    is_direct = rule == SGD and settings.weight_decay == 0
    begin, end = low * stage.outputs, high * stage.outputs
    target = packed if is_direct else gradient
    if is_direct:
        scale = -number(rate) * scale
    else:
        fill(part(gradient, begin, end - begin))
    for n in range(batch):
        row = rows[first + n]
        start, stop = images.starts[row], images.starts[row + 1]
        if threads > 1:
            start = first_at_least(images.columns, start, stop, low)
            stop = first_at_least(images.columns, start, stop, high)
        add_sparse_outer(
            target,
            stage.weight,
            images.columns,
            images.values,
            start,
            stop,
            part(deltas, n * stage.outputs, stage.outputs),
            scale,
        )
    if not is_direct:
        update(
            rule,
            settings,
            rate,
            step,
            packed,
            gradient,
            state,
            begin,
            end - begin,
        )
