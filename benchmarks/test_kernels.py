"""Convolution and pooling: the compiled kernels beside NumPy's composition, in one run.

    make bench

Each group holds one operation at one batch size, on both backends; the table's brackets are the
ratio to the faster one. Before a time is taken, the two results are compared.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from mnist_accel.array_layer import Backend, get_backend
from mnist_accel.tolerance import relative_tolerance

# Images (C, H, W), filters (O, C, k, k), padding and `uniform` of the convolutions of the recipes.
CONVOLUTIONS = {
    "cnn": ((1, 28, 28), (8, 1, 3, 3), 0, True),
    "lenet-1": ((1, 28, 28), (6, 1, 5, 5), 2, False),
    "lenet-2": ((6, 14, 14), (16, 6, 5, 5), 0, False),
}
BATCH_SIZES = (1, 64, 512)
Operation = Callable[[Backend], Any]


def _convolutions(name: str, batch: int) -> dict[str, Operation]:
    """Forward and backward of one convolution on random images."""
    image, filters, padding, uniform = CONVOLUTIONS[name]
    rng = np.random.default_rng(0)
    x = rng.standard_normal((batch, *image)).astype(np.float32)
    weight = rng.standard_normal(filters).astype(np.float32)
    side = image[1] + 2 * padding - filters[2] + 1
    dy = rng.standard_normal((batch, filters[0], side, side)).astype(np.float32)
    need_dx = name == "lenet-2"  # the first layer of a network has no use for it
    return {
        f"{name} conv2d": lambda backend: backend.conv2d(
            x, weight, None, stride=1, padding=padding, uniform=uniform
        ),
        f"{name} conv2d_backward": lambda backend: backend.conv2d_backward(
            dy, x, weight, stride=1, padding=padding, need_dx=need_dx
        )[1],
    }


def _poolings(batch: int) -> dict[str, Operation]:
    """Forward and backward of the poolings behind the filters of `cnn`."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((batch, 8, 26, 26)).astype(np.float32)
    dy = rng.standard_normal((batch, 8, 13, 13)).astype(np.float32)
    _, mask = get_backend("numpy").max_pool2d(x, size=2, stride=2, ties="first")
    return {
        "max_pool2d": lambda backend: backend.max_pool2d(x, size=2, stride=2, ties="first")[0],
        "max_pool2d_backward": lambda backend: backend.max_pool2d_backward(
            dy, mask, x_shape=x.shape, size=2, stride=2
        ),
        "avg_pool2d": lambda backend: backend.avg_pool2d(x, size=2, stride=2),
        "avg_pool2d_backward": lambda backend: backend.avg_pool2d_backward(
            dy, x_shape=x.shape, size=2, stride=2
        ),
    }


CASES = [
    pytest.param(operation, id=f"{name}, batch {batch}")
    for batch in BATCH_SIZES
    for name, operation in (
        *(case for conv in CONVOLUTIONS for case in _convolutions(conv, batch).items()),
        *_poolings(batch).items(),
    )
]


@pytest.mark.parametrize("backend_name", ["numpy", "numba"])
@pytest.mark.parametrize("operation", CASES)
def test_kernel(
    benchmark: BenchmarkFixture,
    request: pytest.FixtureRequest,
    operation: Operation,
    backend_name: str,
) -> None:
    """Compare with NumPy's result, then take the time."""
    benchmark.group = request.node.callspec.id.rpartition("-")[0]
    backend = get_backend(backend_name)
    expected = operation(get_backend("numpy"))
    difference = np.linalg.norm(operation(backend) - expected) / np.linalg.norm(expected)
    # The longest sum is a filter's gradient: images times positions.
    assert difference <= relative_tolerance("float32", terms=512 * 28 * 28)
    kinds = frozenset({"conv2d", "max_pool2d"})
    with backend.computation(kinds):
        benchmark.pedantic(operation, args=(backend,), rounds=30, warmup_rounds=3)
