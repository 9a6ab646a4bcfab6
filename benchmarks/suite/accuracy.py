"""Time to accuracy: trains a network until it reaches a validation accuracy."""

import time
from collections.abc import Callable

from msgspec import Struct

from benchmarks.contenders.base import Contender
from benchmarks.storage.schema import Check
from benchmarks.suite.cases import AccuracyCase
from benchmarks.suite.checks import check_long_training
from benchmarks.suite.preparer import NotComparableError, require_available
from benchmarks.suite.tasks import accuracy_task


class Trained(Struct, frozen=True, tag="trained"):
    """Seconds of training until the end of each epoch, and the validation accuracy after it."""

    seconds: tuple[float, ...]
    accuracy: tuple[float, ...]
    check: Check


def measure_accuracy(
    case: AccuracyCase,
    contender: Contender,
    *,
    seed: int,
    clock: Callable[[], float] = time.perf_counter,
) -> Trained:
    """Check the first updates, then train until the target or the last epoch is reached.

    Args:
        case: the network and its target.
        contender: trains the network.
        seed: seed of the weights and of the order of the images.
        clock: returns seconds.

    Raises:
        NotComparableError: the contender does not support the case or cannot run here.
        CheckError: the contender computes a wrong result.
    """
    require_available(contender)
    task, images, labels = accuracy_task(case, seed)
    if reason := contender.skip_reason(task):
        raise NotComparableError(reason)
    session = contender.training(task)
    check = check_long_training(session, task, contender.ties)
    session.run()  # compiles outside of the measured time; training rows have the compile time
    session.reset()
    seconds: list[float] = []
    accuracy: list[float] = []

    total = 0.0
    while len(accuracy) < case.max_epochs and max(accuracy, default=0.0) < case.target:
        started = clock()
        session.run()
        total += clock() - started
        seconds.append(total)
        accuracy.append(float((session.predict(images) == labels).mean()))
    return Trained(tuple(seconds), tuple(accuracy), check)
