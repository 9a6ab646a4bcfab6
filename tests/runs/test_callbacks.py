"""The steps at which checkpoints are saved and log lines are written."""

import numpy as np
import pytest

import mnist_accel as ma
from mnist_accel.runs.callbacks import CHECKPOINT_SECONDS, Checkpoints, MetricsLog
from mnist_accel.runs.folder import RunFolder


@pytest.fixture(scope="module")
def small():
    rng = np.random.default_rng(3)
    return rng.integers(0, 256, (80, 784)).astype(np.uint8), rng.integers(0, 10, 80)


@pytest.fixture
def trainer():
    """Return a trainer whose epochs have five steps."""
    model = ma.create_model("two-layer", backend="numpy", hidden_sizes=(5,))
    return ma.Trainer(model, batch_size=16)


class Saves(Checkpoints):
    """Records the step of each checkpoint."""

    def __init__(self, folder, metrics, **given):
        super().__init__(folder / "checkpoint", metrics, **given)
        self.steps = []

    def save(self, trainer):
        super().save(trainer)
        assert ma.load_checkpoint(self._path, backend="numpy").step == trainer.step
        self.steps.append(trainer.step)


def metrics_log(folder, *, every, show=lambda line: None):
    return MetricsLog(RunFolder(folder), every=every, show=show)


def test_a_checkpoint_is_saved_at_every_multiple(tmp_path, trainer, small):
    saves = Saves(tmp_path, metrics_log(tmp_path, every=100), every=3)
    trainer.fit(*small, iterations=13, callbacks=[saves])
    assert saves.steps == [3, 6, 9, 12]


def test_metrics_are_written_up_to_each_checkpoint(tmp_path, trainer, small):
    """The metrics of a run that is killed after a checkpoint have a line for each of its steps.

    Lines that are written only because of a checkpoint are not shown. The training ends within an
    epoch, and the line of the epoch is after the lines of all its steps.
    """
    shown = []
    log = metrics_log(tmp_path, every=4, show=shown.append)
    saves = Saves(tmp_path, log, every=3)
    trainer.fit(*small, iterations=11, callbacks=[log, saves])
    lines = RunFolder(tmp_path).read_metrics("steps")
    assert [(line["step"], len(line["losses"])) for line in lines] == [
        (3, 3), (4, 1), (6, 2), (8, 2), (9, 1), (11, 2),
    ]  # fmt: skip
    assert [line.step for line in shown] == [4, 8]


def test_checkpoints_at_ends_of_epochs_keep_a_minimum_interval(tmp_path, trainer, small):
    times = iter(CHECKPOINT_SECONDS * np.array([0, 0.5, 1.0, 1.0, 1.9, 2.5, 2.5]))
    log = metrics_log(tmp_path, every=100)
    saves = Saves(tmp_path, log, every=None, clock=lambda: next(times))
    trainer.fit(*small, epochs=4, callbacks=[saves])
    assert saves.steps == [10, 20]  # 1.0 and another 1.5 intervals after the start


def test_each_log_line_covers_the_steps_since_the_previous_line(tmp_path, trainer, small):
    folder, shown = RunFolder(tmp_path), []
    log = MetricsLog(folder, every=4, show=shown.append)
    history = trainer.fit(*small, iterations=10, callbacks=[log])
    log.flush(trainer)
    log.flush(trainer)  # writes nothing
    lines = folder.read_metrics("steps")
    assert [(line["step"], line["epoch"], len(line["losses"])) for line in lines] == [
        (4, 1, 4),
        (8, 2, 4),
        (10, 3, 2),
    ]
    assert [line.step for line in shown] == [4, 8]
    losses = np.concatenate([line["losses"] for line in lines])
    np.testing.assert_allclose(losses, history.losses, rtol=1e-5)
    assert lines[1]["loss"] == np.mean(history.losses[4:8])
    assert lines[1]["lr"] == trainer.optimizer.lr
    assert all(0 <= line["accuracy"] <= 1 and line["images_per_s"] > 0 for line in lines)
    for line, images in zip(lines, (64, 64, 32), strict=True):
        assert line["seconds"] * line["images_per_s"] == pytest.approx(images)


def test_epochs_are_logged_as_well_as_steps(tmp_path, trainer, small):
    folder = RunFolder(tmp_path)
    log = MetricsLog(folder, every=100, show=lambda line: None)
    history = trainer.fit(*small, epochs=2, validation_data=small, callbacks=[log])
    lines = folder.read_metrics("epoch")
    assert [{k: v for k, v in line.items() if k != "event"} for line in lines] == [
        vars(report) for report in history.epochs
    ]
