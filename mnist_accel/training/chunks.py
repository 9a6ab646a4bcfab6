"""Running a chunk of steps, completely or not at all.

Nothing is checked inside a step, because that would take time. After a chunk the losses and the
weights are checked. If they are not finite, the chunk is repeated eagerly from its start, and
every tensor is checked.
"""

import logging
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from backends import (
    Array,
    Backend,
    ChunkResults,
    CompiledEpoch,
    MemberSteps,
    NotCompiledError,
    Steps,
    UpdateRule,
)
from mnist_accel.errors import DivergedError
from mnist_accel.nn.network import Network, Observer
from mnist_accel.training.data import TrainingData
from mnist_accel.training.eager import EagerSteps

NOT_WANTED = "compiled=False"  # the reason if the user wants eager steps
_NO_OPERATIONS: frozenset[str] = frozenset()


class ChunkRunner:
    """Runs chunks of steps, compiled in one call or eagerly.

    Args:
        model: the network; its weights change.
        optimizer: the optimizer.
        seed: seed of dropout.
        compiled: whether to compile the steps if possible.

    Attributes:
        model: the network.
        state: the arrays of the optimizer, by name.
        compiled: the compiled steps; None if they run eagerly.
        not_compiled: why they run eagerly; empty if they do not.
    """

    def __init__(self, model: Network, optimizer: UpdateRule, *, seed: int, compiled: bool) -> None:
        self.model = model
        self._optimizer = optimizer
        self._eager = EagerSteps(model, optimizer, seed=seed)
        self.state: dict[str, Array] = {
            name: model.backend.zeros(model.parameters.flat.shape, dtype=model.dtype)
            for name in optimizer.state_names
        }
        self._saved: list[Array] = []
        self._saved_at: int | None = None  # number of steps before the copies were made
        self._has_told_of_weights = False
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
    ) -> ChunkResults:
        """Run a chunk of steps. After an error, such as Ctrl-C or lack of memory, call `undo`.

        Args:
            data: the data set.
            steps: the chunk.
            eagerly: whether to run eagerly even if the steps are compiled.
            observe: called with the name and the value of each tensor of eager steps.
            should_stop: called between eager steps; True ends the chunk early.

        Returns:
            The results of each completed step.

        Raises:
            DivergedError: a loss or a weight is not finite.
        """
        compiled = None if eagerly or not self._takes(data) else self.compiled
        kinds = self.model.kinds if compiled is None else _NO_OPERATIONS
        with self.model.backend.computation(kinds):
            self.save(steps.before)
            if compiled is None:
                results = self._run_eagerly(data, steps, observe, should_stop)
            else:
                loaded, weights = data.for_epoch(compiled), self.model.parameters.flat
                results = compiled.run(loaded, steps, weights, self.state)
        if results.is_finite:
            return results
        raise self.diverged(data, steps)

    def undo(self, step: int) -> None:
        """Restore weights and state from before the last chunk, unless its steps are counted.

        Args:
            step: number of steps that the training has counted.
        """
        if self._saved_at == step:
            with self.model.backend.computation(self.model.kinds):
                self.restore()
            self._saved_at = None

    def diverged(self, data: TrainingData, steps: Steps) -> DivergedError:
        """Restore weights and state from before a chunk, and return the error of this chunk."""
        with self.model.backend.computation(self.model.kinds):
            try:
                self.restore()
                return self._find_divergence(data, steps)
            finally:
                self.restore()

    def _takes(self, data: TrainingData) -> bool:
        """Return whether the compiled steps, if any, can train on a data set."""
        compiled = self.compiled
        if compiled is None or compiled.takes_weights or not data.is_weighted:
            return True
        if not self._has_told_of_weights:
            self._has_told_of_weights = True
            logging.getLogger("mnist_accel").warning(
                "sample weights have no compiled form on %s; steps run eagerly",
                self.model.backend.name,
            )
        return False

    def _run_eagerly(
        self,
        data: TrainingData,
        steps: Steps,
        observe: Observer | None,
        should_stop: Callable[[], bool],
    ) -> ChunkResults:
        """Run a chunk eagerly; arguments as `run`."""
        losses, correct = self._eager.run(
            data, steps, self.state, observe=observe, should_stop=should_stop
        )
        weights = self.model.parameters.flat
        finite = np.isfinite(losses).all() and is_finite(self.model.backend, weights)
        return ChunkResults(losses, correct, bool(finite))

    def _find_divergence(self, data: TrainingData, steps: Steps) -> DivergedError:
        """Repeat a chunk and return the error that names the first tensor that is not finite.

        Weights and state must be those before the chunk; they change.
        """
        # Eager steps round differently, so the repeated chunk may stay finite.
        step, tensor = steps.before + len(steps.bounds), "loss"
        found: list[str] = []

        def check(name: str, array: Array) -> None:
            if not is_finite(self.model.backend, array):
                found.append(name)

        for number in range(len(steps.bounds)):
            single = steps.select(number, number + 1)
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

    def save(self, step: int) -> None:
        """Copy all arrays that a step changes, after `step` steps of the training."""
        self._saved_at = None  # until the copies are complete
        arrays = self._changing()
        if not self._saved:
            self._saved = list(map(self.model.backend.xp.empty_like, arrays))
        for array, copy in zip(arrays, self._saved, strict=True):
            copy[...] = array
        self._saved_at = step

    def restore(self) -> None:
        """Copy back the arrays of the last call of `save`."""
        for array, copy in zip(self._changing(), self._saved, strict=True):
            array[...] = copy

    def _changing(self) -> list[Array]:
        """Return all arrays that a step changes."""
        return [self.model.parameters.flat, *self.state.values()]


class MemberChunk(NamedTuple):
    """A chunk of one of several networks that train at the same time.

    Attributes:
        runner: the network and the state of its optimizer.
        data: its data set.
        steps: the chunk.
    """

    runner: ChunkRunner
    data: TrainingData
    steps: Steps


def run_together(
    epoch: CompiledEpoch, loaded: Any, chunks: Sequence[MemberChunk]
) -> list[ChunkResults | DivergedError]:
    """Run a chunk of each of several networks with the same data set, at the same time.

    After an error, such as Ctrl-C or lack of memory, weights and states are those before it.

    Args:
        epoch: the compiled steps of one of the networks; those of the others are equal.
        loaded: their data set, as `TrainingData.for_epoch` returns it for `epoch`.
        chunks: the chunk of each network, at least one.

    Returns:
        For each network, its results, or the error if a loss or a weight is not finite.
    """
    with chunks[0].runner.model.backend.computation(_NO_OPERATIONS):
        for chunk in chunks:
            chunk.runner.save(chunk.steps.before)
        try:
            members = [
                MemberSteps(steps, runner.model.parameters.flat, runner.state)
                for runner, _, steps in chunks
            ]
            results = epoch.run_members(loaded, members)
        except BaseException:
            for chunk in chunks:
                chunk.runner.restore()
            raise
    return [
        result if result.is_finite else chunk.runner.diverged(chunk.data, chunk.steps)
        for chunk, result in zip(chunks, results, strict=True)
    ]


def is_finite(backend: Backend, tensor: Array) -> bool:
    """Return whether all elements are finite."""
    return bool(backend.xp.all(backend.xp.isfinite(tensor)))
