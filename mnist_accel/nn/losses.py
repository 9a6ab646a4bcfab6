"""Losses: what training minimizes, and what the outputs of a network mean.

A network ends in logits. The loss includes the activation of the output layer, because the two
together are simpler and more stable; `probabilities` applies it where the outputs themselves are
needed. The formulas are in `backends.operations.losses`.
"""

from dataclasses import dataclass
from functools import partial

from backends import LOSSES, Array, Backend, look_up


@dataclass(frozen=True)
class Loss:
    """A loss.

    Attributes:
        kind: a key of `backends.LOSSES`, such as "softmax_cross_entropy".
    """

    kind: str

    def __post_init__(self) -> None:
        look_up("loss", self.kind, LOSSES)

    def value_and_gradient(
        self, backend: Backend, logits: Array, labels: Array
    ) -> tuple[Array, Array]:
        """Return the mean loss of a batch, an array of shape (), and its gradient (N, C).

        Args:
            backend: computes.
            logits: (N, C).
            labels: class indices (N,).
        """
        return backend.loss(self.kind, logits, labels)

    def probabilities(self, backend: Backend, logits: Array) -> Array:
        """Return the outputs of the network (N, C), each in 0…1.

        Rows sum to 1 with softmax cross-entropy. With the other losses each output is the
        probability of its own class against all others.
        """
        return backend.probabilities(self.kind, logits)


SoftmaxCrossEntropy = partial(Loss, "softmax_cross_entropy")
BinaryCrossEntropy = partial(Loss, "binary_cross_entropy")
Quadratic = partial(Loss, "quadratic")
