"""Print the loss, accuracy, accuracy per class and confusion matrix of a trained network.

The network is read from a run folder, a model file, a checkpoint, or legacy weights.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from mnist_accel.commands.argument_types import integer
from mnist_accel.commands.arguments import (
    EVALUATED_DATA,
    add_backend_arguments,
    add_data_arguments,
    add_model_file_arguments,
    backend_from,
    data_arguments,
)
from mnist_accel.commands.json_output import add_json_argument, print_json
from mnist_accel.data import Dataset
from mnist_accel.errors import escaped
from mnist_accel.nn.network import Network
from mnist_accel.training.evaluation import Evaluation, evaluate

EXAMPLES: Sequence[str] = (
    "",
    "runs/my-run",
    "runs/my-run --limit-test 1000 --json",
    "runs/wine --dataset csv:new-wines.csv",
    "weights.npz --model lenet",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command to its parser."""
    add_model_file_arguments(parser)
    add_backend_arguments(parser)
    add_data_arguments(parser, **EVALUATED_DATA)
    parser.add_argument(
        "--limit-test",
        **integer(0),
        default=0,
        help="number of test images to use; 0 uses all (default: %(default)s)",
    )
    add_json_argument(parser)


def run(args: argparse.Namespace) -> int:
    """Evaluate the network on the test set and print the results."""
    from mnist_accel.commands.trained_network import load_network
    from mnist_accel.console.activity import preparation
    from mnist_accel.runs.model_files import (
        check_fits,
        data_of_model,
        find_model,
        require_classes,
    )

    backend = backend_from(args)
    path = find_model(args.path)
    model = load_network(args, path, backend)
    dataset = data_of_model(model, path, args.dataset).open(**data_arguments(args))
    require_classes(model, path, dataset.class_names)
    check_fits(model, path, dataset.form)
    with preparation(sys.stderr):
        model.prepare()
    limit = args.limit_test or None
    result = evaluate(model, dataset.x_test[:limit], dataset.t_test[:limit])
    if args.json:
        _print_json(path, model, dataset, result)
        return 0
    print(f"weights  {escaped(str(path))}")
    print(f"model    {escaped(model.name)}: {model.describe()}")
    print(f"data     {escaped(dataset.name)}, {dataset.describe_test_set(result.total)}")
    print(f"backend  {backend.name}")
    _print_result(result, dataset)
    return 0


def _print_json(path: Path, model: Network, dataset: Dataset, result: Evaluation) -> None:
    images = result.confusion_matrix.sum(axis=1).tolist()
    classes = zip(dataset.class_names, images, result.per_class_accuracy.tolist(), strict=True)
    print_json(
        {
            "weights": str(path),
            "model": model.name,
            "network": model.describe(),
            "dataset": dataset.name,
            "whole_file": dataset.is_whole,
            "backend": model.backend.name,
            "images": result.total,
            "correct": result.correct,
            "loss": result.loss,
            "accuracy": result.accuracy,
            "classes": {
                name: {"images": count, "accuracy": accuracy} for name, count, accuracy in classes
            },
            "confusion_matrix": result.confusion_matrix.tolist(),
        }
    )


def _print_result(result: Evaluation, dataset: Dataset) -> None:
    from mnist_accel.console.tables import format_confusion_matrix, print_table

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
    print_table(["class", f"{dataset.form.noun}s", "accuracy"], rows, sys.stdout)
    print()
    print(format_confusion_matrix(result.confusion_matrix, dataset.class_names))
