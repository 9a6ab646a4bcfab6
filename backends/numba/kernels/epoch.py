"""A whole epoch in one call: gather, forward, loss, backward and update, step after step.

Every thread runs `run_steps`. Within a step it takes a share of the batch through the network,
block by block, so that what a block leaves behind is still in the cache when the gradients come
back. Then the threads meet, each changes its own part of the parameters by what all have found, and
they meet again. With a given number of threads the sums are made in one order, so runs repeat to
the bit.

A plain step of gradient descent is linear: if the gradient of the loss is multiplied by −lr, what
comes back to the parameters is what is to be added to them. One thread with one block adds it there
at once, and has no gradient to fill, to add up, or to read again. With weight decay,

    W − lr·(g + decay·W) = shrink·(W − lr/shrink·g),    shrink = 1 − lr·decay,

the parameters are multiplied by `shrink` afterwards. A number beside the weights of a sparse first
stage would save a pass over those that no image of a batch touches; but it would have to be folded
into them where a chunk of steps ends, and the clock decides where that is.

The gradients of all threads lie in rows of one array, like the parameters; row 0 becomes their sum.
Of that, of the parameters and of the optimizer's state each thread has a share of whole cache
lines, of a sparse first stage the rows of its columns.

Cost per step: that of `forward` and `backward` for each image. Then each of t threads fills a
gradient of all parameters, adds up a t-th of t gradients and updates a t-th of the parameters, and
they meet twice, for as long as the slowest takes; a step on the way has none of this. Of a sparse
first stage each thread takes a t-th of the columns of all images.
"""

from typing import Any

from backends.numba.kernels.backward import backward
from backends.numba.kernels.barrier import meet
from backends.numba.kernels.compilation import entry, inlined_kernel
from backends.numba.kernels.elementwise import add, multiply
from backends.numba.kernels.forward import forward
from backends.numba.kernels.losses import loss_and_gradient
from backends.numba.kernels.sparse import add_sparse_outer
from backends.numba.kernels.stages import SPARSE_LINEAR, rows_of
from backends.numba.kernels.updates import SGD, update
from backends.numba.kernels.vectors import LANES
from backends.numba.kernels.views import fill, part
from backends.numba.kernels.workspace import of_thread

# Less of the parameters than this is not left by weight decay where a step is taken on the way:
# dividing by it would cost digits.
SMALLEST_SHRINK = 0.5


@entry
def run_steps(
    thread: int,
    counter: Any,
    plan: Any,
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
    edges: Any,
    deltas: Any,
    workspaces: Any,
    losses: Any,
    correct: Any,
) -> None:
    """Do the part of one thread in some steps.

    Args:
        thread: its number, from 0.
        counter: where threads meet; 0 at the beginning.
        plan: the stages.
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
        edges: columns at which the groups of the lists begin, and where the last ends.
        deltas: scratch for the gradients of a sparse first stage, a row of whole cache lines for
            each image of a batch.
        workspaces: of all threads.
        losses: receives each thread's sum of losses, (threads, steps).
        correct: receives how many images each thread has recognised, likewise.
    """
    threads = len(workspaces.parameters)
    work = of_thread(workspaces, thread)
    room = workspaces.parameters.shape[1]
    summed = part(workspaces.parameters, 0, room)  # the gradient of all, when it has been added up
    last = plan.stages[len(plan.stages) - 1]
    first = plan.stages[0]
    is_sparse = first.kind == SPARSE_LINEAR
    # Whole cache lines: no two threads write to the same one.
    line = 2 * LANES
    dense_from = (first.inputs * first.outputs + line - 1) // line * line if is_sparse else 0
    dense = len(packed) - dense_from
    share = (dense // line // threads + 1) * line
    begin = min(dense_from + thread * share, len(packed))
    end = min(begin + share, len(packed))
    # Of a sparse first stage a thread changes the weights that belong to some groups of columns.
    low_group = images.groups * thread // threads
    high_group = images.groups * (thread + 1) // threads
    from_, to = edges[low_group] * first.outputs, edges[high_group] * first.outputs
    number = packed.dtype.type
    arrivals = 0
    for step in range(len(rates)):
        batch = bounds[step, 1] - bounds[step, 0]
        low = batch * thread // threads
        high = batch * (thread + 1) // threads
        shrink = 1 - rates[step] * settings.weight_decay
        is_plain = rule == SGD and shrink > SMALLEST_SHRINK
        is_direct = is_plain and threads == 1 and batch <= work.capacity
        gradient = packed if is_direct else work.parameters
        if not is_direct:
            fill(part(gradient, dense_from, dense))
        factor = number((-rates[step] / shrink if is_plain else 1.0) / batch)
        total = 0.0
        hits = 0
        for block in range(low, high, work.capacity):
            count = min(work.capacity, high - block)
            at = bounds[step, 0] + block
            forward(plan, packed, images, rows, at, count, work)
            logits = rows_of(work.outputs, last.y, work.capacity, count, last.outputs)
            dlogits = rows_of(work.gradients, last.y, work.capacity, count, last.outputs)
            loss_sum, recognised = loss_and_gradient(
                loss, logits, plan.classes, labels, rows, at, factor, dlogits
            )
            total += loss_sum
            hits += recognised
            backward(plan, packed, gradient, count, work, deltas, block)
        losses[thread, step] = total
        correct[thread, step] = hits
        if threads > 1:
            arrivals += threads
            meet(counter, arrivals)
        done = steps_before + step + 1
        if is_sparse:
            target = packed if is_plain else summed
            if not is_plain:
                fill(part(summed, from_, to - from_))
            at, scale = bounds[step, 0], number(images.scale)
            _add_sparse(
                first, images, rows, at, batch, low_group, high_group, deltas, scale, target
            )
            if is_plain and shrink != 1:
                multiply(part(packed, from_, to - from_), number(shrink))
        if is_direct:
            if shrink != 1:
                multiply(part(packed, dense_from, dense), number(shrink))
            continue
        for other in range(1, threads):
            add(
                part(workspaces.parameters, other * room + begin, end - begin),
                part(summed, begin, end - begin),
            )
        if is_plain:
            add(part(summed, begin, end - begin), part(packed, begin, end - begin))
            if shrink != 1:
                multiply(part(packed, begin, end - begin), number(shrink))
        else:
            for at, count in ((begin, end - begin), (from_, to - from_)):
                update(rule, settings, rates[step], done, packed, summed, state, at, count)
        if threads > 1:
            arrivals += threads
            meet(counter, arrivals)


@inlined_kernel
def _add_sparse(
    stage: Any,
    images: Any,
    rows: Any,
    first: int,
    batch: int,
    low: int,
    high: int,
    deltas: Any,
    scale: Any,
    gradient: Any,
) -> None:
    """Add a batch, times `scale`, to the gradient of a sparse first stage in some groups."""
    for n in range(batch):
        at = rows[first + n] * images.groups
        add_sparse_outer(
            gradient, stage.weight, images.columns, images.values,
            images.starts[at + low], images.starts[at + high],
            part(deltas, n * deltas.shape[1], stage.outputs), scale,
        )  # fmt: skip
