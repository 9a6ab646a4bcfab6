"""Launch of kernels/persistent/persistent_mlp.cu, and the programs that it can train."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from backends.cupy.launch.clusters import BLOCKS, MIN_CAPABILITY
from backends.cupy.launch.fused_classifier import computes_logits
from backends.cupy.launch.graph_batch import Chunk, DeviceDataset
from backends.cupy.launch.launcher import Launcher, c_type, ceil_div, fits_shared_memory
from backends.cupy.launch.losses import NUMBERS
from backends.cupy.loader import WARP_SIZE, Constant
from backends.operations.common import Array
from backends.program import TrainingProgram

THREADS = 256
MAX_IMAGES = 16  # largest batch
MAX_WEIGHT_BYTES = 256  # weights of the first layer per thread, in registers
_TILE = 4  # side of a thread's tile of weights
_UNITS = 32  # hidden units of the tiles of a warp
_INPUTS = THREADS // WARP_SIZE * 16  # inputs of the tiles of a block
_VECTOR_BYTES = 16


@dataclass(frozen=True)
class Scratch:
    """Arrays that the kernel uses in addition to parameters, inputs and results.

    Attributes:
        partial_sums: sums that blocks without cluster exchange; double-buffered.
        barrier: two uint32 of the grid barrier, 0 before the first launch.
        image_losses: loss of each image of each step.
        image_correct: whether the prediction for that image is correct.
    """

    partial_sums: Array
    barrier: Array
    image_losses: Array
    image_correct: Array


def new_scratch(memory: Any, program: TrainingProgram, steps: int) -> Scratch:
    """Allocate the scratch arrays for chunks of at most `steps` steps."""
    (hidden,) = program.stages[0].output_shape
    row = ceil_div(hidden, _TILE) * _TILE
    return Scratch(
        partial_sums=memory.empty(2 * BLOCKS * MAX_IMAGES * row, program.dtype),
        barrier=memory.zeros(2, "uint32"),
        image_losses=memory.empty(steps * MAX_IMAGES, program.dtype),
        image_correct=memory.empty(steps * MAX_IMAGES, "int32"),
    )


def constants_for(
    program: TrainingProgram, *, batch_size: int, capability: int, multiprocessors: int
) -> dict[str, Constant] | None:
    """Return the options of the kernel; None if it cannot train the program.

    Args:
        program: the program.
        batch_size: number of images of the largest batch.
        capability: compute capability of the GPU, such as 90 for 9.0.
        multiprocessors: multiprocessors of the GPU. All blocks must be resident together, and each
            multiprocessor has room for at least one.
    """
    kinds = [stage.kind for stage in program.stages]
    if kinds != ["linear", "linear"] or program.update.kind != "sgd" or program.l2:
        return None
    if program.loss == NUMBERS or batch_size > MAX_IMAGES or multiprocessors < BLOCKS:
        return None
    first, second = program.stages
    if first.bias is None or second.bias is None or not computes_logits(second):
        return None
    (inputs,), (hidden,), (outputs,) = first.input_shape, first.output_shape, second.output_shape
    sizes = _Sizes(inputs, hidden, outputs, batch_size, program.dtype)
    images_per_pass = sizes.images_per_pass()
    if images_per_pass is None:
        return None
    return {
        **cluster_constants(capability),
        "ACTIVATION": first.activation.upper(),
        "LOSS": program.loss.upper(),
        "BLOCKS": BLOCKS,
        "BATCH": batch_size,
        "IMAGES_PER_PASS": images_per_pass,
        "INPUTS": inputs,
        "HIDDEN": hidden,
        "OUTPUTS": outputs,
        "THREADS": THREADS,
    }


@dataclass(frozen=True)
class _Sizes:
    """Sizes of a network, and of the memory that the kernel needs for it."""

    inputs: int
    hidden: int
    outputs: int
    batch: int
    dtype: str

    def images_per_pass(self) -> int | None:
        """Return the number of images whose partial sums fit the shared memory at the same time.

        None if no number fits, or if the weights of a thread do not fit its registers.
        """
        itemsize = np.dtype(self.dtype).itemsize
        per_block = ceil_div(self.inputs, BLOCKS)
        input_tiles, unit_tiles = ceil_div(per_block, _INPUTS), ceil_div(self.hidden, _UNITS)
        if input_tiles * unit_tiles * _TILE**2 * itemsize > MAX_WEIGHT_BYTES:
            return None
        warps = min(THREADS // WARP_SIZE, ceil_div(per_block, 16))
        for passes in range(1, self.batch + 1):
            images = ceil_div(self.batch, passes)
            padded_batch = ceil_div(self.batch, images) * images
            reals = self._fixed_reals() + warps * images * unit_tiles * _UNITS
            reals += padded_batch * input_tiles * _INPUTS
            if fits_shared_memory(reals, self.dtype, more_bytes=4 * self.batch + 16):
                return images
        return None

    def _fixed_reals(self) -> int:
        """Return the number of elements of struct `Shared` without its first two members."""
        vector = _VECTOR_BYTES // np.dtype(self.dtype).itemsize
        row = ceil_div(self.hidden, vector) * vector
        record = ceil_div(self.hidden, _UNITS) * _UNITS + row
        record += ceil_div(self.outputs, vector) * vector
        own_images = ceil_div(self.batch, BLOCKS)
        reals = (self.batch + own_images) * record + own_images * BLOCKS * row
        return reals + self.hidden * self.outputs + self.hidden + self.outputs


def cluster_constants(capability: int) -> dict[str, Constant]:
    """Return the option of grid_barrier.cuh: a cluster if the GPU supports it, else a grid."""
    return {"CLUSTER": 1} if capability >= MIN_CAPABILITY else {}


def train(
    launcher: Launcher,
    program: TrainingProgram,
    dataset: DeviceDataset,
    chunk: Chunk,
    steps: int,
    parameters: tuple[Array, Array, Array, Array],
    scratch: Scratch,
    constants: dict[str, Constant],
) -> None:
    """Run the first `steps` steps of a chunk.

    `parameters` are weights and bias of both layers, changed in place; `constants` is the result
    of `constants_for`.
    """
    weight1, bias1, weight2, bias2 = parameters
    kernel = launcher.kernel(
        "persistent/persistent_mlp",
        "persistent_mlp",
        {"PIXEL": c_type(dataset.images), **constants},
        cooperative="CLUSTER" not in constants,
    )
    kernel(
        (BLOCKS,),
        THREADS,
        images=dataset.images,
        labels=dataset.labels,
        rows=chunk.rows,
        bounds=chunk.bounds,
        rates=chunk.rates,
        settings={
            "steps": steps,
            "pixel_shift": program.pixel_shift,
            "weight_decay": program.update.settings["weight_decay"],
        },
        member_stride=launcher.member_stride,
        weight1=weight1,
        bias1=bias1,
        weight2=weight2,
        bias2=bias2,
        **vars(scratch),
        losses=chunk.losses,
        correct=chunk.correct,
        diverged=chunk.diverged,
    )
