"""Launches of the naive kernels in backends/cupy/kernels/naive/ that several families need.

Each function sets the same arrays as the function of backends/cupy/launch/ with its name.
"""

from typing import Any

from backends import TrainingProgram
from backends.cupy.launch.conv_shape import ConvShape
from backends.cupy.launch.graph_batch import GraphBatch
from backends.cupy.launch.launcher import ceil_div
from backends.cupy.loader import Constant
from backends.operations.common import Array, Ties
from benchmarks.gpu.bench_kernels.gpu import RATES, Gpu, rows_of

_THREADS = 128  # per block


def launch(
    gpu: Gpu, file: str, name: str, threads: int, *, mask_type: str = "", **arguments: Any
) -> None:
    """Launch a naive kernel with at least `threads` threads, or with one.

    Args:
        gpu: the GPU.
        file: the file in naive/, without its ending.
        name: the kernel, without "naive_".
        threads: number of threads.
        mask_type: type of tie masks, if the file has this option.
        arguments: arguments of the kernel.
    """
    constants: dict[str, Constant] = {"MASK": mask_type} if mask_type else {}
    block = min(threads, _THREADS)
    kernel = gpu.launcher.kernel(f"naive/{file}", f"naive_{name}", constants)
    kernel((ceil_div(threads, block),), block, **arguments)


def gather(gpu: Gpu, batch: GraphBatch, x: Array) -> None:
    """Set `x` (B, …) to the normalized images of a batch."""
    images = batch.dataset.images
    launch(
        gpu, "batches", "gather", x.size,
        images=images, rows=rows_of(batch), count=len(batch), pixels=images.shape[1],
        pixel_shift=batch.pixel_shift, batch=x,
    )  # fmt: skip


def linear(
    gpu: Gpu, x: Array, weight: Array, bias: Array | None, y: Array, activation: str
) -> None:
    """Set `y` (B, out) to activation(x W + bias)."""
    sizes = _linear_sizes(y, weight)
    launch(
        gpu, "linear", "linear", y.size,
        x=x, weight=weight, bias=bias, **sizes, activation=activation, y=y,
    )  # fmt: skip


def linear_backward_x(
    gpu: Gpu, dy: Array, weight: Array, x: Array, dx: Array, activation: str
) -> None:
    """Set `dx` to dy Wᵀ times the derivative of `activation`, which computed `x`."""
    sizes = _linear_sizes(dy, weight)
    launch(
        gpu, "linear", "linear_backward_x", dx.size,
        dy=dy, weight=weight, x=x, **sizes, activation=activation, dx=dx,
    )  # fmt: skip


def linear_backward_weight(
    gpu: Gpu, dy: Array, x: Array, dweight: Array, dbias: Array | None
) -> None:
    """Set `dweight` (in, out) to xᵀ dy, and `dbias` to the sum of the rows of dy."""
    threads = dweight.size + dweight.shape[1]
    sizes = _linear_sizes(dy, dweight)
    launch(
        gpu, "linear", "linear_backward_weight", threads,
        dy=dy, x=x, **sizes, dweight=dweight, dbias=dbias,
    )  # fmt: skip


def conv2d(
    gpu: Gpu,
    x: Array,
    weight: Array,
    bias: Array | None,
    y: Array,
    mask: Array | None,
    shape: ConvShape,
    *,
    activation: str,
    ties: Ties,
) -> None:
    """Set `y` to the activation of the convolution of `x`, and with pooling `mask` to tie masks."""
    launch(
        gpu, "convolution", "conv2d", y.size,
        x=x, weight=weight, bias=bias, conv=shape, images=len(y), all_ties=ties == "all",
        activation=activation, y=y, mask=mask,
    )  # fmt: skip


def conv2d_backward_x(
    gpu: Gpu,
    dy: Array,
    mask: Array | None,
    weight: Array,
    x: Array,
    dx: Array,
    shape: ConvShape,
    *,
    activation: str,
) -> None:
    """Set `dx` to the gradient of `x` times the derivative of `activation`, which computed `x`."""
    launch(
        gpu, "convolution", "conv2d_backward_x", dx.size,
        dy=dy, mask=mask, weight=weight, x=x, conv=shape, images=len(dx), activation=activation,
        dx=dx,
    )  # fmt: skip


def conv2d_backward_weight(
    gpu: Gpu,
    dy: Array,
    mask: Array | None,
    x: Array,
    dweight: Array,
    dbias: Array | None,
    shape: ConvShape,
) -> None:
    """Set the gradients of the filters and of the biases."""
    threads = dweight.size + shape.filters
    launch(
        gpu, "convolution", "conv2d_backward_weight", threads,
        dy=dy, mask=mask, x=x, conv=shape, images=len(dy), dweight=dweight, dbias=dbias,
    )  # fmt: skip


def loss(
    gpu: Gpu,
    kind: str,
    logits: Array,
    labels: Array,
    weights: Array | None,
    dlogits: Array,
    losses: Array,
    correct: Array,
) -> None:
    """Set the gradient of the mean loss, and the loss and correctness (B,) of each image."""
    images, classes = logits.shape
    launch(
        gpu, "losses", "loss", images,
        kind=kind, logits=logits, labels=labels, weights=weights, images=images, classes=classes,
        dlogits=dlogits, losses=losses, correct=correct,
    )  # fmt: skip


def settings_of(program: TrainingProgram, steps: int) -> dict[str, Any]:
    """Return the struct `NaiveSettings` of the persistent kernels."""
    first = program.stages[0]
    return {
        "loss": program.loss,
        "activation": first.activation,
        "steps": steps,
        "all_ties": first.pooling is not None and first.pooling.ties == "all",
        "lr": RATES[0],
        "pixel_shift": program.pixel_shift,
        "weight_decay": program.update.settings["weight_decay"],
    }


def _linear_sizes(y: Array, weight: Array) -> dict[str, Any]:
    inputs, outputs = weight.shape
    return {"images": len(y), "inputs": inputs, "outputs": outputs}
