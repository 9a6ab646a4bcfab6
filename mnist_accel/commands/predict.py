"""Predict images of the test set, or pictures of digits.

Prints the ten probabilities as bars, and saves a figure with the image and its labels. For several
pictures, it prints one line per picture. A network with sigmoid outputs computes each probability
independently, so the ten need not sum to 1. A picture without a digit is refused, and a picture of
several digits is refused without --all. The exit code is then 4. A warning is printed if a digit
consists of parts that may each be one. Below a probability of 80 %, the prediction is marked as not
sure.
"""

import argparse
import itertools
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from mimetypes import guess_type
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mnist_accel.commands.argument_types import file_name, integer
from mnist_accel.commands.arguments import (
    EVALUATED_DATA,
    add_backend_arguments,
    add_data_arguments,
    add_model_file_arguments,
    backend_from,
    data_arguments,
)
from mnist_accel.commands.exit_codes import EXIT_DATA
from mnist_accel.commands.json_output import add_json_argument, print_json
from mnist_accel.errors import DataError, UsageError, escaped

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from mnist_accel.data import Dataset
    from mnist_accel.data.digit_image.search import Digit
    from mnist_accel.nn.network import Network
    from mnist_accel.runs.model_files import ModelData

STDIN = "-"
# On the MNIST test set, almost half of the predictions of lenet with a lower probability are wrong.
MIN_SURE = 0.8
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp")


@dataclass
class Item:
    """An image to predict, and the result.

    Attributes:
        file: the file, or the number of the image in the test set.
        figure: number of the digit in the file, from 1; None unless each digit of a file is read.
        place: which image of which data set it is; empty for a file.
        image: the image (H, W), or features; None if the file is refused.
        refusal: why the file is refused.
        warning: why the prediction may mean nothing; None for most images.
        true_label: the true class; None if unknown.
        probabilities: probability of each class (C,); None if the file is refused.
    """

    file: str
    figure: int | None = None
    place: str = ""
    image: "NDArray[Any] | None" = None
    refusal: str | None = None
    warning: str | None = None
    true_label: int | None = None
    probabilities: "NDArray[np.floating] | None" = None


