"""Errors of the commands: one line on stderr, and the exit code."""

import ctypes
import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import mnist_accel as ma
from mnist_accel.commands.dispatcher import COMMANDS, guarded
from tests.support.command_line import QUICK, read_json


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--model", "lenett"], "--model: unknown model 'lenett'; choose from fcnn, two-layer"),
        (["--model", "lenett"], "; did you mean 'lenet'?"),
        (["--dataset", "fashon-mnist"], "; did you mean 'fashion-mnist'?"),
        (["--optimizer", "adan"], "; did you mean 'adam'?"),
        (["--backend", "nmba"], "; did you mean 'numba'?"),
        (
            ["--batch-size", "-1"],
            "--batch-size: expected an integer from 0 to 1000000000000000, got -1",
        ),
        (["--epochs", "0"], "--epochs: expected an integer of at least 1, got 0"),
        (["--lr", "nan"], "--lr: expected a number above 0, got nan"),
        (["--seed", "-3"], "--seed"),
        (["--hidden-sizes", "5,0"], "--hidden-sizes"),
        (["--hidden-sizes", ""], "--hidden-sizes: expected an integer from 1 to 10"),
        (["--hidden-sizes", "9" * 30], "--hidden-sizes: expected an integer from 1 to 10"),
        (["--batch-size", "9" * 30], "--batch-size: expected an integer from 0 to 10"),
        (["--target-accuracy", "95"], "expected a number above 0 and at most 1, got 95"),
        (["--validation-split", "1"], "--validation-split"),
        (["--epochs", "1", "--iterations", "1"], "either --epochs or --iterations"),
        (["--model", "cnn", "--hidden-sizes", "5"], "'cnn' has no hidden layers"),
        (["--optimizer", "adam", "--momentum", "0.5"], "'adam' takes no momentum"),
        (["--optimizer", "nesterov", "--momentum", "0"], "nesterov needs a momentum"),
        (["--sampling", "full", "--batch-size", "5"], "takes the whole set"),
        (["--backend", "tpu"], "unknown backend 'tpu'"),
        (["--threads", "0"], "--threads: expected an integer from 1 to 1024, got 0"),
        (["--threads", "all"], "--threads: expected an integer from 1 to 1024, got all"),
        (["--backend", ""], "unknown backend ''; choose from auto, cupy, numba, numpy"),
        (["--out", ""], "the value of --out is empty; give one, or omit --out"),
        (["--resume="], "the value of --resume is empty; give one, or omit --resume"),
        (["--import", ""], "the value of --import is empty; give one, or omit --import"),
        (["--data-dir", "."], "accepts no folder, got --data-dir .; omit it"),
        (["--validation-split", "0.0001"], "cannot hold out"),
        (["--modle", "cnn"], "unknown flag --modle; did you mean --model?"),
    ],
)
def test_wrong_usage_is_reported_in_one_line_with_code_2(arguments, says, fails):
    fails(2, "train", "--dataset", "digits", *arguments, says=says)
    assert not Path("runs").exists()


def test_an_unknown_command_is_refused(run):
    code, _, err = run("tarin", "--lr", 1)
    assert code == 2
    assert err == (
        f"mnist-accel: unknown command 'tarin'; choose from {', '.join(COMMANDS)}; "
        "did you mean 'train'? (see mnist-accel --help)\n"
    )
    assert run("--", "train")[0] == 2


def test_a_null_character_in_an_argument_is_refused(fails):
    fails(2, "train", *QUICK, "--out", "a\0b", says="arguments cannot contain a null character")


def test_a_gpu_that_cannot_run_is_replaced_with_a_warning(run, fails):
    availability = ma.available_backends()["cupy"]
    if availability.ok:
        pytest.skip("this machine has a GPU")
    arguments = ["--backend", "cupy", "--dataset", "digits", "--iterations", "5"]
    code, _, err = run("train", *arguments, "--out", "run", "--quiet")
    assert code == 0
    assert f"warning: cupy cannot run here: {availability.reason}; {availability.remedy}" in err
    backend = read_json("run/config.json")["backend"]
    assert (backend["requested"], backend["used"], backend["fell_back"]) == ("cupy", "numba", True)
    assert availability.reason in backend["reason"]
    fails(3, "train", *arguments, "--no-fallback", says=availability.reason)
    fails(3, "gradcheck", "--backend", "cupy", says=availability.reason)


def test_divergence_gives_exit_code_5_and_names_step_tensor_and_checkpoint(fails):
    err = fails(5, "train", *QUICK, "--quiet", "--lr", "1e12", "--out", "run", says="diverged at")
    assert "is in the " in err
    assert "the last good checkpoint is run/checkpoint/last.safetensors" in err
    assert ma.load_checkpoint("run/checkpoint", backend="numpy")


