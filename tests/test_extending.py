"""The examples of docs/extending.md work, and touch few files."""

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import nvrtc
from tests.support.document_examples import Example, read_examples

ROOT = Path(__file__).parents[1]
FOLDERS = ("backends", "benchmarks", "mnist_accel", "reference", "tests")
EXAMPLES = read_examples(ROOT / "docs" / "extending.md")
MAX_FILES = {
    "A layer": 1,
    "An optimizer": 3,
    "An activation": 3,
    "A loss": 3,
    "A backend": 1,
    "A recipe": 1,
    "A data set": 1,
    "A benchmark baseline": 2,
}
NEEDS = {"A backend": "torch"}

# Compares compiled training with training on NumPy, whose gradients the examples check.
COMPILED = """
import numpy as np
import mnist_accel as ma
from mnist_accel.nn import Activation, Linear, Loss, Network
from tests.support.emulated_backend import EmulatedBackend

(x, t), _ = ma.load_mnist(dataset="digits")
backend = {backend}
numpy = ma.get_backend("numpy")


def changes(optimizer, backend):
    network = Network(
        [Linear(16), Activation("elu"), Linear(10)],
        Loss("squared_hinge"),
        input=ma.Pixels(784),
        backend=backend,
    )
    before = network.state_dict()
    trainer = ma.Trainer(network, optimizer, batch_size={batch})
    assert backend is numpy or trainer.compiled is not None, trainer.not_compiled
    losses = trainer.fit(x[:{images}], t[:{images}], epochs=1).losses
    after = network.state_dict()
    return [np.array(losses), *(after[name] - before[name] for name in after)]


# SGD detects a wrong factor in a gradient, which AdaDelta would compensate.
for optimizer in ("adadelta", "sgd"):
    for got, expected in zip(changes(optimizer, backend), changes(optimizer, numpy)):
        np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-3 * abs(expected).max())
"""

# Compiles the kernels of the additions for a GPU.
NVRTC = """
from backends.cupy.loader import options_for, source
from tests.support.nvrtc import compile_source

for file, constants in [
    ("updates", {"RULE": "ADADELTA"}),
    ("activations", {"ACTIVATION": "ELU", "GATHER": 0, "INPUT": "float"}),
    ("losses", {"LOSS": "SQUARED_HINGE", "TARGET": "int64", "WEIGHTED": 0}),
]:
    compile_source(source(file), options_for("float32", **constants), architecture=90)
"""


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of the repository to which all examples have been applied."""
    root = tmp_path_factory.mktemp("extended")
    ignored = shutil.ignore_patterns("__pycache__", "results", "fixtures", "test_*.py")
    for folder in FOLDERS:
        shutil.copytree(ROOT / folder, root / folder, ignore=ignored)
    for example in EXAMPLES.values():
        example.apply(root)
    return root


def test_every_section_has_an_example() -> None:
    assert EXAMPLES.keys() == MAX_FILES.keys()
    assert all(example.files and example.script for example in EXAMPLES.values())


@pytest.mark.parametrize("section", MAX_FILES)
def test_an_addition_touches_few_files(section: str) -> None:
    assert len(EXAMPLES[section].files) <= MAX_FILES[section]


@pytest.mark.parametrize("section", MAX_FILES)
def test_an_example_runs(section: str, copy: Path) -> None:
    needed = NEEDS.get(section)
    if needed and importlib.util.find_spec(needed) is None:
        pytest.skip(f"{needed} is not installed")
    run(EXAMPLES[section].script, copy)


@pytest.mark.slow
def test_additions_are_compiled_on_numba(copy: Path) -> None:
    run(COMPILED.format(backend='ma.get_backend("numba")', images=320, batch=32), copy)


@pytest.mark.emulated
def test_additions_are_compiled_on_cupy(copy: Path) -> None:
    run(COMPILED.format(backend="EmulatedBackend()", images=40, batch=8), copy)


@pytest.mark.skipif(nvrtc.library() is None, reason=nvrtc.MISSING)
def test_kernels_of_additions_compile_for_a_gpu(copy: Path) -> None:
    run(NVRTC, copy)


def test_an_edit_without_its_context_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("x = 1\n")
    example = Example(edits={"a.py": [("x = 2\n", "x = 3\n")]})
    with pytest.raises(AssertionError, match="0 times"):
        example.apply(tmp_path)


def run(script: str, root: Path) -> None:
    """Run a script in a new process whose packages are those of `root`."""
    environment = os.environ | {"PYTHONPATH": str(root)}
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", script],
        cwd=root,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stdout + result.stderr
