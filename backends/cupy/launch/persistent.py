"""Which programs a single launch trains from the first step of a section to the last.

Of steps with few images a GPU computes for a microsecond and waits for launches the rest of the
time. Two kernels do all steps in one launch, where the rule allows it:

- one_by_one.cu: batches of one image; a convolution and a linear layer that fit one block.
- small_batches.cu: batches of up to 16 images; two linear layers, the first of which fits the
  shared memory of some blocks, each of which has a multiprocessor. From compute capability 9.0 on
  these are a cluster, before it a cooperative grid; what they compute is the same to the last bit.

Both descend the gradient plainly. Everything else runs as a graph, and so does every larger batch,
which keeps more of a GPU busy than some blocks can.
"""

import math

from backends.cupy.launch.shapes import MOST_CLASSES
from backends.cupy.loader import Constant
from backends.program import Stage, TrainingProgram

Constants = dict[str, Constant]

MOST_SHARED_BYTES = 48 << 10

# As in one_by_one.cu.
ONE_BY_ONE_THREADS = 512
MOST_NUMBERS_A_THREAD = 32  # of the linear layer's weights, in registers
MOST_KERNEL_SIZE = 5
MOST_FILTERS = ONE_BY_ONE_THREADS // 32  # a warp for each

# As in small_batches.cu.
SMALL_BATCHES_THREADS = 256
BLOCKS = 8  # the most that every GPU with clusters puts into one
LEAST_CAPABILITY_WITH_CLUSTERS = 90
MOST_IMAGES = 16


def one_by_one(program: TrainingProgram) -> Constants | None:
    """Return the options of one_by_one.cu; None where the rule excludes a program."""
    kinds = [stage.kind for stage in program.stages]
    if kinds != ["conv2d", "linear"] or program.update.kind != "sgd":
        return None
    convolution, linear = program.stages
    channels, height, width = convolution.input_shape
    filters, (classes,) = convolution.output_shape[0], linear.output_shape
    features = math.prod(convolution.output_shape)
    size = convolution.kernel_size
    # As the structure `Shared` has them.
    numbers = height * width + features + classes * (2 + ONE_BY_ONE_THREADS // 32)
    numbers += filters * size**2 * (1 + MOST_FILTERS // filters)
    fits = (
        channels == 1
        and convolution.pooling is not None
        and convolution.bias is None
        and convolution.padding == 0
        and _gives_logits(linear)
        and size <= MOST_KERNEL_SIZE
        and filters <= MOST_FILTERS
        and -(-features // ONE_BY_ONE_THREADS) * classes <= MOST_NUMBERS_A_THREAD
        and _fits_shared_memory(numbers, program, more_bytes=features)
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
    }


def small_batches(
    program: TrainingProgram, *, capability: int, multiprocessors: int
) -> Constants | None:
    """Return the options of small_batches.cu; None where the rule excludes a program.

    Args:
        program: a training.
        capability: compute capability of the GPU, such as 90 for 9.0.
        multiprocessors: of the GPU. Each has room for a block; all blocks have to run together.
    """
    kinds = [stage.kind for stage in program.stages]
    if kinds != ["linear", "linear"] or program.update.kind != "sgd":
        return None
    first, second = program.stages
    (inputs,), (hidden,), (outputs,) = first.input_shape, first.output_shape, second.output_shape
    share = -(-inputs // BLOCKS)
    # As the structure `Shared` has them.
    numbers = share * hidden + hidden * outputs + hidden + outputs
    numbers += MOST_IMAGES * (share + 2 * hidden + outputs + 1)
    fits = (
        multiprocessors >= BLOCKS
        and first.bias is not None
        and _gives_logits(second)
        and _fits_shared_memory(numbers, program, more_bytes=4 * MOST_IMAGES)
    )
    if not fits:
        return None
    return {
        **together(capability),
        "ACTIVATION": first.activation.upper(),
        "LOSS": program.loss.upper(),
        "BLOCKS": BLOCKS,
        "BATCH": MOST_IMAGES,
        "INPUTS": inputs,
        "HIDDEN": hidden,
        "OUTPUTS": outputs,
    }


def together(capability: int) -> Constants:
    """Return the options of grid.cuh: how blocks that wait for each other run at the same time."""
    return {"CLUSTER": 1} if capability >= LEAST_CAPABILITY_WITH_CLUSTERS else {}


def _gives_logits(stage: Stage) -> bool:
    is_plain = stage.bias is not None and stage.activation == "identity"
    return is_plain and stage.output_shape[0] <= MOST_CLASSES


def _fits_shared_memory(numbers: int, program: TrainingProgram, *, more_bytes: int) -> bool:
    alignment = 8
    size = 8 if program.dtype == "float64" else 4
    return numbers * size + more_bytes + alignment <= MOST_SHARED_BYTES
