"""Which programs a single kernel trains from the first step of a section to the last.

The rule: batches of one image, and a network of the shape for which persistent.cu is written, small
enough that its linear layer fits the registers of a block and all else its shared memory. Then a
step is a few barriers of one block; as a graph it is a dozen launches, each with too little to do
for one multiprocessor. Larger batches keep more of a GPU busy than one block can.
"""

import math

from backends.cuda.loader import Constant
from backends.program import Program

THREADS = 512  # as in persistent.cu
MOST_NUMBERS_A_THREAD = 32  # of the linear layer's weights, in registers
MOST_SHARED_BYTES = 48 << 10
MOST_KERNEL_SIZE = 5
MOST_FILTERS = THREADS // 32
MOST_CLASSES = 32


def constants_of(program: Program) -> dict[str, Constant] | None:
    """Return what persistent.cu is to be compiled for; None where the rule excludes a program."""
    kinds = [stage.kind for stage in program.stages]
    if (
        kinds != ["conv2d", "linear"]
        or program.loss != "softmax_cross_entropy"
        or program.update.kind != "sgd"
    ):
        return None
    convolution, linear = program.stages
    channels, height, width = convolution.input_shape
    filters, (classes,) = convolution.output_shape[0], linear.output_shape
    features = math.prod(convolution.output_shape)
    size = convolution.kernel_size
    numbers_a_thread = -(-features // THREADS) * classes
    # As the structure `Shared` of persistent.cu has them.
    numbers = height * width + features + filters * size**2 * (1 + MOST_FILTERS // max(1, filters))
    numbers += classes * (2 + THREADS // 32)
    shared_bytes = numbers * (8 if program.dtype == "float64" else 4) + features
    fits = (
        channels == 1
        and convolution.pooling is not None
        and convolution.bias is None
        and convolution.padding == 0
        and linear.bias is not None
        and linear.activation == "identity"
        and size <= MOST_KERNEL_SIZE
        and filters <= MOST_FILTERS
        and classes <= MOST_CLASSES
        and numbers_a_thread <= MOST_NUMBERS_A_THREAD
        and shared_bytes + 8 <= MOST_SHARED_BYTES
    )
    if not fits:
        return None
    return {
        "ACTIVATION": convolution.activation.upper(),
        "KERNEL_SIZE": size,
        "FILTERS": filters,
        "HEIGHT": height,
        "WIDTH": width,
        "CLASSES": classes,
    }
