"""Every kernel compiles for every supported GPU within its register budget, without spills.

The budget is in a comment above the kernel. The tests need NVRTC, but no GPU.
"""

import functools
import itertools
import re
from collections import defaultdict
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest

from backends.cupy.launch import (
    clusters,
    convolution,
    fused_classifier,
    fused_shallow_cnn,
    persistent_mlp,
    tensor_linear,
)
from backends.cupy.launch.conv_shape import ConvShape
from backends.cupy.launch.fused_cnn import FusedCnn
from backends.cupy.launch.fused_mlp import FusedMlp
from backends.cupy.launch.tiles import LARGE, SMALL
from backends.cupy.launch.wgrad_update import filter_tile_for
from backends.cupy.loader import CUPY_OPTIONS, Kernels, options_for, source
from benchmarks.gpu import overheads
from mnist_accel import nn
from mnist_accel.nn import layers, losses
from mnist_accel.nn.inputs import Pixels
from mnist_accel.nn.network import Network
from mnist_accel.recipes.models import RECIPES, create_model
from mnist_accel.training.chunks import MemberChunk, run_together
from mnist_accel.training.trainer import Trainer
from tests.support import nvrtc
from tests.support.cuda_emulator.build import KERNEL, kernels_in
from tests.support.cuda_emulator.emulated_cupy import EmulatedCupy
from tests.support.emulated_backend import EmulatedBackend

FOLDER = Path(__file__).parents[2] / "backends" / "cupy" / "kernels"
BUDGET = re.compile(r"// At most (\d+) registers\.\n" + KERNEL.pattern)
ALL_FILES = sorted(str(path.relative_to(FOLDER).with_suffix("")) for path in FOLDER.rglob("*.cu"))
NAIVE_FILES = [file for file in ALL_FILES if file.startswith("naive/")]
FILES = [file for file in ALL_FILES if file not in NAIVE_FILES]
# The files whose kernels run only on newer GPUs, with the lowest compute capability.
MIN_CAPABILITIES = {
    "tensor_linear": tensor_linear.MIN_CAPABILITY,
    "tensor_wgrad": tensor_linear.MIN_CAPABILITY,
    "fused_cnn": clusters.MIN_CAPABILITY,
    "clustered_wgrad": clusters.MIN_CAPABILITY,
    "fused_mlp": clusters.MIN_CAPABILITY,
}
FLOAT32_ONLY = {"fused_shallow_cnn"}  # the registers do not suffice for float64
Constants = dict[str, str | int]
Options = tuple[str, ...]
PERSISTENT_CNN: Constants = {"HEIGHT": 28, "WIDTH": 28, "CLASSES": 10, "WARPS_PER_FILTER": 1}
PERSISTENT_MLP: Constants = {"BLOCKS": 8, "INPUTS": 784, "OUTPUTS": 10, "THREADS": 256}
SHALLOW_CNN: Constants = {"FILTERS": 8, "FILTERS_PER_THREAD": 4, "CLASSES": 10, "ALL_TIES": 0}
SHALLOW_CNN |= {"GATHER": 1, "INPUT": "float", "HEIGHT": 28, "WIDTH": 28}
WGRAD_UPDATE: Constants = {"MAX_LAYERS": 16}
CLASSIFIER: Constants = {"MAX_LAYERS": 16, "PIXEL_TILE": 2}
LOSSES = ("SOFTMAX_CROSS_ENTROPY", "BINARY_CROSS_ENTROPY", "QUADRATIC")


def cnn_constants(dtype: str, loss: str, size: int, padding: int, *outputs: int) -> Constants:
    """Return options of fused_cnn.cu for images of 12×12 pixels."""
    shapes = (
        ConvShape(2, 12, 12, 4, size, padding, pool=2),
        ConvShape(4, 6, 6, 16, size, padding, pool=2),
    )
    cnn = FusedCnn(dtype, loss, shapes, outputs)
    assert cnn.fits
    return {"GATHER": 1, "INPUT": "float", **cnn.constants}


