"""A network: layers in a row, a loss at the end, one parameter vector."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import pairwise
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mnist_accel.array_layer import Backend
from mnist_accel.data.arrays import as_pixels
from mnist_accel.nn.layers import Activation, Conv2d, Layer, MaxPool2d, Shape
from mnist_accel.nn.losses import Loss
from mnist_accel.nn.parameters import ParameterVector

Array: TypeAlias = Any
# Called with the name and the value of each tensor as it is computed.
Observer: TypeAlias = Callable[[str, Array], None]

DTYPES = ("float32", "float64")
_PREDICTION_BATCH = 1000  # images; bounds the memory that unfolded convolutions take


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
        self.input_shape = tuple(input_shape)
        self.backend = backend
        self.dtype = dtype
        self.pixel_shift = pixel_shift
        self.name = name
        self._layer_keys, shapes, initial = _lay_out(
            self.layers, self.input_shape, np.random.default_rng(seed)
        )
        _check_ties(self.layers)
        self.classes = _class_count(self.layers, self.input_shape)
        self.parameters = ParameterVector(backend, shapes, dtype=dtype)
        self.parameters.set_from_host(initial)
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
            rng: randomness for dropout in training; None for inference.
            observe: is shown the output of every layer.

        Returns:
            Logits (N, classes), and what each layer's `backward` needs.
        """
        tape = []
        for number, layer in enumerate(self.layers, start=1):
            x, saved = layer.forward(self.backend, self._layer_parameters(number), x, rng)
            tape.append(saved)
            if observe is not None:
                observe(f"output of layer {number} ({layer.kind})", x)
        return x, tape

    def backward(self, dlogits: Array, tape: list[Any], *, observe: Observer | None = None) -> None:
        """Set `gradients` to those of the loss, from its gradient with respect to the logits.

        Args:
            dlogits: (N, classes).
            tape: as `forward` returned it.
            observe: is shown the gradient of every parameter.
        """
        # No gradient is needed below the first layer that has parameters.
        lowest = next(number for number, keys in enumerate(self._layer_keys, 1) if keys)
        dy = dlogits
        for number in range(len(self.layers), lowest - 1, -1):
            dy, grads = self.layers[number - 1].backward(
                self.backend,
                self._layer_parameters(number),
                tape[number - 1],
                dy,
                need_dx=number > lowest,
            )
            for name, key in self._layer_keys[number - 1].items():
                self.gradients.views[key][...] = grads[name]
                if observe is not None:
                    observe(f"gradient of {key}", grads[name])

    # Using, with arrays of the host

    def predict_logits(self, images: NDArray[Any]) -> NDArray[Any]:
        """Return the logits (N, classes) of host images in any form `load_mnist` returns.

        Raises:
            ValueError: the images have the wrong shape or scale.
            TypeError: they are not numbers.
        """
        pixels = as_pixels(images, pixels=int(np.prod(self.input_shape)), dtype=self.dtype)
        if not len(pixels):
            return np.empty((0, self.classes), self.dtype)
        with self.backend.computation(self.kinds):
            parts = [self.backend.to_numpy(part) for part in self._logits_by_batch(pixels)]
        return np.concatenate(parts)

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
        logits = self.predict_logits(images)
        with self.backend.computation(self.kinds):
            device_logits = self.backend.asarray(logits, dtype=self.dtype)
            return self.backend.to_numpy(self.loss.probabilities(self.backend, device_logits))

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
            ValueError: a parameter is missing or unknown, or has another shape.
        """
        self.parameters.set_from_host(state)

    def describe(self) -> str:
        """Return the layers in one line, such as "784 → linear 50 → relu → linear 10"."""
        words = ["×".join(map(str, self.input_shape))]
        shape = self.input_shape
        for layer in self.layers:
            shape = layer.output_shape(shape)
            changed = (
                ""
                if layer.kind in ("relu", "sigmoid", "tanh", "dropout")
                else " " + "×".join(map(str, shape))
            )
            words.append(layer.kind + changed)
        return " → ".join(words)

    def _layer_parameters(self, number: int) -> dict[str, Array]:
        """Return the parameters of layer `number`, counted from 1, under the layer's own names."""
        views = self.parameters.views
        return {name: views[key] for name, key in self._layer_keys[number - 1].items()}

    def _logits_by_batch(self, pixels: NDArray[Any]) -> Iterator[Array]:
        """Yield the logits of so many images at a time that their unfolded patches fit memory."""
        for start in range(0, len(pixels), _PREDICTION_BATCH):
            part = self.backend.asarray(pixels[start : start + _PREDICTION_BATCH])
            indices = self.backend.asarray(np.arange(part.shape[0]))
            logits, _ = self.forward(self.gather(part, indices))
            yield logits


def _lay_out(
    layers: Sequence[Layer], input_shape: Shape, rng: np.random.Generator
) -> tuple[list[dict[str, str]], dict[str, Shape], dict[str, NDArray[Any]]]:
    """Walk the layers once.

    Returns:
        For each layer, the key of each of its parameters ("W" → "W2"); the shapes by key; initial
        values by key.
    """
    layer_keys: list[dict[str, str]] = []
    shapes: dict[str, Shape] = {}
    draws: dict[str, Callable[[], NDArray[np.float64]]] = {}
    number = 0
    shape = input_shape
    for layer in layers:
        output_shape = layer.output_shape(shape)  # first: it refuses what does not fit
        own_shapes = layer.parameter_shapes(shape)
        number += bool(own_shapes)
        keys = {name: f"{name}{number}" for name in own_shapes}
        for name, key in keys.items():
            shapes[key] = own_shapes[name]
            fan_in, fan_out = layer.fans(shape)
            rule = layer.initialisers()[name]
            draws[key] = partial(rule, rng, own_shapes[name], fan_in=fan_in, fan_out=fan_out)
        layer_keys.append(keys)
        shape = output_shape
    if not shapes:
        raise ValueError("a network needs at least one layer with parameters")
    # All biases are drawn before all weights, as in the source of the one recipe that draws both.
    initial = {key: draws[key]() for key in sorted(draws, key=lambda key: key[0] != "b")}
    return layer_keys, shapes, initial


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


def _class_count(layers: Sequence[Layer], input_shape: Shape) -> int:
    """Return the number of logits."""
    shape = input_shape
    for layer in layers:
        shape = layer.output_shape(shape)
    if len(shape) != 1:
        raise ValueError(f"a network must end in a vector of logits, got {shape}; add Flatten")
    return shape[0]
