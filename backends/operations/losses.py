"""Losses from logits: the value and the gradient in one pass.

A loss includes the activation of the output layer, because the formulas for both together are
shorter and numerically more stable than two separate formulas. Every loss is a mean over the N
examples of a batch; with weights, of the loss of each example times its weight. Its value stays on
the device, as an array of shape ().

To add a loss, write one function here and add it to `LOSSES`. Every backend can then compute it,
`mnist_accel.nn.Loss(name)` is its object, and the files of models accept its name. A network that
uses it trains eagerly on a backend without a kernel for it. A kernel needs one case in
`backends/numba/kernels/losses.py` or in `backends/cupy/kernels/image_loss.cuh`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from array_api_compat import device

from backends.names import Table, look_up
from backends.operations.activations import Activations, sigmoid
from backends.operations.common import (
    Array,
    require_axes,
    require_indices,
    require_same_dtype,
    require_shape,
)


class Losses(Activations):
    """Losses with their gradients, by name, and the probabilities that they compare."""

    def loss(
        self, kind: str, logits: Array, targets: Array, weights: Array | None = None
    ) -> tuple[Array, Array]:
        """Return the mean loss of a batch and its gradient with respect to the logits.

        Args:
            kind: a key of `LOSSES`.
            logits: (N, C).
            targets: class indices (N,), integers; for losses of numbers (N, C).
            weights: factor of the loss of each example (N,); None for 1.

        Returns:
            The loss, an array of shape (), and dlogits (N, C).

        Raises:
            TypeError: the labels are not integers, or the other arrays have different dtypes.
            ValueError: `kind` is unknown, an array has the wrong shape, or a label is not in
                0…C − 1. Within `computation`, the labels' dtype and range are not checked.
        """
        formula = look_up("loss", kind, LOSSES)
        self._check_loss(kind, logits, targets, weights)
        return formula.value_and_gradient(self, logits, targets, weights)

    def _check_loss(self, kind: str, logits: Array, targets: Array, weights: Array | None) -> None:
        """Check the shapes and dtypes of the arguments of `loss`."""
        numbers = None
        if LOSSES[kind].targets == "classes":
            self._check_labels(logits, targets)
        else:
            require_axes("logits", logits, "N", "C")
            require_shape("targets", targets, tuple(logits.shape))
            numbers = targets
        if weights is not None:
            require_shape("weights", weights, (logits.shape[0],))
        require_same_dtype("loss", logits=logits, targets=numbers, weights=weights)

    def probabilities(self, kind: str, logits: Array) -> Array:
        """Return the outputs (N, C) that a loss compares with the targets.

        They are in 0…1, except for "squared_error", whose outputs are the logits.

        Args:
            kind: a key of `LOSSES`.
            logits: (N, C).

        Raises:
            ValueError: `kind` is unknown, or `logits` is not a matrix.
        """
        require_axes("logits", logits, "N", "C")
        outputs = look_up("loss", kind, LOSSES).outputs
        if outputs == "identity":
            return logits
        return self.softmax(logits) if outputs == "softmax" else self.activation("sigmoid", logits)

    def log_softmax(self, logits: Array) -> Array:
        """Return log(softmax(logits)) by row, (N, C), with the row maximum subtracted first."""
        require_axes("logits", logits, "N", "C")
        xp = self.xp
        shifted = logits - xp.max(logits, axis=1, keepdims=True)
        return shifted - xp.log(xp.sum(xp.exp(shifted), axis=1, keepdims=True))

    def softmax(self, logits: Array) -> Array:
        """Return the rows of `logits` (N, C) as probabilities that sum to 1."""
        return self.xp.exp(self.log_softmax(logits))

    def one_hot(self, labels: Array, *, like: Array) -> Array:
        """Return one-hot rows of `labels` (N,) in the shape (N, C) and the dtype of `like`."""
        self._check_labels(like, labels)
        return one_hot(self.xp, labels, like=like)

    def count_correct(self, logits: Array, labels: Array) -> Array:
        """Return the number of rows whose largest logit is that of the label, shape ()."""
        self._check_labels(logits, labels)
        xp = self.xp
        hits = xp.argmax(logits, axis=1) == xp.astype(labels, xp.int64)
        return xp.sum(xp.astype(hits, xp.int64))

    def _check_labels(self, logits: Array, labels: Array) -> None:
        """Check the shapes of logits and labels, and the dtype and the range of the labels."""
        require_axes("logits", logits, "N", "C")
        require_shape("labels", labels, (logits.shape[0],))
        require_indices(self.xp, "labels", labels, logits.shape[1])


def one_hot(xp: Any, labels: Array, *, like: Array) -> Array:
    """Return one-hot rows of `labels` (N,) in the shape (N, C) and the dtype of `like`."""
    classes = xp.arange(like.shape[1], dtype=labels.dtype, device=device(labels))
    return xp.astype(xp.expand_dims(labels, axis=1) == classes, like.dtype)


def softmax_cross_entropy(
    ops: Losses, logits: Array, labels: Array, weights: Array | None
) -> tuple[Array, Array]:
    """Return the mean of −log softmax(logits)[label], and (softmax − onehot) / N."""
    xp = ops.xp
    n = _batch_size(logits)
    target = one_hot(xp, labels, like=logits)
    log_probability = ops.log_softmax(logits)
    loss = -xp.sum(_weighted(ops, log_probability * target, weights)) / n
    return loss, _weighted(ops, xp.exp(log_probability) - target, weights) / n


def binary_cross_entropy(
    ops: Losses, logits: Array, labels: Array, weights: Array | None
) -> tuple[Array, Array]:
    """Return the binary cross-entropy of sigmoid outputs, summed over the classes.

    Every class other than the label has the target 0. The loss of one output is
    max(z, 0) − z·y + log(1 + exp(−|z|)), which equals −y·log(a) − (1 − y)·log(1 − a) with
    a = sigmoid(z), and does not overflow. The gradient is (sigmoid − onehot) / N.
    """
    return multilabel_cross_entropy(ops, logits, one_hot(ops.xp, labels, like=logits), weights)


def multilabel_cross_entropy(
    ops: Losses, logits: Array, targets: Array, weights: Array | None
) -> tuple[Array, Array]:
    """Return the binary cross-entropy for a target 0…1 of each output, summed over the outputs."""
    xp = ops.xp
    n = _batch_size(logits)
    per_output = (
        xp.maximum(logits, xp.zeros_like(logits))
        - logits * targets
        + xp.log1p(xp.exp(-xp.abs(logits)))
    )
    loss = xp.sum(_weighted(ops, per_output, weights)) / n
    return loss, _weighted(ops, sigmoid(xp, logits) - targets, weights) / n


def quadratic(
    ops: Losses, logits: Array, labels: Array, weights: Array | None
) -> tuple[Array, Array]:
    """Return the mean of ½·Σ(a − y)² with a = sigmoid(logits), and (a − y)·a·(1 − a) / N."""
    n = _batch_size(logits)
    output = sigmoid(ops.xp, logits)
    error = output - one_hot(ops.xp, labels, like=logits)
    loss = ops.xp.sum(_weighted(ops, error * error, weights)) / (2 * n)
    return loss, _weighted(ops, error * output * (1 - output), weights) / n


def squared_error(
    ops: Losses, logits: Array, targets: Array, weights: Array | None
) -> tuple[Array, Array]:
    """Return the mean of ½·Σ(z − t)² with the logits z, and (z − t) / N."""
    n = _batch_size(logits)
    error = logits - targets
    loss = ops.xp.sum(_weighted(ops, error * error, weights)) / (2 * n)
    return loss, _weighted(ops, error, weights) / n


def _weighted(ops: Losses, rows: Array, weights: Array | None) -> Array:
    """Return rows (N, C), each multiplied by its weight."""
    return rows if weights is None else rows * ops.xp.expand_dims(weights, axis=1)


def _batch_size(logits: Array) -> float:
    """Return N as a float: CuPy 13 promotes float32 divided by a large integer to float64."""
    return float(logits.shape[0])


@dataclass(frozen=True)
class LossFormula:
    """A loss with its gradient.

    Attributes:
        value_and_gradient: `value_and_gradient(ops, logits, targets, weights)` returns what
            `Losses.loss` returns; `ops` is the backend.
        outputs: the activation of the output layer that the loss includes.
        targets: whether the targets are class indices (N,) or numbers (N, C).
    """

    value_and_gradient: Callable[[Losses, Array, Array, Array | None], tuple[Array, Array]]
    outputs: Literal["softmax", "sigmoid", "identity"]
    targets: Literal["classes", "numbers"] = "classes"


LOSSES: Table[LossFormula] = Table(
    "loss",
    {
        "softmax_cross_entropy": LossFormula(softmax_cross_entropy, outputs="softmax"),
        "binary_cross_entropy": LossFormula(binary_cross_entropy, outputs="sigmoid"),
        "multilabel_cross_entropy": LossFormula(
            multilabel_cross_entropy, outputs="sigmoid", targets="numbers"
        ),
        "quadratic": LossFormula(quadratic, outputs="sigmoid"),
        "squared_error": LossFormula(squared_error, outputs="identity", targets="numbers"),
    },
)
