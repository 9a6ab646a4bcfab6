"""Checkpoints restore a training completely, and damaged files are rejected."""

import json
import re

import numpy as np
import pytest
import safetensors
import safetensors.numpy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import mnist_accel as ma
from backends import OPTIMIZERS, SGD, create_optimizer
from mnist_accel.nn import (
    AvgPool2d,
    Conv2d,
    CosineSchedule,
    Dropout,
    Flatten,
    Linear,
    MaxPool2d,
    Network,
    OneCycleSchedule,
    Quadratic,
    Schedule,
    Sigmoid,
    StepSchedule,
    Tanh,
)

STEPS = 9


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(1).integers(0, 256, (50, 784)).astype(np.uint8)


@pytest.fixture(scope="module")
def labels():
    return np.random.default_rng(2).integers(0, 10, 50)


def trainer(optimizer="sgd", **given):
    model = ma.create_model("two-layer", backend="numpy", hidden_sizes=(5,))
    return ma.Trainer(model, optimizer, batch_size=16, seed=4, **given)


def assert_same_training(one, other):
    assert one.optimizer == other.optimizer
    assert one.schedule == other.schedule
    assert one.progress == other.progress
    for name in ("batch_size", "seed", "sampling", "total_steps"):
        assert getattr(one, name) == getattr(other, name), name
    for name, array in one.model.state_dict().items():
        assert np.array_equal(array, other.model.state_dict()[name]), name
    assert one.optimizer_state.keys() == other.optimizer_state.keys()
    for name, array in one.optimizer_state.items():
        assert np.array_equal(array, other.optimizer_state[name]), name


@pytest.mark.parametrize("stop", [1, 4, 6])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_resumed_training_equals_an_uninterrupted_one(name, stop, images, labels, tmp_path):
    """An epoch has four steps, so the training stops within an epoch or at its end."""

    def new():
        return trainer(create_optimizer(name, lr=0.01, weight_decay=0.1), total_steps=STEPS)

    straight, first = new(), new()
    straight.fit(images, labels, iterations=STEPS)
    first.fit(images, labels, iterations=stop)
    ma.save_checkpoint(tmp_path / "checkpoint", first)
    resumed = ma.load_checkpoint(tmp_path / "checkpoint", backend="numpy")
    resumed.fit(images, labels, iterations=STEPS - stop)
    resumed.progress.epoch_seconds = straight.progress.epoch_seconds  # times differ
    assert_same_training(resumed, straight)


@pytest.mark.parametrize(
    "schedule",
    [
        Schedule(),
        StepSchedule(every=2, gamma=0.7),
        StepSchedule(),
        CosineSchedule(),
        OneCycleSchedule(warmup=0.4),
    ],
)
def test_schedules_are_restored(schedule, images, labels, tmp_path):
    one = trainer(SGD(momentum=0.8, nesterov=True), schedule=schedule, total_steps=STEPS)
    one.fit(images, labels, iterations=5)
    ma.save_checkpoint(tmp_path / "checkpoint", one)
    other = ma.load_checkpoint(tmp_path / "checkpoint", backend="numpy")
    assert_same_training(other, one)
    assert other.learning_rate() == one.learning_rate()


def test_custom_network_is_restored_completely(images, tmp_path):
    network = Network(
        [
            Conv2d(2, kernel_size=3, stride=2, padding=1, bias=False, uniform=True),
            MaxPool2d(3, stride=2, ties="all"),
            Tanh(),
            AvgPool2d(2),
            Flatten(),
            Dropout(0.25),
            Linear(7),
            Sigmoid(),
            Linear(10, bias=False),
        ],
        Quadratic(l2=0.25),
        input=ma.Pixels((1, 28, 28), shift=-0.25),
        backend=ma.get_backend("numpy"),
        dtype="float64",
        name="mine",
    )
    ma.save_model(tmp_path / "model", network)
    loaded = ma.load_model(tmp_path / "model", backend="numpy")
    assert loaded.describe() == network.describe()
    assert (loaded.name, loaded.dtype, loaded.pixel_shift) == ("mine", "float64", -0.25)
    assert loaded.loss == network.loss
    assert np.array_equal(loaded.predict_proba(images), network.predict_proba(images))


