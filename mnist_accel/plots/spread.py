"""The spread of a population: a band of losses and a strip of accuracies for each setting."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import MaxNLocator

from mnist_accel.plots.style import (
    BLUE,
    GREEN,
    INK,
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

# The palette of Okabe and Ito; further settings repeat it.
_COLORS = (BLUE, VERMILLION, GREEN, "#cc79a7", "#e69f00", "#56b4e9", "#7a7a00")
# More settings than this would be illegible; the table has all of them.
MAX_SETTINGS = 20
_STRIP_HEIGHT = 0.25  # inches per setting


@dataclass(frozen=True)
class Spread:
    """The results of the members with one setting.

    Attributes:
        name: the setting, such as "lr 0.005".
        curves: for each member, pairs of a step and a loss.
        accuracies: test accuracy of each member, 0…1.
        interval: ends of the 95 % confidence interval of the mean accuracy; may be NaN.
    """

    name: str
    curves: Sequence[Sequence[tuple[int, float]]]
    accuracies: Sequence[float]
    interval: tuple[float, float]


@styled
def figure_spread(*, spreads: Sequence[Spread], title: str) -> Figure:
    """Draw the losses by step on the left and the test accuracies on the right.

    The band contains the losses of all members with a setting, the line is their median. Each dot
    is a member; the bar is the 95 % confidence interval of the mean.

    Args:
        spreads: the results by setting.
        title: title of the figure.
    """
    shown = spreads[:MAX_SETTINGS]
    height = max(3.7, 1.5 + _STRIP_HEIGHT * len(shown))
    figure = Figure(
        figsize=(WIDTH, height), layout=ConstrainedLayoutEngine(w_pad=0.12, wspace=0.04)
    )
    if len(spreads) > len(shown):
        title += f" (the first {len(shown)} of {len(spreads)} settings)"
    figure.suptitle(title, x=0.012, ha="left", weight="bold", size=11.5)
    loss_axes, accuracy_axes = figure.subplots(1, 2)
    _draw_losses(loss_axes, shown)
    _draw_accuracies(accuracy_axes, shown)
    return figure


plot_spread = to_png(figure_spread)


def _draw_losses(axes: Axes, spreads: Sequence[Spread]) -> None:
    axes.set_title("Training loss: median, minimum to maximum")
    smallest, largest = np.inf, -np.inf
    for index, spread in enumerate(spreads):
        losses = _losses_by_step(spread.curves)
        if not losses:
            continue
        steps = list(losses)
        low, middle, high = (
            np.array([function(losses[step]) for step in steps])
            for function in (min, np.median, max)
        )
        color = _COLORS[index % len(_COLORS)]
        axes.fill_between(steps, low, high, color=color, alpha=0.2, linewidth=0)
        axes.plot(steps, middle, color=color, label=spread.name, linewidth=1.4)
        smallest, largest = min(smallest, low.min()), max(largest, high.max())
    if not axes.lines:
        show_message(axes, "no loss was recorded")
        return
    if smallest > 0:
        scale_logarithmically(axes, smallest=smallest, largest=largest)
    name_steps(axes, "step")
    if 1 < len(spreads) <= len(_COLORS):
        axes.legend(loc="best")


def _losses_by_step(curves: Sequence[Sequence[tuple[int, float]]]) -> Mapping[int, list[float]]:
    """Return the finite losses of all members at each step."""
    losses: dict[int, list[float]] = {}
    for curve in curves:
        for step, loss in curve:
            if np.isfinite(loss):
                losses.setdefault(step, []).append(loss)
    return dict(sorted(losses.items()))


def _draw_accuracies(axes: Axes, spreads: Sequence[Spread]) -> None:
    axes.set_title("Test accuracy: each member, mean with 95 % interval")
    for index, spread in enumerate(spreads):
        values = np.array(spread.accuracies)
        if not len(values):
            axes.text(0.5, index, "all failed", transform=axes.get_yaxis_transform(), color=MUTED,
                      ha="center", va="center")  # fmt: skip
            continue
        color = _COLORS[index % len(_COLORS)]
        # Members with similar values lie below each other instead of on top of each other.
        offsets = 0.12 + 0.2 * (np.arange(len(values)) * 0.618 % 1)
        axes.plot(values, index + offsets, "o", color=color, markersize=3.5, alpha=0.6)
        axes.plot(spread.interval, [index, index], color=INK, linewidth=2.2, solid_capstyle="butt")
        axes.plot(values.mean(), index, "D", color=INK, markersize=4.5)
    axes.set_yticks(range(len(spreads)), [spread.name for spread in spreads])
    axes.set_ylim(len(spreads) - 0.3, -0.4)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6))
    label_in_percent(axes.xaxis)
    axes.grid(axis="x")
