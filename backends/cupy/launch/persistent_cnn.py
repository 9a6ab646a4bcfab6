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

THREADS = 512
MAX_WEIGHTS_PER_THREAD = 32  # weights of the linear layer, in registers
MAX_KERNEL_SIZE = 5
MAX_FILTERS = THREADS // WARP_SIZE  # one warp per filter


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
    features = math.prod(convolution.output_shape)
    size = convolution.kernel_size
    # The members of struct `Shared`.
    reals = height * width + features + classes * (2 + THREADS // WARP_SIZE)
    reals += filters * size**2 * (1 + MAX_FILTERS // filters) + 1
    fits = (
        channels == 1
        and convolution.pooling is not None
        and convolution.bias is None
        and convolution.padding == 0
        and linear.bias is not None
        and computes_logits(linear)
        and size <= MAX_KERNEL_SIZE
        and filters <= MAX_FILTERS
        and ceil_div(features, THREADS) * classes <= MAX_WEIGHTS_PER_THREAD
        and fits_shared_memory(reals, program.dtype, more_bytes=features + 8)
    )
    if not fits:
        return None
    return {
        "ACTIVATION": convolution.activation.upper(),
        "LOSS": program.loss.upper(),
        "KERNEL_SIZE": size,
        "FILTERS": filters,
        "HEIGHT": height,
        "WIDTH": width,
        "CLASSES": classes,
        "THREADS": THREADS,
    }


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
    pooling = program.stages[0].pooling
    assert pooling is not None
    filters, weight, bias = parameters
    constants = {"PIXEL": c_type(dataset.images), **constants}
    launcher.kernel("persistent/persistent_cnn", "persistent_cnn", constants)(
        (1,),
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
            "all_ties": pooling.ties == "all",
        },
        member_stride=launcher.member_stride,
        filters=filters,
        weight=weight,
        bias=bias,
        losses=chunk.losses,
        correct=chunk.correct,
        diverged=chunk.diverged,
    )
