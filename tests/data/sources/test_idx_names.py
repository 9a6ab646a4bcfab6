"""The four IDX files are found under the names and in the folders that copies in use have."""

import gzip
import re
from pathlib import Path

import numpy as np
import pytest

import mnist_accel as ma
from mnist_accel.data.sources.digests import FILE_NAMES
from mnist_accel.data.sources.fetch import fetch_files
from mnist_accel.data.sources.idx_names import find_idx_files
from mnist_accel.errors import DataError
from tests.support.published_files import FILES, TINY, TRAIN_IMAGES, fill


def fill_as(folder: Path, rename, files=FILES) -> Path:
    """Write the four files to a folder, each under the name that `rename` returns."""
    for name, data in files.items():
        path = folder / rename(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


LAYOUTS = {
    "published": lambda n: n,
    "dot": lambda n: n.replace("-idx", ".idx"),
    "underscores": lambda n: n.replace("-", "_"),
    "no separator": lambda n: n.replace("-idx", "idx"),
    "capitals": lambda n: n.upper(),
    "some capitals": lambda n: n.replace("t", "T").replace("idx", "IDX"),
    "test": lambda n: n.replace("t10k", "test"),
    "emnist": lambda n: "emnist-digits-" + n.replace("t10k", "test"),
    "emnist in capitals": lambda n: "EMNIST-MNIST-" + n.replace("t10k", "Test"),
    "kmnist": lambda n: f"kmnist-{n}",
    "folder per file": lambda n: f"{n}/{n}",
    "folder per file, dot within": lambda n: f"{n}/{n.replace('-idx', '.idx')}",
    "folder per file, dot outside": lambda n: f"{n.replace('-idx', '.idx')}/{n}",
    "torchvision": lambda n: f"MNIST/raw/{n}",
    "inner folder of torchvision": lambda n: f"raw/{n}",
    "name of the data set": lambda n: f"mnist/{n}",
    "name of the data set in capitals": lambda n: f"MNIST/{n.replace('-idx', '.idx')}",
    "any subfolder": lambda n: f"archive/{n}",
    "any subfolder, folder per file": lambda n: f"archive/{n}/{n.replace('-idx', '.idx')}",
}


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("compressed", [False, True], ids=["plain", "gz"])
def test_layouts_in_use_are_found(tmp_path, layout, compressed):
    files = {k: gzip.compress(v) for k, v in FILES.items()} if compressed else FILES
    suffix = ".gz" if compressed else ""
    folder = fill_as(tmp_path / "mine", lambda name: layout(name) + suffix, files)
    assert fetch_files(TINY, data_dir=folder, fallbacks=[])[0] == FILES
    data = ma.load_dataset("custom", folder)
    assert (len(data.x_train), len(data.x_test)) == (5, 3)
    assert data.source.startswith(f"folder {folder}")


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_one_of_the_files_stands_for_its_folder(tmp_path, layout):
    folder = fill_as(tmp_path / "mine", layout)
    for name in FILE_NAMES:
        assert len(ma.load_dataset("custom", folder / layout(name)).x_train) == 5


def test_published_names_take_precedence(tmp_path):
    folder = fill(tmp_path / "mine")
    other = dict.fromkeys(FILES, b"")
    for layout in ("dot", "emnist", "capitals", "folder per file", "any subfolder"):
        if layout != "folder per file":
            fill_as(folder, LAYOUTS[layout], other)
    (folder / ".DS_Store").write_bytes(b"x")
    (folder / f"._{TRAIN_IMAGES}").write_bytes(b"resource fork")
    found = find_idx_files(folder, "mnist")
    assert found == {name: folder / name for name in FILE_NAMES}


def test_subfolder_with_the_name_of_the_data_set_takes_precedence(tmp_path):
    fill(tmp_path)
    fill(tmp_path / "FashionMNIST" / "raw")
    fill(tmp_path / "MNIST" / "raw")
    for dataset, place in (("mnist", "MNIST"), ("fashion-mnist", "FashionMNIST")):
        found = find_idx_files(tmp_path, dataset)
        assert found[TRAIN_IMAGES] == tmp_path / place / "raw" / TRAIN_IMAGES
    assert find_idx_files(tmp_path, "custom")[TRAIN_IMAGES] == tmp_path / TRAIN_IMAGES


@pytest.mark.parametrize(
    ("first", "second"),
    [("emnist-digits-", "emnist-letters-"), ("EMNIST/raw/", "KMNIST/raw/"), ("a/", "b/")],
)
def test_several_sets_are_rejected_by_name(tmp_path, first, second):
    for prefix in (first, second):
        fill_as(tmp_path, lambda name, prefix=prefix: prefix + name)
    with pytest.raises(DataError) as caught:
        ma.load_dataset("custom", tmp_path)
    assert f"{tmp_path}/{first}{TRAIN_IMAGES}" in str(caught.value)
    assert f"{tmp_path}/{second}{TRAIN_IMAGES}" in str(caught.value)
    assert ma.load_dataset("custom", tmp_path / f"{second}{TRAIN_IMAGES}").name == "custom"


def test_files_of_different_prefixes_are_not_combined(tmp_path):
    fill_as(tmp_path, lambda name: ("a-" if "images" in name else "b-") + name)
    with pytest.raises(DataError, match="belong to different sets"):
        ma.load_dataset("custom", tmp_path)


def test_test_images_and_labels_of_different_words_are_not_combined(tmp_path):
    fill_as(tmp_path, lambda n: n.replace("t10k", "test") if "labels" in n else n)
    with pytest.raises(DataError, match="belong to different sets"):
        ma.load_dataset("custom", tmp_path)


@pytest.mark.parametrize(
    "near",
    [
        "train-image-idx3-ubyte",
        "train-images-idx3-ubyte (1).gz",
        "train-images-idx3-ubyte.bin",
        "train-images-ubyte",
        "Train-Images.idx",
        "train-images-idx3-ubyte.gz.part",
        "train-images-idx3-ubyte.zip",
        "trian-images-idx3-ubyte",
    ],
)
def test_near_miss_is_named(tmp_path, near):
    fill(tmp_path)
    (tmp_path / TRAIN_IMAGES).rename(tmp_path / near)
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(DataError) as caught:
        ma.load_dataset("custom", tmp_path)
    expected = f"{tmp_path} has no file {TRAIN_IMAGES}, expected the four IDX files, plain or .gz; "
    assert str(caught.value) == (
        f"{expected}the most similar name is {near!r}, rename it if it is this file"
    )


def test_control_characters_in_names_are_escaped(tmp_path):
    fill(tmp_path)
    (tmp_path / TRAIN_IMAGES).rename(tmp_path / f"{TRAIN_IMAGES}\x1b[31m\n")
    with pytest.raises(DataError) as caught:
        ma.load_dataset("custom", tmp_path)
    assert str(caught.value).isprintable()


def test_other_files_are_rejected(tmp_path):
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(DataError, match=r"notes.txt is a file, but neither an IDX file nor Keras'"):
        ma.load_dataset("custom", tmp_path / "notes.txt")
    with pytest.raises(DataError, match="no file train-images-idx3-ubyte, expected the four IDX"):
        ma.load_dataset("custom", tmp_path)


def keras_archive(path: Path, **changes) -> Path:
    offsets, shapes = (16, 8, 16, 8), ((-1, 28, 28), (-1,)) * 2
    names = ("x_train", "y_train", "x_test", "y_test")
    arrays = {
        name: np.frombuffer(data, np.uint8, offset=offset).reshape(shape)
        for name, data, offset, shape in zip(names, FILES.values(), offsets, shapes, strict=True)
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, **{k: v for k, v in (arrays | changes).items() if v is not None})
    return path


def test_archive_of_keras_is_read(tmp_path):
    archive = keras_archive(tmp_path / "mine" / "mnist.npz")
    for path in (archive, archive.parent):
        assert fetch_files(TINY, data_dir=path, fallbacks=[]) == (FILES, f"archive {archive}")
        data = ma.load_dataset("custom", path)
        assert data.x_train.tobytes() == FILES[TRAIN_IMAGES][16:]
        assert data.source == f"archive {archive}"
    renamed = archive.rename(tmp_path / "any name")
    assert len(ma.load_dataset("custom", renamed).x_train) == 5


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"x_test": None}, "x_test cannot be read"),
        ({"x_test": np.zeros((3, 28, 28))}, "x_test in .* has dtype float64 and shape"),
        ({"x_test": np.zeros((3, 784), np.uint8)}, r"has dtype uint8 and shape \(3, 784\)"),
        ({"x_test": np.zeros((3, 8, 8), np.uint8)}, r"has images of shape \(8, 8\), but those of"),
        ({"y_test": np.array([1, 2, 260])}, "contains label 260, expected 0 to 255"),
        ({"y_test": np.array([1, -2, 2])}, "contains label -2, expected 0 to 255"),
        ({"y_test": np.array([1, 2])}, "2 labels for the 3 images"),
        ({"y_test": np.array([None])}, "y_test in .* has .* bytes of data"),
    ],
)
def test_archives_with_other_arrays_are_rejected(tmp_path, changes, message):
    archive = keras_archive(tmp_path / "mnist.npz", **changes)
    with pytest.raises(DataError, match=message) as caught:
        ma.load_dataset("custom", archive)
    assert re.escape(str(archive))[:4] in str(caught.value)


def test_integer_labels_of_any_dtype_are_read(tmp_path):
    archive = keras_archive(tmp_path / "mnist.npz", y_test=np.array([3, 0, 9]))
    assert ma.load_dataset("custom", archive).t_test.tolist() == [3, 0, 9]
