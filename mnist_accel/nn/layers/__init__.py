"""Layers, one family a file.

To add a layer, subclass `Layer`. To save and load models with it, add it to `LAYERS`: in this file,
or as `LAYERS["name"] = MyLayer` in another one. To add an element-wise activation, see
`backends.operations.activations`.
"""

from mnist_accel.nn.layers.base import Layer, Parameters
from mnist_accel.nn.layers.convolution import Conv2d
from mnist_accel.nn.layers.linear import Linear
from mnist_accel.nn.layers.parameterless import Activation, Dropout, Flatten, ReLU, Sigmoid, Tanh
from mnist_accel.nn.layers.pooling import AvgPool2d, MaxPool2d

# The layers that files of models can contain, by `kind`, besides the activations.
LAYERS: dict[str, type[Layer]] = {
    "linear": Linear,
    "conv2d": Conv2d,
    "max_pool2d": MaxPool2d,
    "avg_pool2d": AvgPool2d,
    "flatten": Flatten,
    "dropout": Dropout,
}

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
]
