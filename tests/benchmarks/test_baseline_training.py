"""Baselines train the same networks as this project, on all images."""

import importlib
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import reference as ref
from benchmarks.contenders.base import Contender, TrainingTask
from benchmarks.suite.checks import STEPS, first_batches
from mnist_accel.data import Dataset
from mnist_accel.diagnostics import compare as comparison
from mnist_accel.nn import SGD, Adam, UpdateRule
from mnist_accel.recipes.models import RECIPES
from mnist_accel.util.tolerance import relative_tolerance
from tests.support.baselines import BATCH_SIZES, QUICK, available, make_task
from tests.support.closeness import assert_close

Weights = dict[str, np.ndarray[Any, Any]]
Trajectory = tuple[Weights, list[float], Weights]  # first gradients, losses, last weights


def reference_recipe(network: str, ties: str) -> ref.Recipe:
    """Return the recipe in loops; with `ties="first"`, the first maximum receives the gradient."""
    recipe = ref.RECIPES[network]
    if ties == "recipe":
        return recipe
    layers = (
        ref.MaxPool2d("first") if isinstance(layer, ref.MaxPool2d) else layer
        for layer in recipe.convolutional
    )
    return replace(recipe, convolutional=tuple(layers))


@pytest.fixture(scope="module")
def reference_trajectory(mnist: Dataset) -> Any:
    """Return the trajectory of the float64 loops, computed once for all baselines."""

    @cache
    def trajectory(network: str, batch_size: int, ties: str) -> Trajectory:
        task = make_task(mnist, network, batch_size=batch_size)
        rows = first_batches(task)
        recipe = reference_recipe(network, ties)
        start = task.model.state_dict()
        _, gradients = ref.batch_loss_and_gradients(
            recipe,
            {name: weight.astype(np.float64) for name, weight in start.items()},
            task.images[rows[0]],
            task.labels[rows[0]],
        )
        order = rows.ravel()
        weights, losses = ref.train(
            recipe,
            start,
            task.images[order],
            task.labels[order],
            optimizer=RECIPES[network].optimizer,
            lr=task.optimizer.lr,
            steps=STEPS,
            batch_size=batch_size,
            weight_decay=task.optimizer.weight_decay,
        )
        return gradients, losses, weights

    return trajectory


def assert_agrees(baseline: Contender, task: TrainingTask, expected: Trajectory) -> None:
    """Compare the gradients of the first batch, and losses and weights of ten updates."""
    gradients, losses, weights = expected
    terms = comparison.longest_sum(task.model, task.batch_size)
    session = baseline.training(task)
    rows = first_batches(task)
    got = session.gradients(rows[0])
    assert got.keys() == gradients.keys()
    for name, gradient in gradients.items():
        assert_close(got[name], gradient, dtype="float32", terms=terms, label=f"gradient of {name}")
    made = session.updates(rows)
    for step, (loss, expected_loss) in enumerate(zip(made, losses, strict=True), start=1):
        bound = relative_tolerance("float32", terms=terms, steps=step)
        assert loss == pytest.approx(expected_loss, rel=bound), f"loss of update {step}"
    got = session.weights()
    assert got.keys() == weights.keys()
    for name, weight in weights.items():
        assert got[name].dtype == np.float32
        assert_close(got[name], weight, dtype="float32", terms=terms, steps=STEPS, label=name)


@pytest.mark.parametrize(
    ("name", "network"),
    [
        *(("torch-eager", network) for network in BATCH_SIZES),
        *(("jax", network) for network in ("two-layer", "backprop", "cnn")),
        # XLA compiles for seconds
        *(pytest.param("jax", name, marks=pytest.mark.slow) for name in ("three-layer", "lenet")),
        ("scikit-learn", "two-layer"),
    ],
)
def test_gradients_and_updates_agree_with_the_reference(
    mnist: Dataset, reference_trajectory: Any, name: str, network: str
) -> None:
    baseline, task = available(name), make_task(mnist, network)
    assert baseline.skip_reason(task) == ""
    expected = reference_trajectory(network, task.batch_size, baseline.ties)
    assert_agrees(baseline, task, expected)


def test_loops_agree_with_the_reference(mnist: Dataset, reference_trajectory: Any) -> None:
    baseline, task = available("loops"), make_task(mnist, "cnn", batch_size=1)
    assert baseline.skip_reason(task) == ""
    assert_agrees(baseline, task, reference_trajectory("cnn", 1, "recipe"))


