"""Weights of older programs are imported, and invalid files are rejected."""

import itertools
import pickle

import numpy as np
import pytest

from mnist_accel.checkpoints.legacy_weights import linear_layers, load_weights
from mnist_accel.checkpoints.weight_files import read_weight_file
from mnist_accel.errors import DataError

SIZES = (784, 50, 100, 10)


@pytest.fixture
def weights() -> dict[str, np.ndarray]:
    """W1, b1, … with shapes (in, out) and (out,)."""
    rng = np.random.default_rng(0)
    result = {}
    for number, (inputs, outputs) in enumerate(itertools.pairwise(SIZES), start=1):
        result[f"W{number}"] = rng.standard_normal((inputs, outputs), np.float32)
        result[f"b{number}"] = rng.standard_normal(outputs, np.float32)
    return result


def as_columns(weights):
    """Return the layout of programs that compute W @ x + b: (out, in) and (out, 1), in float64."""
    return {
        key: (a.T if a.ndim == 2 else a[:, None]).astype(np.float64) for key, a in weights.items()
    }


def pickled(tmp_path, value, protocol=4):
    path = tmp_path / "weights.pkl"
    path.write_bytes(pickle.dumps(value, protocol))
    return path


def read_layers(path):
    """Return the weights of the linear layers in a file."""
    return linear_layers(read_weight_file(path).arrays)


def assert_same(got, want):
    assert list(got) == list(want)
    for key in want:
        assert got[key].dtype == np.float32
        assert got[key].flags.c_contiguous
        assert got[key].flags.writeable
        assert np.array_equal(got[key], want[key])


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_pickled_dict_is_read(tmp_path, weights, protocol):
    assert_same(read_layers(pickled(tmp_path, weights, protocol)), weights)


def test_npy_file_with_a_dict_is_read(tmp_path, weights):
    path = tmp_path / "parameters_500.npy"
    np.save(path, as_columns(weights), allow_pickle=True)
    assert_same(read_layers(path), weights)


def test_layout_is_detected_by_the_biases_not_the_file_type(tmp_path, weights):
    assert_same(read_layers(pickled(tmp_path, as_columns(weights))), weights)
    rows = {key: a if a.ndim == 2 else a[None, :] for key, a in weights.items()}
    assert_same(read_layers(pickled(tmp_path, rows)), weights)


def test_square_layers_are_transposed_if_biases_are_columns(tmp_path):
    square = {"W1": np.arange(9.0).reshape(3, 3), "b1": np.zeros((3, 1))}
    got = read_layers(pickled(tmp_path, square))
    assert np.array_equal(got["W1"], square["W1"].T)


def test_layers_are_returned_in_numeric_order(tmp_path):
    deep = {}
    for number in range(12, 0, -1):
        deep |= {f"b{number}": np.full(2, number), f"W{number}": np.eye(2)}
    got = read_layers(pickled(tmp_path, deep))
    assert list(got) == [f"{letter}{number}" for number in range(1, 13) for letter in "Wb"]
    assert got["b12"].tolist() == [12, 12]


def replaced(**changes):
    def change(weights):
        result = weights | changes
        return {key: value for key, value in result.items() if value is not None}

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: [w], "found list, expected a dict"),
        (lambda _: {}, "found an empty dict, expected a dict with W1"),
        (replaced(b2=None), "b2 is missing"),
        (replaced(W1=None), "W1 is missing"),
        (replaced(W2=None), "W2 is missing"),
        (
            replaced(costs=np.zeros(3)),
            "found key 'costs', expected only W1, b1, W2, b2, …, PyTorch's names",
        ),
        (replaced(W1=np.zeros((9, 0))), "W1 has shape (9, 0) and thus no elements"),
        (replaced(W1=np.zeros((784, 49))), "W1 maps 784 to 49 values, expected 784 to 50"),
        (replaced(W2=np.zeros((51, 100))), "W2 maps 51 to 100 values, expected 50 to 100"),
        (replaced(b1=np.zeros((50, 1))), "expected the form (out, 1) for all"),
        (replaced(b1=np.zeros((5, 10))), "expected the form (out, 1) for all"),
        (replaced(W1=np.zeros((8, 1, 3, 3))), "W1 (8, 1, 3, 3)"),
        (replaced(b3=np.zeros(0)), "b3 has shape (0,)"),
        (
            replaced(W3=np.full((100, 10), np.nan)),
            "W3 contains nan at index (0, 0), not finite in float32",
        ),
        (replaced(b3=np.full(10, 1e300)), "b3 contains 1e+300 at index 0, not finite in float32"),
        (replaced(b3=[0.0] * 10), "b3 is list, expected an array"),
        (replaced(b3=np.zeros(10, complex)), "b3 is complex128"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_invalid_networks_are_rejected(tmp_path, weights, change, message):
    path = pickled(tmp_path, change(weights))
    with pytest.raises(DataError) as caught:
        load_weights(path, backend="numpy")
    assert message in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


class Hostile:
    def __reduce__(self):
        return (eval, ("1/0",))


def test_code_in_a_file_is_rejected_by_name(tmp_path):
    with pytest.raises(DataError, match=r"builtins\.eval"):
        read_layers(pickled(tmp_path, {"W1": Hostile()}))
    np.save(tmp_path / "w.npy", {"W1": Hostile()}, allow_pickle=True)
    with pytest.raises(DataError, match=r"builtins\.eval"):
        read_layers(tmp_path / "w.npy")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\x93NUMPY", "not a well-formed .npy"),
        (b"\x93NUMPY\x01\x00\x06\x00{[]:1}", "not a well-formed .npy"),
        (b"\x93NUMPY\x01\x00\x04\x00((((", "not a well-formed .npy"),
        (b"no pickle", "not a well-formed pickle"),
        (b"", "not a well-formed pickle"),
    ],
)
def test_corrupt_files_are_rejected(tmp_path, data, message):
    path = tmp_path / "weights"
    path.write_bytes(data)
    with pytest.raises(DataError, match=message):
        read_layers(path)


def test_archive_without_members_is_rejected(tmp_path):
    np.savez(tmp_path / "empty.npz")
    with pytest.raises(DataError, match="found an empty dict, expected a dict with W1"):
        read_layers(tmp_path / "empty.npz")


def test_npy_of_numbers_or_several_objects_is_rejected(tmp_path):
    np.save(tmp_path / "numbers.npy", np.zeros(3))
    with pytest.raises(DataError, match=r"dtype float64 and shape \(3,\), expected one object"):
        read_layers(tmp_path / "numbers.npy")
    np.save(tmp_path / "objects.npy", np.array([{}, {}]), allow_pickle=True)
    with pytest.raises(DataError, match=r"shape \(2,\), expected one object"):
        read_layers(tmp_path / "objects.npy")


def test_missing_file_is_a_data_error(tmp_path):
    with pytest.raises(DataError, match=r"cannot read .*: No such file"):
        read_layers(tmp_path / "none.pkl")
