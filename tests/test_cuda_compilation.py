"""Every kernel compiles for every GPU that is supported, within the registers it says it needs."""

import re
from pathlib import Path
from typing import Any

import nvrtc
import pytest
from cuda_emulator.build import kernels_in

from backends.cuda import persistent
from backends.cuda.loader import options_for, source
from benchmarks.gpu import overheads

FOLDER = Path(__file__).parents[1] / "backends" / "cuda"
BUDGET = re.compile(
    r'// At most (\d+) registers\.\nextern "C" __global__ void\s+'
    r"(?:TOGETHER\s+)?(?:__launch_bounds__\([\d, ]+\)\s+)?(\w+)\("
)
Constants = dict[str, str | int]
DIGITS: Constants = {"HEIGHT": 28, "WIDTH": 28, "CLASSES": 10}
LATER: Constants = {"CAPTURED": 1}  # a stage of a captured step
FIRST: Constants = {"PIXEL": "uint8", **LATER}  # the first of them, which reads the data set
SMALL: Constants = {"BLOCKS": 8, "BATCH": 16, "INPUTS": 784, "OUTPUTS": 10}
# Each kernel as a recipe compiles it, for every GPU; and in other ways, for which one GPU stands.
RECIPES: dict[str, list[Constants]] = {
    "activations": [{"ACTIVATION": "SIGMOID"}],
    "batches": [{"PIXEL": "uint8"}],
    "convolution": [{"KERNEL_SIZE": 5, "POOL": 1, "ACTIVATION": "RELU", **FIRST}],
    "descend": [{"RULE": "ADAM", **FIRST}],
    "head": [{"ACTIVATION": "RELU", "LOSS": "SOFTMAX_CROSS_ENTROPY", **LATER}],
    "linear": [{"ACTIVATION": "RELU", **FIRST}],
    "losses": [{"LABEL": "int64"}],
    "one_by_one": [
        {"PIXEL": "uint8", "KERNEL_SIZE": 3, "FILTERS": 8, "ACTIVATION": "IDENTITY", **DIGITS}
    ],
    "pooling": [{"MASK": "uint8"}],
    "small_batches": [
        {"PIXEL": "uint8", "HIDDEN": 30, "ACTIVATION": "SIGMOID", "LOSS": "QUADRATIC", **SMALL}
    ],
    "updates": [{"RULE": "ADAM"}],
}
OTHERS: dict[str, list[Constants]] = {
    "activations": [{"ACTIVATION": "TANH", **FIRST}],
    "batches": [{"PIXEL": "float"}],
    "convolution": [
        {"KERNEL_SIZE": 3, "POOL": 1, "ACTIVATION": "IDENTITY", **FIRST},
        {"KERNEL_SIZE": 5, "POOL": 1, "ACTIVATION": "RELU", **LATER},
        {"KERNEL_SIZE": 7, "POOL": 1, "ACTIVATION": "TANH", "PIXEL": "float", **LATER},
        {"KERNEL_SIZE": 5, "POOL": 0, "ACTIVATION": "IDENTITY"},
    ],
    "descend": [
        {"RULE": "SGD", **FIRST},
        {"RULE": "MOMENTUM", "PIXEL": "float", **LATER},
        {"RULE": "ADAGRAD", **FIRST},
        {"RULE": "RMSPROP", **FIRST},
    ],
    "head": [
        {"ACTIVATION": "TANH", "LOSS": "BINARY_CROSS_ENTROPY", **LATER},
        {"ACTIVATION": "SIGMOID", "LOSS": "QUADRATIC", **LATER},
    ],
    "linear": [{"ACTIVATION": "RELU", **LATER}, {"ACTIVATION": "TANH", "PIXEL": "float", **LATER}],
    "losses": [{"LABEL": "int32", **LATER}],
    "one_by_one": [
        {"PIXEL": "float", "KERNEL_SIZE": 5, "FILTERS": 9, "ACTIVATION": "TANH", **DIGITS}
    ],
    "pooling": [{"MASK": "int64", **LATER}],
    "small_batches": [
        {"PIXEL": "float", "HIDDEN": 50, "ACTIVATION": "RELU", "LOSS": loss, **SMALL}
        for loss in ("SOFTMAX_CROSS_ENTROPY", "BINARY_CROSS_ENTROPY")
    ],
    "updates": [{"RULE": "SGD"}],
}


