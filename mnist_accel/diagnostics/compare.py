"""Is it computing the same thing? Backends side by side, tensor by tensor."""

import math
from collections.abc import Sequence
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
    """How a backend's training differs from that of the reference.

    Attributes:
        backend: name of the backend.
        tolerances: largest difference that rounding explains, for each step.
        errors: for each tensor, in the order of its computation, the relative difference
            ‖a − b‖ / ‖b‖ at each step.
        accuracy: on the recipe's part of the test set, after the last step.
        loss: likewise.
    """

    backend: str
    tolerances: list[float] = field(default_factory=list)
    errors: dict[str, list[float]] = field(default_factory=dict)
    accuracy: float = float("nan")
    loss: float = float("nan")

    @property
    def first_divergence(self) -> tuple[int, str] | None:
        """Step, from 1, and name of the first tensor that differs by more than rounding."""
        for step, tolerance in enumerate(self.tolerances):
            for name, errors in self.errors.items():
                # Written so that a NaN counts as a difference.
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

    Each backend starts from the same weights, sees the same batches and learns at the same rates:
    those of the recipe, whose schedule spans the steps that are done here.

    Args:
        model_name: name of the recipe.
        backends: the first is the reference.
        dataset: trained and evaluated on, as many of its images as the recipe takes.
        steps: number of updates.
        batch_size: images a step; the recipe's if None, and the whole set if 0.
        seed: of weights and batches.
        dtype: of weights and arithmetic.

    Returns:
        A comparison for each backend, the reference (with no errors) included.

    Raises:
        ValueError: no recipe has this name, or an argument is out of range.
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
    reference, *others = trainers
    results = [BackendComparison(backend.name) for backend in backends]
    sampler = BatchSampler(len(labels), reference.batch_size, reference.sampling, seed)
    terms = longest_sum(reference.model, reference.batch_size)
    for step in range(steps):
        epoch, epoch_step = divmod(step, sampler.steps_per_epoch)
        ((begin, end),) = sampler.batch_bounds(epoch_step, 1)
        rows = sampler.order(epoch).rows(begin, end)
        batch = images[rows], labels[rows]
        expected: dict[str, NDArray[Any]] = {}
        reference.train_batch(*batch, observe=_recorder(reference, expected))
        tolerance = relative_tolerance(dtype, terms=terms, steps=step + 1)
        for trainer, result in zip(others, results[1:], strict=True):
            result.tolerances.append(tolerance)
            tensors: dict[str, NDArray[Any]] = {}
            with suppress(DivergedError):  # a NaN is a difference, and its tensor is recorded
                trainer.train_batch(*batch, observe=_recorder(trainer, tensors))
            for name, tensor in tensors.items():
                error = relative_difference(tensor, expected[name])
                result.errors.setdefault(name, []).append(error)
    limit = settings.limit_test or None
    for trainer, result in zip(trainers, results, strict=True):
        evaluation = evaluate(trainer.model, dataset.x_test[:limit], dataset.t_test[:limit])
        result.accuracy, result.loss = evaluation.accuracy, evaluation.loss
    return results


def _recorder(trainer: Trainer, tensors: dict[str, NDArray[Any]]) -> Observer:
    """Return an observer that copies what it is shown of a trainer's update into `tensors`."""
    to_numpy = trainer.model.backend.to_numpy

    def record(name: str, tensor: Any) -> None:
        tensors[name] = to_numpy(tensor)

    return record


def longest_sum(model: Network, batch_size: int) -> int:
    """Return the number of terms of the longest sum in an update."""
    longest, shape = batch_size, model.input_shape
    for layer in model.layers:
        output_shape = layer.output_shape(shape)
        longest = max(longest, math.prod(shape))
        if layer.kind == "conv2d":  # the gradient of a filter sums over positions and images
            longest = max(longest, batch_size * math.prod(output_shape[1:]))
        shape = output_shape
    return longest
