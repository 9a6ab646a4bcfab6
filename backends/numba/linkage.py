"""The stage kernels that a program needs, compiled and entered into its table of stages.

Compiled code calls a stage kernel through its address (see `kernels.compilation`). So only the
kernels for the kinds of stages, the loss and the optimizer of a program are compiled, each one
once, for all programs of the same dtype.
"""

from typing import Any

import numba
import numpy as np

from backends.compilation import needed_kernels
from backends.numba.kernels import (
    backward,
    epoch,
    forward,
    inference,
    losses,
    penalty,
    reading,
    updates,
)
from backends.numba.kernels.compilation import address_of
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
    [*[types.intp] * 4, types.float64, types.float64, types.boolean], epoch.Step
)
_RESULTS = types.NamedTuple(
    [types.Array(types.float64, 2, "C"), types.Array(types.int64, 2, "C")], epoch.Results
)


def link_training(
    program: TrainingProgram, layout: Layout, data: epoch.TrainingData, rule: Any
) -> Plan:
    """Return the program for `epoch.run_steps`; compile its stage kernels.

    Args:
        program: network, loss and optimizer.
        layout: its layout; the addresses are entered into `layout.stages`.
        data: the data set.
        rule: settings of the optimizer, `updates.Rule`.
    """
    is_sparse, reads = data.images.groups > 0, reads_input(program)
    kinds = [stage.kind for stage in program.stages]
    if reads:
        kinds[0] = "input_linear"  # `read` computes its outputs
    forwards = [None if name == "input_linear" else getattr(forward, name) for name in kinds]
    backwards = [getattr(backward, name) for name in kinds]
    read = _reading_kernel(program, is_sparse=is_sparse)
    loss, update = losses.KERNELS[program.loss], updates.KERNELS[program.update.kind]
    add_penalty = penalty.add_penalty if program.l2 else None
    update_inputs = None
    if reads:
        update_inputs = epoch.update_csr if is_sparse else epoch.update_pixels
    _record(
        [*forwards, *backwards, read, loss, update, update_inputs, add_penalty, epoch.run_steps]
    )

    vector, work = _vector(program), _workspace(program)
    for row, to, back in zip(layout.stages, forwards, backwards, strict=True):
        row["forward"] = _address(to, _STAGE, _OFFSETS, vector, work, 0)
        row["backward"] = _address(back, _STAGE, _OFFSETS, vector, vector, work, 0, 0)
    parameters = types.NamedTuple([vector, types.Array(vector.dtype, 2, "C")], updates.Parameters)
    l2 = Penalty(layout.weights, program.l2)
    return Plan(
        stages=layout.stages,
        offsets=layout.offsets,
        read=_address(read, _STAGE, vector, data.images, _TILE, work),
        loss=_address(loss, _STAGE, data.labels, data.weights, _TILE, 0.0, work, _RESULTS, 0, 0),
        update=_address(update, rule, 0.0, 0, parameters, vector, 0, 0),
        update_inputs=_address(
            update_inputs, _STAGE, vector, data.images, _ROWS, _STEP, _RANGES, work
        ),
        add_penalty=_address(add_penalty, l2, 0, parameters, vector, 0, 0, _RESULTS, 0, 0),
        penalty=l2,
    )


def link_inference(program: Program, layout: Layout, pixels: np.dtype[Any]) -> int:
    """Compile the stage kernels for predictions; return the address of the one that reads images.

    Args:
        program: network and loss.
        layout: its layout; the addresses are entered into `layout.stages`.
        pixels: dtype of the pixels.
    """
    forwards = [None if s.kind == "linear" else getattr(forward, s.kind) for s in program.stages]
    read = None if forwards[0] is None else _reading_kernel(program, is_sparse=False)
    _record([*forwards, read, inference.predict])
    vector, work = _vector(program), _workspace(program)
    for row, to in zip(layout.stages, forwards, strict=True):
        row["forward"] = _address(to, _STAGE, _OFFSETS, vector, work, 0)
    pixel_array = types.Array(numba.from_dtype(pixels), 2, "C", readonly=True)
    numbers = [types.intp] * 4 + [types.float64] * 2
    images = types.NamedTuple([pixel_array, *numbers], Images)
    return _address(read, _STAGE, vector, images, _TILE, work)


def _record(kernels: list[Any]) -> None:
    """Record the kernels that a program needs, for progress displays; None is skipped."""
    needed_kernels.extend(kernel.__name__ for kernel in dict.fromkeys(kernels) if kernel)


def _address(kernel: Any, *arguments: Any) -> int:
    """Return the address of a kernel, as `address_of`; 0 for None."""
    return address_of(kernel, *arguments) if kernel else 0


def _reading_kernel(program: Program, *, is_sparse: bool) -> Any:
    """Return the kernel that reads images for the first stage."""
    if is_sparse:
        return reading.multiply_sparse
    if reads_input(program):
        return reading.multiply_pixels
    return reading.pad_pixels if program.stages[0].kind == "conv2d" else reading.read_pixels


def _vector(program: Program) -> Any:
    """Return the type of the packed parameters."""
    return types.Array(numba.from_dtype(np.dtype(program.dtype)), 1, "C")


def _workspace(program: Program) -> Any:
    """Return the type of the result of `workspace.thread_workspace`."""
    number = types.CPointer(_vector(program).dtype)
    kinds: dict[str, Any] = dict.fromkeys(Workspace._fields, number)
    kinds["capacity"] = kinds["deltas_row"] = types.intp
    kinds["masks"], kinds["wide_masks"] = types.CPointer(types.uint8), types.CPointer(types.int64)
    kinds["places"] = types.CPointer(types.uint64)
    return types.NamedTuple(list(kinds.values()), Workspace)
