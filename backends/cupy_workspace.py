"""The memory of captured steps on the GPU, allocated once, before anything is captured."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from backends.cuda.launches import Section, Step
from backends.cupy_memory import megabytes, memory_errors
from backends.operations.common import Array
from backends.program import Stage

# Steps between two looks at the host: few enough that Ctrl-C is answered at once, and enough that
# fetching the losses costs nothing.
MOST_STEPS_A_SECTION = 1024
MOST_ROWS_A_SECTION = 1 << 20
# The head reads all weights of its layers for every image. Of more images than this, a layer has a
# launch of its own, whose tiles read them for 16 images at a time.
MOST_IMAGES_OF_A_LONG_HEAD = 256


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

    def first_of_head(self, batch_size: int) -> int:
        """Return the number of the first stage that is computed together with the loss.

        One behind the last where none is.
        """
        count = len(self.stages)
        if not self.has_head:
            return count
        first = count - 1
        if batch_size <= MOST_IMAGES_OF_A_LONG_HEAD:
            while first > 1 and self.stages[first - 1].kind == "linear":
                first -= 1
        return first

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
    """

    capacity: int
    section: Section
    step: Step
    outputs: Sequence[Array | None]
    gradients: Sequence[Array | None]
    masks: Sequence[Array | None]


def new_workspace(cupy: Any, plan: Plan, capacity: int) -> Workspace:
    """Allocate all that steps with batches of up to `capacity` images need.

    Raises:
        MemoryError: the device has no room for it.
    """
    fixed, per_image = _bytes_needed(plan)
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
    )


def _bytes_needed(plan: Plan) -> tuple[int, int]:
    """Return how much memory steps take however large a batch is, and more for each image."""
    integer = np.dtype("int32").itemsize
    per_image = np.dtype(plan.dtype).itemsize + integer
    for dtypes in (plan.outputs(), plan.gradients(), plan.masks()):
        for stage, dtype in zip(plan.stages, dtypes, strict=True):
            if dtype is not None:
                per_image += math.prod(stage.output_shape) * np.dtype(dtype).itemsize
    return integer * MOST_ROWS_A_SECTION, per_image


def _mask_dtype(stage: Stage) -> str | None:
    if stage.pooling is None or stage.kind == "avg_pool2d":
        return None
    return "uint8" if stage.pooling.size**2 <= 8 else "int64"
