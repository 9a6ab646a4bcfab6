"""Train on digits and log to MLflow: parameters, curves, and the network as an artifact."""

import tempfile
from dataclasses import asdict
from pathlib import Path

import mlflow

import mnist_accel as ma

# The fields of a report about an epoch that become curves.
CURVES = ("train_loss", "train_accuracy", "validation_loss", "validation_accuracy", "images_per_s")


class MLflowLog(ma.Callback):
    """Logs the mean loss every few steps, and the figures of each epoch, to the active run.

    Args:
        every: number of steps between two values of the loss.
    """

    def __init__(self, every: int = 10) -> None:
        self.every = every
        self._losses: list[float] = []

    def on_steps(self, trainer, report):
        """Log the mean loss since the last call, at every multiple of `every`."""
        self._losses.extend(report.losses)
        if trainer.step % self.every == 0:
            mlflow.log_metric("loss", sum(self._losses) / len(self._losses), step=trainer.step)
            self._losses = []

    def on_epoch(self, trainer, report):
        """Log the figures of an epoch; those of the validation may be None."""
        figures = {name: getattr(report, name) for name in CURVES}
        known = {name: value for name, value in figures.items() if value is not None}
        mlflow.log_metrics(known, step=report.step)


def main() -> None:
    """Train, and log the training as a run of MLflow."""
    data = ma.load_dataset("digits")
    network = ma.create_model("two-layer", backend="numpy")
    trainer = ma.Trainer(network, "adam", lr=0.01, batch_size=64)
    mlflow.set_experiment("digits")
    with mlflow.start_run(), tempfile.TemporaryDirectory() as folder:
        mlflow.log_params(
            {"model": network.name, "batch_size": trainer.batch_size, **asdict(trainer.optimizer)}
        )
        trainer.fit(
            data.x_train,
            data.t_train,
            epochs=3,
            validation_data=(data.x_test, data.t_test),
            callbacks=[MLflowLog()],
        )
        file = Path(folder) / "model.safetensors"
        ma.save_model(file, network)
        mlflow.log_artifact(str(file))


if __name__ == "__main__":
    main()
