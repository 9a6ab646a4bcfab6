"""The memory of a training does not grow with its steps."""

import gc
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest

import mnist_accel as ma
from mnist_accel.runs.callbacks import Checkpoints, MetricsLog
from mnist_accel.runs.folder import RunFolder
from mnist_accel.runs.stop_rules import StopRules
from mnist_accel.training.callback import Callback
from tests.support.command_line import environment

LIMIT_BYTES = 500e6


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def images_and_labels(rng, count):
    return rng.integers(0, 256, (count, 784), np.uint8), rng.integers(0, 10, count)


class Measure(Callback):
    """Adds the allocated memory in bytes to `allocated`, every 500 steps."""

    every = 500

    def __init__(self):
        self.allocated = []

    def on_steps(self, trainer, report):
        if trainer.step % self.every == 0:
            gc.collect()
            self.allocated.append(tracemalloc.get_traced_memory()[0])


def test_memory_does_not_grow_with_steps(tmp_path, rng):
    model = ma.create_model("two-layer", backend="numpy", hidden_sizes=(2,))
    trainer = ma.Trainer(model, batch_size=4)
    data = trainer.prepare(*images_and_labels(rng, 2000))  # 500 steps per epoch
    folder = RunFolder(tmp_path)
    metrics = MetricsLog(folder, every=50, show=lambda figures: None)
    rules = StopRules(target_accuracy=1.0, patience=None, max_seconds=1e9)
    measure = Measure()
    callbacks = (metrics, Checkpoints(folder.checkpoint, metrics, every=500), rules, measure)
    tracemalloc.start()
    try:
        trainer.train_to(2500, data, callbacks=callbacks)
    finally:
        tracemalloc.stop()
    second, last = measure.allocated[1], measure.allocated[-1]
    # 5 bytes per step: less than one number of each step, more than what libraries keep.
    assert last - second < 5 * 1500, measure.allocated


def test_full_batch_training_keeps_the_images_once(rng):
    """As floats, 4 bytes per pixel, next to the bytes that the caller holds."""
    images, labels = images_and_labels(rng, 3000)
    model = ma.create_model("fcnn", backend="numpy", hidden_sizes=(2,))
    trainer = ma.Trainer(model, sampling="full")
    tracemalloc.start()
    try:
        trainer.fit(images, labels, iterations=2)
        kept, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 1.1 * images.size  # the trainer keeps no image after `fit`
    assert peak < 6.5 * images.size


@pytest.mark.slow
def test_fcnn_trains_on_60000_images_in_less_than_500_mb(tmp_path):
    """With as many BLAS threads as the machine has cores."""
    if not sys.platform.startswith("linux"):
        pytest.skip("the peak is read from /proc/self/status, which only Linux has")
    code = """
import numpy as np
import mnist_accel as ma
rng = np.random.default_rng(0)
images, labels = rng.integers(0, 256, (60000, 784), np.uint8), rng.integers(0, 10, 60000)
backend = ma.get_backend("numpy")
trainer = ma.Trainer(ma.create_model("fcnn", backend=backend), sampling="full")
test = images[:10000], labels[:10000]
trainer.fit(images, labels, iterations=3, validation_data=test)
"""
    # The child's own peak; RUSAGE_CHILDREN is the maximum over the children of all tests.
    code += "print(next(line for line in open('/proc/self/status') if 'VmHWM' in line))\n"
    command = [sys.executable, "-c", code]
    child = subprocess.run(
        command, cwd=tmp_path, env=environment(), check=True, capture_output=True, text=True
    )
    assert int(child.stdout.split()[1]) * 1024 < LIMIT_BYTES
