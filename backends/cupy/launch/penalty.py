"""Launch of kernels/penalty.cu."""

from collections.abc import Sequence

from backends.cupy.launch.graph_batch import GraphBatch
from backends.cupy.launch.launcher import Launcher
from backends.cupy.launch.wgrad_update import MAX_LAYERS
from backends.operations.common import Array

THREADS = 1024


def penalty(
    launcher: Launcher,
    weights: Array,
    layers: Sequence[tuple[int, int]],
    l2: float,
    batch: GraphBatch,
) -> None:
    """Add the L2 penalty to the loss of the batch.

    Args:
        launcher: launches the kernel.
        weights: the parameter vector.
        layers: for each layer, the position of its weights in the vector and their number.
        l2: α of ½·α·‖W‖² / B.
        batch: the batch, whose losses are computed already.
    """
    begins, lengths = zip(*layers, strict=True)
    launcher.kernel("penalty", "penalty", {"MAX_LAYERS": MAX_LAYERS, "THREADS": THREADS})(
        (1,),
        THREADS,
        weights=weights,
        layers={"begins": begins, "lengths": lengths, "count": len(layers)},
        l2=l2,
        state=batch.state,
        member_stride=launcher.member_stride,
    )