def test_an_unwritable_run_folder_gives_exit_code_4(fails):
    Path("file").write_text("in the way")
    fails(4, "train", *QUICK, "--out", "file/run", says="cannot write to the output folder")


def test_missing_or_corrupt_data_give_exit_code_4(fails):
    Path("data").mkdir()
    fails(4, "train", "--data-dir", "data", says="data")
    for name in ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"):
        Path("data", name).write_bytes(b"\x00\x00\x08\x03 too short")
    fails(4, "train", "--dataset", "custom", "--data-dir", "data", says="data")


def test_missing_or_corrupt_model_files_give_exit_code_4(fails):
    fails(4, "evaluate", says="runs/ contains no run")
    fails(4, "evaluate", "missing", says="missing does not exist; give a run folder")
    fails(4, "evaluate", "missing.npz", says="missing.npz does not exist; give a run folder")
    Path("folder").mkdir()
    says = "folder is not a run folder: it contains neither model.safetensors nor a checkpoint"
    fails(4, "evaluate", "folder", says=says)
    fails(4, "predict", "folder", "--index", 3, says=says)
    Path("junk.safetensors").write_bytes(b"junk")
    fails(4, "evaluate", "junk.safetensors", says="not a complete safetensors file")


def test_an_error_of_another_file_names_that_file(monkeypatch, fails):
    def fill_the_disk(*args, **kwargs):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "some/file")

    monkeypatch.setattr("mnist_accel.commands.arguments.load_dataset", fill_the_disk)
    err = fails(4, "data", says="some/file: No space left on device")
    assert "stdout" not in err


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (MemoryError(), "not enough memory; use smaller batches or layers, or fewer images"),
        (
            MemoryError("90 GiB"),
            "not enough memory: 90 GiB; use smaller batches or layers, or fewer images",
        ),
    ],
)
def test_a_lack_of_memory_gives_exit_code_2(monkeypatch, error, says, fails):
    def allocate(*args, **kwargs):
        raise error

    monkeypatch.setattr("mnist_accel.commands.arguments.load_dataset", allocate)
    fails(2, "data", says=says)


@pytest.mark.parametrize(
    ("sizes", "says"),
    [
        (("--hidden-sizes", 9_999_999_999), "not enough memory: Unable to allocate"),
        (
            ("--batch-size", 10**15, "--sampling", "replacement"),
            "batch_size must be less than 2147483648, got 1000000000000000",
        ),
    ],
)
def test_sizes_that_do_not_fit_into_memory_give_exit_code_2(fails, sizes, says):
    arguments = ("--dataset", "digits", "--backend", "numpy", *sizes, "--quiet")
    fails(2, "train", *arguments, says=says)


def run_for_seconds():
    end = time.monotonic() + 30
    while time.monotonic() < end:
        time.sleep(0.01)


def fail():
    raise RuntimeError("no compiled object yet")


@pytest.mark.posix
@pytest.mark.parametrize(("name", "code"), [("SIGTERM", 143), ("SIGHUP", 129)])
def test_a_signal_ends_every_command_with_one_line_and_the_code_of_shells(name, code, capfd):
    """Also before a training, for example while a backend is chosen."""
    signum = getattr(signal, name)
    before = signal.getsignal(signum)
    assert guarded(lambda: signal.raise_signal(signum) or 0, prog="mnist-accel train") == code
    assert capfd.readouterr().err == "mnist-accel train: interrupted\n"
    assert signal.getsignal(signum) is before


@pytest.mark.posix
def test_ctrl_c_while_a_library_executes_a_string_has_the_usual_exit_code():
    """As `dataclasses` and Numba do; Python would end by SIGINT."""
    code = (
        "import sys; from mnist_accel.commands.dispatcher import guarded; "
        "sys.exit(guarded(lambda: exec('raise KeyboardInterrupt'), prog='train'))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    assert (done.returncode, done.stderr) == (130, "train: interrupted\n")


@pytest.mark.parametrize(
    ("name", "continue_work", "code"),
    [
        ("SIGINT", run_for_seconds, 130),
        ("SIGINT", fail, 130),
        pytest.param("SIGTERM", fail, 143, marks=pytest.mark.posix),
    ],
)
def test_a_signal_during_a_call_from_c_code_is_neither_lost_nor_a_traceback(
    name, continue_work, code, capfd
):
    """LLVM makes such calls while it compiles a kernel, and Numba fails without their result."""

    def compile_and_continue():
        ctypes.CFUNCTYPE(None)(lambda: signal.raise_signal(getattr(signal, name)))()
        continue_work()
        return 0

    assert guarded(compile_and_continue, prog="mnist-accel train") == code
    assert capfd.readouterr().err == "mnist-accel train: interrupted\n"
