"""A program with the addresses of its stage kernels, and the buffers in which it trains."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backends.numba.faster_way import FasterWay
from backends.numba.kernels.record import RECORD, Results
from backends.numba.kernels.stages import Plan
from backends.numba.kernels.updates import Rule
from backends.numba.kernels.workspace import Workspace
from backends.numba.layout import Layout
from backends.numba.memory import (
    aligned_zeros,
    forward_buffers,
    thread_addresses,
    thread_rows,
    whole_lines,
)
from backends.operations.updates import UpdateRule
from backends.program import TrainingProgram

Array = NDArray[Any]


class Linked:
    """A program in the form that the kernels read, with buffers that all chunks use.

    Args:
        program: the program.
        layout: its layout, which depends on whether the images are sparse.
        plan: the program with the addresses of the stage kernels.

    Attributes:
        program: the program.
        layout: its layout.
        plan: the plan.
        packed: the parameters, (size,).
        state: the arrays of the optimizer, (arrays, size).
        vectors: `packed` and the rows of `state`.
        counter: counter of the barrier.
        record: of dtype `kernels.record.RECORD`, (1,).
        results: buffers of the results of a chunk.
        workspace: the other buffers of all threads; None before the first chunk.
        faster: measurements of small batches, by threads and batch size.
    """

    def __init__(self, program: TrainingProgram, layout: Layout, plan: Plan) -> None:
        self.program, self.layout, self.plan = program, layout, plan
        states = len(program.update.state_names)
        self.packed = aligned_zeros((layout.packed_size,), program.dtype)
        self.state = aligned_zeros((states, layout.packed_size), program.dtype)
        self.vectors = [self.packed, *self.state]
        self._inputs = int(layout.stages[0]["x_size"])
        self.counter = aligned_zeros((whole_lines(1, np.int64),), np.int64)
        self.record = _record(plan, rule_of(program))
        self.results = Results(np.zeros((0, 0)), np.zeros((0, 0), np.int64))
        self.workspace: Workspace | None = None
        self.faster: dict[tuple[int, int], FasterWay] = {}
        self._arguments: tuple[Array, ...] = ()
        # `_arguments` were made for this number of threads, whether these exchange products, and
        # this number of images per step.
        self._kind, self._batch_size = (0, False), 0

    def prepare(self, threads: int, batch_size: int, steps: int) -> tuple[Array, ...]:
        """Return the argument `program` of `kernels.epoch.run_steps`.

        Args:
            threads: number of threads.
            batch_size: images per step.
            steps: number of steps, for which `results` will have enough columns.
        """
        if len(self.results.losses) != threads or self.results.losses.shape[1] < steps:
            self._set_results(threads, steps)
        # Threads exchange either products of the batch or weights, whichever is less.
        exchanges_products = threads > 1 and batch_size <= self._inputs
        kind = threads, exchanges_products
        if kind != self._kind or batch_size > self._batch_size:  # smaller batches use the same
            self._batch_size = 0  # until all is complete
            self.workspace = self._new_workspace(threads, batch_size, exchanges_products)
            addresses = thread_addresses(self.workspace)
            states = np.array([state.ctypes.data for state in self.state], np.uint64)
            self._arguments = self.plan.stages, self.packed, states, addresses
            self._kind, self._batch_size = kind, batch_size
        return self._arguments

    def clear(self) -> None:
        """Set the parameters and the state to 0, also in the unused lanes, which no copy sets."""
        for vector in self.vectors:
            vector.fill(0)

    def _set_results(self, threads: int, steps: int) -> None:
        """Make new buffers of results; the row of a thread may have unused elements."""
        shape = threads, whole_lines(steps, np.float64)
        results = Results(aligned_zeros(shape, np.float64), aligned_zeros(shape, np.int64))
        record = self.record.copy()
        record["losses"] = results.losses.ctypes.data
        record["correct"] = results.correct.ctypes.data
        record["steps"] = shape[1]
        # Together, so that Ctrl-C cannot leave the addresses of arrays that no longer exist.
        self.results, self.record = results, record

    def _new_workspace(self, threads: int, batch_size: int, exchanges_products: bool) -> Workspace:
        """Return new buffers of all threads."""
        sizes, dtype = self.layout.sizes, self.program.dtype
        buffers = forward_buffers(sizes, threads, math.ceil(batch_size / threads), dtype)
        first = self.layout.stages[0]
        outputs = int(first["y_size"]) if self.plan.update_inputs else 0
        deltas_row = whole_lines(outputs, dtype)
        products_row = whole_lines(batch_size * outputs, dtype) if exchanges_products else 0
        return Workspace(
            **buffers,
            gradients=thread_rows(threads, buffers["capacity"] * sizes["outputs"], dtype),
            conv=thread_rows(threads, sizes["conv"], dtype),
            filters=thread_rows(threads, sizes["filters"], dtype),
            dfilters=thread_rows(threads, sizes["dfilters"], dtype),
            places=thread_rows(threads, sizes["places"], np.uint64),
            dpadded=thread_rows(threads, sizes["dpadded"], dtype),
            parameters=thread_rows(threads, self.layout.packed_size, dtype),
            deltas=aligned_zeros((batch_size, deltas_row), dtype),
            deltas_row=deltas_row,
            products=aligned_zeros((threads, products_row), dtype),
            products_row=products_row,
            threads=threads,
        )


def rule_of(program: TrainingProgram) -> Rule:
    """Return the settings of the optimizer in the form that the kernels read."""
    rule = program.update
    return settings_of(rule, is_linear=rule.kind == "sgd" and not program.l2)


def smallest_eps(rule: UpdateRule, dtype: Any) -> float:
    """Return the smallest `eps` of an optimizer with which lost denormals do not matter.

    Kernels count a squared gradient as 0 if its share of the mean of squares is denormal. The
    square root of that share must be small against `eps`.
    """
    share = 1 - rule.settings.get("beta2", rule.settings.get("decay", 0))
    return math.sqrt(np.finfo(dtype).tiny / share)


def eps_is_too_small(rule: UpdateRule, dtype: Any) -> bool:
    """Return whether an optimizer has an `eps` below `smallest_eps`."""
    eps = rule.settings.get("eps")
    return eps is not None and eps < smallest_eps(rule, dtype)


def settings_of(rule: UpdateRule, *, is_linear: bool) -> Rule:
    """Return the settings of an optimizer in the form that the kernels read."""
    settings = {name: float(rule.settings.get(name, 0)) for name in Rule._fields[1:]}
    return Rule(is_linear=is_linear, **settings)


def _record(plan: Plan, rule: Rule) -> Array:
    """Return a record of a plan and the settings of an optimizer; it has no results yet."""
    record = np.zeros(1, RECORD)
    names = RECORD.names or ()
    fields = {
        **plan._asdict(),
        **plan.penalty._asdict(),
        **rule._asdict(),
        "offset_count": len(plan.offsets),
        "layers": len(plan.penalty.weights),
    }
    for name, value in fields.items():
        if name in names:
            record[name] = value.ctypes.data if isinstance(value, np.ndarray) else value
    return record
