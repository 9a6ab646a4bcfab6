"""A small convolutional network that one launch trains image by image: persistent_cnn.cu."""

from collections.abc import Iterator

import numpy as np

from backends import SGD
from backends.cupy.launch import persistent_cnn
from backends.cupy.launch.conv_shape import conv_shape_of
from benchmarks.gpu.bench_kernels import naive
from benchmarks.gpu.bench_kernels.comparison import Comparison, byte_count, pairs
from benchmarks.gpu.bench_kernels.gpu import Gpu
from benchmarks.gpu.bench_kernels.recipes import (
    multiply_adds,
    network_of,
    parameters_of_all,
)
from mnist_accel.nn.network import Network


def comparisons(gpu: Gpu) -> Iterator[Comparison]:
    """Yield steps of the recipe cnn."""
    yield training(gpu, network_of("cnn", gpu.dtype), steps=16)


def training(gpu: Gpu, model: Network, steps: int) -> Comparison:
    """Return training steps; a single thread of the naive kernel runs all of them."""
    program = model.training_program(SGD(weight_decay=0.01))
    constants, (convolution, linear) = persistent_cnn.constants_for(program), program.stages
    assert constants is not None
    shape, features, classes = conv_shape_of(convolution), linear.input_shape[0], model.classes
    batch = gpu.batch(steps, shape.height * shape.width, classes=classes, shift=program.pixel_shift)
    chunk, dataset = batch.chunk, batch.dataset
    ends = np.arange(1, steps + 1, dtype=np.int32)
    chunk.bounds[:steps] = gpu.cupy.array(np.stack([ends - 1, ends], axis=1))
    weights = gpu.weights_of(model)
    filters, weight, bias = parameters_of_all(program, weights)
    parameters, naive_parameters = (filters, weight, bias), gpu.copies(filters, weight, bias)
    naive_results = gpu.empty(steps, dtype="float64"), gpu.cupy.zeros(steps, "int32")
    arguments = {
        "images": dataset.images,
        "labels": dataset.labels,
        "rows": chunk.rows,
        "settings": naive.settings_of(program, steps),
        "conv": shape,
        "classes": classes,
        **dict(zip(("filters", "weight", "bias"), naive_parameters, strict=True)),
        "image": gpu.empty(shape.height * shape.width),
        "features": gpu.empty(features),
        "gradients": gpu.empty(features),
        "mask": gpu.masks(features),
        "logits": gpu.empty(classes),
        "dlogits": gpu.empty(classes),
        **dict(zip(("losses", "correct"), naive_results, strict=True)),
    }
    return Comparison(
        kernel="persistent_cnn",
        sizes=f"{model.name}, {steps} steps",
        fast=lambda: persistent_cnn.train(
            gpu.launcher, program, dataset, chunk, steps, parameters, constants
        ),
        naive=lambda: naive.launch(gpu, "persistent_cnn", "persistent_cnn", 1, **arguments),
        results=lambda: pairs(
            "filters weight bias losses correct",
            (*parameters, chunk.losses[:steps], chunk.correct[:steps]),
            (*naive_parameters, *naive_results),
        ),
        terms=features,
        multiply_adds=steps * sum(3 * multiply_adds(stage) for stage in program.stages),
        moved=steps * shape.height * shape.width + 2 * byte_count(*parameters),
        steps=steps,
    )
