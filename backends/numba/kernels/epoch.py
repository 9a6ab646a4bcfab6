"""Many training steps in one call: forward, loss, backward and update.

Every thread runs `run_steps`. In each step, it divides its images into tiles, and runs the forward
and the backward pass tile by tile, so that the outputs of a tile are still in the cache when the
backward pass reads them. At a barrier, the threads wait until all gradients are computed. Each
thread then updates its range of the parameters with the sum of the gradients of all threads. A
second barrier ends the step. For a given number of threads, the order of all sums is fixed, so runs
repeat bit for bit.

    gradients of the threads     parameters of a network whose first stage is linear
    thread 0   ▒▒▒▒▒▒▒▒▒▒▒▒      │ weights of the first stage │ all other parameters     │
    thread 1   ▒▒▒▒▒▒▒▒▒▒▒▒      │ thread 0   │ thread 1      │ thread 0   │ thread 1    │
               └─ a row each      divided at inputs            divided at cache lines

The backward pass is linear in the gradient of the logits. So if this gradient is multiplied by −lr,
the backward pass yields the changes of the parameters in an SGD step, and the step has the *linear
form*. A single thread with a single tile then adds the changes directly to the parameters and needs
no buffer for the gradient. With weight decay,

    W − lr·(g + decay·W) = shrink·(W − lr/shrink·g),    shrink = 1 − lr·decay,

so the linear form multiplies the parameters by `shrink` at the end.

Cost per step: the cost of `forward` and `backward` for each image. Each of t threads also sets a
gradient of all parameters to 0, adds 1/t of the t gradients and updates 1/t of the parameters. For
the weights of a linear first stage, it instead computes the gradient of 1/t of the inputs for all
images.
"""

from typing import Any, NamedTuple

from backends.numba.kernels.backward import backward
from backends.numba.kernels.barrier import barrier_wait
from backends.numba.kernels.compilation import call, entry, kernel, stage_kernel
from backends.numba.kernels.dense import pixel_linear_backward
from backends.numba.kernels.elementwise import add
from backends.numba.kernels.forward import forward
from backends.numba.kernels.record import plan_of, results_of, rule_of
from backends.numba.kernels.simd.sparse import scatter_axpy
from backends.numba.kernels.updates import Parameters
from backends.numba.kernels.vector_width import ALIGNMENT
from backends.numba.kernels.views import fill_zero, pointer, pointer_to, view, view_2d
from backends.numba.kernels.workspace import Images, Tile, thread_workspace

# The linear form of a step is used only if `shrink` exceeds this value: the division by a smaller
# number would lose digits.
MIN_SHRINK = 0.5


class TrainingData(NamedTuple):
    """A data set with labels.

    Attributes:
        images: `workspace.Images`.
        labels: class indices (N,); numbers (N, outputs) for a squared error.
        weights: factors of the losses (N,); None for 1.
        edges: first column of each group of the CSR format, and the number of columns.
    """

    images: Any
    labels: Any
    weights: Any
    edges: Any


class Schedule(NamedTuple):
    """The steps of a chunk.

    Attributes:
        rows: image numbers of all steps, in the order of their use.
        bounds: positions in `rows` of the begin and end of each step, (steps, 2).
        rates: learning rate of each step.
        steps_before: number of steps before this chunk.
    """

    rows: Any
    bounds: Any
    rates: Any
    steps_before: int


class Ranges(NamedTuple):
    """The parameters that one thread updates.

    Attributes:
        others: first parameter after the weights of a first stage that reads CSR rows or pixels.
        begin: first of the thread's other parameters.
        end: end of the thread's other parameters.
        input_rows: number of rows of those weights, of each of which the thread updates a part.
        input_stride: length of a row.
        input_begin: first of the thread's weights in a row.
        input_end: end of the thread's weights in a row.
        first_group: first of the thread's column groups of the CSR format.
        end_group: end of the thread's column groups.
    """

    others: int
    begin: int
    end: int
    input_rows: int
    input_stride: int
    input_begin: int
    input_end: int
    first_group: int
    end_group: int


class Step(NamedTuple):
    """A step as one thread computes it.

    Attributes:
        first: position of the batch in `Schedule.rows`.
        batch: number of images in the batch.
        begin: first of the thread's images in the batch.
        end: end of the thread's images.
        factor: factor of the gradient of each image.
        shrink: factor of the parameters after the update, in the linear form of a step.
        is_linear: whether the step is computed in its linear form.
    """

    first: int
    batch: int
    begin: int
    end: int
    factor: float
    shrink: float
    is_linear: bool


