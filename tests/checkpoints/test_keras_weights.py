"""Weights of Keras give the probabilities that Keras computes.

The reference below computes as Keras does, with the channels of an image last. It was compared with
Keras 3.15: the largest difference of a probability was below 1e-6.
"""

import zipfile

import numpy as np
import pytest

import mnist_accel as ma

X = np.random.default_rng(0).random((7, 28, 28), np.float32)


def keras_weights(layers, *, name="sequential/{}", seed=5):
    """Return random weights by Keras' names; a layer is the shape of its kernel."""
    rng, counts, weights = np.random.default_rng(seed), {}, {}
    for shape in layers:
        kind = "conv2d" if len(shape) == 4 else "dense"
        number = counts[kind] = counts.get(kind, -1) + 1
        layer = name.format(f"{kind}_{number}" if number else kind)
        scale = np.sqrt(2 / np.prod(shape[:-1]))
        weights[f"{layer}/kernel"] = (rng.normal(size=shape) * scale).astype(np.float32)
        weights[f"{layer}/bias"] = (rng.normal(size=shape[-1]) * 0.1).astype(np.float32)
    return weights


def convolve(x, kernel, bias, padding):
    x = np.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    patches = np.lib.stride_tricks.sliding_window_view(x, kernel.shape[:2], axis=(1, 2))
    return np.einsum("nhwckl,klcf->nhwf", patches, kernel) + bias


def max_pool(x):
    n, height, width, channels = x.shape
    return x.reshape(n, height // 2, 2, width // 2, 2, channels).max(axis=(2, 4))


def forward(x, weights, *, paddings=()):
    """Return the probabilities of conv, relu and pool for each padding, then of dense layers."""
    arrays = list(weights.values())
    for padding in paddings:
        kernel, bias, *arrays = arrays
        x = max_pool(np.maximum(convolve(x, kernel, bias, padding), 0))
    x = x.reshape(len(x), -1)
    while arrays:
        kernel, bias, *arrays = arrays
        x = x @ kernel + bias
        x = np.maximum(x, 0) if arrays else x
    exponentials = np.exp(x - x.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)


def saved(folder, weights):
    np.savez(folder / "w.npz", **weights)
    return folder / "w.npz"


@pytest.mark.parametrize("name", ["sequential/{}", "{}", "my_model/block.1/{}"])
def test_dense_layers_give_the_same_probabilities(tmp_path, name):
    weights = keras_weights([(784, 50), (50, 10)], name=name)
    network = ma.load_weights(saved(tmp_path, weights), backend="numpy", activation="relu")
    assert network.name == "two-layer"
    assert np.allclose(network.predict_proba(X), forward(X, weights), atol=1e-6)


def test_convolutions_have_their_channels_last(tmp_path):
    """The rows of the first dense layer follow the order of a flattened image (H, W, channels)."""
    weights = keras_weights([(5, 5, 1, 6), (5, 5, 6, 16), (400, 120), (120, 84), (84, 10)])
    network = ma.load_weights(saved(tmp_path, weights), model="lenet", backend="numpy")
    expected = forward(X[..., None], weights, paddings=(2, 0))
    assert np.allclose(network.predict_proba(X), expected, atol=1e-6)


def test_one_convolution_before_the_output_is_read(tmp_path):
    weights = keras_weights([(3, 3, 1, 30), (13 * 13 * 30, 20), (20, 10)])
    network = ma.load_weights(saved(tmp_path, weights), backend="numpy")
    assert network.name == "SimpleConvNet"
    expected = forward(X[..., None], weights, paddings=(0,))
    assert np.allclose(network.predict_proba(X), expected, atol=1e-5)


def test_names_of_keras_2_are_read(tmp_path):
    weights = keras_weights([(784, 50), (50, 10)], name="{}")
    renamed = {f"{name}:0": array for name, array in weights.items()}
    network = ma.load_weights(saved(tmp_path, renamed), backend="numpy")
    assert np.array_equal(network.state_dict()["W1"], weights["dense/kernel"])


def test_a_layer_that_is_no_convolution_and_not_dense_is_named(tmp_path):
    weights = keras_weights([(784, 50), (50, 10)])
    weights["sequential/batch_normalization/gamma"] = np.ones(50)
    with pytest.raises(ma.DataError, match=r"found key 'sequential/batch_normalization/gamma', e"):
        ma.load_weights(saved(tmp_path, weights), backend="numpy")


def test_rows_that_are_no_square_images_are_refused(tmp_path):
    weights = keras_weights([(5, 5, 1, 6), (410, 10)])
    with pytest.raises(ma.DataError, match=r"W2 has 410 rows, .* square images of 6 channels"):
        ma.load_weights(saved(tmp_path, weights), backend="numpy")


@pytest.mark.parametrize("suffix", [".h5", ".keras", ".npz"])
def test_files_that_keras_writes_are_refused_with_the_way_to_convert_them(tmp_path, suffix):
    file = tmp_path / f"model.weights{suffix}"
    if suffix == ".keras":
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr("metadata.json", "{}")
            archive.writestr("model.weights.h5", b"\x89HDF\r\n\x1a\n")
    else:
        file.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100))
    with pytest.raises(ma.DataError, match=r"save its arrays with np\.savez\(\"w\.npz\", \*\*"):
        ma.load_weights(file, backend="numpy")
