"""The command line: results, files, one-line errors, exit codes."""

import errno
import json
import os
import pickle
import shlex
import shutil
import signal
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import mnist_accel as ma
from backends import registry
from backends.numpy.backend import NumpyBackend
from mnist_accel.commands import main
from mnist_accel.commands.dispatcher import COMMANDS

ROOT = Path(__file__).parents[2]
# Seconds long on any machine: the digits that come with the package.
ON_NUMPY = ("--dataset", "digits", "--backend", "numpy", "--threads", "1")
QUICK = [*ON_NUMPY, "--iterations", "40", "--batch-size", "64"]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """Each test has a folder of its own to run in."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def run(capfd):
    """Run a command; return its exit code, and what it wrote to stdout and to stderr."""

    def run(*arguments):
        code = main([str(argument) for argument in arguments])
        out, err = capfd.readouterr()
        assert "Traceback" not in err
        return code, out, err

    return run


def fails(run, code, *arguments, says):
    """Assert that a command ends with a code and one line that says something."""
    got, _, err = run(*arguments)
    assert got == code, err
    line = err.strip().splitlines()[-1]
    assert says in line
    assert line.startswith("mnist-accel ")
    return err


def start(*arguments, **settings):
    return subprocess.Popen(
        [sys.executable, "-m", "mnist_accel.train", *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **settings,
    )


def weights(folder):
    return ma.load_model(Path(folder) / "model.safetensors", backend="numpy").state_dict()


def assert_same_weights(one, other):
    for name, array in weights(one).items():
        assert np.array_equal(array, weights(other)[name]), name


# Training


def test_train_leaves_a_run_folder(run):
    code, out, err = run("train", *QUICK, "--out", "run", "--log-every", "10")
    assert code == 0
    assert "epoch 1: loss" in out
    assert "test accuracy" in out.splitlines()[-1]
    assert "step" in err
    assert "step" not in out
    folder = Path("run")
    files = {file.name for file in folder.iterdir()}
    assert files == {
        "checkpoint",
        "config.json",
        "curves.png",
        "metrics.jsonl",
        "mistakes.png",
        "model.safetensors",
        "summary.json",
    }
    config = json.loads((folder / "config.json").read_text())
    assert config["backend"] == {
        "requested": "numpy",
        "used": "numpy",
        "threads": 1,
        "device": None,
        "reason": f"NumPy {np.__version__}",
        "figures": "",
        "fell_back": False,
        "compiled": False,
        "not_compiled": "the backend numpy has no compiled epochs",
    }
    assert config["settings"]["iterations"] == 40
    assert config["versions"]["mnist_accel"] == ma.__version__
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if line["event"] == "steps"] == [10, 20, 30, 40]
    assert [line["epoch"] for line in lines if line["event"] == "epoch"] == [1, 2]
    summary = json.loads((folder / "summary.json").read_text())
    assert {"test_loss", "test_accuracy", "images_per_s", "seconds", "backend"} <= summary.keys()
    assert {"data", "setup", "prepare", "train", "evaluate", "pictures"} == summary[
        "seconds"
    ].keys()
    with Image.open(folder / "curves.png") as picture:
        assert picture.width > 800


def test_cnn_draws_its_filters(run):
    arguments = ("--model", "cnn", "--dataset", "digits", "--limit-train", 50, "--epochs", 1)
    assert run("train", *arguments, "--out", "run")[0] == 0
    assert Path("run/filters.png").is_file()


def test_default_folder_is_named_after_time_model_and_backend(run):
    assert run("train", *QUICK, "--quiet")[0] == 0
    assert run("train", *QUICK, "--quiet")[0] == 0
    names = sorted(folder.name for folder in Path("runs").iterdir())
    assert len(names) == 2
    assert all("-two-layer-numpy" in name for name in names)


def test_quiet_and_no_progress(run):
    code, out, err = run("train", *QUICK, "--out", "quiet", "--quiet")
    assert code == 0
    assert len(out.splitlines()) == 1
    assert err == ""
    _, out, err = run("train", *QUICK, "--out", "calm", "--no-progress", "--log-every", "5")
    assert "epoch 1" in out
    assert "step" not in err


def test_no_control_characters_reach_a_pipe(run, monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    _, out, err = run("train", *QUICK, "--out", "run")
    assert "\x1b" not in out + err
    assert "\r" not in out + err


def test_config_of_a_run_repeats_it(run):
    flags = ("--lr", "0.1", "--seed", "7", "--hidden-sizes", "20,10", "--optimizer", "momentum")
    assert run("train", *QUICK, *flags, "--out", "one", "--quiet")[0] == 0
    assert run("train", "--config", "one/config.json", "--out", "two", "--quiet")[0] == 0
    assert_same_weights("one", "two")
    assert run("train", "--config", "one/config.json", "--seed", 8, "--out", "three")[0] == 0
    assert not np.array_equal(weights("one")["W1"], weights("three")["W1"])


def test_toml_config_lies_between_recipe_and_flags(run):
    Path("config.toml").write_text(
        'model = "three-layer"\ndataset = "digits"\nepochs = 1\nbatch-size = 100\nlr = 0.5\n'
        'optimizer = "sgd"\nhidden_sizes = [12, 8]\n'
    )
    assert run("train", "--config", "config.toml", "--lr", 0.25, "--out", "run")[0] == 0
    settings = json.loads(Path("run/config.json").read_text())["settings"]
    assert settings["hidden_sizes"] == [12, 8]
    assert (settings["batch_size"], settings["lr"], settings["epochs"]) == (100, 0.25, 1)
    assert settings["activation"] == "sigmoid"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("lr = -1\n", "--lr: expected a number above 0, got -1"),
        ("learning_rate = 1\n", "sets learning_rate"),
        ("epochs = 1\niterations = 1\n", "either --epochs or --iterations"),
    ],
)
def test_wrong_config_is_refused(run, text, says):
    Path("config.toml").write_text(text)
    code, _, err = run("train", "--config", "config.toml")
    assert code == 2
    assert says in err
    assert len(err.splitlines()) == 1


def test_held_out_images_take_the_place_of_the_test_set(run):
    code, out, _ = run(
        "train", *QUICK, "--validation-split", 0.2, "--target-accuracy", 0.2, "--out", "run"
    )
    assert code == 0
    assert "validation accuracy" in out
    summary = json.loads(Path("run/summary.json").read_text())
    assert summary["stop_reason"] == "target accuracy 20.00% reached"
    assert summary["train_images"] == round(1437 * 0.8)


# Resuming


def test_resume_continues_to_the_same_weights(run):
    arguments = (*ON_NUMPY, "--batch-size", 64, "--quiet")
    assert run("train", *arguments, "--iterations", 60, "--out", "straight")[0] == 0
    assert run("train", *arguments, "--iterations", 25, "--out", "runs/parted")[0] == 0
    assert run("train", "--resume", "--iterations", 60, "--quiet")[0] == 0
    assert_same_weights("straight", "runs/parted")
    metrics = Path("runs/parted/metrics.jsonl").read_text().splitlines()
    epochs = [json.loads(line)["epoch"] for line in metrics if '"epoch", ' in line]
    assert epochs == sorted(set(epochs))
    code, _, err = run("train", "--resume", "runs/parted")
    assert code == 0
    assert "all 60 steps are done already" in err


def test_signals_save_and_the_rest_is_as_if_nothing_had_happened(run):
    long = (*ON_NUMPY, "--batch-size", 64, "--iterations", 1500)
    done = 0
    for signum, arguments in (
        (signal.SIGINT, (*long, "--out", "run", "--log-every", 1)),
        (signal.SIGTERM, ("--resume", "run")),
    ):
        process = start(*arguments)
        for line in process.stderr:
            if "step" in line and "/1500" in line.replace(",", ""):
                break
        process.send_signal(signum)
        _, err = process.communicate(timeout=60)
        assert process.returncode == 130, err
        assert "saved; go on with --resume run" in err
        step = ma.load_checkpoint("run/checkpoint", backend="numpy").step
        assert done < step < 1500
        done = step
    assert run("train", "--resume", "run", "--quiet")[0] == 0
    assert run("train", *long, "--out", "straight", "--quiet")[0] == 0
    assert_same_weights("run", "straight")


def test_kill_leaves_a_run_that_resumes(run):
    long = (*ON_NUMPY, "--batch-size", 64, "--iterations", 1000)
    process = start(*long, "--out", "run", "--log-every", 1, "--checkpoint-every", 50)
    for line in process.stderr:
        if "  100/" in line:
            break
    process.kill()
    process.communicate()
    assert ma.load_checkpoint("run/checkpoint", backend="numpy").step >= 50
    assert run("train", "--resume", "run", "--quiet")[0] == 0
    assert run("train", *long, "--out", "straight", "--quiet")[0] == 0
    assert_same_weights("run", "straight")


def test_resume_refuses_to_become_another_run(run):
    assert run("train", *QUICK, "--out", "run", "--quiet")[0] == 0
    fails(run, 2, "train", "--resume", "run", "--lr", 1, says="--lr cannot be given with --resume")
    fails(run, 2, "train", *QUICK, "--out", "run", says="run holds a run already")
    fails(run, 4, "train", "--resume", "nowhere", says="there is no run nowhere")
    fails(run, 4, "train", "--resume", ".", says="is not the folder of a run")
    fails(run, 4, "train", "--resume", says="there is no run in runs/ yet")
    Path("run/checkpoint/last.safetensors").write_bytes(b"broken")
    fails(run, 4, "train", "--resume", "run", says="not a whole safetensors file")


# What goes wrong


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--model", "lenett"], "--model: unknown model 'lenett'; choose fcnn, two-layer"),
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
        (["--backend", ""], "unknown backend ''; choose auto, cupy, numba, numpy"),
        (["--data-dir", "."], "leave out the folder ."),
        (["--validation-split", "0.0001"], "cannot hold out"),
        (["--modle", "cnn"], "unrecognized arguments: --modle"),
    ],
)
def test_wrong_usage_is_one_line_and_2(run, arguments, says):
    err = fails(run, 2, "train", "--dataset", "digits", *arguments, says=says)
    assert len(err.splitlines()) == 1
    assert not Path("runs").exists()


def test_gpu_that_cannot_be_used_is_replaced_with_a_warning(run):
    availability = ma.available_backends()["cupy"]
    if availability.ok:
        pytest.skip("a GPU is there")
    arguments = ["--backend", "cupy", "--dataset", "digits", "--iterations", "5"]
    code, _, err = run("train", *arguments, "--out", "run", "--quiet")
    assert code == 0
    assert f"warning: cupy cannot run here: {availability.reason}; {availability.remedy}" in err
    backend = json.loads(Path("run/config.json").read_text())["backend"]
    assert (backend["requested"], backend["used"], backend["fell_back"]) == ("cupy", "numba", True)
    assert availability.reason in backend["reason"]
    fails(run, 3, "train", *arguments, "--no-fallback", says=availability.reason)
    fails(run, 3, "gradcheck", "--backend", "cupy", says=availability.reason)


def test_divergence_is_5_and_names_step_tensor_and_checkpoint(run):
    err = fails(run, 5, "train", *QUICK, "--lr", "1e12", "--out", "run", says="diverged at step")
    assert "is in the " in err
    assert "the last good checkpoint is run/checkpoint/last.safetensors" in err
    assert ma.load_checkpoint("run/checkpoint", backend="numpy")


def test_folder_that_cannot_be_written_is_4(run):
    Path("file").write_text("in the way")
    fails(run, 4, "train", *QUICK, "--out", "file/run", says="cannot write to the output folder")


def test_bad_data_is_4(run):
    Path("data").mkdir()
    fails(run, 4, "train", "--data-dir", "data", says="data")
    for name in ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"):
        Path("data", name).write_bytes(b"\x00\x00\x08\x03 too short")
    fails(run, 4, "train", "--dataset", "custom", "--data-dir", "data", says="data")


@pytest.fixture(params=["", "1"], ids=["buffered", "unbuffered"])
def shell(request):
    """Run a line of bash, with Python's streams buffered or not."""

    def shell(line):
        return subprocess.run(
            ["bash", "-c", f"set -o pipefail; {line}"],
            env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": request.param},
            capture_output=True,
            text=True,
        )

    return shell


