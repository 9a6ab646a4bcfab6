"""Many training steps in one call: forward, loss, backward and update.

Every thread calls `run_steps`. In each step, it divides its images into tiles, and runs the forward
and the backward pass tile by tile, so that the outputs of a tile are still in the cache when the
backward pass reads them. At a barrier, the threads wait until all gradients are computed. Each
thread then updates its range of the parameters with the sum of the gradients of all threads. At a
second barrier, before the next step, they wait until all parameters are updated. For a given number
of threads, the order of all sums is fixed, so runs repeat bit for bit. In a short chunk, and where
it is faster, one thread computes the parts of all threads one after the other, with the same bits.

    gradients of the threads     parameters of a network whose first stage is linear
    thread 0   ▒▒▒▒▒▒▒▒▒▒▒▒      │ weights of the first stage │ all other parameters     │
    thread 1   ▒▒▒▒▒▒▒▒▒▒▒▒      │ thread 0   │ thread 1      │ thread 0   │ thread 1    │
               └─ a row each      divided at inputs            divided at cache lines

A first stage that reads CSR rows or pixels has most of the parameters. If each thread multiplied
its images by all weights of this stage, each step would move weights from the cache of the thread
that updates them to the caches of the others. In small batches, each thread therefore multiplies
all images of the batch by its own weights, before the second barrier. The threads exchange only
these products, and add them up for their images.

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
from backends.numba.kernels.compilation import call, entry, kernel
from backends.numba.kernels.denormals import flush_denormals, restore_denormals
from backends.numba.kernels.elementwise import add, shrink
from backends.numba.kernels.forward import forward
from backends.numba.kernels.input_layer import add_products, scale_and_add_bias
from backends.numba.kernels.record import plan_of, results_of, rule_of
from backends.numba.kernels.stages import outputs_of
from backends.numba.kernels.updates import Parameters
from backends.numba.kernels.vector_width import ALIGNMENT
from backends.numba.kernels.views import fill_zero, pointer, pointer_to, view
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
    """

    images: Any
    labels: Any
    weights: Any


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
        input_begin: first of the thread's weights of that stage.
        input_end: end of these weights.
        first_input: first of the inputs that are multiplied by them.
        end_input: end of these inputs.
        first_group: first column group of these inputs in the CSR format.
        end_group: end of these column groups.
    """

    others: int
    begin: int
    end: int
    input_begin: int
    input_end: int
    first_input: int
    end_input: int
    first_group: int
    end_group: int


class Step(NamedTuple):
    """A step.

    Attributes:
        first: position of the batch in `Schedule.rows`.
        batch: number of images in the batch.
        factor: factor of the gradient of each image.
        shrink: factor of the parameters after the update, in the linear form of a step.
        is_linear: whether the step is computed in its linear form.
    """

    first: int
    batch: int
    factor: float
    shrink: float
    is_linear: bool


@entry
def run_steps(
    first: int, end: int, counter: Any, record: Any, program: Any, data: Any, schedule: Any
) -> None:
    """Run the steps of a chunk: one thread's part of each step, or the parts of all threads.

    The tuples are plain, because Numba looks at the name of each field of a named tuple in every
    call.

    Args:
        first: number of the first of these threads, from 0.
        end: number of the last plus 1.
        counter: counter of the barrier, int64 (1,), initially 0.
        record: of dtype `record.RECORD`, (1,).
        program: the table of stages; the parameters, which change; the addresses of the state
            arrays of the optimizer, which also change; and the buffers of each thread, of dtype
            `workspace.ADDRESSES`.
        data: the fields of `TrainingData`; its images are a plain tuple, too.
        schedule: the fields of `Schedule`.
    """
    mode = flush_denormals()
    stages, packed, states, workspaces = program
    images, labels, weights = data
    plan, rule = plan_of(record[0], stages), rule_of(record[0])
    parameters, schedule = Parameters(packed, states), Schedule(*schedule)
    data = TrainingData(Images(*images), labels, weights)
    results = results_of(record[0], len(workspaces))
    for thread in range(first, end):
        fill_zero(view(results.losses, thread * record[0].steps, len(schedule.rates)))
        fill_zero(view(results.correct, thread * record[0].steps, len(schedule.rates)))
    calls = len(workspaces) // (end - first)  # of this function, which run at the same time
    arrivals = 0
    for index in range(len(schedule.rates)):
        step = _step(rule, schedule, index)
        for thread in range(first, end):
            _multiply(plan, packed, data, schedule.rows, step, workspaces, thread)
        if calls > 1:
            arrivals += calls
            barrier_wait(counter, arrivals)
        for thread in range(first, end):
            place = thread, index
            _set_gradient(plan, packed, data, schedule.rows, step, workspaces, results, place)
        if calls > 1:
            arrivals += calls
            barrier_wait(counter, arrivals)
        for thread in range(first, end):
            place = thread, index
            _update(plan, rule, schedule, parameters, data, step, workspaces, results, place)
    restore_denormals(mode)
    if calls > 1:
        barrier_wait(counter, arrivals + calls)


@kernel
def _set_gradient(
    plan: Any, packed: Any, data: Any, rows: Any, step: Any, workspaces: Any, results: Any,
    place: Any,
) -> None:  # fmt: skip
    """Set the gradient of a thread's images, and their loss and correct images at `place`."""
    thread, threads = place[0], len(workspaces)
    work = thread_workspace(workspaces[thread], packed.dtype.type)
    gradient = packed
    if not _is_in_place(step, workspaces):
        gradient = view(work.parameters, 0, len(packed))
        others = _ranges(thread, threads, plan, len(packed), data).others
        fill_zero(view(gradient, others, len(packed) - others))
    images = step.batch * thread // threads, step.batch * (thread + 1) // threads
    _add_gradients(plan, packed, gradient, data, rows, step, images, work, results, place)


