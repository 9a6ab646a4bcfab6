"""The sizes that a file claims are compared with its content before anything is allocated."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors
import safetensors.numpy

import mnist_accel as ma
from mnist_accel.checkpoints.tensor_file import read_tensors, write_tensors
from mnist_accel.commands import main
from mnist_accel.nn import Conv2d, Flatten, Linear, MaxPool2d, SoftmaxCrossEntropy
from tests.support.command_line import ON_NUMPY

BACKEND = ma.get_backend("numpy")


@pytest.fixture
def model_file(tmp_path):
    file = tmp_path / "model.safetensors"
    ma.save_model(file, ma.create_model("lenet", backend="numpy"))
    return file


def change_network(file: Path, change) -> None:
    """Change the description of the network; the digest is correct afterwards."""
    tensors, header = read_tensors(file)
    change(header["network"])
    write_tensors(file, tensors, header)


def layer(number: int, **settings):
    return lambda network: network["layers"][number].update(settings)


LAYERS = [
    pytest.param(change, id=name)
    for name, change in {
        "units": layer(7, units=10**15),
        "units that fit into memory": layer(7, units=200_000),
        "channels": layer(0, channels=10**9),
        "kernel": layer(0, kernel_size=10**6, padding=10**6),
        "padding": layer(0, padding=10**9, stride=10**8),
        "padding of a text": layer(0, padding="9" * 1000),
        "stride": layer(0, stride=10**30),
        "input shape": lambda network: network.update(input_shape=[1, 10**6, 10**6]),
        "input shape with a long text": lambda n: n.update(input_shape=["x" * 10**6, 28, 28]),
        "input shape of texts": lambda network: network.update(input_shape=["1", "28", "28"]),
        "input shape with many sides": lambda network: network.update(input_shape=[1] * 10**5),
        "many layers": lambda network: network["layers"].extend([{"kind": "relu"}] * 10**5),
        "layers that are not a list": lambda network: network.update(layers=5),
        "no layers": lambda network: network.update(layers=[]),
        "a pool as last layer": lambda network: network["layers"].append({"kind": "max_pool2d"}),
        "a long name": lambda network: network.update(name="x" * 10**6),
        "a name that is a list": lambda network: network.update(name=[]),
        "a large shift": lambda network: network.update(pixel_shift=10**400),
        "a dtype": lambda network: network.update(dtype=["float32"]),
        "an initializer": layer(0, weight_init="x"),
    }.items()
]


@pytest.mark.parametrize("change", LAYERS)
def test_description_that_differs_from_the_weights_is_rejected(model_file, change):
    change_network(model_file, change)
    with pytest.raises(ma.CheckpointError) as caught:
        ma.load_model(model_file, backend="numpy")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600


def test_message_names_the_weight_and_both_shapes(model_file):
    change_network(model_file, layer(7, units=200_000))
    with pytest.raises(ma.CheckpointError, match=r"W3 with shape \(400, 200000\) but holds \(400"):
        ma.load_model(model_file, backend="numpy")


@pytest.mark.posix
def test_rejection_needs_little_memory(model_file):
    change_network(model_file, layer(7, units=5_000_000))
    program = f"""
import resource, mnist_accel as ma
backend = ma.get_backend("numpy")
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    ma.load_model({str(model_file)!r}, backend=backend)
except ma.CheckpointError:
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert int(done.stdout) < 50_000, done.stderr  # kB


def test_header_that_is_nested_too_deeply_is_rejected(tmp_path):
    file = tmp_path / "deep.safetensors"
    metadata = {"format": "mnist_accel/1", "network": "[" * 100_000}
    metadata["digest"] = hashlib.sha256(json.dumps(metadata, sort_keys=True).encode()).hexdigest()
    safetensors.numpy.save_file({}, file, metadata)
    with pytest.raises(ma.CheckpointError, match="header is not valid JSON: it is nested too"):
        ma.load_model(file, backend="numpy")


def test_weights_of_another_dtype_than_the_network_are_rejected(model_file):
    tensors, header = read_tensors(model_file)
    small = {name: array.astype(np.uint8) for name, array in tensors.items()}
    write_tensors(model_file, small, header)
    with pytest.raises(ma.CheckpointError, match="W1 has dtype uint8, but the network has float32"):
        ma.load_model(model_file, backend="numpy")