DATA = f"{sys.executable} -m mnist_accel data --dataset digits"


def test_reader_that_takes_all_is_no_trouble(shell):
    done = shell(f"{DATA} | cat")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("digits")


@pytest.mark.parametrize("redirection", ["", "--data-dir none 2>&1 >/dev/null"])
def test_reader_that_has_gone_ends_a_command_as_it_does_others(shell, redirection):
    """Of results, and of messages; the command is slower to start than `true` is to end."""
    done = shell(f"{DATA} {redirection} | true")
    assert (done.returncode, done.stdout, done.stderr) == (128 + signal.SIGPIPE, "", "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_streams_that_cannot_be_written_are_4(shell):
    done = shell(f"{DATA} >/dev/full")
    assert done.returncode == 4
    assert done.stderr.splitlines() == [
        "python -m mnist_accel data: cannot write to stdout: No space left on device"
    ]
    assert shell(f"{DATA} >/dev/full 2>/dev/full").returncode == 4
    assert shell(f"{DATA} >&- 2>&-").returncode == 0


def test_other_trouble_with_files_is_not_taken_for_that(run, monkeypatch):
    def fill_the_disk(*args, **kwargs):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "some/file")

    monkeypatch.setattr("mnist_accel.commands.data.load_dataset", fill_the_disk)
    err = fails(run, 4, "data", says="some/file: No space left on device")
    assert "stdout" not in err
    assert len(err.splitlines()) == 1


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
def test_lack_of_memory_is_wrong_usage(run, monkeypatch, error, says):
    def allocate(*args, **kwargs):
        raise error

    monkeypatch.setattr("mnist_accel.commands.data.load_dataset", allocate)
    fails(run, 2, "data", says=says)