@kernel
def _is_in_place(step: Any, workspaces: Any) -> bool:
    """Return whether the gradient is added to the parameters directly."""
    is_tile: bool = step.batch <= workspaces[0].capacity
    return step.is_linear and len(workspaces) == 1 and is_tile


@kernel
def _update(
    plan: Any, rule: Any, schedule: Any, parameters: Any, data: Any, step: Any, workspaces: Any,
    results: Any, place: Any,
) -> None:  # fmt: skip
    """Add the gradients of all threads, and update a thread's ranges of the parameters."""
    packed, thread = parameters.packed, place[0]
    kind = packed.dtype.type
    work = thread_workspace(workspaces[thread], kind)
    ranges = _ranges(thread, len(workspaces), plan, len(packed), data)
    total = view(pointer_to(kind, workspaces[0].parameters), 0, len(packed))
    if plan.update_inputs:
        target = packed if step.is_linear else total
        call(
            plan.update_inputs, plan.stages[0], target, data.images, schedule.rows, step,
            ranges, work,
        )  # fmt: skip
    if _is_in_place(step, workspaces):
        shrink(packed, ranges.others, len(packed), step.shrink)
        return
    _add_threads(workspaces, total, ranges)
    length = ranges.end - ranges.begin
    if step.is_linear:
        add(view(total, ranges.begin, length), view(packed, ranges.begin, length))
        shrink(packed, ranges.begin, ranges.end, step.shrink)
    else:
        _apply_rule(plan, rule, schedule, parameters, total, ranges.begin, length, results, place)
        begin, length = ranges.input_begin, ranges.input_end - ranges.input_begin
        _apply_rule(plan, rule, schedule, parameters, total, begin, length, results, place)


