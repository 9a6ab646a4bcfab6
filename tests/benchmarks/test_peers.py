"""The peers of the benchmarks do the same work as this project, and all of it."""

import importlib
import sys
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest

import reference as ref
from benchmarks.cases import OperationCase
from benchmarks.checks import STEPS, first_batches
from benchmarks.contenders.base import Contender, TrainingTask
from benchmarks.contenders.jax_peer import Jax
from benchmarks.contenders.loops import Loops
from benchmarks.contenders.sklearn_peer import Sklearn
from benchmarks.contenders.torch_peer import TorchCompile, TorchCudaGraph, TorchEager
from benchmarks.operation_inputs import expected_results, longest_sum, operation_task
from mnist_accel.data import Dataset
from mnist_accel.diagnostics import compare as comparison
from mnist_accel.nn import SGD, AdaGrad, Adam, UpdateRule, create_optimizer
from mnist_accel.recipes.models import RECIPES, create_model
from mnist_accel.util.tolerance import relative_tolerance
from tests.support.closeness import assert_close

Weights = dict[str, np.ndarray[Any, Any]]
Trajectory = tuple[Weights, list[float], Weights]  # first gradients, losses, last weights

PEERS: dict[str, Contender] = {
    peer.name: peer
    for peer in (TorchEager(), TorchCompile(), TorchCudaGraph(), Jax(), Sklearn(), Loops())
}
HIDDEN_SIZES = {"two-layer": (12,), "backprop": (10,), "three-layer": (8, 9)}
BATCH_SIZES = {"two-layer": 16, "backprop": 10, "three-layer": 16, "lenet": 4, "cnn": 4}
# The peers that run everywhere, and a network that each can train quickly.
QUICK = {"torch-eager": "two-layer", "jax": "two-layer", "scikit-learn": "two-layer"}


def available(name: str) -> Contender:
    peer = PEERS[name]
    availability = peer.availability()
    if not availability.ok:
        pytest.skip(f"{name} cannot run here: {availability.reason}; {availability.remedy}")
    return peer


def make_task(
    mnist: Dataset,
    network: str,
    *,
    count: int = 64,
    batch_size: int | None = None,
    optimizer: UpdateRule | None = None,
) -> TrainingTask:
    recipe = RECIPES[network]
    return TrainingTask(
        model=create_model(network, backend="numpy", hidden_sizes=HIDDEN_SIZES.get(network)),
        optimizer=optimizer
        or create_optimizer(
            recipe.optimizer, lr=recipe.lr, weight_decay=recipe.weight_decay or None
        ),
        batch_size=batch_size or BATCH_SIZES[network],
        images=mnist.x_train[:count].reshape(-1, 784),
        labels=mnist.t_train[:count].astype(np.int64),
        seed=1,
    )


def reference_recipe(network: str, ties: str) -> ref.Recipe:
    """The network in loops, with the gradient of a window given to its first maximum if wanted."""
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
    """What float64 loops lead to; they run once for all peers that keep the same rules."""

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


def assert_follows(peer: Contender, task: TrainingTask, expected: Trajectory) -> None:
    """Compare the gradients of the first batch, and losses and weights of ten updates."""
    gradients, losses, weights = expected
    terms = comparison.longest_sum(task.model, task.batch_size)
    session = peer.training(task)
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
def test_gradients_and_updates_follow_the_reference(
    mnist: Dataset, reference_trajectory: Any, name: str, network: str
) -> None:
    peer, task = available(name), make_task(mnist, network)
    assert peer.refusal(task) == ""
    expected = reference_trajectory(network, task.batch_size, peer.ties)
    assert_follows(peer, task, expected)


def test_loops_follow_the_reference(mnist: Dataset, reference_trajectory: Any) -> None:
    peer, task = available("loops"), make_task(mnist, "cnn", batch_size=1)
    assert peer.refusal(task) == ""
    assert_follows(peer, task, reference_trajectory("cnn", 1, "recipe"))


@pytest.mark.gpu
@pytest.mark.parametrize("network", BATCH_SIZES)
def test_a_recorded_step_follows_the_reference(
    mnist: Dataset, reference_trajectory: Any, network: str
) -> None:
    peer, task = available("torch-cuda-graph"), make_task(mnist, network)
    assert_follows(peer, task, reference_trajectory(network, task.batch_size, "first"))


@pytest.mark.slow
def test_a_compiled_step_follows_the_reference_and_is_not_compiled_again(
    mnist: Dataset, reference_trajectory: Any
) -> None:
    peer = available("torch-compile")
    task = make_task(mnist, "backprop")
    assert len(task.images) % task.batch_size, "the last batch is smaller"
    assert_follows(peer, task, reference_trajectory("backprop", task.batch_size, "first"))
    dynamo = importlib.import_module("torch._dynamo")
    counted = dynamo.utils.counters["inductor"]
    counted.clear()
    session = peer.training(task)
    assert session.compile_s > 0
    # Nor is it read from the disk, where earlier sessions may have left it.
    assert (counted["fxgraph_cache_hit"], counted["fxgraph_cache_miss"]) == (0, 2)
    with dynamo.config.patch(error_on_recompile=True):
        session.run()
        session.reset()
        session.run()
    assert_every_image_taken_once(peer, mnist, "backprop", batch_size=4, lr=1e-2)


