"""Launch of kernels/persistent/persistent_cnn.cu, and the programs that it can train.

With few images per step, launches are estimated to take longer than the arithmetic. A persistent
kernel runs all steps of a chunk in one launch: this one trains a small convolutional network image
by image, persistent_mlp.py trains two linear layers with small batches. Both implement plain SGD.
All other programs, and larger batches, run as CUDA graphs, which use more of the GPU.
"""

import math

from backends.cupy.launch.fused_classifier import computes_logits
from backends.cupy.launch.graph_batch import Chunk, DeviceDataset
from backends.cupy.launch.launcher import Launcher, c_type, ceil_div, fits_shared_memory
from backends.cupy.launch.losses import NUMBERS
from backends.cupy.loader import WARP_SIZE, Constant
from backends.operations.common import Array
from backends.program import TrainingProgram

MAX_KERNEL_SIZE = 5  # one lane per tap
# Largest numbers of warps of a block, and of weights of the linear layer that each thread then
# keeps in registers. The first pair that suffices is used. A thread has 128 registers with 16 warps
# and 168 with 12.
WARPS_AND_WEIGHTS = {
    "float32": ((16, 32), (12, 64)),
    "float64": ((12, 64), (16, 32)),
}
BANKS = 32  # of shared memory; the distance of two rows of pixels is padded by less than this


def constants_for(program: TrainingProgram) -> dict[str, Constant] | None:
    """Return the options of the kernel; None if it cannot train the program."""
    kinds = [stage.kind for stage in program.stages]
    if kinds != ["conv2d", "linear"] or program.update.kind != "sgd" or program.l2:
        return None
    if program.loss == NUMBERS:
        return None
    convolution, linear = program.stages
    channels, height, width = convolution.input_shape
    filters, (classes,) = convolution.output_shape[0], linear.output_shape
    size = convolution.kernel_size
    cells = math.prod(convolution.output_shape[1:])
    warps_per_filter = _warps_per_filter(program.dtype, filters, cells, classes)
    warps = filters * warps_per_filter
    # The members of struct `Shared`.
    reals = (height + 1) * (2 * width + 2 + BANKS)
    reals += classes * (3 + warps) + warps * size**2 + 4
    fits = (
        channels == 1
        and convolution.bias is None
        and convolution.padding == 0
        and linear.bias is not None
        and computes_logits(linear)
        and size <= MAX_KERNEL_SIZE
        and warps_per_filter > 0
        and fits_shared_memory(reals, program.dtype, more_bytes=40)  # with alignment
    )
    if not fits or convolution.pooling is None:
        return None
    return {
        "ACTIVATION": convolution.activation.upper(),
        "LOSS": program.loss.upper(),
        "ALL_TIES": int(convolution.pooling.ties == "all"),
        "KERNEL_SIZE": size,
        "FILTERS": filters,
        "HEIGHT": height,
        "WIDTH": width,
        "CLASSES": classes,
        "WARPS_PER_FILTER": warps_per_filter,
    }


def _warps_per_filter(dtype: str, filters: int, cells: int, classes: int) -> int:
    """Return how many warps compute a filter; 0 if the weights do not fit their registers."""
    for warps, max_weights in WARPS_AND_WEIGHTS[dtype]:
        count = warps // filters
        if count and ceil_div(cells, count * WARP_SIZE) * classes <= max_weights:
            return count
    return 0


def train(
    launcher: Launcher,
    program: TrainingProgram,
    dataset: DeviceDataset,
    chunk: Chunk,
    steps: int,
    parameters: tuple[Array, Array, Array],
    constants: dict[str, Constant],
) -> None:
    """Run the first `steps` steps of a chunk, each with one image.

    A member with fewer steps has batches without images in place of the others.

    `parameters` are filters, weights and bias, changed in place; `constants` is the result of
    `constants_for`.
    """
    filters, weight, bias = parameters
    threads = int(constants["FILTERS"]) * int(constants["WARPS_PER_FILTER"]) * WARP_SIZE
    constants = {"PIXEL": c_type(dataset.images), **constants}
    launcher.kernel("persistent/persistent_cnn", "persistent_cnn", constants)(
        (1,),
        threads,
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
        filters=filters,
        weight=weight,
        bias=bias,
        losses=chunk.losses,
        correct=chunk.correct,
        diverged=chunk.diverged,
    )
