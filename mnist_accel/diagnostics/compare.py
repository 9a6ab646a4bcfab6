"""Train a recipe on several backends and compare the results with a reference backend."""

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backends import Backend, create_optimizer
from mnist_accel.data import Dataset
from mnist_accel.data.batches import BatchSampler
from mnist_accel.diagnostics.compiled_steps import CHUNKS, SAFETY, ChunkedSteps, StepRecord
from mnist_accel.errors import DivergedError
from mnist_accel.nn.network import Network, Observer
from mnist_accel.recipes.models import create_model
from mnist_accel.recipes.settings import TrainSettings, resolve
from mnist_accel.training.evaluation import evaluate
from mnist_accel.training.trainer import Trainer
from mnist_accel.util.tolerance import relative_difference, relative_tolerance

_WINDOW = max(CHUNKS)  # steps of the reference whose results are kept at once
_PREDICTED = 1000  # test images whose logits are compared


@dataclass
class BackendComparison:
    """Differences of the training on a backend from that on the reference backend.

    Attributes:
        backend: name of the backend.
        not_compiled: why the steps ran eagerly; empty if they were compiled.
        tolerances: largest relative difference that rounding explains, by step.
        errors: relative differences ‖a − b‖ / ‖b‖ by tensor and step, in the order of computation;
            None where a tensor is not available.
        accuracy: accuracy on the recipe's test images after the last step.
        loss: loss on the same images.
    """

    backend: str
    not_compiled: str = ""
    tolerances: list[float] = field(default_factory=list)
    errors: dict[str, list[float | None]] = field(default_factory=dict)
    accuracy: float = float("nan")
    loss: float = float("nan")

    @property
    def first_divergence(self) -> tuple[int, str] | None:
        """The step (from 1) and the name of the first tensor that differs by more than rounding."""
        for step, tolerance in enumerate(self.tolerances):
            for name, errors in self.errors.items():
                error = errors[step]
                # `not <=` instead of `>`, so that NaN counts as a difference.
                if error is not None and not error <= tolerance:
                    return step + 1, name
        return None


def compare_backends(
    model_name: str,
    backends: Sequence[Backend],
    dataset: Dataset,
    *,
    steps: int = 10,
    batch_size: int | None = None,
    seed: int = 0,
    dtype: str = "float32",
    compiled: bool = True,
) -> list[BackendComparison]:
    """Train the same recipe on several backends, and compare the results of every step.

    All backends start from the same weights and use the same batches and learning rates. The
    learning-rate schedule of the recipe spans the compared steps. The reference runs eagerly. A
    backend that can compile the training runs it compiled, in chunks of 1, 2 and 10 steps; losses,
    numbers of correct images and weights are compared, and the logits after the last step. Of
    eager steps every tensor is compared.

    Args:
        model_name: name of the recipe.
        backends: backends to compare; the first is the reference.
        dataset: the data set. As in training, the recipe may limit the number of images.
        steps: number of steps.
        batch_size: images per step; None for that of the recipe, 0 for the whole set.
        seed: seed of weights and batches.
        dtype: dtype of weights and arithmetic.
        compiled: False to run eagerly also on backends that can compile the training.

    Returns:
        One comparison per backend, including the reference, whose `errors` are empty.

    Raises:
        ValueError: the recipe is unknown, or an argument is out of range.
        DivergedError: the loss became NaN or infinite on the reference.
    """
    settings = resolve({"model": model_name, "batch_size": batch_size})
    images = dataset.x_train[: settings.limit_train or None]
    labels = dataset.t_train[: settings.limit_train or None]
    trainers = []
    for number, backend in enumerate(backends):
        model = create_model(model_name, backend=backend, seed=seed, dtype=dtype, form=dataset.form)
        trainers.append(
            _make_trainer(
                model,
                settings,
                images=len(labels),
                seed=seed,
                steps=steps,
                compiled=compiled and number > 0,
            )
        )
    reference = _Reference(trainers[0], images, labels, dtype=dtype)
    followers = [_Follower(trainer, images, labels) for trainer in trainers[1:]]
    for first in range(0, steps, _WINDOW):
        reference.run(followers, first, min(_WINDOW, steps - first))
    limit = settings.limit_test or None
    test = dataset.x_test[:limit], dataset.t_test[:limit]
    logits = trainers[0].model.predict_logits(test[0][:_PREDICTED])
    for follower in followers:
        follower.compare_logits(test[0][:_PREDICTED], logits)
    results = [BackendComparison(backends[0].name), *(follower.result for follower in followers)]
    for trainer, result in zip(trainers, results, strict=True):
        evaluation = evaluate(trainer.model, *test)
        result.accuracy, result.loss = evaluation.accuracy, evaluation.loss
    return results


