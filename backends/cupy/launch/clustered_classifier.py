"""Launch of kernels/clustered_classifier.cu: the fused classifier for clusters of blocks."""

import math

from backends.cupy.launch import clusters
from backends.cupy.launch.conv_shape import ConvShape, channels_per_thread
from backends.cupy.launch.fused_classifier import Classifier, classifier_arguments
from backends.cupy.launch.graph_batch import GraphBatch
from backends.cupy.launch.launcher import Launcher, ceil_div, fits_shared_memory
from backends.cupy.launch.wgrad_update import MAX_LAYERS
from backends.cupy.loader import WARP_SIZE, Constant
from backends.operations.common import Array
from backends.program import LossKind

# With 64 images, 16 clusters of 8 blocks occupy 128 multiprocessors. Clusters of 4 blocks for 2
# images would occupy as many, but read each weight twice as often.
IMAGES = 4  # of a cluster
THREADS = 512
COLUMNS_PER_BLOCK = 16  # largest number of columns of the first layer that a block computes
MAX_INPUTS, MAX_OUTPUTS = THREADS, clusters.BLOCKS * COLUMNS_PER_BLOCK  # of the first layer
# A large GPU runs the clusters of 128 images in two waves, which by estimate still take less time
# than one block per image. In larger batches, a block of fused_classifier.cu also reads each weight
# for several images.
MAX_IMAGES = 128
MAX_STRIP = 8  # pixels whose gradients a thread computes together
MAX_CHANNELS_PER_THREAD = 8
MAX_KERNEL_SIZE = 7  # the gradients for a row of a filter are kept in registers


def can_compute(classifier: Classifier, capability: int) -> bool:
    """Return whether clusters can compute these layers on a GPU with this compute capability."""
    layers, convolutions = classifier.layers, classifier.convolutions
    return (
        capability >= clusters.MIN_CAPABILITY
        and classifier.batch_size <= MAX_IMAGES
        and len(layers) in (2, 3)
        and len(convolutions) == 1
        and convolutions[0].shape.kernel_size <= MAX_KERNEL_SIZE
        and layers[0].inputs <= MAX_INPUTS
        and layers[0].outputs <= MAX_OUTPUTS
        and fits_shared_memory(_shared_reals(classifier), classifier.dtype, more_bytes=8 * IMAGES)
    )


def clustered_classifier(
    launcher: Launcher,
    loss: LossKind,
    classifier: Classifier,
    parameters: Array,
    batch: GraphBatch,
    dlogits: Array,
) -> None:
    """Compute what `fused_classifier` computes; the arguments are the same."""
    constants = {"LOSS": loss.upper(), **_constants(classifier)}
    kernel = launcher.kernel("clustered_classifier", "clustered_classifier", constants)
    kernel(
        (clusters.BLOCKS * ceil_div(classifier.batch_size, IMAGES),),
        THREADS,
        **classifier_arguments(launcher, classifier, parameters, batch, dlogits),
    )


def _constants(classifier: Classifier) -> dict[str, Constant]:
    """Return the options of clustered_classifier.cu except the loss."""
    first, second, *_ = classifier.layers
    shape = classifier.convolutions[0].shape
    strip = ceil_div(shape.width, ceil_div(shape.width, MAX_STRIP))
    lanes = 1 << min(WARP_SIZE, shape.filters).bit_length() - 1
    rows = ceil_div(shape.height, clusters.BLOCKS // IMAGES)  # that a block computes
    channels = channels_per_thread(
        shape.channels,
        maximum=MAX_CHANNELS_PER_THREAD,
        threads=rows * ceil_div(shape.width, strip) * lanes,
        target_threads=THREADS // 4,
    )
    return {
        "LAYERS": len(classifier.layers),
        "INPUTS": first.inputs,
        "FIRST": first.outputs,
        "SECOND": second.outputs,
        "CLASSES": classifier.layers[-1].outputs,
        "IMAGES": IMAGES,
        "CLUSTER_BLOCKS": clusters.BLOCKS,
        "COLUMNS_PER_BLOCK": COLUMNS_PER_BLOCK,
        "THREADS": THREADS,
        "MAX_LAYERS": MAX_LAYERS,
        "CHANNELS": shape.channels,
        "HEIGHT": shape.height,
        "WIDTH": shape.width,
        "FILTERS": shape.filters,
        "KERNEL_SIZE": shape.kernel_size,
        "PADDING": shape.padding,
        "POOL": shape.pool,
        "STRIP": strip,
        "CHANNELS_PER_THREAD": channels,
        "FILTER_LANES": lanes,
    }


def _shared_reals(classifier: Classifier) -> int:
    """Return the number of real numbers in the struct `Shared` of the kernel."""
    first, second, *_ = classifier.layers
    classes, third = classifier.layers[-1].outputs, len(classifier.layers) == 3
    stage = max(
        THREADS * IMAGES + THREADS // WARP_SIZE * COLUMNS_PER_BLOCK * IMAGES,
        clusters.BLOCKS * first.inputs,
        _map_elements(classifier.convolutions[0].shape),
    )
    units = IMAGES * ((clusters.BLOCKS + 2) * second.outputs + 2 * (COLUMNS_PER_BLOCK + classes))
    weights = COLUMNS_PER_BLOCK * (second.outputs + 1) + second.outputs + classes
    weights += second.outputs * classes if third else 1
    return stage + units + weights + _filter_elements(classifier.convolutions[0].shape) + IMAGES


def _map_elements(shape: ConvShape) -> int:
    """Return the size of the gradients of all outputs before pooling, one map per filter."""
    border = 2 * shape.padding - shape.kernel_size + 1
    sides = ((side + border) // shape.pool * shape.pool for side in (shape.height, shape.width))
    return shape.filters * (math.prod(sides) | 1)


def _filter_elements(shape: ConvShape) -> int:
    return shape.filters * (shape.channels * shape.kernel_size**2 | 1)
