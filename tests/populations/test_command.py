"""The command `population`: its folder, interruptions, resumption, comparison."""

import csv
import io
import json
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

import mnist_accel as ma
from mnist_accel.commands import main
from mnist_accel.populations.display import PopulationDisplay
from mnist_accel.populations.folder import PopulationFolder
from mnist_accel.populations.member import MemberResult
from mnist_accel.populations.running import LocalMembers
from tests.support.command_line import environment, weights

QUICK = (
    "population", "two-layer", "--dataset", "digits", "--backend", "numpy", "--epochs", "1",
    "--batch-size", "10", "--limit-train", "300", "--limit-test", "100", "--quiet",
)  # fmt: skip


def networks(folder):
    return [network.state_dict() for network in PopulationFolder(folder).load()]


def assert_same_networks(one, other):
    for a, b in zip(networks(one), networks(other), strict=True):
        assert all(np.array_equal(a[name], b[name]) for name in a)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("population") / "run"
    assert main([*QUICK, "--seeds", "3", "--lr", "0.1,0.5", "--out", str(path)]) == 0
    return path


def test_the_folder_contains_table_weights_picture_and_summary(folder):
    names = {file.name for file in folder.iterdir()}
    assert names == {
        "config.json", "members.csv", "members.jsonl", "spread.png", "summary.json",
        "weights.safetensors",
    }  # fmt: skip
    with (folder / "members.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["seed"], row["lr"]) for row in rows] == [
        ("0", "0.1"), ("1", "0.1"), ("2", "0.1"), ("0", "0.5"), ("1", "0.5"), ("2", "0.5"),
    ]  # fmt: skip
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["test_accuracy"][0]["n"] == 3


def test_the_result_is_mean_and_deviation_of_each_setting(tmp_path, capsys):
    assert main([*QUICK, "--seeds", "3", "--lr", "0.1,0.5", "--out", str(tmp_path / "run")]) == 0
    output = capsys.readouterr().out
    assert "test accuracy: mean ± std" in output
    assert " ± " in output.splitlines()[-3]


def test_a_member_equals_train_with_its_seed_and_settings(folder, tmp_path):
    settings = [word for word in QUICK[1:] if word != "--quiet"]
    single = ("--seed", "2", "--lr", "0.5", "--validation-split", "0.1", "--threads", "1")
    assert main(["train", *settings, *single, "--quiet", "--out", str(tmp_path / "run")]) == 0
    expected = weights(tmp_path / "run")
    found = networks(folder)[5]
    assert all(np.array_equal(found[name], expected[name]) for name in expected)