@pytest.mark.gpu
@pytest.mark.parametrize("network", BATCH_SIZES)
def test_recorded_step_agrees_with_the_reference(
    mnist: Dataset, reference_trajectory: Any, network: str
) -> None:
    baseline, task = available("torch-cuda-graph"), make_task(mnist, network)
    assert_agrees(baseline, task, reference_trajectory(network, task.batch_size, "first"))


@pytest.mark.slow
def test_compiled_step_agrees_with_the_reference_and_is_compiled_once(
    mnist: Dataset, reference_trajectory: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    baseline = available("torch-compile")
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "first"))
    task = make_task(mnist, "backprop")
    assert len(task.images) % task.batch_size, "the last batch is smaller"
    assert_agrees(baseline, task, reference_trajectory("backprop", task.batch_size, "first"))
    dynamo = importlib.import_module("torch._dynamo")
    counted = dynamo.utils.counters["inductor"]
    counted.clear()
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "second"))
    session = baseline.training(task)
    assert session.compile_s > 0
    # A full batch and the last one; the folder of the first session is not used.
    assert (counted["fxgraph_cache_hit"], counted["fxgraph_cache_miss"]) == (0, 2)
    with dynamo.config.patch(error_on_recompile=True):
        session.run()
        session.reset()
        session.run()
    assert_every_image_used_once(baseline, mnist, "backprop", batch_size=4, lr=1e-2)


