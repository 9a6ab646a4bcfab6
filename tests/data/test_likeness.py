"""Digits resemble digits; letters, scribbles, symbols, areas, sheets and touching digits do not."""

import numpy as np
import pytest

import mnist_accel as ma
from mnist_accel.data.digit_image.likeness import MIN_SCORE, resembles_digit, score
from mnist_accel.data.digit_image.normalize import to_mnist
from tests.support.digit_pictures.other_shapes import (
    SHAPES,
    letters,
    sheet,
    touching,
)
from tests.support.digit_pictures.train_likeness import FONTS, redraw

SEED = 1  # the network was trained with seed 0


def test_almost_all_digits_resemble_digits(mnist):
    scores = score(mnist.x_test.astype(np.float32) / 255)
    assert np.mean(scores <= MIN_SCORE) < 0.01
    assert np.mean(score(ma.load_dataset("digits").x_test / 255) <= MIN_SCORE) < 0.03


def test_digits_in_other_pens_resemble_digits(mnist):
    rng = np.random.default_rng(SEED)
    images = np.stack([to_mnist(redraw(image, rng)) for image in mnist.x_test[:200]])
    assert np.mean(score(images) <= MIN_SCORE) <= 0.02


def _letters(mnist, rng):
    return letters(rng, FONTS)


def _touching(mnist, rng):
    return touching(*(redraw(image, rng) for image in rng.choice(mnist.x_test, 2)), rng)


def _sheet(mnist, rng):
    return sheet(redraw(rng.choice(mnist.x_test), rng), rng)


@pytest.mark.parametrize("kind", [*SHAPES, _letters, _touching, _sheet], ids=lambda k: k.__name__)
def test_most_other_shapes_do_not_resemble_digits(mnist, kind):
    rng = np.random.default_rng(SEED)
    drawn = (kind(rng) if kind in SHAPES else kind(mnist, rng) for _ in range(100))
    images = [to_mnist(ink) for ink in drawn if ink.max() > 0.5]
    assert np.mean([not resembles_digit(image) for image in images]) >= 0.6
