"""Digits that were read as one are counted, and the parts of one digit are not."""

import numpy as np
import pytest

from tests.support.digit_pictures.separate_figures import digits_in_parts, figures_in, picture_of


def test_two_digits_above_each_other_are_two_figures(mnist):
    sevens = mnist.x_test[np.flatnonzero(mnist.t_test == 7)[:2]]
    assert figures_in(picture_of(sevens)) == 2


def test_a_digit_in_two_parts_is_one_figure(mnist):
    five = mnist.x_test[np.flatnonzero(mnist.t_test == 5)[0]].copy()
    rows = np.flatnonzero(five.any(axis=1))
    five[rows[0] + 4] = 0  # separates its bar
    assert len(digits_in_parts(five[None])) == 1
    assert figures_in(picture_of([five])) == 1


@pytest.mark.slow
def test_at_most_one_of_a_thousand_test_digits_seems_to_be_several(mnist):
    several = digits_in_parts(mnist.x_test)
    assert len(several) > 200
    found = [figures_in(picture_of([image])) for image in several]
    assert sum(figures is not None and figures > 1 for figures in found) <= 10
