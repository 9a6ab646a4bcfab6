"""The public Python interface: names, signatures, and array types and dtypes."""

import inspect
import itertools
from typing import ClassVar

import numpy as np
import pytest

import mnist_accel as ma
from backends import registry
from backends.numpy.backend import NumpyBackend


class Absent(NumpyBackend):
    """A backend that no machine can run."""

    name: ClassVar[str] = "absent"

    @classmethod
    def availability(cls) -> ma.Availability:
        return ma.Availability(ok=False, reason="no such device", remedy="install one")


@pytest.mark.parametrize(
    ("function", "positional", "keywords"),
    [
        (
            ma.load_mnist,
            {"normalize": True, "flatten": True, "one_hot_label": False},
            {},
        ),
        (ma.available_backends, {}, {}),
        (ma.get_backend, {"name": "auto"}, {}),
        (
            ma.create_model,
            {"name": inspect.Parameter.empty},
            {"seed": 0, "hidden_sizes": None, "activation": None, "dtype": "float32"},
        ),
        (
            ma.Trainer,
            {"model": inspect.Parameter.empty, "optimizer": "sgd"},
            {"lr": None, "seed": 0},
        ),
        (
            ma.evaluate,
            dict.fromkeys(("model", "images", "labels"), inspect.Parameter.empty),
            {},
        ),
        (
            ma.save_checkpoint,
            dict.fromkeys(("path", "trainer"), inspect.Parameter.empty),
            {},
        ),
        (ma.load_checkpoint, {"path": inspect.Parameter.empty}, {"backend": "auto"}),
    ],
)
def test_signatures_are_as_documented(function, positional, keywords):
    parameters = inspect.signature(function).parameters
    first = list(parameters.values())[: len(positional)]
    assert {p.name: p.default for p in first} == positional
    assert all(p.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD for p in first)
    assert {name: parameters[name].default for name in keywords} == keywords


def test_the_documented_example_runs(tmp_path):
    """From the data to the checkpoint, with all documented arguments."""
    (x_train, t_train), (x_test, t_test) = ma.load_mnist(
        normalize=True, flatten=True, one_hot_label=False, dataset="digits"
    )
    availability = ma.available_backends()
    assert {"numpy", "numba", "cupy"} <= availability.keys()
    assert availability["numpy"].ok
    assert all(entry.reason for entry in availability.values())
    assert all(entry.ok or entry.remedy for entry in availability.values())
    assert ma.get_backend("auto").name in availability
    backend = ma.get_backend("numpy")
    model = ma.create_model(
        "two-layer",
        backend=backend,
        seed=0,
        hidden_sizes=(50,),
        activation="relu",
        dtype="float32",
    )
    state = model.state_dict()
    assert list(state) == ["W1", "b1", "W2", "b2"]
    model.load_state_dict(state)
    trainer = ma.Trainer(model, optimizer="sgd", lr=0.05, batch_size=512, seed=0)
    loss = trainer.train_batch(x_train[:512], t_train[:512])
    assert isinstance(loss, float)
    assert trainer.step == 1
    history = trainer.fit(x_train, t_train, epochs=5, validation_data=(x_test, t_test))
    assert len(history.losses) == 5 * 3
    assert [report.epoch for report in history.epochs] == [1, 2, 3, 4, 5]
    result = ma.evaluate(model, x_test, t_test)
    assert history.epochs[-1].validation_accuracy == result.accuracy
    assert history.epochs[-1].validation_loss == result.loss
    assert result.per_class_accuracy.shape == (10,)
    assert result.confusion_matrix.shape == (10, 10)
    ma.save_checkpoint(tmp_path / "checkpoint", trainer)
    again = ma.load_checkpoint(tmp_path / "checkpoint", backend=backend)
    assert again.step == trainer.step
    assert np.array_equal(again.model.predict(x_test), model.predict(x_test))


@pytest.mark.parametrize("name", ["two-layer", "cnn"])
def test_all_image_formats_of_load_mnist_train_to_the_same_weights(name):
    results = []
    for normalize, flatten, one_hot in itertools.product([True, False], repeat=3):
        (x, t), (x_test, t_test) = ma.load_mnist(normalize, flatten, one_hot, dataset="digits")
        model = ma.create_model(name, backend="numpy")
        history = ma.Trainer(model, "adam", batch_size=40).fit(
            x[:100], t[:100], epochs=1, validation_data=(x_test, t_test)
        )
        results.append((history.losses, history.epochs[0].validation_loss, model.state_dict()))
    losses, validation_loss, weights = results[0]
    for other_losses, other_validation_loss, other_weights in results[1:]:
        assert other_losses == losses
        assert other_validation_loss == validation_loss
        assert all(np.array_equal(other_weights[key], weights[key]) for key in weights)


def test_float64_trains_in_float64():
    model = ma.create_model("two-layer", backend="numpy", dtype="float64")
    assert all(value.dtype == np.float64 for value in model.state_dict().values())
    assert model.predict_proba(np.zeros((1, 784), np.float32)).dtype == np.float64


def test_inputs_and_results_are_host_arrays():
    model = ma.create_model("cnn", backend="numpy")
    state = model.state_dict()
    probabilities = model.predict_proba(np.zeros((3, 784), np.uint8))
    assert all(type(value) is np.ndarray for value in (*state.values(), probabilities))
    state["W1"][:] = 5  # a copy, so the network is unchanged
    assert not (model.state_dict()["W1"] == 5).any()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"b2": None}, "expected parameters W1, b1, W2, b2, got W1, b1, W2"),
        ({"W3": np.zeros(1)}, "expected parameters W1, b1, W2, b2, got"),
        ({"b2": np.full(10, np.nan)}, "b2 contains nan at index 0, not finite in float32"),
        ({"b1": np.full(50, 1e300)}, r"b1 contains 1e\+300 at index 0, not finite in float32"),
        ({"b1": np.zeros(50, complex)}, "b1 must hold real numbers, got complex128"),
        ({"b1": np.array(["0"] * 50)}, "b1 must hold real numbers, got <U1"),
        ({"W1": np.zeros((50, 784))}, r"W1 must have shape \(784, 50\), got \(50, 784\)"),
    ],
)
def test_an_invalid_state_dict_changes_nothing(change, message):
    model = ma.create_model("two-layer", backend="numpy")
    before = model.state_dict()
    state = {k: 2 * v for k, v in before.items()} | change
    with pytest.raises(ValueError, match=message):
        model.load_state_dict({k: v for k, v in state.items() if v is not None})
    assert all(np.array_equal(model.state_dict()[key], before[key]) for key in before)


def test_an_unavailable_backend_raises_an_error_with_reason_and_remedy(tmp_path, monkeypatch):
    monkeypatch.setitem(registry._registered, Absent.name, Absent)
    trainer = ma.Trainer(ma.create_model("cnn", backend="numpy"))
    ma.save_checkpoint(tmp_path / "checkpoint", trainer)
    for attempt in (
        lambda: ma.get_backend("absent"),
        lambda: ma.create_model("cnn", backend="absent"),
        lambda: ma.load_model(tmp_path / "checkpoint", backend="absent"),
        lambda: ma.load_checkpoint(tmp_path / "checkpoint", backend="absent"),
    ):
        with pytest.raises(ma.BackendUnavailableError, match="no such device; install one"):
            attempt()


def test_every_public_name_exists():
    assert dir(ma) == sorted(ma.__all__)
    assert all(getattr(ma, name) is not None for name in ma.__all__)
    with pytest.raises(AttributeError, match="'mnist_accel' has no attribute 'nothing'"):
        ma.nothing  # noqa: B018
