"""Digits in pictures with lines, frames, shadows, desks and textures are read or refused.

The pictures are made of MNIST test digits and seeds on which the rules were not tuned.
"""

import numpy as np
import pytest
from PIL import Image

import mnist_accel as ma
from mnist_accel.data.digit_image import read_digit_images
from tests.support.digit_pictures import lines, surroundings, writing
from tests.support.digit_pictures.pictures import DISTURBANCES, WRITING, make_picture, make_row
from tests.support.digit_pictures.report import (
    REPORTING,
    count_empty,
    measure,
    recognized,
    trained_network,
)

COMMON = (
    writing.tight_crop,
    lines.border_lines,
    lines.thick_frame,
    lines.plot_axes,
    lines.ruled_paper,
    surroundings.sharp_shadow,
    surroundings.sheet_on_desk,
    surroundings.screenshot,
)
OFTEN_EMPTY = (
    lines.border_lines,
    lines.ruled_paper,
    surroundings.soft_shadow,
    surroundings.uneven_light,
    surroundings.page_corner,
    surroundings.texture,
    surroundings.noisy,
)


def correlation(one, other):
    return np.corrcoef(one.ravel(), other.ravel())[0, 1]


@pytest.fixture
def read(tmp_path):
    def read(picture):
        Image.fromarray(picture).save(tmp_path / "digit.png")
        return ma.read_digit_image(tmp_path / "digit.png")

    return read


@pytest.mark.parametrize("kind", COMMON, ids=lambda kind: kind.__name__)
def test_a_disturbed_digit_is_read_as_without_the_disturbance(read, mnist, kind):
    """Equal seeds give the same digit, in the same size and pen."""
    image = mnist.x_test[5000]
    plain = read(make_picture(image, writing.undisturbed, 1, REPORTING.seed))
    assert correlation(read(make_picture(image, kind, 2, REPORTING.seed)), plain) > 0.8


@pytest.mark.parametrize("kind", OFTEN_EMPTY, ids=lambda kind: kind.__name__)
def test_a_picture_without_a_digit_is_refused(read, kind):
    with pytest.raises(ma.DataError, match=r"digit.png shows no digit: ") as caught:
        read(make_picture(None, kind, 2, REPORTING.seed))
    assert "\n" not in str(caught.value)


def test_separate_figures_are_refused_or_read_from_left_to_right(read, mnist, tmp_path):
    images = list(mnist.x_test[5010:5013])
    with pytest.raises(ma.DataError, match=r"shows 3 separate figures.*predict --all"):
        read(make_row(images, seed=3))
    found = read_digit_images(tmp_path / "digit.png")
    best = [int(np.argmax([correlation(one, image) for image in images])) for one in found]
    assert best == [0, 1, 2]


@pytest.mark.slow
def test_equal_seeds_make_equal_pictures(mnist):
    for kind in (*WRITING, *DISTURBANCES):
        one, other = (make_picture(mnist.x_test[0], kind, 3, seed=5) for _ in range(2))
        assert np.array_equal(one, other)


@pytest.fixture(scope="module")
def network():
    return trained_network()


@pytest.fixture(scope="module")
def known(network, mnist):
    return recognized(network, mnist)


# Of the pictures without a digit, 95 % should be refused. Here, some strips of a desk and some ends
# of neighboring digits are read as a digit; see docs/pictures.md.
MISSED_AIMS = {"desk_beside": 0.9, "neighbors": 0.8}


@pytest.mark.slow
@pytest.mark.parametrize("kind", [*WRITING, *DISTURBANCES], ids=lambda kind: kind.__name__)
def test_most_pictures_are_read_and_almost_none_wrongly(network, known, mnist, kind):
    read = ma.read_digit_image
    count = measure(read, network, mnist, REPORTING, known, per_strength=10, kind=kind)
    assert sum(count.wrong) <= 0.05 * count.total, count
    assert count.refused[0] <= 1, count
    if kind is writing.undisturbed:
        assert sum(count.right) >= 0.98 * count.total, count
    if kind in DISTURBANCES:
        count_empty(read, REPORTING, count, kind, per_strength=7)
        required = MISSED_AIMS.get(kind.__name__, 0.95)
        assert count.empty_refused >= required * count.empty, count
