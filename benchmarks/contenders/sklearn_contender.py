"""scikit-learn's `MLPClassifier`, for the networks that it can express.

scikit-learn takes a second to import and may be missing, so this module imports it inside
functions.
"""

import copy
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from backends import Availability
from benchmarks.contenders.base import (
    Contender,
    HostArray,
    HostArrays,
    InferenceSession,
    PopulationSession,
    TrainingSession,
    TrainingTask,
)
from benchmarks.host import blas_threads
from mnist_accel.nn import SGD, Linear, Network

ACTIVATIONS = {"relu": "relu", "sigmoid": "logistic", "tanh": "tanh"}


class Sklearn(Contender):
    """`MLPClassifier.partial_fit`, one call per epoch."""

    name: ClassVar[str] = "scikit-learn"

    def availability(self) -> Availability:
        """Return whether scikit-learn can be imported."""
        try:
            version = _sklearn().__version__
        except (ImportError, OSError) as error:
            return Availability(
                False, f"scikit-learn does not work: {error}", "pip install scikit-learn"
            )
        return Availability(True, f"scikit-learn {version}")

    def versions(self) -> dict[str, str]:
        """Return the versions of scikit-learn and NumPy, and the number of BLAS threads."""
        return {
            "scikit-learn": str(_sklearn().__version__),
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
        return _network_skip_reason(task.model)

    def inference_skip_reason(self, model: Network, batch_size: int) -> str:
        """Return why `MLPClassifier` does not support the network; empty if it does."""
        return _network_skip_reason(model)

    def training(self, task: TrainingTask) -> TrainingSession:
        """Prepare an `MLPClassifier`."""
        return _Training(task)

    def population(self, members: Sequence[TrainingTask]) -> PopulationSession:
        """Prepare classifiers that joblib trains."""
        from benchmarks.contenders.sklearn_population import JoblibTraining

        return JoblibTraining(members)

    def inference(self, model: Network) -> InferenceSession:
        """Prepare `predict_proba`."""
        classifier = new_classifier(model, SGD(), batch_size=1, seed=0)
        shift = np.float32(model.pixel_shift)

        def predict(images: NDArray[np.float32]) -> HostArray:
            with _without_checks():
                return np.asarray(classifier.predict_proba(images + shift if shift else images))

        return predict


def _sklearn() -> Any:
    import sklearn

    return sklearn


def _network_skip_reason(model: Network) -> str:
    """Return why `MLPClassifier` cannot express this network; empty if it can."""
    *hidden, last = model.layers
    linear, activations = hidden[::2], {layer.kind for layer in hidden[1::2]}
    if model.loss.kind != "softmax_cross_entropy":
        return f"it supports only softmax cross-entropy, not {model.loss.kind.replace('_', ' ')}"
    if (
        not all(isinstance(layer, Linear) and layer.bias for layer in (*linear, last))
        or len(activations) != 1
        or not activations <= ACTIVATIONS.keys()
    ):
        return "it supports only linear layers with the same activation between them"
    return ""


def new_classifier(model: Network, optimizer: SGD, *, batch_size: int, seed: int) -> Any:
    """Return a classifier with the weights of the network, before its first step.

    Raises:
        ValueError: `MLPClassifier` cannot express this network.
    """
    if reason := _network_skip_reason(model):
        raise ValueError(f"MLPClassifier cannot express {model.name}: {reason}")
    from sklearn.neural_network import MLPClassifier

    *hidden, _ = model.layers
    classifier = MLPClassifier(
        [layer.units for layer in hidden if isinstance(layer, Linear)],
        activation=ACTIVATIONS[hidden[1].kind],
        solver="sgd",
        alpha=0.0,
        batch_size=1,
        learning_rate_init=optimizer.lr,
        momentum=optimizer.momentum,
        nesterovs_momentum=optimizer.nesterov,
        random_state=np.random.RandomState(seed),  # an int would give each epoch the same order
    )
    # Only training creates the attributes of a trained classifier. One step on a blank image
    # creates them; then the weights are replaced, and the private optimizer is deleted.
    blank = np.zeros((1, *model.input_shape), np.float32)
    classifier.partial_fit(blank, [0], classes=np.arange(model.classes))
    del classifier._optimizer
    classifier.set_params(batch_size=batch_size)
    state = model.state_dict()
    classifier.coefs_ = [state[name] for name in state if name.startswith("W")]
    classifier.intercepts_ = [state[name] for name in state if name.startswith("b")]
    return classifier


def _without_checks() -> Any:
    """Skip the search for NaN and the validation of settings, which take time in each call."""
    return _sklearn().config_context(assume_finite=True, skip_parameter_validation=True)


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


def partial_fit(classifier: Any, images: HostArray, labels: NDArray[np.int64]) -> None:
    """Train a classifier for one epoch."""
    with _without_checks():
        classifier.partial_fit(images, labels)


def named_weights(classifier: Any) -> dict[str, HostArray]:
    """Return copies of the weights, with the names of `Network.state_dict`."""
    pairs = zip(classifier.coefs_, classifier.intercepts_, strict=True)
    return {
        name: array.copy()
        for number, (weight, bias) in enumerate(pairs, start=1)
        for name, array in ((f"W{number}", weight), (f"b{number}", bias))
    }