def test_unknown_command(run):
    code, _, err = run("tarin", "--lr", 1)
    assert code == 2
    assert err == (
        f"mnist-accel: unknown command 'tarin'; choose {', '.join(COMMANDS)}; "
        "did you mean 'train'? (see mnist-accel --help)\n"
    )
    assert run("--", "train")[0] == 2


# The other commands


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained") / "run"
    flags = [*ON_NUMPY, "--iterations", "400"]
    assert main(["train", *flags, "--batch-size", "64", "--out", str(folder), "--quiet"]) == 0
    return folder


def test_evaluate_gives_the_figures_of_the_training(run, trained):
    summary = json.loads((trained / "summary.json").read_text())
    paths = (trained, trained / "model.safetensors", trained / "checkpoint")
    for path in paths:
        code, out, _ = run("evaluate", path, "--dataset", "digits", "--backend", "numpy")
        assert code == 0
        assert f"accuracy {summary['test_accuracy']:.2%}" in out
        assert "predicted" in out
        assert out.splitlines()[0] == f"weights  {path}"


@pytest.mark.parametrize(
    ("folder", "path"),
    [
        (".", "run"),
        (".", "run/model.safetensors"),
        (".", "run/checkpoint"),
        (".", "run/checkpoint/last.safetensors"),
        ("run", "model.safetensors"),
        ("run/checkpoint", "last.safetensors"),
    ],
)
def test_data_are_those_of_the_run_that_a_file_belongs_to(run, trained, monkeypatch, folder, path):
    monkeypatch.chdir(trained.parent / folder)
    code, out, _ = run("evaluate", path, "--limit-test", 5)
    assert code == 0
    assert "data     digits, 5 test images" in out
    fails(run, 2, "predict", path, "--index", 9999, says="--index must be below 360")
    fails(run, 2, "evaluate", path, "--dataset", "custom", says="custom is a data set of your own")


