"""The SIMD kernels of the Numba backend compute the same as their naive versions."""

from collections.abc import Callable
from functools import cache
from itertools import product
from typing import Any

import numpy as np
import pytest
from numba import njit

import reference as ref
from backends.numba.kernels import compilation, naive, vector_width
from backends.numba.kernels.simd import elementwise
from backends.numba.kernels.simd import losses as simd_losses
from backends.numba.kernels.simd.conv import (
    add_patches,
    conv2d,
    conv_max_pool,
    conv_max_pool_wgrad,
    sum_of_rows,
)
from backends.numba.kernels.simd.conv_planes import conv_planes, conv_planes_wgrad
from backends.numba.kernels.simd.elementwise import relu_in_place, sigmoid_in_place
from backends.numba.kernels.simd.gemm import (
    gemm_dot,
    gemm_dot_gather,
    gemm_outer,
    gemm_outer_gather,
)
from backends.numba.kernels.simd.pooling import (
    CHANNEL_LANES,
    max_pool_2x2_backward,
)
from backends.numba.kernels.simd.sparse import gather_axpy, scatter_axpy
from backends.numba.kernels.vector_width import ALIGNMENT
from backends.numba.kernels.views import pointer
from tests.support.closeness import assert_close

DTYPES = ["float32", "float64"]
OWN_BITS = 8 * vector_width.VECTOR_BYTES
# dtype and bits of a vector; LLVM divides vectors that are wider than the registers.
VECTORS = [
    ("float32", OWN_BITS),
    ("float64", 256),
    # Slow, because each width compiles all kernels again.
    *(
        pytest.param(("float32", bits), marks=pytest.mark.slow)
        for bits in (128, 256, 512)
        if bits != OWN_BITS
    ),
]


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
        pointer(dots, 0), columns, pointer(table, 0), width, pointer(indices, 0),
        pointer(indices, 0), pointer(x, 0), rows, columns, width,
    )  # fmt: skip
    gemm_outer_gather(
        pointer(y, 0), pointer(dy, 0), columns, pointer(table, 0), width, pointer(indices, 0),
        columns, width, rows, 0.5, 0.75,
    )  # fmt: skip


def in_vector_blocks(matrix: np.ndarray[Any, Any], lanes: int) -> np.ndarray[Any, Any]:
    """Return a matrix (rows, columns) in vector blocks, (columns / lanes, rows, lanes)."""
    return np.ascontiguousarray(matrix.reshape(len(matrix), -1, lanes).swapaxes(0, 1))


@pytest.mark.parametrize("table_dtype", ["uint8", "float32", "float64"])
@pytest.mark.parametrize(("rows", "columns", "vectors"), [(4, 5, 4), (7, 11, 6), (70, 6, 260)])
def test_products_with_rows_of_a_table(
    random: np.random.Generator, rows: int, columns: int, vectors: int, kind: tuple[str, int],
    table_dtype: str,
) -> None:  # fmt: skip
    dtype, lanes = kind
    width = vectors * lanes
    table = random.integers(0, 256, (100, width)).astype(table_dtype)
    indices = random.permutation(100)[:rows]
    x, y = (numbers(random, columns, width, dtype=dtype) for _ in range(2))
    dots, dy = (numbers(random, rows, columns, dtype=dtype) for _ in range(2))
    got_dots, got_y = dots.copy(), in_vector_blocks(y, lanes)
    sizes = rows, columns, width
    blocks = in_vector_blocks(x, lanes)
    compiled(gather_kernels)(got_dots, blocks, got_y, dy, table, indices, sizes)
    images = table[indices].astype(dtype)
    assert_close(got_dots, dots + images @ x.T, dtype=dtype, terms=width)
    expected = in_vector_blocks(0.75 * (y + 0.5 * dy.T @ images), lanes)
    assert_close(got_y, expected.astype(dtype), dtype=dtype, terms=rows)


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


