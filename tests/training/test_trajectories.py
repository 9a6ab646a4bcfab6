"""Training on every backend follows the float64 reference, step by step."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache, partial
from typing import Any

import numpy as np
import pytest

import reference as ref
from backends import Backend, get_backend
from backends.numpy.blas_threads import BLAS_THREADS
from mnist_accel.data import Dataset
from mnist_accel.diagnostics.compare import compare_backends
from mnist_accel.nn import (
    OPTIMIZERS,
    Network,
    SoftmaxCrossEntropy,
    create_optimizer,
    schedules,
)
from mnist_accel.nn.inputs import Pixels
from mnist_accel.recipes.models import RECIPES, create_model, recipe_layers
from mnist_accel.training.trainer import Trainer
from mnist_accel.util.tolerance import relative_tolerance
from tests.support.closeness import assert_close

STEPS = 10
# The reference is slow, so recipes with convolutions get few images.
BATCH_SIZES = {
    "fcnn": 16,
    "two-layer": 16,
    "backprop": 10,
    "cnn": 4,
    "three-layer": 16,
    "lenet": 2,
    "fast99": 2,
}
REFERENCE_SCHEDULES: dict[str, ref.Schedule] = {
    "constant": ref.constant_lr,
    "cosine": ref.cosine_lr,
    "one-cycle": ref.one_cycle_lr,
}
PLAIN = {"sgd", "momentum", "nesterov"}  # without a division
SCHEDULES: dict[str, tuple[schedules.Schedule, ref.Schedule]] = {
    "constant": (schedules.Schedule(), ref.constant_lr),
    "step": (schedules.StepSchedule(every=4, gamma=0.5), partial(ref.step_lr, every=4, gamma=0.5)),
    "cosine": (schedules.CosineSchedule(), ref.cosine_lr),
    "one-cycle": (schedules.OneCycleSchedule(), ref.one_cycle_lr),
}
Weights = dict[str, np.ndarray[Any, Any]]
Trajectory = tuple[Weights, list[float]]  # weights after the last step, loss of each step

both_dtypes = pytest.mark.parametrize("dtype", ["float32", "float64"])


def test_every_recipe_optimizer_and_schedule_is_tested() -> None:
    assert set(BATCH_SIZES) == set(RECIPES)
    assert set(OPTIMIZERS) == set(ref.OPTIMIZERS)
    assert set(SCHEDULES) == set(schedules.SCHEDULES)


@pytest.fixture(autouse=True)
def one_blas_thread() -> Iterator[None]:
    """Limit BLAS to one thread, because the batches are too small for more."""
    with BLAS_THREADS.limit(1):
        yield


@cache
def initial_weights(name: str) -> Weights:
    """Return the initial weights of the trajectories of a recipe, exact in float32."""
    model = create_model(name, backend=get_backend("numpy"), seed=3, dtype="float32")
    return model.state_dict()


@pytest.fixture(scope="session")
def reference_trajectory(mnist: Dataset) -> Callable[[str], Trajectory]:
    """Return ten updates of a recipe by the reference; computed once for all backends."""

    @cache
    def trajectory(name: str) -> Trajectory:
        recipe = RECIPES[name]
        return ref.train(
            name,
            initial_weights(name),
            mnist.x_train,
            mnist.t_train,
            optimizer=recipe.optimizer,
            lr=recipe.lr,
            steps=STEPS,
            batch_size=BATCH_SIZES[name],
            schedule=REFERENCE_SCHEDULES[recipe.schedule],
            weight_decay=recipe.weight_decay,
        )

    return trajectory


def train(trainer: Trainer, data: Dataset, *, steps: int, batch_size: int) -> Trajectory:
    """Return updates on consecutive batches, as `reference.train` does."""
    losses = []
    for step in range(steps):
        rows = slice(step * batch_size, (step + 1) * batch_size)
        losses.append(trainer.train_batch(data.x_train[rows], data.t_train[rows]))
    return trainer.model.state_dict(), losses


def assert_same_trajectory(
    got: Trajectory,
    expected: Trajectory,
    *,
    start: Weights,
    dtype: str,
    terms: int,
) -> None:
    """Compare the loss of every step and the weights after the last."""
    weights, losses = got
    expected_weights, expected_losses = expected
    for step, (loss, want) in enumerate(zip(losses, expected_losses, strict=True), start=1):
        assert loss == pytest.approx(
            want, rel=relative_tolerance(dtype, terms=terms, steps=step)
        ), f"loss of step {step}"
    assert weights.keys() == expected_weights.keys()
    for key, want_weight in expected_weights.items():
        assert not np.array_equal(weights[key], start[key]), f"{key} was not trained"
        assert_close(
            weights[key], want_weight, dtype=dtype, terms=terms, steps=len(losses), label=key
        )


@both_dtypes
@pytest.mark.parametrize("name", BATCH_SIZES)
def test_ten_updates_of_a_recipe_agree_with_the_reference(
    backend: Backend,
    mnist: Dataset,
    reference_trajectory: Callable[[str], Trajectory],
    name: str,
    dtype: str,
) -> None:
    recipe, batch_size = RECIPES[name], BATCH_SIZES[name]
    model = create_model(name, backend=backend, dtype=dtype)
    model.load_state_dict(initial_weights(name))
    trainer = Trainer(
        model,
        create_optimizer(recipe.optimizer, lr=recipe.lr, weight_decay=recipe.weight_decay),
        batch_size=batch_size,
        schedule=recipe.schedule,
        total_steps=STEPS,
    )
    assert_same_trajectory(
        train(trainer, mnist, steps=STEPS, batch_size=batch_size),
        reference_trajectory(name),
        start=initial_weights(name),
        dtype=dtype,
        terms=784 * (batch_size if "conv2d" in model.kinds else 1),
    )


@pytest.mark.parametrize("name", BATCH_SIZES)
def test_every_tensor_of_ten_updates_agrees_with_numpy(
    backend: Backend, mnist: Dataset, name: str
) -> None:
    if backend.name == "numpy":
        pytest.skip("numpy is what the others are compared with")
    batch_size = {"two-layer": 512, "lenet": 5, "fast99": 5}.get(name, 17)
    data = replace(mnist, x_test=mnist.x_test[:100], t_test=mnist.t_test[:100])
    _, other = compare_backends(
        name,
        [get_backend("numpy"), backend],
        data,
        steps=STEPS,
        batch_size=batch_size,
        compiled=False,
    )
    assert other.not_compiled
    assert len(other.tolerances) == STEPS
    assert other.errors
    assert other.first_divergence is None


def assert_follows_reference(
    trainer: Trainer, mnist: Dataset, *, steps: int, **settings: Any
) -> None:
    """Train `two-layer` in float64, and compare with `reference.train` with these settings."""
    start = trainer.model.state_dict()
    sizes = {"steps": steps, "batch_size": 4}
    got = train(trainer, mnist, **sizes)
    want = ref.train("two-layer", start, mnist.x_train, mnist.t_train, **sizes, **settings)
    assert_same_trajectory(got, want, start=start, dtype="float64", terms=784)


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizers_follow_the_reference(
    backend: Backend, mnist: Dataset, name: str, weight_decay: float
) -> None:
    settings = {"lr": 0.01, "weight_decay": weight_decay}
    if name not in PLAIN:
        # With the default 1e-8, rounding of a gradient near 0 changes its step.
        settings["eps"] = 0.01
    model = create_model("two-layer", backend=backend, hidden_sizes=(6,), dtype="float64")
    trainer = Trainer(model, OPTIMIZERS[name](**settings))
    assert_follows_reference(trainer, mnist, steps=6, optimizer=name, **settings)


@pytest.mark.parametrize("name", ["sgd", "adam"])
def test_l2_penalties_follow_the_reference(backend: Backend, mnist: Dataset, name: str) -> None:
    layers = recipe_layers("two-layer", hidden_sizes=(6,), activation=None)
    model = Network(
        layers, SoftmaxCrossEntropy(l2=0.7), input=Pixels((784,)), backend=backend, dtype="float64"
    )
    settings = {"lr": 0.01} if name == "sgd" else {"lr": 0.01, "eps": 0.01}
    trainer = Trainer(model, OPTIMIZERS[name](**settings))
    assert_follows_reference(trainer, mnist, steps=6, optimizer=name, l2=0.7, **settings)


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules_follow_the_reference(mnist: Dataset, name: str) -> None:
    schedule, reference_schedule = SCHEDULES[name]
    model = create_model("two-layer", backend="numpy", hidden_sizes=(6,), dtype="float64")
    trainer = Trainer(model, "sgd", lr=0.1, schedule=schedule, total_steps=10)
    assert_follows_reference(
        trainer, mnist, steps=10, optimizer="sgd", lr=0.1, schedule=reference_schedule
    )


@pytest.mark.parametrize("total", [2, 3, 10, 997])
@pytest.mark.parametrize("name", SCHEDULES)
def test_learning_rate_of_every_step(name: str, total: int) -> None:
    schedule, reference_schedule = SCHEDULES[name]
    got = [0.02 * schedule.factor(step, total) for step in range(total)]
    want = [reference_schedule(step, total, 0.02) for step in range(total)]
    np.testing.assert_allclose(got, want, rtol=1e-12)


@pytest.mark.parametrize("warmup", [0.0, 0.3, 0.9, 0.99])
@pytest.mark.parametrize("total", [1, 2, 10])
def test_one_cycle_stays_between_its_ends(warmup: float, total: int) -> None:
    schedule = schedules.OneCycleSchedule(warmup=warmup)
    factors = [schedule.factor(step, total) for step in range(total + 3)]  # past the end
    assert all(1 / 250_000 <= factor <= 1 for factor in factors)


def test_one_cycle_rejects_a_warmup_of_the_whole_training() -> None:
    with pytest.raises(ValueError, match=r"warmup must be at least 0 and less than 1, got 1\.0"):
        schedules.OneCycleSchedule(warmup=1.0)
