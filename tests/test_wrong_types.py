"""Arguments of a wrong type are refused by every public function, with one clear sentence."""

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mnist_accel as ma
from backends import shown
from mnist_accel import nn

NUMPY = ma.get_backend("numpy")
X, T = np.zeros((8, 784), np.float32), np.arange(8)
VALUES: dict[str, Any] = {
    "None": None,
    "5": 5,
    "1.5": 1.5,
    "-1": -1,
    "0": 0,
    "nan": float("nan"),
    "'0.1'": "0.1",
    "True": True,
    "list": [],
    "strings": ["1", "2"],
    "lists of unequal lengths": [[1], [1, 2]],
    "dict": {},
    "bytes": b"x",
    "object": object(),
    "class": int,
    "array": np.full(3, 0.5),
}
LAYERS = (nn.Linear(10),)
NUMBERS = "5 1.5 -1 0"
NAMES = "'0.1'"  # a string of another meaning is refused by another test


def network(layers: Any = LAYERS, loss: Any = None, **changes: Any) -> nn.Network:
    options = {"input": ma.Pixels(784), "backend": NUMPY, **changes}
    return nn.Network(layers, loss or nn.SoftmaxCrossEntropy(), **options)


def trainer(**changes: Any) -> ma.Trainer:
    return ma.Trainer(network(), **changes)


def fit(**changes: Any) -> ma.History:
    arguments = {"images": X, "labels": T, "iterations": 1, **changes}
    return trainer().fit(**arguments)


def population(**changes: Any) -> ma.Population:
    arguments = {"model": "two-layer", "seeds": 1, "iterations": 1, "data": "digits"}
    if "epochs" in changes:
        del arguments["iterations"]
    return ma.train_population(**{**arguments, "backend": "numpy", "limit_train": 50, **changes})