@pytest.mark.parametrize(("pools", "all_ties"), [(False, False), (True, False), (True, True)])
@pytest.mark.parametrize("width", [CHANNEL_LANES, 2 * CHANNEL_LANES])
def test_conv2d(
    random: np.random.Generator, width: int, pools: bool, all_ties: bool, kind: tuple[str, int]
) -> None:
    dtype, _ = kind
    convolve, side, channels = conv2d(width), 2, 2

    # Integers: sums are exact, and ties occur.
    x = random.integers(-1, 2, (6, 8, channels)).astype(dtype)
    filters = random.integers(-1, 2, (width, channels, side, side)).astype(dtype)
    bias = random.integers(-1, 2, width).astype(dtype)
    want, want_mask = naive.conv2d(x, filters, bias, pools=pools, all_ties=all_ties)
    rows, columns = want.shape[0] * (1 + pools), want.shape[1] * (1 + pools)
    i, j, c = np.ix_(range(side), range(side), range(channels))
    offsets = ((i * x.shape[1] + j) * channels + c).astype(np.uint64).ravel()

    @njit
    def kernel(y: Any, mask: Any, bias: Any, x: Any, w: Any, offsets: Any) -> None:
        convolve(
            pointer(y, 0), pointer(mask, 0), y.shape[1] * width, width, pointer(bias, 0),
            pointer(x, 0), x.shape[1] * channels, channels, pointer(w, 0), pointer(offsets, 0),
            len(offsets), rows, columns, pools + all_ties,
        )  # fmt: skip

    y, mask = np.empty_like(want), np.ones(want.shape, np.uint8)
    kernel(y, mask, bias, x, naive.pack_filters(filters, lanes=width), offsets)
    assert np.array_equal(y, want)
    assert np.array_equal(mask, want_mask)


def patches_kernel(
    y: Any, yr: Any, x: Any, xr: Any, f: Any, o: Any, s: Any, n: Any, rows: Any, width: Any
) -> None:
    factors, offsets = pointer(f, 0), pointer(o, 0)
    add_patches(pointer(y, 0), yr, pointer(x, 0), xr, factors, offsets, s, n, rows, width)


@pytest.mark.parametrize(("rows", "vectors"), [(1, 1), (4, 5), (6, 9)])
def test_add_patches(
    random: np.random.Generator, rows: int, vectors: int, kind: tuple[str, int]
) -> None:
    dtype, _ = kind
    y, x, factors = (numbers(random, 1000, dtype=dtype) for _ in range(3))
    offsets = random.integers(0, 40, 40).astype(np.uint64)
    arguments = x, 80, factors, offsets, 3, 7, rows, vectors * CHANNEL_LANES
    check(compiled(patches_kernel), naive.add_patches, y, 90, *arguments)


def sum_kernel(y: Any, x: Any, width: Any, count: Any) -> None:
    sum_of_rows(pointer(y, 0), pointer(x, 0), width, count)


@pytest.mark.parametrize(("vectors", "count"), [(1, 1), (2, 11)])
def test_sum_of_rows(
    random: np.random.Generator, vectors: int, count: int, kind: tuple[str, int]
) -> None:
    y, x = (numbers(random, 400, dtype=kind[0]) for _ in range(2))
    check(compiled(sum_kernel), naive.sum_of_rows, y, x, vectors * CHANNEL_LANES, count)


def planes_kernels(
    y: Any, dw: Any, y_row: Any, bias: Any, w: Any, x: Any, offsets: Any, sizes: Any
) -> None:
    rows, count, width = sizes
    places, images, x_image = pointer(offsets, 0), 3, 150
    conv_planes(
        pointer(y, 0), y_row, pointer(bias, 0), pointer(w, 0), pointer(x, 0), places,
        rows, count, width,
    )  # fmt: skip
    conv_planes_wgrad(
        pointer(dw, 0), pointer(y, 0), y_row, pointer(x, 0), x_image, places,
        rows, count, width, images,
    )  # fmt: skip


@pytest.mark.parametrize(("rows", "count", "vectors", "rest"), [(11, 9, 8, 3), (1, 1, 1, 0)])
def test_conv_planes_and_its_weight_gradient(
    random: np.random.Generator,
    rows: int,
    count: int,
    vectors: int,
    rest: int,
    kind: tuple[str, int],
) -> None:
    dtype, lanes = kind
    width = vectors * lanes + rest
    y_row, sizes = (width + lanes - 1) // lanes * lanes, (rows, count, width)
    offsets = random.integers(40, size=count).astype(np.uintp)
    x, w, bias = (numbers(random, size, dtype=dtype) for size in (600, rows * count, rows))
    dy = numbers(random, 3, rows, y_row, dtype=dtype)
    dy[..., width:] = 0
    x[2 * 150 + 40 + width :] = np.nan  # never used
    y, dw = dy.copy(), numbers(random, rows * count, dtype=dtype)
    want_y, want_dw = np.empty((rows, y_row), dtype), dw.copy()
    naive.conv_planes(want_y.ravel(), y_row, bias, w, x, offsets, *sizes)
    dy[0, :, :width] = want_y[:, :width]
    naive.conv_planes_wgrad(want_dw, dy.ravel(), y_row, x, 150, offsets, *sizes, 3)
    compiled(planes_kernels)(y.ravel(), dw, y_row, bias, w, x, offsets, sizes)
    assert_close(y[0, :, :width], want_y[:, :width], dtype=dtype, terms=32)
    assert_close(dw, want_dw, dtype=dtype, terms=512)


