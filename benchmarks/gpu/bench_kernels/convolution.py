"""Convolutions and their gradients: convolution.cu, convolution_gradients.cu."""

import math
from collections.abc import Iterator
from dataclasses import replace

from backends import SGD, Ties
from backends.cupy.launch import convolution
from backends.cupy.launch.conv_shape import ConvShape, conv_shape_of
from backends.cupy.launch.launcher import THREADS
from backends.cupy.launch.wgrad_update import filter_tile_for, split_conv
from backends.operations.common import Array
from benchmarks.gpu.bench_kernels import naive
from benchmarks.gpu.bench_kernels.comparison import Comparison, byte_count
from benchmarks.gpu.bench_kernels.gpu import Gpu
from benchmarks.gpu.bench_kernels.recipes import network_of


def comparisons(gpu: Gpu) -> Iterator[Comparison]:
    """Yield the convolutions of recipes, and the gradients of the second ones."""
    (only,) = shapes_of("cnn")
    yield forward(gpu, 512, only, is_first=True, ties="all")
    for recipe in ("lenet", "fast99"):
        first, second = shapes_of(recipe)
        yield forward(gpu, 64, first, is_first=True)
        yield forward(gpu, 64, second)
        yield backward_x(gpu, 64, second)
        yield backward_weight(gpu, 64, replace(second, pool=1))  # as eager training computes it


def shapes_of(recipe: str) -> list[ConvShape]:
    """Return the shapes of the convolutions of a recipe."""
    stages = network_of(recipe, "float32").training_program(SGD()).stages
    return [conv_shape_of(stage) for stage in stages if stage.kind == "conv2d"]


def forward(
    gpu: Gpu, images: int, shape: ConvShape, *, is_first: bool = False, ties: Ties = "first"
) -> Comparison:
    """Return a convolution; the input of the first one is gathered from the data set."""
    x, weight, bias, y, mask = arrays_of(gpu, images, shape)
    x[:, :, shape.height // 2 :] = 0  # gives ties
    batch = gpu.batch(images, int(x[0].size), shift=-0.5)
    naive_y, (naive_mask,) = gpu.empty(*y.shape), gpu.copies(mask)
    if shape.pool == 1:
        mask = naive_mask = None

    def fast() -> None:
        taken, launcher = batch if is_first else x, gpu.launcher
        convolution.conv2d(
            launcher, taken, weight, bias, y, mask, shape, activation="relu", ties=ties
        )

    def slow() -> None:
        if is_first:
            naive.gather(gpu, batch, x)
        naive.conv2d(gpu, x, weight, bias, naive_y, naive_mask, shape, activation="relu", ties=ties)

    return Comparison(
        kernel="conv2d, bytes" if is_first else "conv2d",
        sizes=text_of(images, shape, "→"),
        fast=fast,
        naive=slow,
        results=lambda: {"y": (y, naive_y), "mask": (mask, naive_mask)},
        terms=int(weight[0].size),
        multiply_adds=multiply_adds(images, shape),
        moved=x.size * (1 if is_first else x.itemsize) + byte_count(weight, bias, y, mask),
    )


def backward_x(gpu: Gpu, images: int, shape: ConvShape) -> Comparison:
    """Return the gradient of the input, which a pooled convolution distributes by its masks."""
    x, weight, _, dy, mask = arrays_of(gpu, images, shape)
    dx, naive_dx = gpu.empty(*x.shape), gpu.empty(*x.shape)
    given = dy, mask, weight, x
    return Comparison(
        kernel="conv2d_backward_x",
        sizes=text_of(images, shape, "←"),
        fast=lambda: convolution.conv2d_backward_x(
            gpu.launcher, *given, dx, shape, activation="tanh"
        ),
        naive=lambda: naive.conv2d_backward_x(gpu, *given, naive_dx, shape, activation="tanh"),
        results=lambda: {"dx": (dx, naive_dx)},
        terms=int(weight[:, 0].size),
        multiply_adds=multiply_adds(images, shape) // shape.pool**2,
        moved=byte_count(*given, dx),
    )


def backward_weight(gpu: Gpu, images: int, shape: ConvShape) -> Comparison:
    """Return the gradients of filters and biases; the fast kernel leaves partial sums."""
    x, weight, _, dy, _ = arrays_of(gpu, images, shape)
    cells, filter_tile = math.prod(dy.shape[2:]), filter_tile_for(shape.kernel_size)
    split = split_conv(shape, images, cells=cells, filter_tile=filter_tile, threads=THREADS)
    sums, expected = gpu.empty(split.splits, split.parameters), gpu.empty(split.parameters)
    dweight, dbias = expected[: weight.size].reshape(weight.shape), expected[weight.size :]
    return Comparison(
        kernel="conv2d_backward_weight",
        sizes=text_of(images, shape, "·"),
        fast=lambda: convolution.conv2d_backward_weight(gpu.launcher, dy, x, sums, split, shape),
        naive=lambda: naive.conv2d_backward_weight(gpu, dy, None, x, dweight, dbias, shape),
        results=lambda: {"gradient": (sums.sum(axis=0), expected)},
        terms=int(dy[:, 0].size),
        multiply_adds=multiply_adds(images, shape),
        moved=byte_count(x, dy, sums),
    )


def arrays_of(gpu: Gpu, images: int, shape: ConvShape) -> tuple[Array, ...]:
    """Return random x, weight, bias, y or dy, and tie masks of a convolution."""
    side, border = shape.kernel_size, 2 * shape.padding - shape.kernel_size + 1
    rows, columns = ((size + border) // shape.pool for size in (shape.height, shape.width))
    output = images, shape.filters, rows, columns
    return (
        gpu.random(images, shape.channels, shape.height, shape.width),
        gpu.random(shape.filters, shape.channels, side, side),
        gpu.random(shape.filters),
        gpu.random(*output),
        gpu.masks(*output),
    )


def multiply_adds(images: int, shape: ConvShape) -> int:
    """Return the number of multiply-adds of the forward pass."""
    border = 2 * shape.padding - shape.kernel_size + 1
    outputs = shape.filters * (shape.height + border) * (shape.width + border)
    return images * outputs * shape.channels * shape.kernel_size**2


def text_of(images: int, shape: ConvShape, sign: str) -> str:
    """Return the sizes of a convolution, such as "64 × 6×14×14 → 16, 5×5"."""
    x = f"{shape.channels}×{shape.height}×{shape.width}"
    return f"{images} × {x} {sign} {shape.filters}, {shape.kernel_size}×{shape.kernel_size}"
