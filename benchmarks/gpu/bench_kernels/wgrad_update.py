"""The gradients of all parameters with the update, and the loss of the batch.

The kernels are wgrad_update.cu and clustered_wgrad.cu.
"""

import math
from collections.abc import Iterator

from backends import UpdateRule
from backends.cupy.launch import clusters
from backends.cupy.launch.clustered_wgrad import clustered_wgrad
from backends.cupy.launch.conv_shape import NO_CONV, conv_shape_of
from backends.cupy.launch.graph_batch import GraphBatch
from backends.cupy.launch.updates import update
from backends.cupy.launch.wgrad_update import WgradLayer, wgrad_update
from backends.cupy.plan import Plan, max_pooling_of, parameters_of
from backends.operations.common import Array
from benchmarks.gpu.bench_kernels import naive
from benchmarks.gpu.bench_kernels.comparison import Comparison, byte_count, pairs
from benchmarks.gpu.bench_kernels.gpu import RATES, Gpu, result_of
from benchmarks.gpu.bench_kernels.recipes import multiply_adds, network_of, optimizer_of, plan_of
from mnist_accel.nn.network import Network


def comparisons(gpu: Gpu) -> Iterator[Comparison]:
    """Yield the end of the training steps of recipes."""
    sizes = ("two-layer", 512), ("three-layer", 64), ("lenet", 64), ("fast99", 64), ("cnn", 512)
    for recipe, images in (*sizes, ("lenet", 512), ("fcnn", 60_000)):
        model, rule = network_of(recipe, gpu.dtype), optimizer_of(recipe)
        yield gradients_and_update(gpu, model, rule, images, capability=gpu.capability)
    if gpu.capability >= clusters.MIN_CAPABILITY and gpu.dtype == "float32":
        for images in (256, 512):
            model, rule = network_of("two-layer", gpu.dtype), optimizer_of("two-layer")
            yield gradients_and_update(gpu, model, rule, images, is_clustered=True)


def gradients_and_update(
    gpu: Gpu,
    model: Network,
    rule: UpdateRule,
    images: int,
    *,
    is_clustered: bool = False,
    capability: int = 0,
) -> Comparison:
    """Return the end of a training step, given the gradients of all pre-activations.

    Args:
        gpu: the GPU.
        model: the network.
        rule: the optimizer.
        images: number of images.
        is_clustered: whether clusters compute the gradients.
        capability: compute capability of the GPU whose earlier kernels have computed partial sums.
    """
    program = model.training_program(rule)
    plan = plan_of(program, capability=capability)
    pixels = math.prod(plan.stages[0].input_shape)
    batch = gpu.batch(images, pixels, shift=program.pixel_shift)
    layers = layers_of(gpu, plan, images)
    count, states = program.parameters, len(rule.state_names)
    parameters = gpu.random(count), *(gpu.positive(count) for _ in range(states))
    naive_parameters, gradient = gpu.copies(*parameters), gpu.empty(count)
    totals = {
        index: gpu.empty(layer.split.parameters)
        for index, layer in layers.items()
        if plan.has_complete_sums(index, images)
    }
    summed = [layers[index].partial_sums for index in totals]
    computed = {index: layer for index, layer in layers.items() if index not in totals}
    x = gpu.empty(images, pixels)  # gathered by the naive kernels
    naive_result = gpu.empty(1, dtype="float64"), gpu.cupy.zeros(1, "int32")
    launcher, sizes = gpu.launcher_for(batch), (plan.tile(images), plan.narrow_columns)

    def slow() -> None:
        naive.gather(gpu, batch, x)
        for index, layer in layers.items():
            own = parameters_of(plan.stages[index], gradient)
            naive_gradients(gpu, layer, x, *own, totals.get(index))
        weights, *state = naive_parameters
        update(gpu.launcher, rule, weights, gradient, state, RATES)
        naive_batch_loss(gpu, batch, *naive_result)

    def fast() -> None:
        own = list(layers.values())
        if is_clustered:
            clustered_wgrad(launcher, rule, own, batch, parameters)
        else:
            wgrad_update(launcher, rule, own, *sizes, batch, parameters)

    return Comparison(
        kernel="clustered_wgrad" if is_clustered else "wgrad_update",
        sizes=f"{model.name}, {images} images, {rule.kind}",
        fast=fast,
        naive=slow,
        results=lambda: pairs(
            " ".join(("weights", *rule.state_names, "loss", "correct")),
            (*parameters, *result_of(batch)),
            (*naive_parameters, *naive_result),
        ),
        terms=max(images * math.prod(plan.stages[i].output_shape[1:]) for i in layers),
        multiply_adds=images * sum(multiply_adds(plan.stages[index]) for index in computed),
        moved=(images * pixels if 0 in computed else 0)
        + byte_count(*(array for layer in computed.values() for array in (layer.x, layer.dy)))
        + byte_count(*summed, *parameters, *parameters),
    )


def layers_of(gpu: Gpu, plan: Plan, images: int) -> dict[int, WgradLayer]:
    """Return the layers with parameters by stage, divided among blocks as in a training step."""
    layers = {}
    for index, (stage, split) in enumerate(zip(plan.stages, plan.splits(images), strict=True)):
        if split is None or stage.weight is None:
            continue
        is_complete = plan.has_complete_sums(index, images)
        has_splits = split.splits > 1 and not is_complete
        sums = gpu.random(split.splits, split.parameters) if is_complete else None
        layers[index] = WgradLayer(
            x=None if index == 0 else gpu.random(images, *stage.input_shape),
            dy=gpu.random(images, *stage.output_shape),
            mask=gpu.masks(images, *stage.output_shape) if max_pooling_of(stage) else None,
            split=split,
            partial_sums=gpu.empty(split.splits, split.parameters) if has_splits else sums,
            tile_counters=gpu.cupy.zeros(split.units, "int32") if has_splits else None,
            weight=stage.weight,
            bias=-1 if stage.bias is None else stage.bias,
            inputs=math.prod(stage.input_shape),
            outputs=stage.output_shape[0],
            conv=conv_shape_of(stage) if stage.kind == "conv2d" and not is_complete else NO_CONV,
        )
    return layers


def naive_gradients(
    gpu: Gpu,
    layer: WgradLayer,
    images: Array,
    dweight: Array | None,
    dbias: Array | None,
    total: Array | None,
) -> None:
    """Set the gradients of a layer; if its partial sums are complete, `total` is for their sum."""
    assert dweight is not None
    x = images if layer.x is None else layer.x
    if total is not None:
        assert layer.partial_sums is not None
        layer.partial_sums.sum(axis=0, out=total)
        dweight[...] = total[: dweight.size].reshape(dweight.shape)
        if dbias is not None:
            dbias[...] = total[dweight.size :]
    elif layer.conv == NO_CONV:
        naive.linear_backward_weight(gpu, layer.dy, x, dweight, dbias)
    else:
        naive.conv2d_backward_weight(gpu, layer.dy, layer.mask, x, dweight, dbias, layer.conv)


def naive_batch_loss(gpu: Gpu, batch: GraphBatch, loss: Array, correct: Array) -> None:
    """Set the mean loss of a batch, and the number of its correct predictions."""
    state = batch.state
    naive.launch(
        gpu, "losses", "batch_loss", 1,
        image_losses=state.image_losses, image_correct=state.image_correct, images=len(batch),
        loss=loss, correct=correct,
    )  # fmt: skip
