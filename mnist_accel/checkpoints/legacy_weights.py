"""Networks with the weights of other programs: of the source programs, of books, of your own.

Programs store the weights of a layer as (in, out) or as (out, in), and biases as (out,), (1, out)
or (out, 1). Both orientations are tried; the shapes of consecutive layers usually allow only one.
"""

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from backends import ACTIVATIONS, Backend, as_backend, option, resolve_name
from mnist_accel.checkpoints.book_networks import BOOK_NETWORKS
from mnist_accel.checkpoints.checkpoint import load_model_file
from mnist_accel.checkpoints.weight_files import WeightFile, is_weight_file, read_weight_file
from mnist_accel.errors import DataError
from mnist_accel.nn.graph import build_graph
from mnist_accel.nn.network import Network
from mnist_accel.recipes.models import RECIPES, Recipe, create_model, get_recipe, model_name
from mnist_accel.util.files import as_path
from mnist_accel.util.text import count

Arrays: TypeAlias = dict[str, NDArray[np.float32]]

# The recipe by the number of linear layers. The source program of the L-layer network wrote `.npy`
# files, those of the softmax networks wrote pickles.
_NPY_MODEL = "fcnn"
_LINEAR_MODELS = {2: "two-layer", 3: "three-layer"}


@dataclass(frozen=True)
class _Candidate:
    """A network whose parameters have the shapes of the arrays in a file.

    Attributes:
        network: the network, with these weights.
        activation: its activation; empty if it has none.
    """

    network: Network
    activation: str


def _print_note(text: str) -> None:
    print(f"note: {text}", file=sys.stderr)


def load_weights(
    path: str | Path,
    *,
    model: str | None = None,
    activation: str | None = None,
    backend: Backend | str = "auto",
    note: Callable[[str], None] = _print_note,
) -> Network:
    """Return a network with the weights in a file, without executing code from it.

    A pickle, a `.npy` file or a `.npz` archive with a dict of arrays W1, b1, W2, … is accepted. Its
    shapes select a recipe, or a convolutional network of a book. Such a file does not state the
    activation, so a note names the one that is assumed. A file of `save_model` is accepted, too.

    Args:
        path: the file.
        model: name of the recipe; None to derive it from the file.
        activation: activation of the hidden layers; None for that of the recipe.
        backend: a backend or its name.
        note: called with the note; by default it is printed on stderr.

    Raises:
        DataError: the file cannot be read or is rejected, or its weights do not suit the network.
        ValueError: `model` or `activation` is unknown.
        BackendUnavailableError: the backend cannot run here.
    """
    path = as_path("path", path)
    if model is not None:
        model = model_name(model)
    if activation is not None:
        activation = resolve_name("activation", activation, ACTIVATIONS)
    backend = as_backend(backend)
    if not is_weight_file(path):
        reject_network_arguments(path, model=model, activation=activation)
        return load_model_file(path, backend=backend)
    content = read_weight_file(path)
    try:
        found = _find_network(content, model=model, activation=activation, backend=backend)
    except ValueError as error:
        subject = "have no usable layout" if model is None else f"do not suit model {model!r}"
        raise DataError(f"the weights in {path} {subject}: {error}") from error
    if activation is None and found.activation:
        note(
            f"{path} does not state its network: assuming {found.network.name} with the activation "
            f"{found.activation}; choose others with {option('model')} and {option('activation')}"
        )
    return found.network


def reject_network_arguments(path: Path, *, model: str | None, activation: str | None) -> None:
    """Check that no recipe or activation is given for a file or a run that states its network.

    Raises:
        ValueError: one is given.
    """
    if model is not None or activation is not None:
        raise ValueError(
            f"{path} states its network; omit {option('model')} and {option('activation')}, which "
            "are for weights of other programs"
        )


def linear_layers(arrays: Arrays) -> Arrays:
    """Return the arrays W1, b1, W2, … of linear layers, weights as (in, out), biases as (out,).

    Raises:
        ValueError: the layers match in neither orientation of the weights, or in both.
    """
    numbers = range(1, sum(name[0] == "W" for name in arrays) + 1)
    missing = [f"b{number}" for number in numbers if f"b{number}" not in arrays]
    if missing:
        raise ValueError(f"{missing[0]} is missing: each layer needs W and b")
    for number in numbers:
        if arrays[f"W{number}"].ndim != 2:
            shape = arrays[f"W{number}"].shape
            raise ValueError(f"W{number} has shape {shape}, expected (in, out) or (out, in)")
    columns = _has_column_biases(arrays)
    faults = [_fault(state) for state in _orientations(arrays)]
    as_stored, transposed = _orientations(arrays)
    if not any(faults):
        if columns is None and any(_is_ambiguous(a) for n, a in arrays.items() if n[0] == "W"):
            raise ValueError(
                f"W1 has shape {arrays['W1'].shape} and all layers are square, so (in, out) cannot "
                "be told from (out, in); store the biases as (1, out) or (out, 1)"
            )
        return transposed if columns else as_stored
    if all(faults):
        raise ValueError(faults[1 if columns else 0])
    return as_stored if not faults[0] else transposed


