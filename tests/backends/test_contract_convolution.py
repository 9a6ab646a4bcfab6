"""Convolution on every backend: uniform convolution, NaN, sizes and shapes."""

from itertools import product

import numpy as np
import pytest

from backends import Backend
from mnist_accel.data import Dataset
from tests.support.operation_examples import CONVOLUTIONS


@pytest.mark.parametrize(("kernel_size", "stride", "padding"), CONVOLUTIONS)
def test_col2im_is_the_transpose_of_im2col(
    backend: Backend, kernel_size: tuple[int, int], stride: int, padding: int
) -> None:
    rng = np.random.default_rng(3)
    patch = {"kernel_size": kernel_size, "stride": stride, "padding": padding}
    x = rng.standard_normal((2, 3, 9, 8))
    columns = backend.to_numpy(backend.im2col(backend.asarray(x), **patch))
    y = rng.standard_normal(columns.shape)
    folded = backend.to_numpy(backend.col2im(backend.asarray(y), x_shape=x.shape, **patch))
    assert np.vdot(columns, y) == pytest.approx(np.vdot(x, folded), rel=1e-13)


@pytest.mark.parametrize("shift", [0.0, -0.5])
@pytest.mark.parametrize("batch", [1, 64])
@pytest.mark.parametrize(
    ("kernel", "stride", "padding"), [(3, 1, 0), (3, 1, 1), (5, 1, 2), (3, 2, 0), (5, 3, 1)]
)
def test_uniform_convolution_gives_equal_outputs_for_equal_patches(
    backend: Backend,
    mnist: Dataset,
    batch: int,
    kernel: int,
    stride: int,
    padding: int,
    shift: float,
) -> None:
    images = mnist.x_train[:batch].reshape(batch, 1, 28, 28)
    x = (images / 255 + shift).astype("float32")
    weight = np.random.default_rng(5).standard_normal((8, 1, kernel, kernel)).astype("float32")
    options = {"stride": stride, "padding": padding}
    device_x = backend.asarray(x)
    y = backend.to_numpy(
        backend.conv2d(device_x, backend.asarray(weight), None, uniform=True, **options)
    )
    columns = backend.to_numpy(backend.im2col(device_x, kernel_size=(kernel, kernel), **options))
    patches = columns.transpose(0, 2, 1).reshape(-1, kernel * kernel)
    outputs = y.transpose(0, 2, 3, 1).reshape(-1, 8)
    _, first, inverse = np.unique(patches, axis=0, return_index=True, return_inverse=True)
    assert len(first) < 0.8 * len(patches)  # many patches of MNIST are equal
    np.testing.assert_array_equal(outputs, outputs[first][inverse.ravel()])


@pytest.mark.parametrize("batch", [1, 16, 17, 40])
def test_output_of_an_image_does_not_depend_on_the_batch(backend: Backend, batch: int) -> None:
    rng = np.random.default_rng(6)
    x = rng.standard_normal((batch, 2, 10, 11)).astype("float32")
    weight = backend.asarray(rng.standard_normal((3, 2, 3, 3)).astype("float32"))
    settings = {"stride": 1, "padding": 1, "uniform": True}
    whole = backend.to_numpy(backend.conv2d(backend.asarray(x), weight, None, **settings))
    last = backend.to_numpy(backend.conv2d(backend.asarray(x[-1:]), weight, None, **settings))
    np.testing.assert_array_equal(whole[-1:], last)


def test_nan_and_infinity_change_only_outputs_whose_patch_contains_them(backend: Backend) -> None:
    x = np.zeros((1, 1, 6, 7), "float32")
    x[0, 0, 1, 1], x[0, 0, 4, 6] = np.nan, np.inf
    weight = np.ones((1, 1, 2, 2), "float32")
    y = backend.conv2d(
        backend.asarray(x), backend.asarray(weight), None, stride=1, padding=0, uniform=True
    )
    expected = np.zeros((1, 1, 5, 6), "float32")
    expected[0, 0, :2, :2] = np.nan
    expected[0, 0, 3:, 5] = np.inf
    np.testing.assert_array_equal(backend.to_numpy(y), expected)


@pytest.mark.parametrize(
    ("stride", "padding", "side", "message"),
    [
        (0, 0, 3, "stride must be at least 1, got 0"),
        (-2, 0, 3, "stride must be at least 1, got -2"),
        (1, -1, 3, "padding must be at least 0, got -1"),
        (2**63, 0, 3, "stride must be at most 2147483647, got 9223372036854775808"),
        (1, 2**63, 3, "padding must be at most 2147483647, got 9223372036854775808"),
        (1, 0, 9, "a patch of 9 does not fit an input of 8 with padding 0"),
        (2, 1, 11, "a patch of 11 does not fit an input of 8 with padding 1"),
    ],
)
def test_invalid_stride_padding_or_kernel_size_is_refused(
    backend: Backend, stride: int, padding: int, side: int, message: str
) -> None:
    x, weight = (backend.zeros((1, 2, 8, 8), dtype="float32") for _ in range(2))
    weight = backend.zeros((4, 2, side, side), dtype="float32")
    dy = backend.zeros((1, 4, 6, 6), dtype="float32")
    options = {"stride": stride, "padding": padding}
    with pytest.raises(ValueError, match=message):
        backend.conv2d(x, weight, None, **options)
    with pytest.raises(ValueError, match=message):
        backend.conv2d_backward(dy, x, weight, need_dx=True, **options)
    with pytest.raises(ValueError, match=message):
        backend.im2col(x, kernel_size=(side, side), **options)
    with pytest.raises(ValueError, match=message):
        backend.col2im(dy, x_shape=(1, 2, 8, 8), kernel_size=(side, side), **options)


@pytest.mark.parametrize("stride", [1, 2])
def test_mismatched_shapes_are_refused(backend: Backend, stride: int) -> None:
    def zeros(*shape: int) -> object:
        return backend.zeros(shape, dtype="float32")

    options = {"stride": stride, "padding": 0}
    x, weight = zeros(1, 2, 8, 8), zeros(4, 2, 3, 3)
    with pytest.raises(ValueError, match="equal numbers of channels, got 2 and 3"):
        backend.conv2d(x, zeros(4, 3, 3, 3), None, **options)
    with pytest.raises(ValueError, match=r"bias must have shape \(4,\), got \(3,\)"):
        backend.conv2d(x, weight, zeros(3), **options)
    with pytest.raises(ValueError, match="equal numbers of channels, got 2 and 3"):
        backend.conv2d_backward(zeros(1, 4, 6, 6), x, zeros(4, 3, 3, 3), need_dx=True, **options)
    for shape, need_dx in product([(2, 4, 6, 6), (1, 3, 6, 6), (1, 4, 7, 6)], [True, False]):
        with pytest.raises(ValueError, match=r"dy must have shape \(1, 4, .*got \("):
            backend.conv2d_backward(zeros(*shape), x, weight, need_dx=need_dx, **options)
