"""Launches and copies are asynchronous: the host waits before it reads results or reuses memory."""

from functools import partialmethod
from typing import Any

import numpy as np
import pytest

from backends import Backend
from backends.cupy import workspace
from mnist_accel.data import Dataset
from mnist_accel.populations import train_population
from mnist_accel.recipes.models import create_model
from mnist_accel.training.trainer import Trainer
from tests.support.closeness import assert_same_bits
from tests.support.cuda_emulator.emulated_cupy import Stream
from tests.support.cuda_emulator.raw_module import Emulator
from tests.support.emulated_backend import EmulatedBackend

pytestmark = pytest.mark.emulated

# Model, its settings and the batch size. Persistent kernels train the first two, graphs the third.
CASES: dict[str, tuple[dict[str, Any], int]] = {
    "cnn": ({}, 1),
    "backprop": ({"hidden_sizes": (5,)}, 4),
    "two-layer": ({"hidden_sizes": (5,)}, 3),
}


@pytest.fixture(autouse=True)
def short_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workspace, "MAX_STEPS_PER_CHUNK", 3)


def results_of(backend: Backend, mnist: Dataset, name: str) -> list[Any]:
    """Train, predict, train on and predict again; return losses, weights and probabilities."""
    settings, batch_size = CASES[name]
    model = create_model(name, backend=backend, seed=1, **settings)
    trainer = Trainer(model, "sgd", batch_size=batch_size, seed=2)
    results: list[Any] = []
    for part in (slice(0, 10), slice(10, 18)):
        results.append(trainer.fit(mnist.x_train[part], mnist.t_train[part], epochs=1).losses)
        results += model.state_dict().values()
        results.append(model.predict_proba(mnist.x_test[:2]))
        results.append(model.predict_logits(mnist.x_test[2:3]))
    return results


@pytest.mark.parametrize("name", CASES)
def test_results_do_not_depend_on_when_the_gpu_is_done(mnist: Dataset, name: str) -> None:
    late = EmulatedBackend(Emulator(is_late=True))
    expected = results_of(EmulatedBackend(), mnist, name)
    assert_same_bits(results_of(late, mnist, name), expected)


def test_a_missing_wait_would_be_noticed(mnist: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    late = EmulatedBackend(Emulator(is_late=True))
    model = create_model("two-layer", backend=late, hidden_sizes=(5,))
    monkeypatch.setattr(Stream, "synchronize", lambda stream: None)
    assert np.isnan(model.predict_logits(mnist.x_test[:2])).all()


@pytest.mark.parametrize("name", CASES)
def test_members_do_not_depend_on_when_the_gpu_is_done(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    settings, batch_size = CASES[name]
    results = []
    for is_late in (False, True):
        made = partialmethod(EmulatedBackend.__init__, emulator=Emulator(is_late=is_late))
        with monkeypatch.context() as patch:
            patch.setattr(EmulatedBackend, "__init__", made)
            population = train_population(
                name, seeds=3, data="digits", backend=EmulatedBackend.name, batch_size=batch_size,
                epochs=None, iterations=[2, 5], limit_train=12, limit_test=2, validation_split=0.0,
                **{key: [value] for key, value in settings.items()},
            )  # fmt: skip
            results.append([w for m in range(6) for w in population[m].state_dict().values()])
    assert_same_bits(*results)
