"""Launches of the losses and of their outputs."""

import math

from backends.cupy.launch.launcher import THREADS, Launcher, c_type, ceil_div
from backends.cupy.loader import WARP_SIZE, Constant, source
from backends.cupy.signature import enumerators
from backends.operations.common import Array

LOSSES = enumerators(source("losses"), "Loss")  # kinds of losses that have a kernel
NUMBERS = "squared_error"  # the loss whose targets are numbers; no fused kernel computes it


def loss(
    launcher: Launcher,
    kind: str,
    logits: Array,
    targets: Array,
    weights: Array | None,
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
        targets: labels of the batch, int32 or int64, or numbers (B, …) for "squared_error"; in a
            graph step, those of the data set.
        weights: factors of the losses, for the same images as `targets`; None for 1.
        rows: in a graph step `Chunk.rows`, which select targets and weights; else None.
        dlogits: set to the gradient, in the shape of `logits`.
        losses: set to the losses.
        correct: int32, set to 1 for a correct prediction, else 0.
    """
    constants: dict[str, Constant] = {"LOSS": kind.upper(), "TARGET": c_type(targets)}
    constants["WEIGHTED"] = int(weights is not None)
    launcher.kernel("losses", "loss", constants)(
        (ceil_div(len(logits), THREADS // WARP_SIZE),),
        THREADS,
        logits=logits,
        targets=targets,
        weights=weights,
        rows=rows,
        classes=math.prod(logits.shape[1:]),
        batch=launcher.batch(len(logits)),
        member_stride=launcher.member_stride,
        dlogits=dlogits,
        losses=losses,
        correct=correct,
    )


def loss_outputs(launcher: Launcher, kind: str, logits: Array, outputs: Array) -> None:
    """Set `outputs` (B, classes) to the softmax or the sigmoid of `logits`.

    Args:
        launcher: launches the kernel.
        kind: one of `LOSSES` except "squared_error", whose outputs are the logits.
        logits: (B, …); the elements of an image are its logits.
        outputs: in the shape of `logits`.
    """
    # The kernel reads no targets; their type is that of eager losses, which use the same module.
    constants: dict[str, Constant] = {"LOSS": kind.upper(), "TARGET": "int64", "WEIGHTED": 0}
    launcher.kernel("losses", "loss_outputs", constants)(
        (ceil_div(len(logits), THREADS // WARP_SIZE),),
        THREADS,
        logits=logits,
        classes=math.prod(logits.shape[1:]),
        batch=launcher.batch(len(logits)),
        outputs=outputs,
    )
