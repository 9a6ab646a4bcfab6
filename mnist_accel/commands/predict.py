"""Predict one digit: an image of the test set, or a PNG or JPEG of your own.

Prints the ten probabilities as bars, and saves a picture with the image and the labels. Networks
with sigmoid outputs judge each digit on its own, so their probabilities need not sum to 1.
"""

import argparse
import errno
import os
import sys
from functools import partial
from pathlib import Path

from mnist_accel.commands.arguments import (
    add_backend_argument,
    add_data_arguments,
    add_model_file_arguments,
    backend_from,
    integer,
)
from mnist_accel.errors import DataError, UsageError
from mnist_accel.util.files import check_writable


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the command accepts to its parser."""
    add_model_file_arguments(parser)
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument(
        "--index", type=integer(0), metavar="N", help="image of the test set, from 0"
    )
    which.add_argument(
        "--image", metavar="FILE", help="PNG or JPEG of any size, dark on light or light on dark"
    )
    parser.add_argument(
        "--out",
        type=_png_file,
        metavar="FILE.png",
        default="prediction.png",
        help="the picture (default: %(default)s)",
    )
    add_backend_argument(parser)
    add_data_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Predict, print the probabilities, and save the picture."""
    from mnist_accel.console.display import print_probabilities
    from mnist_accel.console.phases import getting_ready
    from mnist_accel.data.datasets import DIGIT_NAMES
    from mnist_accel.data.digit_image import read_digit_image
    from mnist_accel.plots import plot_prediction
    from mnist_accel.runs.model_files import find_model, open_dataset, open_model

    _check_out(args.out)
    path = find_model(args.path)
    model = open_model(path, backend=backend_from(args), legacy_model=args.model)
    if args.image is not None:
        image, true_label, class_names = read_digit_image(args.image), None, DIGIT_NAMES
    else:
        dataset = open_dataset(path, dataset=args.dataset, data_dir=args.data_dir)
        if args.index >= len(dataset.x_test):
            raise UsageError(f"--index must be below {len(dataset.x_test)}, got {args.index}")
        image, true_label = dataset.x_test[args.index], int(dataset.t_test[args.index])
        class_names = dataset.class_names
    with getting_ready(partial(print, file=sys.stderr)):
        model.prepare()
    probabilities = model.predict_proba(image[None])[0]
    predicted = int(probabilities.argmax())
    print(f"weights in {path}")
    print(f"predicted {class_names[predicted]} with {probabilities[predicted]:.2%}", end="")
    print("" if true_label is None else f", true label {class_names[true_label]}")
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
    """Refuse a name that would promise another kind of picture than is written."""
    if Path(text).suffix.lower() != ".png":
        raise argparse.ArgumentTypeError(f"expected a file name that ends in .png, got {text!r}")
    return Path(text)


def _check_out(picture: Path) -> None:
    """Refuse a picture that cannot be written before anything is computed.

    Raises:
        DataError: it cannot.
    """
    try:
        if picture.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        check_writable(picture.parent)
    except OSError as error:
        raise DataError(
            f"cannot write the picture {picture}: {error.strerror}; choose another --out"
        ) from error
