"""The SIMD kernels of the Numba backend compute the same as their naive versions."""

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest
from numba import njit

from backends.numba.kernels import naive, vector_width
from backends.numba.kernels.simd.conv import (
    axpy,
    conv_max_pool,
    conv_max_pool_wgrad,
    conv_tile,
    conv_wgrad_tile,
)
from backends.numba.kernels.simd.elementwise import exp_in_place, relu_in_place, sigmoid_in_place
from backends.numba.kernels.simd.gemm import (
    gemm_dot,
    gemm_dot_gather,
    gemm_outer,
    gemm_outer_gather,
)
from backends.numba.kernels.simd.pooling import (
    CHANNEL_LANES,
    max_pool_2x2,
    max_pool_2x2_backward,
)
from backends.numba.kernels.simd.sparse import gather_axpy, scatter_axpy
from backends.numba.kernels.views import pointer
from tests.support.closeness import assert_close

DTYPES = ["float32", "float64"]
# dtype and bits of a vector; LLVM divides vectors that are wider than the registers.
VECTORS = [("float32", 128), ("float32", 256), ("float32", 512), ("float64", 256)]


@pytest.fixture
def random() -> np.random.Generator:
    return np.random.default_rng(1)


@pytest.fixture(params=VECTORS, ids=lambda kind: f"{kind[0]} in {kind[1]} bits")
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> tuple[str, int]:
    """Return a dtype and the number of lanes of a vector, for which `compiled` compiles."""
    dtype, bits = request.param
    monkeypatch.setattr(vector_width, "VECTOR_BYTES", bits // 8)
    return dtype, vector_width.lanes_of(np.dtype(dtype).itemsize)


@cache
def compiled_for(function: Callable[..., None], vector_bytes: int) -> Callable[..., None]:
    """Return `function` compiled for one width of vectors."""
    return njit(function)


def compiled(function: Callable[..., None]) -> Callable[..., None]:
    """Return `function` compiled for the present width of vectors."""
    return compiled_for(function, vector_width.VECTOR_BYTES)


def numbers(random: np.random.Generator, *shape: int, dtype: str) -> np.ndarray[Any, Any]:
    return random.standard_normal(shape).astype(dtype)


def check(
    kernel: Callable[..., None], reference: Callable[..., None], y: np.ndarray[Any, Any], *rest: Any
) -> None:
    """Run a kernel and its naive version on copies of `y`, and compare the results."""
    got, want = y.copy(), y.copy()
    kernel(got, *rest)
    reference(want, *rest)
    assert not np.array_equal(want, y)
    assert_close(got, want, dtype=str(y.dtype), terms=32)


def outer_kernel(
    y: Any, ys: Any, x: Any, xr: Any, xc: Any, w: Any, ws: Any, rows: Any, width: Any, count: Any
) -> None:
    gemm_outer(pointer(y, 0), ys, pointer(x, 0), xr, xc, pointer(w, 0), ws, rows, width, count)


@pytest.mark.parametrize(("rows", "vectors"), [(5, 2), (1, 1), (11, 5)])
def test_gemm_outer(
    random: np.random.Generator, rows: int, vectors: int, kind: tuple[str, int]
) -> None:
    dtype, lanes = kind
    y, x, w = (numbers(random, 1200, dtype=dtype) for _ in range(3))
    kernel, sizes = compiled(outer_kernel), (rows, vectors * lanes, 9)
    check(kernel, naive.gemm_outer, y, 82, x, 9, 1, w, 81, *sizes)
    check(kernel, naive.gemm_outer, y, 82, x, 1, 11, w, 81, *sizes)  # with xᵀ


def dot_kernel(
    y: Any, ys: Any, x: Any, xs: Any, w: Any, ws: Any, rows: Any, columns: Any, count: Any
) -> None:
    gemm_dot(pointer(y, 0), ys, pointer(x, 0), xs, pointer(w, 0), ws, rows, columns, count)


@pytest.mark.parametrize(("rows", "columns"), [(2, 5), (1, 1), (5, 11)])
def test_gemm_dot(
    random: np.random.Generator, rows: int, columns: int, kind: tuple[str, int]
) -> None:
    dtype, lanes = kind
    y, x, w = (numbers(random, 600, dtype=dtype) for _ in range(3))
    sizes = rows, columns, 3 * lanes
    check(compiled(dot_kernel), naive.gemm_dot, y, 12, x, 50, w, 48, *sizes)


def gather_kernels(
    dots: Any, x: Any, y: Any, dy: Any, table: Any, indices: Any, sizes: Any
) -> None:
    rows, columns, width = sizes
    gemm_dot_gather(
        pointer(dots, 0), columns, pointer(table, 0), width, pointer(indices, 0), pointer(x, 0),
        width, rows, columns, width,
    )  # fmt: skip
    gemm_outer_gather(
        pointer(y, 0), pointer(dy, 0), columns, pointer(table, 0), width, pointer(indices, 0),
        columns, width, rows, 0.5,
    )  # fmt: skip


@pytest.mark.parametrize("table_dtype", ["uint8", "float32", "float64"])
@pytest.mark.parametrize(("rows", "columns", "vectors"), [(4, 5, 4), (7, 11, 6)])
def test_products_with_rows_of_a_table(
    random: np.random.Generator, rows: int, columns: int, vectors: int, kind: tuple[str, int],
    table_dtype: str,
) -> None:  # fmt: skip
    dtype, lanes = kind
    width = vectors * lanes
    table = random.integers(0, 256, (20, width)).astype(table_dtype)
    indices = random.permutation(20)[:rows]
    x, y = (numbers(random, columns, width, dtype=dtype) for _ in range(2))
    dots, dy = (numbers(random, rows, columns, dtype=dtype) for _ in range(2))
    got_dots, got_y = dots.copy(), y.copy()
    sizes = rows, columns, width
    compiled(gather_kernels)(got_dots, x, got_y, dy, table, indices, sizes)
    images = table[indices].astype(dtype)
    assert_close(got_dots, images @ x.T, dtype=dtype, terms=width)
    assert_close(got_y, y + 0.5 * dy.T @ images, dtype=dtype, terms=rows)


@njit
def axpy_kernel(y: Any, x: Any, scale: Any, count: Any) -> None:
    axpy(pointer(y, 0), pointer(x, 0), scale, count)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("vectors", [1, 3, 14])
def test_axpy(random: np.random.Generator, vectors: int, dtype: str) -> None:
    y, x = (numbers(random, 15 * CHANNEL_LANES, dtype=dtype) for _ in range(2))
    check(axpy_kernel, naive.axpy, y, x, 0.7, vectors * CHANNEL_LANES)


def gather_kernel(
    y: Any, table: Any, stride: Any, width: Any, indices: Any, data: Any, count: Any
) -> None:
    columns, values = pointer(indices, 0), pointer(data, 0)
    gather_axpy(pointer(y, 0), pointer(table, 0), stride, width, columns, values, count)


def scatter_kernel(
    table: Any, stride: Any, width: Any, indices: Any, data: Any, count: Any, x: Any, scale: Any
) -> None:
    columns, values = pointer(indices, 0), pointer(data, 0)
    scatter_axpy(
        pointer(table, 0), stride, width, columns, values, count, pointer(x, 0), scale
    )  # fmt: skip


@pytest.mark.parametrize("vectors", [1, 4, 7, 8, 19])
@pytest.mark.parametrize("data_dtype", ["uint8", None])
def test_sparse_axpy(
    random: np.random.Generator, vectors: int, kind: tuple[str, int], data_dtype: str | None
) -> None:
    dtype, lanes = kind
    width = vectors * lanes
    stride = width + 3
    table = numbers(random, 10 * stride, dtype=dtype)
    x = numbers(random, width, dtype=dtype)
    indices = np.array([0, 1, 2, 5, 6, 7, 9], np.uint16)
    data = random.integers(1, 4, len(indices)).astype(data_dtype or dtype)
    for count in (7, 4, 1):
        sparse = stride, width, indices, data, count
        check(compiled(gather_kernel), naive.gather_axpy, x, table, *sparse)
        check(compiled(scatter_kernel), naive.scatter_axpy, table, *sparse, x, 0.3)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("positions", "vectors", "x_stride"), [(7, 1, 1), (5, 2, CHANNEL_LANES)])
