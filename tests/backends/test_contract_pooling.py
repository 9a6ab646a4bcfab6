"""Pooling on every backend: ties, NaN, tie masks and sizes."""

from typing import Any

import numpy as np
import pytest

import reference as ref
from backends import Backend
from tests.support.closeness import assert_close

SIZES = (1, 2, 3)


def pool(backend: Backend, x: Any, *, size: int, stride: int, ties: str) -> tuple[Any, Any]:
    y, mask = backend.max_pool2d(backend.asarray(x), size=size, stride=stride, ties=ties)
    return backend.to_numpy(y), backend.to_numpy(mask)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("ties", "bits"), [("first", [0]), ("all", None)])
def test_tie_mask_of_a_constant_image(backend: Backend, size: int, ties: str, bits: Any) -> None:
    x = np.full((1, 2, 6, 6), -0.5, "float32")
    y, mask = pool(backend, x, size=size, stride=size, ties=ties)
    np.testing.assert_array_equal(y, np.full((1, 2, 6 // size, 6 // size), -0.5, "float32"))
    assert mask.dtype == ("uint8" if size * size <= 8 else "int64")
    expected = sum(1 << bit for bit in (range(size * size) if bits is None else bits))
    np.testing.assert_array_equal(mask, np.full(y.shape, expected, mask.dtype))


@pytest.mark.parametrize(("ties", "bits"), [("first", 0b0010), ("all", 0b1010)])
def test_tie_mask_bits_are_in_row_major_order(backend: Backend, ties: str, bits: int) -> None:
    x = np.array([[[[1.0, 7.0], [2.0, 7.0]]]])
    _, mask = pool(backend, x, size=2, stride=2, ties=ties)
    assert mask.tolist() == [[[[bits]]]]


@pytest.mark.parametrize("ties", ["first", "all"])
@pytest.mark.parametrize(
    ("size", "stride"), [(1, 1), (2, 2), (2, 1), (2, 3), (3, 3), (3, 2), (7, 7)]
)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_gradient_with_many_ties_matches_the_reference(
    backend: Backend, ties: str, size: int, stride: int, dtype: str
) -> None:
    rng = np.random.default_rng(8)
    x = rng.integers(0, 3, size=(17, 2, 11, 10)).astype(dtype)  # three values, so many ties
    y, mask = pool(backend, x, size=size, stride=stride, ties=ties)
    dy = rng.standard_normal(y.shape).astype(dtype)
    dx = backend.max_pool2d_backward(
        backend.asarray(dy), backend.asarray(mask), x_shape=x.shape, size=size, stride=stride
    )
    expected = [
        ref.max_pool2d_backward(d, image, size, stride, ties)
        for d, image in zip(dy.astype("float64"), x.astype("float64"), strict=True)
    ]
    assert_close(backend.to_numpy(dx), np.array(expected), dtype=dtype, terms=size * size)


@pytest.mark.parametrize("ties", ["first", "all"])
@pytest.mark.parametrize("size", SIZES)
def test_nan_is_the_maximum_of_its_patch(backend: Backend, ties: str, size: int) -> None:
    for position in np.ndindex(size, size):
        x = np.arange(36, dtype="float32").reshape(1, 1, 6, 6)
        x[0, 0, *position] = np.nan
        y, _ = pool(backend, x, size=size, stride=size, ties=ties)
        assert np.isnan(y[0, 0, 0, 0])
        assert np.isfinite(y.ravel()[1:]).all()


def test_infinities_are_compared_like_other_numbers(backend: Backend) -> None:
    x = np.array([[[[-np.inf, -np.inf, 1.0, np.inf], [-np.inf, -np.inf, np.inf, 2.0]]]])
    y, mask = pool(backend, x, size=2, stride=2, ties="all")
    assert y.tolist() == [[[[-np.inf, np.inf]]]]
    assert mask.tolist() == [[[[0b1111, 0b0110]]]]


def test_nan_passes_through_relu(backend: Backend) -> None:
    x = np.array([[np.nan, -1.0, 0.0, 2.0]], "float32")
    y = backend.to_numpy(backend.activation("relu", backend.asarray(x)))
    np.testing.assert_array_equal(y, np.array([[np.nan, 0.0, 0.0, 2.0]], "float32"))


@pytest.mark.parametrize(
    ("size", "stride", "message"),
    [
        (0, 1, "size must be at least 1, got 0"),
        (2, 0, "stride must be at least 1, got 0"),
        (6, 2, "a patch of 6 does not fit an input of 5"),
    ],
)
def test_invalid_size_or_stride_is_refused(
    backend: Backend, size: int, stride: int, message: str
) -> None:
    x = backend.zeros((1, 1, 5, 6), dtype="float32")
    mask = backend.zeros((1, 1, 5, 6), dtype="uint8")
    pooling = {"size": size, "stride": stride}
    with pytest.raises(ValueError, match=message):
        backend.max_pool2d(x, ties="first", **pooling)
    with pytest.raises(ValueError, match=message):
        backend.max_pool2d_backward(x, mask, x_shape=(1, 1, 5, 6), **pooling)
    with pytest.raises(ValueError, match=message):
        backend.avg_pool2d(x, **pooling)
    with pytest.raises(ValueError, match=message):
        backend.avg_pool2d_backward(x, x_shape=(1, 1, 5, 6), **pooling)


def test_max_pooling_of_more_than_7_pixels_is_refused(backend: Backend) -> None:
    """64 positions do not fit the bits of a tie mask."""
    x, dy = (backend.zeros((1, 1, side, side), dtype="float32") for side in (8, 1))
    mask = backend.zeros((1, 1, 1, 1), dtype="uint8")
    message = "max-pooling size must be 1 to 7, got 8"
    with pytest.raises(ValueError, match=message):
        backend.max_pool2d(x, size=8, stride=8, ties="first")
    with pytest.raises(ValueError, match=message):
        backend.max_pool2d_backward(dy, mask, x_shape=(1, 1, 8, 8), size=8, stride=8)


@pytest.mark.parametrize("ties", ["first", "all"])
def test_gradient_of_a_patch_with_nan_goes_to_the_nan_or_nowhere(
    backend: Backend, ties: str
) -> None:
    x = np.arange(16, dtype="float32").reshape(1, 1, 4, 4)
    x[0, 0, 0, 1] = np.nan
    device = backend.asarray(x)
    _, mask = backend.max_pool2d(device, size=2, stride=2, ties=ties)  # type: ignore[arg-type]
    dy = backend.asarray(np.ones((1, 1, 2, 2), "float32"))
    dx = backend.max_pool2d_backward(dy, mask, x_shape=x.shape, size=2, stride=2)
    assert set(np.flatnonzero(backend.to_numpy(dx))) - {1} == {7, 13, 15}


def test_gradient_of_relu_passes_where_the_output_is_nan(backend: Backend) -> None:
    """As in PyTorch. Where the output is 0, a gradient that is NaN becomes 0 or stays NaN."""
    y = backend.asarray(np.array([[np.nan, 0.0, 2.0, 2.0, 0.0]], "float32"))
    dy = backend.asarray(np.array([[3.0, 4.0, np.nan, 5.0, np.nan]], "float32"))
    dx = backend.to_numpy(backend.activation_backward("relu", dy, y))
    np.testing.assert_array_equal(dx[:, :4], np.array([[3.0, 0.0, np.nan, 5.0]], "float32"))
    assert dx[0, 4] == 0 or np.isnan(dx[0, 4])


def test_unknown_tie_rule_is_refused(backend: Backend) -> None:
    x = backend.zeros((1, 1, 4, 4), dtype="float32")
    with pytest.raises(ValueError, match=r"'first', 'all'.*got 'last'"):
        backend.max_pool2d(x, size=2, stride=2, ties="last")  # type: ignore[arg-type]


def test_mismatched_shapes_of_gradient_and_mask_are_refused(backend: Backend) -> None:
    dy = backend.zeros((1, 1, 3, 2), dtype="float32")
    mask = backend.zeros((1, 1, 2, 2), dtype="uint8")
    pooling = {"x_shape": (1, 1, 5, 4), "size": 2, "stride": 2}
    with pytest.raises(ValueError, match=r"dy must have shape \(1, 1, 2, 2\), got \(1, 1, 3, 2\)"):
        backend.max_pool2d_backward(dy, mask, **pooling)
    with pytest.raises(ValueError, match=r"dy must have shape \(1, 1, 2, 2\), got \(1, 1, 3, 2\)"):
        backend.avg_pool2d_backward(dy, **pooling)
    with pytest.raises(
        ValueError, match=r"mask must have shape \(1, 1, 2, 2\), got \(1, 1, 1, 2\)"
    ):
        backend.max_pool2d_backward(
            backend.zeros((1, 1, 2, 2), dtype="float32"), mask[:, :, :1, :], **pooling
        )


@pytest.mark.parametrize("ties", ["first", "all"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_rows_of_any_length_are_pooled(backend: Backend, ties: str, dtype: str) -> None:
    # Kernels compute several patches at once, and the last ones of a row once more.
    rng = np.random.default_rng(9)
    for width in range(2, 36):
        x = rng.integers(0, 3, size=(1, 2, 5, width)).astype(dtype)
        y, mask = pool(backend, x, size=2, stride=2, ties=ties)
        patches = x[:, :, :4, : width // 2 * 2].reshape(1, 2, 2, 2, -1, 2).swapaxes(3, 4)
        patches = patches.reshape(*y.shape, 4)
        np.testing.assert_array_equal(y, patches.max(axis=-1))
        hits = patches == y[..., np.newaxis]
        if ties == "first":
            hits &= np.cumsum(hits, axis=-1) == 1
        np.testing.assert_array_equal(mask, hits @ np.array([1, 2, 4, 8]))
        dy = rng.standard_normal(y.shape).astype(dtype)
        dx = backend.max_pool2d_backward(
            backend.asarray(dy), backend.asarray(mask), x_shape=x.shape, size=2, stride=2
        )
        expected = np.zeros_like(x)
        spread = (hits * dy[..., np.newaxis]).reshape(1, 2, 2, -1, 2, 2).swapaxes(3, 4)
        expected[:, :, :4, : width // 2 * 2] = spread.reshape(1, 2, 4, -1)
        np.testing.assert_array_equal(backend.to_numpy(dx), expected)
