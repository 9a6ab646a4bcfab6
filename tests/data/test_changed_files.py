"""A run stores what its data file contained, and refuses to go on with a changed one."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from mnist_accel.commands import main
from mnist_accel.data import load_dataset
from mnist_accel.data.idx import format_idx
from mnist_accel.data.sources.digests import FILE_NAMES
from mnist_accel.errors import DataError

QUICK = ("--backend", "numpy", "--threads", "1", "--iterations", "4", "--batch-size", "8")
SPLIT = ("--test-split", "0.25")


def write_table(path, columns=("a", "b", "label"), *, rows=40, label="label"):
    values = {"a": lambda i: i / 7, "b": lambda i: -i, label: lambda i: ("even", "odd")[i % 2]}
    lines = [",".join(columns)]
    lines += [",".join(str(values[column](i)) for column in columns) for i in range(rows)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with a table and a run on it."""
    folder = tmp_path_factory.mktemp("trained")
    write_table(folder / "f.csv")
    flags = ["--dataset", f"csv:{folder}/f.csv", *SPLIT, *QUICK, "--out", str(folder / "run")]
    assert main(["train", *flags, "--quiet"]) == 0
    return folder


@pytest.fixture
def run(trained):
    """The path of the run; its table is the original one again after the test."""
    yield str(trained / "run")
    write_table(trained / "f.csv")


def config_of(run):
    return json.loads(Path(run, "config.json").read_text(encoding="utf-8"))


def failing(capsys, code, *arguments):
    """Run a command that fails with a code, and return the one line of its message."""
    capsys.readouterr()
    assert main([str(argument) for argument in arguments]) == code
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_a_run_stores_the_digest_and_the_columns_of_its_table(run):
    identity = config_of(run)["data"]["identity"]
    assert (identity["columns"], identity["label_column"]) == (["a", "b"], "label")
    assert len(identity["sha256"]) == 64
    assert main(["evaluate", run, "--backend", "numpy"]) == 0


CHANGES = [
    ({"rows": 41}, "its content has the SHA-256 "),
    ({"columns": ("b", "a", "label")}, "feature column 1 is 'b', expected 'a'; restore the file"),
    ({"columns": ("b", "label")}, "it has 1 feature column, expected 2"),
]


@pytest.mark.parametrize(("change", "says"), CHANGES)
def test_a_changed_table_is_refused_by_every_command_that_reads_it(
    run, trained, capsys, change, says
):
    write_table(trained / "f.csv", **change)
    for command in (
        ["evaluate", run, "--backend", "numpy"],
        ["evaluate", run, "--backend", "numpy", "--dataset", f"csv:{trained}/f.csv", *SPLIT],
        ["predict", run, "--index", 0, "--backend", "numpy"],
        ["train", "--resume", run, "--iterations", 8],
    ):
        line = failing(capsys, 4, *command)
        assert "f.csv differs from the data that the network was trained on: " in line
        assert says in line
        assert "restore the file, or train a new network" in line


def test_a_renamed_label_column_is_a_change(run, trained, capsys):
    write_table(trained / "f.csv", ("a", "b", "kind"), label="kind")
    line = failing(capsys, 4, "evaluate", run, "--backend", "numpy", "--label-column", "kind")
    assert "its column of labels is 'kind', expected 'label'" in line


def test_a_run_on_a_table_cannot_continue_with_an_archive(run, tmp_path, capsys):
    np.savez(tmp_path / "a.npz", x=np.zeros((40, 2), np.float32), y=np.arange(40) % 2)
    line = failing(capsys, 4, "train", "--resume", run, "--dataset", f"npz:{tmp_path}/a.npz")
    assert "a.npz differs from the data that the network was trained on: its content has" in line


def test_another_split_of_the_same_file_is_refused(run, trained, capsys):
    shutil.copy(trained / "f.csv", trained / "copy.csv")
    for dataset in ([], ["--dataset", f"csv:{trained}/copy.csv"]):
        line = failing(capsys, 2, "evaluate", run, *dataset, "--test-split", "0.5")
        assert "would test it on examples it was trained on; omit --test-split" in line


