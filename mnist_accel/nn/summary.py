"""A table of the layers of a network, as text and as HTML."""

import html
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mnist_accel.nn.network import Network

_HEADERS = ("layer", "output of one image", "parameters")


def summary_text(network: "Network") -> str:
    """Return the table of a network as text."""
    rows = [_HEADERS, *_rows(network)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [_line(row, widths) for row in rows]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join([*lines, "", _footer(network)])


def summary_html(network: "Network") -> str:
    """Return the table of a network as HTML, for notebooks."""
    head = "".join(f"<th>{header}</th>" for header in _HEADERS)
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>"
        for row in _rows(network)
    )
    caption = f"<caption>{html.escape(network.name)}</caption>"
    table = f"<table>{caption}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    return f"{table}<p>{html.escape(_footer(network))}</p>"


def _rows(network: "Network") -> list[tuple[str, str, str]]:
    """Return layer, shape and number of parameters of each layer."""
    shapes = network.graph.parameter_shapes
    rows = []
    for node in network.graph.nodes:
        count = sum(math.prod(shapes[key]) for key in node.keys.values())
        shape = "×".join(map(str, node.output_shape))
        rows.append((node.layer.kind, shape, f"{count:,}" if node.keys else "–"))
    return rows


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    """Return a row as text; numbers are aligned to the right."""
    first, *others = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
    return "  ".join([first, *others[:-1], row[-1].rjust(widths[-1])]).rstrip()


def _footer(network: "Network") -> str:
    mode = f"eager: {network.not_compiled}" if network.not_compiled else "compiled"
    return (
        f"{network.graph.parameter_count:,} parameters, {network.loss.kind}, {network.dtype} on "
        f"{network.backend.name}, {mode}"
    )
