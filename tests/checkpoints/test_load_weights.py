"""`load_weights` recognizes networks by the content of a file, and computes what was saved."""

import collections
import io
import pickle
import shutil
import zipfile

import numpy as np
import pytest

import mnist_accel as ma

BACKEND = ma.get_backend("numpy")
X = np.random.default_rng(0).random((7, 784), np.float32)


def load(file, **given):
    return ma.load_weights(file, backend=BACKEND, **given)


def pickled(file, content, protocol=4):
    file.write_bytes(pickle.dumps(content, protocol))
    return file


def as_npy(file, content):
    buffer = io.BytesIO()
    np.save(buffer, content, allow_pickle=True)
    file.write_bytes(buffer.getvalue())
    return file


def as_npz(file, content):
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **content)
    file.write_bytes(buffer.getvalue())
    return file


def assert_same_network(got, want):
    assert got.describe() == want.describe()
    assert got.name == want.name
    assert np.array_equal(got.predict_proba(X), want.predict_proba(X))


def transposed(state, bias):
    return {k: v.T.copy() if k[0] == "W" and v.ndim == 2 else bias(k, v) for k, v in state.items()}


def default_dict(state):
    result = collections.defaultdict(dict)
    result.update(state)
    return result


LAYOUTS = {
    "dict": lambda s: s,
    "OrderedDict": collections.OrderedDict,
    "defaultdict": default_dict,
    "reversed": lambda s: dict(reversed(s.items())),
    "(1, out)": lambda s: {k: v if k[0] == "W" else v[None] for k, v in s.items()},
    "(out, in) and (out,)": lambda s: transposed(s, lambda k, v: v),
    "(out, in) and (out, 1)": lambda s: transposed(
        s, lambda k, v: v[:, None] if k[0] == "b" else v
    ),
    "(out, in) and (1, out)": lambda s: transposed(s, lambda k, v: v[None] if k[0] == "b" else v),
    "(in, out) and (out, 1)": lambda s: {k: v if k[0] == "W" else v[:, None] for k, v in s.items()},
    "float64": lambda s: {k: v.astype(np.float64) for k, v in s.items()},
    "Fortran order": lambda s: {k: np.asfortranarray(v) for k, v in s.items()},
    "big-endian": lambda s: {k: v.astype(">f4") for k, v in s.items()},
}


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("name", ["two-layer", "three-layer", "cnn", "lenet", "fast99"])
def test_weights_in_each_layout_give_the_same_network(tmp_path, layout, name):
    network = ma.create_model(name, backend=BACKEND, seed=3)
    content = layout(network.state_dict())
    for protocol in (0, 2, 5):
        file = pickled(tmp_path / "w.pkl", content, protocol)
        assert_same_network(load(file), network)
        assert_same_network(load(file, model=name), network)


@pytest.mark.parametrize("suffix", [".pkl", ".PKL", ".pickle", ".npy", ".npz", ".dat", ""])
def test_format_is_recognized_by_the_content_and_not_by_the_suffix(tmp_path, suffix):
    network = ma.create_model("two-layer", backend=BACKEND)
    file = tmp_path / f"weights{suffix}"
    assert_same_network(load(pickled(file, network.state_dict())), network)
    assert_same_network(load(pickled(file, network.state_dict(), 0)), network)
    assert_same_network(load(as_npz(file, network.state_dict())), network)
    assert load(as_npy(file, network.state_dict())).name == "fcnn"
    ma.save_model(tmp_path / "model", network)
    shutil.copy(tmp_path / "model", file)
    assert_same_network(load(file), network)


def test_archive_with_one_dict_is_read(tmp_path):
    network = ma.create_model("two-layer", backend=BACKEND)
    np.savez(tmp_path / "w.npz", network.state_dict())
    assert_same_network(load(tmp_path / "w.npz"), network)


@pytest.mark.parametrize("recipe", ["two-layer", "lenet"])
def test_names_of_a_pytorch_state_dict_are_read(tmp_path, recipe):
    network = ma.create_model(recipe, backend=BACKEND)
    state = {}
    for name, array in network.state_dict().items():
        kind = "weight" if name[0] == "W" else "bias"
        state[f"module.layers.{2 * int(name[1])}.{kind}"] = array.T if array.ndim == 2 else array
    np.savez(tmp_path / "w.npz", **state)
    assert_same_network(load(tmp_path / "w.npz"), network)
    for other in ("epoch", "W1"):
        with pytest.raises(
            ma.DataError, match=r"found key '(epoch|module.*)', expected only W1, b1"
        ):
            load(pickled(tmp_path / "w.pkl", state | {other: 3}))


