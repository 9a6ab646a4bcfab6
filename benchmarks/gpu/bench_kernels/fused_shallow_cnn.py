"""A convolution, a linear layer and the loss, forward and backward: fused_shallow_cnn.cu."""

from collections.abc import Iterator
from dataclasses import replace

from backends import SGD
from backends.cupy.launch.conv_shape import conv_shape_of
from backends.cupy.launch.fused_shallow_cnn import (
    ShallowCnnParameters,
    ShallowCnnResults,
    fused_shallow_cnn,
    fused_shallow_cnn_for,
)
from backends.cupy.plan import parameters_of
from benchmarks.gpu.bench_kernels import naive
from benchmarks.gpu.bench_kernels.comparison import Comparison, byte_count, pairs
from benchmarks.gpu.bench_kernels.gpu import Gpu, rows_of
from benchmarks.gpu.bench_kernels.recipes import multiply_adds, network_of
from mnist_accel.nn.network import Network


def comparisons(gpu: Gpu) -> Iterator[Comparison]:
    """Yield the recipe cnn with two sizes of batches."""
    for images in (64, 512):
        yield step(gpu, network_of("cnn", gpu.dtype), images)


def step(gpu: Gpu, model: Network, images: int, *, images_per_block: int = 0) -> Comparison:
    """Return a training step up to the gradients of the logits and of the filters.

    Args:
        gpu: the GPU.
        model: the network.
        images: number of images.
        images_per_block: images that a block computes; 0 for the number in a training.
    """
    program = model.training_program(SGD())
    cnn = fused_shallow_cnn_for(program, images)
    assert cnn is not None
    if images_per_block:
        cnn = replace(cnn, images_per_block=images_per_block)
    (conv, linear), shape = program.stages, conv_shape_of(program.stages[0])
    features, classes = linear.input_shape[0], linear.output_shape[0]
    weights = gpu.weights_of(model)
    (filters, _), (weight, bias) = (parameters_of(stage, weights) for stage in program.stages)
    assert filters is not None
    assert weight is not None
    assert conv.weight is not None
    assert linear.weight is not None
    assert conv.pooling is not None
    bias_offset = -1 if linear.bias is None else linear.bias
    offsets = ShallowCnnParameters(conv.weight, linear.weight, bias_offset)
    ties = conv.pooling.ties
    batch = gpu.batch(
        images, shape.height * shape.width, classes=classes, shift=program.pixel_shift
    )
    labels, state = batch.dataset.labels[rows_of(batch)], batch.state
    sums = gpu.empty(cnn.split.splits, cnn.split.parameters)
    fast = ShallowCnnResults(gpu.empty(images, features), gpu.empty(images, classes), sums)
    x, logits = gpu.empty(images, *conv.input_shape), gpu.empty(images, classes)
    y, dy = (gpu.empty(images, *conv.output_shape) for _ in range(2))
    mask = gpu.empty(images, *conv.output_shape, dtype="uint8")
    dlogits, dfilters = gpu.empty(images, classes), gpu.empty(*filters.shape)
    naive_losses = gpu.empty(images), gpu.cupy.zeros(images, "int32")

    def run_naive() -> None:
        naive.gather(gpu, batch, x)
        naive.conv2d(gpu, x, filters, None, y, mask, shape, activation=conv.activation, ties=ties)
        inputs, gradient = y.reshape(images, features), dy.reshape(images, features)
        naive.linear(gpu, inputs, weight, bias, logits, "identity")
        naive.loss(gpu, program.loss, logits, labels, None, dlogits, *naive_losses)
        naive.linear_backward_x(gpu, dlogits, weight, inputs, gradient, conv.activation)
        naive.conv2d_backward_weight(gpu, dy, mask, x, dfilters, None, shape)

    return Comparison(
        kernel="fused_shallow_cnn",
        sizes=f"{model.name}, {images} images",
        fast=lambda: fused_shallow_cnn(gpu.launcher_for(batch), cnn, weights, offsets, batch, fast),
        naive=run_naive,
        results=lambda: pairs(
            "features dlogits dfilters losses correct",
            (
                *(fast.features, fast.dlogits, sums[:, : filters.size].sum(axis=0)),
                *(state.image_losses, state.image_correct),
            ),
            (
                *(y.reshape(images, features), dlogits, dfilters.reshape(-1)),
                *naive_losses,
            ),
        ),
        terms=max(features, images * shape.filters),
        multiply_adds=images * (8 * multiply_adds(conv) + 2 * multiply_adds(linear)),
        moved=images * shape.height * shape.width + byte_count(weights, fast.features, sums),
    )
