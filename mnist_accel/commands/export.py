"""Write a trained network in the format of other programs.

An ONNX file runs in onnxruntime, in a browser or on a phone. Its input "images" is uint8, and its
output "probabilities" equals what predict prints.
"""

import argparse
from collections.abc import Sequence

from mnist_accel.commands.argument_types import file_name
from mnist_accel.commands.arguments import add_model_file_arguments
from mnist_accel.errors import escaped, usage_errors

EXAMPLES: Sequence[str] = ("--onnx lenet.onnx", "runs/my-run --onnx net.onnx --no-preprocess")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command to its parser."""
    add_model_file_arguments(parser)
    parser.add_argument(
        "--onnx", **file_name(".onnx"), required=True, help="the ONNX file to write (no default)"
    )
    parser.add_argument(
        "--no-preprocess",
        action="store_true",
        help="take floating-point inputs of the first layer, not uint8 pixels",
    )


def run(args: argparse.Namespace) -> int:
    """Export the network."""
    from mnist_accel.commands.trained_network import load_network
    from mnist_accel.runs.model_files import find_model

    path = find_model(args.path)
    model = load_network(args, path, "numpy")
    with usage_errors():
        model.to_onnx(args.onnx, preprocess=not args.no_preprocess)
    print(f"{escaped(str(path))} is written to {escaped(str(args.onnx))}")
    return 0
