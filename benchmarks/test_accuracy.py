"""Time to accuracy: how long until a network recognises what it was not trained on?

A tenth of the training set is held out; accuracy is measured on it after every epoch, and its time
does not count. The learning rate is constant, and the same for every contender.
"""

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.cases import AccuracyCase
from benchmarks.conftest import Excuse
from benchmarks.contenders.base import Contender
from benchmarks.laboratory import (
    Laboratory,
    NotComparableError,
    accuracy_task,
    require_available,
)


@pytest.mark.timeout(1200)
def test_accuracy(
    benchmark: BenchmarkFixture,
    laboratory: Laboratory,
    excuse: Excuse,
    case: AccuracyCase,
    contender: Contender,
    repetition: int,
) -> None:
    """Check ten updates, then train until the target is met, or the epochs are over."""
    with excuse("accuracy", case.name, contender.name):
        train(benchmark, laboratory, case, contender, seed=repetition)


def train(
    benchmark: BenchmarkFixture,
    laboratory: Laboratory,
    case: AccuracyCase,
    contender: Contender,
    *,
    seed: int,
) -> None:
    """Measure a training.

    Raises:
        NotComparableError: the contender cannot do it here.
        CheckError: it does not compute what it should.
    """
    require_available(contender)
    task, images, labels = accuracy_task(case, seed)
    refusal = contender.refusal(task)
    if refusal:
        raise NotComparableError(refusal)
    session = contender.training(task)
    check = laboratory.check(session, task, contender)
    session.run()  # compiles; its time is that of another row
    session.reset()
    seconds: list[float] = []
    accuracy: list[float] = []

    def epochs() -> None:
        total = 0.0
        while len(accuracy) < case.most_epochs and max(accuracy, default=0.0) < case.target:
            started = laboratory.clock()
            session.run()
            total += laboratory.clock() - started
            seconds.append(total)
            accuracy.append(float((session.predict(images) == labels).mean()))

    benchmark.group = f"accuracy: {case.name}"
    benchmark.extra_info.update(
        {
            "level": "accuracy",
            "case": case.name,
            "network": case.network,
            "contender": contender.name,
            "is_peer": contender.is_peer,
            "batch": case.batch,
            "seed": seed,
            "target": case.target,
            "check": vars(check),
            "seconds": seconds,
            "accuracy": accuracy,
        }
    )
    benchmark.pedantic(epochs, rounds=1)  # type: ignore[no-untyped-call]
