"""A table of the layers of a network, as text and as HTML."""

import html
import math
from collections.abc import Sequence

from mnist_accel.nn.graph import Graph

_HEADERS = ("layer", "output shape", "parameters")


class Summary(str):
    """The table of a network: text that a Python session shows as it is, and a notebook as HTML.

    Attributes:
        html: the table as HTML.
    """

    html: str

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        return self.html


def summarize(graph: Graph, footer: str, *, name: str) -> Summary:
    """Return the table of a network, with its name above in HTML, and a line below it."""
    summary = Summary(_text(graph, footer))
    summary.html = _html(graph, footer, name=name)
    return summary


def _text(graph: Graph, footer: str) -> str:
    rows = [_HEADERS, *_rows(graph)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [_line(row, widths) for row in rows]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join([*lines, "", footer])


def _html(graph: Graph, footer: str, *, name: str) -> str:
    head = "".join(f"<th>{header}</th>" for header in _HEADERS)
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>"
        for row in _rows(graph)
    )
    caption = f"<caption>{html.escape(name)}</caption>"
    table = f"<table>{caption}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    return f"{table}<p>{html.escape(footer)}</p>"


def _rows(graph: Graph) -> list[tuple[str, str, str]]:
    """Return layer, shape and number of parameters of each layer."""
    shapes = graph.parameter_shapes
    rows = []
    for node in graph.nodes:
        count = sum(math.prod(shapes[key]) for key in node.keys.values())
        shape = "×".join(map(str, node.output_shape))
        rows.append((node.layer.kind, shape, f"{count:,}" if node.keys else "–"))
    return rows


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    """Return a row as text; numbers are aligned to the right."""
    first, *others = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
    return "  ".join([first, *others[:-1], row[-1].rjust(widths[-1])]).rstrip()
