"""Two trainers that train at the same time in threads of one process."""

import threading

import numpy as np
import pytest

import mnist_accel as ma
from backends.numpy.backend import NumpyBackend
from mnist_accel.data import load_dataset


def train(threads, *, epochs):
    """Return losses and weights of a training with a number of BLAS threads."""
    digits = load_dataset("digits")
    backend = NumpyBackend()
    backend.threads = threads
    model = ma.create_model("two-layer", backend=backend)
    trainer = ma.Trainer(model, batch_size=200)
    history = trainer.fit(
        digits.x_train,
        digits.t_train,
        epochs=epochs,
        validation_data=(digits.x_test, digits.t_test),
    )
    validation = [report.validation_loss for report in history.epochs]
    return [history.losses, validation, *model.state_dict().values()]


@pytest.mark.parametrize("beside", [None, 1, 2])
def test_one_thread_computes_the_same_bits_beside_another_trainer(beside):
    """Also if the other one has another number of BLAS threads, which the process has only once."""
    expected = train(1, epochs=10)
    stop = threading.Event()

    def train_beside():
        while not stop.is_set():
            train(beside, epochs=1)

    other = threading.Thread(target=train_beside)
    other.start()
    try:
        results = [train(1, epochs=10) for _ in range(3)]
    finally:
        stop.set()
        other.join()
    for result in results:
        assert all(np.array_equal(a, b) for a, b in zip(result, expected, strict=True))
