"""The scripts of the tutorials run and agree; the mistakes fail and their corrections do not."""

import importlib
import runpy
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from mnist_accel.data import Dataset, load_dataset

strict = pytest.importorskip("array_api_strict")
FOLDER = Path(__file__).parents[1] / "docs" / "tutorial"
sys.path.append(str(FOLDER))

import mistakes  # noqa: E402 - found in the folder above
import problem  # noqa: E402
import step_1_loops  # noqa: E402
import step_4_strict  # noqa: E402
from gpu_stand_in import Counts, StandIn  # noqa: E402
from step_4_strict import to_device, to_host  # noqa: E402

SCRIPTS = sorted(path.stem for path in FOLDER.glob("step_*.py"))
NEEDS_NUMBA = {"step_6_kernels", "step_7_compiled_epoch", "with_mnist_accel"}


@pytest.fixture(autouse=True)
def default_flags() -> Iterator[None]:
    """Use array-api-strict as the tutorial does; other tests set its flags."""
    flags = strict.ArrayAPIStrictFlags(
        api_version="2024.12", boolean_indexing=True, data_dependent_shapes=True
    )
    with flags:
        yield


@pytest.fixture(autouse=True)
def bundled_digits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(problem, "dataset", lambda: load_dataset("digits"))


@pytest.fixture(scope="module")
def loops() -> tuple[list[float], problem.Parameters]:
    """Return the losses and the final parameters of step 1."""
    digits = load_dataset("digits")
    parameters = problem.initial_parameters()
    return step_1_loops.train(*first_images(digits), parameters), parameters


def first_images(digits: Dataset) -> tuple[np.ndarray, np.ndarray]:
    pixels = digits.x_train[:32].reshape(32, 784) / np.float32(255)
    return pixels, digits.t_train[:32].astype(np.int64)


def module(name: str):
    if name in NEEDS_NUMBA:
        pytest.importorskip("numba")
    return importlib.import_module(name)


