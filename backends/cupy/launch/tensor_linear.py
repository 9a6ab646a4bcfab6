"""Launches of kernels/tensor_linear.cu and tensor_wgrad.cu, and the layers that they compute."""

from backends.cupy.launch.graph_batch import GraphBatch
from backends.cupy.launch.launcher import Launcher, ceil_div
from backends.cupy.launch.tiles import LARGE, tile_for
from backends.cupy.launch.wgrad_update import SplitK, WgradLayer
from backends.cupy.loader import WARP_SIZE
from backends.operations.common import Array
from backends.program import Stage, TrainingProgram

MIN_CAPABILITY = 80  # tensor cores multiply bfloat16
PIXELS_PER_WORD = 4
# The rows divide the 785 lines of a gradient of 28×28 pixels and a bias into five tiles, with 15
# lines left over.
TILE_ROWS, TILE_COLUMNS, TILE_WARPS = 160, 64, 4
TILE_THREADS = TILE_WARPS * WARP_SIZE
_TILE = {"TILE_ROWS": TILE_ROWS, "TILE_COLUMNS": TILE_COLUMNS, "TILE_WARPS": TILE_WARPS}

# The gradient of a layer gets two blocks per multiprocessor of a large GPU, but each block sums
# over at least MIN_IMAGES images; with fewer, adding the partial sums would take too long.
TARGET_BLOCKS = 264
MIN_IMAGES = 1024
MIN_SPLITS = 2  # with one split, a layer would have no partial sums


def can_compute(
    program: TrainingProgram, stage: Stage, batch_size: int, *, capability: int, pixels: str
) -> bool:
    """Return whether tensor cores compute the first stage.

    Args:
        program: the program.
        stage: its first stage.
        batch_size: number of images of the largest batch.
        capability: compute capability of the GPU, such as 90 for 9.0.
        pixels: dtype of the data set.
    """
    return (
        capability >= MIN_CAPABILITY
        and stage.kind == "linear"
        and program.dtype == "float32"
        and pixels == "uint8"
        and program.pixel_shift == 0
        and stage.input_shape[0] % PIXELS_PER_WORD == 0
        and tile_for("float32", batch_size, stage.output_shape[0]) == LARGE
    )


def split_images(inputs: int, outputs: int, images: int) -> SplitK:
    """Return how the gradient of the layer is divided; the units are tiles."""
    units = ceil_div(inputs + 1, TILE_ROWS) * ceil_div(outputs, TILE_COLUMNS)
    splits = max(MIN_SPLITS, min(TARGET_BLOCKS // units, images // MIN_IMAGES))
    return SplitK(units, splits, outputs * (inputs + 1))


def tensor_linear(
    launcher: Launcher,
    x: GraphBatch,
    weight: Array,
    bias: Array | None,
    y: Array,
    activation: str,
) -> None:
    """Set `y` (B, out) to activation(x W + bias)."""
    inputs, outputs = weight.shape
    constants, arguments = launcher.stage_input(x)
    constants |= {"ACTIVATION": activation.upper(), **_TILE}
    launcher.kernel("tensor_linear", "tensor_linear", constants)(
        (ceil_div(len(x), TILE_ROWS), ceil_div(outputs, TILE_COLUMNS)),
        TILE_THREADS,
        **arguments,
        weight=weight,
        bias=bias,
        inputs=inputs,
        outputs=outputs,
        member_stride=launcher.member_stride,
        y=y,
    )


def tensor_wgrad(launcher: Launcher, layer: WgradLayer, batch: GraphBatch) -> None:
    """Set `layer.partial_sums`, which `wgrad_update` adds.

    Args:
        launcher: launches the kernel.
        layer: the first layer.
        batch: the batch, whose size an earlier kernel has set.
    """
    first = layer.weight if layer.bias < 0 else min(layer.weight, layer.bias)
    launcher.kernel("tensor_wgrad", "tensor_wgrad", _TILE)(
        (layer.split.units, layer.split.splits),
        TILE_THREADS,
        x=batch.dataset.images,
        rows=batch.chunk.rows,
        batch=launcher.batch(len(batch)),
        dy=layer.dy,
        inputs=layer.inputs,
        outputs=layer.outputs,
        member_stride=launcher.member_stride,
        partial={
            "sums": layer.partial_sums,
            "parameters": layer.split.parameters,
            "weight": layer.weight - first,
            "bias": layer.bias - first if layer.bias >= 0 else -1,
        },
    )