def cases(*variants: dict[str, list[Constants]]) -> list[Any]:
    return [
        pytest.param(file, constants, id=" ".join([file, *map(str, constants.values())]))
        for files in variants
        for file, options in files.items()
        for constants in options
    ]


needs_nvrtc = pytest.mark.skipif(nvrtc.library() is None, reason=nvrtc.MISSING)


def test_every_file_is_compiled() -> None:
    assert {path.stem for path in FOLDER.glob("*.cu")} == set(RECIPES)


@pytest.mark.parametrize("file", RECIPES)
def test_every_kernel_has_a_budget(file: str) -> None:
    code = source(file)
    assert kernels_in(code)
    assert [name for _, name in BUDGET.findall(code)] == kernels_in(code)


def assert_fits(file: str, constants: Constants, architecture: int, code: str = "") -> None:
    code, options = code or source(file), options_for("float32", **constants)
    budgets = {name: int(registers) for registers, name in BUDGET.findall(code)}
    used = nvrtc.compile_source(code, options, architecture=architecture)
    assert used.keys() == budgets.keys()
    for name, usage in used.items():
        where = f"{name} on sm_{architecture} with {' '.join(options)}"
        assert usage.spilled_bytes == 0, where
        assert usage.registers <= budgets[name], where


@needs_nvrtc
@pytest.mark.parametrize("architecture", nvrtc.ARCHITECTURES)
@pytest.mark.parametrize(("file", "constants"), cases(RECIPES))
def test_kernels_of_the_recipes_fit_every_gpu(
    file: str, constants: Constants, architecture: int
) -> None:
    if architecture not in nvrtc.architectures():
        pytest.skip(f"this NVRTC does not know sm_{architecture}; 12.9 does")
    assert_fits(file, constants, architecture)


@needs_nvrtc
@pytest.mark.parametrize("architecture", nvrtc.ARCHITECTURES)
def test_blocks_that_meet_fit_every_gpu(architecture: int) -> None:
    if architecture not in nvrtc.architectures():
        pytest.skip(f"this NVRTC does not know sm_{architecture}; 12.9 does")
    (small_batches,) = RECIPES["small_batches"]
    clusters = persistent.together(architecture)
    if clusters:  # as a grid, test_kernels_of_the_recipes_fit_every_gpu compiles it
        assert_fits("small_batches", {**small_batches, **clusters}, architecture)
    constants: Constants = {"CHAINS": overheads.CHAINS, "BLOCKS": 8, **clusters}
    assert_fits("overheads", constants, architecture, code=overheads.source())


@needs_nvrtc
@pytest.mark.parametrize(("file", "constants"), cases(OTHERS))
def test_other_variants_fit(file: str, constants: Constants) -> None:
    assert_fits(file, constants, 90)


@needs_nvrtc
@pytest.mark.parametrize(("file", "constants"), cases(RECIPES))
def test_kernels_compile_in_float64_without_spills(file: str, constants: Constants) -> None:
    options = options_for("float64", **constants)
    used = nvrtc.compile_source(source(file), options, architecture=90)
    assert not any(usage.spilled_bytes for usage in used.values())


@needs_nvrtc
def test_a_mistake_is_shown_with_its_place() -> None:
    code = source("batches").replace("real(pixel)", "reel(pixel)")
    with pytest.raises(nvrtc.CompilerError, match=r'common\.cuh\(\d+\): error.*"reel"'):
        nvrtc.compile_source(code, options_for("float32", PIXEL="uint8"), architecture=90)


@needs_nvrtc
def test_spilled_registers_are_seen() -> None:
    code = """
extern "C" __global__ void __launch_bounds__(1024) spill(float* x) {
  float kept[200];
  for (int i = 0; i < 200; i++) kept[i] = x[i * 7];
  __syncthreads();
  for (int i = 0; i < 200; i++) x[i] = kept[199 - i] * kept[(i * 13) % 200];
}
"""
    assert nvrtc.compile_source(code, (), architecture=90)["spill"].spilled_bytes > 0
