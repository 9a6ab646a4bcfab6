"""Losses from logits: the value and the gradient in one pass.

Each loss includes the activation of the output layer, because value and gradient together are
shorter and more stable than one after the other. All are means over the N examples of a batch. The
value stays on the device, as an array of no dimensions, until somebody converts it.
"""

from backends.operations.activations import Activations
from backends.operations.common import Array


class Losses(Activations):
    """Losses with their gradients, and the probabilities that they compare."""

    def log_softmax(self, logits: Array) -> Array:
        """Return log(softmax(logits)) by row, (N, C), with the row maximum subtracted first."""
        xp = self.xp
        shifted = logits - xp.max(logits, axis=1, keepdims=True)
        return shifted - xp.log(xp.sum(xp.exp(shifted), axis=1, keepdims=True))

    def softmax(self, logits: Array) -> Array:
        """Return the rows of `logits` (N, C) as probabilities that sum to 1."""
        return self.xp.exp(self.log_softmax(logits))

    def softmax_cross_entropy(self, logits: Array, labels: Array) -> tuple[Array, Array]:
        """Return the mean of −log softmax(logits)[label], and its gradient.

        Args:
            logits: (N, C).
            labels: class indices (N,), integers.

        Returns:
            The loss, an array of shape (), and dlogits = (softmax − onehot) / N, (N, C).
        """
        xp = self.xp
        n = float(logits.shape[0])  # CuPy 13 promotes float32 over a large integer to float64
        target = self.one_hot(labels, like=logits)
        log_probability = self.log_softmax(logits)
        loss = -xp.sum(log_probability * target) / n
        return loss, (xp.exp(log_probability) - target) / n

    def sigmoid_binary_cross_entropy(self, logits: Array, labels: Array) -> tuple[Array, Array]:
        """Return binary cross-entropy of sigmoid outputs, summed over classes, and its gradient.

        The value of one output is max(z, 0) − z·y + log(1 + exp(−|z|)), which is
        −y·log(sigmoid(z)) − (1 − y)·log(1 − sigmoid(z)) without its overflows.

        Args:
            logits: (N, C).
            labels: class indices (N,), integers; every other class has the target 0.

        Returns:
            The loss, an array of shape (), and dlogits = (sigmoid − onehot) / N, (N, C).
        """
        xp = self.xp
        n = float(logits.shape[0])  # CuPy 13 promotes float32 over a large integer to float64
        target = self.one_hot(labels, like=logits)
        per_output = (
            xp.maximum(logits, xp.zeros_like(logits))
            - logits * target
            + xp.log1p(xp.exp(-xp.abs(logits)))
        )
        return xp.sum(per_output) / n, (self.sigmoid(logits) - target) / n

    def sigmoid_quadratic(self, logits: Array, labels: Array) -> tuple[Array, Array]:
        """Return ½·Σ(a − y)² of sigmoid outputs a, mean over examples, and its gradient.

        Args:
            logits: (N, C).
            labels: class indices (N,), integers; every other class has the target 0.

        Returns:
            The loss, an array of shape (), and dlogits = (a − y)·a·(1 − a) / N, (N, C).
        """
        n = float(logits.shape[0])  # CuPy 13 promotes float32 over a large integer to float64
        output = self.sigmoid(logits)
        error = output - self.one_hot(labels, like=logits)
        loss = self.xp.sum(error * error) / (2 * n)
        return loss, error * output * (1 - output) / n

    def one_hot(self, labels: Array, *, like: Array) -> Array:
        """Return one-hot rows of `labels` (N,) in the shape (N, C) and the dtype of `like`."""
        xp = self.xp
        classes = xp.arange(like.shape[1], dtype=labels.dtype)
        return xp.astype(xp.expand_dims(labels, axis=1) == classes, like.dtype)

    def count_correct(self, logits: Array, labels: Array) -> Array:
        """Return how many rows have their largest logit at the label, an array of shape ()."""
        xp = self.xp
        hits = xp.argmax(logits, axis=1) == xp.astype(labels, xp.int64)
        return xp.sum(xp.astype(hits, xp.int64))
