"""The stage kernels that a program needs, compiled and entered into its table of stages.

Compiled code calls a stage kernel through its address (see `kernels.compilation`). So only the
kernels for the kinds of stages, the loss and the optimizer of a program are compiled, each one
once, for all programs of the same dtype.
"""

from typing import Any

import numba
import numpy as np

from backends.numba.kernels import backward, epoch, forward, losses, reading, updates
from backends.numba.kernels.compilation import address_of
from backends.numba.kernels.stages import STAGE, Plan
from backends.numba.kernels.workspace import Images, Tile, Workspace
from backends.numba.layout import Layout, reads_input
from backends.program import Program

types: Any = numba.types  # without annotations

_STAGE = numba.from_dtype(STAGE)
_OFFSETS = types.Array(types.uint64, 1, "C")
_TILE = types.NamedTuple([types.Array(types.int64, 1, "C"), *[types.intp] * 3], Tile)
_RANGES = types.NamedTuple([types.intp] * len(epoch.Ranges._fields), epoch.Ranges)
_STEP = types.NamedTuple(
    [*[types.intp] * 4, types.float64, types.float64, types.boolean], epoch.Step
)
_RESULTS = types.NamedTuple(
    [types.Array(types.float64, 2, "C"), types.Array(types.int64, 2, "C")], epoch.Results
)


def link_training(
    program: Program, layout: Layout, data: epoch.TrainingData, rule: Any, kind: str
) -> Plan:
    """Return the program for `epoch.run_steps`; compile its stage kernels.

    Args:
        program: network and loss.
        layout: its layout; the addresses are entered into `layout.stages`.
        data: the data set.
        rule: settings of the optimizer, `updates.Rule`.
        kind: kind of the optimizer.
    """
    dtype, is_sparse = program.dtype, data.images.groups > 0
    vector, work = types.Array(numba.from_dtype(np.dtype(dtype)), 1, "C"), _workspace(dtype)
    for stage, row in zip(program.stages, layout.stages, strict=True):
        name = stage.kind
        if row["is_first"] and reads_input(program):
            name = "input_linear"
        else:
            row["forward"] = _link_forward(name, vector, work)
        row["backward"] = address_of(
            getattr(backward, name), _STAGE, _OFFSETS, vector, vector, work, 0, 0
        )
    row_numbers = types.Array(types.int64, 1, "C")
    parameters = types.NamedTuple([vector, types.Array(vector.dtype, 2, "C")], updates.Parameters)
    return Plan(
        stages=layout.stages,
        offsets=layout.offsets,
        read=_link_reading(program, vector, data.images, work, is_sparse=is_sparse),
        loss=address_of(
            losses.KERNELS[program.loss], _STAGE, data.labels, _TILE, 0.0, work, _RESULTS, 0, 0
        ),
        update=address_of(updates.KERNELS[kind], rule, 0.0, 0, parameters, vector, 0, 0),
        update_inputs=address_of(
            epoch.update_csr if is_sparse else epoch.update_pixels,
            _STAGE,
            vector,
            data.images,
            row_numbers,
            _STEP,
            _RANGES,
            work,
        )
        if reads_input(program)
        else 0,
    )


def link_inference(program: Program, layout: Layout, pixels: np.dtype[Any]) -> int:
    """Compile the stage kernels for predictions; return the address of the one that reads images.

    Args:
        program: network and loss.
        layout: its layout; the addresses are entered into `layout.stages`.
        pixels: dtype of the pixels.
    """
    vector = types.Array(numba.from_dtype(np.dtype(program.dtype)), 1, "C")
    work = _workspace(program.dtype)
    for stage, row in zip(program.stages, layout.stages, strict=True):
        if stage.kind != "linear":
            row["forward"] = _link_forward(stage.kind, vector, work)
    if program.stages[0].kind == "linear":
        return 0
    images = types.NamedTuple(
        [
            types.Array(numba.from_dtype(pixels), 2, "C", readonly=True),
            *[types.intp] * 4,
            types.float64,
            types.float64,
        ],
        Images,
    )
    return _link_reading(program, vector, images, work, is_sparse=False)


def _link_forward(name: str, vector: Any, work: Any) -> int:
    """Return the address of the kernel of a kind of stages for the forward pass."""
    return address_of(getattr(forward, name), _STAGE, _OFFSETS, vector, work, 0)


def _link_reading(program: Program, vector: Any, images: Any, work: Any, *, is_sparse: bool) -> int:
    """Return the address of the kernel that reads images for the first stage."""
    kernel = reading.read_pixels
    if is_sparse:
        kernel = reading.multiply_sparse
    elif reads_input(program):
        kernel = reading.multiply_pixels
    elif program.stages[0].kind == "conv2d":
        kernel = reading.pad_pixels
    return address_of(kernel, _STAGE, vector, images, _TILE, work)


def _workspace(dtype: Any) -> Any:
    """Return the type of the result of `workspace.thread_workspace`."""
    number = types.CPointer(numba.from_dtype(np.dtype(dtype)))
    kinds: dict[str, Any] = dict.fromkeys(Workspace._fields, number)
    kinds["capacity"] = kinds["deltas_row"] = types.intp
    kinds["masks"], kinds["wide_masks"] = types.CPointer(types.uint8), types.CPointer(types.int64)
    return types.NamedTuple(list(kinds.values()), Workspace)
