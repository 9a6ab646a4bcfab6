"""The memory of captured steps on the GPU, allocated once, before anything is captured."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from backends.cupy.launch.fused_classifier import MOST_WEIGHTS
from backends.cupy.launch.launches import Section, Step
from backends.cupy.launch.shapes import Maps
from backends.cupy.launch.tiles import Tile
from backends.cupy.launch.wgrad_update import (
    Cut,
    cut_filters,
    cut_linear,
    patch_of,
    tile_of_gradients,
)
from backends.cupy.memory import megabytes, memory_errors
from backends.operations.common import Array
from backends.program import Stage

# Steps between two looks at the host: few enough that Ctrl-C is answered at once, and enough that
# fetching the losses costs nothing.
MOST_STEPS_A_SECTION = 1024
MOST_ROWS_A_SECTION = 1 << 20


@dataclass(frozen=True)
class Plan:
    """What of a network needs memory while it is trained.

    Attributes:
        dtype: "float32" or "float64".
        stages: as they are captured.
        has_head: the outputs of the last stage are not kept.
        lowest: number of the first stage with parameters: no gradient goes further back.
    """

    dtype: str
    stages: Sequence[Stage]
    has_head: bool
    lowest: int

    def first_of_head(self) -> int:
        """Return the number of the first stage that is computed together with the loss.

        One behind the last where none is.
        """
        count = len(self.stages)
        if not self.has_head:
            return count
        first = count - 1
        while first > 1 and _is_small_layer(self.stages[first - 1]):
            first -= 1
        return first

    def first_of_way_back(self) -> int:
        """Return the number of the first stage through which the head takes the gradients back."""
        first = self.first_of_head()
        size = self.stages[first - 1].kernel_size  # 0 of other stages than convolutions
        if self.has_head and size:
            while first - 1 > self.lowest and self.stages[first - 1].kernel_size == size:
                first -= 1
        return first

    def cuts(self, batch_size: int) -> list[Cut | None]:
        """Return how each stage with parameters is shared out; None for others."""
        patch = patch_of(*(stage.kernel_size for stage in self.stages))
        tile = self.tile(batch_size)
        return [
            None if stage.weight is None else _cut(stage, batch_size, patch, tile)
            for stage in self.stages
        ]

    def tile(self, batch_size: int) -> Tile:
        """Return by which tiles the gradients of weights are computed."""
        sizes = [
            (stage.input_shape[0], stage.output_shape[0])
            for stage in self.stages
            if stage.kind == "linear"
        ]
        return tile_of_gradients(self.dtype, sizes, batch_size)

    def outputs(self) -> list[str | None]:
        """Return the dtype of the outputs of each stage; None where they are not kept."""
        kept: list[str | None] = [self.dtype for _ in self.stages]
        if self.has_head:
            kept[-1] = None
        return kept

    def gradients(self) -> list[str | None]:
        """Return the dtype of the gradient of each stage; None where nobody needs it."""
        return [None if i < self.lowest else self.dtype for i in range(len(self.stages))]

    def masks(self) -> list[str | None]:
        """Return the dtype of each stage's masks; None where no maximum is taken."""
        return [_mask_dtype(stage) for stage in self.stages]


@dataclass(frozen=True)
class Workspace:
    """All memory of a training beside its data set and parameters.

    Attributes:
        capacity: images of the largest batch.
        section: of how many steps is seen from its bounds.
        step: what its kernels tell each other.
        outputs: of each stage, for a batch; None where they are not kept.
        gradients: of what the activation of each stage took; None where nobody needs them.
        masks: where the maxima of each stage lie; None where nothing is pooled.
        tile: by which the gradients of weights are computed.
        cuts: how the gradients of each stage are shared out; None where it has no parameters.
        parts: sums that the shares of a stage leave; None where there is one.
        tickets: how many shares of each unit are done, 0 before and after a step; None as before.
    """

    capacity: int
    section: Section
    step: Step
    outputs: Sequence[Array | None]
    gradients: Sequence[Array | None]
    masks: Sequence[Array | None]
    tile: Tile
    cuts: Sequence[Cut | None]
    parts: Sequence[Array | None]
    tickets: Sequence[Array | None]