@njit
def unpool_kernel(dx: Any, dy: Any, mask: Any) -> None:
    max_pool_2x2_backward(
        pointer(dx, 0), CHANNEL_LANES, 2 * CHANNEL_LANES, pointer(dy, 0), pointer(mask, 0)
    )


@pytest.mark.parametrize("dtype", DTYPES)
def test_max_pool_2x2_backward(random: np.random.Generator, dtype: str) -> None:
    mask = random.integers(0, 16, CHANNEL_LANES).astype(np.uint8)
    dx, dy = np.empty((4, CHANNEL_LANES), dtype), numbers(random, CHANNEL_LANES, dtype=dtype)
    unpool_kernel(dx.ravel(), dy, mask)
    bits = (mask[None, :] >> np.arange(4)[:, None]) & 1
    assert np.array_equal(dx, bits * dy)


pool_3x3, pool_wgrad_3x3 = conv_max_pool(3), conv_max_pool_wgrad(3)


def pool_kernel(y: Any, mask: Any, bias: Any, x: Any, w: Any, all_ties: Any) -> None:
    pool_3x3(
        pointer(y, 0), pointer(mask, 0), pointer(bias, 0), pointer(x, 0), x.shape[1],
        pointer(w, 0), y.shape[0], y.shape[1], all_ties,
    )  # fmt: skip


def pool_wgrad_kernel(dw: Any, x: Any, dy: Any, mask: Any) -> None:
    pool_wgrad_3x3(
        pointer(dw, 0), pointer(x, 0), x.shape[1], pointer(dy, 0), pointer(mask, 0),
        dy.shape[0], dy.shape[1],
    )  # fmt: skip


