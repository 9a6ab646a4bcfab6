"""Launch of kernels/fused_classifier.cu: the end of a network, forward and backward."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from backends.cupy.launch.conv_shape import (
    MAX_CHANNELS_PER_THREAD,
    PIXEL_TILE,
    ConvShape,
    channels_per_thread,
)
from backends.cupy.launch.graph_batch import GraphBatch
from backends.cupy.launch.launcher import Launcher, ceil_div
from backends.cupy.launch.tiles import LARGE, tile_for
from backends.cupy.launch.wgrad_update import MAX_LAYERS
from backends.cupy.loader import WARP_SIZE
from backends.operations.common import Array
from backends.program import ActivationKind, LossKind, Stage

MAX_CLASSES = WARP_SIZE  # one lane per class
MIN_THREADS, MAX_THREADS = 128, 512  # threads per block
# Products of the largest layer per thread. With fewer, threads would mostly wait for each other.
PRODUCTS_PER_THREAD = 16
# About the number of multiprocessors of a large GPU. Each block reads all weights, so if a batch
# has more images than this, a block processes several images, at most MAX_IMAGES_PER_BLOCK. With
# tiles, a block processes as many images as a tile has rows.
TARGET_BLOCKS = 128
MAX_IMAGES_PER_BLOCK = 8
# Maximum number of weights of a fused layer. Each block reads all weights of its layers, and in a
# larger layer, reading would take longer than computing. Such a layer is launched separately, in a
# kernel that reads each weight once for 16 images or more.
MAX_WEIGHTS = 1 << 16


def computes_logits(stage: Stage) -> bool:
    """Return whether a stage is a linear layer without activation, with at most 32 outputs."""
    kind = stage.kind, stage.activation
    return kind == ("linear", "identity") and stage.output_shape[0] <= MAX_CLASSES


@dataclass(frozen=True)
class ClassifierLayer:
    """A linear layer; kernels/fused_classifier.cuh describes the fields."""

    x: Array
    dx: Array | None
    weight: int
    bias: int
    inputs: int
    outputs: int
    activation: ActivationKind


@dataclass(frozen=True)
class ClassifierConv:
    """A convolution before the linear layers; kernels/fused_classifier.cuh describes the fields."""

    x: Array
    dy: Array
    mask: Array | None
    dx: Array
    weight: int
    activation: ActivationKind
    shape: ConvShape


@dataclass(frozen=True)
class Classifier:
    """The layers that are computed together with the loss.

    Attributes:
        dtype: "float32" or "float64".
        batch_size: number of images of the largest batch.
        layers: linear layers, one or more, the last with at most `MAX_CLASSES` outputs.
        convolutions: convolutions through which the gradient is propagated, from the last to the
            first, all with filters of one size.
    """

    dtype: str
    batch_size: int
    layers: Sequence[ClassifierLayer]
    convolutions: Sequence[ClassifierConv]

    @property
    def uses_tiles(self) -> bool:
        """Whether a block processes as many images as a tile has rows."""
        widest = max(layer.outputs for layer in self.layers)
        columns = min(widest, LARGE.columns)  # a block computes all columns of its rows
        return not self.convolutions and tile_for(self.dtype, self.batch_size, columns) == LARGE

    @property
    def images_per_block(self) -> int:
        """Number of images that a block processes."""
        if self.uses_tiles:
            return LARGE.rows
        images = 1
        while images < MAX_IMAGES_PER_BLOCK and images * TARGET_BLOCKS < self.batch_size:
            images *= 2
        return images

    @property
    def threads(self) -> int:
        """Threads per block."""
        if self.uses_tiles:
            return LARGE.threads
        if self.convolutions:
            return MAX_THREADS
        largest = max(layer.inputs * layer.outputs for layer in self.layers)
        products = self.images_per_block * largest
        threads = products // PRODUCTS_PER_THREAD // WARP_SIZE * WARP_SIZE
        return max(MIN_THREADS, min(MAX_THREADS, threads))

    @property
    def constants(self) -> dict[str, int]:
        """Options of fused_classifier.cu except the loss."""
        return {
            "IMAGES_PER_BLOCK": self.images_per_block,
            "MAX_THREADS": LARGE.threads if self.uses_tiles else MAX_THREADS,
            "MAX_LAYERS": MAX_LAYERS,
            "KERNEL_SIZE": self.convolutions[0].shape.kernel_size if self.convolutions else 0,
            "CHANNELS_PER_THREAD": self._channels_per_thread(),
            "PIXEL_TILE": PIXEL_TILE,
            **(LARGE.constants if self.uses_tiles else {}),
        }

    def _channels_per_thread(self) -> int:
        if not self.convolutions:
            return 1
        shapes = [conv.shape for conv in self.convolutions]
        return channels_per_thread(
            math.gcd(*(shape.channels for shape in shapes)),
            maximum=MAX_CHANNELS_PER_THREAD,
            threads=self.images_per_block * max(s.input_gradient_threads for s in shapes),
            target_threads=MAX_THREADS // 2,
        )


def fused_classifier(
    launcher: Launcher,
    loss: LossKind,
    classifier: Classifier,
    parameters: Array,
    batch: GraphBatch,
    dlogits: Array,
) -> None:
    """Compute the layers, the loss and correctness of each image, and the gradients.

    The arrays `dx` of the layers are set, and `dlogits` (B, classes) to the gradient of the mean
    loss. `parameters` is the parameter vector.
    """
    kernel = launcher.kernel(
        "fused_classifier", "fused_classifier", {"LOSS": loss.upper(), **classifier.constants}
    )
    kernel(
        (ceil_div(classifier.batch_size, classifier.images_per_block),),
        classifier.threads,
        layers={
            "linear": classifier.layers,
            "convolutions": classifier.convolutions,
            "linear_count": len(classifier.layers),
            "convolution_count": len(classifier.convolutions),
        },
        parameters=parameters,
        labels=batch.dataset.labels,
        rows=batch.chunk.rows,
        batch=launcher.batch(len(batch)),
        member_stride=launcher.member_stride,
        dlogits=dlogits,
        losses=batch.state.image_losses,
        correct=batch.state.image_correct,
    )
