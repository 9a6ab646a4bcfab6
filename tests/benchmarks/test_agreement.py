"""`agree` counts the ratios of two runs that lie in the intervals of the other run."""

from dataclasses import replace

import pytest

from benchmarks.__main__ import main
from benchmarks.host import ROOT
from benchmarks.report.agreement import agreement
from benchmarks.report.analysis import analyze
from benchmarks.storage.results import load_results
from tests.support.benchmark_files import GeneratedResults

RUN = GeneratedResults(contenders=("numba", "torch-eager"), passes=5, rounds=3)


def test_two_runs_of_the_same_code_agree(tmp_path, capsys):
    paths = [replace(RUN, seed=seed).write(tmp_path / f"{seed}.json") for seed in (1, 2)]
    found = agreement(*(analyze(load_results([path])) for path in paths))
    assert len(found.pairs) > 25
    assert not found.undecided
    assert found.inside > 0.9
    assert found.half_width < 0.15
    assert main(["agree", *map(str, paths)]) == int(not found.is_reached)
    printed = capsys.readouterr().out
    assert f"{len(found.pairs)} ratios are decided in both runs, 0 are not." in printed
    assert f"{found.inside:.1%} lie in the interval of the other run (goal: 95%)" in printed


def test_runs_of_different_code_disagree(tmp_path, capsys):
    other = replace(RUN, seed=2, slower={"numba": 1.5})
    paths = [one.write(tmp_path / f"{one.seed}.json") for one in (RUN, other)]
    assert main(["agree", *map(str, paths)]) == 1
    printed = capsys.readouterr().out
    assert "0.0% lie in the interval of the other run" in printed
    assert "The goals are NOT reached." in printed
    assert "  training, two-layer, batch 512, numba / torch-eager: " in printed


def test_undecided_ratios_are_listed_and_not_counted(tmp_path, capsys):
    noisy = replace(RUN, seed=2, passes=2, pass_noise=0.2)
    paths = [one.write(tmp_path / f"{one.seed}.json") for one in (RUN, noisy)]
    main(["agree", *map(str, paths)])
    captured = capsys.readouterr()
    assert "undecided (n = 2)" in captured.out + captured.err or "no decided ratio" in captured.err


@pytest.mark.parametrize("contenders", [("numba",), ("torch-eager",)])
def test_runs_without_a_common_ratio_are_refused(tmp_path, capsys, contenders):
    paths = [RUN.write(tmp_path / "a.json")]
    paths.append(replace(RUN, contenders=contenders).write(tmp_path / "b.json"))
    assert main(["agree", *map(str, paths)]) == 2
    assert "no decided ratio in common" in capsys.readouterr().err


def test_published_runs_of_the_same_code_agree():
    (again,) = (ROOT / "benchmarks" / "results").glob("*-again.json.gz")
    first = again.with_name(again.name.replace("-again", ""))
    assert main(["agree", str(first), str(again)]) == 0