def test_large_header_is_rejected_before_it_is_parsed(tmp_path):
    file = tmp_path / "large.safetensors"
    safetensors.numpy.save_file({}, file, {"format": "x" * 2**20})
    with pytest.raises(
        ma.CheckpointError, match="its header is larger than the maximum of 1,048,576 bytes"
    ):
        ma.load_model(file, backend="numpy")


def change_training(file: Path, change) -> None:
    """Change the description of the training and the arrays; the digest is correct afterwards."""
    tensors, header = read_tensors(file)
    change(header["training"], tensors)
    write_tensors(file, tensors, header)


@pytest.fixture
def checkpoint(tmp_path):
    x = np.zeros((40, 784), np.uint8)
    model = ma.create_model("two-layer", backend="numpy", hidden_sizes=(5,))
    trainer = ma.Trainer(model, "momentum", batch_size=8, sampling="replacement")
    trainer.fit(x, np.arange(40) % 10, iterations=3)
    ma.save_checkpoint(tmp_path / "c.safetensors", trainer)
    return tmp_path / "c.safetensors"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda training, _: training.update(batch_size=10**9), "batch_size is 1000000000, but 3"),
        (
            lambda training, _: training["progress"].update(epoch_step="x"),
            "progress.epoch_step: expected",
        ),
        (lambda training, _: training["progress"].update(epoch_step=10**9), "3 steps are too few"),
        (lambda _, t: t.update({"optimizer.velocity": np.zeros(1, np.float32)}), "has shape (1,)"),
        (lambda _, t: t.pop("optimizer.velocity"), "arrays are none, expected velocity"),
        (lambda _, t: t.update({"optimizer.x": np.zeros(1)}), "arrays are velocity, x, expected"),
        (lambda _, t: t["optimizer.velocity"].fill(np.nan), "velocity contains nan at index 0"),
        (lambda training, _: training.update(optimizer="Adam"), "Adam: Adam.__init__"),
        (lambda training, _: training.update(seed=-1), "seed: expected `int` >= 0"),
        (lambda training, _: training.update(sampling="none"), "sampling: invalid enum value"),
        (lambda training, _: training.update(total_steps=0), "total_steps: expected `int` >= 1"),
        (lambda training, _: training.update(total_steps=10**400), "total_steps is too large"),
        (lambda training, _: training["optimizer_settings"].update(lr="x"), "lr must be a number"),
        (lambda training, _: training["optimizer_settings"].update(lr=0), "lr must be more than 0"),
        (lambda training, _: training["optimizer_settings"].update(x=1), "argument 'x'"),
        (lambda training, _: training["progress"].update(step=-1), "step: expected `int` >= 0"),
        (lambda training, _: training["progress"].update(step=True), "expected `int`, got `bool`"),
        (lambda training, _: training["progress"].update(epoch=2), "too few for 2 epochs and 3"),
        (lambda training, _: training["progress"].update(epoch_loss="1"), "expected `float`"),
        (lambda training, _: training["progress"].update(epoch_correct=25), "25 of 24 images"),
        (lambda training, _: training["progress"].update(epoch_seconds=-1.0), "`float` >= 0"),
        (lambda training, _: training["progress"].pop("epoch_step"), "has no epoch_step"),
        (lambda training, _: training["progress"].clear(), "has no epoch, epoch_correct, "),
        (lambda training, _: training["progress"].update(epoch_step=0), "no steps, but images"),
    ],
)
def test_training_that_differs_from_the_arrays_is_rejected(checkpoint, change, message):
    assert any(name.startswith("optimizer.velocity") for name in read_tensors(checkpoint)[0])
    change_training(checkpoint, change)
    with pytest.raises(ma.CheckpointError) as caught:
        ma.load_checkpoint(checkpoint, backend="numpy")
    assert message in str(caught.value)


