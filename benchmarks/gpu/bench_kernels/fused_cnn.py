"""Two convolutions, linear layers and the loss, forward and backward, by clusters: fused_cnn.cu."""

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass

from backends import SGD
from backends.cupy.launch import clusters
from backends.cupy.launch.conv_shape import conv_shape_of
from backends.cupy.launch.fused_cnn import CnnLayer, fused_cnn, split_images
from backends.cupy.plan import parameters_of, plan_for
from backends.operations.common import Array
from backends.program import Stage
from benchmarks.gpu.bench_kernels import naive
from benchmarks.gpu.bench_kernels.comparison import Comparison, byte_count, pairs
from benchmarks.gpu.bench_kernels.gpu import Gpu, rows_of
from benchmarks.gpu.bench_kernels.recipes import multiply_adds, network_of
from mnist_accel.nn.network import Network


def comparisons(gpu: Gpu) -> Iterator[Comparison]:
    """Yield the recipes with two convolutions, if the GPU has clusters."""
    if gpu.capability >= clusters.MIN_CAPABILITY:
        for recipe in ("lenet", "fast99"):
            # With ReLU, a derivative would differ where a sign depends on rounding.
            yield step(gpu, network_of(recipe, gpu.dtype, activation="tanh"), 64)


@dataclass(frozen=True)
class Layer:
    """A stage with its output, tie masks and the gradient of the pre-activation."""

    stage: Stage
    y: Array
    mask: Array | None
    dy: Array


def step(gpu: Gpu, model: Network, images: int) -> Comparison:
    """Return a training step up to the gradients that `wgrad_update` reads."""
    program = model.training_program(SGD())
    cnn = plan_for(program, capability=gpu.capability).fused_cnn(images)
    assert cnn is not None
    pixels, first = math.prod(program.stages[0].input_shape), program.stages[0]
    weights, batch = gpu.weights_of(model), gpu.batch(images, pixels, shift=program.pixel_shift)
    fast, slow = ([layer_of(gpu, s, images) for s in program.stages] for _ in range(2))
    stored = range(1, len(fast) - 1)  # outputs that the fast kernel stores
    layers = [struct_of(gpu, layer, images, y=i in stored) for i, layer in enumerate(fast)]
    x, labels = gpu.empty(images, *first.input_shape), batch.dataset.labels[rows_of(batch)]
    gradient = gpu.cupy.zeros(program.parameters, gpu.dtype)
    naive_losses = gpu.empty(images), gpu.cupy.zeros(images, "int32")

    def run_naive() -> None:
        naive.gather(gpu, batch, x.reshape(images, pixels))
        naive_forward(gpu, weights, x, slow)
        naive.loss(gpu, program.loss, slow[-1].y, labels, None, slow[-1].dy, *naive_losses)
        naive_backward(gpu, weights, slow)
        naive_filter_gradients(gpu, gradient, x, slow[:2])

    state, of_linear = batch.state, range(2, len(fast))
    return Comparison(
        kernel="fused_cnn",
        sizes=f"{model.name}, {images} images",
        fast=lambda: fused_cnn(gpu.launcher_for(batch), cnn, weights, layers, batch),
        naive=run_naive,
        results=lambda: {
            **pairs("losses correct", (state.image_losses, state.image_correct), naive_losses),
            **{f"y of stage {i}": (fast[i].y, slow[i].y) for i in stored},
            **{f"dy of stage {i}": (fast[i].dy, slow[i].dy) for i in of_linear},
            **{f"filters of stage {i}": sums_and_gradient(layers[i], gradient) for i in range(2)},
        },
        terms=sum(math.prod(stage.input_shape) for stage in program.stages),
        multiply_adds=images * sum(map(multiply_adds_of_step, enumerate(program.stages))),
        moved=images * pixels + byte_count(weights, *(a for one in fast for a in (one.y, one.dy))),
    )


def layer_of(gpu: Gpu, stage: Stage, images: int) -> Layer:
    """Return the arrays of a stage."""
    shape = images, *stage.output_shape
    mask = gpu.empty(*shape, dtype="uint8") if stage.fused_pooling else None
    return Layer(stage, gpu.empty(*shape), mask, gpu.empty(*shape))


def struct_of(gpu: Gpu, layer: Layer, images: int, *, y: bool) -> CnnLayer:
    """Return the argument of the fast kernel, which stores `y` only if asked to."""
    stage = layer.stage
    sums = None
    if stage.kind == "conv2d":
        split = split_images(conv_shape_of(stage), images)
        sums = gpu.cupy.zeros((split.splits, split.parameters), gpu.dtype)
    return CnnLayer(
        y=layer.y if y else None,
        dy=None if stage.kind == "conv2d" else layer.dy,
        partial_sums=sums,
        weight=stage.weight or 0,
        bias=-1 if stage.bias is None else stage.bias,
        activation=stage.activation,
    )


def sums_and_gradient(layer: CnnLayer, gradient: Array) -> tuple[Array, Array]:
    """Return both gradients of the parameters of a convolution; 0 without a bias."""
    sums = layer.partial_sums
    assert sums is not None
    first = layer.weight if layer.bias < 0 else min(layer.weight, layer.bias)
    count = sums.shape[1]
    return sums.sum(axis=0), gradient[first : first + count]


def naive_forward(gpu: Gpu, weights: Array, x: Array, layers: list[Layer]) -> None:
    """Compute the outputs of all layers, one kernel each."""
    for layer in layers:
        stage, (weight, bias) = layer.stage, parameters_of(layer.stage, weights)
        x = x.reshape(len(x), *stage.input_shape)
        if stage.kind == "linear":
            naive.linear(gpu, x, weight, bias, layer.y, stage.activation)
        else:
            naive.conv2d(
                gpu, x, weight, bias, layer.y, layer.mask, conv_shape_of(stage),
                activation=stage.activation, ties="first",
            )  # fmt: skip
        x = layer.y


def naive_backward(gpu: Gpu, weights: Array, layers: list[Layer]) -> None:
    """Compute the gradients of the pre-activations of all layers but the last, one kernel each."""
    for below, layer in reversed(list(itertools.pairwise(layers))):
        stage, (weight, _) = layer.stage, parameters_of(layer.stage, weights)
        kind, x = below.stage.activation, below.y.reshape(len(below.y), *stage.input_shape)
        dx = below.dy.reshape(x.shape)
        if stage.kind == "linear":
            naive.linear_backward_x(gpu, layer.dy, weight, x, dx, kind)
        else:
            shape = conv_shape_of(stage)
            naive.conv2d_backward_x(
                gpu, layer.dy, layer.mask, weight, x, dx, shape, activation=kind
            )


def naive_filter_gradients(gpu: Gpu, gradient: Array, x: Array, layers: list[Layer]) -> None:
    """Compute the gradients of the parameters of convolutions, in the gradient vector."""
    for layer in layers:
        dweight, dbias = parameters_of(layer.stage, gradient)
        shape = conv_shape_of(layer.stage)
        naive.conv2d_backward_weight(gpu, layer.dy, layer.mask, x, dweight, dbias, shape)
        x = layer.y


def multiply_adds_of_step(numbered: tuple[int, Stage]) -> int:
    """Return the multiply-adds for an image, without those of the weights of linear layers."""
    index, stage = numbered
    forward, filters = (4, 1) if stage.kind == "conv2d" else (1, 0)
    return multiply_adds(stage) * (forward + filters + (index > 0))
