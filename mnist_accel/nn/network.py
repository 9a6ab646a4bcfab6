"""A network: layers in a row, a loss at the end, one parameter vector."""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

from backends import (
    LOSSES,
    Aliases,
    Array,
    Backend,
    CompiledInference,
    InputRangeError,
    NotCompiledError,
    Program,
    Shape,
    TrainingProgram,
    UpdateRule,
    as_backend,
    as_integer,
    require_type,
    resolve_name,
)
from mnist_accel.data.arrays import as_labels, as_targets
from mnist_accel.errors import file_errors
from mnist_accel.nn.graph import build_graph, initial_values
from mnist_accel.nn.inputs import Features, Input, Pixels
from mnist_accel.nn.layers import Layer
from mnist_accel.nn.losses import Loss, SoftmaxCrossEntropy
from mnist_accel.nn.lowering import lower
from mnist_accel.nn.parameters import ParameterVector
from mnist_accel.nn.summary import Summary, summarize
from mnist_accel.util.files import as_path, write_atomically
from mnist_accel.util.text import count

# Called with the name and the value of each tensor after its computation.
Observer: TypeAlias = Callable[[str, Array], None]

DTYPES = ("float32", "float64")
DTYPE_ALIASES: Aliases = {"float": DTYPES, "single": ("float32",), "double": ("float64",)}
# These attributes cannot change, because compiled code reads them only once.
_FIXED = (
    *("layers", "loss", "input", "backend", "dtype", "graph", "parameters"),
    *("forward", "backward"),
)
_PREDICTION_BATCH = 1000  # images; bounds the memory of unfolded convolutions
_PREDICTION_VALUES = 2**26  # elements of the largest tensor of a batch; limits its memory