def start(*arguments):
    return subprocess.Popen(
        [sys.executable, "-m", "mnist_accel", *arguments],
        env=environment(),
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for_members(path, number):
    """Wait until `members.jsonl` has this number of lines."""
    import time

    end = time.monotonic() + 60
    while time.monotonic() < end:
        if path.exists() and path.read_bytes().count(b"\n") >= number:
            return
        time.sleep(0.02)
    raise TimeoutError(path)


@pytest.mark.posix
# One of them is slow, because both leave the same files.
@pytest.mark.parametrize(
    "sent", [pytest.param(signal.SIGTERM, marks=pytest.mark.slow), signal.SIGKILL]
)
def test_a_stopped_population_continues_and_ends_with_the_same_networks(tmp_path, sent):
    arguments = [*QUICK[:-1], "--seeds", "4", "--epochs", "400"]  # members that take a while
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    assert main([*arguments, "--quiet", "--out", str(whole)]) == 0
    process = start(*arguments, "--out", str(stopped))
    wait_for_members(stopped / "members.jsonl", 1)
    time.sleep(0.2)  # the next member begins
    process.send_signal(sent)
    _, messages = process.communicate(timeout=60)
    if sent == signal.SIGTERM:
        assert process.returncode == 128 + signal.SIGTERM
        assert f"population --resume {stopped}" in messages
        assert list((stopped / "unfinished").glob("*.json")), "no checkpoint of a running member"
    ended = (stopped / "members.jsonl").read_bytes()
    assert main(["population", "--resume", str(stopped), "--quiet"]) == 0
    assert (stopped / "members.jsonl").read_bytes().startswith(ended), "a member was repeated"
    assert_same_networks(whole, stopped)


@pytest.mark.posix
def test_a_signal_before_the_first_step_also_tells_how_to_continue(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(LocalMembers, "prepare", lambda self: signal.raise_signal(signal.SIGTERM))
    arguments = [*QUICK, "--seeds", "1", "--out", str(tmp_path / "run")]
    assert main(arguments) == 128 + signal.SIGTERM
    assert f"population --resume {tmp_path / 'run'}" in capsys.readouterr().err
    monkeypatch.undo()
    assert main(["population", "--resume", str(tmp_path / "run"), "--quiet"]) == 0


def test_a_finished_population_can_be_resumed_without_effect(folder, capsys):
    before = (folder / "members.jsonl").read_bytes()
    assert main(["population", "--resume", str(folder)]) == 0
    assert (folder / "members.jsonl").read_bytes() == before
    assert "test accuracy" in capsys.readouterr().out


def test_two_populations_are_compared_seed_by_seed(folder, tmp_path, capsys):
    other = tmp_path / "other"
    assert main([*QUICK, "--seeds", "3", "--lr", "0.9", "--out", str(other)]) == 0
    capsys.readouterr()
    assert main(["population", "compare", str(folder), str(other), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    first, second = PopulationFolder(folder).load(), PopulationFolder(other).load()
    means = [
        np.mean([row["test_accuracy"] for row in population.table])
        for population in (first, second)
    ]
    assert (result["n"], result["difference"]) == (3, pytest.approx(means[1] - means[0]))


def test_if_all_members_diverge_the_exit_code_says_so(tmp_path):
    arguments = [*QUICK, "--seeds", "2", "--lr", "1e30", "--out", str(tmp_path / "run")]
    assert main(arguments) == 5


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--seeds", "3,3"], 2, "seeds has 3 twice"),
        (["--seeds", "1,x"], 2, "expected an integer of at least 0, got x"),
        (["--lr", "0.1,,0.2"], 2, "expected a number above 0, got nothing"),
        (["--seeds", "1001", "--batch-size", ",".join(map(str, range(1, 1002)))], 2, "1,002,001"),
        (["lenet", "cnn"], 2, "give one model, got lenet, cnn"),
        (["--resume", "nowhere"], 4, "nowhere is not the folder of a population"),
        (["--resume", "nowhere", "--lr", "1"], 2, "--lr cannot be given with --resume"),
        (["compare", "one"], 2, "compare takes two folders"),
        (["--iterations", str(2**63)], 2, "iterations must be at most 2^63 - 1"),
        (["compare", "one", "two"], 4, "one is not the folder of a population"),
    ],
)
def test_a_wrong_call_gets_one_line_and_its_exit_code(
    arguments, code, message, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    assert main(["population", *arguments]) == code
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_data_set_that_is_too_small_to_hold_images_out_is_one_line(tmp_path, capsys):
    arguments = ["--limit-train", "2", "--lr", "1,2", "--out", str(tmp_path / "run")]
    assert main([*QUICK, *arguments]) == 2
    assert "cannot hold out a fraction 0.1 of 2 examples" in capsys.readouterr().err


def test_a_folder_with_files_is_not_overwritten(folder, capsys):
    assert main([*QUICK, "--out", str(folder)]) == 2
    assert "contains files already" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("members.jsonl", b'{"member": 0}\n', "line 1 of .* is not a member"),
        ("members.jsonl", b"\xff\n", "line 1 of .* is not valid JSON"),
        ("config.json", b"{}", "is not the config.json of a population"),
        ("weights.safetensors", b"{}", "is not a complete safetensors file"),
    ],
)
def test_a_damaged_file_is_one_error_that_names_it(folder, tmp_path, file, content, message):
    copy_files(folder, tmp_path)
    (tmp_path / file).write_bytes(content)
    with pytest.raises(ma.DataError, match=message):
        PopulationFolder(tmp_path).load()


def copy_files(folder, target):
    for source in folder.iterdir():
        (target / source.name).write_bytes(source.read_bytes())


def test_weights_of_something_else_are_refused(folder, tmp_path):
    copy_files(folder, tmp_path)
    ma.save_model(tmp_path / "weights.safetensors", ma.create_model("cnn", backend="numpy"))
    with pytest.raises(ma.DataError, match="does not contain the networks of a population"):
        PopulationFolder(tmp_path).load()


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ('"seeds": [0, 1, 2]', '"seeds": [0, 1, 2, 3]', "member 3 was trained with seed=0, not wi"),
        ('"model": "two-layer"', '"model": "lenet"', "member 0 was trained with model='two-layer'"),
        ('"lr": [0.1, 0.5]', '"lr": [0.1], "validation_split": [0.1]', "has more members than"),
    ],
)
def test_members_with_other_settings_than_the_edited_configuration_are_refused(
    folder, tmp_path, before, after, message
):
    copy_files(folder, tmp_path)
    text = json.dumps(json.loads((folder / "config.json").read_text()))
    assert before in text
    (tmp_path / "config.json").write_text(text.replace(before, after))
    with pytest.raises(ma.DataError, match=message):
        PopulationFolder(tmp_path).load()