def _make_trainer(
    model: Network, settings: TrainSettings, *, images: int, seed: int, steps: int, compiled: bool
) -> Trainer:
    return Trainer(
        model,
        create_optimizer(settings.optimizer, lr=settings.lr, weight_decay=settings.weight_decay),
        batch_size=settings.batch_size or images,
        seed=seed,
        sampling=settings.sampling,  # type: ignore[arg-type]
        schedule=settings.schedule,
        total_steps=steps,
        compiled=compiled,
    )


class _Follower:
    """A training that is compared with the reference.

    Attributes:
        result: the comparison so far.
    """

    def __init__(self, trainer: Trainer, images: NDArray[Any], labels: NDArray[Any]) -> None:
        self.result = BackendComparison(trainer.model.backend.name, trainer.not_compiled)
        self._trainer = trainer
        self._chunked: list[ChunkedSteps] = []
        if trainer.compiled is not None:
            data = trainer.prepare(images, labels)
            self._chunked = [
                ChunkedSteps(trainer, trainer.compiled, data, chunk) for chunk in CHUNKS
            ]

    def train_batch(
        self, images: NDArray[Any], labels: NDArray[Any], expected: dict[str, NDArray[Any]]
    ) -> None:
        """Make the same step as the reference, if steps run eagerly, and compare every tensor."""
        if self._chunked:
            return
        tensors: dict[str, NDArray[Any]] = {}
        # A NaN raises this error after its tensor was recorded, and counts as a difference.
        with suppress(DivergedError):
            self._trainer.train_batch(images, labels, observe=_recorder(self._trainer, tensors))
        self._add({name: relative_difference(tensors[name], expected[name]) for name in tensors})

    def run_chunks(self, sampler: BatchSampler, first: int, records: list[StepRecord]) -> None:
        """Make the steps that follow step `first` of the reference, if they are compiled."""
        for chunked in self._chunked:
            for differences in chunked.follow(sampler, first, records):
                self._add(differences)

    def add_tolerance(self, tolerance: float) -> None:
        """Add the tolerance of a step."""
        self.result.tolerances.append(tolerance * SAFETY if self._chunked else tolerance)

    def compare_logits(self, images: NDArray[Any], expected: NDArray[Any]) -> None:
        """Compare the logits of images after the last step, if steps are compiled."""
        if self._chunked:
            error = relative_difference(self._trainer.model.predict_logits(images), expected)
            earlier = [None] * (len(self.result.tolerances) - 1)
            self.result.errors["logits of test images"] = [*earlier, error]

    def _add(self, differences: Mapping[str, float | None]) -> None:
        for name, difference in differences.items():
            self.result.errors.setdefault(name, []).append(difference)


class _Reference:
    """The eager training that the others are compared with."""

    def __init__(
        self, trainer: Trainer, images: NDArray[Any], labels: NDArray[Any], *, dtype: str
    ) -> None:
        self._trainer = trainer
        self._images, self._labels = images, labels
        self._dtype = dtype
        self._terms = longest_sum(trainer.model, trainer.batch_size)
        self._sampler = BatchSampler(
            len(labels), trainer.batch_size, trainer.sampling, trainer.seed
        )

    def run(self, followers: Sequence[_Follower], first: int, count: int) -> None:
        """Make the next `count` steps, after `first` earlier ones, and compare the followers."""
        records = []
        for step in range(first, first + count):
            images, labels = self._batch(step)
            tensors: dict[str, NDArray[Any]] = {}
            loss = self._trainer.train_batch(
                images, labels, observe=_recorder(self._trainer, tensors)
            )
            logits = [t for name, t in tensors.items() if name.startswith("output of layer")][-1]
            correct = int((logits.argmax(axis=1) == labels).sum())
            records.append(StepRecord(loss, correct, len(labels), self._trainer.model.state_dict()))
            tolerance = relative_tolerance(self._dtype, terms=self._terms, steps=step + 1)
            for follower in followers:
                follower.add_tolerance(tolerance)
                follower.train_batch(images, labels, tensors)
        for follower in followers:
            follower.run_chunks(self._sampler, first, records)

    def _batch(self, step: int) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return images and labels of a step, counted from 0."""
        epoch, epoch_step = divmod(step, self._sampler.steps_per_epoch)
        rows = self._sampler.steps(epoch, epoch_step, rates=np.zeros(1), before=step).rows()
        return self._images[rows], self._labels[rows]


def _recorder(trainer: Trainer, tensors: dict[str, NDArray[Any]]) -> Observer:
    """Return an observer that copies the tensors of an update to the host, into `tensors`."""
    to_numpy = trainer.model.backend.to_numpy

    def record(name: str, tensor: Any) -> None:
        tensors[name] = to_numpy(tensor)

    return record


def longest_sum(model: Network, batch_size: int) -> int:
    """Return the number of terms of the longest sum in one update."""
    longest, shape = batch_size, model.input_shape
    for layer in model.layers:
        output_shape = layer.output_shape(shape)
        longest = max(longest, math.prod(shape))
        if layer.kind == "conv2d":  # filter gradients sum over positions and images
            longest = max(longest, batch_size * math.prod(output_shape[1:]))
        shape = output_shape
    return longest
