"""A network: layers in a row, a loss at the end, one parameter vector."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from backends import (
    Array,
    Backend,
    CompiledInference,
    NotCompiledError,
    PixelRangeError,
    as_integer,
)
from mnist_accel.data.arrays import as_rows, require_range
from mnist_accel.nn.layers import Activation, Conv2d, Layer, MaxPool2d, Shape
from mnist_accel.nn.losses import Loss
from mnist_accel.nn.lowering import NotLoweredError, lower_inference
from mnist_accel.nn.parameters import ParameterVector

# Called with the name and the value of each tensor as it is computed.
Observer: TypeAlias = Callable[[str, Array], None]

DTYPES = ("float32", "float64")
_PREDICTION_BATCH = 1000  # images; bounds the memory that unfolded convolutions take


@dataclass(frozen=True)
class Place:
    """A layer in its network.

    Attributes:
        layer: the layer.
        input_shape: of one input, without the batch.
        output_shape: of one output.
        keys: what the network calls the layer's parameters: "W" → "W2".
    """

    layer: Layer
    input_shape: Shape
    output_shape: Shape
    keys: dict[str, str]


class Network:
    """Layers in a row, computed by a backend.

    Parameters are called W1, b1, W2, b2, … , numbered by the layers that have any, and lie in one
    vector in this order.

    Args:
        layers: from input to logits.
        loss: what training minimises.
        input_shape: shape of one image as the first layer takes it: (784,) or (1, 28, 28).
        backend: computes; all arrays of the network are its arrays.
        seed: of the initial weights.
        dtype: "float32" or "float64".
        pixel_shift: added to pixels after scaling to 0…1.
        name: of the recipe, for people.

    Raises:
        ValueError: the layers do not fit one another, or the dtype is unknown.
        TypeError: a side of the input, or the seed, is not an integer.
    """

    def __init__(
        self,
        layers: Sequence[Layer],
        loss: Loss,
        *,
        input_shape: Shape,
        backend: Backend,
        seed: int = 0,
        dtype: str = "float32",
        pixel_shift: float = 0.0,
        name: str = "network",
    ) -> None:
        if dtype not in DTYPES:
            raise ValueError(f"dtype must be one of {', '.join(DTYPES)}, got {dtype!r}")
        self.layers = tuple(layers)
        self.loss = loss
        self.input_shape = tuple(as_integer("input_shape", n, at_least=1) for n in input_shape)
        self.backend = backend
        self.dtype = dtype
        self.pixel_shift = float(pixel_shift)
        self.name = name
        _check_ties(self.layers)
        self.places = _lay_out(self.layers, self.input_shape)
        self.classes = self.places[-1].output_shape[0]
        shapes = _parameter_shapes(self.places)
        self.parameters = ParameterVector(backend, shapes, dtype=dtype)
        rng = np.random.default_rng(as_integer("seed", seed, at_least=0))
        self.parameters.set_from_host(_initial_values(self.places, rng))
        self.gradients = ParameterVector(backend, shapes, dtype=dtype)

    @property
    def kinds(self) -> frozenset[str]:
        """The kinds of its layers."""
        return frozenset(layer.kind for layer in self.layers)

    # Computing, on arrays of the backend

    def gather(self, images: Array, indices: Array) -> Array:
        """Take rows of `images` (N, pixels) as the first layer takes them: (B, *input_shape)."""
        batch = self.backend.gather_batch(images, indices, dtype=self.dtype, shift=self.pixel_shift)
        return self.backend.xp.reshape(batch, (batch.shape[0], *self.input_shape))

    def forward(
        self,
        x: Array,
        *,
        rng: np.random.Generator | None = None,
        observe: Observer | None = None,
    ) -> tuple[Array, list[Any]]:
        """Compute the logits of a batch.

        Args:
            x: inputs (N, *input_shape) of the network's dtype.
            rng: randomness for random layers in training; None for inference.
            observe: is shown the output of every layer.

        Returns:
            Logits (N, classes), and what each layer's `backward` needs.
        """
        tape = []
        for number, place in enumerate(self.places, start=1):
            x, saved = place.layer.forward(self.backend, self._parameters_at(place), x, rng)
            tape.append(saved)
            if observe is not None:
                observe(f"output of layer {number} ({place.layer.kind})", x)
        return x, tape

    def backward(self, dlogits: Array, tape: list[Any], *, observe: Observer | None = None) -> None:
        """Set `gradients` to those of the loss, from its gradient with respect to the logits.

        Args:
            dlogits: (N, classes).
            tape: as `forward` returned it.
            observe: is shown the gradient of every parameter.
        """
        # No gradient is wanted below the first layer that has parameters.
        first = next(place for place in self.places if place.keys)
        dy = dlogits
        for place, saved in reversed(list(zip(self.places, tape, strict=True))):
            dy, grads = place.layer.backward(
                self.backend, self._parameters_at(place), saved, dy, need_dx=place is not first
            )
            for name, key in place.keys.items():
                self.gradients.views[key][...] = grads[name]
                if observe is not None:
                    observe(f"gradient of {key}", grads[name])
            if place is first:
                break

    # Using, with arrays of the host

    def prepare(self) -> None:
        """Get ready to predict: what is compiled, is compiled now; some seconds, once on a machine.

        Without it, the first prediction does.
        """
        if self._compiled_inference is not None:
            self.predict_logits(np.zeros((1, *self.input_shape), np.uint8))

    def predict_logits(self, images: NDArray[Any]) -> NDArray[Any]:
        """Return the logits (N, classes) of host images in any form `load_mnist` returns.

        Raises:
            ValueError: the images have the wrong shape or scale.
            TypeError: they are not numbers.
        """
        return self._predict(images, probabilities=False)

    def predict_proba(self, images: NDArray[Any]) -> NDArray[Any]:
        """Return the outputs (N, classes) for host images, each in 0…1.

        With a softmax loss each row sums to 1. With a sigmoid loss each output is the probability
        of its own class against all others, and the sum may be anything.

        Args:
            images: uint8 0…255 or float 0…1; (N, 784), (N, 28, 28) or (N, 1, 28, 28).

        Raises:
            ValueError: the images have the wrong shape or scale.
            TypeError: they are not numbers.
        """
        return self._predict(images, probabilities=True)

    def predict(self, images: NDArray[Any]) -> NDArray[np.int64]:
        """Return the most probable class of each host image (N,).

        Raises:
            ValueError: the images have the wrong shape or scale.
            TypeError: they are not numbers.
        """
        return np.asarray(self.predict_logits(images).argmax(axis=1), np.int64)

    def state_dict(self) -> dict[str, NDArray[Any]]:
        """Return copies of the parameters as host arrays, called W1, b1, W2, b2 and so on."""
        return self.parameters.to_host()

    def load_state_dict(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Overwrite the parameters with host arrays as `state_dict` returns them.

        Raises:
            ValueError: a parameter is missing or unknown, has another shape, or holds what is not
                a finite number. All parameters are as they were.
        """
        self.parameters.set_from_host(state)

    def describe(self) -> str:
        """Return the layers in one line, such as "784 → linear 50 → relu → linear 10"."""
        words = ["×".join(map(str, self.input_shape))]
        for place in self.places:
            words.append(place.layer.kind)
            if place.keys or place.output_shape != place.input_shape:
                words[-1] += " " + "×".join(map(str, place.output_shape))
        return " → ".join(words)

    @cached_property
    def _compiled_inference(self) -> CompiledInference | None:
        """The network in a form that predicts in one call; None where there is none."""
        try:
            return self.backend.compile_inference(lower_inference(self))
        except (NotLoweredError, NotCompiledError):
            return None

    def _predict(self, images: NDArray[Any], *, probabilities: bool) -> NDArray[Any]:
        """Return the logits or the probabilities of host images."""
        pixels = as_rows(images, input_shape=self.input_shape, dtype=self.dtype)
        if not len(pixels):
            return np.empty((0, self.classes), self.dtype)
        compiled = self._compiled_inference
        if compiled is None:
            require_range(pixels)
            return self._predict_by_operations(pixels, probabilities=probabilities)
        try:
            return compiled.predict(self.parameters.flat, pixels, probabilities=probabilities)
        except PixelRangeError:
            require_range(pixels)
            raise

    def _predict_by_operations(self, pixels: NDArray[Any], *, probabilities: bool) -> NDArray[Any]:
        backend = self.backend
        with backend.computation(self.kinds):
            parts = []
            for logits in self._logits_by_batch(pixels):
                outputs = self.loss.probabilities(backend, logits) if probabilities else logits
                parts.append(backend.to_numpy(outputs))
        return np.concatenate(parts)

    def _parameters_at(self, place: Place) -> dict[str, Array]:
        """Return the parameters of a layer under the layer's own names."""
        return {name: self.parameters.views[key] for name, key in place.keys.items()}

    def _logits_by_batch(self, pixels: NDArray[Any]) -> Iterator[Array]:
        """Yield the logits of so many images at a time that their unfolded patches fit memory."""
        for start in range(0, len(pixels), _PREDICTION_BATCH):
            part = self.backend.asarray(pixels[start : start + _PREDICTION_BATCH])
            indices = self.backend.asarray(np.arange(part.shape[0]))
            logits, _ = self.forward(self.gather(part, indices))
            yield logits


