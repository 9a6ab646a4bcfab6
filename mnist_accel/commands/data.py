"""Fetch a data set if it is not there yet, and say what was found and where it came from."""

import argparse

import numpy as np

from mnist_accel.commands.arguments import add_data_arguments
from mnist_accel.data import Dataset, load_dataset
from mnist_accel.data.sources.digests import PUBLISHED_SETS
from mnist_accel.errors import usage_errors


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the command accepts to its parser."""
    add_data_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Load the data set and print what it holds."""
    with usage_errors():
        data = load_dataset(args.dataset or "mnist", data_dir=args.data_dir)
    print(describe(data))
    return 0


def describe(data: Dataset) -> str:
    """Return lines with source, shapes, digests and the images per class of a data set."""
    lines = [
        f"{data.name}: {len(data.x_train)} training and {len(data.x_test)} test images",
        f"  source    {data.source}",
        f"  images    {_form(data.x_train)}, {_form(data.x_test)}",
        f"  labels    {_form(data.t_train)}, {_form(data.t_test)}",
    ]
    if data.name in PUBLISHED_SETS:
        lines.append("  verified  the SHA-256 of each file is the published one")
        for name, (size, digest) in PUBLISHED_SETS[data.name].files.items():
            lines.append(f"            {name}  {size:>8} bytes  {digest[:16]}…")
    else:
        lines.append("  verified  shapes and labels; no digests are published for this set")
    train, test = (np.bincount(t, minlength=10) for t in (data.t_train, data.t_test))
    width = max(len("class"), *(len(name) for name in data.class_names))
    lines += ["", f"  {'class':<{width}}  {'train':>6}  {'test':>6}"]
    lines += [
        f"  {name:<{width}}  {in_train:>6}  {in_test:>6}"
        for name, in_train, in_test in zip(data.class_names, train, test, strict=True)
    ]
    return "\n".join(lines)


def _form(array: np.typing.NDArray[np.uint8]) -> str:
    return f"{array.dtype} {array.shape}"
