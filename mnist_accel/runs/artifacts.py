"""The files that a finished run leaves: weights, pictures and `summary.json`."""

import math
from dataclasses import fields
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from mnist_accel.checkpoints.checkpoint import save_model
from mnist_accel.console.phases import Phases
from mnist_accel.data import DataForm
from mnist_accel.errors import DataError
from mnist_accel.nn.network import Network
from mnist_accel.runs.folder import RunFolder
from mnist_accel.runs.setup import RunData
from mnist_accel.runs.tensorboard import EventFile
from mnist_accel.training.evaluation import Evaluation, evaluate
from mnist_accel.training.progress import EpochReport
from mnist_accel.training.trainer import Trainer
from mnist_accel.util.text import count, excerpt


def has_artifacts(folder: RunFolder, form: DataForm, *, step: int) -> bool:
    """Return whether a run on data of a form has all files that it leaves after its step `step`.

    `summary.json` is written last, so if it belongs to this step, the other files also do.
    """
    if not all(file.is_file() for file in (folder.model, folder.summary, *_pictures(folder, form))):
        return False
    try:
        return folder.read_json(folder.summary).get("steps") == step
    except DataError:  # damaged; it will be written again
        return False


def write_artifacts(
    folder: RunFolder,
    trainer: Trainer,
    data: RunData,
    phases: Phases,
    *,
    stop_reason: str,
    event_file: EventFile | None,
) -> Evaluation:
    """Evaluate the network on the test set, write all files, and return the evaluation.

    Args:
        folder: the run folder.
        trainer: the trainer of the network.
        data: the data of the run.
        phases: measures the time.
        stop_reason: why the training ended early; empty if it did not.
        event_file: gets the picture of the mistakes; None without one.
    """
    model = trainer.model
    images, labels = data.test
    with phases.time("evaluate"):
        evaluation = evaluate(model, images, labels)
        probabilities = model.predict_proba(images)
    save_model(folder.model, model)
    with phases.time("pictures"):
        _draw_pictures(folder, trainer, data, probabilities)
        if event_file is not None:
            _, *mistakes = _pictures(folder, data.dataset.form)
            for file in mistakes:
                event_file.add_picture(file.stem, file, step=trainer.step)
    epochs = folder.read_metrics("epoch")
    summary = {
        "model": model.name,
        "backend": model.backend.name,
        "test_loss": evaluation.loss,
        "test_accuracy": evaluation.accuracy,
        "test_images": evaluation.total,
        "train_images": data.train_count,
        "steps": trainer.step,
        "epochs": epochs[-1]["epoch"] if epochs else 0,
        "images_per_s": mean_throughput(folder.read_metrics("steps")),
        "seconds": phases.seconds,
        "stop_reason": stop_reason,
    }
    folder.write_json(folder.summary, summary)
    return evaluation


def mean_throughput(lines: list[dict[str, Any]]) -> float:
    """Return the mean images per second over all steps of a log; NaN if it is empty."""
    seconds = sum(line["seconds"] for line in lines)
    images = sum(line["images_per_s"] * line["seconds"] for line in lines)
    return images / seconds if lines else math.nan


def _pictures(folder: RunFolder, form: DataForm) -> list[Path]:
    """Return the paths of the training curves and, if the data are images, the worst mistakes."""
    names = ["curves.png"] if form.image_size is None else ["curves.png", "mistakes.png"]
    return [folder.path / name for name in names]


def _draw_pictures(
    folder: RunFolder, trainer: Trainer, data: RunData, probabilities: NDArray[Any]
) -> None:
    """Draw the training curves, the weights of the first layer, and the worst mistakes.

    `probabilities` (N, C) are the predictions for the test set, which contains the mistakes.
    """
    model = trainer.model
    curves, *mistakes = _pictures(folder, data.dataset.form)
    # matplotlib takes a third of a second to import, so the import waits for the end of training.
    from mnist_accel.plots import plot_curves, plot_filters, plot_mistakes

    images, labels = data.test
    for file in mistakes:
        plot_mistakes(
            file,
            images=images,
            labels=labels,
            predictions=probabilities.argmax(axis=1),
            probabilities=probabilities,
            class_names=data.dataset.class_names,
        )
    weights = first_weights(model, data.dataset.form)
    if weights is not None:
        of_units = weights.shape[2:] == data.dataset.form.shape[-2:]
        plot_filters(folder.path / "filters.png", weights, of_units=of_units)
    steps: list[int] = []
    losses: list[float] = []
    for line in folder.read_metrics("steps"):
        steps.extend(range(line["step"] - len(line["losses"]) + 1, line["step"] + 1))
        losses.extend(line["losses"])
    plot_curves(
        curves,
        steps=steps,
        losses=losses,
        epochs=[_epoch_report(line) for line in folder.read_metrics("epoch")],
        steps_per_epoch=trainer.sampler(data.train_count).steps_per_epoch,
        test_name=data.validation_name,
        title=f"{model.name} on {count(data.train_count, 'example')} of "
        f"{excerpt(data.dataset.name, max_chars=40)}, backend {model.backend.name}",
    )


def _epoch_report(line: dict[str, Any]) -> EpochReport:
    """Return the results of an epoch in a line of metrics; early versions wrote fewer fields."""
    values: dict[str, Any] = {field.name: line.get(field.name) for field in fields(EpochReport)}
    return EpochReport(**values)


def first_weights(model: Network, form: DataForm) -> NDArray[Any] | None:
    """Return the weights of the first layer with weights as images (out, in, height, width).

    The result is None if they do not belong to patches or pixels of an image.
    """
    first = next(node for node in model.graph.nodes if node.keys)
    weights = model.state_dict().get(first.keys.get("W", ""))
    if weights is None or weights.ndim == 4:
        return weights
    is_image = form.kind == "pixels" and len(form.shape) > 1
    if not is_image or weights.ndim != 2 or len(weights) != math.prod(form.shape):
        return None
    return weights.T.reshape(-1, *(1, *form.shape)[-3:])
