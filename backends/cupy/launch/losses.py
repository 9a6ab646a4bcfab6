"""Launch of the losses."""

import math

from backends.cupy.launch.launcher import THREADS, Launcher, c_type, ceil_div
from backends.cupy.loader import WARP_SIZE, source
from backends.cupy.signature import enumerators
from backends.operations.common import Array

LOSSES = enumerators(source("losses"), "Loss")  # kinds of losses that have a kernel


def loss(
    launcher: Launcher,
    kind: str,
    logits: Array,
    labels: Array,
    rows: Array | None,
    dlogits: Array,
    losses: Array,
    correct: Array,
) -> None:
    """Set the gradient of the mean loss, and the loss and correctness (B,) of each image.

    Args:
        launcher: launches the kernel.
        kind: one of `LOSSES`.
        logits: (B, …); the elements of an image are its logits.
        labels: labels of the batch, int32 or int64; in a graph step, labels of the data set.
        rows: in a graph step `Chunk.rows`, which select the labels; else None.
        dlogits: set to the gradient, in the shape of `logits`.
        losses: set to the losses.
        correct: int32, set to 1 for a correct prediction, else 0.
    """
    constants = {"LOSS": kind.upper(), "LABEL": c_type(labels)}
    launcher.kernel("losses", "loss", constants)(
        (ceil_div(len(logits), THREADS // WARP_SIZE),),
        THREADS,
        logits=logits,
        labels=labels,
        rows=rows,
        classes=math.prod(logits.shape[1:]),
        batch=launcher.batch(len(logits)),
        dlogits=dlogits,
        losses=losses,
        correct=correct,
    )
