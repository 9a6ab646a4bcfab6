"""The worst mistakes of a network, as a contact sheet."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from numpy.typing import ArrayLike

from mnist_accel.plots.style import (
    GREEN,
    MUTED,
    VERMILLION,
    WIDTH,
    say_instead,
    show_digit,
    styled,
    to_png,
)

COLUMNS = 8
# Taller than wide, to have room for the two lines above each image.
ROW_INCHES = 1.45


@styled
def figure_mistakes(
    *,
    images: ArrayLike,
    labels: ArrayLike,
    predictions: ArrayLike,
    probabilities: ArrayLike,
    class_names: Sequence[str],
    limit: int = 40,
) -> Figure:
    """Draw the images that were wrongly classified with the greatest confidence, worst first.

    Where nothing was mistaken, the least confident of the right answers are shown instead.

    Args:
        images: (N, 28, 28), 0 for paper.
        labels: (N,) true classes, integers.
        predictions: (N,) predicted classes, integers.
        probabilities: (N, C) probability given to each class.
        class_names: C names.
        limit: how many images to show at most.

    Raises:
        ValueError: the arrays disagree on N, or `limit` is below 1.
    """
    image_array, label_array = np.asarray(images), np.asarray(labels, dtype=np.intp)
    predicted, probability = np.asarray(predictions, dtype=np.intp), np.asarray(probabilities)
    count = len(image_array)
    if not count == len(label_array) == len(predicted) == len(probability):
        raise ValueError(
            "images, labels, predictions and probabilities must be of one length, got "
            f"{count}, {len(label_array)}, {len(predicted)} and {len(probability)}"
        )
    if limit < 1:
        raise ValueError(f"limit must be at least 1, got {limit}")

    confidence = probability[np.arange(count), predicted]
    wrong = np.flatnonzero(predicted != label_array)
    if len(wrong):
        shown = wrong[np.argsort(-confidence[wrong], kind="stable")][:limit]
        which = f"the {len(shown)} most confident of " if len(shown) < len(wrong) else ""
        heading = f"{which}{_count(len(wrong), 'mistake')} in {_count(count, 'image')}"
        key = "true → predicted, and the probability given to the predicted class"
    else:
        shown = np.argsort(confidence, kind="stable")[: min(limit, COLUMNS)]
        heading = f"no mistakes in {_count(count, 'image')}"
        key = "the least confident of the right answers, and the probability given to them"

    columns = min(COLUMNS, max(len(shown), 5))
    rows = max(1, -(-len(shown) // columns))
    width = WIDTH * columns / COLUMNS
    figure = Figure(
        figsize=(width, 0.75 + ROW_INCHES * rows),
        layout=ConstrainedLayoutEngine(w_pad=0.06, h_pad=0.05),
    )
    figure.suptitle(
        heading[0].upper() + heading[1:], x=0.06 / width, ha="left", weight="bold", size=11.5
    )
    grid = figure.subplots(rows, columns, squeeze=False)
    for cell in grid.flat[len(shown) :]:
        cell.set_axis_off()
    long_names = max(map(len, class_names), default=0) > 4
    for cell, index in zip(grid.flat, shown, strict=False):
        show_digit(cell, image_array[index])
        truth, guess = class_names[label_array[index]], class_names[predicted[index]]
        between = "→\n" if long_names else "→ "
        cell.set_title(
            truth if truth == guess else f"{truth} {between}{guess}",
            size=7.5 if long_names else 9.5,
            color=GREEN if truth == guess else VERMILLION,
            weight="bold",
            pad=4,
        )
        cell.set_xlabel(f"{100 * confidence[index]:.1f} %", loc="left", size=8.5, labelpad=3)
    if len(shown):
        figure.supxlabel(key, x=0.06 / width, ha="left", size=9, color=MUTED)
    else:
        say_instead(figure.add_subplot(), "there were no images to classify")
    return figure


plot_mistakes = to_png(figure_mistakes)


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" + ("" if number == 1 else "s")
