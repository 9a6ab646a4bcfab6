"""`train --log tensorboard`: the event file has the figures of `metrics.jsonl`."""

import importlib.util
import shutil
import struct
from pathlib import Path

import pytest

from backends import pip
from mnist_accel.runs.folder import RunFolder
from tests.support.command_line import DIGITS

event_pb2 = pytest.importorskip("tensorboardX.proto.event_pb2", reason="needs tensorboardX")

LOGGED = (*DIGITS, "--log-every", "10", "--quiet", "--log", "tensorboard")


def events():
    """Return the events of the only event file of the run, read as TensorBoard reads them."""
    from tensorboardX.record_writer import masked_crc32c

    (file,) = Path("run").glob("*tfevents*")
    data, found = file.read_bytes(), []
    while data:
        length, length_check = struct.unpack("<QI", data[:12])
        content, (check,) = data[12 : 12 + length], struct.unpack("<I", data[12 + length :][:4])
        assert length_check == masked_crc32c(data[:8])
        assert check == masked_crc32c(content)
        found.append(event_pb2.Event.FromString(content))
        data = data[16 + length :]
    assert found[0].file_version == "brain.Event:2"
    return found[1:]


def curves():
    """Return the points (step, value) of each curve by name."""
    found = {}
    for event in events():
        for value in event.summary.value:
            if value.HasField("simple_value"):
                found.setdefault(value.tag, []).append((event.step, value.simple_value))
    return found


def assert_log_has_the_metrics():
    found = curves()
    for event, fields in {
        "steps": ("loss", "accuracy", "lr", "images_per_s"),
        "epoch": ("train_loss", "train_accuracy", "validation_loss", "validation_accuracy"),
    }.items():
        lines = RunFolder(Path("run")).read_metrics(event)
        assert lines
        for field in fields:
            steps, values = zip(*found[f"{event}/{field}"], strict=True)
            assert list(steps) == [line["step"] for line in lines]
            assert values == pytest.approx([line[field] for line in lines], rel=1e-6)


def test_the_log_has_the_metrics_and_the_picture_of_the_mistakes(run):
    assert run("train", *LOGGED, "--iterations", 60, "--out", "run")[0] == 0
    assert_log_has_the_metrics()
    (picture,) = (value for event in events() for value in event.summary.value if value.image.width)
    assert picture.tag == "mistakes"
    assert picture.image.encoded_image_string == Path("run/mistakes.png").read_bytes()
    assert picture.image.width > picture.image.height > 100


def test_a_resumed_run_logs_each_step_once(run):
    assert run("train", *LOGGED, "--iterations", 25, "--out", "run")[0] == 0
    shutil.copytree("run/checkpoint", "earlier")
    assert run("train", "--resume", "run", "--iterations", 50, "--quiet")[0] == 0
    assert curves()["steps/loss"][-1][0] == 50
    # As after a kill: the metrics contain steps that the checkpoint does not.
    shutil.rmtree("run/checkpoint")
    Path("earlier").rename("run/checkpoint")
    assert run("train", "--resume", "run", "--iterations", 70, "--quiet")[0] == 0
    assert curves()["steps/loss"][-1][0] == 70
    assert_log_has_the_metrics()


def test_a_log_that_begins_when_a_run_is_resumed_has_all_steps(run):
    assert run("train", *LOGGED, "--log", "none", "--iterations", 30, "--out", "run")[0] == 0
    assert not list(Path("run").glob("*tfevents*"))
    assert run("train", "--resume", "run", "--log", "tensorboard", "--quiet")[0] == 0
    assert [step for step, _ in curves()["steps/loss"]] == [10, 20, 30]
    assert_log_has_the_metrics()


def test_a_log_that_was_paused_has_all_steps(run):
    assert run("train", *LOGGED, "--iterations", 10, "--out", "run")[0] == 0
    assert run("train", "--resume", "run", "--log", "none", "--iterations", 20, "--quiet")[0] == 0
    assert [step for step, _ in curves()["steps/loss"]] == [10]
    assert run("train", "--resume", "run", "--log", "tensorboard", "--quiet")[0] == 0
    assert [step for step, _ in curves()["steps/loss"]] == [10, 20]


def test_event_files_of_other_programs_are_kept(run):
    Path("run").mkdir()
    Path("run/events.out.tfevents.1.other").write_bytes(b"other")
    assert run("train", *LOGGED, "--iterations", 10, "--out", "run")[0] == 0
    assert Path("run/events.out.tfevents.1.other").read_bytes() == b"other"


def test_without_tensorboardx_nothing_begins_and_the_message_says_what_to_install(
    fails, monkeypatch
):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *given: find(name, *given) if name != "tensorboardX" else None,
    )
    says = f"tensorboardX, which is not installed: {pip('install', 'mnist-accel[tensorboard]')}"
    fails(3, "train", *LOGGED, "--out", "run", says=says)
    assert not Path("run").exists()
