"""`--json`: one object on stdout and nothing else, the same exit codes, errors on stderr."""

import json

import numpy as np
import pytest

from backends.numpy.backend import NumpyBackend
from tests.support.command_line import QUICK


@pytest.fixture
def result(run):
    """Return a function that runs a command with `--json` and returns its exit code and object."""

    def result(*arguments):
        code, out, _ = run(*arguments, "--json")
        return code, json.loads(out, parse_constant=pytest.fail)  # NaN is not JSON

    return result


def test_data(result):
    code, found = result("data", "digits")
    assert code == 0
    assert (found["dataset"], found["train_images"], found["test_images"]) == ("digits", 1437, 360)
    assert found["verified"] is False
    assert found["files"] == {}
    assert found["classes"]["0"] == {"train": 143, "test": 35}


def test_evaluate(run, result):
    assert run("train", *QUICK, "--out", "run", "--quiet")[0] == 0
    code, found = result("evaluate", "run", "--limit-test", 5)
    assert code == 0
    assert (found["weights"], found["model"], found["dataset"]) == ("run", "two-layer", "digits")
    assert found["images"] == 5
    assert found["correct"] == np.trace(found["confusion_matrix"])
    assert found["accuracy"] == found["correct"] / 5
    accuracies = [one["accuracy"] for one in found["classes"].values()]
    assert None in accuracies  # five images do not show ten classes


def test_gradcheck(result, monkeypatch):
    code, found = result("gradcheck", "two-layer", "--backend", "numpy", "--elements", 3)
    assert code == 0
    assert (found["model"], found["backend"], found["passed"]) == ("two-layer", "numpy", True)
    assert [one["name"] for one in found["arrays"]] == ["W1", "b1", "W2", "b2"]
    correct = NumpyBackend.activation_backward
    monkeypatch.setattr(NumpyBackend, "activation_backward", lambda *args: 1.01 * correct(*args))
    code, found = result("gradcheck", "two-layer", "--backend", "numpy")
    assert code == 6
    assert found["passed"] is False


def test_compare(result, skewed_backend):
    arguments = ("compare", "--dataset", "digits", "--iterations", 2)
    code, found = result(*arguments, "--backends", "numpy,numpy,skewed")
    assert code == 6
    same, skewed = found["comparisons"]
    assert (found["reference"]["backend"], found["passed"]) == ("numpy", False)
    assert (same["passed"], same["first_difference"]) == (True, None)
    assert skewed["first_difference"] == {"step": 1, "tensor": "output of layer 2 (relu)"}
    assert len(skewed["errors"]["loss"]) == len(skewed["tolerances"]) == 2


@pytest.mark.parametrize("command", ["data", "evaluate", "compare", "gradcheck", "doctor"])
def test_errors_remain_one_line_on_stderr(command, run):
    code, out, err = run(command, "--json", "--nonsense")
    assert (code, out) == (2, "")
    assert err.startswith(f"mnist-accel {command}: unknown flag --nonsense")
    assert len(err.splitlines()) == 1
