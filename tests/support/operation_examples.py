"""Example calls of every operation, for tests of properties that all operations share."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backends import LOSSES, SGD, AdaGrad, Adam, AdamW, Backend, RMSProp, UpdateRule

HostArray = NDArray[Any]

# (kernel_size, stride, padding). Images are not square, and numbers of channels differ.
CONVOLUTIONS = [
    ((1, 1), 1, 0),
    ((3, 3), 1, 0),
    ((3, 3), 1, 1),
    ((3, 3), 2, 1),
    ((5, 5), 1, 2),
    ((5, 5), 3, 0),
    ((3, 2), 1, 2),
    ((2, 3), 2, 0),
    ((1, 1), 3, 1),
]
# (size, stride): adjacent, overlapping and separated patches; some leave out the last pixels.
POOLINGS = [(2, 2), (3, 3), (1, 1), (3, 2), (2, 1), (2, 3), (7, 1)]
LARGE_POOLINGS = [(8, 1), (8, 3)]  # only for means: a tie mask has no bits for 64 positions
X_SHAPE = (3, 9, 8)  # channels, height, width
FILTERS = 4


@dataclass(frozen=True)
class Example:
    """A call of an operation, with host arrays.

    Attributes:
        operation: name of the method.
        arrays: array arguments by name; None for an optional argument that is left out.
        settings: other arguments by name.
        state: names of the arrays that are passed in the mapping `state`.
        terms: length of the longest sum.
        changes: names of the arrays that the call changes in place.
    """

    operation: str
    arrays: dict[str, HostArray | None]
    settings: dict[str, Any]
    terms: int = 1
    changes: tuple[str, ...] = ()
    state: tuple[str, ...] | None = None

    def __str__(self) -> str:
        settings = ",".join(f"{name}={value}" for name, value in self.settings.items())
        missing = "".join(f",no {name}" for name, array in self.arrays.items() if array is None)
        return f"{self.operation}({settings.replace(' ', '')}{missing})"

    def arguments(self, arrays: dict[str, Any]) -> dict[str, Any]:
        """Return the array arguments of the call, with the arrays of `state` in one mapping."""
        if self.state is None:
            return arrays
        others = {name: array for name, array in arrays.items() if name not in self.state}
        return {**others, "state": {name: arrays[name] for name in self.state}}

    def device_arrays(self, backend: Backend) -> dict[str, Any]:
        """Return the arrays on the device of a backend."""
        return {
            name: None if array is None else backend.asarray(array)
            for name, array in self.arrays.items()
        }


def call(
    example: Example,
    backend: Backend,
    *,
    arrays: dict[str, Any] | None = None,
    operation: Callable[..., Any] | None = None,
) -> list[Any]:
    """Run an example; return its results, or the arrays that it changes, as host arrays.

    Args:
        example: what to run.
        backend: runs it.
        arrays: arrays of the backend to take instead of the example's.
        operation: bound method to call instead of the backend's own.
    """
    arrays = example.device_arrays(backend) if arrays is None else arrays
    operation = operation or getattr(backend, example.operation)
    returned = operation(**example.arguments(arrays), **example.settings)
    if example.changes:
        assert returned is None
        results = tuple(arrays[name] for name in example.changes)
    else:
        results = returned if isinstance(returned, tuple) else (returned,)
    return [None if result is None else backend.to_numpy(result) for result in results]


def distinct(rng: np.random.Generator, shape: tuple[int, ...], dtype: str) -> HostArray:
    """Return distinct nonzero values around 0 in random order."""
    count = math.prod(shape)
    return (
        ((rng.permutation(count) - (count // 2 + 0.5)) / max(1, count)).reshape(shape).astype(dtype)
    )


def num_patches(size: int, patch: int, stride: int, padding: int = 0) -> int:
    """Return the number of patches along one axis."""
    return len(range(0, size + 2 * padding - patch + 1, stride))


def examples(dtype: str, batch: int) -> list[Example]:
    """Return calls of every operation on batches of `batch` images."""
    rng = np.random.default_rng(20 + batch)

    def normal(*shape: int) -> HostArray:
        return rng.standard_normal(shape).astype(dtype)

    return [
        *_dense(normal, batch),
        *_elementwise(normal, batch),
        *_convolutions(normal, batch),
        *_poolings(normal, rng, dtype, batch),
        *_losses(normal, rng, batch),
        *_updates(normal, batch),
        *_batches(normal, rng, dtype, batch),
    ]


def _dense(normal: Any, n: int) -> list[Example]:
    x, weight, bias, dy = normal(n, 7), normal(7, 5), normal(5), normal(n, 5)
    found = [
        Example("linear", {"x": x, "weight": weight, "bias": b}, {}, terms=8) for b in (bias, None)
    ]
    for need_dx in (True, False):
        arrays = {"dy": dy, "x": x, "weight": weight}
        found.append(Example("linear_backward", arrays, {"need_dx": need_dx}, terms=max(n, 5)))
    return found


def _elementwise(normal: Any, n: int) -> list[Example]:
    x, dy = 3 * normal(n, 13), normal(n, 13)
    outputs = {"relu": np.maximum(x, 0), "sigmoid": 1 / (1 + np.exp(-x)), "tanh": np.tanh(x)}
    found = []
    for name, y in outputs.items():
        kind = {"kind": name}
        found.append(Example("activation", {"x": x}, kind, terms=4))
        found.append(Example("activation_backward", {"dy": dy, "y": y}, kind, terms=4))
    return found


def _convolutions(normal: Any, n: int) -> list[Example]:
    channels, height, width = X_SHAPE
    found = []
    for (kh, kw), stride, padding in CONVOLUTIONS:
        oh, ow = num_patches(height, kh, stride, padding), num_patches(width, kw, stride, padding)
        taps = channels * kh * kw
        x, dy = normal(n, *X_SHAPE), normal(n, FILTERS, oh, ow)
        weight, bias = normal(FILTERS, channels, kh, kw), normal(FILTERS)
        step = {"stride": stride, "padding": padding}
        patch = {"kernel_size": (kh, kw), **step}
        found.append(Example("im2col", {"x": x}, patch))
        columns = normal(n, taps, oh * ow)
        shape = {"x_shape": (n, *X_SHAPE)}
        found.append(Example("col2im", {"columns": columns}, shape | patch, terms=kh * kw))
        for uniform in (False, True):
            for b in (bias, None):
                arrays = {"x": x, "weight": weight, "bias": b}
                settings = {**step, "uniform": uniform}
                found.append(Example("conv2d", arrays, settings, terms=taps + 1))
        for need_dx in (True, False):
            arrays = {"dy": dy, "x": x, "weight": weight}
            terms = max(n * oh * ow, FILTERS * kh * kw)
            found.append(Example("conv2d_backward", arrays, {**step, "need_dx": need_dx}, terms))
    return found


def _poolings(normal: Any, rng: np.random.Generator, dtype: str, n: int) -> list[Example]:
    channels, height, width = X_SHAPE
    found = []
    for size, stride in POOLINGS + LARGE_POOLINGS:
        pooled = (n, channels, num_patches(height, size, stride), num_patches(width, size, stride))
        pooling = {"size": size, "stride": stride}
        x, dy = distinct(rng, (n, *X_SHAPE), dtype), normal(*pooled)
        back = {"x_shape": (n, *X_SHAPE), **pooling}
        terms = size * size
        if (size, stride) in POOLINGS:
            bits = rng.integers(1, 1 << size * size, size=pooled)
            mask = bits.astype("uint8" if size * size <= 8 else "int64")
            found += [
                Example("max_pool2d", {"x": x}, {**pooling, "ties": ties})
                for ties in ("first", "all")
            ]
            found.append(Example("max_pool2d_backward", {"dy": dy, "mask": mask}, back, terms))
        found.append(Example("avg_pool2d", {"x": x}, pooling, terms + 1))
        found.append(Example("avg_pool2d_backward", {"dy": dy}, back, terms + 1))
    return found


def _losses(normal: Any, rng: np.random.Generator, n: int) -> list[Example]:
    logits, labels = 3 * normal(n, 10), rng.integers(10, size=n)
    both = {"logits": logits, "labels": labels}
    found = [
        Example("log_softmax", {"logits": logits}, {}, terms=10),
        Example("softmax", {"logits": logits}, {}, terms=100),
        *(
            Example("probabilities", {"logits": logits}, {"kind": kind}, terms=100)
            for kind in LOSSES
        ),
        Example("one_hot", {"labels": labels, "like": logits}, {}),
        Example("count_correct", both, {}),
    ]
    if n:  # there is no mean of no losses
        targets, weights = {"classes": labels, "numbers": normal(n, 10)}, abs(normal(n))
        several = (normal(n, 10) > 0).astype(logits.dtype)
        for kind, formula in LOSSES.items():
            is_multilabel = kind == "multilabel_cross_entropy"
            target = several if is_multilabel else targets[formula.targets]
            arrays = {"logits": logits, "targets": target}
            for extra in ({}, {"weights": weights}):
                terms = 10 * n + 10
                found.append(Example("loss", {**arrays, **extra}, {"kind": kind}, terms=terms))
    return found


def _updates(normal: Any, n: int) -> list[Example]:
    def example(rule: UpdateRule, step: int = 1) -> Example:
        arrays = {name: normal(11 * n) for name in ("weights", "grads")}
        # The absolute value, because some of them are sums of squares.
        arrays |= {name: abs(normal(11 * n)) for name in rule.state_names}
        return Example(
            "update",
            arrays,
            {"rule": rule, "lr": 0.1, "step": step},
            terms=16,
            changes=("weights", *rule.state_names),
            state=rule.state_names,
        )

    return [
        example(SGD(weight_decay=0.01)),
        example(SGD()),
        example(SGD(momentum=0.9, weight_decay=0.01)),
        example(SGD(momentum=0.9, nesterov=True, weight_decay=0.01)),
        example(AdaGrad(weight_decay=0.01)),
        example(RMSProp(weight_decay=0.01)),
        example(Adam(weight_decay=0.01)),
        example(AdamW(weight_decay=0.01), step=7),
    ]


def _batches(normal: Any, rng: np.random.Generator, dtype: str, n: int) -> list[Example]:
    pixels = rng.integers(0, 256, size=(20, 12), dtype=np.uint8)
    indices = rng.integers(20, size=n)
    return [
        Example(
            "gather_batch",
            {"images": images, "indices": indices},
            {"dtype": dtype, "shift": shift},
            terms=4,
        )
        for images in (pixels, (pixels / 255).astype(dtype))
        for shift in (0.0, -0.5)
    ]
