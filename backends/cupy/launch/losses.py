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
    labels: Array | None,
    dlogits: Array,
    losses: Array,
    correct: Array,
) -> None:
    """Set the gradient of the mean loss, and the loss and correctness of each image.

    Args:
        launcher: launches the kernel.
        kind: one of `LOSSES`.
        logits: (B, classes), or any shape (B, …) with as many elements per image.
        labels: (B,), int32 or int64; None in a graph step, which has the labels of its batch.
        dlogits: set to the gradient, like `logits`.
        losses: set to the loss of each image, (B,).
        correct: set to 1 for each image whose largest logit is that of its label, else 0, (B,),
            int32.
    """
    selection = launcher.labels(labels)
    constants = {"LOSS": kind.upper(), "LABEL": c_type(selection["labels"])}
    launcher.kernel("losses", "loss", constants)(
        (ceil_div(len(logits), THREADS // WARP_SIZE),),
        THREADS,
        logits=logits,
        **selection,
        classes=math.prod(logits.shape[1:]),
        batch=launcher.batch(len(logits)),
        dlogits=dlogits,
        losses=losses,
        correct=correct,
    )