def test_conv_tile(
    random: np.random.Generator, positions: int, vectors: int, x_stride: int, dtype: str
) -> None:
    tile = conv_tile(positions, vectors, x_stride=x_stride)

    @njit
    def kernel(y: Any, bias: Any, x: Any, offsets: Any, w: Any, count: Any) -> None:
        tile(
            pointer(y, 0), pointer(bias, 0), pointer(x, 0), pointer(offsets, 0), pointer(w, 0),
            count,
        )  # fmt: skip

    def reference(*arguments: Any) -> None:
        settings = {"positions": positions, "width": vectors * CHANNEL_LANES, "x_stride": x_stride}
        naive.conv_tile(*arguments, **settings)

    y, bias, x, w = (numbers(random, 200, dtype=dtype) for _ in range(4))
    offsets = np.array([0, 1, 2, 9, 10, 11], np.uint64)
    check(kernel, reference, y, bias, x, offsets, w, len(offsets))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("taps", "rows", "vectors"), [(3, 3, 1), (3, 2, 2), (1, 1, 1)])
def test_conv_wgrad_tile(
    random: np.random.Generator, taps: int, rows: int, vectors: int, dtype: str
) -> None:
    tile = conv_wgrad_tile(taps, rows, vectors)

    @njit
    def kernel(dw: Any, dw_row: Any, x: Any, x_row: Any, offsets: Any, dy: Any, count: Any) -> None:
        tile(
            pointer(dw, 0), dw_row, pointer(x, 0), x_row, pointer(offsets, 0), pointer(dy, 0), count
        )

    def reference(*arguments: Any) -> None:
        naive.conv_wgrad_tile(*arguments, taps=taps, rows=rows, width=vectors * CHANNEL_LANES)

    dw, x, dy = (numbers(random, 200, dtype=dtype) for _ in range(3))
    offsets = np.array([0, 1, 2, 9, 10, 11], np.uint64)
    check(kernel, reference, dw, taps * vectors * CHANNEL_LANES, x, 9, offsets, dy, len(offsets))


