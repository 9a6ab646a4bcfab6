"""Two linear layers and the loss, forward and backward, by thread block clusters: fused_mlp.cu."""

from collections.abc import Iterator
from dataclasses import replace

from backends import SGD
from backends.cupy.launch import clusters
from backends.cupy.launch.fused_mlp import MlpParameters, MlpResults, fused_mlp, fused_mlp_for
from backends.cupy.plan import parameters_of
from benchmarks.gpu.bench_kernels import naive
from benchmarks.gpu.bench_kernels.comparison import Comparison, byte_count, pairs
from benchmarks.gpu.bench_kernels.gpu import Gpu, rows_of
from benchmarks.gpu.bench_kernels.recipes import multiply_adds, network_of
from mnist_accel.nn.network import Network


def comparisons(gpu: Gpu) -> Iterator[Comparison]:
    """Yield the recipes with two linear layers, if the GPU has clusters."""
    if gpu.capability >= clusters.MIN_CAPABILITY:
        for recipe, images in (("two-layer", 64), ("two-layer", 512), ("backprop", 64)):
            yield step(gpu, network_of(recipe, gpu.dtype), images)


def step(gpu: Gpu, model: Network, images: int, *, images_per_block: int = 0) -> Comparison:
    """Return a training step up to the gradients of both pre-activations.

    Args:
        gpu: the GPU.
        model: the network.
        images: number of images.
        images_per_block: images that a block computes; 0 for the number in a training.
    """
    program = model.training_program(SGD())
    mlp = fused_mlp_for(program, images, capability=gpu.capability)
    assert mlp is not None
    if images_per_block:
        mlp = replace(mlp, images_per_block=images_per_block)
    first, second = program.stages
    weights, batch = gpu.weights_of(model), gpu.batch(images, mlp.inputs, shift=program.pixel_shift)
    offsets = MlpParameters(
        *(-1 if at is None else at for one in program.stages for at in (one.weight, one.bias))
    )
    labels = batch.dataset.labels[rows_of(batch)]
    x, logits = gpu.empty(images, mlp.inputs), gpu.empty(images, mlp.outputs)
    state, shapes = batch.state, (mlp.hidden, mlp.hidden, mlp.outputs)
    fast, slow = (MlpResults(*(gpu.empty(images, size) for size in shapes)) for _ in range(2))
    naive_losses = gpu.empty(images), gpu.cupy.zeros(images, "int32")

    def run_naive() -> None:
        (weight1, bias1), (weight2, bias2) = (parameters_of(s, weights) for s in program.stages)
        naive.gather(gpu, batch, x)
        naive.linear(gpu, x, weight1, bias1, slow.hidden, first.activation)
        naive.linear(gpu, slow.hidden, weight2, bias2, logits, "identity")
        naive.loss(gpu, program.loss, logits, labels, None, slow.dlogits, *naive_losses)
        naive.linear_backward_x(
            gpu, slow.dlogits, weight2, slow.hidden, slow.dhidden, first.activation
        )

    return Comparison(
        kernel="fused_mlp",
        sizes=f"{model.name}, {images} images",
        fast=lambda: fused_mlp(gpu.launcher_for(batch), mlp, weights, offsets, batch, fast),
        naive=run_naive,
        results=lambda: pairs(
            "hidden dhidden dlogits losses correct",
            (*vars(fast).values(), state.image_losses, state.image_correct),
            (*vars(slow).values(), *naive_losses),
        ),
        terms=mlp.inputs,
        multiply_adds=images * (multiply_adds(first) + 2 * multiply_adds(second)),
        moved=images * mlp.inputs + byte_count(weights, *vars(fast).values()),
    )