def new_workspace(cupy: Any, plan: Plan, capacity: int) -> Workspace:
    """Allocate all that steps with batches of up to `capacity` images need.

    Raises:
        MemoryError: the device has no room for it.
    """
    fixed, per_image = _bytes_needed(plan, capacity)
    wanted = f"a batch of {capacity} images needs {megabytes(fixed + capacity * per_image)}"

    def advice(free: int) -> str:
        return f"; the largest batch that fits is about {max(0, free - fixed) // per_image}"

    with memory_errors(cupy, wanted, advice):
        return _allocate(cupy, plan, capacity)


def new_section(cupy: Any, dtype: str, *, steps: int, capacity: int) -> Section:
    """Allocate room for so many steps with batches of up to `capacity` images."""
    return Section(
        rows=cupy.empty(steps * capacity, "int32"),
        bounds=cupy.empty((steps, 2), "int32"),
        rates=cupy.empty((steps, 3), dtype),
        step=cupy.empty(1, "int32"),
        losses=cupy.empty(steps, "float64"),
        correct=cupy.empty(steps, "int32"),
    )


def _allocate(cupy: Any, plan: Plan, capacity: int) -> Workspace:
    steps = max(1, min(MOST_STEPS_A_SECTION, MOST_ROWS_A_SECTION // capacity))

    def for_each_stage(dtypes: Sequence[str | None]) -> tuple[Array | None, ...]:
        return tuple(
            dtype and cupy.empty((capacity, *stage.output_shape), dtype)
            for stage, dtype in zip(plan.stages, dtypes, strict=True)
        )

    cuts = plan.cuts(capacity)
    shared_out = [cut if cut and cut.shares > 1 else None for cut in cuts]
    return Workspace(
        capacity=capacity,
        section=new_section(cupy, plan.dtype, steps=steps, capacity=capacity),
        step=Step(
            batch=cupy.empty(2, "int32"),
            rates=cupy.empty(3, plan.dtype),
            row_losses=cupy.empty(capacity, plan.dtype),
            row_correct=cupy.empty(capacity, "int32"),
        ),
        outputs=for_each_stage(plan.outputs()),
        gradients=for_each_stage(plan.gradients()),
        masks=for_each_stage(plan.masks()),
        tile=plan.tile(capacity),
        cuts=cuts,
        parts=[cut and cupy.empty((cut.shares, cut.parameters), plan.dtype) for cut in shared_out],
        tickets=[cut and cupy.zeros(cut.units, "int32") for cut in shared_out],
    )


def maps_of(stage: Stage) -> Maps:
    """Return the sizes of a convolution."""
    channels, height, width = stage.input_shape
    return Maps(channels, height, width, stage.output_shape[0], stage.padding)


def _bytes_needed(plan: Plan, batch_size: int) -> tuple[int, int]:
    """Return how much memory steps take, but for each image of a batch, and more for each."""
    integer, real = np.dtype("int32").itemsize, np.dtype(plan.dtype).itemsize
    per_image = real + integer
    cuts = [cut for cut in plan.cuts(batch_size) if cut and cut.shares > 1]
    parts = sum(cut.shares * cut.parameters for cut in cuts)
    for dtypes in (plan.outputs(), plan.gradients(), plan.masks()):
        for stage, dtype in zip(plan.stages, dtypes, strict=True):
            if dtype is not None:
                per_image += math.prod(stage.output_shape) * np.dtype(dtype).itemsize
    rows = min(MOST_ROWS_A_SECTION, MOST_STEPS_A_SECTION * batch_size)
    return integer * rows + real * parts, per_image


def _cut(stage: Stage, batch_size: int, patch: int, tile: Tile) -> Cut:
    """Return how many blocks a stage with parameters has."""
    if stage.kind == "linear":
        return cut_linear(stage.input_shape[0], stage.output_shape[0], batch_size, tile=tile)
    return cut_filters(
        *(maps_of(stage), stage.kernel_size, batch_size),
        cells=math.prod(stage.output_shape[1:]),
        patch=patch,
        threads=tile.threads,
    )


def _is_small_layer(stage: Stage) -> bool:
    """Return whether a block of the head can read all weights of a stage for a few images."""
    return stage.kind == "linear" and math.prod((*stage.input_shape, *stage.output_shape)) <= (
        MOST_WEIGHTS
    )


def _mask_dtype(stage: Stage) -> str | None:
    if stage.pooling is None or stage.kind == "avg_pool2d":
        return None
    return "uint8" if stage.pooling.size**2 <= 8 else "int64"