@njit
def pool_kernel(y: Any, mask: Any, x: Any, all_ties: Any) -> None:
    max_pool_2x2(
        pointer(y, 0), pointer(mask, 0), pointer(x, 0), CHANNEL_LANES, 2 * CHANNEL_LANES, all_ties
    )


@njit
def unpool_kernel(dx: Any, dy: Any, mask: Any) -> None:
    max_pool_2x2_backward(
        pointer(dx, 0), CHANNEL_LANES, 2 * CHANNEL_LANES, pointer(dy, 0), pointer(mask, 0)
    )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("all_ties", [0, 1])
def test_max_pool_2x2(random: np.random.Generator, all_ties: int, dtype: str) -> None:
    x = random.integers(0, 3, (2, 2, CHANNEL_LANES)).astype(dtype)
    y, mask = np.empty(CHANNEL_LANES, dtype), np.empty(CHANNEL_LANES, np.uint8)
    pool_kernel(y, mask, x.ravel(), all_ties)
    want = [
        naive.max_pool_2x2(x[:, :, lane], all_ties=bool(all_ties)) for lane in range(CHANNEL_LANES)
    ]
    assert list(zip(y, mask, strict=True)) == want
    dx, dy = np.empty((4, CHANNEL_LANES), dtype), numbers(random, CHANNEL_LANES, dtype=dtype)
    unpool_kernel(dx.ravel(), dy, mask)
    bits = (mask[None, :] >> np.arange(4)[:, None]) & 1
    assert np.array_equal(dx, bits * dy)