def test_settings_may_be_numpy_scalars(images, labels, tmp_path):
    three = np.int64(3)
    network = Network(
        [
            Conv2d(three, kernel_size=three, stride=np.int32(2), padding=np.uint8(1)),
            MaxPool2d(np.int64(2), stride=np.int64(2)),
            Flatten(),
            Dropout(np.float32(0.5)),
            Linear(np.int64(10)),
        ],
        Quadratic(),
        input=ma.Pixels(np.array([1, 28, 28]), shift=np.float32(-0.5)),
        backend=ma.get_backend("numpy"),
    )
    optimizer = SGD(lr=np.float32(0.1), weight_decay=np.float32(0.01), momentum=np.float32(0.9))
    schedule = StepSchedule(every=three, gamma=np.float32(0.5))
    one = ma.Trainer(network, optimizer, schedule=schedule, total_steps=np.int64(4))
    one.fit(images, labels, epochs=np.int64(2))
    one.fit(images, labels, iterations=three)
    ma.save_checkpoint(tmp_path / "checkpoint", one)
    assert_same_training(ma.load_checkpoint(tmp_path / "checkpoint", backend="numpy"), one)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """The bytes of a small checkpoint, and a path for damaged versions."""
    path = tmp_path_factory.mktemp("saved") / "checkpoint"
    ma.save_checkpoint(path, trainer("momentum"))
    return path.read_bytes(), path.with_name("damaged")


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_any_changed_bit_is_detected(saved, data):
    """This includes the header, where a bit could change the learning rate or the step."""
    content, path = saved
    header = 8 + int.from_bytes(content[:8], "little")
    position = data.draw(st.integers(0, header - 1) | st.integers(0, len(content) - 1))
    changed = bytearray(content)
    changed[position] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(changed)
    with pytest.raises(ma.CheckpointError) as caught:
        ma.load_checkpoint(path, backend="numpy")
    assert "\n" not in str(caught.value)


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_truncated_file_is_detected(saved, data):
    content, path = saved
    path.write_bytes(content[: data.draw(st.integers(0, len(content) - 1))])
    with pytest.raises(ma.CheckpointError):
        ma.load_checkpoint(path, backend="numpy")


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(content=st.binary(max_size=200))
def test_arbitrary_file_is_rejected(saved, content):
    _, path = saved
    path.write_bytes(content)
    with pytest.raises(ma.CheckpointError):
        ma.load_checkpoint(path, backend="numpy")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"lr": 0.01', '"lr": 0.91'),
        ('"step": 0', '"step": 7'),
        ('"seed": 4', '"seed": 5'),
        ('"kind": "relu"', '"kind": "tanh"'),
    ],
)
def test_edited_header_is_rejected(saved, old, new):
    content, path = saved
    text = content.decode("latin-1")
    escaped = [json.dumps(word)[1:-1] for word in (old, new)]
    assert escaped[0] in text
    path.write_bytes(text.replace(*escaped).encode("latin-1"))
    with pytest.raises(ma.CheckpointError, match="damaged"):
        ma.load_checkpoint(path, backend="numpy")


def test_file_of_a_later_version_is_rejected_by_its_format(saved):
    content, path = saved
    path.write_bytes(content.replace(b"mnist_accel/1", b"mnist_accel/9"))
    with pytest.raises(ma.CheckpointError, match="format 'mnist_accel/9', expected 'mnist_accel/1"):
        ma.load_checkpoint(path, backend="numpy")


def test_other_programs_can_read_the_weights(saved, tmp_path):
    content, path = saved
    path.write_bytes(content)
    with safetensors.safe_open(path, framework="numpy") as file:
        assert {"W1", "b1", "W2", "b2", "optimizer.velocity"} == set(file.keys())
        assert json.loads(file.metadata()["network"])["name"] == "two-layer"
    state = safetensors.numpy.load_file(path)
    weights = trainer().model.state_dict()
    assert all(np.array_equal(state[key], weights[key]) for key in weights)


@pytest.mark.parametrize("path", ["file/checkpoint", "folder"])
def test_error_names_the_path_that_cannot_be_written(path, tmp_path):
    (tmp_path / "file").write_text("a file in place of the folder")
    (tmp_path / "folder" / "last.safetensors").mkdir(parents=True)
    with pytest.raises(ma.CheckpointError, match=re.escape(f"cannot write {tmp_path / path}")):
        ma.save_checkpoint(tmp_path / path, trainer())


@pytest.mark.parametrize("load", [ma.load_weights, ma.load_checkpoint])
def test_error_for_a_folder_without_checkpoint_names_the_folder(load, tmp_path):
    message = f"the folder {tmp_path} contains no last.safetensors; give a file"
    with pytest.raises(ma.CheckpointError, match=re.escape(message)):
        load(tmp_path, backend="numpy")


def test_an_empty_path_is_refused():
    network = ma.create_model("two-layer", backend="numpy")
    for call in (
        lambda: ma.save_model("", network),
        lambda: ma.load_model(""),
        lambda: ma.load_weights(""),
        lambda: ma.read_digit_image(""),
    ):
        with pytest.raises((ValueError, ma.DataError), match="path is empty, expected the path of"):
            call()


def test_missing_folders_are_created(tmp_path):
    ma.save_checkpoint(tmp_path / "a" / "b" / "checkpoint", trainer())
    assert ma.load_checkpoint(tmp_path / "a" / "b" / "checkpoint", backend="numpy").step == 0


def test_checkpoint_has_the_default_file_permissions(tmp_path):
    ma.save_checkpoint(tmp_path / "checkpoint", trainer())
    (tmp_path / "other").touch()
    modes = {file.stat().st_mode for file in tmp_path.iterdir()}
    assert len(modes) == 1


def test_optimizer_of_another_package_is_not_saved(tmp_path):
    class Mine(SGD):
        pass

    with pytest.raises(ValueError, match="Mine cannot be saved; register its class"):
        ma.save_checkpoint(tmp_path / "checkpoint", trainer(Mine()))
    assert not (tmp_path / "checkpoint").exists()
