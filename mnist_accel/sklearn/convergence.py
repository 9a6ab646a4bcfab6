"""When training ends, and the learning rate until then: the rules of scikit-learn's networks."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from mnist_accel.nn.network import Network
from mnist_accel.nn.schedules import Schedule
from mnist_accel.training.callback import Callback
from mnist_accel.training.progress import EpochReport
from mnist_accel.training.trainer import Trainer

# Returns the score of a network on held-out data.
Scorer = Callable[[Network], float]

_ADAPTIVE_FACTOR = 1 / 5
_MIN_ADAPTIVE_RATE = 1e-6


@dataclass(frozen=True)
class ScaledRate(Schedule):
    """A constant factor, which `Convergence` replaces between epochs.

    Attributes:
        value: the factor.
    """

    value: float = 1.0
    kind: ClassVar[str] = "scaled"

    def factor(self, step: int, total_steps: int | None) -> float:
        """Return the factor."""
        return self.value


class Convergence(Callback):
    """Records the results of each epoch in an estimator, and ends its training.

    Args:
        estimator: the estimator; its attributes for results must exist.
        samples: number of training samples.
        score: returns the score on held-out data; None without early stopping.

    Attributes:
        has_converged: whether the training ended before its last epoch.
        best_weights: the weights with the best score; None without early stopping.
    """

    def __init__(self, estimator: Any, samples: int, score: Scorer | None) -> None:
        self._estimator = estimator
        self._samples = samples
        self._score = score
        self.has_converged = False
        self.best_weights: dict[str, NDArray[Any]] | None = None

    @property
    def epochs_at_once(self) -> float:  # type: ignore[override]
        """Number of epochs after which this can end the training or change its learning rate."""
        est = self._estimator
        if self._score is not None or (est.solver == "sgd" and est.learning_rate == "invscaling"):
            return 1
        epochs: float = est.n_iter_no_change + 1 - est._no_improvement_count
        return max(1, epochs)

    def on_epoch(self, trainer: Trainer, report: EpochReport) -> None:
        """Record the epoch; lower the learning rate or end the training if nothing improved."""
        est = self._estimator
        est.n_iter_ += 1
        est.t_ += self._samples
        est.loss_ = report.train_loss
        est.loss_curve_.append(report.train_loss)
        if est.verbose:
            print(f"Iteration {est.n_iter_}, loss = {est.loss_:.8f}")
        if self._score is None:
            has_improved = self._has_less_loss()
        else:
            has_improved = self._has_better_score(self._score(trainer.model), trainer.model)
        est._no_improvement_count = 0 if has_improved else est._no_improvement_count + 1
        uses_rate = est.solver == "sgd"
        if uses_rate and est.learning_rate == "invscaling":
            trainer.schedule = ScaledRate((est.t_ + 1) ** -est.power_t)
        if est._no_improvement_count <= est.n_iter_no_change:
            return
        rate = trainer.learning_rate()
        if uses_rate and est.learning_rate == "adaptive" and rate > _MIN_ADAPTIVE_RATE:
            trainer.schedule = ScaledRate(rate * _ADAPTIVE_FACTOR / trainer.optimizer.lr)
            est._no_improvement_count = 0
            self._explain(f"Setting learning rate to {trainer.learning_rate():f}")
            return
        self.has_converged = True
        self._explain("Stopping")
        trainer.request_stop("converged")

    def _has_less_loss(self) -> bool:
        """Return whether the training loss has fallen by `tol`, and record the best loss."""
        est = self._estimator
        best = np.inf if est.best_loss_ is None else est.best_loss_
        est.best_loss_ = min(best, est.loss_)
        return bool(est.loss_ <= best - est.tol)

    def _has_better_score(self, score: float, network: Network) -> bool:
        """Return whether the validation score has risen by `tol`; keep the best weights."""
        est = self._estimator
        est.validation_scores_.append(score)
        if est.verbose:
            print(f"Validation score: {score:f}")
        has_improved = score >= est.best_validation_score_ + est.tol
        if score > est.best_validation_score_:
            est.best_validation_score_ = score
            self.best_weights = network.state_dict()
        return bool(has_improved)

    def _explain(self, action: str) -> None:
        """Print why training ends or continues with a lower rate, if the user wants to know."""
        est = self._estimator
        measure = "Validation score" if self._score else "Training loss"
        if est.verbose:
            print(
                f"{measure} did not improve more than tol={est.tol:f} for {est.n_iter_no_change} "
                f"consecutive epochs. {action}."
            )


def reset(estimator: Any) -> None:
    """Set the attributes for results to those before the first epoch."""
    estimator.n_iter_ = 0
    estimator.t_ = 0
    estimator.loss_curve_ = []
    estimator._no_improvement_count = 0
    stops_early = estimator.early_stopping
    estimator.best_loss_ = None if stops_early else np.inf
    estimator.validation_scores_ = [] if stops_early else None
    estimator.best_validation_score_ = -np.inf if stops_early else None
