"""Linear layers: linear.cu."""

from collections.abc import Iterator

from backends.cupy.launch import linear
from benchmarks.gpu.bench_kernels import naive
from benchmarks.gpu.bench_kernels.comparison import Comparison, byte_count
from benchmarks.gpu.bench_kernels.gpu import Gpu


def comparisons(gpu: Gpu) -> Iterator[Comparison]:
    """Yield the first layers of recipes, and a layer too large for the fused classifier."""
    yield forward(gpu, 64, 784, 50, "sigmoid", is_first=True)  # three-layer
    yield forward(gpu, 512, 784, 50, "relu", is_first=True)  # two-layer
    yield forward(gpu, 60_000, 784, 128, "relu", is_first=True)  # fcnn without tensor cores
    yield forward(gpu, 512, 512, 256, "relu", is_first=False)
    yield backward_x(gpu, 512, 512, 256, "relu")


def forward(
    gpu: Gpu, images: int, inputs: int, outputs: int, activation: str, *, is_first: bool
) -> Comparison:
    """Return a layer; the input of the first one is gathered from the data set."""
    batch = gpu.batch(images, inputs, shift=-0.5)
    x = gpu.empty(images, inputs) if is_first else gpu.random(images, inputs)
    weight, bias = gpu.random(inputs, outputs), gpu.random(outputs)
    y, naive_y = gpu.empty(images, outputs), gpu.empty(images, outputs)

    def fast() -> None:
        taken = batch if is_first else x
        linear.linear(gpu.launcher, taken, weight, bias, y, activation)

    def slow() -> None:
        if is_first:
            naive.gather(gpu, batch, x)
        naive.linear(gpu, x, weight, bias, naive_y, activation)

    return Comparison(
        kernel="linear, bytes" if is_first else "linear",
        sizes=f"{images} × {inputs} → {outputs}",
        fast=fast,
        naive=slow,
        results=lambda: {"y": (y, naive_y)},
        terms=inputs,
        multiply_adds=images * inputs * outputs,
        moved=images * inputs * (1 if is_first else x.itemsize) + byte_count(weight, bias, y),
    )


def backward_x(gpu: Gpu, images: int, inputs: int, outputs: int, activation: str) -> Comparison:
    """Return the gradient of the input of a layer."""
    dy, weight, x = (
        gpu.random(images, outputs),
        gpu.random(inputs, outputs),
        gpu.random(images, inputs),
    )
    dx, naive_dx = gpu.empty(images, inputs), gpu.empty(images, inputs)
    return Comparison(
        kernel="linear_backward_x",
        sizes=f"{images} × {inputs} ← {outputs}",
        fast=lambda: linear.linear_backward_x(gpu.launcher, dy, weight, x, dx, activation),
        naive=lambda: naive.linear_backward_x(gpu, dy, weight, x, naive_dx, activation),
        results=lambda: {"dx": (dx, naive_dx)},
        terms=outputs,
        multiply_adds=images * inputs * outputs,
        moved=byte_count(dy, weight, x, dx),
    )
