"""Two-dimensional convolution as a matrix product over unfolded patches.

Images are (N, C, H, W), filters (O, C, kh, kw). `im2col` copies the patch of every output position
into a column. A convolution is then one matrix product per image, and its gradients are two more.
As usual in deep learning, filters are not flipped (cross-correlation).

With a matrix product, equal patches need not give bit-identical outputs: BLAS computes columns in
tiles, which may add in different orders. Max-pooling that looks for ties needs identical outputs.
`uniform` selects a sum tap by tap, in one order for all patches.
"""

from array_api_compat import device

from backends.operations.common import (
    Array,
    Operations,
    output_sizes,
    require_axes,
    require_same_dtype,
    require_shape,
    tap_slices,
)


class Convolution(Operations):
    """Convolution and its gradients, and the unfolding of patches."""

    def im2col(self, x: Array, *, kernel_size: tuple[int, int], stride: int, padding: int) -> Array:
        """Return the patch of each output position as a column, (N, C·kh·kw, OH·OW).

        Args:
            x: images (N, C, H, W).
            kernel_size: (kh, kw) of a patch.
            stride: distance between neighboring patches, in pixels.
            padding: zeros added on each of the four sides, in pixels.

        Raises:
            ValueError: the sizes are out of range, or no patch fits.
        """
        require_axes("x", x, "N", "C", "H", "W")
        xp = self.xp
        n, channels, height, width = x.shape
        oh, ow = output_sizes((height, width), kernel_size, stride=stride, padding=padding)
        kh, kw = kernel_size
        if padding:
            x = self._pad(x, padding)
        columns = xp.empty((n, channels, kh * kw, oh, ow), dtype=x.dtype, device=device(x))
        for tap, (down, across) in enumerate(tap_slices(kernel_size, (oh, ow), stride)):
            columns[:, :, tap, :, :] = x[:, :, down, across]
        return xp.reshape(columns, (n, channels * kh * kw, oh * ow))

    def col2im(
        self,
        columns: Array,
        *,
        x_shape: tuple[int, int, int, int],
        kernel_size: tuple[int, int],
        stride: int,
        padding: int,
    ) -> Array:
        """Return images (N, C, H, W), the sums of all columns at their patches.

        This is the transpose of `im2col`.

        Args:
            columns: (N, C·kh·kw, OH·OW).
            x_shape: shape (N, C, H, W) of the unfolded images.
            kernel_size: as given to `im2col`.
            stride: as given to `im2col`.
            padding: as given to `im2col`.
        """
        xp = self.xp
        if len(x_shape) != 4:
            raise ValueError(f"x_shape must be (N, C, H, W), got {tuple(x_shape)}")
        n, channels, height, width = x_shape
        oh, ow = output_sizes((height, width), kernel_size, stride=stride, padding=padding)
        kh, kw = kernel_size
        require_shape("columns", columns, (n, channels * kh * kw, oh * ow))
        columns = xp.reshape(columns, (n, channels, kh * kw, oh, ow))
        padded = (n, channels, height + 2 * padding, width + 2 * padding)
        image = xp.zeros(padded, dtype=columns.dtype, device=device(columns))
        for tap, (down, across) in enumerate(tap_slices(kernel_size, (oh, ow), stride)):
            image[:, :, down, across] += columns[:, :, tap, :, :]
        return image[:, :, padding : padding + height, padding : padding + width]

    def conv2d(
        self,
        x: Array,
        weight: Array,
        bias: Array | None,
        *,
        stride: int,
        padding: int,
        uniform: bool = False,
    ) -> Array:
        """Return the feature maps (N, O, OH, OW) of images, in the dtype of `x`.

        Args:
            x: images (N, C, H, W).
            weight: filters (O, C, kh, kw).
            bias: (O,), or None for a convolution without bias.
            stride: distance between output positions, in pixels.
            padding: zeros added on each of the four sides, in pixels.
            uniform: whether equal patches must give bit-identical outputs.

        Raises:
            TypeError: the dtypes differ.
            ValueError: the sizes are out of range, or the filters do not fit.
        """
        require_same_dtype("conv2d", x=x, weight=weight, bias=bias)
        n, out_channels, oh, ow = conv2d_shape(x, weight, stride=stride, padding=padding)
        if bias is not None:
            require_shape("bias", bias, (out_channels,))
        if uniform:
            y = self._sum_taps(x, weight, output=(oh, ow), stride=stride, padding=padding)
        else:
            kernel_size = (weight.shape[2], weight.shape[3])
            columns = self.im2col(x, kernel_size=kernel_size, stride=stride, padding=padding)
            y = self.xp.reshape(weight, (out_channels, -1)) @ columns
            y = self.xp.reshape(y, (n, out_channels, oh, ow))
        if bias is not None:
            y += self.xp.reshape(bias, (out_channels, 1, 1))
        return y

    def conv2d_backward(
        self, dy: Array, x: Array, weight: Array, *, stride: int, padding: int, need_dx: bool
    ) -> tuple[Array | None, Array, Array]:
        """Return the gradients of `conv2d` with respect to `x`, `weight` and `bias`.

        The columns are computed again rather than kept: they are kh·kw times as large as `x`.

        Args:
            dy: gradient of the loss with respect to the feature maps (N, O, OH, OW).
            x: images as given to `conv2d` (N, C, H, W).
            weight: filters as given to `conv2d` (O, C, kh, kw).
            stride: as given to `conv2d`.
            padding: as given to `conv2d`.
            need_dx: whether dx is needed; the first layer of a network does not need it.

        Returns:
            dx (N, C, H, W) or None, dweight (O, C, kh, kw), dbias (O,).

        Raises:
            TypeError: the dtypes differ.
            ValueError: the shapes do not fit together.
        """
        require_same_dtype("conv2d_backward", dy=dy, x=x, weight=weight)
        require_shape("dy", dy, conv2d_shape(x, weight, stride=stride, padding=padding))
        xp = self.xp
        n, out_channels, oh, ow = dy.shape
        kernel_size = (weight.shape[2], weight.shape[3])
        columns = self.im2col(x, kernel_size=kernel_size, stride=stride, padding=padding)
        dy = xp.reshape(dy, (n, out_channels, oh * ow))
        dweight = xp.sum(dy @ xp.permute_dims(columns, (0, 2, 1)), axis=0)
        dx = None
        if need_dx:
            dcolumns = xp.reshape(weight, (out_channels, -1)).T @ dy
            dx = self.col2im(
                dcolumns, x_shape=x.shape, kernel_size=kernel_size, stride=stride, padding=padding
            )
        return dx, xp.reshape(dweight, weight.shape), xp.sum(dy, axis=(0, 2))

    def _sum_taps(
        self, x: Array, weight: Array, *, output: tuple[int, int], stride: int, padding: int
    ) -> Array:
        """Return the convolution without bias as a sum over taps, at all positions at once."""
        xp = self.xp
        if padding:
            x = self._pad(x, padding)
        n = x.shape[0]
        out_channels, channels, kh, kw = weight.shape
        weight = xp.reshape(weight, (out_channels, channels, kh * kw, 1, 1))
        y = xp.zeros((n, out_channels, *output), dtype=x.dtype, device=device(x))
        for c in range(channels):
            for tap, (down, across) in enumerate(tap_slices((kh, kw), output, stride)):
                y += weight[:, c, tap, :, :] * x[:, c : c + 1, down, across]
        return y

    def _pad(self, x: Array, padding: int) -> Array:
        """Return `x` (N, C, H, W) with `padding` zeros on every side of each image."""
        n, channels, height, width = x.shape
        shape = (n, channels, height + 2 * padding, width + 2 * padding)
        padded = self.xp.zeros(shape, dtype=x.dtype, device=device(x))
        padded[:, :, padding : padding + height, padding : padding + width] = x
        return padded


def conv2d_shape(
    x: Array, weight: Array, *, stride: int, padding: int
) -> tuple[int, int, int, int]:
    """Return the shape (N, O, OH, OW) of the feature maps of `x` under the filters `weight`.

    Raises:
        TypeError: the stride or the padding is not an integer.
        ValueError: an array does not have four axes, the sizes are out of range, or the filters do
            not fit.
    """
    require_axes("x", x, "N", "C", "H", "W")
    require_axes("weight", weight, "O", "C", "kh", "kw")
    n, channels, height, width = x.shape
    out_channels, filter_channels, kh, kw = weight.shape
    if channels != filter_channels:
        raise ValueError(
            f"the images and the filters must have equal numbers of channels, got {channels} and "
            f"{filter_channels}"
        )
    output = output_sizes((height, width), (kh, kw), stride=stride, padding=padding)
    return n, out_channels, *output
