"""scikit-learn's `MLPClassifier`, for the networks that it can express."""

import copy
import importlib
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import threadpoolctl
from numpy.typing import NDArray

from backends import Availability
from benchmarks.contenders.base import (
    Contender,
    HostArray,
    HostArrays,
    InferenceSession,
    OperationSession,
    OperationTask,
    TrainingSession,
    TrainingTask,
)
from mnist_accel.nn import SGD, Linear, Network, UpdateRule

ACTIVATIONS = {"relu": "relu", "sigmoid": "logistic", "tanh": "tanh"}


class Sklearn(Contender):
    """`MLPClassifier.partial_fit`, an epoch a call."""

    name: ClassVar[str] = "scikit-learn"

    def availability(self) -> Availability:
        """Import it."""
        try:
            version = importlib.import_module("sklearn").__version__
        except (ImportError, OSError) as error:
            return Availability(
                False, f"scikit-learn does not work: {error}", "pip install scikit-learn"
            )
        return Availability(True, f"scikit-learn {version}")

    def versions(self) -> dict[str, str]:
        """Return its version, NumPy's, which multiplies, and the threads of NumPy's BLAS."""
        return {
            "scikit-learn": str(importlib.import_module("sklearn").__version__),
            "numpy": np.__version__,
            "threads": str(blas_threads()),
        }

    def refusal(self, task: TrainingTask) -> str:
        """Say what of the network or of its training `MLPClassifier` does not have."""
        optimizer = task.optimizer
        if optimizer.weight_decay:
            return "its weight decay leaves biases out"
        if not isinstance(optimizer, SGD):
            return (
                "its optimizers are SGD and an Adam that adds eps before the bias correction, "
                f"not this {type(optimizer).__name__}"
            )
        return _refuse_network(task.model)

    def inference_refusal(self, model: Network, batch_size: int) -> str:
        """Say what of the network `MLPClassifier` does not have."""
        return _refuse_network(model)

    def training(self, task: TrainingTask) -> TrainingSession:
        """Prepare an `MLPClassifier`."""
        return _Training(task)

    def inference(self, model: Network) -> InferenceSession:
        """Prepare `predict_proba`."""
        classifier = _classifier(model, SGD(), batch_size=1, seed=0)
        shift = np.float32(model.pixel_shift)

        def predict(images: NDArray[np.float32]) -> HostArray:
            with _without_checks():
                return np.asarray(classifier.predict_proba(images + shift if shift else images))

        return predict

    def operation(self, task: OperationTask) -> OperationSession | None:
        """Return None: it offers no operations."""
        return None


def blas_threads() -> int:
    """Return the threads that NumPy's matrix products may use."""
    pools = threadpoolctl.threadpool_info()
    return max((pool["num_threads"] for pool in pools if pool["user_api"] == "blas"), default=1)


def _refuse_network(model: Network) -> str:
    """Say why `MLPClassifier` cannot be this network; nothing where it can."""
    *hidden, last = model.layers
    linear, activations = hidden[::2], {layer.kind for layer in hidden[1::2]}
    if model.loss.kind != "softmax_cross_entropy":
        return f"its loss is softmax cross-entropy, not {model.loss.kind.replace('_', ' ')}"
    if (
        not all(isinstance(layer, Linear) and layer.bias for layer in (*linear, last))
        or len(activations) != 1
        or not activations <= ACTIVATIONS.keys()
    ):
        return "its layers are linear, with one activation between them, and nothing else"
    return ""


