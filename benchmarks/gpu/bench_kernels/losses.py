"""Losses, their outputs and the L2 penalty: losses.cu, penalty.cu."""

from collections.abc import Iterator

from backends.cupy.launch import losses, penalty
from benchmarks.gpu.bench_kernels import naive
from benchmarks.gpu.bench_kernels.comparison import Comparison, byte_count, pairs
from benchmarks.gpu.bench_kernels.gpu import Gpu

L2 = 0.1


def comparisons(gpu: Gpu) -> Iterator[Comparison]:
    """Yield losses of more classes than the fused classifier supports, and the L2 penalty."""
    for kind in losses.LOSSES:
        yield loss(gpu, kind, 512, 47)
    yield loss(gpu, "softmax_cross_entropy", 512, 10, is_weighted=True)
    for kind in ("softmax_cross_entropy", "quadratic"):
        yield loss_outputs(gpu, kind, 4096, 10)
    yield l2_penalty(gpu, 784 * 50, 50 * 10)  # two-layer


def loss(
    gpu: Gpu, kind: str, images: int, classes: int, *, is_weighted: bool = False
) -> Comparison:
    """Return a loss and its gradient."""
    logits, labels = gpu.random(images, classes), gpu.integers(0, classes, images)
    targets = gpu.random(images, classes) if kind == losses.NUMBERS else labels
    weights = gpu.positive(images) if is_weighted else None
    fast, slow = (
        (gpu.empty(images, classes), gpu.empty(images), gpu.cupy.zeros(images, "int32"))
        for _ in range(2)
    )

    def naive_loss() -> None:
        if kind != losses.NUMBERS:
            naive.loss(gpu, kind, logits, labels, weights, *slow)
            return
        naive.launch(
            gpu, "losses", "squared_error", images,
            logits=logits, targets=targets, images=images, outputs=classes, dlogits=slow[0],
            losses=slow[1],
        )  # fmt: skip

    return Comparison(
        kernel="loss, weighted" if is_weighted else "loss",
        sizes=f"{images} × {classes}, {kind}",
        fast=lambda: losses.loss(gpu.launcher, kind, logits, targets, weights, None, *fast),
        naive=naive_loss,
        results=lambda: pairs("dlogits losses correct", fast, slow),
        terms=classes,
        multiply_adds=0,
        moved=byte_count(logits, targets, weights, *fast),
    )


def loss_outputs(gpu: Gpu, kind: str, images: int, classes: int) -> Comparison:
    """Return the probabilities of predictions."""
    logits = gpu.random(images, classes)
    outputs, naive_outputs = gpu.empty(images, classes), gpu.empty(images, classes)

    def slow() -> None:
        sizes = {"images": images, "classes": classes}
        arguments = {"kind": kind, "logits": logits, **sizes, "outputs": naive_outputs}
        naive.launch(gpu, "losses", "loss_outputs", images, **arguments)

    return Comparison(
        kernel="loss_outputs",
        sizes=f"{images} × {classes}, {kind}",
        fast=lambda: losses.loss_outputs(gpu.launcher, kind, logits, outputs),
        naive=slow,
        results=lambda: {"outputs": (outputs, naive_outputs)},
        terms=classes,
        multiply_adds=0,
        moved=byte_count(logits, outputs),
    )


def l2_penalty(gpu: Gpu, *layers: int) -> Comparison:
    """Return the penalty of layers with these numbers of weights, one after the other."""
    weights, batch = gpu.random(sum(layers)), gpu.batch(2, 1)
    (naive_losses,) = gpu.copies(batch.state.image_losses)
    begins = [sum(layers[:number]) for number in range(len(layers))]
    parts = list(zip(begins, layers, strict=True))

    def slow() -> None:
        for begin, count in parts:
            of_layer = {"weights": weights[begin : begin + count], "count": count}
            naive.launch(gpu, "penalty", "penalty", 1, **of_layer, l2=L2, losses=naive_losses)

    return Comparison(
        kernel="penalty",
        sizes=" + ".join(map(str, layers)),
        fast=lambda: penalty.penalty(gpu.launcher_for(batch), weights, parts, L2, batch),
        naive=slow,
        results=lambda: {"losses": (batch.state.image_losses, naive_losses)},
        terms=weights.size,
        multiply_adds=weights.size,
        moved=byte_count(weights),
    )