# Variants that no recipe launches. They are compiled for one architecture only; the variants that
# recipes launch are compiled for all.
OTHERS: dict[str, list[Constants]] = {
    "activations": [{"ACTIVATION": "TANH", "GATHER": 1, "INPUT": "uint8"}],
    "batches": [{"PIXEL": "float"}],
    "convolution": [
        {
            "KERNEL_SIZE": size,
            "FILTERS_PER_THREAD": filters,
            "POOL": 2,
            "PADDED": 1,
            "ACTIVATION": "TANH",
            "GATHER": 1,
            "INPUT": "float",
            "THREADS": convolution.CONV2D_THREADS,
        }
        for size, filters in ((7, 3), (3, 8), (1, 8), (32, 1))
    ],
    "convolution_gradients": [
        {
            "KERNEL_SIZE": size,
            "CHANNELS_PER_THREAD": channels,
            "POOL": 2,
            "PIXEL_TILE": 2,
            "THREADS": 256,
            **filter_tile_for(size).constants,
        }
        for size, channels in ((7, 8), (3, 4), (1, 4), (32, 1))
    ],
    "fused_classifier": [
        {
            "LOSS": "BINARY_CROSS_ENTROPY",
            "IMAGES_PER_BLOCK": images,
            "KERNEL_SIZE": size,
            "CHANNELS_PER_THREAD": channels,
            "MAX_THREADS": 512,
            **CLASSIFIER,
        }
        for images, size, channels in ((1, 3, 8), (2, 5, 6), (4, 0, 1), (8, 7, 8))
    ]
    + [
        {
            "LOSS": "QUADRATIC",
            "IMAGES_PER_BLOCK": 32,
            "KERNEL_SIZE": 0,
            "CHANNELS_PER_THREAD": 1,
            "MAX_THREADS": LARGE.threads,
            **CLASSIFIER,
            **LARGE.constants,
        }
    ],
    "fused_cnn": [
        cnn_constants("float32", "binary_cross_entropy", 7, 3, 128, 32, 10),
        cnn_constants("float32", "quadratic", 1, 0, 128, 10),
    ],
    "fused_shallow_cnn": [
        SHALLOW_CNN
        | {"ACTIVATION": "TANH", "LOSS": loss, "KERNEL_SIZE": size, "IMAGES_PER_BLOCK": images}
        for loss, size, images in zip(LOSSES, (1, 2, 3), (4, 2, 1), strict=True)
    ],
    "linear": [
        {"ACTIVATION": "TANH", "GATHER": 1, "INPUT": "float", **tile.constants}
        for tile in (SMALL, LARGE)
    ],
    "losses": [
        *({"LOSS": loss, "TARGET": "int32", "WEIGHTED": 0} for loss in LOSSES),
        {"LOSS": "SQUARED_ERROR", "TARGET": "float", "WEIGHTED": 1},
    ],
    "order": [{"ORDER": kind, "ROUNDS": 6} for kind in ("REPLACEMENT", "FULL")],
    "persistent/persistent_cnn": [
        {
            "PIXEL": "float",
            "KERNEL_SIZE": 5,
            "FILTERS": 9,
            "ACTIVATION": "TANH",
            "LOSS": loss,
            "ALL_TIES": 0,
            **PERSISTENT_CNN,
        }
        for loss in LOSSES[1:]
    ],
    "persistent/persistent_mlp": [
        {
            "PIXEL": "float",
            "HIDDEN": hidden,
            "BATCH": 16,
            "IMAGES_PER_PASS": images,
            "CLUSTER": 1,
            "ACTIVATION": "RELU",
            "LOSS": loss,
            **PERSISTENT_MLP,
        }
        for loss, hidden, images in zip(LOSSES, (50, 96, 5), (8, 4, 16), strict=True)
    ],
    "pooling": [{"MASK": "int64"}],
    "wgrad_update": [
        WGRAD_UPDATE
        | {"RULE": rule, "PIXEL": pixel, "NARROW_COLUMNS": columns}
        | {**filter_tile_for(size).constants, **tile.constants}
        for rule, size, tile, columns, pixel in (
            ("MOMENTUM", 1, LARGE, 1, "float"),
            ("ADAGRAD", 2, SMALL, 16, "uint8"),
            ("RMSPROP", 4, LARGE, 10, "uint8"),
            ("ADAM", 5, LARGE, 16, "uint8"),
        )
    ],
}
# The files that no recipe launches.
NO_RECIPE: dict[str, Constants] = {
    "activations": {"ACTIVATION": "SIGMOID", "GATHER": 0, "INPUT": "REAL"},
    "penalty": {"MAX_LAYERS": 16, "THREADS": 1024},
}


VARIANTS = 70, 80, 90  # from these capabilities on, the recipes launch other kernels
# Numbers of blocks and threads that a launch aims for. With the small numbers each thread does as
# much work as with batches of thousands of images.
DEFAULT_SIZES = fused_classifier.TARGET_BLOCKS, convolution.TARGET_THREADS
SIZES_OF_LARGE_BATCHES = 2, 1


