"""Two convolutions, linear layers and the loss, forward and backward, by clusters: fused_cnn.cu."""

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass

from backends import SGD
from backends.cupy.launch import clusters
from backends.cupy.launch.conv_shape import conv_shape_of
from backends.cupy.launch.fused_cnn import CnnLayer, fused_cnn
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
    """A stage with its outputs, tie masks and gradients of the pre-activations."""

    stage: Stage
    y: Array
    mask: Array | None
    dy: Array

    @property
    def all_ties(self) -> bool:
        """Whether all maxima of a pooling patch receive the gradient."""
        return self.stage.fused_pooling is not None and self.stage.fused_pooling.ties == "all"


def step(gpu: Gpu, model: Network, images: int) -> Comparison:
    """Return a training step up to the gradients of all pre-activations."""
    program = model.training_program(SGD())
    cnn = plan_for(program, capability=gpu.capability).fused_cnn(images)
    assert cnn is not None
    pixels, last = math.prod(program.stages[0].input_shape), program.stages[-1]
    weights, batch = gpu.weights_of(model), gpu.batch(images, pixels, shift=program.pixel_shift)
    fast, slow = ([layer_of(gpu, s, images) for s in program.stages] for _ in range(2))
    layers = [struct_of(layer, y=layer.stage is not last) for layer in fast]
    x, labels = gpu.empty(images, pixels), batch.dataset.labels[rows_of(batch)]
    naive_losses = gpu.empty(images), gpu.cupy.zeros(images, "int32")

    def run_naive() -> None:
        naive.gather(gpu, batch, x)
        naive_forward(gpu, weights, x, slow)
        naive.loss(gpu, program.loss, slow[-1].y, labels, None, slow[-1].dy, *naive_losses)
        naive_backward(gpu, weights, slow)

    state = batch.state
    return Comparison(
        kernel="fused_cnn",
        sizes=f"{model.name}, {images} images",
        fast=lambda: fused_cnn(gpu.launcher_for(batch), cnn, weights, layers, batch),
        naive=run_naive,
        results=lambda: {
            **pairs("losses correct", (state.image_losses, state.image_correct), naive_losses),
            **{f"y of stage {i}": (fast[i].y, slow[i].y) for i in range(len(fast) - 1)},
            **{f"mask of stage {i}": (fast[i].mask, slow[i].mask) for i in range(2)},
            **{f"dy of stage {i}": (fast[i].dy, slow[i].dy) for i in range(len(fast))},
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


def struct_of(layer: Layer, *, y: bool) -> CnnLayer:
    """Return the argument of the fast kernel, which does not store the logits."""
    stage = layer.stage
    return CnnLayer(
        y=layer.y if y else None,
        mask=layer.mask,
        dy=layer.dy,
        weight=stage.weight or 0,
        bias=-1 if stage.bias is None else stage.bias,
        activation=stage.activation,
        all_ties=layer.all_ties,
    )


def naive_forward(gpu: Gpu, weights: Array, x: Array, layers: list[Layer]) -> None:
    """Compute the outputs of all layers, one kernel each."""
    for layer in layers:
        stage, (weight, bias) = layer.stage, parameters_of(layer.stage, weights)
        x = x.reshape(len(x), *stage.input_shape)
        if stage.kind == "linear":
            naive.linear(gpu, x, weight, bias, layer.y, stage.activation)
        else:
            shape, ties = conv_shape_of(stage), "all" if layer.all_ties else "first"
            naive.conv2d(
                gpu, x, weight, bias, layer.y, layer.mask, shape,
                activation=stage.activation, ties=ties,
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


def multiply_adds_of_step(numbered: tuple[int, Stage]) -> int:
    """Return the multiply-adds for an image: forward, and back unless it is the first stage."""
    index, stage = numbered
    forward = 4 if stage.kind == "conv2d" else 1
    return multiply_adds(stage) * (forward + (index > 0))
