"""The fully connected layer: y = x W + b."""

from backends.operations.common import (
    Array,
    Operations,
    require_axes,
    require_same_dtype,
    require_shape,
)


class Linear(Operations):
    """Matrix product with bias, and its gradient."""

    def linear(self, x: Array, weight: Array, bias: Array | None) -> Array:
        """Return x W + b, (N, out) in the dtype of `x`.

        Args:
            x: inputs (N, in).
            weight: weights (in, out).
            bias: (out,), or None for a layer without bias.

        Raises:
            TypeError: the dtypes differ.
            ValueError: the shapes do not fit together.
        """
        require_same_dtype("linear", x=x, weight=weight, bias=bias)
        _, outputs = _linear_shape(x, weight)
        if bias is not None:
            require_shape("bias", bias, (outputs,))
        y = self._multiply(x, weight)
        if bias is not None:
            y += bias
        return y

    def linear_backward(
        self, dy: Array, x: Array, weight: Array, *, need_dx: bool
    ) -> tuple[Array | None, Array, Array]:
        """Return the gradients of `linear` with respect to `x`, `weight` and `bias`.

        Args:
            dy: gradient of the loss with respect to the outputs (N, out).
            x: inputs as given to `linear` (N, in).
            weight: weights as given to `linear` (in, out).
            need_dx: whether dx is needed; the first layer of a network does not need it.

        Returns:
            dx (N, in) or None, dweight (in, out), dbias (out,).

        Raises:
            TypeError: the dtypes differ.
            ValueError: the shapes do not fit together.
        """
        require_same_dtype("linear_backward", dy=dy, x=x, weight=weight)
        require_shape("dy", dy, _linear_shape(x, weight))
        dx = dy @ weight.T if need_dx else None
        # BLAS takes four times as long for one example.
        dweight = x.T @ dy if x.shape[0] != 1 else x.T * dy
        return dx, dweight, self.xp.sum(dy, axis=0)

    def _multiply(self, x: Array, weight: Array) -> Array:
        """Return x W."""
        return x @ weight


def _linear_shape(x: Array, weight: Array) -> tuple[int, int]:
    """Return the shape (N, out) of the outputs.

    Raises:
        ValueError: an array is not a matrix, or the weights take another number of inputs.
    """
    require_axes("x", x, "N", "in")
    require_axes("weight", weight, "in", "out")
    (n, given), (inputs, outputs) = x.shape, weight.shape
    if given != inputs:
        raise ValueError(f"weight takes {inputs} inputs, x has {given}")
    return n, outputs
