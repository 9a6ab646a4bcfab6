"""Tables and bars of results, for terminals and for pipes."""

import re
from collections.abc import Sequence
from typing import TextIO

import numpy as np
from numpy.typing import ArrayLike
from rich import box
from rich.cells import cell_len, set_cell_size
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from mnist_accel.console.terminal import make_console
from mnist_accel.errors import escaped
from mnist_accel.util.text import displayable

PIPE_WIDTH = 100  # characters per line of a table that is not printed on a terminal
COLUMN_GAP = 2  # characters between the columns of such a table
BAR_WIDTH = 40  # characters of the bar of a probability of 1

_NUMBER = re.compile(r"[-+]?\d[\d,]*(\.\d*)?(e[-+]?\d+)? ?%?|inf|nan|[-–]?", re.IGNORECASE)


def print_table(headers: Sequence[str], rows: Sequence[Sequence[object]], stream: TextIO) -> None:
    """Print a table whose columns of numbers are aligned to the right.

    On a terminal, the table has the width of the terminal. Elsewhere, only the last column is
    wrapped, between words and at `PIPE_WIDTH`, so that no path or number is cut.

    Raises:
        ValueError: a row does not have one cell per header.
    """
    lines = [[displayable(escaped(str(cell)), stream) for cell in row] for row in (headers, *rows)]
    columns = list(zip(*lines, strict=True))
    console = make_console(stream)
    on_terminal = console.is_terminal
    table = Table(
        box=box.SIMPLE_HEAD if on_terminal else None,
        padding=(0, 1) if on_terminal else (0, COLUMN_GAP, 0, 0),
        pad_edge=False,
        show_edge=False,
        show_header=on_terminal,
    )
    for header, *cells in columns:
        table.add_column(
            Text(header),
            justify="right" if all(map(_NUMBER.fullmatch, cells)) else "left",
            overflow="fold",
            no_wrap=not on_terminal and len(table.columns) < len(columns) - 1,
        )
    if not on_terminal:
        table.add_row(*map(Text, lines[0]))
        table.add_row(*(Rule(characters="-", style="none") for _ in columns))
        fixed = sum(max(map(cell_len, column)) + COLUMN_GAP for column in columns[:-1])
        words = " ".join(columns[-1]).split()
        console.width = max(PIPE_WIDTH, fixed + max(map(cell_len, words), default=1))
    for line in lines[1:]:
        table.add_row(*map(Text, line))
    if on_terminal:
        console.print(table, soft_wrap=False)
    else:
        with console.capture() as capture:
            console.print(table, soft_wrap=False)
        stream.write("".join(line.rstrip() + "\n" for line in capture.get().splitlines()))


def print_probabilities(
    probabilities: ArrayLike, class_names: Sequence[str], stream: TextIO
) -> None:
    """Print the probability of each class as a percentage and a bar.

    Args:
        probabilities: (C,) values in 0…1.
        class_names: C names.
        stream: the stream to print on; the bars are ASCII if its encoding has no block characters.
    """
    values = np.asarray(probabilities, dtype=np.float64)
    has_blocks = displayable("█▏▎▍▌▋▊▉", stream) == "█▏▎▍▌▋▊▉"
    names = [displayable(escaped(name), stream) for name in class_names]
    name_width = max(map(cell_len, names))
    console = make_console(stream)
    for index, (name, value) in enumerate(zip(names, values, strict=True)):
        bar = _block_bar(value) if has_blocks else "#" * round(BAR_WIDTH * value)
        line = Text(f"{set_cell_size(name, name_width)}  {value:8.2%}  {bar}".rstrip())
        if index == values.argmax():
            line.stylize("bold green")
        console.print(line)


def _block_bar(fraction: float) -> str:
    """Return a bar with a resolution of an eighth of a cell."""
    full, eighths = divmod(round(8 * BAR_WIDTH * fraction), 8)
    return "█" * full + " ▏▎▍▌▋▊▉"[eighths].strip()


def format_confusion_matrix(
    matrix: ArrayLike, class_names: Sequence[str], *, width: int = 80
) -> str:
    """Return a confusion matrix as text with lines of at most `width` characters.

    Args:
        matrix: (C, C) counts; rows are true classes, columns are predicted classes.
        class_names: C names; they are cut to fit.
        width: maximum length of a line; counts are never cut.

    Returns:
        Several lines without a final line feed. A dot represents 0. If the names are not just the
        numbers of the classes, each row starts with the number and the name.
    """
    counts = np.asarray(matrix)
    numbers = [str(index) for index in range(len(class_names))]
    if list(class_names) == numbers:
        labels = numbers
    else:
        names = map(escaped, class_names)
        labels = [f"{number} {name}" for number, name in zip(numbers, names, strict=True)]
    column = 1 + max(len(str(counts.max(initial=0))), len(numbers[-1]))
    label_width = max(width - column * len(numbers), len("true"))
    labels = [label[:label_width] for label in labels]
    first = max(len("true"), *map(len, labels))
    lines = [
        " " * (first + column - 1) + "predicted",
        "true".ljust(first) + "".join(number.rjust(column) for number in numbers),
    ]
    for label, row in zip(labels, counts, strict=True):
        cells = (str(count) if count else "." for count in row)
        lines.append(label.ljust(first) + "".join(cell.rjust(column) for cell in cells))
    return "\n".join(lines)
