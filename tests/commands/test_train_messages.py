"""What `train` tells a newcomer: epochs, lost compilation, useless settings, how to go on."""

import json
import re
import sys
from pathlib import Path

import pytest

from mnist_accel.training.show_progress import MAX_EPOCH_LINES, line_interval
from tests.support.command_line import DIGITS, ON_NUMPY, QUICK


def epochs_printed(out):
    return [int(number) for number in re.findall(r"^epoch (\d+):", out, re.MULTILINE)]


def test_long_trainings_print_few_epochs_and_log_all(run):
    code, out, _ = run("train", *QUICK, "--batch-size", 720, "--iterations", 500, "--out", "run")
    assert code == 0
    printed = epochs_printed(out)
    assert len(printed) <= 40
    assert printed == [1, *range(20, 501, 20)]
    logged = [json.loads(line) for line in Path("run/metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in logged if line["event"] == "epoch"] == list(range(1, 501))
    assert all(len(line) <= 80 for line in out.splitlines()[:-1])


def test_the_best_and_the_last_epoch_are_always_printed(run):
    """The best of these is not one of every ten."""
    flags = ("--batch-size", 720, "--epochs", 123, "--lr", 0.5, "--optimizer", "adam")
    code, out, _ = run("train", *QUICK[:-2], *flags, "--out", "run")
    assert code == 0
    reports = [json.loads(line) for line in Path("run/metrics.jsonl").read_text().splitlines()]
    accuracy = {r["epoch"]: r["validation_accuracy"] for r in reports if r["event"] == "epoch"}
    best = max(accuracy, key=accuracy.__getitem__)
    printed = epochs_printed(out)
    assert printed[0] == 1
    assert printed[-1] == 123
    assert best in printed or f"\nbest: epoch {best}: loss" in out


@pytest.mark.parametrize(
    ("evaluations", "interval"),
    [(1, 1), (37, 1), (38, 2), (74, 2), (75, 5), (200, 10), (5105, 200), (10**6, 50_000)],
)
def test_the_distance_of_lines_is_a_round_number(evaluations, interval):
    assert line_interval(evaluations) == interval
    assert evaluations / interval <= MAX_EPOCH_LINES


@pytest.mark.parametrize("quiet", [False, True])
def test_a_useless_training_is_a_warning_with_advice(run, quiet):
    flags = ("--lr", 100, "--epochs", 20, *(["--quiet"] if quiet else []))
    code, out, err = run("train", *DIGITS, *flags)
    assert code == 0
    warnings = [line for line in err.splitlines() if line.startswith("warning:")]
    advice = "the network is no better than guessing; try a smaller --lr, such as the default 0.05"
    assert warnings == [f"warning: after epoch 10, {advice}", f"warning: {advice}"]
    assert "test accuracy" in out


def test_a_short_training_is_no_reason_for_a_warning(run):
    code, _, err = run("train", *DIGITS, "--iterations", 2, "--lr", 1e-9)
    assert code == 0
    assert "warning" not in err
    assert "the network is no better than guessing; try a larger --lr" in err


def test_numpy_by_choice_is_not_called_a_loss(run):
    _, _, err = run("train", *QUICK)
    assert "compile" not in err
    assert "eager" not in err


def test_a_disabled_numba_is_a_warning_with_reason_cost_and_remedy(run, monkeypatch):
    import numba

    monkeypatch.setattr(numba.config, "DISABLE_JIT", 1)
    monkeypatch.setitem(sys.modules, "cupy", None)
    code, _, err = run("train", "--dataset", "digits", "--iterations", 3, "--quiet")
    assert code == 0
    assert err == (
        "warning: this training is not compiled: NUMBA_DISABLE_JIT is set, so Numba compiles "
        "nothing; steps run eagerly, usually 2 to 50 times slower; to compile it: unset "
        "NUMBA_DISABLE_JIT\n"
    )


DROPOUT = """
import mnist_accel as ma
from mnist_accel.nn import Dropout, Linear, SoftmaxCrossEntropy
from mnist_accel.recipes.models import Recipe

ma.RECIPES["dropout"] = Recipe(
    summary="with dropout",
    build=lambda hidden_sizes, activation: [Linear(12), Dropout(0.5), Linear(10)],
    loss=SoftmaxCrossEntropy(),
    optimizer="sgd",
    lr=0.05,
    batch_size=64,
    epochs=1,
)
"""


@pytest.mark.parametrize("backend", ["numba", "numpy"])
def test_a_layer_that_is_not_compiled_is_a_warning_except_on_numpy(
    run, own_tables, monkeypatch, backend
):
    Path("with_dropout.py").write_text(DROPOUT)
    monkeypatch.syspath_prepend(Path.cwd())
    flags = ("--import", "with_dropout", "--dataset", "digits", "--backend", backend)
    code, _, err = run("train", "--model", "dropout", *flags, "--threads", 1, "--quiet")
    assert code == 0
    expected = {
        "numba": "warning: this training is not compiled: the masks of dropout are drawn on the "
        "host at every step; steps run eagerly, usually 2 to 50 times slower\n",
        "numpy": "",
    }
    assert err == expected[backend]
    sys.modules.pop("with_dropout")


def test_a_batch_size_above_the_number_of_images_is_reported_as_reduced(run):
    flags = ("--model", "three-layer", "--batch-size", 5000, "--iterations", 2, "--quiet")
    _, _, err = run("train", *ON_NUMPY, *flags)
    assert "warning: --batch-size 5,000 is reduced to 1,437, the number of training images" in err


def test_a_finished_run_explains_how_to_extend_it(run):
    assert run("train", *QUICK, "--out", "run", "--quiet")[0] == 0
    code, _, err = run("train", "--resume", "run")
    assert code == 0
    assert "no step is left to train; to extend the run, give --epochs or --iterations" in err
    code, out, _ = run("train", "--resume", "run", "--epochs", 3)
    assert code == 0
    assert epochs_printed(out)[-1] == 3


def test_an_extended_schedule_is_reported(run):
    flags = ("--schedule", "cosine", "--iterations", 4)
    assert run("train", *DIGITS, *flags, "--out", "run", "--quiet")[0] == 0
    code, _, err = run("train", "--resume", "run", "--iterations", 8, "--quiet")
    assert code == 0
    assert "the run is extended from 4 to 8 steps, which stretches its schedule cosine" in err
