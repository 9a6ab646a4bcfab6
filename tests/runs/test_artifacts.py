"""The files that a finished run leaves."""

import math

import pytest

import mnist_accel as ma
from mnist_accel.data import DataForm
from mnist_accel.nn.layers import AvgPool2d, Conv2d, Flatten, Linear
from mnist_accel.nn.losses import SoftmaxCrossEntropy
from mnist_accel.runs.artifacts import first_weights, mean_throughput


def test_mean_throughput_is_weighted_by_the_seconds_of_each_line():
    lines = [{"seconds": 1.0, "images_per_s": 100.0}, {"seconds": 3.0, "images_per_s": 20.0}]
    assert mean_throughput(lines) == pytest.approx(160 / 4)
    assert math.isnan(mean_throughput([]))


def _network(*layers, shape=(2, 6, 4)):
    return ma.Network(layers, SoftmaxCrossEntropy(), input=ma.Pixels(shape), backend="numpy")


def test_the_weights_of_units_are_images_whose_pixels_are_those_of_the_data():
    network = _network(Flatten(), Linear(3))
    images = first_weights(network, DataForm((2, 6, 4), classes=3))
    assert images.shape == (3, 2, 6, 4)
    assert images[1, 1, 5, 2] == network.state_dict()["W1"][24 + 5 * 4 + 2, 1]
    gray = first_weights(_network(Linear(3), shape=24), DataForm((6, 4), classes=3))
    assert gray.shape == (3, 1, 6, 4)


def test_the_weights_of_a_convolution_are_its_filters():
    network = _network(Conv2d(5, 3), Flatten(), Linear(3))
    assert first_weights(network, DataForm((2, 6, 4), classes=3)).shape == (5, 2, 3, 3)


def test_weights_that_belong_to_no_pixels_are_no_images():
    features = DataForm((24,), classes=3, kind="features")
    assert first_weights(_network(Linear(3), shape=24), features) is None
    pooled = _network(AvgPool2d(2), Flatten(), Linear(3))
    assert first_weights(pooled, DataForm((2, 6, 4), classes=3)) is None
