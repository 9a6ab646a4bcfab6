"""`compare` finds the first tensor that differs between backends."""

import dataclasses

import numpy as np
import pytest

from backends import registry
from backends.numpy.backend import NumpyBackend
from mnist_accel.commands import main
from mnist_accel.data import load_dataset
from mnist_accel.diagnostics.compare import compare_backends
from mnist_accel.nn import create_optimizer
from mnist_accel.recipes.models import RECIPES, create_model
from mnist_accel.training.evaluation import evaluate
from mnist_accel.training.trainer import Trainer


@pytest.fixture(scope="module")
def digits():
    return load_dataset("digits")


def broken(operation, damage):
    """Return a NumPy backend class in which `damage` changes the results of one operation."""

    def damaged(self, *args, **settings):
        result = getattr(NumpyBackend, operation)(self, *args, **settings)
        if not isinstance(result, tuple):
            return damage(result)
        return tuple(part if part is None or part.ndim == 0 else damage(part) for part in result)

    return type("Broken", (NumpyBackend,), {"name": "broken", operation: damaged})


@pytest.mark.parametrize(
    ("operation", "factor", "first"),
    [
        ("linear", 1.001, "output of layer 1 (linear)"),
        ("activation", np.nan, "output of layer 2 (relu)"),
        ("activation", np.inf, "output of layer 2 (relu)"),
        ("loss", 0.999, "gradient of W2"),
        ("linear_backward", np.nan, "gradient of W2"),
        ("activation_backward", 1.001, "gradient of W1"),
    ],
)
def test_first_tensor_that_differs_is_named(digits, operation, factor, first):
    with np.errstate(invalid="ignore"):  # 0 · ∞
        _, result = compare_backends(
            "two-layer",
            [NumpyBackend(), broken(operation, lambda array: array * np.float32(factor))()],
            digits,
            steps=3,
        )
    assert result.first_divergence == (1, first)
    assert {len(errors) for errors in result.errors.values()} == {3}


def test_later_difference_is_reported_with_its_step(digits):
    class WrongThirdUpdate(NumpyBackend):
        updates = 0

        def update(self, rule, weights, grads, state, *, lr, step):
            self.updates += 1
            lr *= 1.1 if self.updates == 3 else 1
            super().update(rule, weights, grads, state, lr=lr, step=step)

    _, result = compare_backends("two-layer", [NumpyBackend(), WrongThirdUpdate()], digits, steps=4)
    assert result.first_divergence == (3, "W1 after the update")


def test_every_tensor_of_an_update_is_compared(digits):
    small = dataclasses.replace(digits, x_test=digits.x_test[:20], t_test=digits.t_test[:20])
    _, result = compare_backends("cnn", [NumpyBackend(), NumpyBackend()], small, steps=2)
    layers = ["conv2d", "max_pool2d", "flatten", "linear"]
    assert list(result.errors) == [
        *(f"output of layer {number} ({kind})" for number, kind in enumerate(layers, start=1)),
        "loss",
        *(f"gradient of {key}" for key in ("W2", "b2", "W1")),
        *(f"{key} after the update" for key in ("W1", "W2", "b2")),
    ]
    assert all(errors == [0, 0] for errors in result.errors.values())
    assert result.first_divergence is None


@pytest.mark.parametrize("name", RECIPES)
def test_comparison_uses_images_batches_and_rates_of_the_recipe(digits, name):
    recipe, steps = RECIPES[name], 3
    trainer = Trainer(
        create_model(name, backend="numpy", seed=5),
        create_optimizer(recipe.optimizer, lr=recipe.lr, weight_decay=recipe.weight_decay),
        batch_size=recipe.batch_size or len(digits.t_train),
        seed=5,
        sampling=recipe.sampling,
        schedule=recipe.schedule,
    )
    train, test = recipe.limit_train or None, recipe.limit_test or None
    trainer.fit(digits.x_train[:train], digits.t_train[:train], iterations=steps)
    expected = evaluate(trainer.model, digits.x_test[:test], digits.t_test[:test])
    (result,) = compare_backends(name, [NumpyBackend()], digits, steps=steps, seed=5)
    assert (result.loss, result.accuracy) == (expected.loss, expected.accuracy)


def test_only_the_test_images_of_the_recipe_are_evaluated(digits):
    """The recipe `cnn` uses 1000."""
    many = dataclasses.replace(
        digits, x_test=np.tile(digits.x_test[:1], (1200, 1, 1)), t_test=np.zeros(1200, np.uint8)
    )
    many.x_test[1000:] = 255 - many.x_test[1000:]
    (result,) = compare_backends("cnn", [NumpyBackend()], many, steps=1)
    few = dataclasses.replace(many, x_test=many.x_test[:1000], t_test=many.t_test[:1000])
    (expected,) = compare_backends("cnn", [NumpyBackend()], few, steps=1)
    assert result.loss == expected.loss


def test_nan_fails_the_comparison(capsys, monkeypatch):
    nan = broken("activation", lambda array: array * np.float32(np.nan))
    monkeypatch.setitem(registry._registered, nan.name, nan)
    arguments = ["compare", "--dataset", "digits", "--iterations", "2"]
    assert main([*arguments, "--backends", "numpy,broken"]) == 6
    out, err = capsys.readouterr()
    assert "DIFFERS: first at step 1: output of layer 2 (relu)" in out
    assert err == ""
