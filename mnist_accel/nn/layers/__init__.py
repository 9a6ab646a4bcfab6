"""Layers, one family a file.

To add a layer, subclass `Layer`. To save and load models with it, register the class with
`mnist_accel.register`. To add an element-wise activation, see `backends.operations.activations`.
"""

from backends import ACTIVATIONS, Table
from mnist_accel.nn.layers.base import Layer, Parameters
from mnist_accel.nn.layers.convolution import Conv2d
from mnist_accel.nn.layers.linear import Linear
from mnist_accel.nn.layers.parameterless import Activation, Dropout, Flatten, ReLU, Sigmoid, Tanh
from mnist_accel.nn.layers.pooling import AvgPool2d, MaxPool2d

# The registered layers by `kind`, except the activations.
LAYERS: Table[type[Layer]] = Table(
    "layer",
    {layer.kind: layer for layer in (Linear, Conv2d, MaxPool2d, AvgPool2d, Flatten, Dropout)},
)


def is_registered(layer: Layer) -> bool:
    """Return whether the class of a layer is the one that is registered under its kind.

    A subclass of a registered class is not registered, because it may compute something else. Only
    registered classes are compiled and saved.
    """
    expected = Activation if layer.kind in ACTIVATIONS else LAYERS.get(layer.kind)
    return type(layer) is expected


__all__ = [
    "LAYERS",
    "Activation",
    "AvgPool2d",
    "Conv2d",
    "Dropout",
    "Flatten",
    "Layer",
    "Linear",
    "MaxPool2d",
    "Parameters",
    "ReLU",
    "Sigmoid",
    "Tanh",
    "is_registered",
]
