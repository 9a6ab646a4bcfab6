"""Write a page on which you draw a digit and watch a trained network recognize it, and open it.

The page is one HTML file. It needs no server and no internet, and can be hosted anywhere.
"""

import argparse
import sys
import webbrowser
from collections.abc import Sequence
from pathlib import Path

from mnist_accel.commands.arguments import add_model_file_arguments
from mnist_accel.errors import DataError, escaped, file_errors
from mnist_accel.util.files import write_atomically

EXAMPLES: Sequence[str] = ("", "runs/my-run", "runs/my-run --out lenet.html --no-open")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command to its parser."""
    add_model_file_arguments(parser)
    parser.add_argument(
        "--out",
        metavar="FILE",
        help="the HTML file to write (default: draw.html beside the weights)",
    )
    parser.add_argument(
        "--no-open", action="store_true", help="do not open the page in the browser"
    )


def run(args: argparse.Namespace) -> int:
    """Write the page."""
    from mnist_accel.commands.trained_network import load_network
    from mnist_accel.draw import draw_page
    from mnist_accel.runs.model_files import data_of_model, find_model

    path = find_model(args.path)
    model = load_network(args, path, "numpy")
    data = data_of_model(model, path)
    names = data.class_names or tuple(map(str, range(model.classes)))
    try:
        page = draw_page(model, class_names=names, centers=data.shows_digits)
    except ValueError as error:
        raise DataError(f"there is no page for {path}: {error}") from error
    folder = path if path.is_dir() else path.parent
    out = Path(args.out) if args.out else folder / "draw.html"
    with file_errors(f"write {out}"):
        write_atomically(out, page.encode())
    print(f"the page is {escaped(str(out))}")
    if not args.no_open and not webbrowser.open(out.resolve().as_uri()):
        print("no browser was found; open the file in one", file=sys.stderr)
    return 0