def test_a_copy_of_the_file_is_split_as_in_the_training(run, trained, capsys):
    shutil.copy(trained / "f.csv", trained / "copy.csv")
    results = []
    for dataset in ([], ["--dataset", f"csv:{trained}/copy.csv"]):
        capsys.readouterr()
        assert main(["evaluate", run, *dataset, "--backend", "numpy", "--json"]) == 0
        results.append(json.loads(capsys.readouterr().out))
    assert results[1] == results[0] | {"dataset": "copy.csv"}
    assert (results[0]["images"], results[0]["whole_file"]) == (10, False)


def test_a_moved_file_continues_a_run_at_its_new_place(run, trained, capsys):
    shutil.copytree(run, trained / "moved")
    (trained / "place").mkdir()
    (trained / "f.csv").rename(trained / "place" / "g.csv")
    moved, new = str(trained / "moved"), ["--dataset", f"csv:{trained}/place/g.csv"]
    for command in (["evaluate", moved], ["train", "--resume", moved, "--iterations", "8"]):
        line = failing(capsys, 4, *command)
        assert (
            "f.csv does not exist; if it has moved, give its new place with --dataset csv" in line
        )
    resume = ["train", "--resume", moved, "--iterations", "8", "--quiet"]
    assert main([*resume, *new]) == 0
    assert config_of(moved)["settings"]["dataset"] == new[1]
    assert main(["evaluate", moved, "--backend", "numpy"]) == 0
    write_table(trained / "place" / "g.csv", rows=41)
    assert "g.csv differs from the data that the network" in failing(capsys, 4, *resume, *new)
    line = failing(capsys, 2, *resume, "--dataset", "digits")
    assert "--dataset cannot be given with --resume" in line


def test_a_run_without_the_digest_cannot_continue_with_a_moved_file(run, trained, capsys):
    old = shutil.copytree(run, trained / "early")
    config = config_of(old)
    del config["data"]["identity"]
    (old / "config.json").write_text(json.dumps(config), encoding="utf-8")
    shutil.copy(trained / "f.csv", trained / "copy.csv")
    resume = ["train", "--resume", old, "--dataset", f"csv:{trained}/copy.csv"]
    assert "f.csv, whose SHA-256 is not stored, so csv:" in failing(capsys, 4, *resume)


def test_another_table_must_have_the_same_columns(run, trained, capsys):
    write_table(trained / "new.csv", ("label", "a", "b"), rows=20)
    evaluate = ["evaluate", run, "--backend", "numpy", "--dataset", f"csv:{trained}/new.csv"]
    assert main([*evaluate, *SPLIT]) == 0
    write_table(trained / "new.csv", ("b", "a", "label"), rows=20)
    line = failing(capsys, 4, *evaluate, *SPLIT)
    assert "feature column 1 is 'b', expected 'a'; give the same columns in the same order" in line


def write_codes(path, largest):
    """Write a table of 64 columns, which looks like images if one number is above 127."""
    rows = [[largest, *range(63), i % 2] for i in range(40)]
    header = ",".join([*(f"c{i}" for i in range(64)), "label"])
    path.write_text("\n".join([header, *(",".join(map(str, row)) for row in rows)]))
    return ["--dataset", f"csv:{path}", *SPLIT]


def test_another_table_is_read_as_what_the_network_takes(tmp_path, capsys):
    run = str(tmp_path / "run")
    assert main(["train", *write_codes(tmp_path / "f.csv", 100), *QUICK, "--out", run]) == 0
    other = write_codes(tmp_path / "new.csv", 200)
    capsys.readouterr()
    assert main(["evaluate", run, "--backend", "numpy", *other]) == 0
    assert "new.csv, 10 test examples" in capsys.readouterr().out
    line = failing(capsys, 4, "evaluate", run, *other, "--kind", "auto")
    assert "takes features of shape 64, but the images have 8×8 pixels" in line


