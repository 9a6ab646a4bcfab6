"""Populations in the benchmarks: every contender trains the same networks, and is checked."""

import numpy as np
import pytest

from benchmarks.contenders import IN_TURN, contenders
from benchmarks.report.analysis import analyze
from benchmarks.report.population_table import population_table
from benchmarks.session.plan import Plan
from benchmarks.session.settings import CONTENDERS_OF, RunRequest, resolve
from benchmarks.storage.results import load_results
from benchmarks.suite.cases import PopulationCase, population_cases
from benchmarks.suite.checks import CheckError
from benchmarks.suite.expected import expected_file
from benchmarks.suite.members import (
    check_members,
    expected_members,
    first_batches,
    population_tasks,
)
from benchmarks.suite.population import prepare_population
from benchmarks.workers.messages import Prepare, decode_request, encode
from mnist_accel.errors import UsageError
from tests.support.benchmark_files import GeneratedResults, write_document

SMALL = PopulationCase("cnn", 1, 4)


def available(name):
    contender = contenders()[name]
    if not contender.availability().ok:
        pytest.skip(f"{name} cannot run here")
    return contender


def test_members_differ_in_seed_and_learning_rate():
    tasks = population_tasks(PopulationCase("backprop", 10, 8), steps=2)
    assert [(task.seed, task.optimizer.lr) for task in tasks] == [
        (seed, lr) for lr in (3.0, 1.5) for seed in range(4)
    ]
    assert len({task.model.state_dict()["W1"][0, 0] for task in tasks}) == 4
    assert all(len(task.images) == 20 for task in tasks)


@pytest.mark.parametrize("name", sorted(CONTENDERS_OF["population"]))
def test_each_contender_trains_the_same_networks(tmp_path, name):
    contender = available(name)
    case = PopulationCase("two-layer", 64, 2)
    expected = expected_file(case, contender.ties, tmp_path)
    members = population_tasks(case, 10)
    session = contender.population(members)
    batches = first_batches(members, 10)
    check = check_members(session, members, batches, str(expected))
    assert check.difference <= check.tolerance
    session.run()
    for number, task in enumerate(members):
        assert np.any(session.weights(number)["W2"] != task.model.state_dict()["W2"])


@pytest.mark.slow
@pytest.mark.parametrize("network", ["lenet", "cnn"])
@pytest.mark.parametrize("name", ["jax", "torch-eager"])
def test_convolutions_and_adam_agree_with_the_reference(tmp_path, name, network):
    contender = available(name)
    case = PopulationCase(network, 64, 2)
    expected = expected_file(case, contender.ties, tmp_path)
    members = population_tasks(case, 10)
    session = contender.population(members)
    check_members(session, members, first_batches(members, 10), str(expected))


def test_wrong_weights_of_one_member_are_found(tmp_path):
    members = population_tasks(SMALL, 10)
    session = contenders()["numpy"].population(members)
    arrays = dict(expected_members(SMALL, "recipe"))
    arrays["3 weight W2"] = arrays["3 weight W2"] * (1 + 1e-3)
    path = tmp_path / "expected.npz"
    np.savez(path, **arrays)
    with pytest.raises(CheckError, match="weights W2 differs"):
        check_members(session, members, first_batches(members, 10), str(path))


def test_a_row_counts_the_images_of_all_members(tmp_path):
    contender = contenders()["numba"]
    expected = expected_file(SMALL, contender.ties, tmp_path)
    row = prepare_population(SMALL, contender, str(expected), known_steps=50)
    assert (row.info.members, row.info.steps, row.info.images) == (4, 50, 200)
    assert row.info.peak_host_bytes is None or row.info.peak_host_bytes > 60_000 * 784
    assert row.turn(0.01)[0] > 0


def test_cases_are_sent_to_workers_unchanged_and_have_unique_names():
    cases = population_cases("full")
    assert len({case.name for case in cases}) == len(cases) == 30
    for case in cases:
        assert decode_request(encode(Prepare(case, "file"))) == Prepare(case, "file")


def test_populations_are_measured_only_if_they_are_named():
    default = resolve(RunRequest())
    assert "population" not in default.levels
    assert not {*IN_TURN} & {*default.contenders}
    plan = Plan(resolve(RunRequest(levels="population,inference")))
    measured = {turn.contender for turn in plan.turns if turn.case.level == "population"}
    assert measured == CONTENDERS_OF["population"]
    others = {turn.contender for turn in plan.turns if turn.case.level != "population"}
    assert not others & {*IN_TURN}


def test_contenders_without_populations_are_refused():
    with pytest.raises(UsageError, match="numpy are not measured in population"):
        resolve(RunRequest(levels="population", contenders="numpy"))


def test_the_table_has_trainings_per_second_ratios_and_memory(tmp_path):
    document = GeneratedResults(
        contenders=("numba", "jax"), slower={"jax": 3.0}, pass_noise=0.001
    ).document()
    one = {**document["mnist_accel"]["contenders"]["jax"], "versions": {}}
    document["mnist_accel"]["contenders"]["numba-one-thread"] = one
    entries = [e for e in document["benchmarks"] if e["extra_info"]["case"] == "cnn, batch 64"]
    entries = [e for e in entries if e["extra_info"]["level"] == "training"]
    for entry in list(entries):
        info = entry["extra_info"]
        info |= {"level": "population", "case": "8 × cnn, batch 64", "members": 8}
        info["sweep"] = ["members"]
        if info["contender"] == "numba":
            twice = {"data": [2 * x for x in entry["stats"]["data"]]}
            other = {**info, "contender": "numba-one-thread", "is_peer": True}
            entries.append({**entry, "extra_info": other, "stats": twice})
    document["benchmarks"] = entries
    document["mnist_accel"] |= {"absent": [], "failed": [], "accuracy": []}
    analysis = analyze(load_results([write_document(tmp_path / "results.json", document)]))
    table = population_table(analysis, analysis.results.cases("population"))
    (row,) = table.groups[0].rows
    assert row[0].text == "8 × cnn, batch 64"
    assert row[-2].text.startswith("2.00× (")
    assert row[-1].text == "200 MiB"
    assert analysis.rows["population", "8 × cnn, batch 64", "numba"].baseline == "jax"