def test_filters_in_another_order_are_rejected_with_the_accepted_order(tmp_path):
    state = ma.create_model("lenet", backend=BACKEND).state_dict()
    turned = {name: a.transpose(2, 3, 1, 0) if a.ndim == 4 else a for name, a in state.items()}
    with pytest.raises(
        ma.DataError, match=r"with filters \(filters, channels, k, k\), got W1 \(5,"
    ):
        load(pickled(tmp_path / "w.pkl", turned))


def test_hidden_sizes_follow_from_the_shapes(tmp_path):
    for name, sizes in (("two-layer", (31,)), ("three-layer", (9, 21)), ("lenet", (70, 33))):
        network = ma.create_model(name, backend=BACKEND, hidden_sizes=sizes)
        assert_same_network(load(pickled(tmp_path / "w.pkl", network.state_dict())), network)
    deep = ma.create_model("two-layer", backend=BACKEND, hidden_sizes=(20, 15, 12, 11))
    file = pickled(tmp_path / "w.pkl", deep.state_dict())
    assert_same_network(load(file, model="two-layer"), deep)
    with pytest.raises(ma.DataError, match="no recipe has 5 layers; give model"):
        load(file)


def test_assumed_activation_is_stated_and_can_be_changed(tmp_path, capsys):
    network = ma.create_model("three-layer", backend=BACKEND, activation="tanh")
    file = pickled(tmp_path / "w.pkl", network.state_dict())
    assert_same_network(load(file, activation="tanh"), network)
    load(pickled(tmp_path / "cnn.pkl", ma.create_model("cnn", backend=BACKEND).state_dict()))
    assert capsys.readouterr() == ("", "")  # no activation had to be assumed
    load(file)
    out, err = capsys.readouterr()
    assert out == ""
    assert err == (
        f"note: {file} does not state its network: assuming three-layer with the activation "
        "sigmoid; choose others with model and activation\n"
    )
    notes = []
    load(file, note=notes.append)
    assert len(notes) == 1
    assert capsys.readouterr() == ("", "")


def relu(x):
    return np.maximum(x, 0)


def convolve(x, weight, bias, padding):
    x = np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    windows = np.lib.stride_tricks.sliding_window_view(x, weight.shape[2:], axis=(2, 3))
    return np.einsum("ncijkl,fckl->nfij", windows, weight) + bias[:, None, None]


def pool(x):
    n, c, height, width = x.shape
    x = x[:, :, : height // 2 * 2, : width // 2 * 2]
    return x.reshape(n, c, height // 2, 2, width // 2, 2).max(axis=(3, 5))


def softmax(x):
    e = np.exp(x - x.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def random_state(shapes):
    rng = np.random.default_rng(5)
    state = {}
    for number, shape in enumerate(shapes, start=1):
        units = shape[0] if len(shape) == 4 else shape[1]
        scale = np.sqrt(2 / (np.prod(shape) / units))
        state[f"W{number}"] = rng.standard_normal(shape) * scale
        state[f"b{number}"] = rng.standard_normal(units) * 0.1
    return state


@pytest.mark.parametrize(
    ("filters", "side", "padding", "hidden"), [(30, 5, 0, 100), (8, 3, 1, 20), (4, 7, 3, 12)]
)
def test_simple_conv_net_of_the_book(tmp_path, filters, side, padding, hidden):
    pooled = (28 + 2 * padding - side + 1) // 2
    shapes = ((filters, 1, side, side), (filters * pooled**2, hidden), (hidden, 10))
    state = random_state(shapes)
    network = load(pickled(tmp_path / "params.pkl", state))
    assert network.name == "SimpleConvNet"
    h = pool(relu(convolve(X.reshape(-1, 1, 28, 28), state["W1"], state["b1"], padding)))
    h = relu(h.reshape(len(X), -1) @ state["W2"] + state["b2"])
    want = softmax(h @ state["W3"] + state["b3"])
    assert np.allclose(network.predict_proba(X), want, atol=1e-5)


def test_deep_conv_net_of_the_book_with_its_dropout_in_inference(tmp_path):
    channels = ((16, 1), (16, 16), (32, 16), (32, 32), (64, 32), (64, 64))
    paddings = (1, 1, 1, 2, 1, 1)
    shapes = [(*pair, 3, 3) for pair in channels] + [(64 * 4 * 4, 50), (50, 10)]
    state = random_state(shapes)
    network = load(pickled(tmp_path / "deep_convnet_params.pkl", state))
    assert network.name == "DeepConvNet"
    h = X.reshape(-1, 1, 28, 28)
    for number, padding in enumerate(paddings, start=1):
        h = relu(convolve(h, state[f"W{number}"], state[f"b{number}"], padding))
        h = pool(h) if number % 2 == 0 else h
    h = relu(h.reshape(len(X), -1) @ state["W7"] + state["b7"]) * 0.5
    want = softmax((h @ state["W8"] + state["b8"]) * 0.5)
    assert np.allclose(network.predict_proba(X), want, atol=1e-5)


def test_square_layers_with_flat_biases_are_ambiguous(tmp_path):
    state = {"W1": np.arange(4.0).reshape(2, 2), "b1": np.zeros(2)}
    with pytest.raises(ma.DataError, match=r"W1 has shape \(2, 2\) and all layers are square, so"):
        load(pickled(tmp_path / "w.pkl", state))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"W1": np.zeros((6, 1, 5, 4))}, "W1 (6, 1, 5, 4)"),
        ({"W1": np.zeros((6, 1, 99, 99))}, "W1 (6, 1, 99, 99)"),
        ({"W2": np.zeros((16, 7, 5, 5))}, "expected the shapes of"),
        ({"b1": None}, "expected the shapes of"),
        ({"b1": np.zeros((2, 3))}, "expected the form (out, 1) for all"),
        ({"W1": np.zeros((6, 25))}, "expected the shapes of"),
        ({"gamma": np.zeros(6)}, "found key 'gamma'"),
        ({"W3": np.full((400, 120), np.inf)}, "W3 contains inf at index (0, 0), not finite"),
        ({"b5": np.array([0, 0, 0, 1e39, 0, 0, 0, 0, 0, 0])}, "b5 contains 1e+39 at index 3"),
        ({"b5": np.zeros(10, complex)}, "b5 is complex128"),
    ],
)
def test_other_convolutional_weights_are_rejected(tmp_path, change, message):
    state = ma.create_model("lenet", backend=BACKEND).state_dict() | change
    state = {key: value for key, value in state.items() if value is not None}
    for given in ({}, {"model": "lenet"}):
        with pytest.raises(ma.DataError) as caught:
            load(pickled(tmp_path / "w.pkl", state), **given)
        assert message in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("model", ["two-layer", "cnn", "fast99"])
