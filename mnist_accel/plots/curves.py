"""Training curves: losses above accuracies, on one axis of epochs and steps."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike, NDArray

from mnist_accel.plots.style import (
    BLUE,
    MUTED,
    VERMILLION,
    WIDTH,
    label_in_percent,
    scale_logarithmically,
    show_message,
    styled,
    to_png,
)
from mnist_accel.training.progress import EpochReport
from mnist_accel.util.text import count

FloatArray = NDArray[np.float64]

TRAIN, TEST = MUTED, BLUE
# A series with more than twice as many points is divided into this number of intervals and drawn as
# a band from their minimum to their maximum. A line through every n-th point would hide spikes.
MAX_POINTS = 1000
# Single steps vary far more than their mean, so the axis of the losses ends at these multiples of
# the largest and the smallest value of the lines, and cuts the band off.
MAX_BAND, MIN_BAND = 3.0, 1 / 3
# The first accuracies are far below the last ones. Their axis ends below the largest one by this
# multiple of the range of the last five, or of the last fifth, and by at least MIN_HEIGHT.
RANGES, MIN_HEIGHT = 4.0, 0.01


@styled
def figure_curves(
    *,
    steps: ArrayLike,
    losses: ArrayLike,
    epochs: Sequence[EpochReport],
    steps_per_epoch: int,
    title: str,
    test_name: str = "test",
) -> Figure:
    """Draw the losses above the accuracies, both over the epochs.

    Args:
        steps: numbers of the steps (S,), ascending.
        losses: training loss of each step (S,). The first value that is not finite is marked.
        epochs: results of the epochs, may be empty. Their validation results are those of the test.
        steps_per_epoch: number of steps of a complete epoch.
        title: title of the figure.
        test_name: name of the data of the validation, such as "validation".

    Raises:
        ValueError: `steps` and `losses` differ in length.
    """
    step_array = np.asarray(steps, dtype=np.float64)
    loss_array = np.asarray(losses, dtype=np.float64)
    if step_array.ndim != 1 or step_array.shape != loss_array.shape:
        raise ValueError(
            "steps and losses must have equal length, got shapes "
            f"{step_array.shape} and {loss_array.shape}"
        )
    figure = Figure(figsize=(WIDTH, 5.4), layout=ConstrainedLayoutEngine(w_pad=0.12, hspace=0.04))
    figure.suptitle(title, x=0.012, ha="left", weight="bold", size=11.5)
    loss_axes, accuracy_axes = figure.subplots(2, 1, sharex=True)
    ends = np.array([report.step for report in epochs], dtype=np.float64) / steps_per_epoch
    test_loss = _measured(ends, [report.validation_loss for report in epochs])
    _draw_losses(loss_axes, step_array / steps_per_epoch, loss_array, {test_name: test_loss})
    curves = {
        test_name: _measured(ends, [report.validation_accuracy for report in epochs]),
        "train": _measured(ends, [report.train_accuracy for report in epochs]),
    }
    _draw_accuracies(accuracy_axes, curves)
    last = max([*step_array[-1:] / steps_per_epoch, *ends[-1:]], default=1.0)
    _label_epochs(accuracy_axes, last, steps_per_epoch)
    if not np.isfinite(loss_array).all():
        first = step_array[~np.isfinite(loss_array)][0]
        _mark(loss_axes, first / steps_per_epoch, f"not finite at step {first:,.0f}")
    return figure


plot_curves = to_png(figure_curves)


def _measured(at: FloatArray, values: Sequence[float | None]) -> tuple[FloatArray, FloatArray]:
    """Return the positions and values of a series without those that are None or not finite."""
    array = np.array(values, dtype=np.float64)
    is_measured = np.isfinite(array)
    return at[is_measured], array[is_measured]


def _draw_losses(
    axes: Axes,
    at: FloatArray,
    losses: FloatArray,
    tests: dict[str, tuple[FloatArray, FloatArray]],
) -> None:
    """Draw the losses that are finite, at positions in epochs, and the test losses by name."""
    finite = np.isfinite(losses)
    if not finite.any():
        axes.set_title("Loss")
        show_message(axes, "no loss was recorded")
        return
    lines = [_draw_train_losses(axes, at[finite], losses[finite])]
    for name, (ends, values) in tests.items():
        if len(values):
            axes.plot(ends, values, color=TEST, label=f"{name}, after each epoch", **_marker(ends))
            lines.append(values)
    _scale_losses(axes, losses[finite], lines)
    axes.grid()
    axes.legend(loc="best")


def _draw_train_losses(axes: Axes, at: FloatArray, losses: FloatArray) -> FloatArray:
    """Draw a short series as a line, and a longer one with its running mean; return the line."""
    window = len(losses) // 40
    if window < 3:
        marker = "o" if len(losses) == 1 else None
        axes.plot(at, losses, marker=marker, color=TRAIN, label="train, each step")
        return losses
    if len(losses) <= 2 * MAX_POINTS:
        axes.plot(at, losses, color=TRAIN, alpha=0.35, linewidth=0.8, label="train, each step")
    else:
        starts = np.linspace(0, len(losses), MAX_POINTS, endpoint=False).astype(np.intp)
        low, high = (f.reduceat(losses, starts) for f in (np.minimum, np.maximum))
        label = f"train, lowest to highest of {round(len(losses) / MAX_POINTS)} steps"
        axes.fill_between(at[starts], low, high, color=TRAIN, alpha=0.25, linewidth=0, label=label)
    shown = np.unique(np.linspace(0, len(losses) - 1, MAX_POINTS).astype(np.intp))
    mean = running_mean(losses, window=window)[shown]
    axes.plot(at[shown], mean, color=TRAIN, label=f"train, mean of {count(window, 'step')}")
    return mean


def _scale_losses(axes: Axes, losses: FloatArray, lines: Sequence[FloatArray]) -> None:
    """Set scale and limits of the y axis, and the title, which states them."""
    smallest, largest = (f([f(line) for line in lines]) for f in (min, max))
    low, high = max(losses.min(), smallest * MIN_BAND), min(losses.max(), largest * MAX_BAND)
    low, high = min(low, smallest), max(high, largest)
    # On a linear scale, the smaller part of a loss that changes tenfold would look flat.
    first, last = lines[0][[0, -1]]
    is_logarithmic = min(losses.min(), smallest) > 0 and max(first, last) > 8 * min(first, last)
    if is_logarithmic:
        scale_logarithmically(axes, smallest=low, largest=high)
        axes.set_ylim(low / 1.15, high * 1.15)
    else:
        axes.set_ylim(min(0.0, low), high + 0.05 * (high - min(0.0, low)) or 1.0)
    title = "Loss · logarithmic" if is_logarithmic else "Loss"
    bottom, top = axes.get_ylim()
    if losses.min() < bottom or losses.max() > top:
        title += " · single steps beyond the axis are cut off"
    axes.set_title(title)


def _mark(axes: Axes, at: float, text: str) -> None:
    """Mark a position with a text on the side that has more room."""
    is_left = at < axes.get_xlim()[1] / 2
    axes.axvline(at, color=VERMILLION, linewidth=1.2, linestyle=":")
    axes.annotate(
        text,
        xy=(at, 0.5),
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


def _draw_accuracies(axes: Axes, curves: dict[str, tuple[FloatArray, FloatArray]]) -> None:
    axes.set_title("Accuracy")
    label_in_percent(axes.yaxis)
    for name, (at, values) in curves.items():
        if not len(values):
            continue
        is_train = name == "train"
        axes.plot(
            at, values, "--" if is_train else "-", color=TRAIN if is_train else TEST, **_marker(at),
            label=f"{name} {100 * values[-1]:.2f} %, "
            + ("mean over the last epoch" if is_train else "after the last epoch"),
        )  # fmt: skip
    if not axes.lines:
        show_message(axes, "no accuracy was measured")
        return
    drawn = [accuracy for _, accuracy in curves.values() if len(accuracy)]
    bottom, top = _accuracy_limits(drawn)
    axes.set_ylim(bottom, top)
    lowest = min(accuracy.min() for accuracy in drawn)
    if lowest < bottom:
        axes.set_title(
            f"Accuracy · the first values, from {100 * lowest:.1f} %, lie below the axis"
        )
    axes.grid()
    axes.legend(loc="best")


def _accuracy_limits(values: Sequence[FloatArray]) -> tuple[float, float]:
    """Return limits of the y axis such that the last values of all curves are well apart."""
    highest = max(float(accuracy.max()) for accuracy in values)
    first = min(float(accuracy.min()) for accuracy in values)
    last = min(float(accuracy[-max(5, len(accuracy) // 5) :].min()) for accuracy in values)
    height = max(MIN_HEIGHT, min(highest - first, RANGES * (highest - last)))
    return max(-0.03 * height, highest - 1.1 * height), highest + 0.06 * height


def _marker(at: FloatArray) -> dict[str, Any]:
    """Return the options of a line with points, unless they are too many to tell apart."""
    return {
        "marker": "o" if len(at) <= 40 else None,
        "markersize": 4,
        "zorder": 3,
    }


def _label_epochs(axes: Axes, last: float, steps_per_epoch: int) -> None:
    """Label the axis that both panels share with epochs, and below them with steps."""
    locator = MaxNLocator(nbins=8, steps=[1, 2, 5, 10], integer=last >= 4)
    ticks = [tick for tick in locator.tick_values(0, last) if tick <= 1.001 * last]
    axes.set_xlim(0, 1.01 * last)
    axes.set_xticks(ticks, [f"{tick:,.4g}" for tick in ticks])
    rows = [("epoch", 4, 9.5)]
    if steps_per_epoch > 1:
        rows.append(("step", 17, 8))
        axes.xaxis.remove_overlapping_locs = False
        axes.set_xticks(ticks, [f"{tick * steps_per_epoch:,.0f}" for tick in ticks], minor=True)
        axes.tick_params(axis="x", which="minor", pad=17, labelsize=8)
    for name, distance, size in rows:
        axes.annotate(name, (0, 0), (-10, -distance), xycoords="axes fraction", ha="right",
                      va="top", textcoords="offset points", color=MUTED, size=size)  # fmt: skip
