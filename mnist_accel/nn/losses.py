"""Losses: what training minimizes, and what the outputs of a network mean.

A network ends in logits. The loss includes the activation of the output layer, because the two
together are simpler and more stable. `Backend.loss` computes the value and the gradient,
`Backend.probabilities` the outputs; the formulas are in `backends.operations.losses`.
"""

from dataclasses import dataclass
from functools import partial

from backends import LOSSES, check_name


@dataclass(frozen=True)
class Loss:
    """A loss.

    Attributes:
        kind: a key of `backends.LOSSES`, such as "softmax_cross_entropy".
    """

    kind: str

    def __post_init__(self) -> None:
        check_name(self, "kind", "loss", LOSSES)


SoftmaxCrossEntropy = partial(Loss, "softmax_cross_entropy")
BinaryCrossEntropy = partial(Loss, "binary_cross_entropy")
Quadratic = partial(Loss, "quadratic")
