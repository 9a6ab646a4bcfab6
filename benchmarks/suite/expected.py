"""The results with which contenders are compared, as files that all workers read.

The coordinator of a run computes each result once, while no contender is timed.
"""

from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from benchmarks.suite.cases import (
    EstimatorCase,
    InferenceCase,
    OperationCase,
    PopulationCase,
    StartCase,
    TimedCase,
)
from benchmarks.suite.checks import Trajectory, reference_probabilities, reference_trajectory
from benchmarks.suite.fits import reference_updates
from benchmarks.suite.members import expected_members
from benchmarks.suite.operation_tasks import expected_results, operation_task
from benchmarks.suite.tasks import scaled_images, training_task

Ties = Literal["first", "recipe"]


def expected_file(case: TimedCase | StartCase, ties: Ties, folder: Path) -> Path:
    """Return the file with the results of a case; only the first call computes them.

    Args:
        case: what is computed.
        ties: the contender's rule for equal maxima in pooling.
        folder: where the file is.
    """
    name = sha256(repr((case, ties)).encode()).hexdigest()[:16]
    path = folder / f"{name}.npz"
    if not path.exists():
        np.savez(path, allow_pickle=False, **_arrays(case, ties))
    return path


def _arrays(case: TimedCase | StartCase, ties: Ties) -> Mapping[str, NDArray[Any]]:
    if isinstance(case, OperationCase):
        results = expected_results(operation_task(case))
        return {str(number): result for number, result in enumerate(results)}
    if isinstance(case, InferenceCase):
        return {"0": reference_probabilities(case.model(), scaled_images(case.batch))}
    if isinstance(case, PopulationCase):
        return expected_members(case, ties)
    if isinstance(case, EstimatorCase):
        computed = reference_updates(case)
    else:
        training = case.training() if isinstance(case, StartCase) else case
        computed = reference_trajectory(training_task(training, training.steps), ties)
    return {
        "losses": np.array(computed.losses),
        **{f"gradient {name}": array for name, array in computed.gradients.items()},
        **{f"weight {name}": array for name, array in computed.weights.items()},
    }


def read_results(path: str) -> list[NDArray[Any]]:
    """Return the results of an operation, or the probabilities, from a file."""
    with np.load(path) as file:
        return [file[name] for name in file.files]


def read_trajectory(path: str) -> Trajectory:
    """Return the trajectory of a training from a file."""
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files}

    def named(prefix: str) -> dict[str, NDArray[Any]]:
        return {
            name.removeprefix(prefix): array
            for name, array in arrays.items()
            if name.startswith(prefix)
        }

    losses = tuple(float(loss) for loss in arrays["losses"])
    return Trajectory(named("gradient "), losses, named("weight "))
