"""Compiled steps in chunks of several lengths, compared with eager steps of the reference.

A compiled epoch returns no intermediate tensors. At each step its losses and numbers of correct
images are compared, and at the end of each chunk its parameters. An error in the arrays of the
optimizer shows in the parameters of the next step.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backends import Array, ChunkResults, CompiledEpoch, Steps
from mnist_accel.data.batches import BatchSampler
from mnist_accel.training.data import TrainingData
from mnist_accel.training.trainer import Trainer
from mnist_accel.util.tolerance import relative_difference

# Steps in one call. An error may show only at the first step of a chunk, or only after it.
CHUNKS = (1, 2, 10)
# Compiled SGD adds the gradient of each image to the weights directly, and so rounds more often. No
# recipe differed from NumPy by more than 0.75 of the tolerance without this factor.
SAFETY = 4.0
# Rounding can change which of two nearly equal logits is the larger one, so one image per this
# number of images may differ. In a smaller batch, no image may differ.
IMAGES_PER_TIE = 500

Differences = dict[str, float | None]


@dataclass(frozen=True)
class StepRecord:
    """The results of the reference after a step.

    Attributes:
        loss: mean loss of the batch before the update.
        correct: number of correct images of the batch before the update.
        images: number of images of the batch.
        weights: the parameters, by name.
    """

    loss: float
    correct: int
    images: int
    weights: Mapping[str, NDArray[Any]]


class ChunkedSteps:
    """The compiled steps of a trainer in chunks of one length, with weights of their own.

    Args:
        trainer: the trainer; several `ChunkedSteps` use it in turn.
        compiled: its compiled steps.
        data: its training data.
        chunk: number of steps in one call.
    """

    def __init__(
        self, trainer: Trainer, compiled: CompiledEpoch, data: TrainingData, chunk: int
    ) -> None:
        self._trainer = trainer
        self._compiled = compiled
        self._data = data
        self._chunk = chunk
        self._suffix = "" if chunk == 1 else f", {chunk} steps per call"
        self._saved = [trainer.model.backend.to_numpy(array) for array in self._arrays()]

    def follow(
        self, sampler: BatchSampler, first: int, records: Sequence[StepRecord]
    ) -> Iterator[Differences]:
        """Run the steps that follow step `first`, and yield the relative differences of each.

        The differences of the parameters are None at steps that do not end a chunk.

        Args:
            sampler: the batches.
            first: number of steps done before.
            records: the reference after each of the steps.
        """
        backend = self._trainer.model.backend
        for array, saved in zip(self._arrays(), self._saved, strict=True):
            array[...] = backend.asarray(saved)
        done = 0
        while done < len(records):
            steps = self._steps(sampler, first + done, len(records) - done)
            losses, correct, _ = self._run(steps)
            for number, record in enumerate(records[done : done + len(losses)], start=1):
                is_end = number == len(losses)
                weights = self._trainer.model.state_dict() if is_end else None
                yield self._differences(
                    float(losses[number - 1]), int(correct[number - 1]), weights, record
                )
            done += len(losses)
        self._saved = [backend.to_numpy(array) for array in self._arrays()]

    def _run(self, steps: Steps) -> ChunkResults:
        """Run a chunk. NaN is not an error here, because it must appear as a difference."""
        model = self._trainer.model
        with model.backend.computation(model.kinds):
            return self._compiled.run(
                self._data.for_epoch(self._compiled),
                steps,
                model.parameters.flat,
                self._trainer.optimizer_state,
            )

    def _steps(self, sampler: BatchSampler, before: int, limit: int) -> Steps:
        """Return the next chunk: at most `limit` steps."""
        epoch, epoch_step = divmod(before, sampler.steps_per_epoch)
        count = min(self._chunk, limit)
        factor, total = self._trainer.schedule.factor, self._trainer.total_steps
        factors = [factor(step, total) for step in range(before, before + count)]
        rates = self._trainer.optimizer.lr * np.array(factors)
        return sampler.steps(epoch, epoch_step, rates=rates, before=before)

    def _differences(
        self,
        loss: float,
        correct: int,
        weights: Mapping[str, NDArray[Any]] | None,
        record: StepRecord,
    ) -> Differences:
        wrong = abs(correct - record.correct)
        found: Differences = {
            "loss": relative_difference(np.array(loss), np.array(record.loss)),
            "correct images": wrong / record.images
            if wrong > record.images // IMAGES_PER_TIE
            else 0,
        }
        for key, weight in record.weights.items():
            found[f"{key} after the update"] = (
                None if weights is None else relative_difference(weights[key], weight)
            )
        return {name + self._suffix: difference for name, difference in found.items()}

    def _arrays(self) -> list[Array]:
        """Return all arrays that a step changes."""
        return [self._trainer.model.parameters.flat, *self._trainer.optimizer_state.values()]