@entry
def run_steps(
    thread: int, counter: Any, record: Any, program: Any, data: Any, schedule: Any
) -> None:
    """Run one thread's part of the steps of a chunk.

    The tuples are plain, because Numba looks at the name of each field of a named tuple in every
    call.

    Args:
        thread: number of this thread, from 0.
        counter: counter of the barrier, int64 (1,), initially 0.
        record: of dtype `record.RECORD`, (1,).
        program: the table of stages; the parameters and the state of the optimizer, which change;
            and the buffers of each thread, of dtype `workspace.ADDRESSES`.
        data: the fields of `TrainingData`; its images are a plain tuple, too.
        schedule: the fields of `Schedule`.
    """
    stages, packed, state, workspaces = program
    kind = packed.dtype.type
    images, labels, weights, edges = data
    plan, rule = plan_of(record[0], stages), rule_of(record[0])
    parameters, schedule = Parameters(packed, state), Schedule(*schedule)
    data = TrainingData(Images(*images), labels, weights, edges)
    threads = len(workspaces)
    results = results_of(record[0], threads)
    fill_zero(view(results.losses, thread * record[0].steps, len(schedule.rates)))
    fill_zero(view(results.correct, thread * record[0].steps, len(schedule.rates)))
    work = thread_workspace(workspaces[thread], kind)
    ranges = _ranges(thread, threads, plan, len(packed), data)
    arrivals = 0
    for index in range(len(schedule.rates)):
        step = _step(thread, threads, rule, schedule, index)
        in_place = step.is_linear and threads == 1 and step.batch <= work.capacity
        gradient = packed if in_place else view(work.parameters, 0, len(packed))
        if not in_place:
            fill_zero(view(gradient, ranges.others, len(packed) - ranges.others))
        place = thread, index
        _add_gradients(plan, packed, gradient, data, schedule.rows, step, work, results, place)
        if threads > 1:
            arrivals += threads
            barrier_wait(counter, arrivals)
        total = view(pointer_to(kind, workspaces[0].parameters), 0, len(packed))
        if plan.update_inputs:
            target = packed if step.is_linear else total
            call(
                plan.update_inputs, plan.stages[0], target, data.images, schedule.rows, step,
                ranges, work,
            )  # fmt: skip
        if in_place:
            shrink(packed, ranges.others, len(packed), step.shrink)
            continue
        _add_threads(workspaces, total, ranges)
        if step.is_linear:
            summed = view(total, ranges.begin, ranges.end - ranges.begin)
            add(summed, view(packed, ranges.begin, ranges.end - ranges.begin))
            shrink(packed, ranges.begin, ranges.end, step.shrink)
        else:
            length = ranges.end - ranges.begin
            _update(plan, rule, schedule, parameters, total, ranges.begin, length, results, place)
            for row in range(ranges.input_rows):
                begin, length = _inputs_of_row(ranges, row)
                _update(plan, rule, schedule, parameters, total, begin, length, results, place)
        if threads > 1:
            arrivals += threads
            barrier_wait(counter, arrivals)