def pooled(x: Any, filters: Any, bias: Any, *, all_ties: bool) -> tuple[Any, Any]:
    """Return the pooled convolution of one image and its mask; the memory after them may change."""
    rows, columns = (size // 2 - 1 for size in x.shape[:2])
    shape, spare = (rows, columns, CHANNEL_LANES), CHANNEL_LANES
    size = rows * columns * CHANNEL_LANES
    y, mask = np.empty(size + spare, x.dtype), np.empty(size + spare, np.uint8)
    y, mask = y[:size].reshape(shape), mask[:size].reshape(shape)
    padded = np.append(x, np.zeros((1, *x.shape[1:]), x.dtype), axis=0)
    packed = naive.pack_filters(filters, lanes=CHANNEL_LANES)
    compiled(pool_kernel)(y, mask, bias, padded, packed, int(all_ties))
    return y, mask


@pytest.mark.parametrize("all_ties", [False, True])
def test_conv_max_pool_and_its_weight_gradient(
    random: np.random.Generator, all_ties: bool, kind: tuple[str, int]
) -> None:
    dtype, _ = kind
    # Integers: sums are exact, and ties occur.
    x = random.integers(-1, 2, (6, 8, 1)).astype(dtype)
    filters = random.integers(-1, 2, (CHANNEL_LANES, 1, 3, 3)).astype(dtype)
    bias = random.integers(-1, 2, CHANNEL_LANES).astype(dtype)
    y, mask = pooled(x, filters, bias, all_ties=all_ties)
    want, want_mask = naive.conv2d(x, filters, bias, pools=True, all_ties=all_ties)
    assert np.array_equal(y, want)
    assert np.array_equal(mask, want_mask)
    dy = random.integers(-2, 3, y.shape).astype(dtype)
    dw = np.ones(9 * CHANNEL_LANES, dtype)
    compiled(pool_wgrad_kernel)(dw, x, dy, np.ascontiguousarray(mask))
    _, dfilters, _ = naive.conv2d_backward(dy, want_mask, x, filters, pools=True)
    assert np.array_equal(dw, 1 + naive.pack_filters(dfilters, lanes=CHANNEL_LANES))


@pytest.mark.parametrize("position", range(4))
def test_pooled_nan_is_nan(position: int, kind: tuple[str, int]) -> None:
    x = np.zeros((4, 8, 1), kind[0])
    # Each corner of the inputs of the second patch is the input of only one of its four outputs.
    x[position // 2 * 3, 2 + position % 2 * 3] = np.nan
    filters, bias = np.ones((CHANNEL_LANES, 1, 3, 3), kind[0]), np.zeros(CHANNEL_LANES, kind[0])
    y, _ = pooled(x, filters, bias, all_ties=True)
    assert np.isnan(y[0, 1]).all()


exp_in_place = elementwise._in_place(elementwise.exp)  # for numbers ≤ 0


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


@pytest.mark.parametrize("loss", ["softmax_cross_entropy", "binary_cross_entropy", "quadratic"])
def test_loss_of_an_image(random: np.random.Generator, kind: tuple[str, int], loss: str) -> None:
    dtype, _ = kind
    function, reference = getattr(simd_losses, loss), getattr(ref, loss)

    @njit
    def kernel(dz: Any, z: Any, classes: int, label: int, scale: float) -> Any:
        return function(pointer(dz, 0), pointer(z, 0), len(z), classes, label, scale)

    # In pairs: the number of classes, and the logits of the lanes after the last class.
    for classes, unused in product((1, 2, 10, 16, 17, 40), (0, np.inf, np.nan)):
        z = np.full(-(-classes // ALIGNMENT) * ALIGNMENT, unused, dtype)
        z[:classes] = 5 * numbers(random, classes, dtype=dtype)
        for label in {0, classes - 1}:
            want, gradient = reference(z[:classes].astype("float64"), label)
            dz = numbers(random, len(z), dtype=dtype)
            got = kernel(dz, z, classes, label, 0.25)
            error = 8 * float(np.finfo(dtype).eps)
            magnitude = 1 + float(np.abs(z[:classes]).sum())  # of the terms of the loss
            assert got == pytest.approx(want, rel=0, abs=error * magnitude)
            np.testing.assert_allclose(dz[:classes], 0.25 * gradient, rtol=0, atol=0.25 * error)
            assert (dz[classes:] == 0).all()


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("loss", ["softmax_cross_entropy", "binary_cross_entropy", "quadratic"])
def test_a_logit_that_is_not_finite_shows_in_the_loss(loss: str, value: float) -> None:
    function = getattr(simd_losses, loss)

    @njit(**compilation._OPTIONS)
    def kernel(dz: Any, z: Any) -> Any:
        return function(pointer(dz, 0), pointer(z, 0), len(z), 10, 3, 1.0)

    for position in (0, 3, 9):
        z, dz = np.zeros(16, "float32"), np.zeros(16, "float32")
        z[position] = value
        is_finite = bool(np.isfinite(kernel(dz, z)))
        assert is_finite == (loss == "quadratic" and value == np.inf)  # the sigmoid of ∞ is 1


def test_softmax_of_an_image_in_place(random: np.random.Generator, kind: tuple[str, int]) -> None:
    dtype, _ = kind

    @njit
    def kernel(z: Any, classes: int) -> Any:
        return simd_losses.softmax(pointer(z, 0), pointer(z, 0), len(z), classes)

    for classes in (1, 10, 16, 33):
        z = np.full(-(-classes // ALIGNMENT) * ALIGNMENT, np.inf, dtype)
        z[:classes] = 1000 + 50 * numbers(random, classes, dtype=dtype)
        exact = z[:classes].astype("float64")
        log_sum = np.log(np.exp(exact - exact.max()).sum()) + exact.max()
        assert kernel(z, classes) == pytest.approx(log_sum, rel=float(np.finfo(dtype).eps))
        assert_close(z[:classes], ref.softmax(exact), dtype=dtype, terms=classes)
        assert (z[classes:] == 0).all()


def test_classes_before_a_label(kind: tuple[str, int]) -> None:
    dtype, _ = kind

    @njit
    def kernel(z: Any, classes: int, label: int) -> Any:
        return simd_losses.classes_before(pointer(z, 0), len(z), classes, label)

    for classes in (5, 21):
        z = np.full(-(-classes // ALIGNMENT) * ALIGNMENT, np.inf, dtype)
        z[:classes] = -1
        z[:5] = 3, 7, 7, -np.inf, 2
        order = np.argsort(-z[:classes], kind="stable")
        assert [kernel(z, classes, label) for label in order] == list(range(classes))
        z[4] = np.nan
        assert kernel(z, classes, 1) == 1
        assert kernel(z, classes, 4) == classes
