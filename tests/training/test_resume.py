"""A resumed training gives the same result as an uninterrupted one."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import mnist_accel as ma
from backends import create_optimizer
from mnist_accel.nn import (
    Conv2d,
    Dropout,
    Flatten,
    Linear,
    MaxPool2d,
    Network,
    ReLU,
    SoftmaxCrossEntropy,
)

EXAMPLES, BATCH_SIZE = 70, 16  # five steps per epoch, the last with six images
STEPS = 13


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(1).integers(0, 256, (EXAMPLES, 784)).astype(np.uint8)


@pytest.fixture(scope="module")
def labels():
    return np.random.default_rng(2).integers(0, 10, EXAMPLES)


def network(backend):
    return Network(
        [
            Conv2d(3, kernel_size=5),
            ReLU(),
            MaxPool2d(2),
            Flatten(),
            Dropout(0.3),
            Linear(10),
        ],
        SoftmaxCrossEntropy(),
        input=ma.Pixels((1, 28, 28)),
        backend=ma.get_backend(backend),
        seed=3,
    )


def trainer(backend, optimizer="adam", **settings):
    return ma.Trainer(
        network(backend),
        create_optimizer(optimizer, lr=0.01, weight_decay=0.01),
        batch_size=BATCH_SIZE,
        seed=4,
        **settings,
    )


def assert_same_state(one, other):
    assert one.progress.step == other.progress.step
    for name, array in one.model.state_dict().items():
        assert np.array_equal(array, other.model.state_dict()[name]), name
    for name, array in one.optimizer_state.items():
        assert np.array_equal(array, other.optimizer_state[name]), name


@pytest.mark.parametrize("sampling", ["shuffle", "replacement"])
@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "adam"])
@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_resuming_at_any_step_gives_the_same_weights(
    backend, optimizer, sampling, images, labels, tmp_path
):
    settings = {"sampling": sampling, "schedule": "one-cycle", "total_steps": STEPS}
    straight = trainer(backend, optimizer, **settings)
    straight.fit(images, labels, iterations=STEPS)
    for stop in range(1, STEPS):
        first = trainer(backend, optimizer, **settings)
        first.fit(images, labels, iterations=stop)
        ma.save_checkpoint(tmp_path / "checkpoint", first)
        resumed = ma.load_checkpoint(tmp_path / "checkpoint", backend=backend)
        resumed.fit(images, labels, iterations=STEPS - stop)
        assert_same_state(resumed, straight)


def test_epoch_report_counts_the_whole_epoch_after_a_resume(images, labels, tmp_path):
    straight = trainer("numpy").fit(images, labels, epochs=1).epochs[0]
    first = trainer("numpy")
    first.fit(images, labels, iterations=2)
    ma.save_checkpoint(tmp_path / "checkpoint", first)
    second = ma.load_checkpoint(tmp_path / "checkpoint", backend="numpy")
    resumed = second.fit(images, labels, epochs=1).epochs[0]
    assert (resumed.epoch, resumed.step) == (straight.epoch, straight.step) == (1, 5)
    assert resumed.train_loss == straight.train_loss
    assert resumed.train_accuracy == straight.train_accuracy


def test_checkpoint_of_one_backend_resumes_on_another(images, labels, tmp_path):
    first = trainer("numpy")
    first.fit(images, labels, iterations=4)
    ma.save_checkpoint(tmp_path / "checkpoint", first)
    other = ma.load_checkpoint(tmp_path / "checkpoint", backend="numba")
    first.fit(images, labels, iterations=4)
    other.fit(images, labels, iterations=4)
    for name, array in first.model.state_dict().items():
        np.testing.assert_allclose(other.model.state_dict()[name], array, rtol=1e-3, atol=1e-6)


def test_folder_and_model_loading(images, labels, tmp_path):
    saved = trainer("numpy")
    ma.save_checkpoint(tmp_path, saved)
    assert (tmp_path / "last.safetensors").is_file()
    assert_same_state(ma.load_checkpoint(tmp_path, backend="numpy"), saved)
    model = ma.load_model(tmp_path, backend="numba")
    assert np.array_equal(model.predict_proba(images), saved.model.predict_proba(images)) or (
        np.allclose(model.predict_proba(images), saved.model.predict_proba(images), atol=1e-6)
    )
    ma.save_model(tmp_path / "model", saved.model)
    with pytest.raises(ma.CheckpointError, match="is a model without a training"):
        ma.load_checkpoint(tmp_path / "model", backend="numpy")


def damaged(content, kind):
    middle = len(content) * 3 // 4
    return {
        "empty": b"",
        "cut off": content[:middle],
        "one bit": content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :],
        "longer": content + b"x",
        "text": b"not a checkpoint\n" * 100,
        "header length": b"\xff" * 8 + content[8:],
    }[kind]


@pytest.mark.parametrize("kind", ["empty", "cut off", "one bit", "longer", "text", "header length"])
def test_damaged_file_is_rejected(kind, tmp_path):
    path = tmp_path / "checkpoint"
    ma.save_checkpoint(path, trainer("numpy"))
    path.write_bytes(damaged(path.read_bytes(), kind))
    with pytest.raises(ma.CheckpointError) as caught:
        ma.load_checkpoint(path, backend="numpy")
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_foreign_and_missing_files_are_rejected(tmp_path):
    from safetensors.numpy import save_file

    save_file({"W1": np.zeros((2, 2), np.float32)}, tmp_path / "foreign")
    with pytest.raises(ma.CheckpointError, match="not written by mnist_accel"):
        ma.load_checkpoint(tmp_path / "foreign", backend="numpy")
    with pytest.raises(ma.CheckpointError, match="does not exist"):
        ma.load_checkpoint(tmp_path / "missing", backend="numpy")


SAVE_FOREVER = """
import sys, mnist_accel as ma
model = ma.create_model("fcnn", backend="numpy")
trainer = ma.Trainer(model, "adam")
ma.save_checkpoint(sys.argv[1], trainer)
print("saved", flush=True)
while True:
    trainer.progress.step += 1
    ma.save_checkpoint(sys.argv[1], trainer)
"""


def test_kill_during_a_save_keeps_the_last_complete_checkpoint(tmp_path):
    path = tmp_path / "checkpoint"
    rng = np.random.default_rng(0)
    for _ in range(5):
        process = subprocess.Popen(
            [sys.executable, "-c", SAVE_FOREVER, str(path)],
            cwd=Path(__file__).parents[2],
            stdout=subprocess.PIPE,
        )
        assert process.stdout.readline() == b"saved\n"
        time.sleep(float(rng.uniform(0.01, 0.1)))
        process.kill()
        process.wait()
        process.stdout.close()
        ma.load_checkpoint(path, backend="numpy")


@pytest.mark.posix
def test_full_disk_is_reported_and_keeps_the_last_checkpoint(tmp_path):
    import resource

    path = tmp_path / "checkpoint"
    saved = trainer("numpy")
    ma.save_checkpoint(path, saved)
    child = os.fork()
    if child == 0:  # with a limit on file sizes, writes fail as on a full disk
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        try:
            ma.save_checkpoint(path, saved)
        except ma.CheckpointError as error:
            os._exit(0 if "cannot write" in str(error) and "\n" not in str(error) else 2)
        os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert_same_state(ma.load_checkpoint(path, backend="numpy"), saved)
    assert [file.name for file in tmp_path.iterdir()] == ["checkpoint"]