def _lay_out(layers: Sequence[Layer], input_shape: Shape) -> list[Place]:
    """Walk the layers, and work out the shapes and the names of parameters on the way."""
    places = []
    number = 0
    shape = input_shape
    for layer in layers:
        output_shape = layer.output_shape(shape)  # first: it refuses what does not fit
        names = layer.parameter_shapes(shape)
        number += bool(names)
        keys = {name: f"{name}{number}" for name in names}
        places.append(Place(layer, shape, output_shape, keys))
        shape = output_shape
    if not number:
        raise ValueError("a network needs at least one layer with parameters")
    if len(shape) != 1:
        raise ValueError(f"a network must end in a vector of logits, got {shape}; add Flatten")
    return places


def _parameter_shapes(places: Sequence[Place]) -> dict[str, Shape]:
    """Return the shapes of all parameters, by key."""
    return {
        key: place.layer.parameter_shapes(place.input_shape)[name]
        for place in places
        for name, key in place.keys.items()
    }


def _initial_values(
    places: Sequence[Place], rng: np.random.Generator
) -> dict[str, NDArray[np.float64]]:
    """Draw all parameters, by key.

    All biases are drawn before all weights, as in the source of the one recipe that draws both.
    """
    parameters = [(place, name) for place in places for name in place.keys]
    values = {}
    for place, name in sorted(parameters, key=lambda parameter: parameter[1] != "b"):
        shape = place.layer.parameter_shapes(place.input_shape)[name]
        fan_in, fan_out = place.layer.fans(place.input_shape)
        draw = place.layer.initialisers()[name]
        values[place.keys[name]] = draw(rng, shape, fan_in=fan_in, fan_out=fan_out)
    return values


def _check_ties(layers: Sequence[Layer]) -> None:
    """Refuse to count ties among outputs that rounding may tell apart."""
    for before, after in pairwise(layer for layer in layers if not isinstance(layer, Activation)):
        if (
            isinstance(before, Conv2d)
            and not before.uniform
            and isinstance(after, MaxPool2d)
            and after.ties == "all"
        ):
            raise ValueError(
                "max-pooling with ties='all' needs uniform=True in the Conv2d before it"
            )
