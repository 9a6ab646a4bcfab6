"""What is measured: cases, their costs, and facts about the machine."""

import subprocess
import sys

import numpy as np
import pytest

from backends.numpy.backend import NumpyBackend
from benchmarks.contenders import contenders
from benchmarks.host import host_facts
from benchmarks.suite import ceilings, costs, tasks
from benchmarks.suite.cases import (
    TrainingCase,
    inference_cases,
    operation_cases,
    start_cases,
    training_cases,
)
from benchmarks.suite.preparer import own_peak_bytes
from benchmarks.workers.messages import Prepare, Start, decode_request, encode
from mnist_accel.recipes.models import RECIPES, create_model
from tests.support.benchmark_runs import ROOT


def test_full_profile_trains_each_recipe_and_three_at_several_batch_sizes():
    batches = {name: set() for name in RECIPES}
    for case in training_cases("full"):
        if "batch" in case.sweeps and case.network in batches:
            batches[case.network].add(case.batch)
    assert batches["two-layer"] == {1, 10, 64, 512, 4096}
    assert batches["cnn"] == batches["lenet"] == {1, 64, 512}
    own = {case.network: case.batch for case in training_cases("full") if "recipe" in case.sweeps}
    assert own == {
        "fcnn": 60_000, "two-layer": 512, "backprop": 10, "cnn": 1, "three-layer": 64, "lenet": 64,
        "fast99": 64,
    }  # fmt: skip


@pytest.mark.parametrize(("threads", "counts"), [(1, []), (2, [1]), (6, [1, 2, 4]), (8, [1, 2, 4])])
def test_threads_are_scaled_in_powers_of_two(threads, counts):
    cases = [case for case in training_cases("full", threads) if "threads" in case.sweeps]
    found = [case.threads for case in cases if case.network == "lenet"]
    assert found == counts


def test_full_images_have_as_much_ink_as_fashion_mnist():
    case = next(case for case in training_cases("full") if case.images == "full")
    images, digits = (tasks.training_task(c, 40).images for c in (case, TrainingCase("cnn", 1)))
    assert np.mean(images > 0) == pytest.approx(0.55, abs=0.01)
    drawn = digits > 0
    np.testing.assert_array_equal(images[:40][drawn[:40]], digits[:40][drawn[:40]])


def test_cases_are_sent_to_workers_unchanged():
    for case in (*training_cases("full", 2), *inference_cases("full"), *operation_cases("full")):
        assert decode_request(encode(Prepare(case, "file"))) == Prepare(case, "file")
    assert decode_request(encode(Start(start_cases("full")[0], "file"))).case.cache == "cold"


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
    code = "from benchmarks.suite.preparer import own_peak_bytes; print(own_peak_bytes())"
    command = [sys.executable, "-c", code]
    child = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert 2**20 < int(child.stdout) < ballast.nbytes
    assert own_peak_bytes() > ballast.nbytes


def test_host_facts_describe_this_machine():
    facts = host_facts()
    assert facts.cores >= facts.threads >= 1
    assert facts.versions["numpy"] == np.__version__
    assert len(facts.load_average) == 3