class Network:
    """A sequence of layers, computed by a backend.

    Parameters are called W1, b1, W2, b2, … , numbered by the layers that have any. They are views
    of one vector, in this order.

    Args:
        layers: from the input to the logits.
        loss: what training minimizes.
        input: what the first layer takes: `Pixels((1, 28, 28))` or `Features(100)`.
        backend: the backend that computes, or its name; all arrays of the network belong to it.
        seed: seed of the initial weights.
        dtype: "float32" or "float64".
        name: name of the recipe, for display.

    Raises:
        ValueError: the layers do not fit together, or the dtype is unknown.
        TypeError: an argument has a wrong type.
        BackendUnavailableError: the named backend cannot run here.
    """

    def __init__(
        self,
        layers: Sequence[Layer],
        loss: Loss,
        *,
        input: Input,  # noqa: A002
        backend: Backend | str,
        seed: int = 0,
        dtype: str = "float32",
        name: str = "network",
    ) -> None:
        dtype = resolve_name("dtype", dtype, DTYPES, DTYPE_ALIASES)
        require_type("loss", loss, Loss, "a loss such as SoftmaxCrossEntropy()")
        require_type("input", input, Input, "Pixels(784), Features(100) or the like")
        require_type("name", name, str, "a string")
        backend = as_backend(backend)
        self.layers = _checked_layers(layers)
        self.loss = loss
        self.input = input
        self.backend = backend
        self.dtype = dtype
        self.name = name
        self.graph = build_graph(self.layers, self.input_shape)
        self.parameters = ParameterVector(backend, self.graph.parameter_shapes, dtype=dtype)
        rng = np.random.default_rng(as_integer("seed", seed, at_least=0))
        self.parameters.set_from_host(initial_values(self.graph, rng))
        self.gradients = ParameterVector(backend, self.graph.parameter_shapes, dtype=dtype)
        # The layers below the first one with parameters need no gradient.
        self._first_trained = next(node for node in self.graph.nodes if node.keys)
        # The parameters of each layer, by the layer's own names.
        self._layer_parameters = [
            {name: self.parameters.views[key] for name, key in node.keys.items()}
            for node in self.graph.nodes
        ]

    def __setattr__(self, name: str, value: object) -> None:
        """Set an attribute, but only once if code is compiled from it."""
        if name in _FIXED and hasattr(self, name):
            raise AttributeError(f"{name} of a network cannot be changed; create a new Network")
        super().__setattr__(name, value)

    def __repr__(self) -> str:
        return (
            f"<Network {self.name}: {self.describe()}; {self.graph.parameter_count:,} parameters, "
            f"{self.loss.kind}, {self.dtype} on {self.backend.name}>"
        )

    def __reduce__(self) -> tuple[Any, ...]:
        """Return how a pickle restores the network: the same weights, on the backend of its name.

        Attributes that a subclass adds are not stored.
        """
        settings = {
            "input": self.input,
            "backend": self.backend,
            "dtype": self.dtype,
            "name": self.name,
        }
        return _restore, (type(self), self.layers, self.loss, settings, self.state_dict())

    @property
    def input_shape(self) -> Shape:
        """Shape of one input as the first layer takes it."""
        return self.input.shape

    @property
    def pixel_shift(self) -> float:
        """Number that is added to pixels after scaling to 0…1; 0 for features."""
        return self.input.shift if isinstance(self.input, Pixels) else 0.0

    @property
    def classes(self) -> int:
        """Number of logits."""
        return self.graph.classes

    @property
    def kinds(self) -> frozenset[str]:
        """The kinds of its layers."""
        return frozenset(layer.kind for layer in self.layers)

    @property
    def is_random(self) -> bool:
        """Whether a layer needs a random generator in training."""
        return any(layer.is_random for layer in self.layers)

    # Methods on arrays of the backend

    def gather(self, images: Array, indices: Array) -> Array:
        """Return rows of `images` (N, pixels) as inputs of the first layer: `(B, *input_shape)`."""
        batch = self.backend.gather_batch(images, indices, dtype=self.dtype, shift=self.pixel_shift)
        return self.backend.xp.reshape(batch, (batch.shape[0], *self.input_shape))

    def forward(
        self, x: Array, *, rng: np.random.Generator | None = None, observe: Observer | None = None
    ) -> tuple[Array, list[Any]]:
        """Return the logits (N, classes) of a batch, and what each layer's `backward` needs.

        Args:
            x: inputs `(N, *input_shape)` of the network's dtype.
            rng: random generator for random layers in training; None in inference.
            observe: called with the output of every layer.
        """
        tape = []
        for layer, parameters in zip(self.layers, self._layer_parameters, strict=True):
            x, saved = layer.forward(self.backend, parameters, x, rng)
            tape.append(saved)
            if observe is not None:
                observe(f"output of layer {len(tape)} ({layer.kind})", x)
        return x, tape

    def backward(self, dlogits: Array, tape: list[Any], *, observe: Observer | None = None) -> None:
        """Compute `gradients` from the gradient of the loss with respect to the logits.

        Args:
            dlogits: (N, classes).
            tape: the second result of `forward`. It is emptied, so that the values of a layer are
                freed before the gradients of the layers below it are computed.
            observe: called with the gradient of every parameter.
        """
        dy = dlogits
        layers = list(zip(self.graph.nodes, self._layer_parameters, strict=True))
        for node, parameters in reversed(layers):
            need_dx = node is not self._first_trained
            dy, grads = node.layer.backward(
                self.backend, parameters, tape.pop(), dy, need_dx=need_dx
            )
            for name, key in node.keys.items():
                self.gradients.views[key][...] = grads[name]
                if observe is not None:
                    observe(f"gradient of {key}", grads[name])
            if node is self._first_trained:
                break

    def training_program(self, rule: UpdateRule) -> TrainingProgram:
        """Return the training with an optimizer as a program for `Backend.compile_epoch`.

        Raises:
            NotCompiledError: a layer has no compiled form.
        """
        fields = self._program_fields(training=True)
        return TrainingProgram(**fields, update=rule, l2=self.loss.l2)

    # Methods on host arrays

    def as_examples(
        self, images: NDArray[Any], labels: NDArray[Any], *, check: bool = True
    ) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return inputs as rows and labels as class indices, after checking them.

        Args:
            images: at least one image in any form that `load_mnist` returns, or features.
            labels: integers (N,) or one-hot rows (N, classes). With the loss "squared_error",
                targets (N, outputs), or (N,) for one output.
            check: whether to check the values of the images; False if they are known to be allowed.

        Returns:
            (N, pixels or features), uint8 or the network's dtype; and class indices (N,), int64, or
            targets (N, outputs) of the network's dtype.

        Raises:
            ValueError: there is no image, the numbers of images and labels differ, or a shape or a
                value is wrong.
            TypeError: images or labels have a wrong dtype.
        """
        rows = self.input.as_rows(images, dtype=self.dtype)
        if check:
            self.input.check(rows, images)
        if self.loss.has_classes:
            targets = as_labels(labels, classes=self.classes)
        else:
            targets = as_targets(labels, outputs=self.classes, dtype=self.dtype)
        example = "image" if isinstance(self.input, Pixels) else "example"
        if len(rows) != len(targets):
            target = "label" if self.loss.has_classes else "target"
            raise ValueError(
                f"got {count(len(rows), example)} and {count(len(targets), target)}, expected "
                "equal numbers"
            )
        if not len(rows):
            raise ValueError(f"expected at least one {example}, got none")
        return rows, targets

    def prepare(self) -> None:
        """Compile the prediction before its first call; this takes seconds, unless it is cached."""
        if self._compiled_inference is not None:
            self.predict_logits(np.zeros((1, *self.input_shape), np.uint8))

    def predict_logits(self, images: NDArray[Any]) -> NDArray[Any]:
        """Return the logits (N, classes) of host images; arguments as `predict_proba`."""
        return self._predict(images, probabilities=False)

    def predict_proba(self, images: NDArray[Any]) -> NDArray[Any]:
        """Return the outputs (N, classes) for host images, each in 0…1.

        With a softmax loss each row sums to 1. With a sigmoid loss each output is the probability
        of its own class or label, and rows need not sum to 1.

        Args:
            images: uint8 0…255, float 0…1 or bool; (N, 784), (N, 28, 28) or (N, 1, 28, 28). For a
                network on features, any finite numbers (N, features).

        Raises:
            ValueError: the images have the wrong shape or scale, or the loss is "squared_error",
                whose outputs are no probabilities.
            TypeError: they are not numbers.
        """
        if not self.loss.has_probabilities:
            raise ValueError(
                f"a network with the loss {self.loss.kind} has no probabilities; its outputs are "
                "what predict returns"
            )
        return self._predict(images, probabilities=True)

    def predict(self, images: NDArray[Any]) -> NDArray[Any]:
        """Return the most probable class of each image (N,); arguments as `predict_proba`.

        With the loss "squared_error", return the outputs (N, outputs), and with
        "multilabel_cross_entropy" 1 for each output above ½, otherwise 0.
        """
        logits = self.predict_logits(images)
        if self.loss.has_classes:
            return np.asarray(logits.argmax(axis=1), np.int64)
        return np.asarray(logits > 0, np.int64) if self.loss.has_probabilities else logits

    def state_dict(self) -> dict[str, NDArray[Any]]:
        """Return copies of the parameters as host arrays, by name (W1, b1, W2, …)."""
        return self.parameters.to_host()

    def load_state_dict(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Overwrite the parameters with host arrays as `state_dict` returns them.

        Raises:
            ValueError: a parameter is missing or unknown, has another shape, or holds a value that
                is not finite. No parameter has changed then.
        """
        self.parameters.set_from_host(state)

    def describe(self) -> str:
        """Return the layers in one line, such as "784 → linear 50 → relu → linear 10"."""
        words = ["×".join(map(str, self.input_shape))]
        for node in self.graph.nodes:
            words.append(node.layer.kind)
            if node.keys or node.output_shape != node.input_shape:
                words[-1] += " " + "×".join(map(str, node.output_shape))
        return " → ".join(words)

    def summary(self) -> Summary:
        """Return a table: each layer with its output shape and its number of parameters.

        The last line states the loss, the backend, and whether predictions are compiled. A trainer
        states the same about training when it is printed. The result is a string that a Python
        session shows without quotes.
        """
        mode = f"eager: {self.not_compiled}" if self.not_compiled else "compiled"
        footer = (
            f"{self.graph.parameter_count:,} parameters, {self.loss.kind}, {self.dtype} on "
            f"{self.backend.name}, {mode}"
        )
        return summarize(self.graph, footer, name=self.name)

    def _repr_html_(self) -> str:
        """Return the summary for notebooks."""
        return self.summary().html

    # Other libraries

    def to_onnx(self, path: str | os.PathLike[str], *, preprocess: bool = True) -> None:
        """Write the network as an ONNX model with opset 17 and a free number of images.

        The model computes in float32. Its output "probabilities" (N, classes) equals
        `predict_proba`. With a squared error, its output "outputs" equals `predict`.

        Args:
            path: the file.
            preprocess: if True, the input "images" is uint8 0…255 in the shape of the network's
                input, (N, 784) or (N, 1, 28, 28), and the model scales it. Otherwise, the input is
                what the first layer takes: pixels in 0…1 plus `pixel_shift`. The input of a
                network on features is always "features", float32.

        Raises:
            MissingPackageError: the package onnx is not installed.
            ValueError: a layer has no ONNX form; the message names it.
            DataError: the file cannot be written.
        """
        from mnist_accel.nn.interop.onnx_model import onnx_model

        file = as_path("path", path)
        content = onnx_model(
            self.graph,
            self.state_dict(),
            loss=self.loss.kind,
            pixel_shift=self.pixel_shift,
            name=self.name,
            input_name="images" if isinstance(self.input, Pixels) else "features",
            preprocess=preprocess and isinstance(self.input, Pixels),
        )
        with file_errors(f"write {file}"):
            write_atomically(file, content)

    def to_torch(self) -> Any:
        """Return a `torch.nn.Sequential` that computes the logits.

        It is in evaluation mode; call its `train` before you train it. Its input is that of the
        first layer: pixels in 0…1 plus `pixel_shift`.

        Raises:
            MissingPackageError: PyTorch is not installed.
            ValueError: a layer has no form in PyTorch; the message names it.
        """
        from mnist_accel.nn.interop.torch_module import to_module

        return to_module(self.graph, self.state_dict())

    @classmethod
    def from_torch(
        cls,
        module: Any,
        *,
        input: Input,  # noqa: A002
        backend: Backend | str = "auto",
        loss: Loss | None = None,
    ) -> Self:
        """Return a network with the layers and weights of a `torch.nn.Sequential`.

        Args:
            module: the module. The activation that the loss contains, a softmax or a sigmoid, is
                left out at its end.
            input: what the first layer takes.
            backend: the backend of the network, or its name.
            loss: what training minimizes; None for softmax cross-entropy.

        Raises:
            MissingPackageError: PyTorch is not installed.
            TypeError: the module is not a `torch.nn.Sequential`.
            ValueError: a layer is not supported; the message names the first one. Or the module
                ends in a softmax, which the loss does not contain.
        """
        from mnist_accel.nn.interop.torch_module import from_module

        loss = loss or SoftmaxCrossEntropy()
        layers, weights = from_module(module, outputs=LOSSES[loss.kind].outputs)
        settings = {"input": input, "backend": backend}
        return cls._with_weights(layers, weights, loss, settings)

    @classmethod
    def from_sklearn(cls, mlp: Any, *, backend: Backend | str = "auto") -> Self:
        """Return a network with the layers and weights of a fitted network of scikit-learn.

        Its inputs are features. Its classes are numbered in the order of `mlp.classes_`. For two
        classes, and for several labels, its outputs (N, 1) or (N, labels) are the probabilities of
        the second class or of each label.

        Args:
            mlp: an `MLPClassifier` or `MLPRegressor`.
            backend: the backend of the network, or its name.

        Raises:
            TypeError: it is neither of them.
            ValueError: it is not fitted or has no counterpart; the message gives the reason.
        """
        from mnist_accel.nn.interop.sklearn_mlp import from_mlp

        layers, weights, loss = from_mlp(mlp)
        settings = {"input": Features(mlp.n_features_in_), "backend": backend}
        return cls._with_weights(layers, weights, loss, settings)

    @classmethod
    def _with_weights(
        cls,
        layers: list[Layer],
        weights: list[dict[str, NDArray[Any]]],
        loss: Loss,
        settings: dict[str, Any],
    ) -> Self:
        """Return a network with the weights of each layer, in their dtype.

        Raises:
            ValueError: the weights of a layer have other shapes than the input requires.
        """
        arrays = [array for of_layer in weights for array in of_layer.values()]
        network = cls(layers, loss, dtype=np.result_type(np.float32, *arrays).name, **settings)
        shapes, state = network.graph.parameter_shapes, {}
        for number, (node, of_layer) in enumerate(
            zip(network.graph.nodes, weights, strict=True), start=1
        ):
            for name, key in node.keys.items():
                if of_layer[name].shape != shapes[key]:
                    raise ValueError(
                        f"layer {number} ({node.layer.kind}) has {name} {of_layer[name].shape}, "
                        f"but with {network.input} it needs {shapes[key]}; give another input"
                    )
                state[key] = of_layer[name]
        network.load_state_dict(state)
        return network

    # Compiled predictions

    @property
    def not_compiled(self) -> str:
        """The reason why predictions run eagerly; empty if they are compiled."""
        inference = self._inference
        return str(inference) if isinstance(inference, NotCompiledError) else ""

    @property
    def _compiled_inference(self) -> CompiledInference | None:
        """The network in a form that predicts in one call; None if the backend has none."""
        inference = self._inference
        return None if isinstance(inference, NotCompiledError) else inference

    @cached_property
    def _inference(self) -> CompiledInference | NotCompiledError:
        """The network in a form that predicts in one call, or the reason why there is none."""
        try:
            program = Program(**self._program_fields(training=False))
            return self.backend.compile_inference(program)
        except NotCompiledError as reason:
            return reason

    def _program_fields(self, *, training: bool) -> dict[str, Any]:
        """Return the fields that programs for training and for inference share."""
        if type(self) is not Network:
            raise NotCompiledError(
                f"{type(self).__name__} has no compiled form: a subclass of Network may compute "
                "something else"
            )
        return {
            "stages": lower(self.graph, training=training),
            "loss": self.loss.kind,
            "parameters": self.graph.parameter_count,
            "dtype": self.dtype,
            "pixel_shift": self.pixel_shift,
            "takes_pixels": isinstance(self.input, Pixels),
        }

    def _predict(self, images: NDArray[Any], *, probabilities: bool) -> NDArray[Any]:
        """Return the logits or the probabilities of host images."""
        rows = self.input.as_rows(images, dtype=self.dtype)
        if not len(rows):
            return np.empty((0, self.classes), self.dtype)
        compiled = self._compiled_inference
        if compiled is None:
            self.input.check(rows, images)
            return self._predict_eagerly(rows, probabilities=probabilities)
        try:
            return compiled.predict(self.parameters.flat, rows, probabilities=probabilities)
        except InputRangeError:
            self.input.check(rows, images)
            raise

    def _predict_eagerly(self, pixels: NDArray[Any], *, probabilities: bool) -> NDArray[Any]:
        backend, outputs = self.backend, []
        fitting = max(1, _PREDICTION_VALUES // self.graph.largest_tensor_per_image)
        size = min(_PREDICTION_BATCH, fitting)
        with backend.computation(self.kinds):
            for start in range(0, len(pixels), size):
                batch = backend.asarray(pixels[start : start + size])
                indices = backend.asarray(np.arange(batch.shape[0]))
                y, _ = self.forward(self.gather(batch, indices))
                if probabilities:
                    y = backend.probabilities(self.loss.kind, y)
                outputs.append(backend.to_numpy(y))
        return np.concatenate(outputs)


def _restore(
    cls: type[Network],
    layers: Sequence[Layer],
    loss: Loss,
    settings: dict[str, Any],
    weights: dict[str, NDArray[Any]],
) -> Network:
    """Return the network of a pickle."""
    network = cls.__new__(cls)
    Network.__init__(network, layers, loss, **settings)
    network.load_state_dict(weights)
    return network


def _checked_layers(layers: Sequence[Layer]) -> tuple[Layer, ...]:
    """Return the layers as a tuple.

    Raises:
        TypeError: they are not a sequence, or one of them is not a layer.
    """
    require_type("layers", layers, Iterable, "a list of layers")
    checked = tuple(layers)
    for number, layer in enumerate(checked, start=1):
        require_type(f"layer {number}", layer, Layer, "a layer such as Linear(10)")
    return checked
