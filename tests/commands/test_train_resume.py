"""`train --resume`: the same weights as without an interruption, and damaged run folders."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import mnist_accel as ma
from mnist_accel.commands import main
from tests.support.command_line import (
    DIGITS,
    QUICK,
    assert_same_weights,
    environment,
    read_json,
)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Return the folder of a finished run of 10 steps."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    arguments = (*DIGITS, "--iterations", "10", "--log-every", "5", "--out", str(folder), "--quiet")
    assert main(["train", *arguments]) == 0
    return folder


def test_resume_continues_to_the_same_weights(run):
    arguments = (*DIGITS, "--quiet")
    assert run("train", *arguments, "--iterations", 60, "--out", "straight")[0] == 0
    assert run("train", *arguments, "--iterations", 25, "--out", "runs/parted")[0] == 0
    assert run("train", "--resume", "--iterations", 60, "--quiet")[0] == 0
    assert_same_weights("straight", "runs/parted")
    metrics = Path("runs/parted/metrics.jsonl").read_text().splitlines()
    epochs = [json.loads(line)["epoch"] for line in metrics if '"epoch", ' in line]
    assert epochs == sorted(set(epochs))
    code, _, err = run("train", "--resume", "runs/parted")
    assert code == 0
    assert "the run already has 60 steps; no step is left to train" in err
    code, _, err = run("train", "--resume", "runs/parted", "--iterations", 1)
    assert code == 0
    assert "the run already has 60 steps, more than the requested 1; no step is left" in err


def files_with_times(folder):
    """Return the content and the time of every file of a folder by its path."""
    files = (path for path in Path(folder).rglob("*") if path.is_file())
    return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


@pytest.mark.parametrize(
    "end",
    [
        ("--iterations", 25),  # within the second epoch
        ("--epochs", 2),
        ("--epochs", 9, "--lr", 1e-9, "--patience", 1),
    ],
)
def test_resuming_a_finished_run_changes_no_file_and_repeats_its_result(run, end):
    _, result, _ = run("train", *DIGITS, *end, "--out", "run", "--quiet")
    before = files_with_times("run")
    for more in ((), ("--iterations", 1)):
        code, again, _ = run("train", "--resume", "run", "--quiet", *more)
        assert (code, again) == (0, result)
        assert files_with_times("run") == before


def test_a_lost_picture_or_summary_of_a_finished_run_is_made_again(run):
    assert run("train", *DIGITS, "--iterations", 25, "--out", "run", "--quiet")[0] == 0
    before = {path: content for path, (content, _) in files_with_times("run").items()}
    Path("run/curves.png").unlink()
    Path("run/summary.json").write_text("{")
    assert run("train", "--resume", "run", "--quiet")[0] == 0
    after = {path: content for path, (content, _) in files_with_times("run").items()}
    assert after.keys() == before.keys()
    for name in ("curves.png", "mistakes.png", "metrics.jsonl", "model.safetensors"):
        assert after[Path("run", name)] == before[Path("run", name)], name
    assert read_json("run/summary.json")["epochs"] == 2


def test_a_run_that_never_began_is_skipped_and_its_command_can_be_repeated(run, fails, trained):
    shutil.copytree(trained, "runs/done")
    Path("runs/unbegun/checkpoint").mkdir(parents=True)
    Path("runs/unbegun/metrics.jsonl").touch()
    fails(4, "train", "--resume", "runs/unbegun", says="repeat the command that began it")
    assert run("train", "--resume", "--iterations", 11, "--quiet")[0] == 0
    assert read_json("runs/done/summary.json")["steps"] == 11
    assert run("train", *QUICK, "--out", "runs/unbegun", "--quiet")[0] == 0
    assert read_json("runs/unbegun/summary.json")["steps"] == 40


@pytest.mark.parametrize("name", ["config.json", "metrics.jsonl", "model.safetensors"])
def test_a_new_run_replaces_no_file_of_the_user(fails, name):
    Path("mine").mkdir()
    Path("mine", name).write_text("{}")
    fails(2, "train", *QUICK, "--out", "mine", says=f"mine already contains a run ({name})")
    assert [path.name for path in Path("mine").iterdir()] == [name]


def test_resume_refuses_changed_settings_and_missing_runs(run, fails):
    assert run("train", *QUICK, "--out", "run", "--quiet")[0] == 0
    fails(2, "train", "--resume", "run", "--lr", 1, says="--lr cannot be given with --resume")
    fails(2, "train", *QUICK, "--out", "run", says="run already contains a run")
    fails(4, "train", "--resume", "nowhere", says="run nowhere does not exist")
    fails(4, "train", "--resume", ".", says=". is not a run folder")
    fails(4, "train", "--resume", says="runs/ contains no run")
    Path("run/checkpoint/last.safetensors").write_bytes(b"broken")
    fails(4, "train", "--resume", "run", says="not a complete safetensors file")


@pytest.mark.parametrize("name", ["lr", "seed", "batch-size", "hidden-sizes", "dtype", "model"])
def test_a_setting_that_defines_the_run_cannot_be_given_with_resume(fails, name):
    value = {"dtype": "float64", "model": "cnn"}.get(name, 3)
    fails(
        2, "train", "--resume", f"--{name}", value, says=f"--{name} cannot be given with --resume"
    )


def test_a_resumed_run_stays_on_its_backend_and_keeps_its_earlier_configuration(run):
    arguments = ("--dataset", "digits", "--backend", "cupy", "--iterations", 3, "--quiet")
    assert run("train", *arguments, "--out", "run")[0] == 0
    began = read_json("run/config.json")
    assert run("train", "--resume", "run", "--iterations", 5, "--quiet")[0] == 0
    resumed = read_json("run/config.json")
    assert resumed["backend"]["requested"] == began["backend"]["used"]
    assert resumed["backend"]["used"] == began["backend"]["used"]
    assert resumed["earlier"] == [began]
    assert (
        run("train", "--resume", "run", "--iterations", 7, "--backend", "numpy", "--quiet")[0] == 0
    )
    again = read_json("run/config.json")
    assert again["backend"]["used"] == "numpy"
    assert [config["settings"]["iterations"] for config in again["earlier"]] == [3, 5]
    assert "earlier" not in resumed["earlier"][0]


def test_a_length_in_epochs_replaces_a_length_in_steps(run, trained):
    """An epoch has 22 steps, as batches are drawn with replacement."""
    shutil.copytree(trained, "run")
    assert run("train", "--resume", "run", "--epochs", 1, "--quiet")[0] == 0
    config = ("--config", "run/config.json", "--out", "other", "--quiet")
    assert run("train", *config, "--iterations", 5)[0] == 0
    assert [read_json(f"{name}/summary.json")["steps"] for name in ("run", "other")] == [22, 5]


def test_unfinished_files_of_a_killed_process_are_removed(run, trained):
    shutil.copytree(trained, "run")
    left = [Path("run/checkpoint/.last.safetensors.12.unfinished"), Path("run/.c.3.unfinished")]
    for path in left:
        path.write_bytes(b"half a file")
    assert run("train", "--resume", "run", "--iterations", 11, "--quiet")[0] == 0
    assert not any(path.exists() for path in left)


@pytest.mark.posix
def test_a_full_disk_is_reported_in_one_line_and_the_run_resumes_later(run, trained):
    """A limit on the size of files makes a write fail as on a full disk."""
    import resource

    shutil.copytree(trained, "run")
    resume = ("train", "--resume", "run", "--iterations", "20", "--quiet")
    full = subprocess.run(
        [sys.executable, "-m", "mnist_accel", *resume],
        env=environment(),
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000)),
    )
    assert full.returncode == 4
    assert "cannot write run/checkpoint/last.safetensors: File too large" in full.stderr
    assert len(full.stderr.splitlines()) == 1
    assert ma.load_checkpoint("run/checkpoint", backend="numpy").step == 10
    assert [file.name for file in Path("run/checkpoint").iterdir()] == ["last.safetensors"]
    assert run(*resume)[0] == 0
    steps = [
        line for line in Path("run/metrics.jsonl").read_text().splitlines() if "losses" in line
    ]
    assert sum(len(json.loads(line)["losses"]) for line in steps) == 20


@pytest.mark.parametrize(
    ("file", "content", "says"),
    [
        ("config.json", "[]", "run/config.json is not the config.json of a run"),
        ("config.json", "{}", "run/config.json is not the config.json of a run"),
        ("config.json", '{"settings"', "run/config.json is not valid JSON"),
        (
            "config.json",
            '{"settings": {}}',
            "config.json is not the config.json of a run: object missing required field `backend`",
        ),
        (
            "config.json",
            '{"settings": {}, "backend": {"used": "numpy", "threads": "all"}}',
            "backend.threads: expected `int | null`, got `str`",
        ),
        ("metrics.jsonl", "5\n", "run/metrics.jsonl, line 1, is not a line of metrics"),
        (
            "metrics.jsonl",
            "{}\n",
            "line 1, is not a line of metrics: object missing",
        ),
        (
            "metrics.jsonl",
            '{"event": "epoch", "epoch": 1, "step": 2, "train_accuracy": 0.5, '
            '"validation_accuracy": 0.5, "train_loss": "low"}\n',
            "line 1, is not a line of metrics: train_loss: expected `float | null`, got `str`",
        ),
        (
            "metrics.jsonl",
            " " * (2**24 + 1) + "\n",
            "line 1, has 16,777,217 bytes, too many; restore",
        ),
        ("metrics.jsonl", "{\n{}\n", "run/metrics.jsonl, line 1, is not valid JSON"),
        ("metrics.jsonl", "\xff\n{}\n", "run/metrics.jsonl, line 1, is not valid JSON"),
        (
            "metrics.jsonl",
            None,
            "run/metrics.jsonl is missing; restore it, or start a new run with --config run/config",
        ),
        ("checkpoint/last.safetensors", None, "run/checkpoint/last.safetensors does not exist"),
    ],
)
def test_a_damaged_run_is_refused_with_the_name_of_the_file(fails, trained, file, content, says):
    shutil.copytree(trained, "run")
    path = Path("run", file)
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content.encode("latin-1"))
    fails(4, "train", "--resume", "run", "--iterations", 19, "--quiet", says=says)


@pytest.mark.parametrize(
    ("order", "says"),
    [
        ([0, 0, 1], "line 2, is for step 5, but an earlier line is for step 5; restore it, or"),
        ([1, 0], "line 2, is for step 5, but an earlier line is for step 10; restore it, or"),
        ([2, 2], "line 2, is for epoch 1, but an earlier line is for epoch 1; restore it, or"),
    ],
)
def test_repeated_or_reversed_metrics_are_refused(fails, trained, order, says):
    shutil.copytree(trained, "run")
    lines = Path("run/metrics.jsonl").read_text().splitlines(keepends=True)
    Path("run/metrics.jsonl").write_text("".join(lines[index] for index in order))
    fails(4, "train", "--resume", "run", "--iterations", 19, "--quiet", says=says)


def test_an_unfinished_line_of_metrics_is_written_again(run, trained):
    shutil.copytree(trained, "run")
    with Path("run/metrics.jsonl").open("a") as file:
        file.write('{"event": "steps", "st')
    assert run("train", "--resume", "run", "--iterations", 20, "--quiet")[0] == 0
    lines = [json.loads(line) for line in Path("run/metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if line["event"] == "steps"] == [5, 10, 15, 20]


@pytest.mark.parametrize("iterations", [10, 20])
def test_metrics_that_end_before_the_checkpoint_lead_to_a_warning(run, trained, iterations):
    shutil.copytree(trained, "run")
    first = Path("run/metrics.jsonl").read_text().splitlines(keepends=True)[0]
    Path("run/metrics.jsonl").write_text(first)
    code, _, err = run("train", "--resume", "run", "--iterations", iterations, "--quiet")
    assert code == 0
    assert "run/metrics.jsonl is damaged: it ends at step 5, the checkpoint is at step 10" in err


def write_idx(path, array):
    header = [0, 0, 8, array.ndim, *b"".join(side.to_bytes(4, "big") for side in array.shape)]
    path.write_bytes(bytes(header) + array.astype(np.uint8).tobytes())


def write_custom(folder, *, images):
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(0)
    for part, count in (("train", images), ("t10k", 20)):
        write_idx(folder / f"{part}-images-idx3-ubyte", rng.integers(0, 256, (count, 28, 28)))
        write_idx(folder / f"{part}-labels-idx1-ubyte", rng.integers(0, 10, count))


def test_custom_data_are_found_again_and_must_be_unchanged(fails, run):
    write_custom(Path("mine"), images=50)
    arguments = ("--dataset", "custom", "--data-dir", "mine", "--backend", "numpy")
    assert run("train", *arguments, "--iterations", 3, "--out", "run", "--quiet")[0] == 0
    code, out, _ = run("evaluate", "run")
    assert code == 0
    assert "custom, 20 test images" in out
    write_custom(Path("mine"), images=60)
    says = "mine differs from the data that the network was trained on"
    fails(4, "train", "--resume", "run", "--iterations", 9, "--quiet", says=says)
    fails(4, "evaluate", "run", says=says)


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("lr", 0.5, "the optimizer SGD(lr=0.05"),
        ("hidden_sizes", [60], "the layers 784 → linear 50 → relu → linear 10"),
        ("activation", "tanh", "the layers 784 → linear 50 → relu → linear 10"),
        ("seed", 7, "the seed 0"),
        ("dtype", "float64", "the dtype float32"),
        ("schedule", "cosine", "the schedule "),
        ("batch_size", 32, "the batch size 64"),
    ],
)
def test_an_edited_setting_that_defines_the_run_is_refused(fails, trained, name, value, says):
    shutil.copytree(trained, "run")
    content = read_json("run/config.json")
    content["settings"][name] = value
    Path("run/config.json").write_text(json.dumps(content))
    err = fails(4, "train", "--resume", "run", "--iterations", 12, says=says)
    assert "a resumed run keeps its settings; restore the file, or start a new run" in err


def test_an_edited_length_is_applied(run, trained):
    shutil.copytree(trained, "run")
    content = read_json("run/config.json")
    content["settings"]["iterations"] = 13
    Path("run/config.json").write_text(json.dumps(content))
    assert run("train", "--resume", "run", "--quiet")[0] == 0
    assert read_json("run/summary.json")["steps"] == 13


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="names of files are UTF-8 there")
def test_a_run_in_a_folder_whose_name_is_not_utf_8_is_resumed(run, tmp_path):
    folder = os.fsdecode(os.fsencode(tmp_path) + b"/run\xff")
    assert run("train", *DIGITS, "--iterations", 2, "--out", folder, "--quiet")[0] == 0
    config = Path(folder, "config.json")
    changed = json.loads(config.read_bytes()) | {"command": ["train", "--out", folder]}
    config.write_text(json.dumps(changed))
    assert run("train", "--resume", folder, "--iterations", 4, "--quiet")[0] == 0
