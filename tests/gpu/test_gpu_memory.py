"""Errors for data sets, networks and batches that do not fit the memory of the GPU."""

import gc
import re
from typing import Any

import pytest

from backends.cupy import workspace as cupy_workspace
from mnist_accel.data import Dataset
from mnist_accel.nn import SGD
from mnist_accel.training.trainer import Trainer
from tests.support.compiled_training import make_network
from tests.support.emulated_backend import EmulatedBackend
from tests.support.gpu_training import small_mlp

pytestmark = pytest.mark.emulated


def test_error_for_a_large_batch_names_a_batch_size_that_fits(
    mnist: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cupy_workspace, "MAX_ROWS_PER_CHUNK", 10_000)
    backend = EmulatedBackend(memory_bytes=2_800_000)
    model = make_network("an activation first", backend, "float32")
    trainer = Trainer(model, "sgd", batch_size=900)
    data = trainer.prepare(mnist.x_train[:900], mnist.t_train[:900])
    with pytest.raises(MemoryError) as caught:
        trainer.fit(data, iterations=1)
    message = re.fullmatch(
        r"a batch of 900 images needs (\d+) MB on the GPU, of which 2 MB are free; "
        r"the largest batch that fits is about (\d+)",
        str(caught.value),
    )
    assert message is not None, caught.value
    assert message[1] == "3"
    fitting = int(message[2])
    trainer.batch_size = fitting + 20
    with pytest.raises(MemoryError, match=f"a batch of {fitting + 20} images"):
        trainer.fit(data, iterations=1)
    trainer.batch_size = fitting - 20
    assert len(trainer.fit(data, iterations=1).losses) == 1


def test_trainings_after_each_other_share_a_stream_and_simultaneous_ones_do_not() -> None:
    """CuPy reuses memory only on the stream on which it was allocated."""
    backend = EmulatedBackend()

    def new_epoch() -> Any:
        return backend.compile_epoch(small_mlp(backend).training_program(SGD()))

    first, second = new_epoch(), new_epoch()
    assert first._stream is not second._stream
    streams = {first._stream, second._stream}
    del first, second
    gc.collect()
    third, fourth = new_epoch(), new_epoch()
    assert {third._stream, fourth._stream} == streams


@pytest.mark.parametrize(
    ("memory_bytes", "compiled", "message"),
    [
        (400_000, True, "the data set needs 1 MB on the GPU, of which 0 MB are free"),
        (880_000, True, r"Out of memory allocating \d+ bytes on the GPU, of which 0 MB are free"),
        (880_000, False, r"Out of memory allocating \d+ bytes on the GPU, of which 0 MB are free"),
    ],
    ids=["data set", "persistent kernel", "eager"],
)
def test_out_of_memory_error_names_the_free_memory(
    mnist: Dataset, memory_bytes: int, compiled: bool, message: str
) -> None:
    backend = EmulatedBackend(memory_bytes=memory_bytes)
    trainer = Trainer(small_mlp(backend), "sgd", batch_size=16, compiled=compiled)
    with pytest.raises(MemoryError, match=f"^{message}$") as caught:
        trainer.fit(mnist.x_train[:1000], mnist.t_train[:1000], iterations=1)
    assert caught.type is MemoryError
