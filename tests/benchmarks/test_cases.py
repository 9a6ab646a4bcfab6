"""What is measured: cases, their costs, and facts about the machine."""

import subprocess
import sys

import numpy as np
import pytest

from backends.numpy.backend import NumpyBackend
from benchmarks.contenders import contenders
from benchmarks.host import host_facts
from benchmarks.suite import ceilings, costs
from benchmarks.suite.cases import (
    inference_cases,
    operation_cases,
    training_cases,
)
from benchmarks.suite.memory import own_peak_bytes, peak_memory
from mnist_accel.recipes.models import RECIPES, create_model
from tests.support.benchmark_runs import ROOT


def test_full_profile_trains_each_recipe_at_all_batch_sizes():
    batches = {name: set() for name in RECIPES}
    for case in training_cases("full"):
        if "batch" in case.sweeps:
            batches[case.network].add(case.batch)
    assert all(sizes == {1, 10, 64, 512, 4096} for sizes in batches.values())
    own = {case.network: case.batch for case in training_cases("full") if "recipe" in case.sweeps}
    assert own == {
        "fcnn": 60_000, "two-layer": 512, "backprop": 10, "cnn": 1, "three-layer": 64, "lenet": 64,
        "fast99": 64,
    }  # fmt: skip


@pytest.mark.parametrize("profile", ["quick", "full"])
@pytest.mark.parametrize("cases", [training_cases, inference_cases, operation_cases])
def test_case_names_are_unique(cases, profile):
    names = [case.name for case in cases(profile)]
    assert names
    assert len(set(names)) == len(names)


def test_network_cost_equals_a_count_by_hand():
    model = create_model("two-layer", backend="numpy")
    first, second = 2 * 784 * 50, 2 * 50 * 10
    assert costs.forward_cost(model) == costs.Cost(first + second, 4 * 784)
    assert costs.training_cost(model) == costs.Cost(2 * first + 3 * second, 784)
    model = create_model("cnn", backend="numpy")
    assert costs.forward_cost(model).flops == 2 * 26 * 26 * 8 * 9 + 2 * 1352 * 10


@pytest.mark.parametrize(
    "measure",
    [
        ceilings.cpu_ceilings,
        lambda clock: ceilings.gpu_ceilings(NumpyBackend(), clock),
    ],
)
def test_ceilings_use_the_fastest_repetition(monkeypatch, measure):
    monkeypatch.setattr(ceilings, "MATRIX_SIDE", {"cpu": 10, "gpu": 10})
    monkeypatch.setattr(ceilings, "COPY_BYTES", 1000)
    # The fastest of seven products takes 2, the fastest of seven copies takes 4.
    times = iter(np.cumsum([0, 3, 9, 2, 9, 4, *[9, 5] * 4, 9, 6, 9, 4, *[9, 8] * 5]))
    measured = measure(lambda: next(times))
    assert measured.flops_per_s == 2 * 10**3 / 2
    assert measured.bytes_per_s == 2 * 1000 / 4


@pytest.mark.gpu
def test_gpu_ceilings_are_higher_than_cpu_ceilings():
    if not contenders()["cupy"].availability():
        pytest.skip("cupy does not compute on a GPU here")
    best = ceilings.measure_ceilings()
    assert best["gpu"].flops_per_s > best["cpu"].flops_per_s
    assert best["gpu"].bytes_per_s > best["cpu"].bytes_per_s


def test_peak_memory_excludes_the_parent_process():
    ballast = np.ones(2**28, np.uint8)
    code = "from benchmarks.suite.memory import own_peak_bytes; print(own_peak_bytes())"
    command = [sys.executable, "-c", code]
    child = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert 2**20 < int(child.stdout) < ballast.nbytes
    assert own_peak_bytes() > ballast.nbytes


@pytest.mark.parametrize(
    ("name", "bytes_a_pixel"),
    [("numpy", 1), pytest.param("scikit-learn", 8, marks=pytest.mark.slow)],
)
def test_peak_memory_of_a_training_includes_its_images(name, bytes_a_pixel):
    """Baselines convert them to float32 through a copy."""
    if not contenders()[name].availability():
        pytest.skip(f"{name} is not installed")
    host_bytes, device_bytes = peak_memory("two-layer", 10, name)
    assert host_bytes > 60_000 * 784 * bytes_a_pixel
    assert device_bytes is None


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["cupy", "torch-eager"])
def test_peak_gpu_memory_of_a_training_includes_its_images(name):
    one = contenders()[name]
    if not one.availability() or one.device() == "cpu":
        pytest.skip(f"{name} does not compute on a GPU here")
    _, device_bytes = peak_memory("two-layer", 512, name)
    assert device_bytes > 60_000 * 784


def test_host_facts_describe_this_machine():
    facts = host_facts()
    assert facts.cores >= facts.threads >= 1
    assert facts.versions["numpy"] == np.__version__
    assert len(facts.load_average) == 3
