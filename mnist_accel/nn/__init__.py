"""Networks: layers, losses, optimizers and schedules. Every backend can compute them."""

from backends import OPTIMIZERS, SGD, AdaGrad, Adam, AdamW, RMSProp, UpdateRule, create_optimizer
from mnist_accel.nn.initializers import Glorot, He, Normal, Zeros
from mnist_accel.nn.inputs import Features, Input, Pixels
from mnist_accel.nn.layers import (
    LAYERS,
    Activation,
    AvgPool2d,
    Conv2d,
    Dropout,
    Flatten,
    Layer,
    Linear,
    MaxPool2d,
    ReLU,
    Sigmoid,
    Tanh,
)
from mnist_accel.nn.losses import (
    BinaryCrossEntropy,
    Loss,
    MultilabelCrossEntropy,
    Quadratic,
    SoftmaxCrossEntropy,
    SquaredError,
)
from mnist_accel.nn.network import Network
from mnist_accel.nn.registration import register
from mnist_accel.nn.schedules import (
    SCHEDULES,
    CosineSchedule,
    OneCycleSchedule,
    Schedule,
    StepSchedule,
    create_schedule,
)

__all__ = [
    "LAYERS",
    "OPTIMIZERS",
    "SCHEDULES",
    "SGD",
    "Activation",
    "AdaGrad",
    "Adam",
    "AdamW",
    "AvgPool2d",
    "BinaryCrossEntropy",
    "Conv2d",
    "CosineSchedule",
    "Dropout",
    "Features",
    "Flatten",
    "Glorot",
    "He",
    "Input",
    "Layer",
    "Linear",
    "Loss",
    "MaxPool2d",
    "MultilabelCrossEntropy",
    "Network",
    "Normal",
    "OneCycleSchedule",
    "Pixels",
    "Quadratic",
    "RMSProp",
    "ReLU",
    "Schedule",
    "Sigmoid",
    "SoftmaxCrossEntropy",
    "SquaredError",
    "StepSchedule",
    "Tanh",
    "UpdateRule",
    "Zeros",
    "create_optimizer",
    "create_schedule",
    "register",
]
