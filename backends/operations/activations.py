"""Element-wise activations; each gradient is written in terms of the output `y`."""

from backends.operations.common import Array, Operations, require_same_dtype


class Activations(Operations):
    """ReLU, sigmoid and tanh, element by element, with their gradients."""

    def relu(self, x: Array) -> Array:
        """Return max(x, 0), in the shape and dtype of `x`; NaN stays NaN."""
        return self.xp.maximum(x, self.xp.zeros_like(x))

    def relu_backward(self, dy: Array, y: Array) -> Array:
        """Return the gradient of `relu` from its output `y`; it is 0 where the input was 0."""
        require_same_dtype("relu_backward", dy=dy, y=y)
        return dy * self.xp.astype(y > 0, dy.dtype)

    def sigmoid(self, x: Array) -> Array:
        """Return 1 / (1 + exp(−x)); no argument overflows.

        Only exp(−|x|) ≤ 1 is ever computed: for negative x the fraction is multiplied by exp(x)
        above and below.
        """
        xp = self.xp
        decay = xp.exp(-xp.abs(x))
        return xp.where(x >= 0, xp.ones_like(decay), decay) / (1 + decay)

    def sigmoid_backward(self, dy: Array, y: Array) -> Array:
        """Return the gradient of `sigmoid` from its output `y`: dy · y · (1 − y)."""
        require_same_dtype("sigmoid_backward", dy=dy, y=y)
        return dy * y * (1 - y)

    def tanh(self, x: Array) -> Array:
        """Return the hyperbolic tangent of `x`."""
        return self.xp.tanh(x)

    def tanh_backward(self, dy: Array, y: Array) -> Array:
        """Return the gradient of `tanh` from its output `y`: dy · (1 − y²)."""
        require_same_dtype("tanh_backward", dy=dy, y=y)
        return dy * (1 - y * y)
