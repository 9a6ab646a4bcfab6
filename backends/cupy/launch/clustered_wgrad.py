"""Launch of kernels/clustered_wgrad.cu, and the layers whose gradients it computes."""

from collections.abc import Sequence
from dataclasses import replace

from backends.cupy.launch.clusters import BLOCKS
from backends.cupy.launch.fused_mlp import FusedMlp
from backends.cupy.launch.graph_batch import GraphBatch
from backends.cupy.launch.launcher import Launcher, c_type, ceil_div, fits_shared_memory
from backends.cupy.launch.wgrad_update import MAX_LAYERS, SplitK, WgradLayer, update_arguments
from backends.cupy.loader import Constant
from backends.operations.common import Array
from backends.operations.updates import UpdateRule

THREADS = 384
# With 28 rows, the layers of `two-layer` have 31 tiles, so that 16 clusters compute all.
ROWS, SPLITS, IMAGES = 28, 4, 64
# With fewer images, sending the partial sums takes longer than the blocks save.
MIN_IMAGES = 256


def can_compute(mlp: FusedMlp | None, batch_size: int) -> bool:
    """Return whether the kernel computes the gradients of the layers of a fused step."""
    if mlp is None or batch_size < MIN_IMAGES:
        return False
    columns = _columns(mlp.hidden, mlp.outputs)
    tiles = ROWS * columns // 16
    reals = max(IMAGES * (ROWS + columns), THREADS // tiles * ROWS * columns) + ROWS * columns
    return tiles <= THREADS and fits_shared_memory(reals, mlp.dtype, more_bytes=16)


def clustered_wgrad(
    launcher: Launcher,
    rule: UpdateRule,
    layers: Sequence[WgradLayer],
    batch: GraphBatch,
    parameters: Sequence[Array],
    *,
    l2: float = 0.0,
) -> None:
    """Compute the same as `wgrad_update`, whose arguments are described there."""
    own = [replace(layer, split=_split(layer), partial_sums=None) for layer in layers]
    blocks = sum(layer.split.blocks for layer in own)
    constants: dict[str, Constant] = {
        "RULE": rule.kind.upper(),
        "PIXEL": c_type(batch.dataset.images),
        "MAX_LAYERS": MAX_LAYERS,
        "BLOCKS": BLOCKS,
        "SPLITS": SPLITS,
        "ROWS": ROWS,
        "COLUMNS": _columns(*(layer.outputs for layer in layers)),
        "IMAGES": IMAGES,
        "THREADS": THREADS,
    }
    launcher.kernel("clustered_wgrad", "clustered_wgrad", constants)(
        (ceil_div(blocks + 1, BLOCKS) * BLOCKS,),
        THREADS,
        blocks=blocks,
        **update_arguments(launcher, rule, own, batch, parameters),
        l2=l2,
    )


def _columns(*outputs: int) -> int:
    """Return the columns of a tile: those of the widest layer, in whole vectors."""
    return ceil_div(max(outputs), 4) * 4


def _split(layer: WgradLayer) -> SplitK:
    """Return how the gradient of a layer is divided among blocks."""
    return SplitK(ceil_div(layer.inputs + 1, ROWS), SPLITS, layer.outputs * (layer.inputs + 1))
