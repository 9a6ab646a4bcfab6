"""The arguments of a compiled training that rarely change, as one record of numbers and addresses.

Numba checks the type of each argument in every call, and converts each array: a tenth of a
microsecond per array. So Python passes one record in place of these arguments, and the functions
here make named tuples of it.
"""

from typing import Any, NamedTuple

import numpy as np

from backends.numba.kernels.compilation import array_kernel, kernel
from backends.numba.kernels.stages import Penalty, Plan
from backends.numba.kernels.updates import Rule
from backends.numba.kernels.views import pointer_to, view, view_2d

RECORD = np.dtype(
    [
        (name, np.int64)
        for name in (
            # `stages.Plan`, without the table of stages. Arrays are addresses.
            "offsets",
            "offset_count",
            "read",
            "loss",
            "update",
            "multiply_inputs",
            "update_inputs",
            "add_penalty",
            "weights",
            "layers",
            "is_linear",
            # `Results`: addresses, and the length of a row.
            "losses",
            "correct",
            "steps",
        )
    ]
    + [(name, np.float64) for name in ("l2", *Rule._fields[1:])],
    align=True,
)


class Results(NamedTuple):
    """Results of a chunk.

    Attributes:
        losses: sum of the losses of each thread's images, (threads, steps).
        correct: number of each thread's correct images, (threads, steps).
    """

    losses: Any
    correct: Any


@array_kernel
def plan_of(record: Any, stages: Any) -> Any:
    """Return the `Plan` of a record and a table of stages."""
    return Plan(
        stages,
        view(pointer_to(np.uint64, record.offsets), 0, record.offset_count),
        record.read,
        record.loss,
        record.update,
        record.multiply_inputs,
        record.update_inputs,
        record.add_penalty,
        Penalty(view_2d(pointer_to(np.int64, record.weights), 0, record.layers, 2), record.l2),
    )


@kernel
def rule_of(record: Any) -> Any:
    """Return the `Rule` of a record."""
    return Rule(
        record.is_linear != 0,
        record.weight_decay,
        record.momentum,
        record.nesterov,
        record.decay,
        record.beta1,
        record.beta2,
        record.eps,
        record.decoupled,
    )


@array_kernel
def results_of(record: Any, threads: int) -> Any:
    """Return the `Results` of a record."""
    return Results(
        view_2d(pointer_to(np.float64, record.losses), 0, threads, record.steps),
        view_2d(pointer_to(np.int64, record.correct), 0, threads, record.steps),
    )
