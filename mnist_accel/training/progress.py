"""The position in a training, with the sums over the epoch in progress."""

from dataclasses import dataclass

from mnist_accel.training.reports import EpochReport, StepsReport


@dataclass
class Progress:
    """The position in a training: with the weights and the optimizer's arrays, enough to resume.

    Attributes:
        step: updates done.
        epoch: epochs completed.
        epoch_step: updates done in the epoch in progress.
        epoch_images: images of these updates.
        epoch_loss: sum of the losses of these images.
        epoch_correct: number of these images that were correct.
        epoch_seconds: time of these updates.
    """

    step: int = 0
    epoch: int = 0
    epoch_step: int = 0
    epoch_images: int = 0
    epoch_loss: float = 0.0
    epoch_correct: int = 0
    epoch_seconds: float = 0.0

    def add_steps(self, report: StepsReport) -> None:
        """Add a chunk of steps to the sums of the epoch; `step` already includes them."""
        self.epoch_step += len(report.losses)
        self.epoch_images += int(report.images.sum())
        self.epoch_loss += float(report.losses @ report.images)
        self.epoch_correct += int(report.correct.sum())
        self.epoch_seconds += report.seconds

    def epoch_report(self) -> EpochReport:
        """Return the results of the epoch so far, without validation."""
        return EpochReport(
            epoch=self.epoch + 1,
            step=self.step,
            train_loss=self.epoch_loss / self.epoch_images,
            train_accuracy=self.epoch_correct / self.epoch_images,
            images_per_s=self.epoch_images / max(1e-9, self.epoch_seconds),
        )

    def next_epoch(self) -> "Progress":
        """Return the position at the beginning of the next epoch."""
        return Progress(step=self.step, epoch=self.epoch + 1)
