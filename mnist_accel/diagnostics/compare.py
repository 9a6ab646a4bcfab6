"""Train a recipe on several backends and compare every tensor with a reference backend."""

import math
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

from backends import Backend
from mnist_accel.data import Dataset
from mnist_accel.data.batches import BatchSampler
from mnist_accel.errors import DivergedError
from mnist_accel.nn.network import Network, Observer
from mnist_accel.nn.optimizers import create_optimizer
from mnist_accel.recipes.models import create_model, get_recipe
from mnist_accel.recipes.settings import resolve
from mnist_accel.training.evaluation import evaluate
from mnist_accel.training.trainer import Trainer
from mnist_accel.util.tolerance import relative_difference, relative_tolerance


@dataclass
class BackendComparison:
    """How the training on a backend differs from that on the reference backend.

    Attributes:
        backend: name of the backend.
        tolerances: largest relative difference that rounding explains, by step.
        errors: relative differences ‖a − b‖ / ‖b‖ by tensor and step, in the order of computation.
        accuracy: accuracy on the recipe's test images after the last step.
        loss: loss on the same images.
    """

    backend: str
    tolerances: list[float] = field(default_factory=list)
    errors: dict[str, list[float]] = field(default_factory=dict)
    accuracy: float = float("nan")
    loss: float = float("nan")

    @property
    def first_divergence(self) -> tuple[int, str] | None:
        """Step, counted from 1, and name of the first tensor that differs by more than rounding."""
        for step, tolerance in enumerate(self.tolerances):
            for name, errors in self.errors.items():
                # `not <=` instead of `>`, so that NaN counts as a difference.
                if not errors[step] <= tolerance:
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
) -> list[BackendComparison]:
    """Train the same recipe on several backends, and compare every tensor of every step.

    All backends start from the same weights and use the same batches and learning rates. The
    learning-rate schedule of the recipe spans the compared steps.

    Args:
        model_name: name of the recipe.
        backends: backends to compare; the first is the reference.
        dataset: the data set. As in training, the recipe may limit the number of images.
        steps: number of steps.
        batch_size: images per step; None for that of the recipe, 0 for the whole set.
        seed: seed of weights and batches.
        dtype: dtype of weights and arithmetic.

    Returns:
        One comparison per backend, including the reference, whose `errors` are empty.

    Raises:
        ValueError: the recipe is unknown, or an argument is out of range.
        DivergedError: the loss became NaN or infinite on the reference.
    """
    get_recipe(model_name)
    settings = resolve({"model": model_name, "batch_size": batch_size})
    images = dataset.x_train[: settings.limit_train or None]
    labels = dataset.t_train[: settings.limit_train or None]
    trainers = [
        Trainer(
            create_model(model_name, backend=backend, seed=seed, dtype=dtype),
            create_optimizer(
                settings.optimizer, lr=settings.lr, weight_decay=settings.weight_decay
            ),
            batch_size=settings.batch_size or len(labels),
            seed=seed,
            sampling=settings.sampling,  # type: ignore[arg-type]
            schedule=settings.schedule,
            total_steps=steps,
        )
        for backend in backends
    ]
    results = [BackendComparison(backend.name) for backend in backends]
    terms = longest_sum(trainers[0].model, trainers[0].batch_size)
    for step, batch in enumerate(_batches(trainers[0], images, labels, steps=steps), start=1):
        tolerance = relative_tolerance(dtype, terms=terms, steps=step)
        _compare_step(trainers, results, batch, tolerance)
    limit = settings.limit_test or None
    for trainer, result in zip(trainers, results, strict=True):
        evaluation = evaluate(trainer.model, dataset.x_test[:limit], dataset.t_test[:limit])
        result.accuracy, result.loss = evaluation.accuracy, evaluation.loss
    return results


def _batches(
    trainer: Trainer, images: NDArray[Any], labels: NDArray[Any], *, steps: int
) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
    """Yield images and labels of the first steps of a training."""
    sampler = BatchSampler(len(labels), trainer.batch_size, trainer.sampling, trainer.seed)
    for step in range(steps):
        epoch, epoch_step = divmod(step, sampler.steps_per_epoch)
        ((begin, end),) = sampler.batch_bounds(epoch_step, 1)
        rows = sampler.order(epoch).rows(begin, end)
        yield images[rows], labels[rows]


def _compare_step(
    trainers: Sequence[Trainer],
    results: Sequence[BackendComparison],
    batch: tuple[NDArray[Any], NDArray[Any]],
    tolerance: float,
) -> None:
    """Run one step on all trainers, and add the differences from the first one to the results."""
    expected: dict[str, NDArray[Any]] = {}
    trainers[0].train_batch(*batch, observe=_recorder(trainers[0], expected))
    for trainer, result in zip(trainers[1:], results[1:], strict=True):
        result.tolerances.append(tolerance)
        tensors: dict[str, NDArray[Any]] = {}
        # A NaN raises this error after its tensor was recorded, and counts as a difference.
        with suppress(DivergedError):
            trainer.train_batch(*batch, observe=_recorder(trainer, tensors))
        for name, tensor in tensors.items():
            error = relative_difference(tensor, expected[name])
            result.errors.setdefault(name, []).append(error)


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
