"""What is measured: the backends of this project, and the baselines that they are compared with."""

from functools import cache

from backends import backend_names
from benchmarks.contenders.base import Contender
from benchmarks.contenders.in_turn import InTurn
from benchmarks.contenders.jax_contender import Jax
from benchmarks.contenders.loops import Loops
from benchmarks.contenders.project import ProjectBackend
from benchmarks.contenders.sklearn_contender import Sklearn
from benchmarks.contenders.torch_contenders import TorchCompile, TorchCudaGraph, TorchEager

# The networks of a population one after the other: name, and threads of each network.
IN_TURN = {"numba-one-thread": 1, "numba-in-turn": None}


@cache
def contenders() -> dict[str, Contender]:
    """Return all contenders by name: the backends, with plug-ins, then the baselines."""
    found: list[Contender] = [
        *(ProjectBackend(name) for name in backend_names() if name != "auto"),
        TorchEager(),
        TorchCompile(),
        TorchCudaGraph(),
        Jax(),
        Sklearn(),
        Loops(),
        *(InTurn(name, threads=threads) for name, threads in IN_TURN.items()),
    ]
    return {contender.name: contender for contender in found}
