"""The training that both estimators share, and what they know after it."""

import math
import warnings
from abc import ABC, abstractmethod
from functools import partial
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import train_test_split
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from backends import get_backend
from mnist_accel.console.progress import TrainingDisplay
from mnist_accel.data.batches import Sampling
from mnist_accel.errors import DivergedError
from mnist_accel.nn import Features, Loss, Network
from mnist_accel.sklearn.convergence import Convergence, Scorer, reset
from mnist_accel.sklearn.parameters import Parameters, initial_weights
from mnist_accel.sklearn.samples import Samples, checked_data, checked_features, checked_weights
from mnist_accel.training.data import TrainingData
from mnist_accel.training.show_progress import ShowSteps
from mnist_accel.training.trainer import Trainer
from mnist_accel.util.ceil_div import ceil_div

Array = NDArray[Any]

_AUTO_BATCH = 200
_MAX_SEED = np.iinfo(np.int32).max


class NetworkEstimator(Parameters, ABC):
    """Base class of the estimators."""

    _y_is_numeric = False
    network_: Network
    _trainer: Trainer

    @abstractmethod
    def _encode(self, y: Array, *, keeps_classes: bool) -> Array:
        """Return the targets of the loss, and set the attributes about outputs.

        Args:
            y: labels or targets.
            keeps_classes: whether the classes are known already.
        """

    @abstractmethod
    def _loss_kind(self) -> str:
        """Return the kind of the loss."""

    @abstractmethod
    def _outputs(self, network: Network, X: Array) -> Array:
        """Return the outputs (N, outputs) that the loss compares with the targets."""

    @abstractmethod
    def _decode(self, outputs: Array) -> Array:
        """Return the predictions for outputs."""

    @abstractmethod
    def _score_of(self, y: Array, predictions: Array, sample_weight: Array | None) -> float:
        """Return the score of predictions, which early stopping compares."""

    def _strata(self, y: Array) -> Array | None:
        """Return the classes of which the validation set has the same fractions, if any."""
        return None

    # Attributes of the fitted estimator

    @property
    def coefs_(self) -> list[Array]:
        """Copies of the weights of each layer."""
        return self._parameters("W")

    @property
    def intercepts_(self) -> list[Array]:
        """Copies of the biases of each layer."""
        return self._parameters("b")

    @property
    def n_layers_(self) -> int:
        """Number of layers with weights, plus 1."""
        return 1 + len(self.coefs_)

    def _parameters(self, name: str) -> list[Array]:
        if not hasattr(self, "network_"):
            raise AttributeError(f"this {type(self).__name__} is not fitted yet; call fit first")
        state = self.network_.state_dict()
        return [state[node.keys[name]] for node in self.network_.graph.nodes if name in node.keys]

    # Predictions

    def predict(self, X: Any) -> Array:
        """Return the prediction for each sample, in the form of the y that `fit` received."""
        return self._decode(self._predicted(X))

    def _predicted(self, X: Any) -> Array:
        """Return the outputs (N, outputs) for features of the user."""
        check_is_fitted(self)
        return self._outputs(self.network_, _inputs(self.network_, checked_features(self, X)))

    # Training

    def _fit(self, X: Any, y: Any, sample_weight: Any, *, incremental: bool) -> Self:
        """Train for one epoch or until convergence; see `fit` and `partial_fit`."""
        self._check_solver()
        if incremental and self.early_stopping:
            raise ValueError("partial_fit does not support early_stopping=True")
        continues = hasattr(self, "network_") and (incremental or self.warm_start)
        X, y = checked_data(self, X, y, reset=not continues, y_numeric=self._y_is_numeric)
        weights = checked_weights(sample_weight, X)
        targets = self._encode(y, keeps_classes=continues or incremental)
        samples, score = Samples(X, y, targets, weights), None
        optimizer, random_state = self._optimizer(), check_random_state(self.random_state)
        network = self.network_ if continues else self._new_network(X, random_state)
        if self.early_stopping:
            samples, score = self._hold_out(samples, random_state)
        # scikit-learn divides the penalty by the sum of the weights, a network by the batch size.
        l2 = self.alpha / samples.mean_weight
        if network.loss.l2 != l2:
            network = _with_penalty(network, l2)
        if continues and incremental:
            trainer = self._trainer
        else:
            trainer = Trainer(network, optimizer, seed=random_state.randint(_MAX_SEED))
        if not continues:
            reset(self)
        self.network_, self._trainer = network, _moved(trainer, network)
        self._set_batches(len(samples.features))
        self._run(samples, score, incremental=incremental)
        return self

    def _new_network(self, X: Array, random_state: np.random.RandomState) -> Network:
        """Return a network with initial weights."""
        is_perceptron = self.model is None
        layers, image_shape = self._layers(self.n_outputs_)
        shape = image_shape or X.shape[1:]
        if math.prod(shape) != X.shape[1]:
            raise ValueError(
                f"the model {self.model!r} takes {math.prod(shape)} features, the pixels of images "
                f"{shape}, got {X.shape[1]}"
            )
        network = Network(
            layers,
            Loss(self._loss_kind(), self.alpha),
            input=Features(shape),
            backend=get_backend(self.backend, threads=self.threads),
            seed=0 if is_perceptron else random_state.randint(_MAX_SEED),
            dtype=X.dtype.name,
            name=type(self).__name__,
        )
        if is_perceptron:
            sizes = [X.shape[1], *self._hidden_sizes(), self.n_outputs_]
            network.load_state_dict(initial_weights(sizes, self.activation, random_state))
        return network

    def _set_batches(self, samples: int) -> None:
        """Set the batches of the trainer."""
        size = _AUTO_BATCH if self.batch_size == "auto" else int(self.batch_size)
        if size > samples and self.batch_size != "auto":
            warnings.warn(
                f"batch_size is {size}, but there are only {samples} samples; each batch contains "
                "all of them",
                stacklevel=5,
            )
        by_order: Sampling = "shuffle" if self.shuffle else "sequential"
        self._trainer.sampling = "full" if size >= samples else by_order
        self._trainer.batch_size = min(size, samples)

    def _hold_out(
        self, samples: Samples, random_state: np.random.RandomState
    ) -> tuple[Samples, Scorer]:
        """Return samples for training, and a function that returns the score on the others."""
        train, held_out = train_test_split(
            np.arange(len(samples.features)),
            random_state=random_state,
            test_size=self.validation_fraction,
            stratify=self._strata(samples.y),
        )
        if len(held_out) < 2:
            raise ValueError(
                "The validation set is too small. Increase 'validation_fraction' or the size of "
                "your dataset."
            )
        return samples.rows(train), partial(self._validate, samples.rows(held_out))

    def _validate(self, samples: Samples, network: Network) -> float:
        """Return the score of the network on held-out samples."""
        predictions = self._decode(self._outputs(network, _inputs(network, samples.features)))
        return self._score_of(samples.y, predictions, samples.weights)

    def _run(self, samples: Samples, score: Scorer | None, *, incremental: bool) -> None:
        """Train for one epoch or until convergence.

        Raises:
            ValueError: a loss or a weight became NaN or infinite.
        """
        self.n_iter_ = 0
        convergence = Convergence(self, len(samples.features), score)
        epochs = 1 if incremental else self.max_iter
        try:
            if self.verbose:
                self._train_shown(samples, epochs, convergence)
            else:
                self._trainer.fit(self._prepare(samples), epochs=epochs, callbacks=[convergence])
        except DivergedError as error:
            raise ValueError(f"{error}, or scale the features") from error
        except KeyboardInterrupt:
            warnings.warn("Training interrupted by user.", stacklevel=5)
        else:
            if not incremental and not convergence.has_converged:
                warnings.warn(
                    f"Maximum iterations ({self.max_iter}) reached and the optimization hasn't "
                    "converged yet.",
                    ConvergenceWarning,
                    stacklevel=5,
                )
        if convergence.best_weights is not None:
            self.network_.load_state_dict(convergence.best_weights)

    def _prepare(self, samples: Samples) -> TrainingData:
        """Return the samples as the data set of the trainer."""
        return self._trainer.prepare(
            _inputs(self.network_, samples.features),
            samples.targets,
            samples.relative_weights,
            # scikit-learn has checked that all features are finite, in their own dtype.
            check=samples.features.dtype != self.network_.dtype,
        )

    def _train_shown(self, samples: Samples, epochs: int, convergence: Convergence) -> None:
        """Train, and show the progress between the lines that `convergence` prints."""
        steps = epochs * ceil_div(len(samples.features), self._trainer.batch_size)
        display = TrainingDisplay(self._trainer.step + steps, quiet=False, progress=True)
        with display.preparation("preparing"):
            data = self._prepare(samples)
        with display:
            self._trainer.fit(data, epochs=epochs, callbacks=[ShowSteps(display), convergence])


def _inputs(network: Network, X: Array) -> Array:
    """Return features in the shape that the network takes."""
    return X.reshape(len(X), *network.input.shape)


def _with_penalty(network: Network, l2: float) -> Network:
    """Return a copy of the network whose loss has another L2 penalty."""
    copy = Network(
        network.layers,
        Loss(network.loss.kind, l2),
        input=network.input,
        backend=network.backend,
        dtype=network.dtype,
        name=network.name,
    )
    copy.load_state_dict(network.state_dict())
    return copy


def _moved(trainer: Trainer, network: Network) -> Trainer:
    """Return the trainer, or one in the same state if it trains another network."""
    if trainer.model is network:
        return trainer
    moved = Trainer(network, trainer.optimizer, seed=trainer.seed, schedule=trainer.schedule)
    moved.progress = trainer.progress
    for name, array in moved.optimizer_state.items():
        array[...] = trainer.optimizer_state[name]
    return moved
