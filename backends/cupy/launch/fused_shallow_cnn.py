"""Launch of kernels/fused_shallow_cnn.cu, and the programs whose steps it computes."""

import math
from dataclasses import dataclass

from backends.cupy.launch.fused_classifier import TARGET_BLOCKS, computes_logits
from backends.cupy.launch.graph_batch import GraphBatch
from backends.cupy.launch.launcher import Launcher, ceil_div, fits_shared_memory
from backends.cupy.launch.losses import NUMBERS
from backends.cupy.launch.wgrad_update import SplitK
from backends.cupy.loader import WARP_SIZE, Constant
from backends.operations.common import Array
from backends.program import TrainingProgram

MAX_IMAGES_PER_BLOCK = 4
# Weights of the linear layer, and taps, that a thread keeps in registers. It has 168 registers if
# there are 12 warps. In float64 they would not suffice.
MAX_FILTERS_PER_THREAD = 4
MAX_NUMBERS_PER_THREAD = 40
MAX_WARPS = 12
BANKS = 32  # of shared memory; the distance of two rows of pixels is padded by less than this


@dataclass(frozen=True)
class FusedShallowCnn:
    """A pooled convolution and a linear layer with a loss, and how blocks divide them.

    Attributes:
        program: the program with these two layers.
        batch_size: number of images of the largest batch.
        filters_per_thread: number of filters of which a thread computes a cell.
        images_per_block: number of images that a block computes.
    """

    program: TrainingProgram
    batch_size: int
    filters_per_thread: int
    images_per_block: int

    @property
    def blocks(self) -> int:
        """Number of blocks, each of which stores sums of the filters' gradients."""
        return ceil_div(self.batch_size, self.images_per_block)

    @property
    def split(self) -> SplitK:
        """The division of the filters' gradients among blocks."""
        convolution = self.program.stages[0]
        filters = convolution.output_shape[0]
        return SplitK(1, self.blocks, filters * (convolution.kernel_size**2 + 1))

    @property
    def warps(self) -> int:
        """Warps per block: one for each warp size of cells and each group of filters."""
        filters, *cells = self.program.stages[0].output_shape
        return filters // self.filters_per_thread * ceil_div(math.prod(cells), WARP_SIZE)

    @property
    def fits(self) -> bool:
        """Whether a block has few enough warps and fits the shared memory."""
        convolution, linear = self.program.stages
        _, height, width = convolution.input_shape
        taps, classes = convolution.kernel_size**2, linear.output_shape[0]
        images, warps = self.images_per_block, self.warps
        # The members of struct `Shared`.
        reals = (
            images * (height + 1) * (width + 1 + BANKS // 2) + convolution.output_shape[0] * taps
        )
        reals += warps * (WARP_SIZE * classes + images * classes + self.filters_per_thread * taps)
        reals += images * (classes + 3) + classes
        return warps <= MAX_WARPS and fits_shared_memory(
            reals,
            self.program.dtype,
            more_bytes=4 * images + 64,  # with alignment
        )

    @property
    def constants(self) -> dict[str, Constant]:
        """Options of fused_shallow_cnn.cu that do not depend on the data set."""
        convolution, linear = self.program.stages
        assert convolution.pooling is not None
        _, height, width = convolution.input_shape
        return {
            "ACTIVATION": convolution.activation.upper(),
            "LOSS": self.program.loss.upper(),
            "ALL_TIES": int(convolution.pooling.ties == "all"),
            "KERNEL_SIZE": convolution.kernel_size,
            "FILTERS": convolution.output_shape[0],
            "HEIGHT": height,
            "WIDTH": width,
            "CLASSES": linear.output_shape[0],
            "FILTERS_PER_THREAD": self.filters_per_thread,
            "IMAGES_PER_BLOCK": self.images_per_block,
        }


@dataclass(frozen=True)
class ShallowCnnParameters:
    """Offsets in the parameter vector; a struct of fused_shallow_cnn.cu."""

    filters: int
    weight: int
    bias: int


@dataclass(frozen=True)
class ShallowCnnResults:
    """Arrays that the kernel sets; a struct of fused_shallow_cnn.cu describes them."""

    features: Array
    dlogits: Array
    filter_sums: Array


def fused_shallow_cnn_for(program: TrainingProgram, batch_size: int) -> FusedShallowCnn | None:
    """Return the argument of the kernel for a program; None if it cannot compute the program.

    Args:
        program: the program, whose examples have no weights.
        batch_size: number of images of the largest batch.
    """
    if not _has_layers(program):
        return None
    convolution, linear = program.stages
    largest = max(convolution.kernel_size**2, linear.output_shape[0])
    per_thread = min(MAX_FILTERS_PER_THREAD, MAX_NUMBERS_PER_THREAD // largest)
    while per_thread and convolution.output_shape[0] % per_thread:
        per_thread -= 1
    images = 1
    while images < MAX_IMAGES_PER_BLOCK and images * TARGET_BLOCKS < batch_size:
        images *= 2
    while images and per_thread:
        cnn = FusedShallowCnn(program, batch_size, per_thread, images)
        if cnn.fits:
            return cnn
        images //= 2
    return None


def _has_layers(program: TrainingProgram) -> bool:
    """Return whether a program has the layers that the kernel computes, and is of float32."""
    if [stage.kind for stage in program.stages] != ["conv2d", "linear"]:
        return False
    convolution, linear = program.stages
    return (
        program.dtype == "float32"
        and program.loss != NUMBERS
        and convolution.input_shape[0] == 1
        and convolution.bias is None
        and convolution.padding == 0
        and convolution.pooling is not None
        and computes_logits(linear)
    )


def fused_shallow_cnn(
    launcher: Launcher,
    cnn: FusedShallowCnn,
    parameters: Array,
    offsets: ShallowCnnParameters,
    batch: GraphBatch,
    results: ShallowCnnResults,
) -> None:
    """Compute both layers, the loss and correctness of each image, and the gradients.

    `parameters` is the parameter vector.
    """
    constants, arguments = launcher.stage_input(batch)
    losses, correct = batch.state.image_losses, batch.state.image_correct
    launcher.kernel("fused_shallow_cnn", "fused_shallow_cnn", constants | cnn.constants)(
        (cnn.blocks,),
        cnn.warps * WARP_SIZE,
        **arguments,
        labels=batch.dataset.labels,
        parameters=parameters,
        offsets=offsets,
        member_stride=launcher.member_stride,
        results={**vars(results), "losses": losses, "correct": correct},
    )
