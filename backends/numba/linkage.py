"""The stage kernels that a program needs, compiled and entered into its table of stages.

Compiled code calls a stage kernel through its address (see `kernels.compilation`). So only the
kernels for the kinds of stages, the loss and the optimizer of a program are compiled, each one
once, for all programs of the same dtype.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numba
import numpy as np

from backends.compilation import needed_kernels
from backends.numba.kernels import (
    backward,
    epoch,
    forward,
    inference,
    input_layer,
    losses,
    penalty,
    reading,
    updates,
)
from backends.numba.kernels.compilation import StageKernel, for_arguments
from backends.numba.kernels.fused_convolution import has_direct_gradient
from backends.numba.kernels.record import Results
from backends.numba.kernels.stages import STAGE, Penalty, Plan
from backends.numba.kernels.workspace import Images, Tile, Workspace
from backends.numba.layout import Layout, reads_input
from backends.program import Program, TrainingProgram

types: Any = numba.types  # without annotations

_STAGE = numba.from_dtype(STAGE)
_OFFSETS = types.Array(types.uint64, 1, "C")
_ROWS = types.Array(types.int64, 1, "C")
_TILE = types.NamedTuple([_ROWS, *[types.intp] * 3], Tile)
_RANGES = types.NamedTuple([types.intp] * len(epoch.Ranges._fields), epoch.Ranges)
_STEP = types.NamedTuple(
    [types.intp, types.intp, types.float64, types.float64, types.boolean], epoch.Step
)
_RESULTS = types.NamedTuple(
    [types.Array(types.float64, 2, "C"), types.Array(types.int64, 2, "C")], Results
)
_PENALTY = types.NamedTuple([types.Array(types.int64, 2, "C"), types.float64], Penalty)


class TrainingKernels(NamedTuple):
    """The stage kernels that a training needs.

    Attributes:
        forwards: for each stage the kernel of its outputs; None if `multiply_inputs` computes them.
        backwards: for each stage the kernel of its gradients.
        others: by the field of `Plan` for the address.
    """

    forwards: list[StageKernel | None]
    backwards: list[StageKernel]
    others: dict[str, StageKernel]

    def in_use(self) -> Iterator[StageKernel]:
        """Return the kernels; those that take longest to compile are first."""
        kernels = [*self.backwards, *self.forwards, *self.others.values()]
        return filter(None, dict.fromkeys(kernels))


def training_kernels(
    program: TrainingProgram,
    layout: Layout,
    data: epoch.TrainingData,
    rule: Any,
    *,
    is_sparse: bool,
) -> TrainingKernels:
    """Return the stage kernels that a training needs.

    Args:
        program: network, loss and optimizer.
        layout: its layout.
        data: a data set with the types of the one to train on.
        rule: settings of the optimizer, `updates.Rule`.
        is_sparse: whether the first stage takes CSR input.
    """
    reads = reads_input(program)
    kinds = [stage.kind for stage in program.stages]
    if reads:
        kinds[0] = "input_linear"  # `multiply_inputs` computes its outputs
    forwards = [None if name == "input_linear" else getattr(forward, name) for name in kinds]
    vector, work = _vector(program), _workspace(program)
    parameters = types.NamedTuple([vector, _OFFSETS], updates.Parameters)
    others = {
        "loss": for_arguments(
            losses.KERNELS[program.loss],
            *(_STAGE, data.labels, data.weights, _TILE, 0.0, work, _RESULTS, 0, 0),
        ),
        "update": update_kernel(program.update.kind, rule, np.dtype(program.dtype)),
    }
    if reads:
        multiply, update = _input_kernels(is_sparse=is_sparse)
        others["multiply_inputs"] = for_arguments(
            multiply, _STAGE, vector, data.images, _TILE, _RANGES, types.CPointer(vector.dtype)
        )
        others["update_inputs"] = for_arguments(
            update, _STAGE, vector, data.images, _ROWS, _STEP, _RANGES, work
        )
    else:
        others["read"] = for_arguments(
            _reading_kernel(program), _STAGE, vector, data.images, _TILE, work
        )
    if program.l2:
        others["add_penalty"] = for_arguments(
            penalty.add_penalty, _PENALTY, 0, parameters, vector, 0, 0, _RESULTS, 0, 0
        )
    return TrainingKernels(
        forwards=[_forward_kernel(to, vector, work) for to in forwards],
        backwards=[
            for_arguments(_backward_kernel(name, row), _STAGE, _OFFSETS, vector, vector, work, 0, 0)
            for name, row in zip(kinds, layout.stages, strict=True)
        ],
        others=others,
    )


def update_kernel(kind: str, rule: updates.Rule, dtype: np.dtype[Any]) -> StageKernel:
    """Return the stage kernel of an update rule.

    Args:
        kind: key of `updates.KERNELS`.
        rule: settings of the optimizer.
        dtype: dtype of the parameters.
    """
    vector = types.Array(numba.from_dtype(dtype), 1, "C")
    parameters = types.NamedTuple([vector, _OFFSETS], updates.Parameters)
    return for_arguments(updates.KERNELS[kind], rule, 0.0, 0, parameters, vector, 0, 0)


def unlinked_plan(program: TrainingProgram, layout: Layout) -> Plan:
    """Return the program for `epoch.run_steps` without addresses, so it can run no step."""
    return Plan(
        stages=layout.stages,
        offsets=layout.offsets,
        read=0,
        loss=0,
        update=0,
        multiply_inputs=0,
        update_inputs=0,
        add_penalty=0,
        penalty=Penalty(layout.weights, program.l2),
    )


def link_training(plan: Plan, kernels: TrainingKernels) -> Plan:
    """Return the program for `epoch.run_steps`; compile the stage kernels if necessary.

    The addresses of `forwards` and `backwards` are entered into `plan.stages`.
    """
    for row, to, back in zip(plan.stages, kernels.forwards, kernels.backwards, strict=True):
        row["forward"] = _address(to)
        row["backward"] = back.address()
    return plan._replace(**{name: kernel.address() for name, kernel in kernels.others.items()})


def link_inference(program: Program, layout: Layout, pixels: np.dtype[Any]) -> int:
    """Compile the stage kernels for predictions; return the address of the one that reads images.

    Args:
        program: network and loss.
        layout: its layout; the addresses are entered into `layout.stages`.
        pixels: dtype of the pixels.
    """
    forwards = [None if s.kind == "linear" else getattr(forward, s.kind) for s in program.stages]
    read = None if forwards[0] is None else _reading_kernel(program)
    _record([*forwards, read, inference.predict])
    vector, work = _vector(program), _workspace(program)
    for row, to in zip(layout.stages, forwards, strict=True):
        row["forward"] = _address(_forward_kernel(to, vector, work))
    pixel_array = types.Array(numba.from_dtype(pixels), 2, "C", readonly=True)
    numbers = [types.intp] * 5 + [types.float64] * 2
    images = types.NamedTuple([pixel_array, *numbers], Images)
    return _address(read and for_arguments(read, _STAGE, vector, images, _TILE, work))


def _record(kernels: list[Any]) -> None:
    """Record the kernels that a program needs, for progress displays; None is skipped."""
    needed_kernels.extend(kernel.__name__ for kernel in dict.fromkeys(kernels) if kernel)


def _forward_kernel(function: Any, vector: Any, work: Any) -> StageKernel | None:
    """Return a kernel of `forward`; None for None."""
    return function and for_arguments(function, _STAGE, _OFFSETS, vector, work, 0)


def _backward_kernel(name: str, stage: Any) -> Any:
    """Return the kernel of `backward` for a kind of stage and a row of the table of stages."""
    is_direct = name == "conv2d" and has_direct_gradient(stage)
    return backward.conv2d_direct if is_direct else getattr(backward, name)


def _address(kernel: StageKernel | None) -> int:
    """Return the address of a kernel; 0 for None."""
    return kernel.address() if kernel else 0


def _reading_kernel(program: Program) -> Any:
    """Return the kernel that copies images for the first stage."""
    return reading.pad_pixels if program.stages[0].kind == "conv2d" else reading.read_pixels


def _input_kernels(*, is_sparse: bool) -> tuple[Any, Any]:
    """Return the kernels of a first stage that reads its input: products and gradient."""
    if is_sparse:
        return input_layer.multiply_csr, input_layer.update_csr
    return input_layer.multiply_pixels, input_layer.update_pixels


def _vector(program: Program) -> Any:
    """Return the type of the packed parameters."""
    return types.Array(numba.from_dtype(np.dtype(program.dtype)), 1, "C")


def _workspace(program: Program) -> Any:
    """Return the type of the result of `workspace.thread_workspace`."""
    number = types.CPointer(_vector(program).dtype)
    kinds: dict[str, Any] = dict.fromkeys(Workspace._fields, number)
    for name in ("capacity", "deltas_row", "products_row", "threads"):
        kinds[name] = types.intp
    kinds["masks"], kinds["wide_masks"] = types.CPointer(types.uint8), types.CPointer(types.int64)
    kinds["places"] = types.CPointer(types.uint64)
    return types.NamedTuple(list(kinds.values()), Workspace)
