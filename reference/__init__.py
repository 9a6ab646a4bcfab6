"""The seven recipes in plain float64 loops: the judge every backend is compared with.

Nothing here is shared with the package: only NumPy and the standard library are imported, one
example is handled at a time, and every layer is a pair of functions, `layer` and `layer_backward`,
in which the sums of the formulas are loops. A backward function takes the gradient of the loss
with respect to the layer's output, `dy`, and the layer's input, and returns the gradient with
respect to that input, `dx`, followed by those of the parameters.

Shapes for one example: vectors `(n,)`, images `(channels, height, width)`, weights `(in, out)`,
filters `(out_channels, in_channels, kh, kw)`. Everything is float64.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
Weights = dict[str, Array]

# ---------------------------------------------------------------------------------- layers


def linear(x: Array, W: Array, b: Array) -> Array:
    """y[k] = Σ_i x[i]·W[i, k] + b[k]."""
    y = np.zeros(W.shape[1])
    for k in range(W.shape[1]):
        y[k] = np.sum(x * W[:, k]) + b[k]
    return y


def linear_backward(dy: Array, x: Array, W: Array) -> tuple[Array, Array, Array]:
    """dx[i] = Σ_k dy[k]·W[i, k], dW[i, k] = x[i]·dy[k], db[k] = dy[k]."""
    dx, dW, db = np.zeros_like(x), np.zeros_like(W), np.zeros(W.shape[1])
    for k in range(W.shape[1]):
        dx += dy[k] * W[:, k]
        dW[:, k] = dy[k] * x
        db[k] = dy[k]
    return dx, dW, db


def starts(length: int, size: int, stride: int) -> range:
    """First indices of all windows that lie wholly inside; what is left at the end is dropped."""
    return range(0, length - size + 1, stride)


def pad(x: Array, padding: int) -> Array:
    """Surround every channel with `padding` rows and columns of zeros."""
    channels, height, width = x.shape
    padded = np.zeros((channels, height + 2 * padding, width + 2 * padding))
    padded[:, padding : padding + height, padding : padding + width] = x
    return padded


def conv2d(
    x: Array, filters: Array, bias: Array | None, stride: int = 1, padding: int = 0
) -> Array:
    """Cross-correlation: y[o, i, j] = Σ patch(i, j)·filters[o] + bias[o], the filter not flipped.

    patch(i, j) is the part of the padded input whose upper left corner is (i·stride, j·stride).
    """
    padded = pad(x, padding)
    out_channels, _, kh, kw = filters.shape
    rows = starts(padded.shape[1], kh, stride)
    columns = starts(padded.shape[2], kw, stride)
    y = np.zeros((out_channels, len(rows), len(columns)))
    for i, r in enumerate(rows):
        for j, c in enumerate(columns):
            patch = padded[:, r : r + kh, c : c + kw].copy()
            for o in range(out_channels):
                y[o, i, j] = np.vdot(patch, filters[o])  # Σ over in_channels, kh and kw
    if bias is not None:
        for o in range(out_channels):
            y[o] += bias[o]
    return y


def conv2d_backward(
    dy: Array, x: Array, filters: Array, stride: int = 1, padding: int = 0
) -> tuple[Array, Array, Array]:
    """Tap (u, v) of filter o meets x[k, i·stride + u, j·stride + v] to make y[o, i, j].

    - dfilters[o, k, u, v] = Σ_ij dy[o, i, j]·x[k, i·stride + u, j·stride + v]
    - dx[k, i·stride + u, j·stride + v] += dy[o, i, j]·filters[o, k, u, v]
    - dbias[o] = Σ_ij dy[o, i, j], to be ignored by a layer that has no bias

    with x and dx padded.
    """
    padded = pad(x, padding)
    dpadded, dfilters = np.zeros_like(padded), np.zeros_like(filters)
    dbias = np.zeros(len(filters))
    out_channels, in_channels, kh, kw = filters.shape
    _, rows, columns = dy.shape
    for o in range(out_channels):
        dbias[o] = dy[o].sum()
        for k in range(in_channels):
            for u in range(kh):
                for v in range(kw):
                    # The pixels that the tap meets on its way over all output positions.
                    down = slice(u, u + stride * (rows - 1) + 1, stride)
                    across = slice(v, v + stride * (columns - 1) + 1, stride)
                    dfilters[o, k, u, v] = np.vdot(dy[o], padded[k, down, across])
                    dpadded[k, down, across] += dy[o] * filters[o, k, u, v]
    height, width = x.shape[1:]
    dx = dpadded[:, padding : padding + height, padding : padding + width]
    return dx, dfilters, dbias


def max_pool2d(x: Array, size: int = 2, stride: int | None = None) -> Array:
    """Largest value of each window; `stride` defaults to `size`, incomplete windows are dropped."""
    stride = size if stride is None else stride
    channels, height, width = x.shape
    rows, columns = starts(height, size, stride), starts(width, size, stride)
    y = np.zeros((channels, len(rows), len(columns)))
    for k in range(channels):
        for i, r in enumerate(rows):
            for j, c in enumerate(columns):
                y[k, i, j] = x[k, r : r + size, c : c + size].max()
    return y


def max_pool2d_backward(
    dy: Array, x: Array, size: int = 2, stride: int | None = None, ties: str = "first"
) -> Array:
    """Give dy to the maximum of its window.

    Where several positions hold the maximum, `ties="first"` gives all of dy to the first of them
    in row-major order, and `ties="all"` gives the whole dy to each.
    """
    if ties not in ("first", "all"):
        raise ValueError(f"ties is {ties!r}, expected 'first' or 'all'")
    stride = size if stride is None else stride
    channels, height, width = x.shape
    dx = np.zeros_like(x)
    for k in range(channels):
        for i, r in enumerate(starts(height, size, stride)):
            for j, c in enumerate(starts(width, size, stride)):
                window = x[k, r : r + size, c : c + size]
                if ties == "all":
                    dwindow = dx[k, r : r + size, c : c + size]
                    dwindow[window == window.max()] += dy[k, i, j]
                else:
                    down, across = divmod(int(window.argmax()), size)  # argmax finds the first
                    dx[k, r + down, c + across] += dy[k, i, j]
    return dx


def avg_pool2d(x: Array, size: int = 2, stride: int | None = None) -> Array:
    """Mean of each window; `stride` defaults to `size`, incomplete windows are dropped."""
    stride = size if stride is None else stride
    channels, height, width = x.shape
    rows, columns = starts(height, size, stride), starts(width, size, stride)
    y = np.zeros((channels, len(rows), len(columns)))
    for k in range(channels):
        for i, r in enumerate(rows):
            for j, c in enumerate(columns):
                y[k, i, j] = x[k, r : r + size, c : c + size].sum() / size**2
    return y


def avg_pool2d_backward(dy: Array, x: Array, size: int = 2, stride: int | None = None) -> Array:
    """Share dy equally among the size² positions of its window."""
    stride = size if stride is None else stride
    channels, height, width = x.shape
    dx = np.zeros_like(x)
    for k in range(channels):
        for i, r in enumerate(starts(height, size, stride)):
            for j, c in enumerate(starts(width, size, stride)):
                dx[k, r : r + size, c : c + size] += dy[k, i, j] / size**2
    return dx


def relu(x: Array) -> Array:
    """max(x, 0)."""
    return np.where(x > 0, x, 0.0)


def relu_backward(dy: Array, x: Array) -> Array:
    """Dy where x > 0, else 0; so 0 at x = 0."""
    return np.where(x > 0, dy, 0.0)


def sigmoid(x: Array) -> Array:
    """1/(1 + e⁻ˣ), for x < 0 written eˣ/(1 + eˣ): the exponent is never positive."""
    e = np.exp(-np.abs(x))
    return np.where(x >= 0, 1 / (1 + e), e / (1 + e))


def sigmoid_backward(dy: Array, x: Array) -> Array:
    """dy·a·(1 − a), with 1 − a = sigmoid(−x), which does not round to 0 for large x."""
    return dy * sigmoid(x) * sigmoid(-x)


def tanh(x: Array) -> Array:
    """Hyperbolic tangent."""
    return np.tanh(x)


def tanh_backward(dy: Array, x: Array) -> Array:
    """dy·(1 − tanh² x)."""
    dx: Array = dy * (1 - np.tanh(x) ** 2)
    return dx


ACTIVATIONS = {"relu": relu, "sigmoid": sigmoid, "tanh": tanh}
ACTIVATIONS_BACKWARD = {
    "relu": relu_backward,
    "sigmoid": sigmoid_backward,
    "tanh": tanh_backward,
}

# ---------------------------------------------------------------------------------- losses
# Each takes the logits z of one example and its class, and returns the loss and its gradient dz.


def one_hot(label: int, classes: int) -> Array:
    """Zeros, with 1 at `label`."""
    y = np.zeros(classes)
    y[label] = 1.0
    return y


def softmax(z: Array) -> Array:
    """e^z[k] / Σ e^z, with the largest logit subtracted from all so that no exponent is > 0."""
    e: Array = np.exp(z - z.max())
    return e / np.sum(e)


def softmax_cross_entropy(z: Array, label: int) -> tuple[float, Array]:
    """−log softmax(z)[label] = log Σ e^z − z[label]; dz = softmax(z) − onehot."""
    shifted = z - z.max()
    loss = math.log(np.exp(shifted).sum()) - shifted[label]
    return float(loss), softmax(z) - one_hot(label, len(z))


def binary_cross_entropy(z: Array, label: int) -> tuple[float, Array]:
    """−Σ_k [y log a + (1 − y) log(1 − a)] with a = sigmoid(z); dz = a − y.

    From the logits, each term is max(z, 0) − z·y + log(1 + e^−|z|).
    """
    y = one_hot(label, len(z))
    loss = 0.0
    for k in range(len(z)):
        loss += max(z[k], 0.0) - z[k] * y[k] + math.log1p(math.exp(-abs(z[k])))
    return float(loss), sigmoid(z) - y


def quadratic(z: Array, label: int) -> tuple[float, Array]:
    """½·Σ_k (a − y)² with a = sigmoid(z); dz = (a − y)·a·(1 − a)."""
    error = sigmoid(z) - one_hot(label, len(z))
    return float(0.5 * np.sum(error**2)), sigmoid_backward(error, z)


LOSSES = {
    "softmax_cross_entropy": softmax_cross_entropy,
    "binary_cross_entropy": binary_cross_entropy,
    "quadratic": quadratic,
}

# ------------------------------------------------------------------------------ optimizers
# One step each: (weights, gradients, state, lr) -> (new weights, new state), the update rules as
# PyTorch documents them. The state starts empty: `{}`. Weight decay is 0 unless given and acts on
# every parameter, biases too; all but AdamW add it to the gradient (an L2 penalty).

State = dict[str, Array]
Optimizer = Callable[..., tuple[Weights, State]]


def sgd(
    weights: Weights, gradients: Weights, state: State, lr: float, *, weight_decay: float = 0.0
) -> tuple[Weights, State]:
    """W ← w − lr·g."""
    new = {}
    for key, w in weights.items():
        g = gradients[key] + weight_decay * w
        new[key] = w - lr * g
    return new, state


def momentum(
    weights: Weights,
    gradients: Weights,
    state: State,
    lr: float,
    *,
    momentum: float = 0.9,
    weight_decay: float = 0.0,
) -> tuple[Weights, State]:
    """V ← momentum·v + g, w ← w − lr·v."""
    new, new_state = {}, {}
    for key, w in weights.items():
        g = gradients[key] + weight_decay * w
        v = momentum * state.get(f"v {key}", 0.0) + g
        new[key] = w - lr * v
        new_state[f"v {key}"] = v
    return new, new_state


def nesterov(
    weights: Weights,
    gradients: Weights,
    state: State,
    lr: float,
    *,
    momentum: float = 0.9,
    weight_decay: float = 0.0,
) -> tuple[Weights, State]:
    """V ← momentum·v + g, w ← w − lr·(g + momentum·v)."""
    new, new_state = {}, {}
    for key, w in weights.items():
        g = gradients[key] + weight_decay * w
        v = momentum * state.get(f"v {key}", 0.0) + g
        new[key] = w - lr * (g + momentum * v)
        new_state[f"v {key}"] = v
    return new, new_state


def adagrad(
    weights: Weights,
    gradients: Weights,
    state: State,
    lr: float,
    *,
    eps: float = 1e-10,
    weight_decay: float = 0.0,
) -> tuple[Weights, State]:
    """S ← s + g², w ← w − lr·g/(√s + eps)."""
    new, new_state = {}, {}
    for key, w in weights.items():
        g = gradients[key] + weight_decay * w
        s = state.get(f"s {key}", 0.0) + g**2
        new[key] = w - lr * g / (np.sqrt(s) + eps)
        new_state[f"s {key}"] = s
    return new, new_state


def rmsprop(
    weights: Weights,
    gradients: Weights,
    state: State,
    lr: float,
    *,
    alpha: float = 0.99,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
) -> tuple[Weights, State]:
    """S ← alpha·s + (1 − alpha)·g², w ← w − lr·g/(√s + eps)."""
    new, new_state = {}, {}
    for key, w in weights.items():
        g = gradients[key] + weight_decay * w
        s = alpha * state.get(f"s {key}", 0.0) + (1 - alpha) * g**2
        new[key] = w - lr * g / (np.sqrt(s) + eps)
        new_state[f"s {key}"] = s
    return new, new_state


def adam(
    weights: Weights,
    gradients: Weights,
    state: State,
    lr: float,
    *,
    beta1: float = 0.9,
    beta2: float = 0.999,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
) -> tuple[Weights, State]:
    """W ← w − lr·m̂/(√v̂ + eps), with t counting the steps from 1.

    m ← beta1·m + (1 − beta1)·g, m̂ = m/(1 − beta1ᵗ)
    v ← beta2·v + (1 − beta2)·g², v̂ = v/(1 − beta2ᵗ)
    """
    t = state.get("t", np.array(0.0)) + 1
    new, new_state = {}, {"t": t}
    for key, w in weights.items():
        g = gradients[key] + weight_decay * w
        m = beta1 * state.get(f"m {key}", 0.0) + (1 - beta1) * g
        v = beta2 * state.get(f"v {key}", 0.0) + (1 - beta2) * g**2
        m_hat = m / (1 - beta1**t)
        v_hat = v / (1 - beta2**t)
        new[key] = w - lr * m_hat / (np.sqrt(v_hat) + eps)
        new_state[f"m {key}"] = m
        new_state[f"v {key}"] = v
    return new, new_state


def adamw(
    weights: Weights,
    gradients: Weights,
    state: State,
    lr: float,
    *,
    beta1: float = 0.9,
    beta2: float = 0.999,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
) -> tuple[Weights, State]:
    """W ← w − lr·weight_decay·w, then Adam with the gradient as it is."""
    decayed = {key: w - lr * weight_decay * w for key, w in weights.items()}
    return adam(decayed, gradients, state, lr, beta1=beta1, beta2=beta2, eps=eps)


OPTIMIZERS: dict[str, Optimizer] = {
    "sgd": sgd,
    "momentum": momentum,
    "nesterov": nesterov,
    "adagrad": adagrad,
    "rmsprop": rmsprop,
    "adam": adam,
    "adamw": adamw,
}

# ------------------------------------------------------------------- learning-rate schedules
# Each gives the learning rate of one update; `step` counts the updates from 0.

Schedule = Callable[[int, int, float], float]


def constant_lr(step: int, total_steps: int, lr: float) -> float:
    """The same rate throughout."""
    return lr


def step_lr(
    step: int, total_steps: int, lr: float, *, every: int = 1000, gamma: float = 0.1
) -> float:
    """lr·gamma^⌊step/every⌋."""
    return float(lr * gamma ** (step // every))


def cosine_lr(step: int, total_steps: int, lr: float) -> float:
    """lr·½·(1 + cos(π·step/total_steps)); it would be 0 at `total_steps`, one past the last."""
    return lr * 0.5 * (1 + math.cos(math.pi * step / total_steps))


def one_cycle_lr(step: int, total_steps: int, lr: float) -> float:
    """Linear warm-up from lr/25 to lr, then half a cosine down to lr/25/10⁴ at the last step.

    With peak = 0.3·total_steps, start = lr/25 and end = start/10⁴:

    - step < peak: start + (lr − start)·step/peak
    - otherwise: end + (lr − end)·½·(1 + cos(π·(step − peak)/(total_steps − 1 − peak)))
    """
    peak, start, end = 0.3 * total_steps, lr / 25, lr / 25 / 1e4
    if step < peak:
        return start + (lr - start) * step / peak
    progress = (step - peak) / (total_steps - 1 - peak)
    return end + (lr - end) * 0.5 * (1 + math.cos(math.pi * progress))


# --------------------------------------------------------------------------------- recipes


@dataclass(frozen=True)
class Conv2d:
    """A convolution with filters `weights[W]` and, unless `b` is None, bias `weights[b]`."""

    W: str
    b: str | None
    shape: tuple[int, int, int, int]
    padding: int = 0


@dataclass(frozen=True)
class MaxPool2d:
    """2×2 max-pooling."""

    ties: str


@dataclass(frozen=True)
class Activation:
    """Elementwise function: relu, sigmoid or tanh."""

    name: str


@dataclass(frozen=True)
class Flatten:
    """(channels, height, width) to a vector, in C order."""


@dataclass(frozen=True)
class Linear:
    """A dense layer with `weights[W]` and `weights[b]`."""

    W: str
    b: str


Layer = Conv2d | MaxPool2d | Activation | Flatten | Linear


@dataclass(frozen=True)
class Recipe:
    """What one network computes.

    Attributes:
        loss: Key of `LOSSES`; the output sigmoid or softmax is part of the loss.
        activation: The one after every dense layer but the last.
        dense_sizes: Width of the flattened input and of each dense layer.
        convolutional: Layers in front of the dense ones.
        pixel_shift: The network sees p/255 + pixel_shift.
    """

    loss: str
    activation: str
    dense_sizes: tuple[int, ...]
    convolutional: tuple[Layer, ...] = ()
    pixel_shift: float = 0.0

    def layers(self, dense_layers: int | None = None) -> list[Layer]:
        """All layers in order, with as many dense ones as given (default: as in `dense_sizes`)."""
        count = len(self.dense_sizes) - 1 if dense_layers is None else dense_layers
        first = 1 + sum(isinstance(layer, Conv2d) for layer in self.convolutional)
        layers: list[Layer] = [*self.convolutional, Flatten()]
        for n in range(first, first + count):
            if n > first:
                layers.append(Activation(self.activation))
            layers.append(Linear(f"W{n}", f"b{n}"))
        return layers


RECIPES = {
    "fcnn": Recipe("binary_cross_entropy", "relu", (784, 128, 64, 10)),
    "two-layer": Recipe("softmax_cross_entropy", "relu", (784, 50, 10)),
    "backprop": Recipe("quadratic", "sigmoid", (784, 30, 10)),
    "cnn": Recipe(
        "softmax_cross_entropy",
        "relu",  # never used: there is one dense layer
        (1352, 10),
        (Conv2d("W1", None, (8, 1, 3, 3)), MaxPool2d("all")),
        pixel_shift=-0.5,
    ),
    "three-layer": Recipe("softmax_cross_entropy", "sigmoid", (784, 50, 100, 10)),
    "lenet": Recipe(
        "softmax_cross_entropy",
        "relu",
        (400, 120, 84, 10),
        (
            Conv2d("W1", "b1", (6, 1, 5, 5), padding=2),
            Activation("relu"),
            MaxPool2d("first"),
            Conv2d("W2", "b2", (16, 6, 5, 5)),
            Activation("relu"),
            MaxPool2d("first"),
        ),
    ),
    "fast99": Recipe(
        "softmax_cross_entropy",
        "relu",
        (512, 128, 10),
        (
            Conv2d("W1", "b1", (8, 1, 5, 5)),
            Activation("relu"),
            MaxPool2d("first"),
            Conv2d("W2", "b2", (32, 8, 5, 5)),
            Activation("relu"),
            MaxPool2d("first"),
        ),
    ),
}


def get_recipe(recipe: str | Recipe) -> Recipe:
    """The recipe of that name; a `Recipe`, such as one changed with `replace`, is used as it is."""
    return RECIPES[recipe] if isinstance(recipe, str) else recipe


def layers_for(recipe: Recipe, weights: Mapping[str, Array]) -> list[Layer]:
    """The layers of a recipe whose number of dense layers is read off the weights."""
    return recipe.layers(sum(W.ndim == 2 for W in weights.values()))


def initial_weights(
    recipe: str | Recipe, rng: np.random.Generator, hidden_sizes: tuple[int, ...] | None = None
) -> Weights:
    """Random weights of the right shapes, for tests; not the initialisation of any source.

    Weights are drawn with variance 2/fan_in, biases with standard deviation 0.1 so that a
    forgotten bias shows. `hidden_sizes` replaces the widths of the hidden dense layers.
    """
    recipe = get_recipe(recipe)
    sizes = recipe.dense_sizes
    if hidden_sizes is not None:
        sizes = (sizes[0], *hidden_sizes, sizes[-1])
    dense_shapes = pairwise(sizes)
    weights = {}
    for layer in recipe.layers(len(sizes) - 1):
        if isinstance(layer, Conv2d):
            out_channels, *fan_in = layer.shape
            weights[layer.W] = rng.standard_normal(layer.shape) * math.sqrt(2 / math.prod(fan_in))
            if layer.b is not None:
                weights[layer.b] = 0.1 * rng.standard_normal(out_channels)
        elif isinstance(layer, Linear):
            n_in, n_out = next(dense_shapes)
            weights[layer.W] = rng.standard_normal((n_in, n_out)) * math.sqrt(2 / n_in)
            weights[layer.b] = 0.1 * rng.standard_normal(n_out)
    return weights


# -------------------------------------------------------------------------------- training


def forward(recipe: str | Recipe, weights: Mapping[str, Array], image_u8: ArrayLike) -> list[Array]:
    """The network's input, then each layer's output in turn, for one image; the last: the logits.

    Args:
        recipe: Name or description.
        weights: W1, b1, …
        image_u8: 784 pixels 0…255 in any shape.
    """
    recipe = get_recipe(recipe)
    x = np.asarray(image_u8, dtype=np.float64).reshape(1, 28, 28) / 255 + recipe.pixel_shift
    values = [x]
    for layer in layers_for(recipe, weights):
        match layer:
            case Conv2d(W=W, b=b, padding=padding):
                x = conv2d(x, weights[W], None if b is None else weights[b], padding=padding)
            case MaxPool2d():
                x = max_pool2d(x)
            case Activation(name=name):
                x = ACTIVATIONS[name](x)
            case Flatten():
                x = x.ravel()
            case Linear(W=W, b=b):
                x = linear(x, weights[W], weights[b])
        values.append(x)
    return values


def loss_and_gradients(
    recipe: str | Recipe, weights: Mapping[str, Array], image_u8: ArrayLike, label: int
) -> tuple[float, Weights]:
    """Loss of one image and its gradient for every parameter, by the chain rule from the back."""
    recipe = get_recipe(recipe)
    *inputs, logits = forward(recipe, weights, image_u8)
    loss, d = LOSSES[recipe.loss](logits, label)
    gradients = {}
    for layer, x in zip(reversed(layers_for(recipe, weights)), reversed(inputs), strict=True):
        match layer:
            case Conv2d(W=W, b=b, padding=padding):
                d, gradients[W], dbias = conv2d_backward(d, x, weights[W], padding=padding)
                if b is not None:
                    gradients[b] = dbias
            case MaxPool2d(ties=ties):
                d = max_pool2d_backward(d, x, ties=ties)
            case Activation(name=name):
                d = ACTIVATIONS_BACKWARD[name](d, x)
            case Flatten():
                d = d.reshape(x.shape)
            case Linear(W=W, b=b):
                d, gradients[W], gradients[b] = linear_backward(d, x, weights[W])
    return loss, gradients


def batch_loss_and_gradients(
    recipe: str | Recipe, weights: Mapping[str, Array], images_u8: ArrayLike, labels: ArrayLike
) -> tuple[float, Weights]:
    """Loss and gradients, each the mean over the examples of the batch."""
    images, classes = np.asarray(images_u8), np.asarray(labels)
    mean_loss = 0.0
    mean_gradients = {key: np.zeros_like(w) for key, w in weights.items()}
    for image, label in zip(images, classes, strict=True):
        loss, gradients = loss_and_gradients(recipe, weights, image, int(label))
        mean_loss += loss / len(images)
        for key, gradient in gradients.items():
            mean_gradients[key] += gradient / len(images)
    return mean_loss, mean_gradients


def train(
    recipe: str | Recipe,
    weights: Mapping[str, ArrayLike],
    images_u8: ArrayLike,
    labels: ArrayLike,
    *,
    optimizer: str,
    lr: float,
    steps: int,
    batch_size: int,
    schedule: Schedule = constant_lr,
    **options: float,
) -> tuple[Weights, list[float]]:
    """Run `steps` updates on consecutive batches of the images, in the order given.

    Args:
        recipe: Name or description.
        weights: W1, b1, … to start from, of any float type; left as they are.
        images_u8: (N, …) with 784 pixels 0…255 for each image.
        labels: (N,) classes.
        optimizer: Key of `OPTIMIZERS`.
        lr: Base learning rate.
        steps: Number of updates.
        batch_size: Examples per update.
        schedule: Learning rate from (step, total_steps, lr).
        **options: For the optimizer: weight_decay, momentum, beta1, …

    Returns:
        The weights after the last update, and the mean loss of every batch before its update.

    Raises:
        ValueError: There are fewer than steps·batch_size images.
    """
    images, classes = np.asarray(images_u8), np.asarray(labels)
    if len(images) < steps * batch_size:
        raise ValueError(f"{len(images)} images, expected at least {steps} × {batch_size}")
    current = {key: np.array(w, dtype=np.float64) for key, w in weights.items()}
    state: State = {}
    losses = []
    for step in range(steps):
        batch = slice(step * batch_size, (step + 1) * batch_size)
        loss, gradients = batch_loss_and_gradients(recipe, current, images[batch], classes[batch])
        current, state = OPTIMIZERS[optimizer](
            current, gradients, state, schedule(step, steps, lr), **options
        )
        losses.append(loss)
    return current, losses
