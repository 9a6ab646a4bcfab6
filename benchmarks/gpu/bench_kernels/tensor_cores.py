"""The first linear layer of large batches by tensor cores: tensor_linear.cu, tensor_wgrad.cu."""

from collections.abc import Iterator

from backends.cupy.launch import tensor_linear
from backends.cupy.launch.wgrad_update import WgradLayer
from benchmarks.gpu.bench_kernels import naive
from benchmarks.gpu.bench_kernels.comparison import Comparison, byte_count
from benchmarks.gpu.bench_kernels.gpu import Gpu


def comparisons(gpu: Gpu) -> Iterator[Comparison]:
    """Yield the first layer of the recipe fcnn, if the GPU has the tensor cores for it."""
    if gpu.capability >= tensor_linear.MIN_CAPABILITY:
        yield first_layer(gpu, 60_000, 784, 128, "relu")
        yield weight_gradient(gpu, 60_000, 784, 128)


def first_layer(gpu: Gpu, images: int, inputs: int, outputs: int, activation: str) -> Comparison:
    """Return the output of the layer. Sums of positive numbers have the largest errors."""
    batch, naive_x = gpu.batch(images, inputs), gpu.empty(images, inputs)
    weight, bias = gpu.positive(inputs, outputs), gpu.positive(outputs)
    y, naive_y = gpu.empty(images, outputs), gpu.empty(images, outputs)

    def fast() -> None:
        tensor_linear.tensor_linear(gpu.launcher, batch, weight, bias, y, activation)

    def slow() -> None:
        naive.gather(gpu, batch, naive_x)
        naive.linear(gpu, naive_x, weight, bias, naive_y, activation)

    return Comparison(
        kernel="tensor_linear",
        sizes=f"{images} × {inputs} → {outputs}",
        fast=fast,
        naive=slow,
        results=lambda: {"y": (y, naive_y)},
        terms=inputs,
        multiply_adds=images * inputs * outputs,
        moved=images * inputs + byte_count(weight, bias, y),
    )


def weight_gradient(gpu: Gpu, images: int, inputs: int, outputs: int) -> Comparison:
    """Return the gradients of weight and bias; the fast kernel leaves partial sums."""
    batch, naive_x = gpu.batch(images, inputs), gpu.empty(images, inputs)
    dy = gpu.positive(images, outputs)
    split = tensor_linear.split_images(inputs, outputs, images)
    sums, expected = gpu.empty(split.splits, split.parameters), gpu.empty(inputs + 1, outputs)
    layer = WgradLayer(
        x=None,
        dy=dy,
        mask=None,
        split=split,
        partial_sums=sums,
        tile_counters=None,
        weight=0,
        bias=inputs * outputs,
        inputs=inputs,
        outputs=outputs,
    )

    def fast() -> None:
        tensor_linear.tensor_wgrad(gpu.launcher_for(batch), layer, batch)

    def slow() -> None:
        naive.gather(gpu, batch, naive_x)
        naive.linear_backward_weight(gpu, dy, naive_x, expected[:-1], expected[-1])

    return Comparison(
        kernel="tensor_wgrad",
        sizes=f"{images} × ({inputs} + 1) × {outputs}",
        fast=fast,
        naive=slow,
        results=lambda: {"gradient": (sums.sum(axis=0), expected.reshape(-1))},
        terms=images,
        multiply_adds=images * (inputs + 1) * outputs,
        moved=images * inputs + byte_count(dy, sums),
    )
