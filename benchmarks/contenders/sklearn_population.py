"""scikit-learn: `MLPClassifier` objects that joblib trains in one process per core."""

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.contenders.base import HostArray, HostArrays, PopulationSession, TrainingTask
from benchmarks.contenders.sklearn_classifier import (
    named_weights,
    new_classifier,
    partial_fit,
)
from benchmarks.host import usable_cores


class JoblibTraining(PopulationSession):
    """One `partial_fit` per network; joblib's processes stay alive and map the images from a file.

    joblib limits the BLAS of each process to its share of the cores.
    """

    def __init__(self, members: Sequence[TrainingTask]) -> None:
        self._images, self._labels = members[0].pixels(), members[0].labels
        self._classifiers = [
            new_classifier(one.model, one.optimizer, batch_size=one.batch_size, seed=one.seed)  # type: ignore[arg-type]
            for one in members
        ]
        self._trained = self._classifiers

    def run(self) -> None:
        """Train all networks for one epoch."""
        self._trained = [
            classifier for classifier, _ in self._parallel([None] * len(self._classifiers))
        ]

    def updates(self, batches: NDArray[np.int64]) -> NDArray[Any]:
        """Train on one batch per call of `partial_fit`, because an epoch returns only its mean."""
        results = self._parallel(list(batches))
        self._trained = [classifier for classifier, _ in results]
        return np.array([losses for _, losses in results])

    def weights(self, member: int) -> HostArrays:
        """Return the weights of a network."""
        return named_weights(self._trained[member])

    def _parallel(self, batches: Sequence[Any]) -> list[tuple[Any, list[float]]]:
        from sklearn.utils.parallel import Parallel, delayed

        jobs = min(usable_cores(), len(self._classifiers))
        calls = (
            delayed(_train)(classifier, self._images, self._labels, rows)
            for classifier, rows in zip(self._classifiers, batches, strict=True)
        )
        return list(Parallel(n_jobs=jobs)(calls))


def _train(
    classifier: Any, images: HostArray, labels: NDArray[np.int64], batches: Any
) -> tuple[Any, list[float]]:
    """Return a trained copy and its losses; without batches, train one epoch."""
    trained = copy.deepcopy(classifier)
    if batches is None:
        partial_fit(trained, images, labels)
        return trained, [float(trained.loss_)]
    losses = []
    for rows in batches:
        partial_fit(trained, images[rows], labels[rows])
        losses.append(float(trained.loss_))
    return trained, losses
