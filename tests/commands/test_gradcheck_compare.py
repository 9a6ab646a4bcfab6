"""`gradcheck` and `compare`: success, failure, and what they print."""

import pytest

from backends.numpy.backend import NumpyBackend
from mnist_accel.console import activity


def test_gradcheck_passes_and_fails(run, fails, monkeypatch):
    code, out, _ = run("gradcheck", "--model", "cnn", "--backend", "numba")
    assert code == 0
    assert "all gradients are within" in out
    fails(2, "gradcheck", "--backend", "", says="unknown backend ''; choose from auto, cupy")
    correct = NumpyBackend.activation_backward
    monkeypatch.setattr(NumpyBackend, "activation_backward", lambda *args: 1.01 * correct(*args))
    code, out, _ = run("gradcheck", "--model", "two-layer", "--backend", "numpy")
    assert code == 6
    assert "WRONG" in out


def test_compare_agrees_and_finds_the_first_difference(run, skewed_backend, fails):
    arguments = ("compare", "--dataset", "digits", "--iterations", 3)
    code, out, _ = run(*arguments, "--model", "cnn")
    assert code == 0
    assert "compiled steps of numba compared with eager steps of numpy" in out
    assert "no tensor differs by more than rounding" in out
    code, out, _ = run(*arguments, "--model", "cnn", "--eager")
    assert code == 0
    assert "eager steps (compiled=False) of numba" in out
    assert "gradient of W2" in out
    code, out, _ = run(*arguments, "--backends", "numpy,skewed")
    assert code == 6
    assert "DIFFERS: first at step 1: output of layer 2 (relu)" in out
    assert "repeat with --dtype float64" in out
    fails(2, "compare", "--backends", "numpy", says="at least two names")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("gradcheck", "--backend", "numpy"), "checking gradients: finished after "),
        (("compare", "--dataset", "digits", "--iterations", 1), "comparing backends: finished "),
    ],
)
def test_a_wait_for_the_compiler_is_not_silent(words, says, run, monkeypatch):
    monkeypatch.setattr(activity, "DELAY_SECONDS", 0.0)
    code, _, err = run(*words)
    assert code == 0
    assert says in err
