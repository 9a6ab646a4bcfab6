"""Device memory of graph steps and chunks, allocated once before a graph is captured."""

import bisect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from backends.cupy.chunk import ChunkMemory
from backends.cupy.launch.graph_batch import StepState
from backends.cupy.launch.pooling import mask_dtype
from backends.cupy.launch.tiles import Tile
from backends.cupy.launch.wgrad_update import SplitK
from backends.cupy.members import ByteCounter, Memory, copies_of_parameters, memory_for
from backends.cupy.memory import megabytes, memory_errors
from backends.cupy.plan import Plan, max_pooling_of
from backends.operations.common import Array

# A chunk has few enough steps that it ends soon after Ctrl-C, and enough steps that the copy of its
# losses to the host takes a negligible time.
MAX_STEPS_PER_CHUNK = 1024
MAX_ROWS_PER_CHUNK = 1 << 20


@dataclass(frozen=True)
class StageArrays:
    """Arrays of a stage.

    Attributes:
        output: output for a batch; None if only the kernel that computes it needs it, such as the
            logits of the fused classifier.
        gradient: gradient of the pre-activation; None if no other kernel needs it.
        mask: tie masks; None without max-pooling, and if no other kernel needs them.
        split: how the weight gradient is divided among blocks; None without parameters.
        partial_sums: partial weight gradients; None with one split, unless another kernel computes
            them.
        tile_counters: finished splits of each unit, 0 before and after a step; None with one split,
            and if another kernel than `wgrad_update` computes the partial sums.
    """

    output: Array | None
    gradient: Array | None
    mask: Array | None
    split: SplitK | None
    partial_sums: Array | None
    tile_counters: Array | None


@dataclass(frozen=True)
class Workspace:
    """Memory of a training besides the data set and the parameters.

    Attributes:
        memory: allocated the arrays.
        parameters: copies of the parameters and of the optimizer's state of several members; empty
            for a single training.
        capacity: number of images of the largest batch.
        chunk: inputs and results of the steps.
        state: values that kernels of a step compute for later kernels.
        stages: arrays of each stage.
        tile: tiles of the weight gradients of linear layers.
    """

    memory: Memory
    parameters: tuple[Array, ...]
    capacity: int
    chunk: ChunkMemory
    state: StepState
    stages: Sequence[StageArrays]
    tile: Tile


def new_workspace(cupy: Any, plan: Plan, capacity: int, *, members: int) -> Workspace:
    """Allocate the memory of steps with up to `capacity` images for each member.

    Raises:
        MemoryError: the memory of the device is too small; names the largest batch that fits.
    """

    def total_bytes(batch_size: int) -> int:
        return members * bytes_per_member(plan, batch_size, members=members)

    def advice(free: int) -> str:
        largest = bisect.bisect_right(range(1, capacity), free, key=total_bytes)
        return f"; the largest batch that fits is about {largest}"

    of_members = f" for {members} members" if members > 1 else ""
    needed = f"a batch of {capacity} images{of_members} needs {megabytes(total_bytes(capacity))}"
    with memory_errors(cupy, needed, advice):
        memory = memory_for(cupy, members, total_bytes(capacity) // members)
        return _allocate(memory, plan, capacity)


def bytes_per_member(plan: Plan, batch_size: int, *, members: int) -> int:
    """Return the number of bytes that each member needs for steps with this batch size."""
    counter = ByteCounter(members)
    _allocate(counter, plan, batch_size)
    return counter.total


def _allocate(memory: Any, plan: Plan, capacity: int) -> Workspace:
    dtype = plan.program.dtype
    rows = max(capacity, min(MAX_STEPS_PER_CHUNK * capacity, MAX_ROWS_PER_CHUNK))
    splits = plan.splits(capacity)
    return Workspace(
        memory=memory,
        parameters=copies_of_parameters(memory, plan.program),
        capacity=capacity,
        chunk=ChunkMemory(memory, dtype, steps=MAX_STEPS_PER_CHUNK, rows=rows),
        state=StepState(
            batch=memory.empty(2, "int32"),
            rates=memory.empty(3, dtype),
            image_losses=memory.empty(capacity, dtype),
            image_correct=memory.empty(capacity, "int32"),
        ),
        stages=[_stage_arrays(memory, plan, i, capacity, split) for i, split in enumerate(splits)],
        tile=plan.tile(capacity),
    )


def _stage_arrays(
    memory: Any, plan: Plan, index: int, capacity: int, split: SplitK | None
) -> StageArrays:
    stage, dtype = plan.stages[index], plan.program.dtype
    shape, is_last = (capacity, *stage.output_shape), index == len(plan.stages) - 1
    is_complete = plan.has_complete_sums(index, capacity)
    # One kernel computes it forward and backward; only its output leaves that kernel.
    is_inside = is_complete and stage.kind == "conv2d"
    # The output of the first convolution in fused_cnn.cu remains in shared memory.
    is_first = index == 0 and plan.fused_cnn(capacity) is not None
    is_private = is_first or (plan.has_classifier and is_last)
    has_gradient = index >= plan.first_trainable and not is_inside
    max_pooling = None if is_inside else max_pooling_of(stage)
    mask_type = max_pooling and mask_dtype(max_pooling.size)
    summed = split if split and (split.splits > 1 or is_complete) else None
    return StageArrays(
        output=None if is_private else memory.empty(shape, dtype),
        gradient=memory.empty(shape, dtype) if has_gradient else None,
        mask=mask_type and memory.empty(shape, mask_type),
        split=split,
        partial_sums=summed and memory.empty((summed.splits, summed.parameters), dtype),
        tile_counters=memory.zeros(summed.units, "int32") if summed and not is_complete else None,
    )
