"""The summary states what the measured figures show."""

import json
import re

import pytest

from benchmarks.report import numbers
from benchmarks.report.markdown import to_markdown
from benchmarks.report.summary import summarize
from tests.support.benchmark_files import (
    GeneratedResults,
    analyze_generated,
    set_accuracy_seconds,
)


def test_summary_names_the_fastest_backend_and_slower_rows(analysis):
    summary = summarize(analysis)
    assert "faster than the best baseline in all 3 measured recipes (of 7)" in summary.headline
    assert any(
        re.fullmatch(
            r"two-layer, batch 512: numba trains 8\d\d k images/s, "
            r"2\.\d+× the speed of torch-eager \([\d.]+–[\d.]+\)\.",
            sentence,
        )
        for sentence in summary.recipes
    )
    text = " ".join(summary.findings)
    assert "numpy is significantly slower than the best baseline in" in text
    assert re.search(
        r"numba is significantly slower than the best baseline in none of \d+ rows of training, "
        r"inference and operations\.",
        text,
    )
    assert "numpy has no time for training lenet, batch 4096: it failed (" in text
    assert "Not measured at all: cupy (no NVIDIA GPU; nvidia-smi finds none)" in text
    assert not summary.cautions


def test_difference_within_noise_is_not_a_win(tmp_path):
    slower = {"numba": 2.05}  # as slow as torch-eager at a batch of 512
    generated = GeneratedResults(contenders=("numba", "torch-eager"), slower=slower)
    summary = summarize(analyze_generated(tmp_path, generated))
    sentence = next(text for text in summary.recipes if text.startswith("two-layer"))
    assert sentence.endswith("not significant.")
    assert "not significantly different" in summary.headline


def test_summary_counts_rows_that_are_slower_within_noise(tmp_path):
    def change(document):
        entries = document["benchmarks"]
        entries[:] = [one for one in entries if one["extra_info"]["level"] != "operations"]

    generated = GeneratedResults(
        contenders=("numba", "torch-eager"), pass_noise=0.13, passes=8, slower={"numba": 1.7}
    )
    analysis = analyze_generated(tmp_path, generated, change)
    rows = [row for row in analysis.rows.values() if not row.is_baseline and row.speed]
    undecided = [row for row in rows if row.speed.value < 1 <= row.speed.high]
    assert len(undecided) > 1
    assert not any(row.loses for row in rows)
    worst = min(undecided, key=lambda row: row.speed.value)
    (sentence,) = (
        s for s in summarize(analysis).findings if s.startswith("numba is significantly slower")
    )
    assert f"in none of {len(rows)} decided rows of training and inference; in " in sentence
    assert f"{len(undecided)} rows it is slower, but the interval includes 1, at worst" in sentence
    assert (
        f"{worst.measurement.case.level} {worst.measurement.case.name} "
        f"({numbers.times(worst.speed.value)} the speed of torch-eager, "
        f"{numbers.interval(worst.speed)})"
    ) in sentence