def assert_every_image_taken_once(
    peer: Contender, mnist: Dataset, network: str, *, batch_size: int, lr: float = 1e-4
) -> None:
    """Steps so small that their order does not matter sum to one along the mean gradient."""
    count = 5 * batch_size
    task = make_task(mnist, network, count=count, batch_size=batch_size, optimizer=SGD(lr=lr))
    session = peer.training(task)
    gradients = session.gradients(np.arange(count))
    session.run()
    for name, start in task.model.state_dict().items():
        moved = (start - session.weights()[name]) / lr
        expected = 5 * gradients[name]
        assert np.abs(moved - expected).max() < 0.02 * np.abs(expected).max(), name


@pytest.mark.parametrize("name", QUICK)
def test_an_epoch_takes_every_image_once(mnist: Dataset, name: str) -> None:
    assert_every_image_taken_once(available(name), mnist, QUICK[name], batch_size=4)


def test_an_epoch_of_the_loops_takes_every_image_once(mnist: Dataset) -> None:
    task = make_task(mnist, "cnn", count=5, batch_size=1)
    epoch, by_hand = (available("loops").training(task) for _ in range(2))
    epoch.run()
    for row in np.random.default_rng(task.seed).permutation(5):
        by_hand.updates(np.array([[row]]))
    for name, weight in by_hand.weights().items():
        np.testing.assert_array_equal(epoch.weights()[name], weight)
        assert not np.array_equal(task.model.state_dict()[name], weight)


@pytest.mark.parametrize("name", QUICK)
def test_the_whole_set_is_taken_as_it_lies(
    mnist: Dataset, reference_trajectory: Any, name: str
) -> None:
    """Nobody shuffles and gathers what another takes as it is."""
    peer, network = available(name), QUICK[name]
    task = make_task(mnist, network, batch_size=64)
    assert task.takes_all
    assert_follows(peer, task, reference_trajectory(network, 64, peer.ties))
    one, other = (peer.training(replace(task, seed=seed)) for seed in (1, 2))
    for _ in range(3):
        one.run()
        other.run()
    for key, weight in one.weights().items():  # in another order, sums would round differently
        np.testing.assert_array_equal(other.weights()[key], weight)