@pytest.mark.parametrize("name", [*SCRIPTS[1:], "with_mnist_accel"])
def test_every_step_trains_as_the_loops_do(name, loops):
    step = module(name)
    train = step.train_strictly if name == "step_4_strict" else step.train
    parameters = problem.initial_parameters()
    losses = train(*problem.load(32), parameters)
    np.testing.assert_allclose(losses, loops[0], rtol=0, atol=1e-5)
    for array, expected in zip(parameters, loops[1], strict=True):
        np.testing.assert_allclose(array, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", [*SCRIPTS, "with_mnist_accel"])
def test_every_script_runs_by_itself(name, monkeypatch, capsys):
    module(name)
    monkeypatch.setattr(sys, "argv", [f"{name}.py", "16"])
    runpy.run_path(str(FOLDER / f"{name}.py"), run_name="__main__")
    assert "16 images, 2 steps" in capsys.readouterr().out


def test_the_draft_fails_on_a_device_and_the_corrected_step_does_not_wait():
    draft = module("step_3_namespace").train
    gpu = StandIn()
    x, t, *parameters = [gpu.asarray(a) for a in (*problem.load(64), *problem.initial_parameters())]
    with pytest.raises(TypeError, match="Implicit conversion"):
        draft(x, t, parameters)
    step_4_strict.train(x, t, parameters)
    assert gpu.counts.waits == 0
    images, labels = map(to_device, problem.load(8))
    for line in (
        lambda: len(images),
        lambda: np.eye(10)[labels],
        lambda: images * (images > 0),
    ):
        with pytest.raises((TypeError, RuntimeError)):
            line()


# The mistakes, in the order of the page


def counted(function, *arrays, copied=()) -> tuple[object, Counts]:
    """Return the result with the stand-in, and what the stand-in counted."""
    gpu = StandIn()
    on_gpu = [gpu.asarray(array) for array in copied]
    gpu.counts.copies = 0
    return function(gpu, *arrays, *on_gpu), gpu.counts


@pytest.fixture
def images() -> np.ndarray:
    return problem.load(64)[0]


def test_copying_each_batch_makes_a_copy_per_batch(images):
    W1 = problem.initial_parameters()[0]
    wrong, many = counted(mistakes.transfers_wrong, images, copied=[W1])
    right, one = counted(mistakes.transfers_right, images, copied=[W1])
    assert (many.copies, one.copies) == (8, 1)
    for first, second in zip(wrong, right, strict=True):
        np.testing.assert_array_equal(first.get(), second.get())


def test_converting_each_result_waits_each_time(images):
    wrong, many = counted(mistakes.waits_wrong, copied=[images])
    right, one = counted(mistakes.waits_right, copied=[images])
    assert (many.waits, one.waits) == (64, 1)
    assert wrong == pytest.approx(right, rel=1e-5)


def test_a_mask_waits_and_is_refused_by_array_api_strict(images):
    wrong, waiting = counted(mistakes.masks_wrong, copied=[images - 0.5])
    right, running = counted(mistakes.masks_right, copied=[images - 0.5])
    assert (waiting.waits, running.waits) == (1, 0)
    np.testing.assert_array_equal(wrong.get(), right.get())
    x = to_device(images - 0.5)
    with strict.ArrayAPIStrictFlags(boolean_indexing=False, data_dependent_shapes=False):
        with pytest.raises(RuntimeError, match="boolean_indexing"):
            mistakes.masks_wrong(strict, x)
        np.testing.assert_array_equal(to_host(mistakes.masks_right(strict, x)), right.get())


def test_adding_to_repeated_indices_loses_terms(images):
    labels = problem.load(64)[1]
    expected = np.stack([images[labels == k].sum(axis=0) for k in range(10)])
    sums = np.zeros((10, 784), np.float32)
    assert mistakes.indices_wrong(np, images, labels, sums.copy()).sum() < 0.5 * expected.sum()
    right = mistakes.indices_right(np, images, labels, sums)
    np.testing.assert_allclose(right, expected, rtol=1e-5)
    with pytest.raises(IndexError):
        mistakes.indices_wrong(strict, *map(to_device, (images, labels, sums)))
    device_sums = mistakes.indices_right(strict, *map(to_device, (images, labels, sums)))
    np.testing.assert_allclose(to_host(device_sums), expected, rtol=1e-5)


def test_integers_divided_by_an_integer_are_float64(images):
    pixels = (images * 255).astype(np.uint8)
    assert mistakes.dtypes_wrong(np, pixels).dtype == np.float64
    assert mistakes.dtypes_right(np, pixels).dtype == np.float32
    with pytest.raises(TypeError):
        mistakes.dtypes_wrong(strict, to_device(pixels))
    assert mistakes.dtypes_right(strict, to_device(pixels)).dtype == strict.float32


@pytest.mark.parametrize("xp", [np, strict])
def test_changes_of_a_reshaped_copy_are_lost(xp):
    W = xp.ones((3, 2))
    mistakes.views_wrong(xp, W)
    assert float(xp.max(W)) == 1
    mistakes.views_right(xp, W)
    assert float(xp.max(W)) == 0.5
    with pytest.raises((ValueError, AttributeError)):
        mistakes.views_right(xp, W.T)


def test_a_loop_over_images_launches_for_each(images):
    wrong, many = counted(mistakes.loops_wrong, copied=[images])
    right, two = counted(mistakes.loops_right, copied=[images])
    assert (many.launches, two.launches) == (129, 2)
    np.testing.assert_array_equal(wrong.get(), right.get())


def test_numbers_from_positions_are_equal_in_every_library():
    with pytest.raises(AttributeError):
        mistakes.random_wrong(strict, 3)
    numbers = mistakes.random_right(np, 10_000)
    device = to_device(numbers).device
    on_device = mistakes.random_right(strict, 10_000, device=device)
    np.testing.assert_array_equal(to_host(on_device), numbers)
    np.testing.assert_array_equal(mistakes.random_right(StandIn(), 10_000).get(), numbers)
    assert 0 <= numbers.min() < 0.001
    assert 0.999 < numbers.max() < 1
    assert numbers.mean() == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("xp", [np, strict])
def test_a_long_sum_in_float32_is_wrong_in_the_third_digit(xp):
    x = xp.full((1_000_000, 2), 0.1, dtype=xp.float32)
    assert abs(float(mistakes.sums_wrong(xp, x)[0]) - 100_000) > 100
    assert abs(float(mistakes.sums_right(xp, x)[0]) - 100_000) < 0.01


def test_a_host_array_among_device_arrays_is_an_error(images):
    gpu, W1 = StandIn(), problem.initial_parameters()[0]
    for convert in (gpu.asarray, to_device):
        x, W = convert(images), convert(W1)
        with pytest.raises(TypeError):
            mistakes.namespaces_wrong(x, W)
        assert mistakes.namespaces_right(x, W).shape == (64, 50)


def test_the_stand_in_refuses_to_mix_with_host_arrays():
    x = StandIn().asarray(np.ones(3))
    for mix in (np.asarray, lambda x: x + np.ones(3), lambda x: np.where(np.ones(3) > 0, x, 0)):
        with pytest.raises(TypeError):
            mix(x)
    assert float(np.mean(x)) == 1  # as with CuPy
