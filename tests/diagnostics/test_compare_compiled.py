"""`compare` runs the compiled training and finds errors that are planted into it."""

import dataclasses

import numpy as np
import pytest

from backends import get_backend
from mnist_accel.data import load_dataset
from mnist_accel.diagnostics.compare import compare_backends
from mnist_accel.diagnostics.compiled_steps import CHUNKS
from mnist_accel.recipes.models import RECIPES
from tests.support.planted_errors import (
    CHANGED_CALLS,
    CHANGED_PLANS,
    CHANGED_SOURCES,
    changed_source,
    compare_with_changed_source,
    plant,
)

pytest.importorskip("numba")


@pytest.fixture(scope="module")
def digits():
    """The first digits: enough for an epoch of seven batches, the last one smaller.

    Gray pixels are blank, so that most are 0, as in MNIST.
    """
    digits = load_dataset("digits")
    images = digits.x_train[:100]
    return dataclasses.replace(
        digits,
        x_train=np.where(images < 128, 0, images),
        t_train=digits.t_train[:100],
        x_test=digits.x_test[:50],
        t_test=digits.t_test[:50],
    )


def compare(name, digits, *, steps=10, dtype="float32"):
    backends = [get_backend("numpy"), get_backend("numba")]
    _, result = compare_backends(name, backends, digits, steps=steps, batch_size=16, dtype=dtype)
    return result


@pytest.mark.parametrize("name", RECIPES)
def test_compiled_steps_agree_with_eager_numpy(digits, name):
    result = compare(name, digits, steps=12)
    if result.not_compiled:
        pytest.skip(result.not_compiled)
    assert result.first_divergence is None


@pytest.mark.slow
@pytest.mark.parametrize("name", RECIPES)
def test_compiled_steps_agree_with_eager_numpy_in_float64(digits, name):
    result = compare(name, digits, steps=12, dtype="float64")
    assert result.first_divergence is None


def test_chunks_continue_into_the_next_epoch_and_end_with_the_comparison(digits):
    errors = compare("three-layer", digits, steps=12).errors
    ends = {}
    for chunk in CHUNKS:
        suffix = "" if chunk == 1 else f", {chunk} steps per call"
        assert None not in errors[f"loss{suffix}"]
        values = errors[f"W1 after the update{suffix}"]
        ends[chunk] = [step for step, value in enumerate(values, start=1) if value is not None]
    assert ends[1] == list(range(1, 13))
    # An epoch has 7 steps, and the reference pauses after 10.
    assert ends[2] == [2, 4, 6, 8, 10, 12]
    assert ends[10] == [10, 12]
    assert [value is None for value in errors["logits of test images"]] == [True] * 11 + [False]


@pytest.mark.parametrize("error", [*CHANGED_PLANS, *CHANGED_CALLS])
def test_error_in_the_numbers_of_compiled_code_is_found(digits, monkeypatch, error):
    plant(monkeypatch, error)
    recipe = CHANGED_PLANS[error][0] if error in CHANGED_PLANS else CHANGED_CALLS[error]
    divergence = compare(recipe, digits).first_divergence
    assert divergence is not None
    step, tensor = divergence
    if error.endswith("second step of a chunk"):
        assert (step, tensor) == (2, "W1 after the update, 2 steps per call")


@pytest.mark.parametrize("error", CHANGED_SOURCES)
def test_planted_errors_follow_the_kernels(error):
    """Each planted error changes one place of the present kernels, which stay valid Python."""
    change = CHANGED_SOURCES[error]
    compile(changed_source(change), change.file, "exec")


@pytest.mark.slow
@pytest.mark.parametrize("error", CHANGED_SOURCES)
def test_error_in_a_compiled_stage_is_found(tmp_path, error):
    run = compare_with_changed_source(error, tmp_path)
    assert run.returncode == 6, run.stderr
    assert "DIFFERS: first at step" in run.stdout
