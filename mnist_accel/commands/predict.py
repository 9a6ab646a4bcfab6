"""Predict one digit: an image of the test set, or a PNG or JPEG file.

Prints the ten probabilities as bars, and saves a picture with the image and its labels. A network
with sigmoid outputs computes each probability independently, so the ten need not sum to 1.
"""

import argparse
import errno
import os
import sys
from functools import partial
from pathlib import Path

from mnist_accel.commands.argument_types import integer
from mnist_accel.commands.arguments import (
    add_backend_arguments,
    add_data_arguments,
    add_model_file_arguments,
    backend_from,
)
from mnist_accel.errors import DataError, UsageError
from mnist_accel.util.files import check_writable


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command to its parser."""
    add_model_file_arguments(parser)
    image = parser.add_mutually_exclusive_group(required=True)
    image.add_argument("--index", **integer(0), help="number of an image of the test set, from 0")
    image.add_argument(
        "--image",
        metavar="FILE",
        help="PNG or JPEG of any size, with a dark digit on light or a light digit on dark",
    )
    parser.add_argument(
        "--out",
        type=_png_file,
        metavar="FILE.png",
        default="prediction.png",
        help="file of the picture (default: %(default)s)",
    )
    add_backend_arguments(parser)
    add_data_arguments(parser, dataset="that of the run, or else mnist")


def run(args: argparse.Namespace) -> int:
    """Predict, print the probabilities, and save the picture."""
    # These modules import scipy, rich and matplotlib, which --help does not need.
    from mnist_accel.console.phases import preparation_notes
    from mnist_accel.console.tables import print_probabilities
    from mnist_accel.data.datasets import DIGIT_NAMES
    from mnist_accel.data.digit_image import read_digit_image
    from mnist_accel.plots import plot_prediction
    from mnist_accel.runs.model_files import check_fits, find_model, open_dataset, open_model

    _check_out(args.out)
    path = find_model(args.path)
    model = open_model(
        path, backend=backend_from(args), legacy_model=args.model, legacy_activation=args.activation
    )
    if args.image is not None:
        image, true_label, class_names = read_digit_image(args.image), None, DIGIT_NAMES
    else:
        dataset = open_dataset(path, dataset=args.dataset, data_dir=args.data_dir)
        if args.index >= len(dataset.x_test):
            raise UsageError(f"--index must be below {len(dataset.x_test)}, got {args.index}")
        image, true_label = dataset.x_test[args.index], int(dataset.t_test[args.index])
        class_names = dataset.class_names
    check_fits(model, path, class_names)
    with preparation_notes(partial(print, file=sys.stderr)):
        model.prepare()
    probabilities = model.predict_proba(image[None])[0]
    predicted = int(probabilities.argmax())
    truth = "" if true_label is None else f", true label {class_names[true_label]}"
    print(f"weights in {path}")
    print(f"predicted {class_names[predicted]} with {probabilities[predicted]:.2%}{truth}")
    print_probabilities(probabilities, class_names, sys.stdout)
    plot_prediction(
        args.out,
        image=image,
        probabilities=probabilities,
        predicted=predicted,
        true_label=true_label,
        class_names=class_names,
    )
    print(f"picture in {args.out}")
    return 0


def _png_file(text: str) -> Path:
    """Parse the name of a PNG file; the picture is written in no other format."""
    if Path(text).suffix.lower() != ".png":
        raise argparse.ArgumentTypeError(f"expected a file name that ends in .png, got {text!r}")
    return Path(text)


def _check_out(picture: Path) -> None:
    """Check that the picture can be written, before anything is computed.

    Raises:
        DataError: the picture cannot be written.
    """
    try:
        if picture.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        check_writable(picture.parent)
    except OSError as error:
        raise DataError(
            f"cannot write the picture {picture}: {error.strerror}; choose another --out"
        ) from error
