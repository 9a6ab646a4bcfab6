"""Pooling that is not fused with a convolution, and its gradients: pooling.cu."""

from collections.abc import Iterator

from backends import Ties
from backends.cupy.launch import pooling
from backends.cupy.launch.launcher import c_type
from backends.cupy.launch.pooling import PoolShape, mask_dtype, pool_shape
from backends.operations.common import Array
from benchmarks.gpu.bench_kernels import naive
from benchmarks.gpu.bench_kernels.comparison import Comparison, byte_count
from benchmarks.gpu.bench_kernels.gpu import Gpu

Images = tuple[int, int, int, int]  # images, channels, height, width


def comparisons(gpu: Gpu) -> Iterator[Comparison]:
    """Yield pooling of patches that touch, and of patches that overlap."""
    for size, stride in ((2, 2), (3, 2)):
        x, y, shape = arrays_of(gpu, (64, 16, 28, 28), size, stride)
        yield maximum(gpu, x, y, shape)
        yield maximum_backward(gpu, x, y, shape)
        yield mean(gpu, x, y, shape)
        yield mean_backward(gpu, x, y, shape)


def arrays_of(gpu: Gpu, images: Images, size: int, stride: int) -> tuple[Array, Array, PoolShape]:
    """Return images, arrays for their cells, and the sizes of a pooling layer."""
    x, (rows, columns) = gpu.random(*images), ((side - size) // stride + 1 for side in images[2:])
    x[:, :, images[2] // 2 :] = 0  # gives ties
    y = gpu.random(*images[:2], rows, columns)
    return x, y, pool_shape(x.shape, y.shape, size, stride)


def maximum(gpu: Gpu, x: Array, y: Array, shape: PoolShape, ties: Ties = "first") -> Comparison:
    """Return max-pooling, which also sets tie masks."""
    dtype = mask_dtype(shape.size)
    mask, naive_y, naive_mask = (gpu.empty(*y.shape, dtype=of) for of in (dtype, "", dtype))

    def slow() -> None:
        naive.launch(
            gpu, "pooling", "max_pool2d", y.size, mask_type=c_type(mask),
            x=x, pool=shape, cells=int(y.size), all_ties=ties == "all", y=naive_y, mask=naive_mask,
        )  # fmt: skip

    return Comparison(
        kernel="max_pool2d",
        sizes=text_of(x, shape),
        fast=lambda: pooling.max_pool2d(gpu.launcher, x, y, mask, shape, ties),
        naive=slow,
        results=lambda: {"y": (y, naive_y), "mask": (mask, naive_mask)},
        terms=1,
        multiply_adds=0,
        moved=byte_count(x, y, mask),
    )


def maximum_backward(gpu: Gpu, x: Array, dy: Array, shape: PoolShape) -> Comparison:
    """Return the gradient of max-pooling."""
    dx, naive_dx = gpu.empty(*x.shape), gpu.empty(*x.shape)
    mask = gpu.integers(1, 2**shape.size**2, *dy.shape, dtype=mask_dtype(shape.size))
    return Comparison(
        kernel="max_pool2d_backward",
        sizes=text_of(x, shape),
        fast=lambda: pooling.max_pool2d_backward(gpu.launcher, dy, mask, dx, shape),
        naive=lambda: naive_backward(gpu, dy, mask, naive_dx, shape),
        results=lambda: {"dx": (dx, naive_dx)},
        terms=shape.size**2,
        multiply_adds=0,
        moved=byte_count(dy, mask, dx),
    )


def mean(gpu: Gpu, x: Array, y: Array, shape: PoolShape) -> Comparison:
    """Return average-pooling."""
    naive_y = gpu.empty(*y.shape)

    def slow() -> None:
        arguments = {"x": x, "pool": shape, "cells": int(y.size), "y": naive_y}
        naive.launch(gpu, "pooling", "avg_pool2d", y.size, mask_type="uint8", **arguments)

    return Comparison(
        kernel="avg_pool2d",
        sizes=text_of(x, shape),
        fast=lambda: pooling.avg_pool2d(gpu.launcher, x, y, shape),
        naive=slow,
        results=lambda: {"y": (y, naive_y)},
        terms=shape.size**2,
        multiply_adds=0,
        moved=byte_count(x, y),
    )


def mean_backward(gpu: Gpu, x: Array, dy: Array, shape: PoolShape) -> Comparison:
    """Return the gradient of average-pooling."""
    dx, naive_dx = gpu.empty(*x.shape), gpu.empty(*x.shape)
    return Comparison(
        kernel="avg_pool2d_backward",
        sizes=text_of(x, shape),
        fast=lambda: pooling.avg_pool2d_backward(gpu.launcher, dy, dx, shape),
        naive=lambda: naive_backward(gpu, dy, None, naive_dx, shape),
        results=lambda: {"dx": (dx, naive_dx)},
        terms=shape.size**2,
        multiply_adds=0,
        moved=byte_count(dy, dx),
    )


def naive_backward(gpu: Gpu, dy: Array, mask: Array | None, dx: Array, shape: PoolShape) -> None:
    """Set `dx` to the gradient of max-pooling or, without masks, of average-pooling."""
    naive.launch(
        gpu, "pooling", "pool2d_backward", dx.size,
        mask_type="uint8" if mask is None else c_type(mask),
        dy=dy, mask=mask, pool=shape, pixels=int(dx.size), dx=dx,
    )  # fmt: skip


def text_of(x: Array, shape: PoolShape) -> str:
    """Return the sizes, such as "64 × 16×28×28, 2×2 / 2"."""
    images, *sizes = x.shape
    return f"{images} × {'×'.join(map(str, sizes))}, {shape.size}×{shape.size} / {shape.stride}"
