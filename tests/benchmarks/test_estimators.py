"""Estimators in the benchmarks: contenders train the same network, and are timed and scored."""

from functools import partial

import pytest

from benchmarks.contenders import contenders
from benchmarks.report.analysis import analyze
from benchmarks.report.estimator_table import estimator_table
from benchmarks.report.html import to_html
from benchmarks.report.markdown import to_markdown
from benchmarks.session.plan import Plan
from benchmarks.session.settings import CONTENDERS_OF, RunRequest, resolve
from benchmarks.storage.results import load_results
from benchmarks.storage.schema import Fit
from benchmarks.suite.cases import FIT_EPOCHS, EstimatorCase, estimator_cases
from benchmarks.suite.checks import CheckError
from benchmarks.suite.estimators import prepare_fits
from benchmarks.suite.expected import expected_file, read_trajectory
from benchmarks.suite.fits import check_fit
from benchmarks.workers.messages import (
    Prepare,
    TakeTurn,
    Timed,
    decode_answer,
    decode_request,
    encode,
)
from benchmarks.workers.process import WorkerError
from benchmarks.workers.team import Team
from mnist_accel.errors import UsageError
from tests.support.benchmark_files import GeneratedResults, write_document

DIGITS = EstimatorCase("digits", "classifier", "float64")
FEATURES = EstimatorCase("features", "regressor", "float32")


@pytest.mark.parametrize(
    ("name", "case"),
    [("scikit-learn", DIGITS), ("scikit-learn", FEATURES), ("numba", DIGITS)],
    ids=lambda one: getattr(one, "name", one),
)
def test_each_contender_makes_the_same_updates(tmp_path, name, case):
    contender = contenders()[name]
    expected = read_trajectory(str(expected_file(case, contender.ties, tmp_path)))
    check = check_fit(partial(contender.estimator, case.task), case, expected)
    assert check.difference <= check.tolerance


def test_estimator_with_another_penalty_is_refused(tmp_path):
    contender = contenders()["scikit-learn"]
    expected = read_trajectory(str(expected_file(DIGITS, contender.ties, tmp_path)))
    new = partial(contender.estimator, "classifier", alpha=0.1)
    with pytest.raises(CheckError, match="weights W1 differs"):
        check_fit(new, DIGITS, expected)


def test_turn_is_a_whole_fit_with_its_own_seed(tmp_path, monkeypatch):
    monkeypatch.setitem(FIT_EPOCHS, "digits", 30)
    contender = contenders()["scikit-learn"]
    expected = expected_file(DIGITS, contender.ties, tmp_path)
    row = prepare_fits(DIGITS, contender, str(expected))
    (seconds, first), (_, second) = row.turn(seed=1), row.turn(seed=2)
    assert seconds > 0
    assert first != second
    assert first.score > 0.9
    assert first.epochs == 30
    assert (row.info.images, row.info.steps) == (0, 0)


def test_cases_and_fits_are_sent_unchanged():
    for case in estimator_cases("full"):
        assert decode_request(encode(Prepare(case, "file"))) == Prepare(case, "file")
    assert decode_request(encode(TakeTurn(0.1, 7))).number == 7
    timed = Timed((1.5,), Fit(-0.25, 12))
    assert decode_answer(encode(timed)) == timed


def test_estimators_are_measured_only_if_they_are_named_and_with_ten_seeds():
    assert "estimator" not in resolve(RunRequest()).levels
    settings = resolve(RunRequest(profile="full", levels="estimator"))
    assert {*settings.contenders} == CONTENDERS_OF["estimator"]
    numbers = {}
    for turn in Plan(settings).turns:
        numbers.setdefault((turn.case.name, turn.contender), []).append(turn.number)
    assert len(numbers) == 2 * len(estimator_cases("full"))
    assert all(found == list(range(10)) for found in numbers.values())
    with pytest.raises(UsageError, match="the contenders of estimator are numba, scikit-learn"):
        resolve(RunRequest(levels="estimator", contenders="jax"))


def test_missing_data_set_costs_one_row(tmp_path, monkeypatch):
    monkeypatch.setenv("MNIST_ACCEL_DATA", str(tmp_path))
    case = EstimatorCase("fashion-mnist", "classifier", "float32")
    with Team() as team, pytest.raises(WorkerError, match=str(tmp_path)) as caught:
        team.turn(case, "numba", ["numba"], group=0, number=0, seconds=0.1)
    assert not caught.value.failed


def test_the_table_has_seconds_ratio_epochs_and_scores(tmp_path):
    contenders_ = ("numba", "jax")
    document = GeneratedResults(contenders_, slower={"jax": 3.0}, pass_noise=0.001).document()
    kept = []
    for entry in document["benchmarks"]:
        info = entry["extra_info"]
        if (info["level"], info["case"]) != ("training", "cnn, batch 64"):
            continue
        fit = {"score": 0.95 + 0.01 * info["pass"], "epochs": 50 + info["pass"]}
        info |= {"level": "estimator", "case": "digits, classifier, float32", "sweep": []}
        info |= {"images": 0, "steps": 0, "flops": 0.0, "bytes": 0.0, "fit": fit}
        if info["contender"] == "jax":
            info["contender"] = "scikit-learn"
            fit["score"] -= 0.005 + 0.001 * info["pass"]
        kept.append(entry)
    document["benchmarks"] = kept
    facts = document["mnist_accel"]["contenders"]
    facts["scikit-learn"] = facts.pop("jax")
    document["mnist_accel"] |= {"absent": [], "failed": [], "accuracy": []}
    analysis = analyze(load_results([write_document(tmp_path / "results.json", document)]))
    table = estimator_table(analysis, analysis.results.cases("estimator"))
    (row,) = table.groups[0].rows
    _, ours, theirs, speed, epochs, score, other, difference = (cell.text for cell in row)
    assert float(theirs) > 2 * float(ours)
    assert speed.startswith("7.0")
    assert epochs == "50–53"
    assert score == "96.50 ± 1.29"
    assert other == "95.85 ± 1.16"
    assert difference == "+0.65 (+0.44 to +0.86)"
    assert "4 seeds" in table.notes[0]
    paths = [write_document(tmp_path / f"run-{number}.json", document) for number in (1, 2)]
    both = analyze(load_results(paths))
    again = estimator_table(both, both.results.cases("estimator"))
    assert "4 seeds" in again.notes[0], "a second run with the same seeds has no further scores"
    assert again.groups[0].rows[0][-1].text == difference
    assert "Estimators of scikit-learn" in to_html(analysis)
    report = to_markdown(analysis)
    assert "| digits, classifier, float32 |" in report
    assert "differ significantly in 1 of 1 estimators" in report
