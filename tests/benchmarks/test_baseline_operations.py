"""Operations and predictions of baselines agree with the reference."""

import importlib
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from benchmarks.suite.cases import OperationCase
from benchmarks.suite.operation_tasks import expected_results, longest_sum, operation_task
from mnist_accel.data import Dataset
from tests.support.baselines import BASELINES, available, make_task
from tests.support.closeness import assert_close


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
def test_predictions_agree_with_the_network(mnist: Dataset, name: str, network: str) -> None:
    baseline = available(name)
    task = make_task(mnist, network, count=6, batch_size=1)
    model = task.model
    images = np.float32(task.images / 255)
    images.flags.writeable = False
    probabilities = baseline.inference(model)(images)
    assert_close(probabilities, model.predict_proba(images), dtype="float32", terms=1352)
    np.testing.assert_array_equal(
        baseline.training(task).predict(task.images), model.predict(task.images)
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
def test_operations_agree_with_the_reference(name: str, case: OperationCase) -> None:
    task = operation_task(case)
    before = {key: array.copy() for key, array in task.inputs.items()}
    session = available(name).operation(task)
    assert session is not None
    session.run()
    session.run()  # earlier runs must not affect the results
    results, expected = session.results(), expected_results(task)
    assert len(results) == len(expected)
    for number, (got, want) in enumerate(zip(results, expected, strict=True)):
        assert got.dtype == np.float32
        assert_close(
            got, want, dtype="float32", terms=max(longest_sum(task), 16), label=f"result {number}"
        )
    for key, array in task.inputs.items():
        np.testing.assert_array_equal(array, before[key])


def test_jax_operation_waits_for_its_results(monkeypatch: pytest.MonkeyPatch) -> None:
    baseline, jax = available("jax"), importlib.import_module("jax")
    session = baseline.operation(operation_task(OPERATIONS[1]))
    assert session is not None
    waited_for: list[Any] = []
    monkeypatch.setattr(jax, "block_until_ready", waited_for.extend)
    session.run()
    assert [array.shape for array in waited_for] == [each.shape for each in session.results()]


@pytest.mark.parametrize("what", ["torch_training", "torch_operations"])
def test_pytorch_synchronizes(mnist: Dataset, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    """Without a GPU there is nothing to wait for, so the test looks for the call."""
    baseline = available("torch-eager")
    trained = baseline.training(make_task(mnist, "two-layer"))
    session = (
        trained if what == "torch_training" else baseline.operation(operation_task(OPERATIONS[0]))
    )
    assert session is not None
    calls: list[str] = []
    module = importlib.import_module(f"benchmarks.contenders.{what}")
    monkeypatch.setattr(module, "synchronize", lambda: calls.append(what))
    session.run()
    assert calls == [what]


def test_unknown_operation_is_not_offered() -> None:
    task = replace(operation_task(OPERATIONS[0]), name="dropout")
    assert available("scikit-learn").operation(task) is None
    assert available("loops").operation(task) is None
    for name in ("torch-eager", "jax"):
        if BASELINES[name].availability().ok:
            assert BASELINES[name].operation(task) is None
