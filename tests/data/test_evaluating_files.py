"""A network is evaluated on all of another file, unless the file states a test set."""

import json
import warnings

import numpy as np
import pytest

import mnist_accel as ma
from mnist_accel.commands import main
from mnist_accel.errors import DataError

QUICK = ("--backend", "numpy", "--threads", "1", "--iterations", "4", "--batch-size", "8")


def write(path, labels, *, columns="a,b,kind", more=lambda number: ""):
    """Write a table with these labels in the column "kind"."""
    rows = [f"{n / 7},{-n},{label}{more(n)}" for n, label in enumerate(labels)]
    path.write_text("\n".join([columns, *rows]) + "\n", encoding="utf-8")
    return f"csv:{path}"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The path of a run on a table with the classes 1, 2 and x."""
    folder = tmp_path_factory.mktemp("run")
    name = write(folder / "f.csv", ["1", "2", "x", "2"] * 10)
    flags = ["--dataset", name, "--label-column", "kind", "--test-split", "0.25"]
    assert main(["train", *flags, *QUICK, "--out", str(folder / "run"), "--quiet"]) == 0
    return str(folder / "run")


@pytest.fixture
def evaluate(run, capsys):
    """Return a function that evaluates the run and returns the exit code and what is printed."""

    def evaluate(*arguments, command="evaluate"):
        capsys.readouterr()
        code = main([command, run, "--backend", "numpy", *map(str, arguments)])
        out, err = capsys.readouterr()
        return code, out or err

    return evaluate


def test_all_rows_of_another_table_are_evaluated_and_the_output_says_so(evaluate, tmp_path):
    new = ("--dataset", write(tmp_path / "new.csv", ["2", "x"] * 10))
    code, out = evaluate(*new)
    assert code == 0
    assert "data     new.csv, all 20 examples\n" in out
    code, out = evaluate(*new, "--json")
    assert (json.loads(out)["images"], json.loads(out)["whole_file"]) == (20, True)
    assert "data     new.csv, 5 test examples\n" in evaluate(*new, "--test-split", 0.25)[1]
    assert "data     new.csv, 5 test examples\n" in evaluate(*new, "--limit-test", 5)[1]


def test_predictions_number_the_rows_of_another_table(evaluate, tmp_path):
    new = ("--dataset", write(tmp_path / "new.csv", ["2"] * 19 + ["x"]))
    code, out = evaluate(*new, "--index", 19, command="predict")
    assert code == 0
    assert "example 19 of new.csv (all 20 examples)\n" in out
    assert ", true label x\n" in out
    assert evaluate(*new, "--index", 20, command="predict")[0] == 2


@pytest.mark.parametrize("labels", [["2"], ["1.0", "2.0"], [" x"]])
def test_another_table_may_lack_classes_and_spell_numbers_otherwise(evaluate, tmp_path, labels):
    code, out = evaluate("--dataset", write(tmp_path / "new.csv", labels))
    assert code == 0
    assert f"all {len(labels)} example" in out


def test_a_label_that_the_network_lacks_is_named(evaluate, tmp_path):
    code, out = evaluate("--dataset", write(tmp_path / "new.csv", ["1", "1.5"]))
    assert code == 4
    assert "new.csv has the class '1.5', but the network has only 1, 2, x" in out


def test_a_stated_test_set_is_used_even_if_it_is_the_whole_file(evaluate, tmp_path, capsys):
    columns = "a,b,kind,split"
    part = write(
        tmp_path / "p.csv", "12x2", columns=columns, more=lambda n: ",test" * (n > 1) or ",train"
    )
    assert "p.csv, 2 test examples\n" in evaluate("--dataset", part)[1]
    test = write(tmp_path / "t.csv", "12x2", columns=columns, more=lambda n: ",test")
    assert "t.csv, all 4 examples\n" in evaluate("--dataset", test)[1]
    assert main(["train", "--dataset", test, "--label-column", "kind", *QUICK]) == 4
    assert "t.csv contains only a test set; add training examples" in capsys.readouterr().err


def test_an_archive_may_contain_only_a_test_set(tmp_path):
    np.savez(tmp_path / "t.npz", x_test=np.ones((3, 2)), y_test=["b", "b", "c"])
    data = ma.load_dataset(f"npz:{tmp_path}/t.npz", classes=("a", "b", "c"))
    assert data.t_test.tolist() == [1, 1, 2]
    with pytest.raises(DataError, match="contains only a test set"):
        ma.load_dataset(f"npz:{tmp_path}/t.npz")


def test_nothing_is_left_to_train_on_if_all_examples_are_test_examples(tmp_path, capsys):
    name = write(tmp_path / "f.csv", ["a", "b"] * 10)
    flags = ["--dataset", name, "--label-column", "kind", "--test-split", "1"]
    for command in ("train", "population"):
        out = tmp_path / command
        assert main([command, *flags, "--backend", "numpy", "--out", str(out)]) == 2
        assert (
            "no example of f.csv is left to train on; give --test-split" in capsys.readouterr().err
        )


def test_python_encodes_the_labels_of_another_file_as_the_network_does(tmp_path):
    name = write(tmp_path / "new.csv", ["x", "2"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # that a class has a single example is no mistake here
        data = ma.load_dataset(name, label_column="kind", classes=("1", "2", "x"))
    assert (data.t_test.tolist(), data.form.classes, data.is_whole) == ([2, 1], 3, True)
    digits = ma.load_dataset("digits", classes=[*"9876543210"])
    assert digits.t_test[0] == 9 - ma.load_dataset("digits").t_test[0]
    with pytest.raises(TypeError, match="classes must be a sequence of names, got 'ab'"):
        ma.load_dataset(name, classes="ab")
