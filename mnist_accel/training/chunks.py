"""Running a chunk of steps, completely or not at all.

Nothing is checked inside a step, because that would take time. After a chunk the losses and the
weights are checked. If they are not finite, the chunk is repeated eagerly from its start, and
every tensor is checked.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from backends import Array, Backend, CompiledEpoch, NotCompiledError, Steps, UpdateRule
from mnist_accel.errors import DivergedError
from mnist_accel.nn.network import Network, Observer
from mnist_accel.training.data import TrainingData
from mnist_accel.training.eager import EagerSteps

NOT_WANTED = "compiled=False"  # the reason if the user wants eager steps


class ChunkRunner:
    """Runs chunks of steps, compiled in one call or eagerly.

    Args:
        model: the network; its weights change.
        optimizer: the optimizer.
        seed: seed of dropout.
        compiled: whether to compile the steps if possible.

    Attributes:
        state: the arrays of the optimizer, by name.
        compiled: the compiled steps; None if they run eagerly.
        not_compiled: why they run eagerly; empty if they do not.
    """

    def __init__(self, model: Network, optimizer: UpdateRule, *, seed: int, compiled: bool) -> None:
        self._model = model
        self._optimizer = optimizer
        self._eager = EagerSteps(model, optimizer, seed=seed)
        self.state: dict[str, Array] = {
            name: model.backend.zeros(model.parameters.flat.shape, dtype=model.dtype)
            for name in optimizer.state_names
        }
        self.compiled: CompiledEpoch | None = None
        self.not_compiled = "" if compiled else NOT_WANTED
        if compiled:
            try:
                program = model.training_program(optimizer)
                self.compiled = model.backend.compile_epoch(program)
            except NotCompiledError as reason:
                self.not_compiled = str(reason)

    def run(
        self,
        data: TrainingData,
        steps: Steps,
        *,
        eagerly: bool = False,
        observe: Observer | None = None,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Run a chunk of steps.

        After an error, such as Ctrl-C or lack of memory, weights and state are those before it.

        Args:
            data: the data set.
            steps: the chunk.
            eagerly: whether to run eagerly even if the steps are compiled.
            observe: called with the name and the value of each tensor of eager steps.
            should_stop: called between eager steps; True ends the chunk early.

        Returns:
            Mean loss and number of correct images of each completed step, both (steps,).

        Raises:
            DivergedError: a loss or a weight is not finite.
        """
        backend, weights = self._model.backend, self._model.parameters.flat
        compiled = None if eagerly else self.compiled
        with backend.computation(self._model.kinds):
            saved = self._copies()
            try:
                if compiled is None:
                    losses, correct = self._eager.run(
                        data, steps, self.state, observe=observe, should_stop=should_stop
                    )
                else:
                    loaded = data.for_epoch(compiled)
                    losses, correct = compiled.run(loaded, steps, weights, self.state)
                if not (np.isfinite(losses).all() and is_finite(backend, weights)):
                    self._restore(saved)
                    raise self._find_divergence(data, steps)
            except BaseException:
                self._restore(saved)
                raise
        return losses, correct

    def _find_divergence(self, data: TrainingData, steps: Steps) -> DivergedError:
        """Repeat a chunk and return the error that names the first tensor that is not finite.

        Weights and state must be those before the chunk; they change.
        """
        # Eager steps round differently, so the repeated chunk may stay finite.
        step, tensor = steps.before + len(steps.bounds), "loss"
        found: list[str] = []

        def check(name: str, array: Array) -> None:
            if not is_finite(self._model.backend, array):
                found.append(name)

        for number in range(len(steps.bounds)):
            single = replace(
                steps,
                bounds=steps.bounds[number : number + 1],
                rates=steps.rates[number : number + 1],
                before=steps.before + number,
            )
            self._eager.run(data, single, self.state, observe=check)
            if found:
                step, tensor = single.before + 1, found[0]
                break
        return DivergedError(
            f"training diverged at step {step}: the first value that is not finite is in the "
            f"{tensor}; try a learning rate below {self._optimizer.lr:g}",
            step=step,
            tensor=tensor,
        )

    def _copies(self) -> list[Array]:
        xp = self._model.backend.xp
        return [xp.asarray(array, copy=True) for array in self._changing()]

    def _restore(self, copies: list[Array]) -> None:
        for array, copy in zip(self._changing(), copies, strict=True):
            array[...] = copy

    def _changing(self) -> list[Array]:
        """Return all arrays that a step changes."""
        return [self._model.parameters.flat, *self.state.values()]


def is_finite(backend: Backend, tensor: Array) -> bool:
    """Return whether all elements are finite."""
    return bool(backend.xp.all(backend.xp.isfinite(tensor)))