@pytest.mark.parametrize("name", QUICK)
def test_an_epoch_ends_with_a_smaller_batch(mnist: Dataset, name: str) -> None:
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
def test_reset_forgets_weights_and_optimizer(
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
def test_momentum_follows_the_reference(mnist: Dataset, name: str, optimizer: SGD) -> None:
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


@pytest.mark.parametrize(
    ("name", "network"),
    [
        ("torch-eager", "cnn"),
        ("torch-eager", "backprop"),
        ("jax", "cnn"),
        ("jax", "backprop"),
        ("scikit-learn", "two-layer"),
        ("loops", "cnn"),
    ],
)
def test_predictions_are_those_of_the_network(mnist: Dataset, name: str, network: str) -> None:
    peer = available(name)
    task = make_task(mnist, network, count=6, batch_size=1)
    model = task.model
    images = np.float32(task.images / 255)
    images.flags.writeable = False
    probabilities = peer.inference(model)(images)
    assert_close(probabilities, model.predict_proba(images), dtype="float32", terms=1352)
    np.testing.assert_array_equal(
        peer.training(task).predict(task.images), model.predict(task.images)
    )


OPERATIONS = [
    OperationCase("linear", "forward", (30,), 5, (), (30, 7)),
    OperationCase("linear", "backward", (30,), 5, (), (30, 7)),
    OperationCase("softmax_cross_entropy", "forward", (10,), 5),
    OperationCase("sgd_update", "forward", (20,), 1, (("lr", 0.1),)),
    OperationCase(
        "adam_update",
        "forward",
        (20,),
        1,
        (("lr", 0.1), ("beta1", 0.9), ("beta2", 0.999), ("eps", 1e-8), ("step", 2)),
    ),
    *(
        case
        for direction in ("forward", "backward")
        for case in (
            OperationCase(
                "conv2d", direction, (2, 7, 7), 3, (("stride", 1), ("padding", 1)), (4, 2, 3, 3)
            ),
            OperationCase("max_pool2d", direction, (2, 7, 7), 3, (("size", 2),)),
            OperationCase(
                "conv2d_relu_max_pool2d",
                direction,
                (1, 8, 8),
                3,
                (("stride", 1), ("padding", 2), ("size", 2)),
                (2, 1, 5, 5),
            ),
        )
    ),
]


@pytest.mark.parametrize("case", OPERATIONS, ids=lambda case: case.name)
@pytest.mark.parametrize("name", ["torch-eager", "jax"])
def test_operations_follow_the_reference(name: str, case: OperationCase) -> None:
    task = operation_task(case)
    before = {key: array.copy() for key, array in task.inputs.items()}
    session = available(name).operation(task)
    assert session is not None
    session.run()
    session.run()  # what was run before must not show in the results
    results, expected = session.results(), expected_results(task)
    assert len(results) == len(expected)
    for number, (got, want) in enumerate(zip(results, expected, strict=True)):
        assert got.dtype == np.float32
        assert_close(
            got, want, dtype="float32", terms=max(longest_sum(task), 16), label=f"result {number}"
        )
    for key, array in task.inputs.items():
        np.testing.assert_array_equal(array, before[key])


def test_an_epoch_of_jax_is_over_when_it_returns(mnist: Dataset) -> None:
    session: Any = available("jax").training(make_task(mnist, "two-layer", count=5000))
    session.run()
    leaves = importlib.import_module("jax").tree.leaves(session._state)
    assert all(leaf.is_ready() for leaf in leaves)


def test_operations_of_jax_are_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    peer, jax = available("jax"), importlib.import_module("jax")
    session = peer.operation(operation_task(OPERATIONS[1]))
    assert session is not None
    waited_for: list[Any] = []
    monkeypatch.setattr(jax, "block_until_ready", waited_for.extend)
    session.run()
    assert [array.shape for array in waited_for] == [each.shape for each in session.results()]


@pytest.mark.parametrize("what", ["torch_training", "torch_operations"])
def test_pytorch_is_waited_for(mnist: Dataset, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    """Without a GPU there is nothing to wait for, so it is the call that is looked for."""
    peer = available("torch-eager")
    trained = peer.training(make_task(mnist, "two-layer"))
    session = trained if what == "torch_training" else peer.operation(operation_task(OPERATIONS[0]))
    assert session is not None
    calls: list[str] = []
    module = importlib.import_module(f"benchmarks.contenders.{what}")
    monkeypatch.setattr(module, "synchronize", lambda: calls.append(what))
    session.run()
    assert calls == [what]


def test_unknown_operations_are_not_offered() -> None:
    task = replace(operation_task(OPERATIONS[0]), name="dropout")
    assert available("scikit-learn").operation(task) is None
    assert available("loops").operation(task) is None
    for name in ("torch-eager", "jax"):
        if PEERS[name].availability().ok:
            assert PEERS[name].operation(task) is None


@pytest.mark.parametrize(
    ("name", "network", "changes", "reason"),
    [
        ("torch-compile", "two-layer", {"optimizer": AdaGrad()}, "not for AdaGrad"),
        ("torch-cuda-graph", "two-layer", {"optimizer": AdaGrad()}, "not for AdaGrad"),
        ("jax", "two-layer", {"optimizer": AdaGrad()}, "not for AdaGrad"),
        ("scikit-learn", "cnn", {}, "its layers are linear"),
        ("scikit-learn", "backprop", {"optimizer": SGD()}, "not quadratic"),
        ("scikit-learn", "backprop", {}, "weight decay leaves biases out"),
        ("scikit-learn", "three-layer", {}, "adds eps before the bias correction"),
        ("loops", "lenet", {}, "written for the network cnn, not for lenet"),
        ("loops", "cnn", {"batch_size": 10}, "one image at a time, not 10"),
        ("loops", "cnn", {"batch_size": 1, "optimizer": Adam()}, "plain steps of SGD"),
    ],
)
def test_what_a_peer_cannot_train_is_refused(
    mnist: Dataset, name: str, network: str, changes: dict[str, Any], reason: str
) -> None:
    assert reason in PEERS[name].refusal(make_task(mnist, network, **changes))


@pytest.mark.parametrize("name", ["scikit-learn", "loops"])
def test_predictions_of_another_network_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="cannot be lenet: its "):
        available(name).inference(create_model("lenet", backend="numpy"))


@pytest.mark.parametrize(
    ("library", "names"),
    [
        ("torch", ["torch-eager", "torch-compile", "torch-cuda-graph"]),
        ("jax", ["jax"]),
        ("sklearn", ["scikit-learn"]),
    ],
)
def test_a_missing_library_is_told(
    monkeypatch: pytest.MonkeyPatch, library: str, names: list[str]
) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    for name in names:
        availability = PEERS[name].availability()
        assert not availability.ok
        assert "does not work" in availability.reason
        assert availability.remedy.startswith("pip install")


def test_a_missing_compiler_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    available("torch-eager")
    monkeypatch.setenv("CXX", "no-such-compiler")
    availability = PEERS["torch-compile"].availability()
    assert not availability.ok
    assert "'no-such-compiler' is not there" in availability.reason


def test_a_missing_gpu_is_told() -> None:
    available("torch-eager")
    if importlib.import_module("torch").cuda.is_available():
        pytest.skip("there is a GPU")
    availability = PEERS["torch-cuda-graph"].availability()
    assert not availability.ok
    assert "need an NVIDIA GPU" in availability.reason


@pytest.mark.parametrize("name", [*QUICK, "loops"])
def test_versions_tell_the_threads(name: str) -> None:
    assert int(available(name).versions()["threads"]) >= 1
