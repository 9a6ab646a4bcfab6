"""Device memory of graph steps and chunks, allocated once before a graph is captured."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from backends.cupy.launch.graph_batch import Chunk, StepState
from backends.cupy.launch.tiles import Tile
from backends.cupy.launch.wgrad_update import SplitK
from backends.cupy.memory import megabytes, memory_errors
from backends.cupy.plan import Plan
from backends.operations.common import Array

# Steps whose losses are fetched together: few enough that Ctrl-C is answered at once, and enough
# that the copies cost nothing.
MAX_STEPS_PER_CHUNK = 1024
MAX_ROWS_PER_CHUNK = 1 << 20


@dataclass(frozen=True)
class Workspace:
    """Memory of a training besides the data set and the parameters.

    Attributes:
        capacity: number of images of the largest batch.
        chunk: inputs and results of the steps.
        state: passed on between the kernels of a step.
        outputs: output of each stage for a batch; None if it is not stored.
        gradients: gradient of the pre-activation of each stage; None if it is not needed.
        masks: tie masks of each stage; None without max-pooling.
        tile: tiles of the gradients of linear layers.
        splits: how the gradient of each stage is divided among blocks; None without parameters.
        partial_sums: partial gradients of each stage; None with one split.
        tile_counters: finished splits of each unit, 0 before and after a step; None with one split.
    """

    capacity: int
    chunk: Chunk
    state: StepState
    outputs: Sequence[Array | None]
    gradients: Sequence[Array | None]
    masks: Sequence[Array | None]
    tile: Tile
    splits: Sequence[SplitK | None]
    partial_sums: Sequence[Array | None]
    tile_counters: Sequence[Array | None]


def new_workspace(cupy: Any, plan: Plan, capacity: int) -> Workspace:
    """Allocate the memory of steps with up to `capacity` images.

    Raises:
        MemoryError: the memory of the device is too small; names the largest batch that fits.
    """
    fixed, per_image = _bytes_needed(plan, capacity)
    needed = f"a batch of {capacity} images needs {megabytes(fixed + capacity * per_image)}"

    def advice(free: int) -> str:
        return f"; the largest batch that fits is about {max(0, free - fixed) // per_image}"

    with memory_errors(cupy, needed, advice):
        return _allocate(cupy, plan, capacity)


def new_chunk(cupy: Any, dtype: str, *, steps: int, capacity: int) -> Chunk:
    """Allocate a chunk of `steps` steps with up to `capacity` images each."""
    return Chunk(
        rows=cupy.empty(steps * capacity, "int32"),
        bounds=cupy.empty((steps, 2), "int32"),
        rates=cupy.empty((steps, 3), dtype),
        step=cupy.empty(1, "int32"),
        losses=cupy.empty(steps, "float64"),
        correct=cupy.empty(steps, "int32"),
    )


def _allocate(cupy: Any, plan: Plan, capacity: int) -> Workspace:
    steps = max(1, min(MAX_STEPS_PER_CHUNK, MAX_ROWS_PER_CHUNK // capacity))

    def per_stage(dtypes: Sequence[str | None]) -> tuple[Array | None, ...]:
        return tuple(
            dtype and cupy.empty((capacity, *stage.output_shape), dtype)
            for stage, dtype in zip(plan.stages, dtypes, strict=True)
        )

    splits = plan.splits(capacity)
    several = [split if split and split.splits > 1 else None for split in splits]
    return Workspace(
        capacity=capacity,
        chunk=new_chunk(cupy, plan.dtype, steps=steps, capacity=capacity),
        state=StepState(
            batch=cupy.empty(2, "int32"),
            rates=cupy.empty(3, plan.dtype),
            image_losses=cupy.empty(capacity, plan.dtype),
            image_correct=cupy.empty(capacity, "int32"),
        ),
        outputs=per_stage(plan.output_dtypes()),
        gradients=per_stage(plan.gradient_dtypes()),
        masks=per_stage(plan.mask_dtypes()),
        tile=plan.tile(capacity),
        splits=splits,
        partial_sums=[s and cupy.empty((s.splits, s.parameters), plan.dtype) for s in several],
        tile_counters=[s and cupy.zeros(s.units, "int32") for s in several],
    )


def _bytes_needed(plan: Plan, batch_size: int) -> tuple[int, int]:
    """Return the memory of a workspace: bytes for any batch, and bytes per image of the batch."""
    integer, real = np.dtype("int32").itemsize, np.dtype(plan.dtype).itemsize
    per_image = real + integer
    splits = [split for split in plan.splits(batch_size) if split and split.splits > 1]
    partial_sums = sum(split.splits * split.parameters for split in splits)
    for dtypes in (plan.output_dtypes(), plan.gradient_dtypes(), plan.mask_dtypes()):
        for stage, dtype in zip(plan.stages, dtypes, strict=True):
            if dtype is not None:
                per_image += math.prod(stage.output_shape) * np.dtype(dtype).itemsize
    rows = min(MAX_ROWS_PER_CHUNK, MAX_STEPS_PER_CHUNK * batch_size)
    return integer * rows + real * partial_sums, per_image
