"""Who takes part."""

from functools import cache

from backends import available_backends
from benchmarks.contenders.base import Contender
from benchmarks.contenders.jax_peer import Jax
from benchmarks.contenders.loops import Loops
from benchmarks.contenders.project import ProjectBackend
from benchmarks.contenders.sklearn_peer import Sklearn
from benchmarks.contenders.torch_peer import TorchCompile, TorchCudaGraph, TorchEager
from mnist_accel.errors import UsageError


@cache
def contenders() -> dict[str, Contender]:
    """Return all contenders by name: the project's backends, plug-ins included, then the peers."""
    everybody: list[Contender] = [
        *(ProjectBackend(name) for name in available_backends()),
        TorchEager(),
        TorchCompile(),
        TorchCudaGraph(),
        Jax(),
        Sklearn(),
        Loops(),
    ]
    return {contender.name: contender for contender in everybody}


def choose(names: str) -> dict[str, Contender]:
    """Return the contenders of these names, which commas separate.

    Raises:
        UsageError: there is none of a name.
    """
    everybody = contenders()
    unknown = sorted(set(names.split(",")) - everybody.keys())
    if unknown:
        raise UsageError(f"unknown contender {', '.join(unknown)}; choose {', '.join(everybody)}")
    return {name: everybody[name] for name in names.split(",")}