@kernel
def _ranges(thread: int, threads: int, plan: Any, size: int, data: Any) -> Any:
    """Return the ranges of the `size` parameters that a thread updates.

    They begin and end at cache lines, so that two threads never write to the same line.
    """
    first = plan.stages[0]
    groups = data.images.groups
    first_group, end_group = groups * thread // threads, groups * (thread + 1) // threads
    rows, row_size, input_begin, input_end = 0, 0, 0, 0
    if plan.update_inputs and groups:  # a row of weights per input, which follow each other
        rows, row_size = 1, first.x_size * first.y_size
        input_begin = data.edges[first_group] * first.y_size
        input_end = data.edges[end_group] * first.y_size
    elif plan.update_inputs:  # a row of weights per output
        rows, row_size = first.out_channels, first.x_size
        lines = -(-row_size // ALIGNMENT)
        input_begin = lines * thread // threads * ALIGNMENT
        input_end = min(lines * (thread + 1) // threads * ALIGNMENT, row_size)
    others = -(-rows * row_size // ALIGNMENT) * ALIGNMENT
    length = ((size - others) // ALIGNMENT // threads + 1) * ALIGNMENT
    return Ranges(
        others,
        min(others + thread * length, size),
        min(others + (thread + 1) * length, size),
        rows,
        row_size,
        input_begin,
        input_end,
        first_group,
        end_group,
    )


@kernel
def _inputs_of_row(ranges: Any, row: int) -> tuple[int, int]:
    """Return the first of a thread's weights in a row of the first stage, and their number."""
    begin = ranges.input_begin + row * ranges.input_stride
    return begin, max(0, ranges.input_end - ranges.input_begin)


@kernel
def _step(thread: int, threads: int, rule: Any, schedule: Any, index: int) -> Any:
    """Return the step number `index` for a thread."""
    first = schedule.bounds[index, 0]
    batch = schedule.bounds[index, 1] - first
    rate = schedule.rates[index]
    shrink = 1 - rate * rule.weight_decay
    is_linear = rule.is_linear and shrink > MIN_SHRINK
    return Step(
        first,
        batch,
        batch * thread // threads,
        batch * (thread + 1) // threads,
        (-rate / shrink if is_linear else 1.0) / batch,
        shrink,
        is_linear,
    )


@kernel
def _add_gradients(
    plan: Any, packed: Any, gradient: Any, data: Any, rows: Any, step: Any, work: Any,
    results: Any, place: Any,
) -> None:  # fmt: skip
    """Add the gradients of a thread's images, and their loss and correct images at `place`."""
    last = plan.stages[len(plan.stages) - 1]
    for begin in range(step.begin, step.end, work.capacity):
        count = min(work.capacity, step.end - begin)
        later = begin + count if begin + count < step.end else step.batch + step.begin
        later = max(0, min(step.first + later, len(rows) - count))
        tile = Tile(rows, step.first + begin, count, later)
        forward(plan, packed, data.images, tile, work)
        call(
            plan.loss, last, data.labels, data.weights, tile, step.factor, work, results,
            place[0], place[1],
        )  # fmt: skip
        backward(plan, packed, gradient, count, work, begin)


@stage_kernel
def update_csr(
    stage: Any, target: Any, images: Any, rows: Any, step: Any, ranges: Any, work: Any
) -> None:
    """Add the gradient of a thread's column groups of a first stage to `target`, from CSR rows.

    In the linear form of a step, `target` is the parameters, otherwise the sum of the gradients.
    """
    _begin_inputs(target, step, ranges)
    scale = target.dtype.type(images.scale)
    width = stage.y_size
    for n in range(step.batch):
        at = rows[step.first + n] * images.groups
        begin, end = images.indptr[at + ranges.first_group], images.indptr[at + ranges.end_group]
        scatter_axpy(
            pointer(target, stage.weight), width, width,
            pointer(images.indices, begin), pointer(images.data, begin), end - begin,
            pointer(work.deltas, n * work.deltas_row), scale,
        )  # fmt: skip
    _end_inputs(target, step, ranges)


@stage_kernel
def update_pixels(
    stage: Any, target: Any, images: Any, rows: Any, step: Any, ranges: Any, work: Any
) -> None:
    """Add the gradient of a thread's inputs of a first stage to `target`, from pixels.

    `target` is the same as in `update_csr`.
    """
    _begin_inputs(target, step, ranges)
    dy = view_2d(work.deltas, 0, step.batch, work.deltas_row)
    pixel_linear_backward(
        images.pixels, pointer(rows, step.first), images.scale, dy, pointer(target, stage.weight),
        stage.out_channels, ranges.input_begin, ranges.input_end,
    )  # fmt: skip
    _end_inputs(target, step, ranges)


@kernel
def _begin_inputs(target: Any, step: Any, ranges: Any) -> None:
    """Set the thread's weights of the first stage to 0 if `target` is the sum of gradients."""
    if not step.is_linear:
        for row in range(ranges.input_rows):
            begin, length = _inputs_of_row(ranges, row)
            fill_zero(view(target, begin, length))


@kernel
def _end_inputs(target: Any, step: Any, ranges: Any) -> None:
    """Shrink the thread's weights of the first stage if `target` is the parameters."""
    if step.is_linear and step.shrink != 1:
        for row in range(ranges.input_rows):
            begin, length = _inputs_of_row(ranges, row)
            shrink(target, begin, begin + length, step.shrink)


@kernel
def _add_threads(workspaces: Any, total: Any, ranges: Any) -> None:
    """Add the gradients of the other threads to `total`, in a thread's range of the parameters."""
    count = ranges.end - ranges.begin
    for thread in range(1, len(workspaces)):
        other = pointer_to(total.dtype.type, workspaces[thread].parameters)
        add(view(other, ranges.begin, count), view(total, ranges.begin, count))


@kernel
def _update(
    plan: Any, rule: Any, schedule: Any, parameters: Any, gradient: Any, begin: int, count: int,
    results: Any, place: Any,
) -> None:  # fmt: skip
    """Update a range of the parameters by its gradient, after adding the L2 penalty to it."""
    thread, index = place
    if plan.add_penalty:
        images = schedule.bounds[index, 1] - schedule.bounds[index, 0]
        call(
            plan.add_penalty, plan.penalty, images, parameters, gradient, begin, count,
            results, thread, index,
        )  # fmt: skip
    rate, number = schedule.rates[index], schedule.steps_before + index + 1
    call(plan.update, rule, rate, number, parameters, gradient, begin, count)


@kernel
def shrink(packed: Any, begin: int, end: int, factor: float) -> None:
    """Multiply a range of the parameters by `factor`."""
    if factor != 1:
        cast = packed.dtype.type(factor)
        weights = view(packed, begin, end - begin)
        for i in range(len(weights)):
            weights[i] *= cast
