"""Exported networks give the same probabilities in onnxruntime."""

import sys

import numpy as np
import pytest

import mnist_accel as ma
from backends import ACTIVATIONS, pip
from mnist_accel.commands import main
from mnist_accel.nn.layers import (
    Activation,
    AvgPool2d,
    Conv2d,
    Dropout,
    Flatten,
    Linear,
    MaxPool2d,
    ReLU,
)
from mnist_accel.nn.losses import (
    BinaryCrossEntropy,
    Quadratic,
    SoftmaxCrossEntropy,
    SquaredError,
)

pytest.importorskip("onnx", reason="needs onnx: pip install 'mnist-accel[onnx]'")
onnxruntime = pytest.importorskip("onnxruntime", reason="needs onnxruntime")

# Every layer, every activation, and sizes that do not divide by the strides.
NETWORKS = {
    "odd sizes": ([Conv2d(3, 4, stride=3, padding=2), MaxPool2d(3, stride=2), Flatten(), Linear(4)],
                  SoftmaxCrossEntropy()),
    "average pooling": ([AvgPool2d(3, stride=2), Flatten(), Linear(7, bias=False)], Quadratic()),
    "no bias": ([Conv2d(2, 3, bias=False), Flatten(), Dropout(0.5), Linear(3)],
                BinaryCrossEntropy()),
    **{kind: ([Flatten(), Linear(9), Activation(kind), Linear(5)], SoftmaxCrossEntropy())
       for kind in ("relu", "sigmoid", "tanh")},
}  # fmt: skip


def probabilities(file, images):
    session = onnxruntime.InferenceSession(file)
    return session.run(None, {session.get_inputs()[0].name: images})[0]


@pytest.mark.parametrize("recipe", ma.RECIPES)
def test_a_recipe_gives_the_same_probabilities_on_the_whole_test_set(recipe, tmp_path):
    data = ma.load_dataset("digits")
    model = ma.create_model(recipe, backend="numpy", seed=0)
    ma.Trainer(model, "adam", batch_size=32).fit(data.x_train[:200], data.t_train[:200], epochs=1)
    model.to_onnx(tmp_path / "model.onnx")
    # ONNX takes pixels in the shape of the network's input.
    images = data.x_test.reshape(-1, *model.input_shape)
    found = probabilities(tmp_path / "model.onnx", images)
    assert np.abs(found - model.predict_proba(data.x_test)).max() < 1e-5


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", NETWORKS)
def test_every_layer_and_loss_is_exported(name, dtype, tmp_path):
    layers, loss = NETWORKS[name]
    shape = (1, 28, 28)
    model = ma.Network(
        layers, loss, input=ma.Pixels(shape, shift=-0.5), backend="numpy", dtype=dtype
    )
    images = np.random.default_rng(0).integers(0, 256, size=(5, *shape), dtype=np.uint8)
    expected = model.predict_proba(images)
    model.to_onnx(tmp_path / "a.onnx")
    model.to_onnx(tmp_path / "b.onnx", preprocess=False)
    inputs = (images / 255 - 0.5).astype(np.float32)
    for found in (
        probabilities(tmp_path / "a.onnx", images),
        probabilities(tmp_path / "b.onnx", inputs),
    ):
        assert found.dtype == np.float32
        assert np.abs(found - expected).max() < 1e-5


def test_equal_maxima_do_not_change_the_output(tmp_path):
    layers = [MaxPool2d(2, ties="all"), Flatten(), Linear(3)]
    model = ma.Network(layers, SoftmaxCrossEntropy(), input=ma.Pixels((1, 28, 28)), backend="numpy")
    images = np.full((2, 1, 28, 28), 7, np.uint8)
    model.to_onnx(tmp_path / "model.onnx")
    found = probabilities(tmp_path / "model.onnx", images)
    assert np.abs(found - model.predict_proba(images)).max() < 1e-6


def test_a_layer_without_onnx_form_is_named(tmp_path, own_tables):
    class Mystery(ReLU().__class__):
        pass

    model = ma.Network([Flatten(), Mystery("relu"), Linear(3)], SoftmaxCrossEntropy(),
                       input=ma.Pixels((1, 28, 28)), backend="numpy")  # fmt: skip
    with pytest.raises(ValueError, match=r"layer 2 \(relu\) has no ONNX form"):
        model.to_onnx(tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


def test_an_activation_without_onnx_form_is_named(tmp_path, own_tables):
    ACTIVATIONS["square"] = ACTIVATIONS["relu"]
    model = ma.Network([Flatten(), Activation("square"), Linear(3)], SoftmaxCrossEntropy(),
                       input=ma.Pixels((1, 28, 28)), backend="numpy")  # fmt: skip
    with pytest.raises(ValueError, match="the activation square has no ONNX form"):
        model.to_onnx(tmp_path / "model.onnx")


def test_a_path_that_cannot_be_written_is_one_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ma.DataError, match="cannot write"):
        ma.create_model("two-layer", backend="numpy").to_onnx(tmp_path / "file" / "model.onnx")


def test_the_command_exports_a_model_file(tmp_path, capsys):
    model = ma.create_model("two-layer", backend="numpy", seed=4)
    ma.save_model(tmp_path / "model.safetensors", model)
    file = tmp_path / "model.onnx"
    assert main(["export", str(tmp_path / "model.safetensors"), "--onnx", str(file)]) == 0
    assert str(file) in capsys.readouterr().out
    images = ma.load_dataset("digits").x_test[:20]
    found = probabilities(file, images.reshape(-1, 784))
    assert np.abs(found - model.predict_proba(images)).max() < 1e-5


def test_without_onnx_the_command_says_how_to_install_it(tmp_path, capsys, monkeypatch):
    ma.save_model(tmp_path / "a.safetensors", ma.create_model("two-layer", backend="numpy"))
    monkeypatch.setitem(sys.modules, "onnx", None)
    arguments = [str(tmp_path / "a.safetensors"), "--onnx", str(tmp_path / "a.onnx")]
    assert main(["export", *arguments]) == 3
    message = f"the package onnx, which is not installed: {pip('install', 'mnist-accel[onnx]')}"
    assert message in capsys.readouterr().err


def test_the_command_replaces_no_file_of_another_kind(tmp_path, capsys):
    file = tmp_path / "model.safetensors"
    ma.save_model(file, ma.create_model("two-layer", backend="numpy"))
    before = file.read_bytes()
    assert main(["export", str(file), "--onnx", str(file)]) == 2
    assert "--onnx: expected a file name that ends in .onnx, got" in capsys.readouterr().err
    assert file.read_bytes() == before


def test_features_are_not_scaled_and_a_regression_has_outputs(tmp_path):
    features = np.random.default_rng(0).normal(size=(5, 3, 6, 6)).astype(np.float32)
    layers = [Conv2d(2, 3), Flatten(), Linear(3)]
    model = ma.Network(layers, SquaredError(), input=ma.Features((3, 6, 6)), backend="numpy")
    model.to_onnx(tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    (given,), (output,) = session.get_inputs(), session.get_outputs()
    assert (given.name, given.type, output.name) == ("features", "tensor(float)", "outputs")
    found = probabilities(tmp_path / "model.onnx", features)
    np.testing.assert_allclose(found, model.predict(features), rtol=1e-5, atol=1e-6)
