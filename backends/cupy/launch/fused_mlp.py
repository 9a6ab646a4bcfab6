"""Launch of kernels/fused_mlp.cu, and the programs whose steps it computes."""

from dataclasses import dataclass

from backends.cupy.launch.clusters import BLOCKS, MIN_CAPABILITY
from backends.cupy.launch.fused_classifier import computes_logits
from backends.cupy.launch.graph_batch import GraphBatch
from backends.cupy.launch.launcher import Launcher, ceil_div, fits_shared_memory
from backends.cupy.launch.losses import NUMBERS
from backends.cupy.launch.tiles import LARGE, tile_for
from backends.cupy.loader import Constant
from backends.operations.common import Array
from backends.program import ActivationKind, LossKind, TrainingProgram

THREADS = 256
TILE_IMAGES, TILE_COLUMNS = 8, 4  # of a thread
# The clusters that a large GPU runs at the same time with one block per multiprocessor. If a batch
# has more images than these clusters compute, a block computes several images.
TARGET_CLUSTERS = 16
MAX_IMAGES_PER_BLOCK = 4
# Inputs that a thread sums at least. With fewer, adding the sums of the threads would take longer.
MIN_INPUTS_PER_THREAD = 8


@dataclass(frozen=True)
class FusedMlp:
    """Two linear layers with a loss, and how a cluster divides them.

    Attributes:
        dtype: "float32" or "float64".
        inputs: inputs of the first layer.
        hidden: outputs of the first layer.
        outputs: outputs of the second layer.
        activation: activation of the first layer.
        loss: the loss.
        images_per_block: images that a block computes after the first layer.
    """

    dtype: str
    inputs: int
    hidden: int
    outputs: int
    activation: ActivationKind
    loss: LossKind
    images_per_block: int

    @property
    def images(self) -> int:
        """Images of a cluster."""
        return BLOCKS * self.images_per_block

    @property
    def block_inputs(self) -> int:
        """Inputs of a block."""
        return ceil_div(self.inputs, BLOCKS)

    @property
    def column_tiles(self) -> int:
        """Tiles across the first layer."""
        return ceil_div(self.hidden, TILE_COLUMNS)

    @property
    def splits(self) -> int:
        """Threads that divide the inputs of a tile; 0 if a block has more tiles than threads."""
        tiles = self.images // TILE_IMAGES * self.column_tiles
        return min(THREADS // tiles, ceil_div(self.block_inputs, MIN_INPUTS_PER_THREAD))

    @property
    def fits(self) -> bool:
        """Whether a block has enough threads and shared memory."""
        columns = TILE_COLUMNS * self.column_tiles
        # The members of struct `Shared`.
        reals = max(
            self.block_inputs * (self.images + 4 + columns), self.splits * self.images * columns
        )
        reals += self.images * columns + self.hidden * self.outputs + self.hidden + self.outputs
        reals += self.images_per_block * (self.hidden + self.outputs)
        has_threads = self.splits > 0 and self.hidden <= THREADS
        return has_threads and fits_shared_memory(reals, self.dtype, more_bytes=16)

    @property
    def constants(self) -> dict[str, Constant]:
        """Options of fused_mlp.cu that do not depend on the data set."""
        return {
            "INPUTS": self.inputs,
            "HIDDEN": self.hidden,
            "OUTPUTS": self.outputs,
            "ACTIVATION": self.activation.upper(),
            "LOSS": self.loss.upper(),
            "BLOCKS": BLOCKS,
            "IMAGES_PER_BLOCK": self.images_per_block,
            "SPLITS": self.splits,
            "THREADS": THREADS,
        }


@dataclass(frozen=True)
class MlpParameters:
    """Offsets of weights and biases in the parameter vector; a struct of fused_mlp.cu."""

    weight1: int
    bias1: int
    weight2: int
    bias2: int


@dataclass(frozen=True)
class MlpResults:
    """Arrays that the kernel sets: hidden units and gradients of the pre-activations."""

    hidden: Array
    dhidden: Array
    dlogits: Array


def fused_mlp_for(program: TrainingProgram, batch_size: int, *, capability: int) -> FusedMlp | None:
    """Return the argument of the kernel for a program; None if it cannot compute the program.

    In very large batches, large tiles or tensor cores compute the first layer faster.

    Args:
        program: the program.
        batch_size: number of images of the largest batch.
        capability: compute capability of the GPU, such as 90 for 9.0.
    """
    stages = program.stages
    if (
        capability < MIN_CAPABILITY
        or [stage.kind for stage in stages] != ["linear", "linear"]
        or program.loss == NUMBERS
        or not computes_logits(stages[1])
        or tile_for(program.dtype, batch_size, stages[0].output_shape[0]) == LARGE
    ):
        return None
    images = 1
    while images < MAX_IMAGES_PER_BLOCK and images * BLOCKS * TARGET_CLUSTERS < batch_size:
        images *= 2
    while images:
        mlp = FusedMlp(
            dtype=program.dtype,
            inputs=stages[0].input_shape[0],
            hidden=stages[0].output_shape[0],
            outputs=stages[1].output_shape[0],
            activation=stages[0].activation,
            loss=program.loss,
            images_per_block=images,
        )
        if mlp.fits:
            return mlp
        images //= 2
    return None


def fused_mlp(
    launcher: Launcher,
    mlp: FusedMlp,
    parameters: Array,
    offsets: MlpParameters,
    batch: GraphBatch,
    results: MlpResults,
) -> None:
    """Compute both layers, the loss and correctness of each image, and the gradients.

    `parameters` is the parameter vector. The losses are multiplied by the weights of the examples.
    """
    constants, arguments = launcher.stage_input(batch)
    weights = batch.dataset.weights
    constants |= {"WEIGHTED": int(weights is not None), **mlp.constants}
    launcher.kernel("fused_mlp", "fused_mlp", constants)(
        (BLOCKS * ceil_div(len(batch), mlp.images),),
        THREADS,
        **arguments,
        labels=batch.dataset.labels,
        sample_weights=weights,
        parameters=parameters,
        offsets=offsets,
        member_stride=launcher.member_stride,
        **vars(results),
        losses=batch.state.image_losses,
        correct=batch.state.image_correct,
    )
