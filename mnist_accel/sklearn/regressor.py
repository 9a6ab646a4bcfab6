"""The regressor."""

from typing import Any, Self

from numpy.typing import NDArray
from sklearn.base import RegressorMixin, _fit_context
from sklearn.metrics import r2_score

from mnist_accel.nn import Network
from mnist_accel.sklearn.base import NetworkEstimator

Array = NDArray[Any]


class NetworkRegressor(RegressorMixin, NetworkEstimator):
    """A regressor that trains a network with a squared error, as `MLPRegressor` does.

    Parameters and attributes are those of `NetworkClassifier`, without `classes_`. The score of
    early stopping is R², and `out_activation_` is "identity".
    """

    _y_is_numeric = True

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Train on features and targets, and return self.

        Args:
            X: features (N, F), dense or sparse; sparse features are converted to dense ones.
            y: targets (N,) or (N, targets).
            sample_weight: weight of each sample (N,); None for 1. Only their ratios and, for
                `alpha`, their sum have an effect.

        Raises:
            ValueError: data or a parameter is invalid, or a loss or a weight became NaN or
                infinite.
        """
        return self._fit(X, y, sample_weight, incremental=False)

    @_fit_context(prefer_skip_nested_validation=True)
    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Train for one epoch, continuing with weights and optimizer, and return self.

        Arguments and errors are those of `fit`.
        """
        return self._fit(X, y, sample_weight, incremental=True)

    def _encode(self, y: Array, *, keeps_classes: bool) -> Array:
        targets = y.reshape(len(y), -1)
        self.n_outputs_ = targets.shape[1]
        self.out_activation_ = "identity"
        return targets

    def _outputs(self, network: Network, X: Array) -> Array:
        return network.predict_logits(X)

    def _decode(self, outputs: Array) -> Array:
        return outputs.ravel() if self.n_outputs_ == 1 else outputs

    def _loss_kind(self) -> str:
        return "squared_error"

    def _score_of(self, y: Array, predictions: Array, sample_weight: Array | None) -> float:
        return float(r2_score(y, predictions, sample_weight=sample_weight))

    def __sklearn_tags__(self) -> Any:
        """Return what scikit-learn needs to know about the estimator."""
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.target_tags.multi_output = True
        return tags

    def _more_tags(self) -> dict[str, bool]:
        """Return the same for scikit-learn 1.5."""
        return {"multioutput": True}
