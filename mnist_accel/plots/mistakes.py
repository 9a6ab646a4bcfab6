"""The worst mistakes of a network, as a contact sheet."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
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
from mnist_accel.util.ceil_div import ceil_div
from mnist_accel.util.text import count

COLUMNS = 8
# Inches. Rows have room for a line above each image and one below; a second line takes more.
MARGIN, SIDE, TOP, ROW, LINE = 0.06, 1.0, 0.5, 1.5, 0.13
CELL = (WIDTH - MARGIN) / COLUMNS


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
    num_images = len(image_array)
    if not num_images == len(label_array) == len(predicted) == len(probability):
        raise ValueError(
            "images, labels, predictions and probabilities must be of one length, got "
            f"{num_images}, {len(label_array)}, {len(predicted)} and {len(probability)}"
        )
    if limit < 1:
        raise ValueError(f"limit must be at least 1, got {limit}")

    confidence = probability[np.arange(num_images), predicted]
    wrong = np.flatnonzero(predicted != label_array)
    if len(wrong):
        shown = wrong[np.argsort(-confidence[wrong], kind="stable")][:limit]
        which = f"the {len(shown)} most confident of " if len(shown) < len(wrong) else ""
        heading = f"{which}{count(len(wrong), 'mistake')} in {count(num_images, 'image')}"
        key = "true → predicted, and the probability given to the predicted class"
    else:
        shown = np.argsort(confidence, kind="stable")[: min(limit, COLUMNS)]
        heading = f"no mistakes in {count(num_images, 'image')}"
        key = "the least confident of the right answers, and the probability given to them"

    columns = min(COLUMNS, max(len(shown), 5))
    rows = max(1, ceil_div(len(shown), columns))
    long_names = max(map(len, class_names), default=0) > 4
    first_row, row_height = (size + LINE * long_names for size in (TOP, ROW))
    width, height = MARGIN + CELL * columns, first_row + row_height * rows + MARGIN
    figure = Figure(figsize=(width, height))
    # One sheet, in inches: axes of its own for each image would take a second to lay out.
    sheet = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(height, 0))
    sheet.set_axis_off()
    heading = heading[0].upper() + heading[1:]
    sheet.text(MARGIN, 0.13, heading, va="center", weight="bold", size=11.5)
    for place, index in enumerate(shown):
        row, column = divmod(place, columns)
        left, top = MARGIN + CELL * column, first_row + row_height * row
        show_digit(sheet, image_array[index], left=left, top=top, side=SIDE)
        truth, guess = class_names[label_array[index]], class_names[predicted[index]]
        between = "→\n" if long_names else "→ "
        sheet.text(
            *(left, top - 0.06, truth if truth == guess else f"{truth} {between}{guess}"),
            size=7.5 if long_names else 9.5,
            color=GREEN if truth == guess else VERMILLION,
            weight="bold",
        )
        percent = f"{100 * confidence[index]:.1f} %"
        sheet.text(left, top + SIDE + 0.05, percent, va="top", size=8.5, color=MUTED)
    if len(shown):
        sheet.text(MARGIN, height - 0.13, key, va="center", size=9, color=MUTED)
    else:
        say_instead(sheet, "there were no images to classify")
    return figure


plot_mistakes = to_png(figure_mistakes)
