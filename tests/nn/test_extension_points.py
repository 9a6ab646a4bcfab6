"""Layers, activations, losses, optimizers and schedules from outside the project.

A registered class, or a formula in a table, can be used on every backend, saved and loaded.
"""

from dataclasses import dataclass

import numpy as np
import pytest

import mnist_accel as ma
from backends import ACTIVATIONS, LOSSES, OPTIMIZERS, ActivationFormula, LossFormula, UpdateRule
from mnist_accel.nn import (
    LAYERS,
    SCHEDULES,
    Activation,
    Conv2d,
    Flatten,
    Layer,
    Linear,
    Loss,
    MaxPool2d,
    Network,
    Schedule,
    SoftmaxCrossEntropy,
)
from mnist_accel.nn.serialization import network_from_dict, network_to_dict


@dataclass(frozen=True)
class Scale(Layer):
    """Multiply by a constant."""

    factor: float = 2.0
    kind = "scale"

    def forward(self, backend, parameters, x, rng):
        return self.factor * x, None

    def backward(self, backend, parameters, saved, dy, *, need_dx):
        return self.factor * dy, {}


@dataclass(frozen=True)
class SignDescent(UpdateRule):
    """Subtract lr times the sign of the gradient."""

    kind = "sign"

    def apply(self, xp, w, g, state, *, lr, step):
        w -= lr * xp.sign(g)


@dataclass(frozen=True)
class Halving(Schedule):
    """Halve the learning rate at every step."""

    kind = "halving"

    def factor(self, step, total_steps):
        return 0.5**step


def squared_distance(ops, logits, labels, weights):
    error = logits - ops.one_hot(labels, like=logits)
    return ops.xp.sum(error * error) / 2, error


@pytest.fixture(autouse=True)
def tables(own_tables):
    for cls in (Scale, SignDescent, Halving):
        ma.register(cls)
    LOSSES["squared_distance"] = LossFormula(squared_distance, outputs="sigmoid")
    ACTIVATIONS["square"] = ActivationFormula(
        lambda xp, x: x * x, lambda xp, dy, y: 2 * dy * xp.sqrt(y)
    )


@pytest.fixture(scope="module")
def digits():
    dataset = ma.load_mnist(dataset="digits")
    return dataset[0][0][:64], dataset[0][1][:64]


def network(layers, *, backend="numpy", loss=None, input_shape=(784,)):
    return Network(
        layers,
        loss or SoftmaxCrossEntropy(),
        input=ma.Pixels(input_shape),
        backend=ma.get_backend(backend),
    )


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("layer", "the layer scale has no compiled form"),
        ("activation", "the activation square has no compiled form"),
        ("loss", "the loss squared_distance has no compiled form"),
        ("optimizer", "the optimizer sign has no compiled form"),
    ],
)
def test_without_a_kernel_training_is_eager_and_names_the_reason(digits, kind, reason):
    first = {"layer": Scale(), "activation": Activation("square")}.get(kind, Flatten())
    loss = Loss("squared_distance" if kind == "loss" else "quadratic")
    model = network([first, Linear(10)], backend="numba", loss=loss)
    optimizer = SignDescent(lr=1e-3) if kind == "optimizer" else "sgd"
    trainer = ma.Trainer(model, optimizer, batch_size=32)
    assert trainer.compiled is None
    assert reason in trainer.not_compiled
    assert np.isfinite(trainer.fit(*digits, iterations=3).losses).all()
    assert model.predict_proba(digits[0]).shape == (64, 10)


def test_networks_optimizers_and_schedules_are_saved_by_name(digits, tmp_path):
    layers = [Scale(3.0), Linear(12), Activation("square"), Linear(10)]
    model = network(layers, loss=Loss("squared_distance"))
    optimizer, schedule = SignDescent(lr=1e-4), Halving()
    trainer = ma.Trainer(model, optimizer, schedule=schedule, batch_size=32)
    trainer.fit(*digits, iterations=2)
    ma.save_checkpoint(tmp_path / "checkpoint", trainer)
    loaded = ma.load_checkpoint(tmp_path / "checkpoint", backend="numpy")
    assert loaded.model.layers == model.layers
    assert loaded.model.loss == model.loss
    assert loaded.optimizer == optimizer
    assert loaded.schedule == schedule
    assert loaded.fit(*digits, iterations=2).losses == trainer.fit(*digits, iterations=2).losses


@pytest.mark.parametrize(
    ("table", "name", "cls"),
    [(LAYERS, "scale", Scale), (OPTIMIZERS, "sign", SignDescent), (SCHEDULES, "halving", Halving)],
)
def test_unregistered_class_cannot_be_saved(tmp_path, table, name, cls):
    del table[name]
    layers = [Scale(), Linear(10)] if cls is Scale else [Linear(10)]
    trainer = ma.Trainer(
        network(layers),
        SignDescent() if cls is SignDescent else "sgd",
        schedule=Halving() if cls is Halving else "constant",
    )
    message = f"{cls.__name__} cannot be saved; register .* decorator @mnist_accel.register"
    with pytest.raises(ValueError, match=message):
        ma.save_checkpoint(tmp_path / "checkpoint", trainer)
    assert not (tmp_path / "checkpoint").exists()


@pytest.mark.parametrize(("activation", "stages"), [("relu", 2), ("square", 3)])
def test_pooling_is_fused_only_after_increasing_activations(activation, stages):
    layers = [Conv2d(2, 3), Activation(activation), MaxPool2d(2), Flatten(), Linear(10)]
    model = network(layers, input_shape=(1, 28, 28))
    assert len(model.training_program(SignDescent()).stages) == stages


def test_unknown_names_are_rejected_with_the_known_ones():
    with pytest.raises(ValueError, match="unknown activation 'relo'; choose from relu"):
        Activation("relo")
    model = ma.create_model("two-layer", backend="numpy")
    description = network_to_dict(model) | {"layers": [{"kind": "elu"}]}
    with pytest.raises(ValueError, match=r"unknown layer 'elu'; .*known are linear.* relu"):
        network_from_dict(description, {}, backend=model.backend)
    with pytest.raises(ValueError, match="unknown loss 'hinge'; choose from softmax_cross_entropy"):
        Loss("hinge")
