"""Compare gradients with finite differences.

For a parameter w, the gradient of the loss L is compared with the central difference
(L(w + h) − L(w − h)) / 2h. Both are computed in float64, where they agree to about eight digits
with h = 1e-4. At a kink (a ReLU at 0, two equal maxima in a pooling patch) the loss has no
gradient, so the two may differ although the code is correct. Therefore a parameter that fails is
checked again with smaller h: a shorter interval contains a kink less often.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backends import as_integer, require_type
from mnist_accel.nn.network import Network

TOLERANCE = 1e-5
_INTERVALS = (1e-4, 1e-5, 1e-6)  # h of the central difference, in the order they are tried


@dataclass(frozen=True)
class GradientCheck:
    """The result for one parameter array.

    Attributes:
        name: name of the array, such as "W1".
        shape: shape of the array.
        checked: number of checked elements.
        max_error: largest absolute difference of the checked elements, relative to the largest
            absolute gradient of the array, or to 1e-8 if that is larger.
    """

    name: str
    shape: tuple[int, ...]
    checked: int
    max_error: float

    @property
    def passed(self) -> bool:
        """Whether the error is within `TOLERANCE`; false for NaN."""
        return self.max_error <= TOLERANCE


def check_gradients(
    model: Network,
    images: NDArray[Any],
    labels: NDArray[Any],
    *,
    elements: int = 50,
    seed: int = 0,
) -> list[GradientCheck]:
    """Compare the gradients of a network with central differences.

    Args:
        model: a float64 network. Its weights are restored after the check.
        images: host array in any form that `load_mnist` returns. With max-pooling, use images
            without ties, such as noise: `ties="all"` counts the gradient once per tied maximum.
        labels: integers (N,) or one-hot rows.
        elements: number of random elements to check per parameter array.
        seed: seed of the random choice.

    Returns:
        One result per parameter array, in the order of the layers.

    Raises:
        ValueError: the network is not float64, or shape or values of images or labels are wrong.
        TypeError: images or labels have a wrong dtype.
    """
    require_type("model", model, Network, "a network, such as one from create_model")
    if model.dtype != "float64":
        raise ValueError(f"the network must be float64, got {model.dtype}")
    elements = as_integer("elements", elements, at_least=1)
    rng = np.random.default_rng(as_integer("seed", seed, at_least=0))
    results = []
    with model.backend.computation(model.kinds):
        loss = _Loss(model, images, labels)
        for name, gradient in loss.gradients().items():
            count = min(elements, gradient.size)
            positions = rng.choice(gradient.size, size=count, replace=False)
            scale = max(1e-8, float(np.abs(gradient).max()))
            errors = [
                loss.error(name, int(position), float(gradient.flat[position])) / scale
                for position in positions
            ]
            results.append(GradientCheck(name, gradient.shape, count, float(np.max(errors))))
    return results


class _Loss:
    """The loss of a network on one batch as a function of its parameters."""

    def __init__(self, model: Network, images: NDArray[Any], labels: NDArray[Any]) -> None:
        backend = model.backend
        pixels, indices = model.as_examples(images, labels)
        self._model = model
        self._x = model.gather(backend.asarray(pixels), backend.asarray(np.arange(len(pixels))))
        self._labels = backend.asarray(indices)

    def gradients(self) -> dict[str, NDArray[Any]]:
        """Return the gradient of the loss by backpropagation."""
        model = self._model
        logits, tape = model.forward(self._x)
        _, dlogits = model.backend.loss(model.loss.kind, logits, self._labels)
        model.backward(dlogits, tape)
        return model.gradients.to_host()

    def error(self, name: str, position: int, gradient: float) -> float:
        """Return the smallest |gradient − difference| of one element over the intervals."""
        scale = max(1e-8, abs(gradient))
        error = float("inf")
        for interval in _INTERVALS:
            error = min(error, abs(gradient - self._difference(name, position, interval)))
            if error <= TOLERANCE * scale:
                break
        return error

    def _difference(self, name: str, position: int, interval: float) -> float:
        """Return the central difference at one element, and restore its value."""
        view = self._model.parameters.views[name]
        index = tuple(int(i) for i in np.unravel_index(position, view.shape))
        value = float(view[index])
        view[index] = value + interval
        above = self._value()
        view[index] = value - interval
        below = self._value()
        view[index] = value
        return (above - below) / (2 * interval)

    def _value(self) -> float:
        model = self._model
        logits, _ = model.forward(self._x)
        return float(model.backend.loss(model.loss.kind, logits, self._labels)[0])
