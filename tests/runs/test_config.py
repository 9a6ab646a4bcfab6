"""What a resumed run reads from `config.json`: backend, earlier configurations and data."""

import pytest

import mnist_accel as ma
from mnist_accel.recipes.settings import resolve
from mnist_accel.runs.config import backend_used, check_same_data, with_earlier
from mnist_accel.runs.folder import RunFolder
from mnist_accel.runs.setup import load_run_data


def folder_with_config(path, config):
    folder = RunFolder(path)
    folder.write_json(folder.config, config)
    return folder


@pytest.mark.parametrize(
    ("stored", "expected"),
    [
        ({"used": "numba", "threads": 2, "device": None}, ("numba", 2, None)),
        ({"used": "cupy", "threads": None, "device": 1}, ("cupy", None, 1)),
        # Early versions wrote neither threads nor a device.
        ({"used": "numpy"}, ("numpy", None, None)),
    ],
)
def test_the_backend_used_is_read(tmp_path, stored, expected):
    used = backend_used(folder_with_config(tmp_path, {"backend": stored}))
    assert used == dict(zip(("backend", "threads", "device"), expected, strict=True))


def test_the_configurations_of_earlier_runs_are_kept_in_order():
    first, second, third = ({"command": [name]} for name in "abc")
    resumed = with_earlier(second, first)
    assert resumed == {**second, "earlier": [first]}
    assert with_earlier(third, resumed) == {**third, "earlier": [first, second]}
    assert resumed["earlier"] == [first]


def test_a_changed_number_of_training_images_is_refused(tmp_path):
    data = load_run_data(resolve({"dataset": "digits", "limit_train": 50}))
    check_same_data(RunFolder(tmp_path), {"data": {"train_images": 50}}, data)
    for images in (49, None):
        with pytest.raises(ma.DataError, match=rf"trained on {images} images, but .* has 50;"):
            check_same_data(RunFolder(tmp_path), {"data": {"train_images": images}}, data)
