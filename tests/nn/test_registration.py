"""Classes that `mnist_accel.register` accepts and refuses, and what their files contain."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

import mnist_accel as ma
from backends import ACTIVATIONS, LOSSES, ActivationFormula, UpdateRule
from mnist_accel.nn import (
    LAYERS,
    SGD,
    Activation,
    Adam,
    Layer,
    Linear,
    Network,
    Normal,
    Schedule,
    SoftmaxCrossEntropy,
)

pytestmark = pytest.mark.usefixtures("own_tables")


class Elementwise(Layer):
    """A layer that returns its input."""

    def forward(self, backend: Any, parameters: Any, x: Any, rng: Any) -> Any:
        return x, None

    def backward(self, backend: Any, parameters: Any, saved: Any, dy: Any, *, need_dx: bool) -> Any:
        return dy, {}


def network(*layers: Layer) -> Network:
    return Network(
        [*layers, Linear(10)],
        SoftmaxCrossEntropy(),
        input=ma.Pixels((784,)),
        backend=ma.get_backend("numpy"),
    )


def saved_and_loaded(model: Network, tmp_path: Any) -> Network:
    ma.save_model(tmp_path / "model", model)
    return ma.load_model(tmp_path / "model", backend="numpy")


def test_the_decorator_returns_the_class() -> None:
    @ma.register
    @dataclass(frozen=True)
    class Same(Elementwise):
        kind = "same"

    assert LAYERS["same"] is Same
    assert isinstance(Same(), Elementwise)


def test_settings_of_all_kinds_are_restored(tmp_path: Any) -> None:
    @ma.register
    @dataclass(frozen=True)
    class Many(Elementwise):
        number: float = 0.5
        flag: bool = False
        text: str = "a"
        pair: tuple[int, tuple[float, str]] = (1, (2.5, "b"))
        nothing: int | None = None
        kind = "many"

    layer = Many(number=1 / 3, flag=True, text="ü", pair=(7, (-0.1, "c")))
    assert saved_and_loaded(network(layer), tmp_path).layers[0] == layer


def test_initializers_of_any_name_are_not_saved(tmp_path: Any) -> None:
    @ma.register
    @dataclass(frozen=True)
    class Shifted(Elementwise):
        start: Any = Normal(1.0)
        kind = "shifted"

        def parameter_shapes(self, input_shape: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
            return {"b": input_shape}

        def initializers(self) -> dict[str, Any]:
            return {"b": self.start}

        def backward(
            self, backend: Any, parameters: Any, saved: Any, dy: Any, *, need_dx: bool
        ) -> Any:
            return dy, {"b": backend.xp.sum(dy, axis=0)}

    model = network(Shifted(start=Normal(3.0)))
    loaded = saved_and_loaded(model, tmp_path)
    assert np.array_equal(loaded.state_dict()["b1"], model.state_dict()["b1"])


@pytest.mark.parametrize("value", [np.tanh, np.zeros(2), {1, 2}, [1, 2], object(), np.float32(1)])
def test_setting_that_a_file_cannot_restore_is_named(tmp_path: Any, value: Any) -> None:
    @ma.register
    @dataclass(frozen=True)
    class Odd(Elementwise):
        form: Any = None
        kind = "odd"

    with pytest.raises(ValueError, match=r"Odd cannot be saved: form is .*, but settings in a"):
        ma.save_model(tmp_path / "model", network(Odd(value)))
    assert not (tmp_path / "model").exists()


def test_unregistered_names_in_a_file_name_the_decorator(tmp_path: Any) -> None:
    @ma.register
    @dataclass(frozen=True)
    class Same(Elementwise):
        kind = "same"

    ma.save_model(tmp_path / "model", network(Same()))
    del LAYERS["same"]
    with pytest.raises(ma.CheckpointError, match=r"unknown layer 'same'.*@mnist_accel\.register"):
        ma.load_model(tmp_path / "model", backend="numpy")


def _layer(kind: str) -> type[Layer]:
    return dataclass(frozen=True)(type("Mine", (Elementwise,), {"kind": kind, "__module__": "a"}))


def _optimizer(kind: str, name: str = "Mine") -> type[UpdateRule]:
    return dataclass(frozen=True)(type(name, (Adam,), {"kind": kind, "__module__": "a"}))


def _schedule(kind: str) -> type[Schedule]:
    return dataclass(frozen=True)(type("Mine", (Schedule,), {"kind": kind, "__module__": "a"}))


@pytest.mark.parametrize(
    ("cls", "message"),
    [
        (_layer("linear"), "the layer 'linear' exists already .*Linear.*; choose another name"),
        (_layer("Max-Pool2D"), "the layer 'max_pool2d' exists already .* name than 'Max-Pool2D'"),
        (_layer("relu"), "the layer 'relu' exists already"),
        (_layer("activation"), "the layer 'activation' exists already"),
        (_optimizer("adam"), r"the optimizer 'adam' exists already \(backends.*Adam\)"),
        (_optimizer("momentum"), "the optimizer 'momentum' exists already"),
        (_optimizer("mine", "Adam"), "an optimizer class Adam exists already"),
        (_schedule("cosine"), "the schedule 'cosine' exists already"),
    ],
)
def test_names_that_are_taken_are_refused(cls: type[Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ma.register(cls)


def test_formulas_cannot_be_replaced() -> None:
    """Compiled kernels are found by name, so they would compute another formula."""
    other = ActivationFormula(lambda xp, x: x, lambda xp, dy, y: dy)
    with pytest.raises(ValueError, match="the activation 'relu' exists already"):
        ACTIVATIONS["relu"] = other
    with pytest.raises(ValueError, match="the activation 'relu' exists already"):
        ACTIVATIONS.update(relu=other)
    with pytest.raises(ValueError, match="the activation 'relu' is built in"):
        del ACTIVATIONS["relu"]
    with pytest.raises(ValueError, match="the loss 'quadratic' exists already"):
        LOSSES["quadratic"] = LOSSES["softmax_cross_entropy"]


def test_class_can_be_defined_again() -> None:
    """A cell of a notebook may run twice."""
    first, second = (ma.register(_layer("mine")) for _ in range(2))
    assert first is not second
    assert LAYERS["mine"] is second


def _no_default() -> type[UpdateRule]:
    @dataclass(frozen=True, kw_only=True)
    class Mine(SGD):
        warmup: float
        kind = "mine"

    return Mine


def _not_frozen() -> type[Layer]:
    @dataclass
    class Mine(Elementwise):
        kind = "mine"

    return Mine


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: 5, "register takes a subclass of Layer, .* or Backend, got 5"),
        (lambda: Linear(3), "register takes a subclass"),
        (lambda: int, "register takes a subclass"),
        (lambda: type("Mine", (Layer,), {"kind": "mine"}), "Mine lacks backward, forward"),
        (lambda: type("Mine", (Elementwise,), {"kind": "mine"}), "Mine must be a frozen dataclass"),
        (_not_frozen, "Mine must be a frozen dataclass; write @dataclass"),
        (lambda: dataclass(frozen=True)(type("Mine", (Elementwise,), {})), "Mine needs a name of"),
        (lambda: dataclass(frozen=True)(type("Mine", (Adam,), {})), "Mine needs a name of its own"),
        (lambda: _layer(""), "Mine needs a name of its own"),
        (_no_default, "the setting warmup of Mine needs a default"),
        (lambda: type("Mine", (ma.Backend,), {"name": "mine"}), "Mine lacks methods"),
    ],
)
def test_incomplete_classes_are_refused(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        ma.register(make())


def test_subclass_of_network_cannot_be_saved(tmp_path: Any) -> None:
    class Residual(Network):
        pass

    model = Residual(
        [Linear(10)], SoftmaxCrossEntropy(), input=ma.Pixels(784), backend=ma.get_backend("numpy")
    )
    with pytest.raises(ValueError, match="a Residual cannot be saved"):
        ma.save_model(tmp_path / "model", model)


def test_activation_subclass_cannot_be_saved(tmp_path: Any) -> None:
    @dataclass(frozen=True)
    class Leaky(Activation):
        slope: float = 0.1

    with pytest.raises(ValueError, match="Leaky cannot be saved; register its class"):
        ma.save_model(tmp_path / "model", network(Leaky("relu")))
