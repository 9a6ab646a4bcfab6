"""Arguments with wrong shapes, types or ranges are refused on every backend."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from backends import LOSSES, Adam, Backend

Zeros = Callable[..., Any]


@pytest.fixture
def zeros(backend: Backend) -> Zeros:
    """Return zeros on the device."""
    return lambda *shape: backend.zeros(shape, dtype="float32")


@pytest.mark.parametrize("loss", [kind for kind in LOSSES if LOSSES[kind].targets == "classes"])
@pytest.mark.parametrize(
    ("labels", "error", "message"),
    [
        ([0, 3], ValueError, "labels must be 0 to 2, got 3"),
        ([0, -1], ValueError, "labels must be 0 to 2, got -1"),
        ([0, 2**40], ValueError, "labels must be 0 to 2, got 1099511627776"),
        ([0, 1, 2], ValueError, r"labels must have shape \(2,\), got \(3,\)"),
        ([0], ValueError, r"labels must have shape \(2,\), got \(1,\)"),
        ([[0, 1, 0], [1, 0, 0]], ValueError, r"labels must have shape \(2,\), got \(2, 3\)"),
        (1, ValueError, r"labels must have shape \(2,\), got \(\)"),
        ([0.0, 1.0], TypeError, "labels must be integers, got .*float64"),
        ([True, False], TypeError, "labels must be integers, got .*bool"),
    ],
)
def test_wrong_labels_are_refused(
    backend: Backend, zeros: Zeros, loss: str, labels: Any, error: type[Exception], message: str
) -> None:
    wrong = backend.asarray(np.array(labels))
    with pytest.raises(error, match=message):
        backend.loss(loss, zeros(2, 3), wrong)
    with pytest.raises(error, match=message):
        backend.count_correct(zeros(2, 3), wrong)
    with pytest.raises(error, match=message):
        backend.one_hot(wrong, like=zeros(2, 3))


def test_wrong_targets_and_weights_are_refused(backend: Backend, zeros: Zeros) -> None:
    with pytest.raises(ValueError, match=r"targets must have shape \(2, 3\), got \(2,\)"):
        backend.loss("squared_error", zeros(2, 3), zeros(2))
    for wrong in (zeros(3), zeros(2, 1)):
        with pytest.raises(ValueError, match=r"weights must have shape \(2,\), got"):
            backend.loss("squared_error", zeros(2, 3), zeros(2, 3), wrong)


@pytest.mark.parametrize("dtype", ["int32", "int64", "uint8"])
def test_labels_may_have_any_integer_dtype(backend: Backend, zeros: Zeros, dtype: str) -> None:
    labels = backend.asarray(np.array([0, 2], dtype))
    loss, _ = backend.loss("softmax_cross_entropy", zeros(2, 3), labels)
    assert float(loss) == pytest.approx(np.log(3))


@pytest.mark.parametrize("shape", [(), (3,), (2, 3, 1)])
def test_logits_that_are_no_matrix_are_refused(
    backend: Backend, zeros: Zeros, shape: tuple[int, ...]
) -> None:
    labels, logits = backend.asarray(np.array([0, 1])), zeros(*shape)
    for call in (
        lambda: backend.loss("softmax_cross_entropy", logits, labels),
        lambda: backend.count_correct(logits, labels),
        lambda: backend.probabilities("quadratic", logits),
        lambda: backend.softmax(logits),
        lambda: backend.log_softmax(logits),
    ):
        with pytest.raises(ValueError, match=r"logits must have shape \(N, C\), got \("):
            call()


def test_wrong_shapes_of_linear_are_refused(backend: Backend, zeros: Zeros) -> None:
    x, weight, dy = zeros(4, 3), zeros(3, 2), zeros(4, 2)
    for bias in (zeros(3), zeros(1), zeros(1, 2), zeros(4, 2), zeros()):
        with pytest.raises(ValueError, match=r"bias must have shape \(2,\), got"):
            backend.linear(x, weight, bias)
    for wrong in (zeros(3), zeros(1, 4, 3), zeros()):
        with pytest.raises(ValueError, match=r"x must have shape \(N, in\), got"):
            backend.linear(wrong, weight, None)
        with pytest.raises(ValueError, match=r"x must have shape \(N, in\), got"):
            backend.linear_backward(dy, wrong, weight, need_dx=True)
    for wrong in (zeros(3), zeros(1, 3, 2)):
        with pytest.raises(ValueError, match=r"weight must have shape \(in, out\), got"):
            backend.linear(x, wrong, None)
    with pytest.raises(ValueError, match="weight takes 5 inputs, x has 3"):
        backend.linear(x, zeros(5, 2), None)
    for wrong in (zeros(4, 3), zeros(1, 2), zeros(2), zeros(5, 2)):
        with pytest.raises(ValueError, match=r"dy must have shape \(4, 2\), got"):
            backend.linear_backward(wrong, x, weight, need_dx=False)


@pytest.mark.parametrize("shape", [(3,), (6, 6), (1, 6, 6), (1, 1, 1, 6, 6)])
def test_images_of_another_rank_are_refused(
    backend: Backend, zeros: Zeros, shape: tuple[int, ...]
) -> None:
    x, weight, dy = zeros(*shape), zeros(2, 1, 3, 3), zeros(1, 2, 4, 4)
    conv = {"stride": 1, "padding": 0}
    pool = {"size": 2, "stride": 2}
    for call in (
        lambda: backend.conv2d(x, weight, None, **conv),
        lambda: backend.conv2d(zeros(1, 1, 6, 6), zeros(*shape), None, **conv),
        lambda: backend.conv2d_backward(dy, x, weight, need_dx=True, **conv),
        lambda: backend.im2col(x, kernel_size=(3, 3), **conv),
        lambda: backend.col2im(zeros(1, 9, 16), x_shape=shape, kernel_size=(3, 3), **conv),
        lambda: backend.max_pool2d(x, ties="first", **pool),
        lambda: backend.avg_pool2d(x, **pool),
        lambda: backend.max_pool2d_backward(dy, dy, x_shape=shape, **pool),
        lambda: backend.avg_pool2d_backward(dy, x_shape=shape, **pool),
    ):
        with pytest.raises(ValueError, match=r"must (have shape|be) \(.*\), got \("):
            call()


@pytest.mark.parametrize("wrong", [(1, 1), [2], 1.0, None, "1"])
def test_strides_sizes_and_paddings_are_integers(
    backend: Backend, zeros: Zeros, wrong: Any
) -> None:
    x, weight, dy = zeros(1, 1, 6, 6), zeros(2, 1, 3, 3), zeros(1, 2, 4, 4)
    pooled, shape = zeros(1, 1, 3, 3), {"x_shape": (1, 1, 6, 6)}
    for call in (
        lambda: backend.conv2d(x, weight, None, stride=wrong, padding=0),
        lambda: backend.conv2d(x, weight, None, stride=1, padding=wrong),
        lambda: backend.conv2d_backward(dy, x, weight, stride=wrong, padding=0, need_dx=True),
        lambda: backend.conv2d_backward(dy, x, weight, stride=1, padding=wrong, need_dx=True),
        lambda: backend.im2col(x, kernel_size=(3, 3), stride=wrong, padding=0),
        lambda: backend.col2im(
            zeros(1, 9, 16), kernel_size=(3, 3), stride=1, padding=wrong, **shape
        ),
        lambda: backend.max_pool2d(x, size=wrong, stride=2, ties="first"),
        lambda: backend.max_pool2d(x, size=2, stride=wrong, ties="first"),
        lambda: backend.max_pool2d_backward(pooled, pooled, size=wrong, stride=2, **shape),
        lambda: backend.avg_pool2d(x, size=wrong, stride=2),
        lambda: backend.avg_pool2d(x, size=2, stride=wrong),
        lambda: backend.avg_pool2d_backward(pooled, size=2, stride=wrong, **shape),
    ):
        with pytest.raises(TypeError, match=r"(size|stride|padding) must be an integer, got"):
            call()
    with pytest.raises(TypeError, match=r"kernel_size must be a pair \(kh, kw\), got 3"):
        backend.im2col(x, kernel_size=3, stride=1, padding=0)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("indices", "error", "message"),
    [
        ([0, 4], ValueError, "indices must be 0 to 3, got 4"),
        ([-1], ValueError, "indices must be 0 to 3, got -1"),
        ([[0, 1]], ValueError, r"indices must have shape \(B,\), got \(1, 2\)"),
        ([0.0], TypeError, "indices must be integers"),
    ],
)
def test_wrong_row_numbers_are_refused(
    backend: Backend, indices: Any, error: type[Exception], message: str
) -> None:
    images = backend.asarray(np.zeros((4, 9), np.uint8))
    with pytest.raises(error, match=message):
        backend.gather_batch(images, backend.asarray(np.array(indices)), dtype="float32", shift=0.0)
    with pytest.raises(ValueError, match=r"images must have shape \(N, pixels\), got \(36,\)"):
        backend.gather_batch(
            backend.asarray(np.zeros(36, np.uint8)),
            backend.asarray(np.array([0])),
            dtype="float32",
            shift=0.0,
        )


@pytest.mark.parametrize(
    ("size", "dtype", "expected"),
    [(2, "int64", "uint8"), (2, "float32", "uint8"), (3, "uint8", "int64")],
)
def test_tie_masks_of_another_dtype_are_refused(
    backend: Backend, zeros: Zeros, size: int, dtype: str, expected: str
) -> None:
    mask = backend.zeros((1, 1, 2, 2), dtype=dtype)
    with pytest.raises(TypeError, match=f"mask must be {expected} for patches of size {size}, got"):
        backend.max_pool2d_backward(
            zeros(1, 1, 2, 2), mask, x_shape=(1, 1, 6, 6), size=size, stride=3
        )


@pytest.mark.parametrize(
    ("grads", "mean", "message"),
    [
        ((4,), (3,), r"grads must have shape \(3,\), got \(4,\)"),
        ((1,), (3,), r"grads must have shape \(3,\), got \(1,\)"),
        ((3,), (2,), r"mean must have shape \(3,\), got \(2,\)"),
        ((3,), None, "the optimizer adam needs the state mean, got square_mean"),
    ],
)
def test_vectors_of_an_update_must_have_one_length(
    backend: Backend,
    zeros: Zeros,
    grads: tuple[int, ...],
    mean: tuple[int, ...] | None,
    message: str,
) -> None:
    state = {"square_mean": zeros(3)} | ({} if mean is None else {"mean": zeros(*mean)})
    with pytest.raises(ValueError, match=message):
        backend.update(Adam(), zeros(3), zeros(*grads), state, lr=0.1, step=1)


def test_shapes_of_output_and_gradient_of_an_activation_must_agree(
    backend: Backend, zeros: Zeros
) -> None:
    with pytest.raises(ValueError, match=r"y must have shape \(2, 3\), got \(1, 3\)"):
        backend.activation_backward("relu", zeros(2, 3), zeros(1, 3))


@pytest.mark.parametrize("wrong", [None, [[0.0, 1.0]], "text", 3])
def test_arguments_that_are_no_arrays_are_refused(
    backend: Backend, zeros: Zeros, wrong: Any
) -> None:
    x, weight, shape = zeros(1, 1, 6, 6), zeros(1, 1, 3, 3), {"x_shape": (1, 1, 6, 6)}
    logits, labels = zeros(2, 3), backend.asarray(np.array([0, 1]))
    for call in (
        lambda: backend.activation_backward("relu", wrong, logits),
        lambda: backend.linear(wrong, zeros(3, 2), None),
        lambda: backend.linear(logits, wrong, None),
        lambda: backend.linear_backward(zeros(2, 2), logits, wrong, need_dx=True),
        lambda: backend.conv2d(wrong, weight, None, stride=1, padding=0),
        lambda: backend.conv2d_backward(wrong, x, weight, stride=1, padding=0, need_dx=True),
        lambda: backend.im2col(wrong, kernel_size=(3, 3), stride=1, padding=0),
        lambda: backend.max_pool2d(wrong, size=2, stride=2, ties="first"),
        lambda: backend.max_pool2d_backward(zeros(1, 1, 3, 3), wrong, size=2, stride=2, **shape),
        lambda: backend.avg_pool2d(wrong, size=2, stride=2),
        lambda: backend.avg_pool2d_backward(wrong, size=2, stride=2, **shape),
        lambda: backend.softmax(wrong),
        lambda: backend.loss("softmax_cross_entropy", wrong, labels),
        lambda: backend.loss("softmax_cross_entropy", logits, wrong),
        lambda: backend.count_correct(logits, wrong),
    ):
        with pytest.raises(TypeError, match=r"must be an array from backend\.asarray, got "):
            call()


def test_averages_of_integers_are_refused(backend: Backend) -> None:
    x = backend.asarray(np.ones((1, 1, 4, 4), np.uint8))
    with pytest.raises(TypeError, match=r"x must be floating-point numbers, got .*uint8"):
        backend.avg_pool2d(x, size=2, stride=2)
    with pytest.raises(TypeError, match=r"dy must be floating-point numbers, got .*uint8"):
        backend.avg_pool2d_backward(x, x_shape=(1, 1, 8, 8), size=2, stride=2)


def test_size_of_an_average_may_be_an_integer_of_numpy(backend: Backend, zeros: Zeros) -> None:
    x, size = zeros(1, 1, 4, 4), np.int64(2)
    assert backend.avg_pool2d(x, size=size, stride=2).dtype == x.dtype
    dx = backend.avg_pool2d_backward(x, x_shape=(1, 1, 8, 8), size=size, stride=2)
    assert dx.dtype == x.dtype


@pytest.mark.parametrize("dtype", ["float16", ">f4"])
def test_pooling_and_convolution_of_other_dtypes_need_no_kernel(
    backend: Backend, dtype: str
) -> None:
    if backend.name not in ("numpy", "numba"):
        pytest.skip("the array library may lack these dtypes")
    x, weight = np.ones((1, 1, 4, 4), dtype), np.ones((1, 1, 3, 3), dtype)
    pooled, shape = np.ones((1, 1, 2, 2), dtype), {"x_shape": x.shape}
    y, mask = backend.max_pool2d(x, size=2, stride=2, ties="first")
    dx = backend.max_pool2d_backward(pooled, mask, size=2, stride=2, **shape)
    assert y.sum() == dx.sum() == 4
    assert backend.avg_pool2d(x, size=2, stride=2).sum() == 4
    assert backend.avg_pool2d_backward(pooled, size=2, stride=2, **shape).sum() == 4
    y = backend.conv2d(x, weight, None, stride=1, padding=0)
    dy = y.astype(dtype)
    _, dweight, _ = backend.conv2d_backward(dy, x, weight, stride=1, padding=0, need_dx=True)
    assert y.sum() == 36
    assert dweight.sum() == 324
