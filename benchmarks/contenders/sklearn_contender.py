"""scikit-learn's `MLPClassifier`, for the networks that it can express, and its estimators.

scikit-learn takes a second to import and may be missing, so this module imports it inside
functions.
"""

import copy
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from backends import Availability, pip
from benchmarks.contenders.base import (
    Contender,
    HostArray,
    HostArrays,
    InferenceSession,
    PopulationSession,
    TrainingSession,
    TrainingTask,
)
from benchmarks.contenders.sklearn_classifier import (
    named_weights,
    network_skip_reason,
    new_classifier,
    partial_fit,
    sklearn_package,
    without_checks,
)
from benchmarks.host import blas_threads
from mnist_accel.nn import SGD, Network


class Sklearn(Contender):
    """`MLPClassifier.partial_fit`, one call per epoch."""

    name: ClassVar[str] = "scikit-learn"

    def availability(self) -> Availability:
        """Return whether scikit-learn can be imported."""
        try:
            version = sklearn_package().__version__
        except (ImportError, OSError) as error:
            return Availability(
                False, f"scikit-learn does not work: {error}", pip("install", "scikit-learn")
            )
        return Availability(True, f"scikit-learn {version}")

    def versions(self) -> dict[str, str]:
        """Return the versions of scikit-learn and NumPy, and the number of BLAS threads."""
        return {
            "scikit-learn": str(sklearn_package().__version__),
            "numpy": np.__version__,
            "threads": str(blas_threads()),
        }

    def skip_reason(self, task: TrainingTask) -> str:
        """Return why `MLPClassifier` does not support the training; empty if it does."""
        optimizer = task.optimizer
        if optimizer.weight_decay:
            return "its weight decay excludes biases"
        if not isinstance(optimizer, SGD):
            return (
                "it has only SGD and an Adam that adds eps before the bias correction, "
                f"not {type(optimizer).__name__}"
            )
        return network_skip_reason(task.model)

    def inference_skip_reason(self, model: Network, batch_size: int) -> str:
        """Return why `MLPClassifier` does not support the network; empty if it does."""
        return network_skip_reason(model)

    def training(self, task: TrainingTask) -> TrainingSession:
        """Prepare an `MLPClassifier`."""
        return _Training(task)

    def population(self, members: Sequence[TrainingTask]) -> PopulationSession:
        """Prepare classifiers that joblib trains."""
        from benchmarks.contenders.sklearn_population import JoblibTraining

        return JoblibTraining(members)

    def estimator(self, task: Literal["classifier", "regressor"], **settings: Any) -> Any:
        """Return an `MLPClassifier` or an `MLPRegressor`."""
        from sklearn.neural_network import MLPClassifier, MLPRegressor

        return {"classifier": MLPClassifier, "regressor": MLPRegressor}[task](**settings)

    def inference(self, model: Network) -> InferenceSession:
        """Prepare `predict_proba`."""
        classifier = new_classifier(model, SGD(), batch_size=1, seed=0)
        shift = np.float32(model.pixel_shift)

        def predict(images: NDArray[np.float32]) -> HostArray:
            with without_checks():
                return np.asarray(classifier.predict_proba(images + shift if shift else images))

        return predict


class _Training(TrainingSession):
    """Trains one epoch per call of `partial_fit`: once on each image, in batches, shuffled."""

    def __init__(self, task: TrainingTask) -> None:
        self._task = task
        self._images = task.pixels()
        self._rng = np.random.default_rng(task.seed)
        self.reset()

    def run(self) -> None:
        partial_fit(self._classifier, self._images, self._task.labels)

    def run_from_arrays(self) -> None:
        self._images = self._task.pixels()
        self.run()

    def step(self) -> None:
        rows = self._rng.integers(len(self._images), size=self._task.batch_size)
        partial_fit(self._classifier, self._images[rows], self._task.labels[rows])

    def reset(self) -> None:
        task = self._task
        assert isinstance(task.optimizer, SGD), "skip_reason() excludes others"
        self._classifier = new_classifier(
            task.model, task.optimizer, batch_size=task.batch_size, seed=task.seed
        )
        self._classifier.set_params(shuffle=not task.is_full_batch)

    def gradients(self, rows: NDArray[np.int64]) -> HostArrays:
        """Return the change of the weights in one SGD step of a copy, divided by its learning rate.

        The learning rate is so large that rounding of the old weights does not affect the result.
        """
        other = copy.deepcopy(self._classifier)
        lr = np.float32(2.0**24)
        other.set_params(learning_rate_init=float(lr), momentum=0.0, batch_size=len(rows))
        if hasattr(other, "_optimizer"):
            del other._optimizer
        before = named_weights(other)
        partial_fit(other, self._images[rows], self._task.labels[rows])
        return {name: (before[name] - weight) / lr for name, weight in named_weights(other).items()}

    def updates(self, batches: NDArray[np.int64]) -> Sequence[float]:
        """Train on one batch per call, because an epoch returns only its mean loss."""
        return [self._update(rows) for rows in batches]

    def weights(self) -> HostArrays:
        return named_weights(self._classifier)

    def predict(self, images: NDArray[np.uint8]) -> NDArray[np.int64]:
        return np.asarray(self._classifier.predict(self._task.pixels(images)), np.int64)

    def _update(self, rows: NDArray[np.int64]) -> float:
        partial_fit(self._classifier, self._images[rows], self._task.labels[rows])
        return float(self._classifier.loss_)
