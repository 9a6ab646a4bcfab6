"""Copies of the data sets that other libraries left are found and verified."""

import random
from pathlib import Path

import numpy as np
import pytest

from mnist_accel.data.sources.digests import MNIST
from mnist_accel.data.sources.local_copies import LocalCopies
from mnist_accel.errors import DataError
from tests.support.published_files import FILES, TINY, TRAIN_IMAGES, corrupt, fill, make_set


def test_copy_of_torchvision(tmp_path):
    fill(Path("data/MNIST/raw"))
    files, origin = LocalCopies(system={}).read(TINY)
    assert files == FILES
    assert origin.endswith("data/MNIST/raw")


def test_copy_of_keras(tmp_path):
    names = ("x_train", "y_train", "x_test", "y_test")
    offsets = (16, 8, 16, 8)
    shapes = ((-1, 28, 28), (-1,)) * 2
    arrays = {
        name: np.frombuffer(data, np.uint8, offset=offset).reshape(shape)
        for name, data, offset, shape in zip(names, FILES.values(), offsets, shapes, strict=True)
    }
    path = tmp_path / "home/.keras/datasets/mnist.npz"
    path.parent.mkdir(parents=True)
    np.savez_compressed(path, **arrays)
    files, origin = LocalCopies(system={}).read(TINY)
    assert files == FILES
    assert origin == f"copy in {path}"
    np.savez(path, **(arrays | {"x_test": 255 - arrays["x_test"]}))
    with pytest.raises(DataError, match=r"t10k-images-idx3-ubyte .* is not the file of mnist"):
        LocalCopies(system={}).read(TINY)
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(DataError, match="is not Keras' archive"):
        LocalCopies(system={}).read(TINY)


def test_copies_of_fashion_mnist(tmp_path):
    fashion, files = make_set("fashion-mnist", 4, 2)
    system = fill(tmp_path / "share", files, compressed=True)
    copies = LocalCopies(system={"fashion-mnist": [system]})
    assert copies.read(fashion) == (files, f"copy in {system}")
    keras = fill(tmp_path / "home/.keras/datasets/fashion-mnist", files, compressed=True)
    assert LocalCopies(system={}).read(fashion) == (files, f"copy in {keras}")


def test_copy_with_other_contents_is_skipped():
    fill(Path("MNIST/raw"))
    corrupt(Path("MNIST/raw") / TRAIN_IMAGES)
    with pytest.raises(DataError, match="is not the file of mnist"):
        LocalCopies(system={}).read(TINY)
    fill(Path("data/MNIST/raw"))
    assert LocalCopies(system={}).read(TINY)[0] == FILES


def test_no_copies_is_a_data_error():
    with pytest.raises(DataError, match="found no copy"):
        LocalCopies(system={}).read(TINY)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"PK",
        b"PK\x03\x04" + bytes(100),
        b"PK\x05\x06" + bytes(18),
        b"no archive",
        b"\xff" * 1000,
    ],
)
def test_corrupt_archive_of_keras_is_one_reason_among_others(content):
    archive = Path.home() / ".keras" / "datasets" / "mnist.npz"
    archive.parent.mkdir(parents=True)
    archive.write_bytes(content)
    with pytest.raises(DataError, match="is not Keras' archive of mnist"):
        LocalCopies(system={}).read(MNIST)


def test_archive_of_keras_with_any_changed_byte_is_a_data_error():
    archive = Path.home() / ".keras" / "datasets" / "mnist.npz"
    archive.parent.mkdir(parents=True)
    arrays = {name: np.zeros(20, np.uint8) for name in ("x_train", "y_train", "x_test", "y_test")}
    np.savez_compressed(archive, **arrays)
    original = archive.read_bytes()
    rng = random.Random(0)
    for _ in range(300):
        changed = bytearray(original)
        for _ in range(rng.randint(1, 8)):
            changed[rng.randrange(len(changed))] = rng.randrange(256)
        archive.write_bytes(changed[: rng.choice((len(changed), rng.randrange(len(changed))))])
        with pytest.raises(DataError):
            LocalCopies(system={}).read(MNIST)
