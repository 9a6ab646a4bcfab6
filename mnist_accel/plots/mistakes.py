"""The most confident mistakes of a network as a contact sheet."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from mnist_accel.plots.style import (
    GREEN,
    MUTED,
    VERMILLION,
    WIDTH,
    short_names,
    show_digit,
    show_message,
    styled,
    to_png,
)
from mnist_accel.util.ceil_div import ceil_div
from mnist_accel.util.text import count

COLUMNS = 8
# Lengths in inches. A row has space for one line above the image and one below. If the class names
# are long, a second line above the image needs LINE more.
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
    """Draw the wrongly classified images, starting with the highest predicted probability.

    If all images are classified correctly, the least confident ones are shown.

    Args:
        images: images (N, 28, 28), 0 for paper.
        labels: true classes (N,), integers.
        predictions: predicted classes (N,), integers.
        probabilities: predicted probabilities (N, C).
        class_names: names of the C classes.
        limit: largest number of images to draw.

    Raises:
        ValueError: the arrays differ in N, or `limit` is less than 1.
    """
    image_array, label_array = np.asarray(images), np.asarray(labels, dtype=np.intp)
    predicted, probability = np.asarray(predictions, dtype=np.intp), np.asarray(probabilities)
    num_images = len(image_array)
    if not num_images == len(label_array) == len(predicted) == len(probability):
        raise ValueError(
            "images, labels, predictions and probabilities must have equal length, got "
            f"{num_images}, {len(label_array)}, {len(predicted)} and {len(probability)}"
        )
    if limit < 1:
        raise ValueError(f"limit must be at least 1, got {limit}")

    confidence = probability[np.arange(num_images), predicted]
    shown, title, key = _select(label_array, predicted, confidence, limit=limit)
    columns = min(COLUMNS, max(len(shown), 5))
    rows = max(1, ceil_div(len(shown), columns))
    names = short_names(class_names, max_chars=12)
    long_names = max(map(len, names), default=0) > 4
    arrow_gap = "\n" if long_names else " "
    first_row, row_height = (size + LINE * long_names for size in (TOP, ROW))
    width, height = MARGIN + CELL * columns, first_row + row_height * rows + MARGIN
    figure = Figure(figsize=(width, height))
    # One pair of axes in units of inches. Separate axes per image would take a second to lay out.
    sheet = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(height, 0))
    sheet.set_axis_off()
    sheet.text(MARGIN, 0.13, title, va="center", weight="bold", size=11.5)
    for place, index in enumerate(shown):
        row, column = divmod(place, columns)
        left, top = MARGIN + CELL * column, first_row + row_height * row
        show_digit(sheet, image_array[index], left=left, top=top, side=SIDE)
        truth, guess = names[label_array[index]], names[predicted[index]]
        wrong = label_array[index] != predicted[index]
        sheet.text(
            left,
            top - 0.06,
            f"{truth} →{arrow_gap}{guess}" if wrong else truth,
            size=7.5 if long_names else 9.5,
            color=VERMILLION if wrong else GREEN,
            weight="bold",
        )
        percent = f"{100 * float(confidence[index]):.1f} %"
        sheet.text(left, top + SIDE + 0.05, percent, va="top", size=8.5, color=MUTED)
    if len(shown):
        sheet.text(MARGIN, height - 0.13, key, va="center", size=9, color=MUTED)
    else:
        show_message(sheet, "there were no images to classify")
    return figure


def _select(
    labels: NDArray[Any], predicted: NDArray[Any], confidence: NDArray[Any], *, limit: int
) -> tuple[NDArray[np.intp], str, str]:
    """Return the indices of the images to draw, the title, and an explanation of the labels."""
    all_images = count(len(labels), "image")
    wrong = np.flatnonzero(predicted != labels)
    if not len(wrong):
        shown = np.argsort(confidence, kind="stable")[: min(limit, COLUMNS)]
        key = "The least confident predictions, with the probability of the predicted class"
        return shown, f"No mistakes in {all_images}", key
    shown = wrong[np.argsort(-confidence[wrong], kind="stable")][:limit]
    title = f"{count(len(wrong), 'mistake')} in {all_images}"
    if len(shown) < len(wrong):
        title = f"The {len(shown)} most confident of {title}"
    return shown, title, "True → predicted class, with the probability of the predicted class"


plot_mistakes = to_png(figure_mistakes)