@functools.cache
def launched(
    *sizes: tuple[int, int], capability: int = 90, members: int = 1, dtype: str = "float32"
) -> dict[str, set[Options]]:
    """Return, by file, the options of all kernels that the recipes launch, compiled and eager.

    Capabilities between those of `VARIANTS` launch the same as the next lower one. With several
    members, only compiled kernels are launched.
    """
    found: dict[str, set[Options]] = defaultdict(set)
    for file, constants in NO_RECIPE.items() if members == 1 else ():
        found[file].add(options_for(dtype, **constants))

    def record(kernels: Kernels, file: str, name: str, options: Options) -> Any:
        found[file].add(options)
        return Mock()

    def launch(name: str, batch_size: int, *, compiled: bool) -> None:
        backend = EmulatedBackend(capability=str(capability))
        trainer = Trainer(
            create_model(name, backend=backend, dtype=dtype),
            RECIPES[name].optimizer,
            batch_size=batch_size,
            compiled=compiled,
        )
        count = max(batch_size, 2)  # no persistent kernel trains on a single image
        images, labels = np.zeros((count, 28, 28), np.uint8), np.zeros(count, np.int64)
        data = trainer.prepare(images, labels)
        if members == 1:
            trainer.fit(data, iterations=1)
        elif trainer.compiled is not None:
            chunk = MemberChunk(trainer.chunks, data, next(trainer.chunks_to(1, data)))
            loaded = data.for_epoch(trainer.compiled)
            run_together(trainer.compiled, loaded, [chunk] * members)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Kernels, "_function", record)
        patch.setattr(EmulatedCupy, "empty", EmulatedCupy.zeros)  # no kernel fills the memory
        for (blocks, threads), name in itertools.product(sizes, RECIPES):
            patch.setattr(fused_classifier, "TARGET_BLOCKS", blocks)
            patch.setattr(fused_shallow_cnn, "TARGET_BLOCKS", blocks)
            patch.setattr(convolution, "TARGET_THREADS", threads)
            own = RECIPES[name].batch_size or 60_000
            for batch_size in {own, max(own, 17)}:  # above 16, no kernel is persistent
                launch(name, batch_size, compiled=True)
            if members == 1:
                launch(name, 17, compiled=False)
    return found


needs_nvrtc = pytest.mark.skipif(nvrtc.library() is None, reason=nvrtc.MISSING)


@pytest.mark.parametrize(
    ("capability", "expected"),
    [
        (70, {"linear": {4, 8}, "fused_classifier": {8}, "wgrad_update": {4, 8}}),
        (90, {"linear": {4}, "fused_classifier": {8}, "wgrad_update": {4}}),
    ],
)
def test_only_full_batch_training_uses_large_tiles(
    capability: int, expected: dict[str, set[int]]
) -> None:
    """`fcnn` trains with all images at once; the other recipes use small tiles.

    With tensor cores, large tiles remain in the fused classifier only.
    """
    for file, sides in expected.items():
        options = set().union(*launched(DEFAULT_SIZES, capability=capability)[file])
        assert {side for side in (4, 8) if f"-DTHREAD_TILE={side}" in options} == sides


def test_recipes_launch_kernels_of_every_file() -> None:
    for capability in VARIANTS:
        expected = [file for file in FILES if capability >= MIN_CAPABILITIES.get(file, 0)]
        assert sorted(launched(DEFAULT_SIZES, capability=capability)) == expected


@pytest.mark.parametrize("file", FILES)
def test_every_kernel_has_a_register_budget(file: str) -> None:
    code = source(file)
    assert kernels_in(code)
    assert [name for _, name in BUDGET.findall(code)] == kernels_in(code)


def assert_fits(code: str, options: Options, architecture: int) -> None:
    budgets = {name: int(registers) for registers, name in BUDGET.findall(code)}
    used = nvrtc.compile_source(code, options, architecture=architecture)
    assert used.keys() == budgets.keys()
    for name, usage in used.items():
        where = f"{name} on sm_{architecture} with {' '.join(options)}"
        assert usage.spilled_bytes == 0, where
        assert usage.registers <= budgets[name], where


@pytest.fixture(params=nvrtc.PARAMETERS)
def architecture(request: pytest.FixtureRequest) -> int:
    """Each supported compute capability."""
    number: int = request.param
    if number not in nvrtc.architectures():
        pytest.skip(f"this NVRTC does not support sm_{number}; NVRTC 12.9 does")
    return number