@kernel
def _ranges(thread: int, threads: int, plan: Any, size: int, data: Any) -> Any:
    """Return the ranges of the `size` parameters that a thread updates.

    They begin and end at cache lines, so that two threads never write to the same line.
    """
    first = plan.stages[0]
    groups = data.images.groups
    first_group, end_group = groups * thread // threads, groups * (thread + 1) // threads
    first_input, end_input, outputs = 0, 0, 0
    if plan.update_inputs and groups:
        edges = data.images.edges
        first_input, end_input = edges[first_group], edges[end_group]
        outputs = first.y_size
    elif plan.update_inputs:
        lines = -(-first.x_size // ALIGNMENT)
        first_input = lines * thread // threads * ALIGNMENT
        end_input = min(lines * (thread + 1) // threads * ALIGNMENT, first.x_size)
        outputs = first.out_channels
    others = -(-first.x_size * outputs // ALIGNMENT) * ALIGNMENT
    length = ((size - others) // ALIGNMENT // threads + 1) * ALIGNMENT
    return Ranges(
        others,
        min(others + thread * length, size),
        min(others + (thread + 1) * length, size),
        first_input * outputs,
        end_input * outputs,
        first_input,
        end_input,
        first_group,
        end_group,
    )


@kernel
def _step(rule: Any, schedule: Any, index: int) -> Any:
    """Return the step number `index`."""
    first = schedule.bounds[index, 0]
    batch = schedule.bounds[index, 1] - first
    rate = schedule.rates[index]
    shrink = 1 - rate * rule.weight_decay
    is_linear = rule.is_linear and shrink > MIN_SHRINK
    return Step(
        first,
        batch,
        (-rate / shrink if is_linear else 1.0) / batch,
        shrink,
        is_linear,
    )


@kernel
def _multiply(
    plan: Any, packed: Any, data: Any, rows: Any, step: Any, workspaces: Any, thread: int
) -> None:
    """Set a thread's products of all images of the batch and its weights of the first stage.

    Do nothing unless threads exchange products.
    """
    work = thread_workspace(workspaces[thread], packed.dtype.type)
    if not work.products_row:
        return
    ranges = _ranges(thread, len(workspaces), plan, len(packed), data)
    later = max(0, min(step.first + step.batch, len(rows) - step.batch))
    batch = Tile(rows, step.first, step.batch, later)
    products = pointer(work.products, thread * work.products_row)
    call(plan.multiply_inputs, plan.stages[0], packed, data.images, batch, ranges, products)


@kernel
def _add_gradients(
    plan: Any, packed: Any, gradient: Any, data: Any, rows: Any, step: Any, images: Any,
    work: Any, results: Any, place: Any,
) -> None:  # fmt: skip
    """Add the gradients of a thread's images, and their loss and correct images at `place`.

    The images are `images[0]` … `images[1]` − 1 of the batch.
    """
    last = plan.stages[len(plan.stages) - 1]
    first, end = images
    for begin in range(first, end, work.capacity):
        count = min(work.capacity, end - begin)
        later = begin + count if begin + count < end else step.batch + first
        later = max(0, min(step.first + later, len(rows) - count))
        tile = Tile(rows, step.first + begin, count, later)
        _read(plan, packed, data, tile, begin, work)
        forward(plan, packed, work, count)
        call(
            plan.loss, last, data.labels, data.weights, tile, step.factor, work, results,
            place[0], place[1],
        )  # fmt: skip
        backward(plan, packed, gradient, count, work, begin)


@kernel
def _read(plan: Any, packed: Any, data: Any, tile: Any, begin: int, work: Any) -> None:
    """Set what `forward` reads for a tile, which begins at image number `begin` of the batch."""
    first = plan.stages[0]
    if plan.multiply_inputs:
        y = outputs_of(first, work.outputs, work, tile.images)
        if work.products_row:
            add_products(work, begin, y)
        else:
            every = _ranges(0, 1, plan, len(packed), data)
            call(plan.multiply_inputs, first, packed, data.images, tile, every, pointer(y, 0))
        scale_and_add_bias(first, packed, data.images, y)
    else:
        call(plan.read, first, packed, data.images, tile, work)


@kernel
def _add_threads(workspaces: Any, total: Any, ranges: Any) -> None:
    """Add the gradients of the other threads to `total`, in a thread's range of the parameters."""
    count = ranges.end - ranges.begin
    for thread in range(1, len(workspaces)):
        other = pointer_to(total.dtype.type, workspaces[thread].parameters)
        add(view(other, ranges.begin, count), view(total, ranges.begin, count))


@kernel
def _apply_rule(
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