def test_runs_without_the_digest_still_load(run, trained):
    old = shutil.copytree(run, trained / "old")
    config = config_of(old)
    del config["data"]["identity"]
    (old / "config.json").write_text(json.dumps(config), encoding="utf-8")
    assert main(["evaluate", str(old), "--backend", "numpy"]) == 0
    assert main(["train", "--resume", str(old), "--iterations", "5", "--quiet"]) == 0


def test_a_resumed_run_does_not_repeat_the_columns(run):
    assert main(["train", "--resume", run, "--iterations", "6", "--quiet"]) == 0
    config = config_of(run)
    assert config["data"]["identity"]["columns"] == ["a", "b"]
    assert "identity" not in config["earlier"][0]["data"]


def test_a_changed_archive_is_refused_by_a_population(tmp_path, capsys):
    rng = np.random.default_rng(0)
    examples, labels = rng.integers(0, 256, (40, 8, 8), dtype=np.uint8), np.arange(40) % 2
    np.savez(tmp_path / "a.npz", x=examples, y=labels)
    flags = ["--dataset", f"npz:{tmp_path}/a.npz", *SPLIT, "--backend", "numpy"]
    out = tmp_path / "population"
    flags += ["--iterations", "2", "--batch-size", "8", "--seeds", "2", "--quiet"]
    assert main(["population", "cnn", *flags, "--out", str(out)]) == 0
    np.savez(tmp_path / "a.npz", x=examples[::-1], y=labels)
    (out / "members.jsonl").write_bytes(b"")
    says = "a.npz differs from the data that the network was trained on: its content has the SHA"
    assert says in failing(capsys, 4, "population", "--resume", out, "--quiet")
    np.savez(tmp_path / "a.npz", x=examples, y=labels)
    (tmp_path / "a.npz").rename(tmp_path / "b.npz")
    resume = ["population", "--resume", out, "--quiet"]
    assert "a.npz does not exist; if it has moved" in failing(capsys, 4, *resume)
    assert main([*map(str, resume), "--dataset", f"npz:{tmp_path}/b.npz"]) == 0
    np.savez(tmp_path / "a.npz", x=examples[::-1], y=labels)
    line = failing(capsys, 4, "evaluate", out, "--member", 1, "--backend", "numpy")
    assert says in line


def test_a_member_of_a_population_has_the_classes_of_its_table(tmp_path, capsys):
    write_table(tmp_path / "f.csv")
    flags = ["--dataset", f"csv:{tmp_path}/f.csv", *SPLIT, *QUICK, "--seeds", "1", "--quiet"]
    out = str(tmp_path / "population")
    assert main(["population", "two-layer", *flags, "--out", out]) == 0
    text = (tmp_path / "f.csv").read_text(encoding="utf-8")
    (tmp_path / "new.csv").write_text(text.replace("even", "prime"), encoding="utf-8")
    new = ["--dataset", f"csv:{tmp_path}/new.csv", *SPLIT]
    line = failing(capsys, 4, "evaluate", out, "--member", 0, "--backend", "numpy", *new)
    assert "has the class 'prime', but the network has only even, odd" in line


def test_python_refuses_files_with_another_identity(tmp_path):
    for name in FILE_NAMES:
        array = np.zeros((20, 8, 8), np.uint8) if "images" in name else np.arange(20) % 10
        (tmp_path / name).write_bytes(format_idx(array.astype(np.uint8)))
    data = load_dataset("custom", tmp_path)
    load_dataset("custom", tmp_path, expected=data.identity)
    with pytest.raises(TypeError, match="expected must be the attribute identity of a data set"):
        load_dataset("custom", tmp_path, expected=data.identity.sha256)
    (tmp_path / FILE_NAMES[1]).write_bytes(format_idx(np.zeros(20, np.uint8)))
    with pytest.raises(DataError, match=r"folder .* differs from the data that the network was"):
        load_dataset("custom", tmp_path, expected=data.identity)
