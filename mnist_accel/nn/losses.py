"""Losses: what training minimises, and what the outputs of the network mean.

A network ends in logits. The loss owns the activation of the output layer, because the two together
are simpler and more stable; `probabilities` applies it where the outputs themselves are wanted.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from backends import Array, Backend


class Loss(ABC):
    """Base of the losses.

    Attributes:
        kind: the loss's name, such as "softmax_cross_entropy".
    """

    kind: ClassVar[str]

    @abstractmethod
    def value_and_gradient(
        self, backend: Backend, logits: Array, labels: Array
    ) -> tuple[Array, Array]:
        """Return the mean loss of a batch, an array of shape (), and its gradient (N, C).

        Args:
            backend: computes.
            logits: (N, C).
            labels: class indices (N,).
        """

    @abstractmethod
    def probabilities(self, backend: Backend, logits: Array) -> Array:
        """Return the outputs of the network (N, C), each in 0…1."""


@dataclass(frozen=True)
class SoftmaxCrossEntropy(Loss):
    """−log of the probability that softmax gives to the label."""

    kind: ClassVar[str] = "softmax_cross_entropy"

    def value_and_gradient(
        self, backend: Backend, logits: Array, labels: Array
    ) -> tuple[Array, Array]:
        """Return the loss and (softmax − onehot) / N."""
        return backend.softmax_cross_entropy(logits, labels)

    def probabilities(self, backend: Backend, logits: Array) -> Array:
        """Return softmax by row; rows sum to 1."""
        return backend.softmax(logits)


@dataclass(frozen=True)
class BinaryCrossEntropy(Loss):
    """Cross-entropy of ten sigmoid outputs, each a yes-or-no of its own, summed."""

    kind: ClassVar[str] = "binary_cross_entropy"

    def value_and_gradient(
        self, backend: Backend, logits: Array, labels: Array
    ) -> tuple[Array, Array]:
        """Return the loss and (sigmoid − onehot) / N."""
        return backend.sigmoid_binary_cross_entropy(logits, labels)

    def probabilities(self, backend: Backend, logits: Array) -> Array:
        """Return sigmoid by element; rows need not sum to 1."""
        return backend.sigmoid(logits)


@dataclass(frozen=True)
class Quadratic(Loss):
    """½·Σ(a − y)² of sigmoid outputs a."""

    kind: ClassVar[str] = "quadratic"

    def value_and_gradient(
        self, backend: Backend, logits: Array, labels: Array
    ) -> tuple[Array, Array]:
        """Return the loss and (a − y)·a·(1 − a) / N."""
        return backend.sigmoid_quadratic(logits, labels)

    def probabilities(self, backend: Backend, logits: Array) -> Array:
        """Return sigmoid by element; rows need not sum to 1."""
        return backend.sigmoid(logits)
