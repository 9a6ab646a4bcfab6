"""Losses: what training minimizes, and what the outputs of a network mean.

A network ends in logits. The loss includes the activation of the output layer, because the two
together are simpler and more stable. `Backend.loss` computes the value and the gradient,
`Backend.probabilities` the outputs; the formulas are in `backends.operations.losses`.
"""

from dataclasses import dataclass
from functools import partial

from backends import LOSSES, check_name, check_non_negative


@dataclass(frozen=True)
class Loss:
    """A loss.

    Attributes:
        kind: a key of `backends.LOSSES`, such as "softmax_cross_entropy".
        l2: α ≥ 0, adds ½·α·‖W‖² / B to the mean loss of a batch of B images in training. W are the
            weights of all layers, without biases. It is the `alpha` of scikit-learn's networks.
            Unlike the weight decay of an optimizer, it is part of the loss that training reports.
    """

    kind: str
    l2: float = 0.0

    @property
    def has_classes(self) -> bool:
        """Whether the targets are class indices; otherwise they are numbers."""
        return LOSSES[self.kind].targets == "classes"

    @property
    def has_probabilities(self) -> bool:
        """Whether the outputs of the network are probabilities; otherwise they are the logits."""
        return LOSSES[self.kind].outputs != "identity"

    def __post_init__(self) -> None:
        check_name(self, "kind", "loss", LOSSES)
        check_non_negative(self, "l2")


SoftmaxCrossEntropy = partial(Loss, "softmax_cross_entropy")
BinaryCrossEntropy = partial(Loss, "binary_cross_entropy")
Quadratic = partial(Loss, "quadratic")
MultilabelCrossEntropy = partial(Loss, "multilabel_cross_entropy")
SquaredError = partial(Loss, "squared_error")
