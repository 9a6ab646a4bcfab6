"""scikit-learn's `MLPClassifier` with the weights of a network of this project.

scikit-learn takes a second to import and may be missing, so this module imports it inside
functions.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.contenders.base import HostArray
from mnist_accel.nn import SGD, Linear, Network

ACTIVATIONS = {"relu": "relu", "sigmoid": "logistic", "tanh": "tanh"}


def sklearn_package() -> Any:
    """Return the package."""
    import sklearn

    return sklearn


def network_skip_reason(model: Network) -> str:
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
    if reason := network_skip_reason(model):
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


def without_checks() -> Any:
    """Skip the search for NaN and the validation of settings, which take time in each call."""
    return sklearn_package().config_context(assume_finite=True, skip_parameter_validation=True)


def partial_fit(classifier: Any, images: HostArray, labels: NDArray[np.int64]) -> None:
    """Train a classifier for one epoch."""
    with without_checks():
        classifier.partial_fit(images, labels)


def named_weights(classifier: Any) -> dict[str, HostArray]:
    """Return copies of the weights, with the names of `Network.state_dict`."""
    pairs = zip(classifier.coefs_, classifier.intercepts_, strict=True)
    return {
        name: array.copy()
        for number, (weight, bias) in enumerate(pairs, start=1)
        for name, array in ((f"W{number}", weight), (f"b{number}", bias))
    }