@pytest.mark.slow
@pytest.mark.parametrize("version", ["installed", "before 2.13"])
def test_more_functions_than_the_limit_of_pytorch_are_compiled(
    version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PyTorch compiles 8 variants of the same code, unless each of them is isolated."""
    torch = pytest.importorskip("torch")
    if version != "installed":
        newest = torch.compile

        def before_2_13(function: Any, *, fullgraph: bool, dynamic: bool, mode: str | None) -> Any:
            return newest(function, fullgraph=fullgraph, dynamic=dynamic, mode=mode)

        monkeypatch.setattr(torch, "compile", before_2_13)
        config = importlib.import_module("torch._dynamo.config")
        monkeypatch.setattr(config, "recompile_limit", config.recompile_limit)  # restored later
    compiled = importlib.import_module("benchmarks.contenders.torch_networks").compiled
    for length in range(2, 12):
        ones = torch.ones(length)
        assert float(compiled(lambda x, ones=ones: (x * ones).sum())(ones)) == length


def assert_every_image_used_once(
    baseline: Contender, mnist: Dataset, network: str, *, batch_size: int, lr: float = 1e-4
) -> None:
    """Check that the sum of many small steps equals one step along the mean gradient."""
    count = 5 * batch_size
    task = make_task(mnist, network, count=count, batch_size=batch_size, optimizer=SGD(lr=lr))
    session = baseline.training(task)
    gradients = session.gradients(np.arange(count))
    session.run()
    for name, start in task.model.state_dict().items():
        moved = (start - session.weights()[name]) / lr
        expected = 5 * gradients[name]
        assert np.abs(moved - expected).max() < 0.02 * np.abs(expected).max(), name


@pytest.mark.parametrize("name", QUICK)
def test_epoch_uses_each_image_once(mnist: Dataset, name: str) -> None:
    assert_every_image_used_once(available(name), mnist, QUICK[name], batch_size=4)


def test_epoch_of_the_loops_uses_each_image_once(mnist: Dataset) -> None:
    task = make_task(mnist, "cnn", count=5, batch_size=1)
    epoch, by_hand = (available("loops").training(task) for _ in range(2))
    epoch.run()
    for row in np.random.default_rng(task.seed).permutation(5):
        by_hand.updates(np.array([[row]]))
    for name, weight in by_hand.weights().items():
        np.testing.assert_array_equal(epoch.weights()[name], weight)
        assert not np.array_equal(task.model.state_dict()[name], weight)


@pytest.mark.parametrize("name", QUICK)
def test_full_batch_is_not_shuffled(mnist: Dataset, reference_trajectory: Any, name: str) -> None:
    """All contenders use a full batch in its stored order, so none does extra work."""
    baseline, network = available(name), QUICK[name]
    task = make_task(mnist, network, batch_size=64)
    assert task.is_full_batch
    assert_agrees(baseline, task, reference_trajectory(network, 64, baseline.ties))
    one, other = (baseline.training(replace(task, seed=seed)) for seed in (1, 2))
    for _ in range(3):
        one.run()
        other.run()
    for key, weight in one.weights().items():  # in another order, sums would round differently
        np.testing.assert_array_equal(other.weights()[key], weight)


@pytest.mark.parametrize("name", QUICK)
def test_epoch_ends_with_a_smaller_batch(mnist: Dataset, name: str) -> None:
    lr = 1e-4
    task = make_task(mnist, QUICK[name], batch_size=5, optimizer=SGD(lr=lr))
    alike = replace(task, images=task.images[[7] * 23], labels=task.labels[[7] * 23])
    session = available(name).training(alike)
    gradients = session.gradients(np.array([0]))
    session.run()
    for key, start in alike.model.state_dict().items():
        moved = (start - session.weights()[key]) / lr
        assert np.abs(moved - 5 * gradients[key]).max() < 0.05 * np.abs(gradients[key]).max(), key


@pytest.mark.parametrize(
    ("name", "optimizer"),
    [
        ("torch-eager", Adam(lr=0.01)),
        ("jax", Adam(lr=0.01)),
        ("scikit-learn", SGD(lr=0.1, momentum=0.9)),
    ],
)
def test_reset_restores_weights_and_optimizer(
    mnist: Dataset, name: str, optimizer: UpdateRule
) -> None:
    task = make_task(mnist, "two-layer", optimizer=optimizer)
    session = available(name).training(task)
    rows = np.tile(np.arange(task.batch_size), (3, 1))
    first = session.updates(rows)
    assert len(set(first)) == 3
    session.run()
    session.reset()
    for key, weight in task.model.state_dict().items():
        np.testing.assert_array_equal(session.weights()[key], weight)
    assert session.updates(rows) == pytest.approx(first, rel=1e-6)


@pytest.mark.parametrize(
    ("name", "optimizer"),
    [
        ("torch-eager", SGD(lr=0.05, momentum=0.9, weight_decay=0.1)),
        ("torch-eager", SGD(lr=0.05, momentum=0.9, nesterov=True)),
        ("jax", SGD(lr=0.05, momentum=0.9, nesterov=True, weight_decay=0.1)),
        ("scikit-learn", SGD(lr=0.05, momentum=0.9)),
        ("scikit-learn", SGD(lr=0.05, momentum=0.9, nesterov=True)),
    ],
)
def test_momentum_agrees_with_the_reference(mnist: Dataset, name: str, optimizer: SGD) -> None:
    task = make_task(mnist, "two-layer", batch_size=4, optimizer=optimizer)
    session = available(name).training(task)
    session.updates(first_batches(task))
    order = first_batches(task).ravel()
    weights, _ = ref.train(
        "two-layer",
        task.model.state_dict(),
        task.images[order],
        task.labels[order],
        optimizer="nesterov" if optimizer.nesterov else "momentum",
        lr=optimizer.lr,
        steps=STEPS,
        batch_size=4,
        momentum=optimizer.momentum,
        weight_decay=optimizer.weight_decay,
    )
    for key, weight in weights.items():
        assert_close(
            session.weights()[key], weight, dtype="float32", terms=784, steps=STEPS, label=key
        )


def test_jax_epoch_is_complete_when_it_returns(mnist: Dataset) -> None:
    session: Any = available("jax").training(make_task(mnist, "two-layer", count=5000))
    session.run()
    leaves = importlib.import_module("jax").tree.leaves(session._state)
    assert all(leaf.is_ready() for leaf in leaves)


@pytest.mark.parametrize(("name", "network"), QUICK.items())
def test_steps_and_epochs_from_arrays_train_on_the_images(
    mnist: Dataset, name: str, network: str
) -> None:
    """Steps and epochs that begin with the arrays lower the loss, as prepared epochs do."""
    task = make_task(mnist, network, count=70, optimizer=SGD(lr=0.1))
    session = available(name).training(task)
    first = session.updates(first_batches(task)[:1])[0]
    for _ in range(20):
        session.step()
    between = session.updates(first_batches(task)[:1])[0]
    for _ in range(5):
        session.run_from_arrays()
    last = session.updates(first_batches(task)[:1])[0]
    assert last < between < first
