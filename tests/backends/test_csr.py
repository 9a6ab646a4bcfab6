"""Conversion of images to CSR format, for widths around the 64 pixels that it reads at once."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

pytest.importorskip("numba")

from backends import UpdateRule, create_optimizer
from backends.numba import csr as sparse
from backends.numba.backend import NumbaBackend
from backends.numba.csr import MAX_SPARSE_DENSITY, UPDATE_PASSES, to_csr
from mnist_accel.data import Dataset
from mnist_accel.recipes.models import create_model
from mnist_accel.training.trainer import Trainer


@pytest.fixture(autouse=True)
def _divided_among_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Divide few images, too."""
    monkeypatch.setattr(sparse, "MIN_PIXELS_PER_THREAD", 1)


def sparse_images(images: int, width: int, dtype: str) -> np.ndarray:
    """Return images of which four of five pixels are 0."""
    rng = np.random.default_rng(width)
    return (rng.integers(1, 256, (images, width)) * (rng.random((images, width)) < 0.2)).astype(
        dtype
    )


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("dtype", ["uint8", "float32", "float64"])
@pytest.mark.parametrize("width", [7, 63, 64, 65, 130, 784])
def test_csr_arrays_describe_the_images(width: int, dtype: str, threads: int) -> None:
    pixels = sparse_images(50, width, dtype)
    with ThreadPoolExecutor(2) as executor:
        csr = to_csr(pixels, threads=threads, executor=lambda: executor)
    assert csr is not None
    assert csr.indptr[0] == 0
    assert csr.indptr[-1] == len(csr.data) == np.count_nonzero(pixels)
    rebuilt = np.zeros_like(pixels)
    for part in range(len(csr.indptr) - 1):
        image, group = divmod(part, threads * UPDATE_PASSES)
        columns = csr.indices[csr.indptr[part] : csr.indptr[part + 1]]
        assert ((columns >= csr.edges[group]) & (columns < csr.edges[group + 1])).all()
        assert (np.diff(columns.astype(int)) > 0).all()
        rebuilt[image, columns] = csr.data[csr.indptr[part] : csr.indptr[part + 1]]
    assert np.array_equal(rebuilt, pixels)


def test_dense_images_are_not_converted() -> None:
    pixels = np.zeros((10, 100), np.uint8)
    pixels[:, : round(100 * MAX_SPARSE_DENSITY)] = 1
    assert to_csr(pixels, threads=1, executor=ThreadPoolExecutor) is None


@pytest.mark.parametrize("threads", [1, 3])
def test_blank_images_have_no_entries(threads: int) -> None:
    with ThreadPoolExecutor(2) as executor:
        csr = to_csr(np.zeros((9, 784), np.uint8), threads=threads, executor=lambda: executor)
    assert csr is not None
    assert len(csr.data) == 0
    assert not csr.indptr.any()


@pytest.mark.parametrize("optimizer", [create_optimizer("sgd", lr=0.5, weight_decay=1e-4), "adam"])
@pytest.mark.parametrize("threads", [1, 2])
def test_training_does_not_depend_on_the_number_of_groups(
    mnist: Dataset, monkeypatch: pytest.MonkeyPatch, threads: int, optimizer: UpdateRule | str
) -> None:
    results = []
    for groups in (1, 2, 5):
        monkeypatch.setattr(sparse, "UPDATE_PASSES", groups)
        backend = NumbaBackend()
        backend.threads = threads
        trainer = Trainer(create_model("backprop", backend=backend), optimizer, batch_size=20)
        data = trainer.prepare(mnist.x_train[:60], mnist.t_train[:60])
        assert trainer.compiled is not None
        images = data.for_epoch(trainer.compiled).arrays.images
        assert images.groups == groups * threads
        trainer.fit(data, epochs=3)
        results.append(trainer.model.parameters.flat)
    for other in results[1:]:
        assert np.array_equal(results[0], other)


def test_data_may_be_prepared_for_another_number_of_threads(mnist: Dataset) -> None:
    results = []
    for prepared in (2, 3):
        backend = NumbaBackend()
        backend.threads = prepared
        trainer = Trainer(create_model("backprop", backend=backend), "sgd", lr=0.5, batch_size=20)
        data = trainer.prepare(mnist.x_train[:60], mnist.t_train[:60])
        backend.threads = 3
        trainer.fit(data, epochs=3)
        results.append(trainer.model.parameters.flat)
    np.testing.assert_allclose(*results, rtol=0, atol=1e-5)
