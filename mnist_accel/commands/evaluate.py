"""Evaluate a trained network: loss, accuracy, accuracy of each class, confusion matrix.

The network is a run folder, a model file, a checkpoint, or legacy weights (.pkl, .npy).
"""

import argparse
import sys
from functools import partial

from mnist_accel.commands.arguments import (
    add_backend_argument,
    add_data_arguments,
    add_model_file_arguments,
    backend_from,
    integer,
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the command accepts to its parser."""
    add_model_file_arguments(parser)
    add_backend_argument(parser)
    add_data_arguments(parser)
    parser.add_argument("--limit-test", type=integer(0), default=0, metavar="N", help="images")


def run(args: argparse.Namespace) -> int:
    """Evaluate on the test set, and print the figures."""
    from mnist_accel.console.display import format_confusion_matrix, print_table
    from mnist_accel.console.phases import getting_ready
    from mnist_accel.runs.model_files import find_model, open_dataset, open_model
    from mnist_accel.training.evaluation import evaluate

    backend = backend_from(args)
    path = find_model(args.path)
    model = open_model(path, backend=backend, legacy_model=args.model)
    dataset = open_dataset(path, dataset=args.dataset, data_dir=args.data_dir)
    with getting_ready(partial(print, file=sys.stderr)):
        model.prepare()
    limit = args.limit_test or None
    result = evaluate(model, dataset.x_test[:limit], dataset.t_test[:limit])
    print(f"weights  {path}")
    print(f"model    {model.name}: {model.describe()}")
    print(f"data     {dataset.name}, {result.total} test images")
    print(f"backend  {backend.name}")
    print(f"\nloss     {result.loss:.4f}")
    print(f"accuracy {result.accuracy:.2%} ({result.correct} / {result.total})\n")
    rows = [
        [name, str(total), f"{accuracy:.2%}" if total else "–"]
        for name, total, accuracy in zip(
            dataset.class_names,
            result.confusion_matrix.sum(axis=1),
            result.per_class_accuracy,
            strict=True,
        )
    ]
    print_table(["class", "images", "accuracy"], rows, sys.stdout)
    print()
    print(format_confusion_matrix(result.confusion_matrix, dataset.class_names))
    return 0
