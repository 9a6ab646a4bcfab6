"""Download a data set if necessary, and print its source, shapes, digests and class counts."""

import argparse
from collections.abc import Sequence

import numpy as np

from mnist_accel.commands.arguments import add_data_arguments, add_dataset_position, dataset_from
from mnist_accel.commands.json_output import add_json_argument, print_json
from mnist_accel.data import Dataset
from mnist_accel.data.sources.digests import PUBLISHED_SETS
from mnist_accel.errors import escaped

EXAMPLES: Sequence[str] = (
    "digits",
    "fashion-mnist",
    "custom --data-dir ~/idx-files",
    "csv:wine.csv --test-split 0.2",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command to its parser."""
    add_dataset_position(parser)
    add_data_arguments(parser)
    add_json_argument(parser)


def run(args: argparse.Namespace) -> int:
    """Load the data set and print its description."""
    dataset = dataset_from(args)
    if args.json:
        _print_json(dataset)
    else:
        print(describe(dataset))
    return 0


def _print_json(dataset: Dataset) -> None:
    published = PUBLISHED_SETS.get(dataset.name)
    counts = zip(dataset.class_names, *_class_counts(dataset), strict=True)
    print_json(
        {
            "dataset": dataset.name,
            "source": dataset.source,
            "train_images": len(dataset.x_train),
            "test_images": len(dataset.x_test),
            "verified": published is not None,
            "files": {
                name: {"bytes": size, "sha256": digest}
                for name, (size, digest) in (published.files if published else {}).items()
            },
            "classes": {name: {"train": train, "test": test} for name, train, test in counts},
        }
    )


def describe(dataset: Dataset) -> str:
    """Return the source, shapes, digests and examples per class of a data set as text."""
    train, test = len(dataset.x_train), len(dataset.x_test)
    examples = f"{dataset.form.noun}s"
    lines = [
        f"{escaped(dataset.name)}: {train} training and {test} test {examples}",
        f"  source    {escaped(dataset.source)}",
        f"  {examples:<8}  {_format(dataset.x_train)}, {_format(dataset.x_test)}",
        f"  labels    {_format(dataset.t_train)}, {_format(dataset.t_test)}",
    ]
    if dataset.name in PUBLISHED_SETS:
        lines.append("  verified  each file has the published SHA-256")
        for name, (size, digest) in PUBLISHED_SETS[dataset.name].files.items():
            lines.append(f"            {name}  {size:>8} bytes  {digest[:16]}…")
    else:
        lines.append("  verified  shapes and labels; no digests are published for this data set")
    counts = _class_counts(dataset)
    names = list(map(escaped, dataset.class_names))
    width = max(len("class"), *map(len, names))
    lines += ["", f"  {'class':<{width}}  {'train':>6}  {'test':>6}"]
    lines += [
        f"  {name:<{width}}  {train_count:>6}  {test_count:>6}"
        for name, train_count, test_count in zip(names, *counts, strict=True)
    ]
    return "\n".join(lines)


def _class_counts(dataset: Dataset) -> tuple[list[int], list[int]]:
    """Return the number of training and of test examples of each class."""
    classes = len(dataset.class_names)
    train, test = (np.bincount(t, minlength=classes) for t in (dataset.t_train, dataset.t_test))
    return train.tolist(), test.tolist()


def _format(array: np.typing.NDArray[np.uint8]) -> str:
    return f"{array.dtype} {array.shape}"