def _orientations(arrays: Arrays) -> tuple[Arrays, Arrays]:
    """Return the arrays as they are stored, and with transposed matrices; biases are (out,)."""
    flat = {n: a.reshape(-1) if n[0] == "b" else a for n, a in arrays.items()}
    transposed = {n: a.T if a.ndim == 2 else a for n, a in flat.items()}
    return (
        {name: np.ascontiguousarray(array) for name, array in flat.items()},
        {name: np.ascontiguousarray(array) for name, array in transposed.items()},
    )


def _has_column_biases(arrays: Arrays) -> bool | None:
    """Return whether biases are (out, 1), for W @ x + b; None if they are (out,).

    Raises:
        ValueError: the biases have different forms.
    """
    biases = [array for name, array in arrays.items() if name[0] == "b"]
    if any(bias.ndim == 2 and bias.shape[0] > 1 for bias in biases):
        form = "(out, 1)"
        consistent = all(bias.ndim == 2 and bias.shape[1] == 1 for bias in biases)
    else:
        form = "(out,)"
        consistent = all(bias.ndim == 1 or bias.shape[0] == 1 for bias in biases)
    if not consistent:
        shapes = ", ".join(str(bias.shape) for bias in biases)
        raise ValueError(f"biases have shapes {shapes}, expected the form {form} for all")
    if form == "(out, 1)":
        return True
    return False if any(bias.ndim == 2 for bias in biases) else None


def _fault(state: Arrays) -> str:
    """Return why linear layers with weights (in, out) do not match; empty if they do."""
    inputs = state["W1"].shape[0]
    for number in range(1, len(state) // 2 + 1):
        weight, bias = state[f"W{number}"], state[f"b{number}"]
        if weight.shape != (inputs, bias.size):
            return (
                f"W{number} maps {weight.shape[0]} to {weight.shape[1]} values, expected {inputs} "
                f"to {bias.size} to match the previous layer and b{number}"
            )
        inputs = bias.size
    return ""


def _is_ambiguous(matrix: NDArray[np.float32]) -> bool:
    return matrix.ndim == 2 and not np.array_equal(matrix, matrix.T)


def _find_network(
    content: WeightFile, *, model: str | None, activation: str | None, backend: Backend
) -> _Candidate:
    """Return the network of a file.

    Raises:
        ValueError: no network has these weights, or several have.
    """
    if all(array.ndim != 4 for array in content.arrays.values()) and not _needs_images(model):
        state = linear_layers(content.arrays)
        name = model or (_NPY_MODEL if content.is_npy else _LINEAR_MODELS.get(content.layers))
        if name is None:
            layers = count(content.layers, "layer")
            raise ValueError(f"no recipe has {layers}; give {option('model')}")
        return _candidate(name, state, activation, backend)
    _has_column_biases(content.arrays)
    found = list(_convolutional(content.arrays, model, activation, backend))
    if len(found) > 1:
        names = " and ".join(candidate.network.name for candidate in found)
        raise ValueError(f"their shapes suit more than one network: {names}")
    if found:
        return found[0]
    shapes = ", ".join(f"{name} {array.shape}" for name, array in content.arrays.items())
    known = model or "a recipe with convolutions or a network of the book"
    raise ValueError(
        f"expected the shapes of {known}, with filters (filters, channels, k, k), "
        f"got {shapes[:200]}"
    )


def _needs_images(model: str | None) -> bool:
    return model is not None and len(get_recipe(model).input.shape) == 3


def _convolutional(
    arrays: Arrays, model: str | None, activation: str | None, backend: Backend
) -> Iterator[_Candidate]:
    """Yield each convolutional network that has the shapes of the arrays."""
    as_stored, transposed = _orientations(arrays)
    matrices = [array for array in as_stored.values() if array.ndim == 2]
    is_unique = not any(_is_ambiguous(matrix) for matrix in matrices)
    for state in (as_stored,) if is_unique else (as_stored, transposed):
        shapes = {name: array.shape for name, array in state.items()}
        for name, recipe in RECIPES.items():
            if model in (None, name) and _has_shapes(recipe, state):
                yield _candidate(name, state, activation, backend)
        for book in BOOK_NETWORKS if model is None else ():
            network = book.build(shapes, activation or book.activation, backend)
            if network is not None:
                network.load_state_dict(book.convert(state))
                yield _Candidate(network, book.activation)


def _has_shapes(recipe: Recipe, state: Arrays) -> bool:
    """Return whether a convolutional recipe has parameters of these shapes, before it is built."""
    if len(recipe.input.shape) != 3:
        return False
    sizes = _hidden_sizes(state) if recipe.hidden_sizes else ()
    graph = build_graph(recipe.build(sizes, recipe.activation), recipe.input.shape)
    return graph.parameter_shapes == {name: array.shape for name, array in state.items()}


def _hidden_sizes(state: Arrays) -> list[int]:
    """Return the numbers of units of all linear layers except the last."""
    return [array.shape[1] for array in state.values() if array.ndim == 2][:-1]


def _candidate(name: str, state: Arrays, activation: str | None, backend: Backend) -> _Candidate:
    recipe = get_recipe(name)
    network = create_model(
        name,
        backend=backend,
        hidden_sizes=_hidden_sizes(state) if recipe.hidden_sizes else None,
        activation=activation,
    )
    network.load_state_dict(state)
    return _Candidate(network, recipe.activation)
