"""Measurements are stored per key, and unusable files are replaced."""

import pytest

from mnist_accel.autotune.cache import load_measurements, save_measurements
from mnist_accel.autotune.measure import Candidate

NUMBA_2 = Candidate("numba", 2)


def test_saved_measurements_are_loaded(autotune_folder):
    images_per_s = {NUMBA_2: 410_123.5, Candidate("cupy", None): 1e6}
    save_measurements({"a": [1, None]}, images_per_s)
    assert load_measurements({"a": [1, None]}, list(images_per_s)) == images_per_s
    assert load_measurements({"a": [2, None]}, list(images_per_s)) is None
    assert [file.suffix for file in autotune_folder.iterdir()] == [".json"]


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: "",
        lambda text: text[:-20],
        lambda text: "[]",
        lambda text: text.replace('"key"', '"kex"'),
        lambda text: text.replace('"a": 1', '"a": 2'),
        lambda text: text.replace("410.5", '"many"'),
        lambda text: text.replace("410.5", "-1"),
        lambda text: text.replace("410.5", "NaN"),
        lambda text: text.replace('"numba"', '"jumbo"'),
        lambda text: text.replace('"numba"', "[]"),
        lambda text: '{"key": {"a": 1}, "paces": []}',
        lambda text: '{"key": {"a": 1}, "paces": [[1]]}',
        lambda text: "\xff\xfe",
    ],
)
def test_damaged_file_gives_a_warning_and_is_replaced(damage, autotune_folder):
    images_per_s = {NUMBA_2: 410.5}
    save_measurements({"a": 1}, images_per_s)
    (file,) = autotune_folder.iterdir()
    file.write_bytes(damage(file.read_text()).encode("latin-1"))
    with pytest.warns(UserWarning, match=rf"{file.name} is damaged .* measured again"):
        assert load_measurements({"a": 1}, list(images_per_s)) is None
    save_measurements({"a": 1}, images_per_s)
    assert load_measurements({"a": 1}, list(images_per_s)) == images_per_s
