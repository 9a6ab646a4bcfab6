"""Launch of kernels/fused_cnn.cu, and the programs whose steps it computes."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from backends.cupy.launch.clusters import BLOCKS, MIN_CAPABILITY
from backends.cupy.launch.conv_shape import ConvShape, conv_shape_of
from backends.cupy.launch.fused_classifier import computes_logits
from backends.cupy.launch.graph_batch import GraphBatch
from backends.cupy.launch.launcher import Launcher, ceil_div, fits_shared_memory
from backends.cupy.launch.losses import NUMBERS
from backends.cupy.launch.wgrad_update import SplitK
from backends.cupy.loader import WARP_SIZE, Constant
from backends.operations.common import Array
from backends.program import ActivationKind, LossKind, Stage, TrainingProgram

# With 64 images, 16 clusters of 8 blocks occupy 128 multiprocessors. Clusters of 4 blocks for 2
# images would occupy as many, but read each weight twice as often.
IMAGES = 4  # of a cluster
BLOCKS_PER_IMAGE = BLOCKS // IMAGES
THREADS = 512
COLUMNS_PER_BLOCK = 16  # largest number of columns of the first linear layer in a block
MAX_INPUTS, MAX_OUTPUTS = THREADS, BLOCKS * COLUMNS_PER_BLOCK  # of the first linear layer
# A large GPU runs the clusters of 128 images in two waves. In larger batches, one kernel per
# convolution and a classifier that reads each weight for several images take less time.
MAX_IMAGES = 128
MAX_KERNEL_SIZE = 7  # a row of a patch, or of a map, is kept in registers
MAX_WIDTH = 32  # of the input of the second convolution
MAX_FILTERS = BLOCKS_PER_IMAGE * THREADS // WARP_SIZE  # of the first convolution
_BANKS = 32  # of shared memory


@dataclass(frozen=True)
class FusedCnn:
    """Two pooled convolutions, two or three linear layers, and the loss.

    Attributes:
        dtype: "float32" or "float64".
        loss: the loss.
        convolutions: sizes of the convolutions.
        outputs: outputs of each linear layer.
    """

    dtype: str
    loss: LossKind
    convolutions: tuple[ConvShape, ConvShape]
    outputs: tuple[int, ...]

    @property
    def fits(self) -> bool:
        """Whether the sizes fit the division of work among threads, and the shared memory."""
        first, second = self.convolutions
        return (
            first.filters % BLOCKS_PER_IMAGE == 0
            and second.filters % 4 == 0
            and max(first.kernel_size, second.kernel_size) <= MAX_KERNEL_SIZE
            and second.width <= MAX_WIDTH
            and first.filters <= MAX_FILTERS
            and 0 < self._inputs <= MAX_INPUTS
            and self.outputs[0] <= MAX_OUTPUTS
            and fits_shared_memory(self._shared_reals, self.dtype, more_bytes=self._shared_bytes)
        )

    @property
    def constants(self) -> dict[str, Constant]:
        """Options of fused_cnn.cu that do not depend on the data set."""
        first, second = self.convolutions
        return {
            "LOSS": self.loss.upper(),
            "IMAGE_CHANNELS": first.channels,
            "IMAGE_HEIGHT": first.height,
            "IMAGE_WIDTH": first.width,
            "FILTERS1": first.filters,
            "KERNEL_SIZE1": first.kernel_size,
            "PADDING1": first.padding,
            "FILTERS2": second.filters,
            "KERNEL_SIZE2": second.kernel_size,
            "PADDING2": second.padding,
            "LAYERS": len(self.outputs),
            "FIRST": self.outputs[0],
            "SECOND": self.outputs[1],
            "CLASSES": self.outputs[-1],
            "IMAGES": IMAGES,
            "CLUSTER_BLOCKS": BLOCKS,
            "COLUMNS_PER_BLOCK": COLUMNS_PER_BLOCK,
            "THREADS": THREADS,
        }

    @property
    def _inputs(self) -> int:
        """Inputs of the first linear layer."""
        return self.convolutions[1].filters * math.prod(_cells(self.convolutions[1]))

    @property
    def _shared_reals(self) -> int:
        """Number of real numbers in the struct `Shared` of the kernel."""
        (first, second), classes = self.convolutions, self.outputs[-1]
        channels, units = first.filters // BLOCKS_PER_IMAGE, self.outputs[1]
        cells, warps = channels * math.prod(_cells(first)), THREADS // WARP_SIZE
        image, filter1 = _padded_elements(first, first.channels), _filter_elements(first)
        stage = max(
            THREADS * IMAGES + warps * COLUMNS_PER_BLOCK * IMAGES,
            BLOCKS * self._inputs,
            second.filters * _map_elements(second) + image,
        )
        buffer = max(
            2 * self._inputs + image,
            IMAGES * BLOCKS * units,
            2 * cells + max(2 * self._inputs, warps * (filter1 + 1)),
        )
        filters = channels * (filter1 + 1) + second.filters
        filters += channels * _taps_stride(second)
        linear = COLUMNS_PER_BLOCK * (units + 1) + units + classes
        linear += units * classes if len(self.outputs) == 3 else 1
        numbers = IMAGES * (2 * (COLUMNS_PER_BLOCK + units + classes) + 1)
        return stage + buffer + _padded_elements(second, channels) + filters + linear + numbers

    @property
    def _shared_bytes(self) -> int:
        """Number of bytes of the other members, with the gaps between members."""
        first, _ = self.convolutions
        cells = first.filters // BLOCKS_PER_IMAGE * math.prod(_cells(first))
        return cells + self._inputs + 8 * IMAGES + 8 + 6 * 16


@dataclass(frozen=True)
class CnnLayer:
    """A layer with parameters; a struct of kernels/fused_cnn.cuh, which describes the fields."""

    y: Array | None
    dy: Array | None
    partial_sums: Array | None
    weight: int
    bias: int
    activation: ActivationKind


def split_images(shape: ConvShape, batch_size: int) -> SplitK:
    """Return how the gradient of a convolution is divided: into one partial sum per image."""
    parameters = shape.filters * (_filter_elements(shape) + 1)
    return SplitK(units=1, splits=IMAGES * ceil_div(batch_size, IMAGES), parameters=parameters)


def fused_cnn_for(
    program: TrainingProgram, stages: Sequence[Stage], batch_size: int, *, capability: int
) -> FusedCnn | None:
    """Return the argument of the kernel; None if it cannot compute a program.

    Args:
        program: the program.
        stages: its stages, the first of which gathers the images.
        batch_size: number of images of the largest batch.
        capability: compute capability of the GPU, such as 90 for 9.0.
    """
    kinds = [stage.kind for stage in stages]
    if (
        capability < MIN_CAPABILITY
        or batch_size > MAX_IMAGES
        or kinds not in (["conv2d"] * 2 + ["linear"] * layers for layers in (2, 3))
        or any(s.fused_pooling is None or s.fused_pooling.ties != "first" for s in stages[:2])
        or program.loss == NUMBERS
        or not computes_logits(stages[-1])
    ):
        return None
    first, second = (conv_shape_of(stage) for stage in stages[:2])
    outputs = tuple(stage.output_shape[0] for stage in stages[2:])
    cnn = FusedCnn(program.dtype, program.loss, (first, second), outputs)
    return cnn if cnn.fits else None


def fused_cnn(
    launcher: Launcher,
    cnn: FusedCnn,
    parameters: Array,
    layers: Sequence[CnnLayer],
    batch: GraphBatch,
) -> None:
    """Compute all layers, the loss and correctness of each image, and the gradients.

    The gradients are those of the pre-activations of the linear layers, and, for each image, those
    of the parameters of the convolutions.

    Args:
        launcher: launches the kernel.
        cnn: the sizes.
        parameters: the parameter vector.
        layers: the convolutions and the linear layers.
        batch: the batch.
    """
    constants, arguments = launcher.stage_input(batch)
    launcher.kernel("fused_cnn", "fused_cnn", constants | cnn.constants)(
        (BLOCKS * ceil_div(len(batch), IMAGES),),
        THREADS,
        **arguments,
        layers={"convolutions": layers[:2], "linear": layers[2:]},
        parameters=parameters,
        labels=batch.dataset.labels,
        member_stride=launcher.member_stride,
        losses=batch.state.image_losses,
        correct=batch.state.image_correct,
    )


def _cells(shape: ConvShape) -> tuple[int, int]:
    """Return the rows and columns of cells of a pooled convolution."""
    border = 2 * shape.padding - shape.kernel_size + 1
    return (shape.height + border) // 2, (shape.width + border) // 2


def _map_elements(shape: ConvShape) -> int:
    """Return the elements from one map to the next."""
    return (math.prod(_cells(shape)) * 2 | 1) * 2


def _filter_elements(shape: ConvShape) -> int:
    return shape.channels * shape.kernel_size**2


def _taps_stride(shape: ConvShape) -> int:
    """Return the elements from the taps of one channel to those of the next."""
    return (shape.kernel_size**2 * (shape.filters + 2) + 23) // 32 * 32 + 8


def _padded_elements(shape: ConvShape, channels: int) -> int:
    """Return the elements of the padded input."""
    rows, columns = shape.height + 2 * shape.padding, shape.width + 2 * shape.padding
    return channels * rows * _row_stride(columns, shape.kernel_size) + 2


def _row_stride(columns: int, kernel_size: int) -> int:
    """Return the elements from one row to the next, as `row_stride` of the kernel."""
    smallest = 2 * ceil_div(columns, 2)

    def has_conflicts(stride: int) -> bool:
        distances = (i * stride % _BANKS for i in range(1, kernel_size))
        return any(not kernel_size <= d <= _BANKS - kernel_size for d in distances)

    strides = range(smallest, smallest + _BANKS, 2)
    return next((stride for stride in strides if not has_conflicts(stride)), smallest)
