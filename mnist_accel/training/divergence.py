"""Finding the first value that is not finite.

Nothing is checked inside a step, so a healthy training pays nothing. After a chunk of steps the
losses and the weights are checked. If they are not finite, the chunk is repeated eagerly from its
start, and every tensor is checked.
"""

from collections.abc import Mapping
from dataclasses import replace

from backends import Array, Backend, Steps
from mnist_accel.errors import DivergedError
from mnist_accel.training.data import TrainingData
from mnist_accel.training.eager import EagerSteps


def is_finite(backend: Backend, tensor: Array) -> bool:
    """Return whether all elements are finite."""
    return bool(backend.xp.all(backend.xp.isfinite(tensor)))


def find_divergence(
    eager: EagerSteps, data: TrainingData, steps: Steps, state: Mapping[str, Array], *, lr: float
) -> DivergedError:
    """Repeat a chunk and return the error that names the first tensor that is not finite.

    Args:
        eager: computes the steps; weights and `state` must be those before the chunk.
        data: the data set.
        steps: the chunk.
        state: the arrays of the optimizer, by name; changed in place.
        lr: learning rate of the optimizer, for the message.
    """
    for number in range(len(steps.bounds)):
        found: list[str] = []

        def check(name: str, tensor: Array, found: list[str] = found) -> None:
            if not is_finite(data.model.backend, tensor):
                found.append(name)

        single = replace(
            steps,
            bounds=steps.bounds[number : number + 1],
            rates=steps.rates[number : number + 1],
            before=steps.before + number,
        )
        eager.run(data, single, state, observe=check)
        if found:
            return _diverged(single.before + 1, found[0], lr)
    # Eager steps round differently, so the repeated chunk may stay finite.
    return _diverged(steps.before + len(steps.bounds), "loss", lr)


def _diverged(step: int, tensor: str, lr: float) -> DivergedError:
    return DivergedError(
        f"training diverged at step {step}: the first value that is not finite is in the {tensor}; "
        f"try a learning rate below {lr:g}",
        step=step,
        tensor=tensor,
    )