def test_file_that_belongs_to_no_run_is_looked_at_with_mnist(run, trained):
    shutil.copy(trained / "model.safetensors", "alone.safetensors")
    code, out, _ = run("evaluate", "alone.safetensors", "--limit-test", 5)
    assert code == 0
    assert "data     mnist, 5 test images" in out


def test_run_that_was_interrupted_has_a_checkpoint_only(run, trained):
    shutil.copytree(trained, "runs/stopped")
    Path("runs/stopped/model.safetensors").unlink()
    says = "finish it with train --resume runs/stopped, or give its checkpoint runs/stopped/check"
    for path in (["runs/stopped"], []):
        fails(run, 4, "predict", *path, "--index", 3, says=says)
    assert run("predict", "runs/stopped/checkpoint", "--index", 3)[0] == 0


def test_without_a_name_the_newest_finished_run_is_taken(run, trained):
    for age, name in enumerate(("stopped", "newer", "older")):
        shutil.copytree(trained, f"runs/{name}")
        os.utime(f"runs/{name}/config.json", (10_000 - age, 10_000 - age))
    Path("runs/stopped/model.safetensors").unlink()
    code, out, _ = run("evaluate", "--limit-test", 5)
    assert code == 0
    assert out.startswith("weights  runs/newer\n")
    assert "data     digits, 5 test images" in out
    code, out, _ = run("predict", "--index", 3)
    assert code == 0
    assert out.startswith("weights in runs/newer\n")
    assert run("train", "--resume", "--quiet")[1].rstrip().endswith("everything is in runs/stopped")