def test_weights_of_another_recipe_are_rejected(tmp_path, model):
    file = pickled(tmp_path / "w.pkl", ma.create_model("lenet", backend=BACKEND).state_dict())
    with pytest.raises(ma.DataError, match=f"do not suit model '{model}'"):
        load(file, model=model)


def test_unknown_names_raise_value_errors(tmp_path):
    file = pickled(tmp_path / "w.pkl", {})
    with pytest.raises(ValueError, match="unknown model 'resnet'"):
        load(file, model="resnet")
    with pytest.raises(ValueError, match="unknown activation 'swish'"):
        load(file, activation="swish")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not a"),
        (b"PK\x03\x04", "not a well-formed .npz archive"),
        (b"\x93NUMPY", "not a well-formed .npy file"),
        (b"\x80\x05", "not a well-formed pickle"),
        (b"hello world", "is not a"),
    ],
)
def test_corrupt_files_are_rejected_by_their_content(tmp_path, content, message):
    for suffix in (".pkl", ".npz", ".npy"):
        file = tmp_path / f"w{suffix}"
        file.write_bytes(content)
        with pytest.raises(ma.DataError, match=message):
            load(file)


def test_archive_that_unpacks_to_a_large_size_is_rejected(tmp_path, monkeypatch):
    monkeypatch.setattr("mnist_accel.checkpoints.weight_files._MAX_BYTES", 10**6)
    with zipfile.ZipFile(tmp_path / "w.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("W1.npy", "b1.npy"):
            archive.writestr(name, bytes(10**6))
    with pytest.raises(ma.DataError, match=r"not a well-formed .npy|more than 1000000 bytes"):
        load(tmp_path / "w.npz")


def test_array_under_many_names_is_not_converted_for_each(tmp_path):
    array = np.zeros((1000, 1000), np.uint8)
    (tmp_path / "w.pkl").write_bytes(pickle.dumps({f"W{i}": array for i in range(1, 200)}, 4))
    with pytest.raises(ma.DataError, match="found 199,000,000 numbers, expected at most"):
        load(tmp_path / "w.pkl")


def test_folders_and_missing_files_are_rejected(tmp_path):
    (tmp_path / "w.pkl").mkdir()
    with pytest.raises(ma.DataError):
        load(tmp_path / "w.pkl")
    with pytest.raises(ma.DataError, match="No such file"):
        load(tmp_path / "none.pkl")
    with pytest.raises(ma.DataError, match="does not exist"):
        load(tmp_path / "none")
