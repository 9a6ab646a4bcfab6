"""Compiled training of a linear first layer that reads pixels follows the eager training."""

import numpy as np
import pytest

pytest.importorskip("numba")

from backends import get_backend
from mnist_accel import nn
from mnist_accel.nn.inputs import Pixels
from mnist_accel.training.trainer import Trainer
from tests.support.closeness import assert_close

pytestmark = pytest.mark.usefixtures("wakes_threads")

IMAGES, STEPS = 60, 6


def dense_inputs(features: int, dtype: str) -> np.ndarray:
    random = np.random.default_rng(0)
    if dtype == "uint8":
        return random.integers(1, 256, (IMAGES, features), dtype=np.uint8)
    return random.uniform(0.1, 1, (IMAGES, features)).astype(dtype)


def weights_after_training(
    backend: str, x: np.ndarray, optimizer: nn.UpdateRule, *, threads: int | None, dtype: str
) -> dict[str, np.ndarray]:
    layers = (nn.Linear(13), nn.Sigmoid(), nn.Linear(10))
    model = nn.Network(
        layers,
        nn.SoftmaxCrossEntropy(),
        input=Pixels(x.shape[1:]),
        backend=get_backend(backend, threads=threads),
        seed=1,
        dtype=dtype,
    )
    trainer = Trainer(model, optimizer=optimizer, batch_size=23, seed=1)
    trainer.fit(x, np.arange(IMAGES) % 10, iterations=STEPS)
    assert (trainer.compiled is not None) == (backend == "numba")
    return model.state_dict()


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize(
    ("features", "pixels", "dtype"),
    [(784, "uint8", "float32"), (100, "float32", "float32"), (37, "float64", "float64")],
)
@pytest.mark.parametrize(
    "optimizer",
    [nn.SGD(lr=0.1, weight_decay=0.01), nn.Adam(lr=0.01), nn.SGD(lr=0.1, momentum=0.9)],
    ids=["weight decay", "adam", "momentum"],
)
def test_training_on_pixels_follows_eager_training(
    optimizer: nn.UpdateRule, features: int, pixels: str, dtype: str, threads: int
) -> None:
    x = dense_inputs(features, pixels)
    got = weights_after_training("numba", x, optimizer, threads=threads, dtype=dtype)
    want = weights_after_training("numpy", x, optimizer, threads=None, dtype=dtype)
    for name, expected in want.items():
        assert_close(got[name], expected, dtype=dtype, terms=features, steps=10 * STEPS)
