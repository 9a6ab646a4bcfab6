"""The parameters of the estimators, and the layers and optimizers that they describe."""

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, replace
from itertools import pairwise
from numbers import Integral
from typing import Any, ClassVar, TypeAlias

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.neural_network import MLPClassifier
from sklearn.utils._param_validation import Interval

from backends import SGD, Adam, UpdateRule, as_integers
from mnist_accel.nn import Activation, Layer, Linear
from mnist_accel.recipes.models import get_recipe, recipe_layers

# Names of activations in scikit-learn and here; the identity is no layer.
ACTIVATIONS = {"relu": "relu", "logistic": "sigmoid", "tanh": "tanh"}
# Parameters of `MLPClassifier` that only its solver "lbfgs" reads.
_LBFGS_ONLY = {"max_fun"}

RandomState: TypeAlias = int | np.random.RandomState | None


@dataclass(eq=False, repr=False)
class Parameters(BaseEstimator):
    """The parameters of both estimators.

    scikit-learn reads them from the signature of the constructor, which must only store them.
    """

    hidden_layer_sizes: int | Sequence[int] = (100,)
    activation: str = "relu"
    _: KW_ONLY
    solver: str = "adam"
    alpha: float = 0.0001
    batch_size: int | str = "auto"
    learning_rate: str = "constant"
    learning_rate_init: float = 0.001
    power_t: float = 0.5
    max_iter: int = 200
    shuffle: bool = True
    random_state: RandomState = None
    tol: float = 1e-4
    verbose: bool = False
    warm_start: bool = False
    momentum: float = 0.9
    nesterovs_momentum: bool = True
    early_stopping: bool = False
    validation_fraction: float = 0.1
    beta_1: float = 0.9
    beta_2: float = 0.999
    epsilon: float = 1e-8
    n_iter_no_change: int = 10
    model: str | Sequence[Layer] | None = None
    backend: str = "auto"
    threads: int | None = None

    # scikit-learn checks parameters of the same meaning in the same way.
    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **{
            name: constraints
            for name, constraints in MLPClassifier._parameter_constraints.items()
            if name not in _LBFGS_ONLY
        },
        "model": [str, list, tuple, None],
        "backend": [str],
        "threads": [Interval(Integral, 1, None, closed="left"), None],
    }

    def _check_solver(self) -> None:
        """Refuse the solver that does not train with batches."""
        if self.solver == "lbfgs":
            name = type(self).__name__
            raise ValueError(
                f"{name} has no solver 'lbfgs', because it trains with batches; choose 'adam' or "
                f"'sgd', or use {name.replace('Network', 'MLP')}"
            )

    def _optimizer(self) -> UpdateRule:
        """Return the optimizer."""
        rate = self.learning_rate_init
        if self.solver == "adam":
            return Adam(lr=rate, beta1=self.beta_1, beta2=self.beta_2, eps=self.epsilon)
        nesterov = bool(self.nesterovs_momentum and self.momentum)
        return SGD(lr=rate, momentum=self.momentum, nesterov=nesterov)

    def _hidden_sizes(self) -> tuple[int, ...]:
        """Return the units of the hidden layers.

        Raises:
            ValueError: one is less than 1.
            TypeError: one is no integer.
        """
        sizes = self.hidden_layer_sizes
        if isinstance(sizes, Integral):
            sizes = (int(sizes),)
        return as_integers("hidden_layer_sizes", sizes, at_least=1)

    def _layers(self, outputs: int) -> tuple[list[Layer], tuple[int, ...] | None]:
        """Return the layers of a new network, and the shape of its inputs if they are images."""
        if self.model is None:
            return _perceptron([*self._hidden_sizes(), outputs], self.activation), None
        if not isinstance(self.model, str):
            return [*self.model, Linear(outputs)], None
        *layers, last = recipe_layers(self.model, hidden_sizes=None, activation=None)
        assert isinstance(last, Linear), "every recipe ends in a linear layer"
        shape = get_recipe(self.model).input.shape
        return [*layers, replace(last, units=outputs)], shape if len(shape) > 1 else None


def _perceptron(sizes: Sequence[int], activation: str) -> list[Layer]:
    """Return linear layers with these numbers of units, and activations between them."""
    layers: list[Layer] = []
    for units in sizes:
        if layers and activation in ACTIVATIONS:
            layers.append(Activation(ACTIVATIONS[activation]))
        layers.append(Linear(units))
    return layers


def initial_weights(
    sizes: Sequence[int], activation: str, random_state: np.random.RandomState
) -> dict[str, NDArray[np.float64]]:
    """Return the initial weights of scikit-learn's networks for this random state.

    Weights and biases are uniform (Glorot and Bengio 2010).

    Args:
        sizes: number of features, of the units of each hidden layer, and of outputs.
        activation: activation of the hidden layers.
        random_state: the generator; it advances as in scikit-learn.
    """
    weights: dict[str, Any] = {}
    for number, (fan_in, units) in enumerate(pairwise(sizes), start=1):
        bound = np.sqrt((2 if activation == "logistic" else 6) / (fan_in + units))
        weights[f"W{number}"] = random_state.uniform(-bound, bound, (fan_in, units))
        weights[f"b{number}"] = random_state.uniform(-bound, bound, units)
    return weights
