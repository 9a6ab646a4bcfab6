"""What a resumed run reads from `config.json`: backend, earlier configurations and data."""

import pytest

import mnist_accel as ma
from mnist_accel.recipes.settings import resolve
from mnist_accel.runs.config import backend_used, check_same_data, stored_config, with_earlier
from mnist_accel.runs.folder import RunFolder
from mnist_accel.runs.schema import BackendUsed, DataUsed, RunConfig
from mnist_accel.runs.setup import load_run_data


def config(*, images):
    return RunConfig(backend=BackendUsed("numpy"), data=DataUsed(images))


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
    content = {"backend": stored, "data": {"train_images": 5}}
    used = backend_used(folder_with_config(tmp_path, content))
    assert used == dict(zip(("backend", "threads", "device"), expected, strict=True))


def test_the_configurations_of_earlier_runs_are_kept_in_order():
    first, second, third = ({"command": [name]} for name in "abc")
    resumed = with_earlier(second, first)
    assert resumed == {**second, "earlier": [first]}
    assert with_earlier(third, resumed) == {**third, "earlier": [first, second]}
    assert resumed["earlier"] == [first]


def test_a_changed_number_of_training_images_is_refused(tmp_path):
    data = load_run_data(resolve({"dataset": "digits", "limit_train": 50}))
    check_same_data(RunFolder(tmp_path), config(images=50), data)
    with pytest.raises(ma.DataError, match=r"trained on 49 images, but .* has 50;"):
        check_same_data(RunFolder(tmp_path), config(images=49), data)


GOOD = {"backend": {"used": "numpy", "threads": None}, "data": {"train_images": 5}}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"backend": []}, "backend: expected `object`, got `array`"),
        ({"backend": {}}, "backend: object missing required field `used`"),
        ({"backend": {"used": 3}}, "backend.used: expected `str`"),
        ({"backend": {"used": "numpy", "threads": 0}}, "backend.threads: expected `int` >= 1"),
        ({"backend": {"used": "numpy", "device": -1}}, "backend.device: expected `int` >= 0"),
        ({"data": {"train_images": None}}, "data.train_images: expected `int`, got `null`"),
        ({"data": {"train_images": True}}, "data.train_images: expected `int`, got `bool`"),
        ({"earlier": 5}, "earlier: expected `array`, got `int`"),
    ],
)
def test_a_damaged_config_is_refused_with_the_field(tmp_path, change, message):
    with pytest.raises(ma.DataError, match=f"is not the config.json of a run: {message}"):
        stored_config(folder_with_config(tmp_path, {**GOOD, **change}))
