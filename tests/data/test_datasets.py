"""`load_dataset` and `load_mnist`: contents, formats and errors."""

import gzip
import subprocess
import sys

import numpy as np
import pytest
from sklearn.datasets import load_digits

from mnist_accel.data import DATASETS, load_dataset, load_mnist
from mnist_accel.data.digits import enlarge, read_raw_digits
from mnist_accel.data.idx import format_idx
from mnist_accel.data.sources.digests import FILE_NAMES
from mnist_accel.errors import DataError

TRAIN_IMAGES, TRAIN_LABELS, TEST_IMAGES, TEST_LABELS = FILE_NAMES


@pytest.fixture
def custom(tmp_path):
    """A folder with 30 + 20 random images in the four IDX files, one of them compressed."""
    rng = np.random.default_rng(0)
    for name, count in ((TRAIN_IMAGES, 30), (TEST_IMAGES, 20)):
        images = rng.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        (tmp_path / name).write_bytes(format_idx(images))
    labels = np.arange(30, dtype=np.uint8) % 10
    (tmp_path / TRAIN_LABELS).write_bytes(format_idx(labels))
    (tmp_path / f"{TEST_LABELS}.gz").write_bytes(gzip.compress(format_idx(labels[:20])))
    return tmp_path


def test_mnist_has_the_published_statistics(mnist):
    assert (mnist.x_train.shape, mnist.x_test.shape) == ((60000, 28, 28), (10000, 28, 28))
    assert mnist.t_train[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    assert mnist.t_test[:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]
    counts = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert np.bincount(mnist.t_train).tolist() == counts
    assert round(np.count_nonzero(mnist.x_train) / mnist.x_train.size, 4) == 0.1912
    assert np.count_nonzero(~mnist.x_train.any(axis=0)) == 67
    assert not mnist.x_train.flags.writeable


def test_defaults_of_load_mnist(mnist):
    (x_train, t_train), (x_test, t_test) = load_mnist()
    assert (x_train.shape, x_test.shape) == ((60000, 784), (10000, 784))
    assert (x_train.dtype, x_test.dtype) == (np.float32, np.float32)
    assert (t_train.dtype, t_test.dtype) == (np.int64, np.int64)
    assert np.array_equal(t_train, mnist.t_train)
    assert (x_train.min(), x_train.max()) == (0.0, 1.0)
    assert np.array_equal(x_test[7], (mnist.x_test[7] / 255.0).ravel().astype(np.float32))


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("flatten", [True, False])
@pytest.mark.parametrize("one_hot_label", [True, False])
def test_options_of_load_mnist(normalize, flatten, one_hot_label):
    data = load_dataset("digits")
    pairs = load_mnist(normalize, flatten, one_hot_label, dataset="digits")
    for (x, t), raw_x, raw_t in zip(
        pairs, (data.x_train, data.x_test), (data.t_train, data.t_test), strict=True
    ):
        assert x.shape == ((len(raw_x), 784) if flatten else (len(raw_x), 1, 28, 28))
        assert x.dtype == (np.float32 if normalize else np.uint8)
        scale = np.float32(255) if normalize else 1
        assert np.array_equal(x.reshape(raw_x.shape), raw_x / scale)
        if one_hot_label:
            assert (t.shape, t.dtype) == ((len(raw_t), 10), np.float32)
            assert (t.sum(axis=1) == 1).all()
            assert np.array_equal(t.argmax(axis=1), raw_t)
        else:
            assert t.dtype == np.int64
            assert np.array_equal(t, raw_t)
        assert x.flags.writeable


def test_normalized_pixels_are_the_nearest_float32_to_byte_over_255(custom):
    every = np.zeros((1, 28, 28), np.uint8)
    every.reshape(-1)[:256] = np.arange(256)
    (custom / TEST_IMAGES).write_bytes(format_idx(every))
    (custom / f"{TEST_LABELS}.gz").write_bytes(format_idx(np.zeros(1, np.uint8)))
    _, (x_test, _) = load_mnist(dataset="custom", data_dir=custom)
    # Multiplication by 1/255 would give another float32 for some bytes.
    assert np.array_equal(x_test[0, :256], (np.arange(256) / 255).astype(np.float32))


def test_included_digits_equal_those_of_scikit_learn():
    images, labels = read_raw_digits()
    original = load_digits()
    assert images.dtype == labels.dtype == np.uint8
    assert np.array_equal(images, original.images)
    assert np.array_equal(labels, original.target)


def test_digits_have_the_size_and_position_of_mnist_digits():
    data = load_dataset("digits")
    assert (len(data.x_train), len(data.x_test)) == (1437, 360)
    assert np.concatenate([data.t_train, data.t_test]).tolist() == load_digits().target.tolist()
    for t in (data.t_train, data.t_test):
        counts = np.bincount(t, minlength=10)
        assert counts.min() > 0.85 * counts.max()
    images = np.concatenate([data.x_train, data.x_test]).astype(np.float64)
    for axis in (1, 2):
        ink = images.sum(axis=3 - axis)
        inked = ink > 0
        extent = 28 - inked.argmax(axis=1) - inked[:, ::-1].argmax(axis=1)
        assert extent.max() == 20
        centers = ink @ np.arange(28) / ink.sum(axis=1)
        assert abs(centers - 13.5).max() <= 0.5


def test_enlarging_keeps_a_constant_image_constant():
    full = enlarge(np.full((1, 8, 8), 16, np.uint8))[0]
    assert (full[4:24, 4:24] == 255).all()
    assert full.sum() == 255 * 400


def test_custom_set_is_read_from_a_folder(custom):
    data = load_dataset("custom", data_dir=custom)
    assert data.name == "custom"
    assert (data.x_train.shape, data.x_test.shape) == ((30, 28, 28), (20, 28, 28))
    assert data.t_test.tolist() == [*range(10), *range(10)]
    assert str(custom) in data.source


def test_custom_set_is_found_by_environment_variable(custom, monkeypatch):
    monkeypatch.setenv("MNIST_ACCEL_DATA", str(custom))
    assert len(load_dataset("custom").x_train) == 30
    monkeypatch.setenv("MNIST_ACCEL_DATA", str(custom / "nowhere"))
    assert len(load_dataset("custom", data_dir=str(custom)).x_train) == 30


def test_subfolder_with_the_name_of_the_data_set_is_preferred(custom):
    folder = custom / "custom"
    folder.mkdir()
    for path in [path for path in custom.iterdir() if path.is_file()]:
        path.rename(folder / path.name)
    assert load_dataset("custom", data_dir=custom).source == f"folder {folder}"


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        (TRAIN_LABELS, np.zeros(29, np.uint8), "has 29 labels for the 30 images"),
        (TRAIN_LABELS, np.zeros((30, 1, 1), np.uint8), "has shape (30, 1, 1), expected (N,)"),
        (TRAIN_IMAGES, np.zeros((30, 32, 32), np.uint8), "have (32, 32); expected equal sizes"),
        (TRAIN_IMAGES, np.zeros(30, np.uint8), "has shape (30,), expected (N, H, W)"),
        (TRAIN_IMAGES, np.zeros((0, 28, 28), np.uint8), "N > 0"),
    ],
)
def test_custom_files_that_do_not_match_are_rejected(custom, name, array, message):
    (custom / name).write_bytes(format_idx(array))
    with pytest.raises(DataError) as caught:
        load_dataset("custom", data_dir=custom)
    assert message in str(caught.value)
    assert str(custom / name) in str(caught.value)


def test_missing_custom_file_is_a_data_error(custom):
    (custom / TEST_IMAGES).unlink()
    with pytest.raises(DataError, match=f"has no file {TEST_IMAGES}"):
        load_dataset("custom", data_dir=custom)
    with pytest.raises(DataError, match="does not exist"):
        load_dataset("custom", data_dir=custom / "nowhere")


def test_invalid_arguments_are_rejected(tmp_path, monkeypatch):
    monkeypatch.delenv("MNIST_ACCEL_DATA", raising=False)
    says = "unknown data set 'minst'; choose from mnist, .*, csv:FILE; did you mean 'mnist'"
    with pytest.raises(ValueError, match=says):
        load_dataset("minst")
    with pytest.raises(ValueError, match="needs a folder"):
        load_dataset("custom")
    with pytest.raises(ValueError, match="accepts no folder"):
        load_dataset("digits", data_dir=tmp_path)
    assert DATASETS == ("mnist", "fashion-mnist", "digits", "custom")


def test_import_loads_no_heavy_library():
    heavy = {"pooch", "rich", "platformdirs", "requests", "subprocess", "matplotlib", "numba"}
    code = f"import mnist_accel.data, sys; print(*({heavy} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
