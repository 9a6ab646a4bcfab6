"""Two convolutional networks of a book, whose weights are published as pickles.

Source: K. Saitoh, "Deep Learning from Scratch" (O'Reilly Japan, 2016), chapters 7 and 8:
`SimpleConvNet` (`params.pkl`) and `DeepConvNet` (`deep_convnet_params.pkl`). Filters are (filters,
channels, k, k) and matrices (in, out), as in this package.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from backends import Backend, Shape
from mnist_accel.nn.graph import build_graph
from mnist_accel.nn.inputs import Pixels
from mnist_accel.nn.layers import Activation, Conv2d, Flatten, Layer, Linear, MaxPool2d
from mnist_accel.nn.losses import SoftmaxCrossEntropy
from mnist_accel.nn.network import Network

Arrays: TypeAlias = Mapping[str, NDArray[Any]]

_INPUT_SHAPE = (1, 28, 28)
_DEEP_FILTERS = ((16, 1), (16, 1), (32, 1), (32, 2), (64, 1), (64, 1))  # filters and padding
_DROPOUT_RATE = 0.5


@dataclass(frozen=True)
class BookNetwork:
    """A network of the book.

    Attributes:
        name: its class in the book.
        layers: returns the layers for the shapes of its parameters and an activation, or None if
            the shapes are not those of this network.
        convert: converts the parameters in a file to those of the layers.
        activation: the activation that the book uses.
    """

    name: str
    layers: Callable[[Mapping[str, Shape], str], list[Layer] | None]
    convert: Callable[[Arrays], dict[str, NDArray[Any]]] = dict
    activation: str = "relu"

    def build(
        self, shapes: Mapping[str, Shape], activation: str, backend: Backend
    ) -> Network | None:
        """Return the network with initial weights, or None if its parameters have other shapes."""
        layers = self.layers(shapes, activation)
        if layers is None or build_graph(layers, _INPUT_SHAPE).parameter_shapes != shapes:
            return None
        return Network(
            layers,
            SoftmaxCrossEntropy(),
            input=Pixels(_INPUT_SHAPE),
            backend=backend,
            name=self.name,
        )


def _simple(shapes: Mapping[str, Shape], activation: str) -> list[Layer] | None:
    """Return conv, pool, linear, linear; the padding follows from the number of inputs of W2."""
    if [len(shapes.get(f"W{number}", ())) for number in (1, 2, 3)] != [4, 2, 2]:
        return None
    filters, _, side, _ = shapes["W1"]
    if side > _INPUT_SHAPE[1]:
        return None
    for padding in range(side):
        layers = [
            Conv2d(filters, kernel_size=side, padding=padding),
            Activation(activation),
            MaxPool2d(2),
            Flatten(),
            Linear(shapes["W2"][1]),
            Activation(activation),
            Linear(shapes["W3"][1]),
        ]
        if build_graph(layers, _INPUT_SHAPE).parameter_shapes == shapes:
            return layers
    return None


def _deep(shapes: Mapping[str, Shape], activation: str) -> list[Layer] | None:
    """Return three blocks of two convolutions and a pool, linear, linear."""
    if len(shapes.get("W7", ())) != 2 or len(shapes.get("W8", ())) != 2:
        return None
    layers: list[Layer] = []
    for number, (filters, padding) in enumerate(_DEEP_FILTERS, start=1):
        layers += [Conv2d(filters, kernel_size=3, padding=padding), Activation(activation)]
        if number % 2 == 0:
            layers.append(MaxPool2d(2))
    return [
        *layers,
        Flatten(),
        Linear(shapes["W7"][1]),
        Activation(activation),
        Linear(shapes["W8"][1]),
    ]


def _without_dropout(state: Arrays) -> dict[str, NDArray[Any]]:
    """Return the parameters with the factors that the book's dropout applies in inference.

    The book scales the inputs and the outputs of the last layer by 1 − rate in inference, instead
    of scaling up in training.
    """
    keep = np.float32(1 - _DROPOUT_RATE)
    return {**state, "W8": state["W8"] * keep * keep, "b8": state["b8"] * keep}


BOOK_NETWORKS = (
    BookNetwork("SimpleConvNet", _simple),
    BookNetwork("DeepConvNet", _deep, _without_dropout),
)