def _classifier(model: Network, optimizer: SGD, *, batch_size: int, seed: int) -> Any:
    """Return a classifier with the weights of the network, before its first step.

    Raises:
        ValueError: it cannot be this network.
    """
    reason = _refuse_network(model)
    if reason:
        raise ValueError(f"MLPClassifier cannot be {model.name}: {reason}")
    *hidden, _ = model.layers
    classifier = importlib.import_module("sklearn.neural_network").MLPClassifier(
        [layer.units for layer in hidden if isinstance(layer, Linear)],
        activation=ACTIVATIONS[hidden[1].kind],
        solver="sgd",
        alpha=0.0,
        batch_size=1,
        learning_rate_init=optimizer.lr,
        momentum=optimizer.momentum,
        nesterovs_momentum=optimizer.nesterov,
        random_state=np.random.RandomState(seed),  # a number would give every epoch one order
    )
    # Only training makes the attributes of a trained classifier. One step on a blank image does;
    # then the weights are replaced, and the optimizer, which it keeps to itself, is forgotten.
    blank = np.zeros((1, *model.input_shape), np.float32)
    classifier.partial_fit(blank, [0], classes=np.arange(model.classes))
    del classifier._optimizer
    classifier.set_params(batch_size=batch_size)
    state = model.state_dict()
    classifier.coefs_ = [state[name] for name in state if name.startswith("W")]
    classifier.intercepts_ = [state[name] for name in state if name.startswith("b")]
    return classifier


def _without_checks() -> Any:
    """Leave out the search for NaN and the validation of settings, which cost time in each call."""
    config_context = importlib.import_module("sklearn").config_context
    return config_context(assume_finite=True, skip_parameter_validation=True)


class _Training(TrainingSession):
    """`partial_fit` goes through what it is given once, shuffled, in batches."""

    def __init__(self, task: TrainingTask) -> None:
        self._task = task
        pixels = task.images.astype(np.float32) / 255
        self._images = pixels + np.float32(task.model.pixel_shift)
        self.reset()

    def run(self) -> None:
        """Train an epoch."""
        self._train(self._classifier, self._images, self._task.labels)

    def reset(self) -> None:
        """Make a new classifier."""
        task = self._task
        self._classifier = _classifier(
            task.model, _sgd(task.optimizer), batch_size=task.batch_size, seed=task.seed
        )
        self._classifier.set_params(shuffle=not task.takes_all)

    def gradients(self, rows: NDArray[np.int64]) -> HostArrays:
        """Let a copy take one huge step of plain SGD, and divide the difference by its length.

        With a step so large that the old weights vanish in the new ones, the difference has the
        gradient's own precision.
        """
        other = copy.deepcopy(self._classifier)
        length = np.float32(2.0**24)
        other.set_params(learning_rate_init=float(length), momentum=0.0, batch_size=len(rows))
        if hasattr(other, "_optimizer"):
            del other._optimizer
        before = _named(other)
        self._train(other, self._images[rows], self._task.labels[rows])
        return {name: (before[name] - weight) / length for name, weight in _named(other).items()}

    def updates(self, batches: NDArray[np.int64]) -> Sequence[float]:
        """Train on one batch after the other: of an epoch, it tells the mean loss alone."""
        return [self._update(rows) for rows in batches]

    def weights(self) -> HostArrays:
        """Return copies of the coefficients and intercepts."""
        return _named(self._classifier)

    def predict(self, images: NDArray[np.uint8]) -> NDArray[np.int64]:
        """Return the predictions of the classifier."""
        pixels = images.astype(np.float32) / 255 + np.float32(self._task.model.pixel_shift)
        return np.asarray(self._classifier.predict(pixels), np.int64)

    def _update(self, rows: NDArray[np.int64]) -> float:
        self._train(self._classifier, self._images[rows], self._task.labels[rows])
        return float(self._classifier.loss_)

    @staticmethod
    def _train(classifier: Any, images: HostArray, labels: NDArray[np.int64]) -> None:
        with _without_checks():
            classifier.partial_fit(images, labels)


def _sgd(optimizer: UpdateRule) -> SGD:
    assert isinstance(optimizer, SGD), "refusal() lets no other through"
    return optimizer


def _named(classifier: Any) -> dict[str, HostArray]:
    pairs = zip(classifier.coefs_, classifier.intercepts_, strict=True)
    return {
        name: array.copy()
        for number, (weight, bias) in enumerate(pairs, start=1)
        for name, array in ((f"W{number}", weight), (f"b{number}", bias))
    }