def test_negative_mean_of_squares_is_rejected(tmp_path):
    """Its square root would be NaN in the next step, which looks like a divergence."""
    file = tmp_path / "c.safetensors"
    model = ma.create_model("two-layer", backend="numpy", hidden_sizes=(5,))
    ma.save_checkpoint(file, ma.Trainer(model, "adam", batch_size=8))
    change_training(file, lambda _, t: t["optimizer.square_mean"].fill(-1))
    with pytest.raises(ma.CheckpointError, match=r"square_mean contains -1\.0 at index 0"):
        ma.load_checkpoint(file, backend="numpy")


@pytest.mark.parametrize("sampling", ["shuffle", "replacement"])
def test_resumed_run_rejects_another_batch_size(tmp_path, capfd, sampling):
    folder = tmp_path / "run"
    flags = [*ON_NUMPY, "--iterations", "3", "--batch-size", "16", "--sampling", sampling]
    assert main(["train", *flags, "--out", str(folder), "--quiet"]) == 0

    def change(training, _):
        training["batch_size"] = 10**9
        training["progress"]["epoch_images"] = training["progress"]["epoch_step"] * 10**9

    change_training(folder / "checkpoint" / "last.safetensors", change)
    capfd.readouterr()
    assert main(["train", "--resume", str(folder), "--iterations", "5"]) == 4
    assert "has the batch size 1000000000" in capfd.readouterr().err


@pytest.mark.parametrize(
    "layers",
    [
        [Conv2d(20_000, 1), MaxPool2d(7, stride=28), Flatten(), Linear(10)],
        [Conv2d(1, 28, padding=900, stride=1), MaxPool2d(7, stride=1000), Flatten(), Linear(10)],
        [Conv2d(1, 1, padding=10**4, stride=10**4), Flatten(), Linear(10)],
        [*[Conv2d(500, 1), Conv2d(1, 1)] * 30, Flatten(), Linear(10)],
    ],
    ids=["channels", "unfolded", "padding", "many layers"],
)
def test_networks_with_large_tensors_are_neither_saved_nor_loaded(tmp_path, layers, monkeypatch):
    network = ma.Network(
        layers, SoftmaxCrossEntropy(), input=ma.Pixels((1, 28, 28)), backend=BACKEND
    )
    with pytest.raises(ValueError, match="values for one image"):
        ma.save_model(tmp_path / "m.safetensors", network)
    with monkeypatch.context() as unlimited:
        unlimited.setattr("mnist_accel.nn.serialization._MAX_VALUES", 2**60)
        unlimited.setattr("mnist_accel.nn.serialization._MAX_TENSOR", 2**60)
        ma.save_model(tmp_path / "m.safetensors", network)
    with pytest.raises(ma.CheckpointError, match="values for one image"):
        ma.load_model(tmp_path / "m.safetensors", backend="numpy")


def test_prediction_of_a_large_network_uses_small_batches(monkeypatch):
    layers = [Conv2d(2000, 1), MaxPool2d(7, stride=7), Flatten(), Linear(10)]
    network = ma.Network(
        layers, SoftmaxCrossEntropy(), input=ma.Pixels((1, 28, 28)), backend=BACKEND
    )
    images = np.random.default_rng(0).random((9, 784), np.float32)
    want = network.predict_proba(images)
    sizes, gather = [], network.gather
    monkeypatch.setattr(
        network, "gather", lambda x, rows: sizes.append(len(rows)) or gather(x, rows)
    )
    monkeypatch.setattr(
        "mnist_accel.nn.network._PREDICTION_VALUES", 4 * network.graph.largest_tensor_per_image
    )
    assert np.allclose(network.predict_proba(images), want, atol=1e-6)
    assert sizes == [4, 4, 1]


def test_a_file_that_could_not_be_read_is_not_written(tmp_path, monkeypatch):
    monkeypatch.setattr("mnist_accel.checkpoints.tensor_file._MAX_BYTES", 2**20 + 100)
    with pytest.raises(ma.CheckpointError, match="have 104 bytes, more than the maximum"):
        write_tensors(tmp_path / "file", {"a": np.zeros(13)}, {})
    write_tensors(tmp_path / "file", {"a": np.zeros(12)}, {})
    assert np.array_equal(read_tensors(tmp_path / "file")[0]["a"], np.zeros(12))