@needs_nvrtc
@pytest.mark.parametrize("file", FILES)
def test_kernels_of_recipes_fit_every_architecture(file: str, architecture: int) -> None:
    """With the batch size of the recipe and with small ones; on sm_90 also with large ones."""
    sizes = (DEFAULT_SIZES, SIZES_OF_LARGE_BATCHES) if architecture == 90 else (DEFAULT_SIZES,)
    capability = max(variant for variant in VARIANTS if variant <= architecture)
    for options in launched(*sizes, capability=capability).get(file, ()):
        assert_fits(source(file), options, architecture)


@needs_nvrtc
@pytest.mark.slow
def test_kernels_of_members_fit_every_architecture(architecture: int) -> None:
    capability = max(variant for variant in VARIANTS if variant <= architecture)
    variants = launched(DEFAULT_SIZES, SIZES_OF_LARGE_BATCHES, capability=capability, members=2)
    assert {"wgrad_update", "persistent/persistent_cnn", "persistent/persistent_mlp"} < set(
        variants
    )
    for file, options in variants.items():
        for one in options:
            assert_fits(source(file), one, architecture)


@needs_nvrtc
def test_kernels_of_the_overheads_benchmark_fit_every_architecture(architecture: int) -> None:
    clusters = persistent_mlp.cluster_constants(architecture)
    options = options_for("float32", CHAINS=overheads.CHAINS, BLOCKS=8, **clusters)
    assert_fits(overheads.source(), options, architecture)


@needs_nvrtc
@pytest.mark.parametrize(
    ("file", "constants"),
    [
        pytest.param(file, constants, id=" ".join([file, *map(str, constants.values())]))
        for file, variants in OTHERS.items()
        for constants in variants
    ],
)
def test_variants_outside_the_recipes_fit(file: str, constants: Constants) -> None:
    assert_fits(source(file), options_for("float32", **constants), 90)


@needs_nvrtc
@pytest.mark.parametrize("file", NAIVE_FILES)
def test_naive_kernels_compile(file: str) -> None:
    used = nvrtc.compile_source(source(file), options_for("float32", MASK="uint8"), architecture=90)
    assert sorted(used) == sorted(kernels_in(source(file)))


@needs_nvrtc
@pytest.mark.slow
@pytest.mark.parametrize("file", sorted({*FILES} - {*MIN_CAPABILITIES} - FLOAT32_ONLY))
def test_kernels_compile_in_float64_without_spills(file: str) -> None:
    sizes = SIZES_OF_LARGE_BATCHES  # they use the most registers
    launches = [launched(sizes, members=members, dtype="float64")[file] for members in (1, 2)]
    assert any(launches)
    for options in set().union(*launches):
        used = nvrtc.compile_source(source(file), options, architecture=90)
        assert not any(usage.spilled_bytes for usage in used.values()), " ".join(options)


@needs_nvrtc
def test_small_fused_cnns_compile_in_float64_without_spills() -> None:
    options = options_for("float64", **cnn_constants("float64", "quadratic", 3, 1, 20, 10))
    assert_fits(source("fused_cnn"), options, 90)


@needs_nvrtc
def test_largest_fused_cnn_fits_the_shared_memory() -> None:
    """The Python rule accepts no network that the compiler rejects."""
    shapes = (
        ConvShape(1, 28, 28, 6, 5, padding=2, pool=2),
        ConvShape(6, 14, 14, 16, 5, padding=0, pool=2),
    )
    cnns = [FusedCnn("float32", "quadratic", shapes, (120, u, 10)) for u in range(80, 200)]
    cnn = max((cnn for cnn in cnns if cnn.fits), key=lambda cnn: cnn.outputs)
    assert cnn != cnns[-1]
    options = options_for("float32", GATHER=1, INPUT="uint8", **cnn.constants)
    assert_fits(source("fused_cnn"), options, 90)


@needs_nvrtc
def test_persistent_mlp_uses_the_whole_shared_memory() -> None:
    """The Python rule accepts exactly the numbers of images that the compiler accepts."""
    stack = [layers.Linear(96), layers.ReLU(), layers.Linear(10)]
    loss = losses.SoftmaxCrossEntropy()
    model = Network(stack, loss, input=Pixels((784,)), backend=EmulatedBackend())
    constants = persistent_mlp.constants_for(
        model.training_program(nn.SGD()), batch_size=16, capability=90, multiprocessors=132
    )
    assert constants is not None
    assert constants["IMAGES_PER_PASS"] == 4  # 6 would take one pass less

    def compile_with(images: int) -> None:
        options = options_for("float32", PIXEL="uint8", **constants | {"IMAGES_PER_PASS": images})
        nvrtc.compile_source(source("persistent/persistent_mlp"), options, architecture=90)

    compile_with(5)
    with pytest.raises(nvrtc.CompilerError, match=r"\d{5} bytes smem"):
        compile_with(6)


