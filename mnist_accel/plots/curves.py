"""Training curves: loss by step and accuracy by epoch."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from numpy.typing import ArrayLike, NDArray

from mnist_accel.plots.style import (
    BLUE,
    MUTED,
    VERMILLION,
    WIDTH,
    label_in_percent,
    name_steps,
    scale_logarithmically,
    show_message,
    styled,
    to_png,
)

FloatArray = NDArray[np.float64]

# A series with more than twice as many points is divided into this number of intervals and drawn as
# a band from their minimum to their maximum. A line through every n-th point would hide spikes.
MAX_POINTS = 1000


@styled
def figure_curves(
    *,
    steps: ArrayLike,
    losses: ArrayLike,
    epochs: Sequence[float],
    train_accuracy: Sequence[float | None],
    test_accuracy: Sequence[float | None],
    title: str,
    test_name: str = "test",
) -> Figure:
    """Draw the loss by step on the left and the accuracies by epoch on the right.

    Args:
        steps: numbers of the steps (S,), ascending.
        losses: loss of each step (S,). The first value that is not finite is marked.
        epochs: numbers of the epochs (E,), may be empty.
        train_accuracy: training accuracies (E,) in 0…1, None if not measured.
        test_accuracy: test accuracies (E,) in 0…1, None if not measured.
        title: title of the figure.
        test_name: name of the data of `test_accuracy`, such as "validation".

    Raises:
        ValueError: series that belong together differ in length.
    """
    step_array = np.asarray(steps, dtype=np.float64)
    loss_array = np.asarray(losses, dtype=np.float64)
    if step_array.ndim != 1 or step_array.shape != loss_array.shape:
        raise ValueError(
            "steps and losses must have equal length, got shapes "
            f"{step_array.shape} and {loss_array.shape}"
        )
    if not len(epochs) == len(train_accuracy) == len(test_accuracy):
        raise ValueError(
            "epochs, train_accuracy and test_accuracy must have equal length, got "
            f"{len(epochs)}, {len(train_accuracy)} and {len(test_accuracy)}"
        )
    figure = Figure(figsize=(WIDTH, 3.7), layout=ConstrainedLayoutEngine(w_pad=0.12, wspace=0.04))
    figure.suptitle(title, x=0.012, ha="left", weight="bold", size=11.5)
    loss_axes, accuracy_axes = figure.subplots(1, 2)
    _draw_loss(loss_axes, step_array, loss_array)
    _draw_accuracy(
        accuracy_axes,
        np.asarray(epochs, dtype=np.float64),
        {
            "train": (np.array(train_accuracy, dtype=np.float64), MUTED, "--"),
            test_name: (np.array(test_accuracy, dtype=np.float64), BLUE, "-"),
        },
    )
    return figure


plot_curves = to_png(figure_curves)


def _draw_loss(axes: Axes, steps: FloatArray, losses: FloatArray) -> None:
    axes.set_title("Loss")
    finite = np.isfinite(losses)
    if not finite.any():
        show_message(axes, "no loss was recorded")
        return
    _draw_finite_losses(axes, steps[finite], losses[finite])
    if not finite.all():
        first = steps[~finite][0]
        _mark_non_finite(axes, first, is_left=first < (steps[0] + steps[-1]) / 2)
    _finish_axes(axes, "step", steps)
    if len(steps) > 1:
        axes.set_xlim(0 if steps[0] < 0.1 * steps[-1] else steps[0], steps[-1])


def _draw_finite_losses(axes: Axes, steps: FloatArray, losses: FloatArray) -> None:
    """Draw a short series as a line, and a longer one with its running mean."""
    window = len(losses) // 40
    if len(losses) == 1:
        axes.plot(steps, losses, "o", color=BLUE)
    elif window < 3:
        axes.plot(steps, losses, color=BLUE)
    else:
        if len(losses) <= 2 * MAX_POINTS:
            axes.plot(steps, losses, color=BLUE, alpha=0.35, linewidth=0.8, label="each step")
        else:
            starts = np.linspace(0, len(losses), MAX_POINTS, endpoint=False).astype(np.intp)
            axes.fill_between(
                steps[starts],
                np.minimum.reduceat(losses, starts),
                np.maximum.reduceat(losses, starts),
                color=BLUE,
                alpha=0.25,
                linewidth=0.4,
                label="minimum to maximum",
            )
        shown = np.unique(np.linspace(0, len(losses) - 1, MAX_POINTS).astype(np.intp))
        mean = running_mean(losses, window=window)
        axes.plot(steps[shown], mean[shown], color=BLUE, label="running mean")
        axes.legend(loc="best")

    # On a linear scale, the later part of a loss that falls tenfold would look flat.
    if losses.min() > 0 and losses[: window + 1].mean() > 8 * losses[-window - 1 :].mean():
        scale_logarithmically(axes, smallest=losses.min(), largest=losses.max())
    elif losses.min() >= 0:
        axes.set_ylim(bottom=0)


def _mark_non_finite(axes: Axes, step: float, *, is_left: bool) -> None:
    """Mark the first step whose loss is not finite, with text on the side that has more room."""
    axes.axvline(step, color=VERMILLION, linewidth=1.2, linestyle=":")
    axes.annotate(
        f"not finite at step {step:,.0f}",
        xy=(step, 0.03),
        xycoords=("data", "axes fraction"),
        xytext=(5 if is_left else -5, 0),
        textcoords="offset points",
        ha="left" if is_left else "right",
        color=VERMILLION,
    )


def running_mean(values: FloatArray, *, window: int) -> FloatArray:
    """Return the mean of each of `values` (S,) and its `window // 2` neighbors on either side.

    At the ends, the mean is over the existing neighbors.
    """
    position = np.arange(len(values))
    begin = np.maximum(position - window // 2, 0)
    end = np.minimum(position + window // 2 + 1, len(values))
    total = np.concatenate([[0.0], np.cumsum(values)])
    mean: FloatArray = (total[end] - total[begin]) / (end - begin)
    return mean


def _draw_accuracy(
    axes: Axes, epochs: FloatArray, curves: dict[str, tuple[FloatArray, str, str]]
) -> None:
    axes.set_title("Accuracy")
    label_in_percent(axes.yaxis)
    for name, (accuracy, color, line) in curves.items():
        measured = np.isfinite(accuracy)
        if measured.any():
            at, known = epochs[measured], accuracy[measured]
            axes.plot(
                at, known, line, color=color, label=f"{name}  {100 * known[-1]:.2f} %",
                marker="o" if len(at) <= 30 else None, markersize=4, clip_on=False, zorder=3,
            )  # fmt: skip
    if not axes.lines:
        show_message(axes, "no accuracy was measured")
        return
    axes.legend(loc="lower right", title="last value", alignment="left")
    axes.margins(y=0.12)
    axes.set_ylim(top=min(axes.get_ylim()[1], 1.0))
    _finish_axes(axes, "epoch", epochs)


def _finish_axes(axes: Axes, xlabel: str, x: FloatArray) -> None:
    name_steps(axes, xlabel)
    if len(x) == 1:
        axes.set_xlim(x[0] - 1, x[0] + 1)
