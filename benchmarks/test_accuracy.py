"""Time to accuracy: how long until a network recognises what it was not trained on?

A tenth of the training set is held out; accuracy is measured on it after every epoch, and its time
does not count. The learning rate is the recipe's highest, and constant, for every contender.
"""

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.cases import AccuracyCase
from benchmarks.contenders.base import Contender
from benchmarks.laboratory import (
    Laboratory,
    NotComparableError,
    accuracy_task,
    require_available,
)
from benchmarks.record import Record


@pytest.mark.timeout(1200)
def test_accuracy(
    benchmark: BenchmarkFixture,
    laboratory: Laboratory,
    record: Record,
    case: AccuracyCase,
    contender: Contender,
    repetition: int,
) -> None:
    """Train until the target is met, or the epochs are over."""
    task, images, labels = accuracy_task(case, seed=repetition)
    try:
        require_available(contender)
        refusal = contender.refusal(task)
        if refusal:
            raise NotComparableError(refusal)
    except NotComparableError as reason:
        record.absent("accuracy", case.name, contender, str(reason))
        pytest.skip(str(reason))
    session = contender.training(task)
    session.run()  # compiles; its time is that of another row
    session.reset()
    seconds: list[float] = [0.0]
    accuracy: list[float] = []

    def train() -> None:
        while len(accuracy) < case.most_epochs and max(accuracy, default=0.0) < case.target:
            started = laboratory.clock()
            session.run()
            seconds.append(seconds[-1] + laboratory.clock() - started)
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
            "seed": repetition,
            "seconds": seconds,
            "accuracy": accuracy,
        }
    )
    benchmark.pedantic(train, rounds=1)  # type: ignore[no-untyped-call]
    del seconds[0]
