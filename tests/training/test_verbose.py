"""`Trainer.fit(verbose=True)` shows what the command `train` shows."""

import re
import sys

import numpy as np
import pytest

import mnist_accel as ma
from mnist_accel.nn import Linear, Network, SquaredError
from tests.support.terminal import Terminal, screen


@pytest.fixture(scope="module")
def digits():
    data = ma.load_dataset("digits")
    return data.x_train[:320], data.t_train[:320]


def trainer(**given):
    return ma.Trainer(ma.create_model("two-layer", backend="numpy"), batch_size=64, **given)


def test_a_pipe_gets_backend_network_and_a_line_for_each_evaluated_epoch(digits, capsys):
    one = trainer()
    one.fit(*digits, epochs=4, validation_data=digits, validation_every=2, verbose=True)
    out, err = capsys.readouterr()
    line = r"loss \d\.\d{4}, train accuracy \d+\.\d\d%, validation accuracy \d+\.\d\d%"
    assert re.fullmatch(f"epoch 2: {line}\nepoch 4: {line}\n", out)
    assert err == (
        "backend numpy, eager: the backend numpy has no compiled epochs\n"
        "model two-layer: 784 → linear 50 → relu → linear 10\n"
    )


def test_long_trainings_have_at_most_forty_lines(digits, capsys):
    trainer().fit(digits[0][:64], digits[1][:64], epochs=60, verbose=True)
    epochs = [int(n) for n in re.findall(r"^epoch (\d+): loss [\d.]+, train accuracy [\d.]+%$",
                                         capsys.readouterr().out, re.MULTILINE)]  # fmt: skip
    assert epochs == [1, *range(2, 61, 2)]


def test_a_regression_has_losses_and_no_accuracy(capsys):
    features = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
    network = Network([Linear(1)], SquaredError(), input=ma.Features(3), backend="numpy")
    targets = features[:, :1]
    ma.Trainer(network).fit(
        features, targets, epochs=1, validation_data=(features, targets), verbose=True
    )
    out = capsys.readouterr().out
    assert re.fullmatch(r"epoch 1: loss [\d.]+, validation loss [\d.]+\n", out)


def test_a_stop_request_is_stated(digits, capsys):
    class Stop(ma.Callback):
        def on_epoch(self, trainer, report):
            trainer.request_stop("enough")

    trainer().fit(*digits, epochs=3, callbacks=[Stop()], verbose=True)
    assert capsys.readouterr().err.endswith("stopped at step 5: enough\n")


def test_what_callbacks_print_stands_above_the_bar(digits, monkeypatch):
    class Say(ma.Callback):
        def on_epoch(self, trainer, report):
            print(f"my epoch {report.epoch}")

    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "xterm-256color")
    trainer().fit(*digits, epochs=2, callbacks=[Say()], verbose=True)
    lines = [line for line in screen(terminal.getvalue()) if line]
    assert [line for line in lines if line.startswith("my epoch")] == ["my epoch 1", "my epoch 2"]
    assert not any("━" in line for line in lines)
    assert "━" in terminal.getvalue()


def test_results_are_the_same_with_and_without_the_display(digits, capsys):
    losses = [trainer(seed=1).fit(*digits, epochs=2, verbose=on).losses for on in (False, True)]
    assert losses[0] == losses[1]


def test_wrong_arguments_give_the_usual_errors(digits):
    with pytest.raises(ValueError, match="validation_every must be"):
        trainer().fit(*digits, epochs=1, validation_data=digits, validation_every=0, verbose=True)
    with pytest.raises(TypeError, match="verbose must be True or False, got 2"):
        trainer().fit(*digits, epochs=1, verbose=2)