def test_a_loss_that_is_not_finite_and_a_repeated_line_can_be_read(folder, tmp_path):
    copy_files(folder, tmp_path)
    lines = (tmp_path / "members.jsonl").read_text()
    changed = lines.replace('"curve": [[', '"curve": [[0, null], [', 1)
    assert changed != lines
    (tmp_path / "members.jsonl").write_text(lines + changed)
    assert main(["population", "--resume", str(tmp_path), "--quiet"]) == 0
    assert_same_networks(folder, tmp_path)


def test_a_path_with_control_characters_is_printed_escaped(tmp_path, capsys):
    assert main([*QUICK, "--seeds", "1", "--out", str(tmp_path / "a\x1b[31m\nb")]) == 0
    assert r"a\x1b[31m\nb" in capsys.readouterr().out


def test_a_cut_last_line_is_ignored_and_its_member_is_trained_again(folder, tmp_path):
    copy_files(folder, tmp_path)
    lines = (tmp_path / "members.jsonl").read_bytes()
    (tmp_path / "members.jsonl").write_bytes(lines[:-9])
    assert main(["population", "--resume", str(tmp_path), "--quiet"]) == 0
    assert_same_networks(folder, tmp_path)


def test_a_member_is_evaluated_drawn_exported_and_predicted(folder, tmp_path, capsys):
    member = (str(folder), "--member", "5")
    assert main(["evaluate", *member, "--backend", "numpy", "--limit-test", "100", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["dataset"] == "digits"
    population = PopulationFolder(folder).load()
    assert result["accuracy"] == population.table[5]["test_accuracy"]
    assert main(["predict", *member, "--index", "3", "--backend", "numpy", "--json"]) == 0
    page = tmp_path / "draw.html"
    assert main(["draw", *member, "--out", str(page), "--no-open"]) == 0
    assert page.stat().st_size > 0


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([], 4, "is a population; choose one of its networks with --member N"),
        (["--member", "6"], 2, "has 6 members, counted from 0; got --member 6"),
        (["--member", "1", "--model", "lenet"], 2, "omit them with --member"),
    ],
)
@pytest.mark.parametrize("command", [["evaluate"], ["export", "--onnx", "net.onnx"]])
def test_a_population_without_a_member_gets_one_line(
    folder, capsys, command, arguments, code, message
):
    assert main([command[0], str(folder), *command[1:], *arguments]) == code
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1


def test_a_member_of_a_run_is_refused(tmp_path, capsys):
    assert main(["evaluate", str(tmp_path), "--member", "1"]) == 2
    assert "is not the folder of a population; omit --member" in capsys.readouterr().err


def test_the_time_left_after_a_resume_is_that_of_the_steps_of_this_process():
    stream = io.StringIO()
    earlier = [MemberResult(0, test_accuracy=0.5)]
    display = PopulationDisplay(
        3000, members=4, earlier=earlier, workers=1, quiet=False, stream=stream
    )
    display._started -= 100
    display.skip_steps(900)  # of a checkpoint
    display.add_steps(100)
    display.skip_steps(1900)  # a member that ended early
    assert display._describe().endswith("1:40 left")
    assert display._describe().startswith("1 of 4 done")