@pytest.mark.parametrize("position", range(4))
def test_max_pool_2x2_of_nan_is_nan(position: int) -> None:
    x = np.zeros((4, CHANNEL_LANES))
    x[position, 3] = np.nan
    y, mask = np.empty(CHANNEL_LANES), np.empty(CHANNEL_LANES, np.uint8)
    pool_kernel(y, mask, x.ravel(), 1)
    assert np.array_equal(np.isnan(y), np.arange(CHANNEL_LANES) == 3)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("all_ties", [0, 1])
def test_conv_max_pool_and_its_weight_gradient(
    random: np.random.Generator, all_ties: int, dtype: str
) -> None:
    pool, wgrad = conv_max_pool(3), conv_max_pool_wgrad(3)
    patches, row = 3, 8

    @njit
    def forward(y: Any, mask: Any, bias: Any, x: Any, w: Any) -> None:
        for n in range(patches):
            at = n * CHANNEL_LANES
            pool(
                pointer(y, at), pointer(mask, at), pointer(bias, 0), pointer(x, 2 * n), row,
                pointer(w, 0), all_ties,
            )  # fmt: skip

    @njit
    def backward(dw: Any, x: Any, dy: Any, mask: Any) -> None:
        wgrad(
            pointer(dw, 0),
            pointer(x, 0),
            row,
            pointer(dy, 0),
            pointer(mask, 0),
            CHANNEL_LANES,
            patches,
        )

    # Integers: sums are exact, and ties occur.
    x = random.integers(-1, 2, (4, row, 1)).astype(dtype)
    filters = random.integers(-1, 2, (CHANNEL_LANES, 1, 3, 3)).astype(dtype)
    bias = random.integers(-1, 2, CHANNEL_LANES).astype(dtype)
    y, mask = (
        np.empty((1, patches, CHANNEL_LANES), dtype),
        np.empty((1, patches, CHANNEL_LANES), np.uint8),
    )
    forward(
        y.ravel(), mask.ravel(), bias, x.ravel(), naive.pack_filters(filters, lanes=CHANNEL_LANES)
    )
    settings = {"pools": True, "all_ties": bool(all_ties)}
    want, want_mask = naive.conv2d(x, filters, bias, **settings)
    assert np.array_equal(y, want)
    assert np.array_equal(mask, want_mask)
    dy = random.integers(-2, 3, y.shape).astype(dtype)
    dw = np.ones(9 * CHANNEL_LANES, dtype)
    backward(dw, x.ravel(), dy.ravel(), mask.ravel())
    _, dfilters, _ = naive.conv2d_backward(dy, want_mask, x, filters, pools=True)
    assert np.array_equal(dw, 1 + naive.pack_filters(dfilters, lanes=CHANNEL_LANES))


def elementwise_kernels(exp: Any, sigmoid: Any, relu: Any) -> None:
    exp_in_place(pointer(exp, 0), len(exp))
    sigmoid_in_place(pointer(sigmoid, 0), len(sigmoid))
    relu_in_place(pointer(relu, 0), len(relu))


def test_elementwise_functions(random: np.random.Generator, kind: tuple[str, int]) -> None:
    dtype, _ = kind
    x = np.concatenate([30 * numbers(random, 78, dtype=dtype), [0, np.nan]]).astype(dtype)
    exp, sigmoid, relu = -np.abs(x), x.copy(), x.copy()
    compiled(elementwise_kernels)(exp, sigmoid, relu)
    with np.errstate(over="ignore"):
        exact = x.astype("float64")
        tolerance = {"rtol": 8 * np.finfo(dtype).eps, "atol": np.finfo(dtype).tiny}
        np.testing.assert_allclose(exp, np.exp(-np.abs(exact)), **tolerance)
        np.testing.assert_allclose(sigmoid, 1 / (1 + np.exp(-exact)), **tolerance)
    np.testing.assert_array_equal(relu, np.maximum(x, 0))