@needs_nvrtc
@pytest.mark.parametrize(("dtype", "images"), [("float32", 1), ("float32", 4), ("float64", 1)])
def test_largest_fused_mlp_fits_the_shared_memory(dtype: str, images: int) -> None:
    """The Python rule accepts exactly the networks that the compiler accepts."""

    def compile_mlp(mlp: FusedMlp) -> int:
        constants = {"WEIGHTED": 1, "GATHER": 1, "INPUT": "float", **mlp.constants}
        options = options_for(dtype, **constants)
        used = nvrtc.compile_source(source("fused_mlp"), options, architecture=90)
        return used["fused_mlp"].spilled_bytes

    kinds = "sigmoid", "binary_cross_entropy"
    sizes = [FusedMlp(dtype, 784, hidden, 10, *kinds, images) for hidden in range(4, 200, 4)]
    largest = max((mlp for mlp in sizes if mlp.fits), key=lambda mlp: mlp.hidden)
    assert compile_mlp(largest) == 0
    with pytest.raises(nvrtc.CompilerError, match=r"(49|5\d)\d{3} bytes smem"):
        compile_mlp(replace(largest, hidden=largest.hidden + 4))


@needs_nvrtc
def test_cupy_adds_exactly_the_options_that_these_tests_add(
    cupy: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[Options] = []
    compiler = cupy.cuda.compiler
    compile_program = compiler.nvrtc.compileProgram

    def record(program: int, options: Options) -> None:
        given.append(options)
        compile_program(program, options)

    monkeypatch.setattr(compiler.nvrtc, "compileProgram", record)
    # CuPy asks the driver for the architecture.
    monkeypatch.setattr(
        compiler, "_get_arch_for_options_for_nvrtc", lambda arch: ("-arch=sm_90", "cubin")
    )
    monkeypatch.setenv("CUPY_CACHE_IN_MEMORY", "1")
    options = options_for("float32", RULE="SGD")
    with suppress(Exception):  # without a driver, the compiled kernel cannot be loaded
        compiler._compile_module_with_cache(source("updates"), options, arch="90")
    assert [o for o in given[-1] if o != "-arch=sm_90"] == [*options, *CUPY_OPTIONS]


@needs_nvrtc
@pytest.mark.parametrize(("dtype", "flushes"), [("float32", True), ("float64", False)])
def test_only_float32_kernels_flush_denormals(dtype: str, *, flushes: bool) -> None:
    code = nvrtc.ptx(source("updates"), options_for(dtype, RULE="SGD"))
    assert ("fma.rn.ftz.f32" in code) == flushes
    assert ("fma.rn.f64" in code) != flushes


@needs_nvrtc
@pytest.mark.parametrize(
    "file",
    ["activations", "batches", "convolution", "convolution_gradients", "pooling", "wgrad_update"],
)
def test_kernels_divide_no_64_bit_numbers(file: str) -> None:
    """Such a division takes several times as many instructions as one of 32-bit numbers."""
    code = nvrtc.ptx(source(file), options_for("float32", **OTHERS[file][0]))
    assert re.findall(r"\b(?:div|rem)\.[su]64\b", code) == []
    assert re.findall(r"\b(?:div|rem)\.[su]32\b", code)


@needs_nvrtc
def test_compile_error_names_file_and_line() -> None:
    code = source("batches").replace("real(pixel)", "reel(pixel)")
    with pytest.raises(nvrtc.CompilerError, match=r'common\.cuh\(\d+\): error.*"reel"'):
        nvrtc.compile_source(code, options_for("float32", PIXEL="uint8"), architecture=90)


@needs_nvrtc
def test_register_spills_are_detected() -> None:
    code = """
extern "C" __global__ void __launch_bounds__(1024) spill(float* x) {
  float kept[200];
  for (int i = 0; i < 200; i++) kept[i] = x[i * 7];
  __syncthreads();
  for (int i = 0; i < 200; i++) x[i] = kept[199 - i] * kept[(i * 13) % 200];
}
"""
    assert nvrtc.compile_source(code, (), architecture=90)["spill"].spilled_bytes > 0
