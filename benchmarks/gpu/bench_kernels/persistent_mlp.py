"""Two linear layers that one launch trains with small batches: persistent_mlp.cu."""

from collections.abc import Iterator

import numpy as np

from backends import SGD
from backends.cupy.launch import persistent_mlp
from backends.cupy.members import Memory
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
    """Yield steps of the recipe backprop."""
    yield training(gpu, network_of("backprop", gpu.dtype), images=10, steps=16)


def training(gpu: Gpu, model: Network, images: int, steps: int) -> Comparison:
    """Return training steps; a single thread of the naive kernel runs all of them.

    The last batch has an image less than the others.
    """
    program = model.training_program(SGD(weight_decay=0.01))
    constants = persistent_mlp.constants_for(
        program,
        batch_size=images,
        capability=gpu.capability,
        multiprocessors=gpu.multiprocessors,
    )
    assert constants is not None
    first, second = program.stages
    (inputs,), (hidden,), outputs = first.input_shape, first.output_shape, model.classes
    batch = gpu.batch(images * steps, inputs, classes=outputs, shift=program.pixel_shift)
    chunk, dataset = batch.chunk, batch.dataset
    ends = images * np.arange(1, steps + 1, dtype=np.int32)
    bounds = np.stack([ends - images, ends], axis=1)
    bounds[-1, 1] -= 1
    chunk.bounds[:steps] = gpu.cupy.array(bounds)
    weights = gpu.weights_of(model)
    parameters = parameters_of_all(program, weights)
    naive_parameters = gpu.copies(*parameters)
    naive_results = gpu.empty(steps, dtype="float64"), gpu.cupy.zeros(steps, "int32")
    scratch = persistent_mlp.new_scratch(Memory(gpu.cupy), program, steps)
    arguments = {
        "images": dataset.images,
        "labels": dataset.labels,
        "rows": chunk.rows,
        "bounds": chunk.bounds,
        "settings": naive.settings_of(program, steps),
        "sizes": {"inputs": inputs, "hidden": hidden, "outputs": outputs},
        **dict(zip(("weight1", "bias1", "weight2", "bias2"), naive_parameters, strict=True)),
        "x": gpu.empty(images, inputs),
        "h": gpu.empty(images, hidden),
        "dh": gpu.empty(images, hidden),
        "logits": gpu.empty(images, outputs),
        "dlogits": gpu.empty(images, outputs),
        **dict(zip(("losses", "correct"), naive_results, strict=True)),
    }
    return Comparison(
        kernel="persistent_mlp",
        sizes=f"{model.name}, {steps} steps of {images} images",
        fast=lambda: persistent_mlp.train(
            gpu.launcher, program, dataset, chunk, steps, parameters, scratch, constants
        ),
        naive=lambda: naive.launch(gpu, "persistent_mlp", "persistent_mlp", 1, **arguments),
        results=lambda: pairs(
            "weight1 bias1 weight2 bias2 losses correct",
            (*parameters, chunk.losses[:steps], chunk.correct[:steps]),
            (*naive_parameters, *naive_results),
        ),
        terms=inputs,
        multiply_adds=steps * images * (2 * multiply_adds(first) + 3 * multiply_adds(second)),
        moved=steps * images * inputs + 2 * byte_count(*parameters),
        steps=steps,
    )