EXAMPLES: Sequence[str] = (
    "--index 7",
    "runs/my-run --image photo.jpg",
    "--image scans/ --json",
    "--image page.png --all",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command to its parser."""
    add_model_file_arguments(parser)
    image = parser.add_mutually_exclusive_group(required=True)
    image.add_argument("--index", **integer(0), help="number of an image of the test set, from 0")
    image.add_argument(
        "--image",
        nargs="+",
        metavar="FILE",
        help="pictures (PNG, JPEG, BMP, GIF, WebP) of any size, with a dark digit on light or a "
        "light digit on dark; a folder for all pictures in it; - for stdin",
    )
    parser.add_argument(
        "--all", action="store_true", help="read each digit of a picture, from left to right"
    )
    parser.add_argument(
        "--out",
        **file_name(".png"),
        help="file of the figure of one image (default: a new file in the folder of the run)",
    )
    add_json_argument(parser, ", and save a figure only with --out")
    add_backend_arguments(parser)
    add_data_arguments(parser, **EVALUATED_DATA)


def run(args: argparse.Namespace) -> int:
    """Predict, print the probabilities, and save the figure."""
    # These modules import scipy, rich and matplotlib, which --help does not need.
    from mnist_accel.commands.trained_network import load_network
    from mnist_accel.console.activity import preparation
    from mnist_accel.runs.model_files import (
        data_of_model,
        find_model,
        image_size,
        is_model,
    )

    if args.path is None and args.image and len(args.image) > 1 and is_model(args.image[-1]):
        args.path = args.image.pop()  # written after the pictures
    files = _files(args.image or [])
    _check_out(args.out, files)
    path = find_model(args.path)
    backend = backend_from(args)
    model = load_network(args, path, backend)
    data = data_of_model(model, path, args.dataset)
    names = data.class_names or tuple(map(str, range(model.classes)))
    if files:
        items = list(_read_items(files, image_size(model, path), data.shows_digits, args))
    else:
        dataset = _test_set(model, path, data, args)
        names, items = dataset.class_names, [_test_image(dataset, args.index)]
    with preparation(sys.stderr):
        model.prepare()
    for item in items:
        if item.image is not None:
            item.probabilities = model.predict_proba(item.image[None])[0]
    refused = [item for item in items if item.refusal is not None]
    if args.json:
        _print_json(path, items, names)
    else:
        if len(items) == len(refused) == 1:
            raise DataError(str(items[0].refusal))
        _print_items(path, items, names)
        for item in refused:
            print(f"refused: {item.refusal}", file=sys.stderr)
    for item in items:
        if item.warning is not None:
            title = escaped(_title(item))
            print(f"warning: {title}: {item.warning}; crop to one", file=sys.stderr)
    is_saved = True
    is_picture = items[0].image is not None and items[0].image.ndim == 2
    if len(items) == 1 and is_picture and (args.out or not args.json):
        is_saved = _save_figure(args.out or _new_file(path, items[0].file), items[0], names, args)
    elif args.out:
        out = escaped(str(args.out))
        print(f"warning: {out} is not written; give --out with one image", file=sys.stderr)
    return EXIT_DATA if refused or (args.out and not is_saved) else 0


def _files(arguments: Sequence[str]) -> list[str]:
    """Return the arguments with each folder replaced by the pictures in it.

    Print a warning about pictures in other formats.

    Raises:
        DataError: a folder contains no picture.
    """
    files = []
    for argument in arguments:
        folder = Path(argument)
        if argument == STDIN or not folder.is_dir():
            files.append(argument)
            continue
        content = sorted(folder.iterdir())
        found = [path for path in content if path.suffix.lower() in SUFFIXES]
        if not found:
            raise DataError(f"{folder} contains no picture; accepted are {', '.join(SUFFIXES)}")
        for path in content:
            kind = guess_type(path.name)[0] or ""
            if path.suffix.lower() not in SUFFIXES and kind.startswith("image/"):
                other = escaped(str(path))
                print(f"warning: {other} is not read; convert it to PNG or JPEG", file=sys.stderr)
        files += map(str, found)
    return files


def _test_set(
    model: "Network", path: Path, data: "ModelData", args: argparse.Namespace
) -> "Dataset":
    """Return the data set of which `--index` selects an image."""
    from mnist_accel.runs.model_files import check_fits, require_classes

    if args.all:
        raise UsageError("--all reads the digits of a picture; use it with --image")
    dataset = data.open(**data_arguments(args))
    require_classes(model, path, dataset.class_names)
    check_fits(model, path, dataset.form)
    return dataset


def _test_image(dataset: "Dataset", index: int) -> Item:
    """Return an image of the test set."""
    if index >= len(dataset.x_test):
        raise UsageError(f"--index must be below {len(dataset.x_test)}, got {index}")
    image, label = dataset.x_test[index], int(dataset.t_test[index])
    place = f"{dataset.form.noun} {index} of {dataset.name} ({dataset.describe_test_set()})"
    name = f"{Path(dataset.name).stem}-{index}"
    return Item(file=name, place=place, image=image, true_label=label)


def _read_items(
    files: list[str], size: tuple[int, int], of_digits: bool, args: argparse.Namespace
) -> Iterator[Item]:
    """Yield one item per file, or with `--all` one item per digit, with images of a size."""
    from mnist_accel.data.digit_image import (
        read_digit,
        read_digits,
        read_plain_image,
        resized,
    )

    if args.all and not of_digits:
        raise UsageError("--all separates digits, but the classes of this network are not digits")
    if STDIN in files and sys.stdin is None:  # the parent process has closed it
        raise UsageError("stdin is closed; give the picture as a file")
    for file in files:
        source = sys.stdin.buffer if file == STDIN else file
        name = "stdin" if file == STDIN else file
        try:
            if args.all:
                for number, digit in enumerate(read_digits(source), start=1):
                    image = resized(digit.image, size)
                    yield Item(name, figure=number, image=image, warning=_warning(digit))
            elif of_digits:
                digit = read_digit(source)
                yield Item(name, image=resized(digit.image, size), warning=_warning(digit))
            else:
                yield Item(name, image=read_plain_image(source, size=size))
        except DataError as error:
            yield Item(name, refusal=str(error))


def _warning(digit: "Digit") -> str | None:
    """Return a warning if what is read as one digit may be several."""
    if digit.figures == 1:
        return None
    return f"{digit.figures} separate figures are read as one digit"


def _print_items(path: Path, items: list[Item], names: Sequence[str]) -> None:
    """Print the probabilities of one image as bars, or one line for each of several."""
    from mnist_accel.console.tables import print_probabilities, print_table

    print(f"weights in {escaped(str(path))}")
    if len(items) == 1:
        item = items[0]
        assert item.probabilities is not None
        if item.place:
            print(escaped(item.place))
        best = int(item.probabilities.argmax())
        truth = "" if item.true_label is None else f", true label {escaped(names[item.true_label])}"
        certainty = _certainty(item.probabilities[best])
        print(f"predicted {escaped(names[best])} with {certainty}{truth}")
        print_probabilities(item.probabilities, names, sys.stdout)
        return
    rows = []
    for item in items:
        if item.probabilities is not None:
            best = int(item.probabilities.argmax())
            rows.append((names[best], _certainty(item.probabilities[best]), _title(item)))
        else:
            rows.append(("-", "-", f"{item.file} (refused)"))
    print_table(("predicted", "probability", "file"), rows, sys.stdout)


def _certainty(probability: float) -> str:
    return f"{probability:.2%}" + (", not sure" if probability < MIN_SURE else "")


def _title(item: Item) -> str:
    return item.file if item.figure is None else f"{item.file}, digit {item.figure}"


def _print_json(path: Path, items: list[Item], names: Sequence[str]) -> None:
    predictions = []
    for item in items:
        entry: dict[str, Any] = {"file": item.file, "figure": item.figure}
        entry |= dict.fromkeys(("class", "digit", "probability", "probabilities"))
        if item.probabilities is not None:
            best = int(item.probabilities.argmax())
            values = [float(value) for value in item.probabilities]
            entry["class"] = names[best]
            entry["digit"] = best if names[best] == str(best) else None
            entry["probability"] = values[best]
            entry["probabilities"] = dict(zip(names, values, strict=True))
        true = None if item.true_label is None else names[item.true_label]
        entry |= {"true_label": true, "refusal": item.refusal, "warning": item.warning}
        predictions.append(entry)
    print_json({"weights": str(path), "predictions": predictions})


def _save_figure(file: Path, item: Item, names: Sequence[str], args: argparse.Namespace) -> bool:
    """Write the figure of one image, or print a warning; return whether it is written."""
    from mnist_accel.plots import plot_prediction

    assert item.image is not None
    assert item.probabilities is not None
    try:
        plot_prediction(
            file,
            image=item.image,
            probabilities=item.probabilities,
            predicted=int(item.probabilities.argmax()),
            true_label=item.true_label,
            class_names=names,
            warning=item.warning or "",
        )
    except DataError as error:
        print(f"warning: {error}; choose another file with --out", file=sys.stderr)
        return False
    if not args.json:
        print(f"picture in {escaped(str(file))}")
    return True


def _new_file(path: Path, name: str) -> Path:
    """Return the path of a file that does not exist, in the folder of the weights `path`."""
    folder = path if path.is_dir() else path.parent
    stem = f"prediction-{Path(name).stem}"
    numbers = itertools.chain([""], (f"-{i}" for i in itertools.count(2)))
    return next(file for number in numbers if not (file := folder / f"{stem}{number}.png").exists())


def _check_out(out: Path | None, files: Sequence[str]) -> None:
    """Check that the figure replaces no input, before anything is computed.

    Raises:
        UsageError: the figure would replace an input.
    """
    if out is None or not out.exists():
        return
    for file in files:
        if file != STDIN and Path(file).exists() and out.samefile(file):
            raise UsageError(f"--out {out} would replace the picture {file}; choose another")