# Each argument of the public functions, and the values that it accepts.
CALLS: dict[str, tuple[Callable[[Any], Any], str]] = {
    "get_backend name": (lambda v: ma.get_backend(v), ""),
    "get_backend threads": (lambda v: ma.get_backend("numpy", threads=v), "None 5"),
    "get_backend device": (lambda v: ma.get_backend("numpy", device=v), "None"),
    "register": (ma.register, ""),
    "load_dataset name": (lambda v: ma.load_dataset(v), ""),
    "load_dataset data_dir": (lambda v: ma.load_dataset("mnist", data_dir=v), "None '0.1'"),
    "load_mnist dataset": (lambda v: ma.load_mnist(dataset=v), ""),
    "load_mnist normalize": (lambda v: ma.load_mnist(v, dataset="digits"), "True"),
    "load_mnist flatten": (lambda v: ma.load_mnist(flatten=v, dataset="digits"), "True"),
    "load_mnist one_hot": (lambda v: ma.load_mnist(one_hot_label=v, dataset="digits"), "True"),
    "read_digit_image path": (ma.read_digit_image, NAMES),
    "create_model name": (lambda v: ma.create_model(v, backend=NUMPY), ""),
    "create_model backend": (lambda v: ma.create_model("cnn", backend=v), ""),
    "create_model seed": (lambda v: ma.create_model("cnn", backend=NUMPY, seed=v), "5 0"),
    "create_model hidden_sizes": (
        lambda v: ma.create_model("fcnn", backend=NUMPY, hidden_sizes=v),
        "None list",
    ),
    "create_model hidden_sizes, one": (
        lambda v: ma.create_model("fcnn", backend=NUMPY, hidden_sizes=[v]),
        "5",
    ),
    "create_model activation": (
        lambda v: ma.create_model("fcnn", backend=NUMPY, activation=v),
        "None",
    ),
    "create_model dtype": (lambda v: ma.create_model("cnn", backend=NUMPY, dtype=v), ""),
    "Network layers": (lambda v: network(v), ""),
    "Network layers, one": (lambda v: network([v]), ""),
    "Network loss": (
        lambda v: nn.Network([nn.Linear(1)], v, input=ma.Pixels((1,)), backend=NUMPY),
        "",
    ),
    "Network input": (lambda v: network(input=v), ""),
    "Pixels shape": (lambda v: ma.Pixels(v), "5"),
    "Features shape": (lambda v: ma.Features(v), "5"),
    "Features shape, one": (lambda v: ma.Features((v,)), "5"),
    "Network backend": (lambda v: network(backend=v), ""),
    "Network seed": (lambda v: network(seed=v), "5 0"),
    "Network dtype": (lambda v: network(dtype=v), ""),
    "Pixels shift": (lambda v: ma.Pixels(784, shift=v), NUMBERS),
    "Network name": (lambda v: network(name=v), NAMES),
    "Network predict": (lambda v: network().predict(v), ""),
    "Network load_state_dict": (lambda v: network().load_state_dict(v), ""),
    "Network load_state_dict, one": (
        lambda v: network().load_state_dict({**network().state_dict(), "b1": v}),
        "",
    ),
    "Trainer model": (lambda v: ma.Trainer(v), ""),
    "Trainer optimizer": (lambda v: trainer(optimizer=v), ""),
    "Trainer lr": (lambda v: trainer(lr=v), "None 5 1.5"),
    "Trainer batch_size": (lambda v: trainer(batch_size=v), "5"),
    "Trainer seed": (lambda v: trainer(seed=v), "5 0"),
    "Trainer sampling": (lambda v: trainer(sampling=v), ""),
    "Trainer schedule": (lambda v: trainer(schedule=v), ""),
    "Trainer total_steps": (lambda v: trainer(total_steps=v), "None 5"),
    "Trainer compiled": (lambda v: trainer(compiled=v), "True"),
    "Trainer clock": (lambda v: trainer(clock=v), "class"),
    "Trainer train_batch images": (lambda v: trainer().train_batch(v, T), ""),
    "Trainer train_batch labels": (lambda v: trainer().train_batch(X, v), ""),
    "Trainer prepare images": (lambda v: trainer().prepare(v, T), ""),
    "Trainer prepare labels": (lambda v: trainer().prepare(X, v), ""),
    "Trainer fit images": (lambda v: fit(images=v), ""),
    "Trainer fit labels": (lambda v: fit(labels=v), ""),
    "Trainer fit epochs": (lambda v: fit(epochs=v, iterations=None), "5"),
    "Trainer fit iterations": (lambda v: fit(iterations=v), "5"),
    "Trainer fit validation_data": (lambda v: fit(validation_data=v), "None"),
    "Trainer fit validation_every": (lambda v: fit(validation_every=v), "5"),
    "Trainer fit callbacks": (lambda v: fit(callbacks=v), "list"),
    "Trainer fit callbacks, one": (lambda v: fit(callbacks=[v]), ""),
    "evaluate model": (lambda v: ma.evaluate(v, X, T), ""),
    "evaluate images": (lambda v: ma.evaluate(network(), v, T), ""),
    "evaluate labels": (lambda v: ma.evaluate(network(), X, v), ""),
    "mean_loss model": (lambda v: ma.mean_loss(v, X, T), ""),
    "mean_loss inputs": (lambda v: ma.mean_loss(network(), v, T), ""),
    "mean_loss targets": (lambda v: ma.mean_loss(network(), X, v), ""),
    "Trainer fit sample_weight": (lambda v: fit(sample_weight=v), "None"),
    "check_gradients model": (lambda v: ma.check_gradients(v, X, T), ""),
    "check_gradients images": (lambda v: ma.check_gradients(network(dtype="float64"), v, T), ""),
    "check_gradients labels": (lambda v: ma.check_gradients(network(dtype="float64"), X, v), ""),
    "save_model path": (lambda v: ma.save_model(v, network()), NAMES),
    "save_model model": (lambda v: ma.save_model("file", v), ""),
    "load_model path": (lambda v: ma.load_model(v, backend=NUMPY), "None '0.1'"),
    "load_model backend": (lambda v: ma.load_model("model", backend=v), ""),
    "save_checkpoint path": (lambda v: ma.save_checkpoint(v, trainer()), NAMES),
    "save_checkpoint trainer": (lambda v: ma.save_checkpoint("file", v), ""),
    "load_checkpoint path": (lambda v: ma.load_checkpoint(v, backend=NUMPY), NAMES),
    "load_checkpoint backend": (lambda v: ma.load_checkpoint("checkpoint", backend=v), ""),
    "load_weights path": (lambda v: ma.load_weights(v, backend=NUMPY), NAMES),
    "load_weights model": (lambda v: ma.load_weights("w", backend=NUMPY, model=v), "None"),
    "load_weights activation": (
        lambda v: ma.load_weights("w", backend=NUMPY, activation=v),
        "None",
    ),
    "train_population model": (lambda v: population(model=v), ""),
    "train_population seeds": (lambda v: population(seeds=v), "5"),
    "train_population lr": (lambda v: population(lr=v), "None 5 1.5 array"),
    "train_population epochs": (lambda v: population(epochs=v), "None 5 array"),
    "train_population data": (lambda v: population(data=v), ""),
    "train_population backend": (lambda v: population(backend=v), ""),
    "train_population threads": (lambda v: population(threads=v), "None 5"),
    "Linear units": (lambda v: nn.Linear(v), "5"),
    "Linear bias": (lambda v: nn.Linear(3, bias=v), "True"),
    "Linear weight_init": (lambda v: nn.Linear(3, weight_init=v), "class"),
    "Conv2d kernel_size": (lambda v: nn.Conv2d(1, v), "5"),
    "Conv2d padding": (lambda v: nn.Conv2d(1, 1, padding=v), "5 0"),
    "Conv2d uniform": (lambda v: nn.Conv2d(1, 1, uniform=v), "True"),
    "MaxPool2d size": (lambda v: nn.MaxPool2d(v), "5"),
    "MaxPool2d stride": (lambda v: nn.MaxPool2d(2, stride=v), "None 5"),
    "MaxPool2d ties": (lambda v: nn.MaxPool2d(ties=v), ""),
    "Activation": (lambda v: nn.Activation(v), ""),
    "Dropout": (lambda v: nn.Dropout(v), "0"),
    "Loss": (lambda v: nn.Loss(v), ""),
    "SGD lr": (lambda v: nn.SGD(lr=v), "5 1.5"),
    "SGD momentum": (lambda v: nn.SGD(momentum=v), "0"),
    "SGD nesterov": (lambda v: nn.SGD(momentum=0.5, nesterov=v), "True"),
    "Adam eps": (lambda v: nn.Adam(eps=v), "5 1.5 0"),
    "Normal std": (lambda v: nn.Normal(v), "5 1.5 0"),
    "StepSchedule every": (lambda v: nn.StepSchedule(v), "None 5"),
    "create_optimizer": (nn.create_optimizer, ""),
    "create_schedule": (nn.create_schedule, ""),
}
# What Python itself says about a value of a wrong type.
UNCLEAR = (
    "object has no attribute",
    "not supported between",
    "is not iterable",
    "is ambiguous",
    "is not callable",
    "os.PathLike object, not",
    "cannot be interpreted",
    "unhashable",
    "positional argument",
    "inhomogeneous",
)


