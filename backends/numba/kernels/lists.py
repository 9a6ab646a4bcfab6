"""Images as lists of the pixels that are not 0.

Layout: lists lie one behind the other, image by image, and are cut at the same columns for all.
Cost: each of the two functions reads every pixel once.
"""

from typing import Any

from backends.numba.kernels.compilation import entry


@entry
def count_by_column(pixels: Any, counts: Any) -> None:
    """Add to each of `counts` how many images have a pixel in that column that is not 0."""
    for image in range(pixels.shape[0]):
        for column in range(pixels.shape[1]):
            counts[column] += pixels[image, column] != 0


@entry
def write_lists(pixels: Any, edges: Any, starts: Any, columns: Any, values: Any) -> None:
    """Write the lists of all images.

    Args:
        pixels: (N, pixels).
        edges: columns at which lists are cut into groups, from 0 to the number of pixels.
        starts: set to where each group of each image begins, (N · groups + 1,).
        columns: set to where the pixels lie.
        values: set to what they are.
    """
    groups, at = len(edges) - 1, 0
    for image in range(pixels.shape[0]):
        for group in range(groups):
            starts[image * groups + group] = at
            for column in range(edges[group], edges[group + 1]):
                value = pixels[image, column]
                if value != 0:
                    columns[at] = column
                    values[at] = value
                    at += 1
    starts[-1] = at
