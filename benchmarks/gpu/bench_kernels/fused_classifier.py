"""The last layers, the loss, and the gradients of all pre-activations: fused_classifier.cu."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from backends import SGD
from backends.cupy.launch.conv_shape import conv_shape_of
from backends.cupy.launch.fused_classifier import (
    Classifier,
    ClassifierConv,
    ClassifierLayer,
    fused_classifier,
)
from backends.cupy.plan import Plan, max_pooling_of, parameters_of
from backends.operations.common import Array
from benchmarks.gpu.bench_kernels import naive
from benchmarks.gpu.bench_kernels.comparison import Comparison, byte_count, pairs
from benchmarks.gpu.bench_kernels.gpu import Gpu, rows_of
from benchmarks.gpu.bench_kernels.recipes import multiply_adds, network_of, plan_of
from mnist_accel.nn.network import Network


def comparisons(gpu: Gpu) -> Iterator[Comparison]:
    """Yield the classifiers of recipes."""
    for recipe, images in (("two-layer", 512), ("three-layer", 64), ("cnn", 512)):
        yield classifier(gpu, network_of(recipe, gpu.dtype), images)
    for recipe in ("lenet", "fast99"):
        yield classifier(gpu, network_of(recipe, gpu.dtype), 64)
    # With ReLU, a derivative would differ where the sign of a pre-activation depends on rounding.
    yield classifier(gpu, network_of("fcnn", gpu.dtype, activation="sigmoid"), 60_000)


@dataclass(frozen=True)
class Arrays:
    """Arrays of the stages that the kernel computes, by the number of the stage.

    Attributes:
        x: input of each stage; at the end the logits, which the fast kernel does not store.
        dx: gradient of the pre-activation of each input.
        masks: tie masks of pooled convolutions.
    """

    x: dict[int, Array]
    dx: dict[int, Array]
    masks: dict[int, Array]


def classifier(gpu: Gpu, model: Network, images: int) -> Comparison:
    """Return the part of a training step that one launch computes after the first layer."""
    program = model.training_program(SGD())
    plan, weights = plan_of(program), gpu.weights_of(model)
    stages = plan.stages[plan.backward_end :]
    fast = arrays_of(gpu, plan, images)
    slow = replace(
        fast,
        x={i: gpu.copies(x)[0] for i, x in fast.x.items()},
        dx={i: gpu.empty(*dx.shape) for i, dx in fast.dx.items()},
    )
    batch = gpu.batch(images, 1, classes=model.classes)
    labels = batch.dataset.labels[rows_of(batch)]
    fused = Classifier(gpu.dtype, images, linear_layers(plan, fast), convolutions(plan, fast))
    launcher, dlogits = gpu.launcher_for(batch), gpu.empty(images, model.classes)
    results = dlogits, batch.state.image_losses, batch.state.image_correct
    naive_results = gpu.empty(*dlogits.shape), gpu.empty(images), gpu.cupy.zeros(images, "int32")

    def run_naive() -> None:
        naive_forward(gpu, plan, weights, slow)
        naive.loss(gpu, program.loss, slow.x[len(plan.stages)], labels, None, *naive_results)
        naive_backward(gpu, plan, weights, slow, naive_results[0])

    return Comparison(
        kernel="fused_classifier",
        sizes=f"{model.name}, {images} images",
        fast=lambda: fused_classifier(launcher, program.loss, fused, weights, batch, dlogits),
        naive=run_naive,
        results=lambda: {
            **pairs("dlogits losses correct", results, naive_results),
            **{f"dx of stage {i}": (fast.dx[i], slow.dx[i]) for i in fast.dx},
        },
        terms=sum(int(x[0].size) for x in fast.x.values()),
        multiply_adds=images
        * sum(multiply_adds(stage) * (2 if stage.kind == "linear" else 1) for stage in stages),
        moved=byte_count(weights, *fast.x.values(), *fast.dx.values(), *fast.masks.values()),
    )


def arrays_of(gpu: Gpu, plan: Plan, images: int) -> Arrays:
    """Return random inputs, and tie masks."""
    numbered = list(enumerate(plan.stages))[plan.backward_end :]
    x = {i: gpu.random(images, *stage.input_shape) for i, stage in numbered}
    return Arrays(
        x={**x, len(plan.stages): gpu.random(images, *plan.stages[-1].output_shape)},
        dx={i: gpu.empty(*array.shape) for i, array in x.items()},
        masks={i: gpu.masks(images, *s.output_shape) for i, s in numbered if max_pooling_of(s)},
    )


def linear_layers(plan: Plan, arrays: Arrays) -> list[ClassifierLayer]:
    """Return the linear layers of the fast kernel."""
    return [
        ClassifierLayer(
            x=arrays.x[i],
            dx=arrays.dx[i],
            weight=stage.weight or 0,
            bias=-1 if stage.bias is None else stage.bias,
            inputs=stage.input_shape[0],
            outputs=stage.output_shape[0],
            activation=plan.stages[i - 1].activation,
        )
        for i, stage in list(enumerate(plan.stages))[plan.classifier_begin :]
    ]


def convolutions(plan: Plan, arrays: Arrays) -> list[ClassifierConv]:
    """Return the convolutions of the fast kernel, from the last to the first."""
    return [
        ClassifierConv(
            x=arrays.x[i],
            dy=arrays.dx[i + 1],
            mask=arrays.masks.get(i),
            dx=arrays.dx[i],
            weight=plan.stages[i].weight or 0,
            activation=plan.stages[i - 1].activation,
            shape=conv_shape_of(plan.stages[i]),
        )
        for i in range(plan.classifier_begin - 1, plan.backward_end - 1, -1)
    ]


def naive_forward(gpu: Gpu, plan: Plan, weights: Array, arrays: Arrays) -> None:
    """Compute the linear layers, one kernel each."""
    for i, stage in list(enumerate(plan.stages))[plan.classifier_begin :]:
        weight, bias = parameters_of(stage, weights)
        naive.linear(gpu, arrays.x[i], weight, bias, arrays.x[i + 1], stage.activation)


def naive_backward(gpu: Gpu, plan: Plan, weights: Array, arrays: Arrays, dlogits: Array) -> None:
    """Compute the gradient of the input of each stage, one kernel each."""
    dy = dlogits
    for i, stage in reversed(list(enumerate(plan.stages))[plan.backward_end :]):
        weight, _ = parameters_of(stage, weights)
        x, dx, below = arrays.x[i], arrays.dx[i], plan.stages[i - 1].activation
        if stage.kind == "linear":
            naive.linear_backward_x(gpu, dy, weight, x, dx, below)
        else:
            shape, mask = conv_shape_of(stage), arrays.masks.get(i)
            dy = dy.reshape(len(dy), *stage.output_shape)
            naive.conv2d_backward_x(gpu, dy, mask, weight, x, dx, shape, activation=below)
        dy = dx
