"""The trained network that the arguments of a command select."""

import argparse
from pathlib import Path

from backends import Backend
from mnist_accel.errors import UsageError, usage_errors
from mnist_accel.nn.network import Network
from mnist_accel.populations.folder import PopulationFolder
from mnist_accel.runs.model_files import is_population, load_model


def load_network(args: argparse.Namespace, path: Path, backend: Backend | str) -> Network:
    """Return the network at a path; with `--member`, that of a member of a population.

    Raises:
        UsageError: `--member` does not fit the path, or the model or the activation do not.
        DataError: a file is missing, corrupt or rejected.
        BackendUnavailableError: the backend cannot run here.
    """
    with usage_errors():
        if args.member is None:
            return load_model(path, backend=backend, model=args.model, activation=args.activation)
        if not is_population(path):
            raise UsageError(f"{path} is not the folder of a population; omit --member")
        if args.model is not None or args.activation is not None:
            raise UsageError(
                "--model and --activation are for legacy weights; omit them with --member"
            )
        population = PopulationFolder(path).load(backend)
        if args.member >= len(population):
            raise UsageError(
                f"{path} has {len(population)} members, counted from 0; got --member {args.member}"
            )
        network: Network = population[args.member]
        return network
