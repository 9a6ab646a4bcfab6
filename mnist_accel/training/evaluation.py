"""Loss and accuracy of a network on labeled examples."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backends import require_type
from mnist_accel.nn.network import Network


@dataclass(frozen=True)
class Evaluation:
    """Result of `evaluate`.

    Attributes:
        loss: mean loss.
        accuracy: fraction of the images whose most probable class is the label, 0…1.
        per_class_accuracy: the same for the images of each class (classes,); NaN for a class
            without images.
        confusion_matrix: (classes, classes) counts; row: label, column: prediction.
    """

    loss: float
    accuracy: float
    per_class_accuracy: NDArray[np.float64]
    confusion_matrix: NDArray[np.int64]

    @property
    def correct(self) -> int:
        """Number of correct images."""
        return int(np.trace(self.confusion_matrix))

    @property
    def total(self) -> int:
        """Number of images."""
        return int(self.confusion_matrix.sum())


def evaluate(model: Network, images: NDArray[Any], labels: NDArray[Any]) -> Evaluation:
    """Return loss, accuracy and confusion matrix of a network on labeled images.

    Args:
        model: the network.
        images: host array in any form `load_mnist` returns, or features; at least one example.
        labels: integers (N,) or one-hot rows.

    Raises:
        ValueError, TypeError: as `Network.as_examples`, or the network has no classes.
    """
    require_type("model", model, Network, "a network, such as one from load_model")
    if not model.loss.has_classes:
        raise ValueError(
            f"a network with the loss {model.loss.kind} has no classes and no accuracy; call "
            "mean_loss"
        )
    rows, indices = model.as_examples(images, labels)
    logits = model.predict_logits(rows)
    confusion = np.zeros((model.classes, model.classes), np.int64)
    np.add.at(confusion, (indices, logits.argmax(axis=1)), 1)
    counts = confusion.sum(axis=1)
    hits = np.diag(confusion)
    per_class = np.divide(hits, counts, out=np.full(model.classes, np.nan), where=counts > 0)
    return Evaluation(
        loss=_loss(model, logits, indices),
        accuracy=float(hits.sum() / counts.sum()),
        per_class_accuracy=per_class,
        confusion_matrix=confusion,
    )


def mean_loss(model: Network, inputs: NDArray[Any], targets: NDArray[Any]) -> float:
    """Return the mean loss of a network, also of one with the loss "squared_error".

    Args:
        model: the network.
        inputs: images or features; at least one example.
        targets: labels or numbers; see `Network.as_examples`.

    Raises:
        ValueError, TypeError: as `Network.as_examples`.
    """
    require_type("model", model, Network, "a network, such as one from load_model")
    rows, checked = model.as_examples(inputs, targets)
    return _loss(model, model.predict_logits(rows), checked)


def _loss(model: Network, logits: NDArray[Any], targets: NDArray[Any]) -> float:
    """Return the mean loss of host logits."""
    backend = model.backend
    with backend.computation(model.kinds):
        loss, _ = backend.loss(model.loss.kind, backend.asarray(logits), backend.asarray(targets))
        return float(loss)