def test_next_command_looks_at_the_run(run, monkeypatch, tmp_path):
    """As the program was called: from wherever it is installed, or by an interpreter's name."""
    monkeypatch.setattr(sys, "orig_argv", [sys.executable, "mnist-accel", "train"])
    for folder, on_the_path in (("my run", True), ("other", False)):
        if on_the_path:
            script = tmp_path / "bin" / "mnist-accel"
            script.parent.mkdir()
            script.touch(mode=0o755)
        monkeypatch.setenv("PATH", str(tmp_path / "bin" if on_the_path else tmp_path))
        code, out, err = run("train", *QUICK, "--out", folder)
        assert code == 0
        assert "next:" not in out
        program = "mnist-accel" if on_the_path else f"{sys.executable} -m mnist_accel"
        line = f"next: {program} predict {shlex.quote(folder)} --index 0"
        assert err.splitlines()[-1] == line


def test_next_command_works_where_the_module_did():
    process = start(*QUICK, "--out", "run")
    _, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    command = err.splitlines()[-1].removeprefix("next: ")
    assert command == f"{sys.executable} -m mnist_accel predict run --index 0"
    done = subprocess.run(
        shlex.split(command),
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("weights in run\n")


def test_predict_by_index_and_by_image(run, trained):
    code, out, _ = run("predict", trained, "--index", 3, "--out", "three.png")
    assert code == 0
    assert "true label" in out
    assert len([line for line in out.splitlines() if "%" in line]) == 11
    with Image.open("three.png") as picture:
        assert picture.format == "PNG"
    digit = ma.load_mnist(normalize=False, flatten=False, dataset="digits")[1][0][3][0]
    Image.fromarray(255 - digit).resize((400, 300)).save("photo.jpg")
    code, out, _ = run("predict", trained, "--image", "photo.jpg")
    assert code == 0
    assert "true label" not in out
    assert Path("prediction.png").is_file()
    fails(run, 2, "predict", trained, "--index", 99999, says="--index must be below 360")
    for name in ("three.txt", "three", "."):
        says = f"--out: expected a file name that ends in .png, got {name!r}"
        fails(run, 2, "predict", trained, "--index", 3, "--out", name, says=says)
        assert not Path(name).is_file()
    Path("folder.png").mkdir()
    says = "cannot write the picture folder.png: Is a directory"
    fails(run, 4, "predict", "none", "--index", 3, "--out", "folder.png", says=says)
    says = "cannot write the picture photo.jpg/3.png: Not a directory; choose another --out"
    fails(run, 4, "predict", "none", "--index", 3, "--out", "photo.jpg/3.png", says=says)
    fails(run, 2, "predict", trained, says="one of the arguments --index --image is required")
    fails(run, 4, "predict", trained, "--image", "none.png", says="none.png")
    Path("text.png").write_text("no image")
    fails(run, 4, "predict", trained, "--image", "text.png", says="text.png")


def test_legacy_weights_load_through_the_restricted_reader(run):
    rng = np.random.default_rng(0)
    sizes = (784, 50, 100, 10)
    shapes = list(pairwise(sizes))
    state = {f"W{i}": rng.standard_normal(shape) for i, shape in enumerate(shapes, 1)}
    state |= {f"b{i}": rng.standard_normal(shape[1]) for i, shape in enumerate(shapes, 1)}
    Path("sample_weight.pkl").write_bytes(pickle.dumps(state))
    code, out, _ = run("evaluate", "sample_weight.pkl", "--dataset", "digits")
    assert code == 0
    assert "three-layer: 784 → linear 50 → sigmoid → linear 100" in out
    columns = {k: v.T if k[0] == "W" else v[:, None] for k, v in state.items()}
    np.save("parameters_500.npy", np.array(columns, dtype=object), allow_pickle=True)
    code, out, _ = run("evaluate", "parameters_500.npy", "--dataset", "digits")
    assert code == 0
    assert "fcnn: 784 → linear 50 → relu → linear 100" in out

    class Evil:
        def __reduce__(self):
            return os.system, ("touch pwned",)

    Path("evil.pkl").write_bytes(pickle.dumps({"W1": Evil()}))
    fails(run, 4, "evaluate", "evil.pkl", says="system")
    assert not Path("pwned").exists()


def test_wrong_model_files_are_4(run):
    fails(run, 4, "evaluate", says="there is no run in runs/ yet")
    fails(run, 4, "evaluate", "missing", says="there is no file or folder missing; give the")
    Path("folder").mkdir()
    says = "folder is not a run folder: it holds neither model.safetensors nor a checkpoint; give"
    fails(run, 4, "evaluate", "folder", says=says)
    fails(run, 4, "predict", "folder", "--index", 3, says=says)
    Path("junk.safetensors").write_bytes(b"junk")
    fails(run, 4, "evaluate", "junk.safetensors", says="not a whole safetensors file")


def test_gradcheck_passes_and_fails(run, monkeypatch):
    code, out, _ = run("gradcheck", "--model", "cnn", "--backend", "numba")
    assert code == 0
    assert "all gradients are within" in out
    fails(run, 2, "gradcheck", "--backend", "", says="unknown backend ''; choose auto, cupy")
    correct = NumpyBackend.relu_backward
    monkeypatch.setattr(NumpyBackend, "relu_backward", lambda *args: 1.01 * correct(*args))
    code, out, _ = run("gradcheck", "--model", "two-layer", "--backend", "numpy")
    assert code == 6
    assert "WRONG" in out


def test_compare_agrees_and_finds_what_differs(run, monkeypatch):
    class Skewed(NumpyBackend):
        """Adds a little where nobody would look."""

        name = "skewed"

        def relu(self, x):
            return super().relu(x) * np.float32(1.001)

    monkeypatch.setitem(registry._registered, Skewed.name, Skewed)
    arguments = ("compare", "--dataset", "digits", "--iterations", 3)
    code, out, _ = run(*arguments, "--model", "cnn")
    assert code == 0
    assert "no tensor differs by more than rounding" in out
    code, out, _ = run(*arguments, "--backends", "numpy,skewed")
    assert code == 6
    assert "DIFFERS: first at step 1, in the output of layer 2 (relu)" in out
    fails(run, 2, "compare", "--backends", "numpy", says="at least two names")


def test_every_command_has_help(run):
    for command in COMMANDS:
        code, out, _ = run(command, "--help")
        assert code == 0
        assert "exit codes:" in out
        assert "5    training diverged: the loss or a weight became NaN or infinite" in out
        assert "FOLDER" not in out  # as others say DIR
    code, out, _ = run("--help")
    assert code == 0
    assert all(f"  {command} " in out for command in COMMANDS)
    assert run("--version")[1].strip() == f"mnist-accel {ma.__version__}"


def test_modules_run_as_commands():
    for name in ("mnist_accel", "mnist_accel.train"):
        process = subprocess.run(
            [sys.executable, "-W", "error", "-m", name, "--help"],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
        )
        assert process.returncode == 0, process.stderr
        assert process.stdout.startswith(f"usage: python -m {name} ")
