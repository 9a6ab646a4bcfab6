"""Maximum and average pooling over square patches.

For each position in a patch, a strided slice of the images holds this position of all patches. So
patches of any size and stride need only element-wise operations on size² slices. An incomplete last
row or column of patches is dropped.

Tie mask: on MNIST most patches are on blank background, where several positions equal the maximum.
Which of them receive the gradient is part of a recipe. `max_pool2d` returns an integer per patch
whose bit i·size + j is set if position (i, j) of the patch receives the gradient.
"""

from collections.abc import Iterator
from typing import Any

from array_api_compat import device

from backends.checks import as_integer
from backends.operations.common import (
    Array,
    Operations,
    Ties,
    check_max_pooling,
    output_sizes,
    require_axes,
    require_floating,
    require_shape,
    tap_slices,
)


class Pooling(Operations):
    """Maximum and average pooling, with their gradients."""

    def max_pool2d(self, x: Array, *, size: int, stride: int, ties: Ties) -> tuple[Array, Array]:
        """Return the maximum of each patch, and the tie mask, both (N, C, OH, OW).

        Args:
            x: images (N, C, H, W).
            size: side of the patch, 1 to 7.
            stride: distance between patches, in pixels.
            ties: which of the positions that equal the maximum receive the full gradient: only the
                "first" in row-major order, as in PyTorch, JAX and Keras, or "all". The gradient of
                a patch with a NaN goes to the NaN on a GPU, as in PyTorch, and is dropped by the
                other backends; the loss is NaN anyway.

        Returns:
            The maxima in the dtype of `x`; the mask as uint8 if size² ≤ 8, else int64.

        Raises:
            TypeError: `x` is no array, or the size or the stride is not an integer.
            ValueError: a shape, the size, the stride or the tie rule is invalid, or no patch fits.
        """
        check_max_pooling(size, ties)
        require_axes("x", x, "N", "C", "H", "W")
        xp = self.xp
        output = pooled_shape(x.shape, size=size, stride=stride)
        positions = [x[patch] for patch in _patches(output, size=size, stride=stride)]
        y = positions[0]
        for position in positions[1:]:
            y = xp.maximum(y, position)
        mask = xp.zeros(y.shape, dtype=getattr(xp, _mask_dtype(size)), device=device(y))
        for bit, position in enumerate(positions):
            hit = position == y
            if ties == "first":
                hit = hit & (mask == 0)
            mask = mask + xp.astype(hit, mask.dtype) * (1 << bit)
        return y, mask

    def max_pool2d_backward(
        self, dy: Array, mask: Array, *, x_shape: tuple[int, int, int, int], size: int, stride: int
    ) -> Array:
        """Return the gradient of `max_pool2d` with respect to `x`.

        Args:
            dy: gradient of the loss with respect to the maxima (N, C, OH, OW).
            mask: the tie mask from `max_pool2d`.
            x_shape: shape (N, C, H, W) of the pooled images.
            size: as given to `max_pool2d`.
            stride: as given to `max_pool2d`.

        Returns:
            dx (N, C, H, W).

        Raises:
            TypeError: the mask has another dtype than `max_pool2d` returns for this size.
            ValueError: the size is out of range, or a shape differs from that of the maxima.
        """
        check_max_pooling(size)
        xp = self.xp
        expected = pooled_shape(x_shape, size=size, stride=stride)
        require_shape("dy", dy, expected)
        require_mask(self.xp, mask, expected, size=size)
        dx = xp.zeros(x_shape, dtype=dy.dtype, device=device(dy))
        for bit, patch in enumerate(_patches(expected, size=size, stride=stride)):
            dx[patch] += dy * xp.astype((mask & (1 << bit)) != 0, dy.dtype)
        return dx

    def avg_pool2d(self, x: Array, *, size: int, stride: int) -> Array:
        """Return the means (N, C, OH, OW) of the patches of `x` (N, C, H, W).

        Raises:
            TypeError: `x` is not floating-point, or the size or the stride is not an integer.
            ValueError: the size or the stride is out of range, or no patch fits.
        """
        require_floating(self.xp, "x", x)
        size = as_integer("pooling size", size, at_least=1)
        output = pooled_shape(x.shape, size=size, stride=stride)
        patches = list(_patches(output, size=size, stride=stride))
        total = x[patches[0]]
        for patch in patches[1:]:
            total = total + x[patch]
        return total / (size * size)

    def avg_pool2d_backward(
        self, dy: Array, *, x_shape: tuple[int, int, int, int], size: int, stride: int
    ) -> Array:
        """Return the gradient of `avg_pool2d` with respect to `x`: dy / size² at each position.

        Raises:
            TypeError: `dy` is not floating-point, or the size or the stride is not an integer.
            ValueError: the size is out of range, or `dy` does not have the shape of the means.
        """
        require_floating(self.xp, "dy", dy)
        size = as_integer("pooling size", size, at_least=1)
        expected = pooled_shape(x_shape, size=size, stride=stride)
        require_shape("dy", dy, expected)
        dx = self.xp.zeros(x_shape, dtype=dy.dtype, device=device(dy))
        part = dy / (size * size)
        for patch in _patches(expected, size=size, stride=stride):
            dx[patch] += part
        return dx


def pooled_shape(
    x_shape: tuple[int, int, int, int], *, size: int, stride: int
) -> tuple[int, int, int, int]:
    """Return the shape (N, C, OH, OW) of pooled images.

    Raises:
        TypeError: the size or the stride is not an integer.
        ValueError: the shape does not have four axes, the size or the stride is out of range, or no
            patch fits.
    """
    if len(x_shape) != 4:
        raise ValueError(f"images must have shape (N, C, H, W), got {tuple(x_shape)}")
    n, channels, height, width = x_shape
    return n, channels, *output_sizes((height, width), (size, size), stride=stride)


def require_mask(xp: Any, mask: Array, expected: tuple[int, ...], *, size: int) -> None:
    """Check that a tie mask is one that max-pooling returns.

    Raises:
        TypeError: it has another dtype.
        ValueError: it does not have the shape `expected`.
    """
    require_shape("mask", mask, expected)
    dtype = _mask_dtype(size)
    if mask.dtype != getattr(xp, dtype):
        raise TypeError(f"mask must be {dtype} for patches of size {size}, got {mask.dtype}")


def _mask_dtype(size: int) -> str:
    """Return the name of the dtype of tie masks, which have a bit for each position of a patch."""
    return "uint8" if size * size <= 8 else "int64"


def _patches(
    output: tuple[int, int, int, int], *, size: int, stride: int
) -> Iterator[tuple[slice, slice, slice, slice]]:
    """Yield, for each position in a patch, the slice with this position of all patches.

    Args:
        output: shape of the pooled images (N, C, OH, OW).
        size: side of the patch.
        stride: distance between patches, in pixels.
    """
    every = slice(None)
    for rows, columns in tap_slices((size, size), output[2:], stride):
        yield every, every, rows, columns
