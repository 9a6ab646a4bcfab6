"""The classifier."""

from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import ClassifierMixin, _fit_context
from sklearn.metrics import accuracy_score
from sklearn.preprocessing import LabelBinarizer
from sklearn.utils.multiclass import (
    _check_partial_fit_first_call,
    check_classification_targets,
    type_of_target,
    unique_labels,
)

from mnist_accel.nn import Network
from mnist_accel.sklearn.base import NetworkEstimator

Array = NDArray[Any]


class NetworkClassifier(ClassifierMixin, NetworkEstimator):
    """A classifier that trains a network with the losses of `MLPClassifier`.

    The network has one output per class, one for two classes, and one per label if samples have
    several labels. The dtype of the features decides that of the network: float32, or float64 for
    all other features.

    Attributes:
        hidden_layer_sizes: units of the hidden layers.
        activation: activation of the hidden layers: "identity", "logistic", "tanh" or "relu".
        solver: "adam" or "sgd". "lbfgs" is refused.
        alpha: factor of the L2 penalty ½·alpha·‖W‖² / batch size; biases have none.
        batch_size: samples per step; "auto" for 200. Never more than there are samples.
        learning_rate: how the rate of "sgd" changes: "constant", "invscaling" or "adaptive".
        learning_rate_init: the learning rate at the start.
        power_t: exponent of "invscaling".
        max_iter: maximum number of epochs.
        shuffle: whether each epoch has its own order of the samples.
        random_state: seed of weights, order and validation set. The same seed gives the same
            initial weights and validation set as in `MLPClassifier`, but another order.
        tol: improvement below which an epoch does not count as one.
        verbose: whether to print the loss of each epoch and to show the progress.
        warm_start: whether `fit` continues with the weights of the last call.
        momentum: momentum of "sgd", at least 0 and less than 1.
        nesterovs_momentum: whether it is Nesterov's.
        early_stopping: whether the accuracy on held-out samples decides when to stop.
        validation_fraction: fraction of the samples to hold out for it.
        beta_1: decay of the mean of "adam".
        beta_2: decay of the mean of squares of "adam".
        epsilon: added to the root in "adam", after the bias correction.
        n_iter_no_change: epochs without improvement after which training stops.
        model: name of a recipe, or a list of layers to use in place of `hidden_layer_sizes` and
            `activation`; None for these two. A linear output layer follows the listed layers and
            replaces that of a recipe.
        backend: "numpy", "numba" or "cupy"; "auto" for the best that can run.
        threads: maximum number of CPU threads; None lets the backend choose.
        classes_: labels of the classes in the order of the probabilities.
        network_: the network, for example to export it.
        coefs_: weights of each layer.
        intercepts_: biases of each layer.
        loss_: loss of the last epoch.
        loss_curve_: loss of each epoch.
        best_loss_: lowest loss; None with early stopping.
        validation_scores_: validation accuracy of each epoch; None without early stopping.
        best_validation_score_: highest validation accuracy; None without early stopping.
        n_iter_: epochs of the last call.
        t_: samples seen in training.
        n_features_in_: number of features.
        feature_names_in_: names of the features, if all are strings.
        n_layers_: number of layers with weights, plus 1.
        n_outputs_: number of outputs.
        out_activation_: "softmax", or "logistic" for two classes or several labels.
    """

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Train on features and labels, and return self.

        Args:
            X: features (N, F), dense or sparse; sparse features are converted to dense ones.
            y: labels (N,), or one column of 0 and 1 per label (N, labels).
            sample_weight: weight of each sample (N,); None for 1. Only their ratios and, for
                `alpha`, their sum have an effect.

        Raises:
            ValueError: data or a parameter is invalid, there is only one class, or a loss or a
                weight became NaN or infinite.
        """
        return self._fit(X, y, sample_weight, incremental=False)

    @_fit_context(prefer_skip_nested_validation=True)
    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None, classes: Any = None) -> Self:
        """Train for one epoch, continuing with weights and optimizer, and return self.

        Args:
            X: features (N, F).
            y: labels (N,), all of them in `classes`.
            sample_weight: weight of each sample (N,).
            classes: all labels that will occur; needed in the first call only.

        Raises:
            ValueError: as `fit`, or a label is not in `classes`.
        """
        _require_one_type("classes", classes)
        if _check_partial_fit_first_call(self, classes):
            _require_one_type("y", y)
            is_multilabel = type_of_target(y).startswith("multilabel")
            self._use_classes(y if is_multilabel else classes)
        return self._fit(X, y, sample_weight, incremental=True)

    def predict_proba(self, X: Any) -> Array:
        """Return the probability of each class (N, classes), or of each label."""
        outputs = self._predicted(X)
        return np.hstack([1 - outputs, outputs]) if self.n_outputs_ == 1 else outputs

    def predict_log_proba(self, X: Any) -> Array:
        """Return the logarithms of `predict_proba`."""
        logarithms: Array = np.log(self.predict_proba(X))
        return logarithms

    def _use_classes(self, labels: Any) -> None:
        """Set the classes to those of `labels`.

        Raises:
            ValueError: there is only one, or they are no classes.
        """
        binarizer = LabelBinarizer().fit(labels)
        if len(binarizer.classes_) < 2:
            raise ValueError(
                f"{type(self).__name__} needs samples of at least 2 classes, but there is only one "
                f"class: {binarizer.classes_[0]}"
            )
        self._label_binarizer = binarizer
        self.classes_ = binarizer.classes_
        is_multiclass = binarizer.y_type_ == "multiclass"
        self.out_activation_ = "softmax" if is_multiclass else "logistic"
        self.n_outputs_ = 1 if binarizer.y_type_ == "binary" else len(self.classes_)

    def _encode(self, y: Array, *, keeps_classes: bool) -> Array:
        _require_one_type("y", y)
        check_classification_targets(y)
        if not keeps_classes:
            self._use_classes(y)
        elif unknown := set(unique_labels(y).tolist()) - set(self.classes_.tolist()):
            raise ValueError(
                f"y has labels that are not in classes_: {sorted(unknown)}; known are "
                f"{self.classes_.tolist()}"
            )
        if self.out_activation_ == "softmax":
            return np.searchsorted(self.classes_, y)
        binary: Array = self._label_binarizer.transform(y)
        return binary

    def _outputs(self, network: Network, X: Array) -> Array:
        return network.predict_proba(X)

    def _decode(self, outputs: Array) -> Array:
        columns = outputs.ravel() if self.n_outputs_ == 1 else outputs
        labels: Array = self._label_binarizer.inverse_transform(columns)
        return labels

    def _loss_kind(self) -> str:
        is_softmax = self.out_activation_ == "softmax"
        return "softmax_cross_entropy" if is_softmax else "multilabel_cross_entropy"

    def _strata(self, y: Array) -> Array | None:
        return y if self.n_outputs_ == 1 else None  # as scikit-learn does

    def _score_of(self, y: Array, predictions: Array, sample_weight: Array | None) -> float:
        return float(accuracy_score(y, predictions, sample_weight=sample_weight))

    def __sklearn_tags__(self) -> Any:
        """Return what scikit-learn needs to know about the estimator."""
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.classifier_tags.multi_label = True
        return tags

    def _more_tags(self) -> dict[str, bool]:
        """Return the same for scikit-learn 1.5."""
        return {"multilabel": True}


def _require_one_type(name: str, labels: Any) -> None:
    """Check that labels are only strings or only other values, because they must be sorted.

    Raises:
        ValueError: some are strings and others are not.
    """
    values = np.asarray(labels)
    if values.dtype == object and len({isinstance(label, str) for label in values.flat}) > 1:
        types = ", ".join(sorted({type(label).__name__ for label in values.flat}))
        raise ValueError(
            f"{name} has labels of the types {types}, expected only strings or only numbers; "
            f"convert them, for example with {name}.astype(str)"
        )