def test_loops_are_never_the_best_baseline(tmp_path):
    """Loops may be the fastest contender, or the only one besides this project."""

    def change(document):
        renamed = json.dumps(document).replace('"jax"', '"loops"')
        document.clear()
        document.update(json.loads(renamed))

    fastest = {"jax": 0.001}
    generated = GeneratedResults(
        ("numba", "torch-eager", "jax"), passes=2, rounds=3, slower=fastest
    )
    analysis = analyze_generated(tmp_path, generated, change)
    assert {row.baseline for row in analysis.rows.values()} == {"torch-eager"}
    assert "| loops | for scale" in to_markdown(analysis)
    alone = analyze_generated(
        tmp_path, GeneratedResults(("numba", "jax"), passes=2, rounds=3), change
    )
    assert all(row.speed is None for row in alone.rows.values())
    summary = summarize(alone)
    assert "No baseline was measured" in summary.headline
    assert all("without a baseline to compare with" in sentence for sentence in summary.recipes)


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (
            {"numba": (2.0, 2.1, 2.2), "jax": (3.0, 3.1, 3.2)},
            "first with numba: 2.10 s, 1 epochs, medians of all 3 seeds (2.00–2.20 s).",
        ),
        (
            {"numba": (2.0, 2.1, 3.3), "jax": (3.0, 3.1, 3.2)},
            "first with numba: 2.10 s, 1 epochs, medians of all 3 seeds (2.00–3.30 s); "
            "the seeds of jax overlap, so the order may be chance.",
        ),
        (
            {"numba": (2.0, 2.1, None), "jax": (3.0, 3.1, 3.2)},
            "first with jax: 3.10 s, 1 epochs, medians of all 3 seeds (3.00–3.20 s); "
            "numba needed 2.05 s, medians of the 2 of 3 seeds that reached it (2.00–2.10 s).",
        ),
        (
            {"numba": (2.0, None, None), "jax": (None, None, None)},
            "first with numba: 2.00 s, 1 epochs, medians of the 1 of 3 seeds that reached it "
            "(2.00–2.00 s).",
        ),
    ],
)
def test_first_contender_to_an_accuracy_depends_on_all_seeds(tmp_path, seconds, expected):
    generated = GeneratedResults(contenders=("numba", "jax"), passes=2, rounds=2)
    generated_analysis = analyze_generated(
        tmp_path, generated, lambda document: set_accuracy_seconds(document, seconds)
    )
    (sentence,) = (
        s for s in summarize(generated_analysis).findings if s.startswith("lenet, batch 64, reach")
    )
    assert sentence == f"lenet, batch 64, reaches 95% validation accuracy {expected}"


def test_summary_names_rows_with_large_differences_between_passes(tmp_path):
    def change(document):
        infos = [one["extra_info"] | one["stats"] for one in document["benchmarks"]]
        for entry, info in zip(document["benchmarks"], infos, strict=True):
            if (info["case"], info["contender"], info["pass"]) == ("lenet, batch 64", "jax", 2):
                entry["stats"]["data"] = [3 * second for second in info["data"]]

    generated = GeneratedResults(contenders=("numba", "jax"))
    generated_analysis = analyze_generated(tmp_path, generated, change)
    (caution,) = summarize(generated_analysis).cautions
    assert re.fullmatch(
        r"Turns differ by more than a factor of 2 in 1 of \d+ rows \(marked †\), "
        r"training lenet, batch 64, jax \([23]\.\d+×\)\.",
        caution,
    )
    text = to_markdown(generated_analysis)
    assert text.count("†") == 3  # in the caution, next to its n, and in the note below the table


@pytest.mark.parametrize(
    ("loads", "phrases"),
    [
        ([0.4, 1.9, 1.9, 2.2, 1.8, 1.4], ()),  # load that the measurement itself causes
        ([0.6, 0.1, 0.1, 2.2, 1.8, 1.4], ("not idle when the run started", "0.6")),
        ([0.1, 0.1, 0.1, 5.2, 1.8, 1.4], ("The machine was busy", "5.2")),
    ],
)
def test_summary_warns_of_a_busy_machine(tmp_path, loads, phrases):
    def change(document):
        document["mnist_accel"]["host"]["load_average"] = loads

    generated = GeneratedResults(contenders=("numba", "jax"))
    cautions = summarize(analyze_generated(tmp_path, generated, change)).cautions
    assert len(cautions) == bool(phrases)
    assert all(phrase in cautions[0] for phrase in phrases)


def test_summary_warns_of_doubtful_figures(tmp_path):
    def change(document):
        document["mnist_accel"]["complete"] = False
        document["mnist_accel"]["host"] |= {"dirty": True, "load_average": [9.0, 1.0, 1.0]}

    generated = GeneratedResults(contenders=("numba", "jax"), passes=1)
    cautions = " ".join(summarize(analyze_generated(tmp_path, generated, change)).cautions)
    for words in ("incomplete", "uncommitted changes", "fewer than 3 processes", "up to 9.0"):
        assert words in cautions
