"""Training curves: loss per step, accuracy per epoch."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FuncFormatter, MaxNLocator
from numpy.typing import ArrayLike, NDArray

from mnist_accel.plots.style import (
    BLUE,
    MUTED,
    VERMILLION,
    WIDTH,
    say_instead,
    styled,
    to_png,
)

FloatArray = NDArray[np.float64]

# A longer series is drawn as the band between minimum and maximum of so many stretches: a line
# through every n-th point would hide the spikes in between.
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
    """Draw the loss per step, and beside it the accuracies per epoch.

    Args:
        steps: (S,) numbers of the updates, ascending.
        losses: (S,) loss of each of these updates; values that are not finite are marked.
        epochs: (E,) numbers of the epochs; may be empty.
        train_accuracy: (E,) fractions of 1; None where it was not measured.
        test_accuracy: (E,) likewise.
        title: heading of the whole picture.
        test_name: what the data of `test_accuracy` are called, such as "validation".

    Raises:
        ValueError: two series that belong together differ in length.
    """
    step_array = np.asarray(steps, dtype=np.float64)
    loss_array = np.asarray(losses, dtype=np.float64)
    if step_array.ndim != 1 or step_array.shape != loss_array.shape:
        raise ValueError(
            f"steps and losses must be of one length, got {step_array.shape} and {loss_array.shape}"
        )
    if not len(epochs) == len(train_accuracy) == len(test_accuracy):
        raise ValueError(
            "epochs, train_accuracy and test_accuracy must be of one length, got "
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
    known_steps, known = steps[finite], losses[finite]
    if not len(known):
        say_instead(axes, "no loss was recorded")
        return

    window = len(known) // 40
    if len(known) == 1:
        axes.plot(known_steps, known, "o", color=BLUE)
    elif window < 3:
        axes.plot(known_steps, known, color=BLUE)
    else:
        if len(known) <= 2 * MAX_POINTS:
            axes.plot(known_steps, known, color=BLUE, alpha=0.35, linewidth=0.8, label="each step")
        else:
            starts = np.linspace(0, len(known), MAX_POINTS, endpoint=False).astype(np.intp)
            axes.fill_between(
                known_steps[starts],
                np.minimum.reduceat(known, starts),
                np.maximum.reduceat(known, starts),
                color=BLUE,
                alpha=0.25,
                linewidth=0.4,
                label="lowest to highest",
            )
        shown = np.unique(np.linspace(0, len(known) - 1, MAX_POINTS).astype(np.intp))
        mean = running_mean(known, window=window)
        axes.plot(known_steps[shown], mean[shown], color=BLUE, label="running mean")
        axes.legend(loc="best")

    # A loss that falls tenfold shows its later course only on a logarithmic scale.
    if known.min() > 0 and known[: window + 1].mean() > 8 * known[-window - 1 :].mean():
        _scale_logarithmically(axes, decades=np.log10(known.max() / known.min()))
    elif known.min() >= 0:
        axes.set_ylim(bottom=0)
    if not finite.all():
        first = steps[~finite][0]
        axes.axvline(first, color=VERMILLION, linewidth=1.2, linestyle=":")
        on_the_left = first < (steps[0] + steps[-1]) / 2
        axes.annotate(
            f"not finite at step {first:,.0f}",
            xy=(first, 0.03),
            xycoords=("data", "axes fraction"),
            xytext=(5 if on_the_left else -5, 0),
            textcoords="offset points",
            ha="left" if on_the_left else "right",
            color=VERMILLION,
        )
    _finish_axes(axes, "step", steps)
    if len(steps) > 1:
        axes.set_xlim(0 if steps[0] < 0.1 * steps[-1] else steps[0], steps[-1])


def running_mean(values: FloatArray, *, window: int) -> FloatArray:
    """Average each of `values` (S,) with its neighbours, `window // 2` on either side.

    At the ends the average is over those neighbours that exist.
    """
    here = np.arange(len(values))
    first = np.maximum(here - window // 2, 0)
    last = np.minimum(here + window // 2 + 1, len(values))
    total = np.concatenate([[0.0], np.cumsum(values)])
    mean: FloatArray = (total[last] - total[first]) / (last - first)
    return mean


def _scale_logarithmically(axes: Axes, *, decades: float) -> None:
    axes.set_yscale("log")
    # Over few decades, the powers of ten alone would be too few labels.
    labelled = "125" if decades < 2.5 else "1"
    label = FuncFormatter(lambda value, _: f"{value:g}" if f"{value:e}"[0] in labelled else "")
    axes.yaxis.set_major_formatter(label)
    axes.yaxis.set_minor_formatter(label)


def _draw_accuracy(
    axes: Axes, epochs: FloatArray, curves: dict[str, tuple[FloatArray, str, str]]
) -> None:
    axes.set_title("Accuracy")
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.4g} %"))
    for name, (accuracy, color, line) in curves.items():
        measured = np.isfinite(accuracy)
        if measured.any():
            at, known = epochs[measured], accuracy[measured]
            axes.plot(
                at, known, line, color=color, label=f"{name}  {100 * known[-1]:.2f} %",
                marker="o" if len(at) <= 30 else None, markersize=4, clip_on=False, zorder=3,
            )  # fmt: skip
    if not axes.lines:
        say_instead(axes, "no accuracy was measured")
        return
    axes.legend(loc="lower right", title="at the end", alignment="left")
    axes.margins(y=0.12)
    axes.set_ylim(top=min(axes.get_ylim()[1], 1.0))
    _finish_axes(axes, "epoch", epochs)


def _finish_axes(axes: Axes, xlabel: str, x: FloatArray) -> None:
    axes.set_xlabel(xlabel)
    axes.grid(axis="y")
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    if len(x) == 1:
        axes.set_xlim(x[0] - 1, x[0] + 1)