@pytest.fixture(autouse=True)
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in a folder with a model and a checkpoint."""
    monkeypatch.chdir(tmp_path)
    ma.save_model("model", network())
    ma.save_checkpoint("checkpoint", trainer())


def test_every_public_function_is_called() -> None:
    called = {name.split()[0] for name in CALLS}
    functions = {name for name in ma.__all__ if inspect.isfunction(getattr(ma, name))}
    assert functions - called == {"available_backends"}  # it takes no argument


@pytest.mark.parametrize("call", CALLS)
def test_value_of_a_wrong_type_is_refused(call: str) -> None:
    function, accepted = CALLS[call]
    for name, value in VALUES.items():
        if name in accepted.split():
            continue
        with pytest.raises((TypeError, ValueError)) as caught:
            function(value)
        message = str(caught.value)
        assert not any(text in message for text in UNCLEAR), (name, message)
        assert len(message.splitlines()) == 1, (name, message)
        assert len(message) < 300, (name, message)
        says = ("got", shown(value), "missing", "a network needs")
        assert any(text in message for text in says), (name, message)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ma.get_backend("numpy", threads="a"), "threads must be an integer, got 'a'"),
        (
            lambda: ma.create_model("two-layer", backend=NUMPY, hidden_sizes=5),
            "hidden_sizes must be a sequence of integers, got 5",
        ),
        (
            lambda: ma.read_digit_image(None),
            "path must be a string, a pathlib.Path or a binary stream, got None",
        ),
        (lambda: trainer(lr="0.1"), "lr must be a number, got '0.1'"),
        (lambda: trainer(batch_size=1.5), "batch_size must be an integer, got 1.5"),
        (lambda: trainer(batch_size=True), "batch_size must be an integer, got True"),
        (
            lambda: ma.evaluate(network(), X, list("01234567")),
            "labels must be an array of numbers, got ['0', '1', '2', '3', '4', '5', '6', '7']; "
            "number words with numpy.unique(…, return_inverse=True)[1]",
        ),
        (
            lambda: trainer(optimizer=nn.Adam),
            "optimizer must be a name, or one such as Adam(), got <class "
            "'backends.operations.updates.Adam'>",
        ),
        (
            lambda: ma.save_model("file", 5),
            "model must be a network; save_checkpoint writes a Trainer, got 5",
        ),
        (lambda: ma.load_model(5), "path must be a string or a pathlib.Path, got 5"),
        (lambda: ma.load_mnist("digits"), "normalize must be True or False, got 'digits'"),
    ],
)
def test_message_names_argument_expectation_and_value(
    call: Callable[[], Any], message: str
) -> None:
    with pytest.raises(TypeError) as caught:
        call()
    assert str(caught.value) == message


def test_long_values_are_shortened_in_messages() -> None:
    assert shown("x" * 1000) == "'" + "x" * 78 + "…"
    assert shown(np.zeros((2, 2))) == "array([[0., 0.], [0., 0.]])"


def test_network_and_trainer_describe_themselves() -> None:
    model = ma.create_model("two-layer", backend="numpy")
    assert repr(model) == (
        f"<Network two-layer: {model.describe()}; 39,760 parameters, softmax_cross_entropy, "
        "float32 on numpy>"
    )
    assert repr(ma.Trainer(model, "adam")) == (
        f"<Trainer of two-layer on numpy: {nn.Adam()}, batch_size=64, step 0; eager: the backend "
        "numpy has no compiled epochs>"
    )


@pytest.mark.parametrize("name", ["layers", "loss", "dtype", "input", "backend", "forward"])
def test_network_cannot_be_changed(name: str) -> None:
    """What is compiled from it would not follow."""
    with pytest.raises(AttributeError, match=f"{name} of a network cannot be changed; create a"):
        setattr(network(), name, None)


@pytest.mark.parametrize("name", ["model", "optimizer"])
def test_model_and_optimizer_of_a_trainer_cannot_be_changed(name: str) -> None:
    with pytest.raises(AttributeError):
        setattr(trainer(), name, None)
